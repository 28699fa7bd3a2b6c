"""Whether what is earned from learned users is earned from true ones: `python -m hrlmg_jax.trust [KEY=VALUE ...]`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig
from pydantic import Field

from harness.commands.command import hydra_command, run_command
from harness.compute.compilation_cache import keep_compiled_programs
from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.runs.run_folder import make_folder, read_json, write_json
from harness.settings import Count, Positive, Seed, SettingError, ShareBelowOne, read_settings
from hrlmg_jax.baselines.fixed_lists import fixed_rankings
from hrlmg_jax.evaluation.trust_bench import BenchConfig, run_bench
from hrlmg_jax.problem import Problem, check_catalogue, load_data
from hrlmg_jax.reports.trust import picture, table, thresholds_section
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model.store import Simulator, obtain_simulator
from sim.datasets.sessions import SessionData
from sim.tables.events import ShopName

RESULTS = "trust.json"


@dataclass(frozen=True)
class TrustConfig:
    """What to compare (`conf/trust.yaml` explains each)."""

    worlds: Annotated[list[Seed], Field(min_length=1)]
    shops: Annotated[list[ShopName], Field(min_length=1)]
    simulators: Annotated[list[str], Field(min_length=1)]
    agents: list[str]
    agent_steps: Annotated[list[Count], Field(min_length=1)]
    agents_on_truth: bool
    sessions: Count
    sessions_at_a_time: Count
    lengths: Annotated[list[Count], Field(min_length=1)]
    exploiter_generations: Count
    exploiter_size: Count
    exploiter_sessions: Count
    settings: list[str]
    read: list[str]
    choose_on: list[Seed]
    test_on: list[Seed]
    wrong_above: Positive
    fine_below: Positive
    false_alarms: ShareBelowOne
    out: str

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        if sorted(self.agent_steps) != self.agent_steps:
            raise SettingError(f".agent_steps is {self.agent_steps}", do="Give increasing numbers of training steps.")
        if both := sorted({*self.choose_on} & {*self.test_on}):
            raise SettingError(f".choose_on and .test_on share worlds {both}", do="Test on worlds not chosen on.")
        if self.fine_below > self.wrong_above:
            raise SettingError(f".fine_below is {self.fine_below:g}, above .wrong_above", do="Let it be at most that.")

    def bench(self) -> BenchConfig:
        """Returns the part that says how much is played."""
        return BenchConfig(
            self.sessions,
            self.sessions_at_a_time,
            tuple(self.lengths),
            tuple(self.agent_steps),
            self.agents_on_truth,
            self.exploiter_generations,
            self.exploiter_size,
            self.exploiter_sessions,
        )


@hydra_command("trust")
def main(composed: DictConfig) -> None:
    """Runs the bench on every log, and writes what was found after each."""
    keep_compiled_programs()
    config = read_settings(TrustConfig, composed)
    if config.read:
        entries = [entry for name in config.read for entry in _read(Path(name).expanduser() / RESULTS)["logs"]]
        print("\n".join([*table(entries), *_thresholds(config, entries)]))
        return
    folder = Path(config.out).expanduser()
    make_folder(folder)
    path = folder / RESULTS
    entries = _done(path, config)
    for world in config.worlds:
        for shop in config.shops:
            for simulator in config.simulators:
                log = {"world": world, "shop": shop, "simulator": simulator}
                if any(log.items() <= entry.items() for entry in entries):
                    continue
                print(f"world {world}, shop {shop}, simulator={simulator}", file=sys.stderr)
                entries.append({**log, "agents": config.agents, **_on_log(config, world, shop, simulator)})
                write_json(path, {"settings": _decisive(config), "logs": entries})
                text = "\n".join(table(entries))
                (folder / "trust.md").write_text(text + "\n", "utf-8")
                picture(folder / "trust.png", entries)
    print("\n".join([*table(entries), *_thresholds(config, entries)]))
    print(f"{path}, trust.md, trust.png")


def _decisive(config: TrustConfig) -> dict[str, Any]:
    """Returns the settings that results of one folder share."""
    bench = config.bench()
    return {**{key: getattr(bench, key) for key in ("sessions", "agents_on_truth")}, "settings": config.settings} | {
        "lengths": config.lengths,
        "agents": config.agents,
        "agent_steps": config.agent_steps,
        "exploiter": [config.exploiter_generations, config.exploiter_size, config.exploiter_sessions],
    }


def _done(path: Path, config: TrustConfig) -> list[dict[str, Any]]:
    """Returns what an earlier call has found, which need not be found again.

    Raises:
        UserError: It had other settings.
    """
    if not path.exists():
        return []
    found = _read(path)
    if found["settings"] != _decisive(config):
        raise UserError(
            "holds results of other settings", where=str(path), do="Set out=FOLDER to another one, or remove the file."
        )
    entries: list[dict[str, Any]] = found["logs"]
    return entries


def _read(path: Path) -> dict[str, Any]:
    """Returns the results of an earlier call: its settings, and logs, which name their agents.

    Raises:
        UserError: The file is missing, or no such results.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not {"settings", "logs"} <= found.keys():
        raise UserError("holds no results of the trust bench", where=str(path), do="Name a folder that it wrote.")
    agents = found["settings"]["agents"]
    return {**found, "logs": [{"agents": agents, **entry} for entry in found["logs"]]}


def _thresholds(config: TrustConfig, entries: list[dict[str, Any]]) -> list[str]:
    """Returns what the chosen worlds propose, if there are any."""
    if not config.choose_on:
        return []
    limits = config.wrong_above, config.fine_below, config.false_alarms
    return ["", *thresholds_section(entries, config.choose_on, config.test_on, *limits)]


def _on_log(config: TrustConfig, world: int, shop: str, simulator: str) -> dict[str, Any]:
    def words(kind: str) -> list[str]:
        return [f"data.seed={world}", f"data.shop={shop}", f"simulator={kind}", *config.settings]

    # The log, and users that are fitted to it; the other kind, where it is anyway, says how far values depend on that.
    values = composed_values("train_hrl_mg", words(simulator))
    run = read_settings(RunConfig, values)
    longest = max(*config.lengths, run.env.episode_length)
    data = load_data(run.fit(), longest)
    if not data.log.knows_users:
        do = "Leave data=synthetic_funnel, or take data=kuairec_small."
        raise UserError("only a generated or a complete log knows its users", where=data.log.name, do=do)
    check_catalogue(data, longest)
    others = [kind for kind in config.simulators if kind != simulator]
    fitted, *more = (_fitted(words(kind), data) for kind in (simulator, *others[:1]))
    second = more[0] if more else None
    problem = Problem(data, run.env, fitted, fixed_rankings(run.env, data), longest, second=second)
    # Agents, and what all of them are paid.
    agents = {
        agent: read_settings(RunConfig, composed_values("train_hrl_mg", [*words(simulator), f"agent={agent}"])).agent
        for agent in config.agents
    }
    report = {part: _scores(fitted.report[part]) for part in ("held_out", "test") if part in fitted.report}
    about = {"prediction": report, "dynamics": run.data.world or "trust"}
    return {**about, **run_bench(config.bench(), problem, agents, run.evaluation.off_policy)}


def _fitted(words: list[str], data: SessionData) -> Simulator:
    """Returns the users of some settings, fitted now unless they are kept."""
    values = composed_values("train_hrl_mg", words)
    fit = {key: values[key] for key in ("data", "env", "simulator")}
    return obtain_simulator(read_settings(RunConfig, values).fit(), fit, data)


def _scores(part: dict[str, Any]) -> dict[str, Any]:
    """Returns how well one part of the log is predicted."""
    losses = {key: part[key] for key in ("log_loss", "base_log_loss", "best_log_loss", "gap_closed")}
    of = {
        f"{name}_{key}": part[name][key]
        for name in ("click", "order")
        for key in ("auc", "calibration_error", "rate", "predicted_rate")
    }
    return losses | of


if __name__ == "__main__":
    run_command(main)
