"""What is not in a figure, and the commands that make it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.reports.tables import markdown_list
from harness.runs.composition import is_configuration, overrides_like, shell_command
from harness.runs.index import RunRecord, RunsFound
from hrlmg_jax.reports.results import TRAIN, WITHOUT_SEED, MethodRuns, describe_unfinished, preset


def closing_lines(
    found: RunsFound, left_out: Sequence[str], warnings: Sequence[str], commands: Sequence[str]
) -> list[str]:
    """Returns the Markdown that every figure ends with: what casts doubt on it, and what is not in it.

    Args:
        found: All runs.
        left_out: Why runs do not count; repetitions are shown once.
        warnings: What casts doubt on the comparison; likewise.
        commands: That make missing runs.
    """
    lists = {"Doubts": warnings, "Incomplete runs": describe_unfinished(found), "Left out": left_out}
    lines: list[str] = []
    for head, texts in lists.items():
        lines += [f"## {head}", "", *markdown_list([*dict.fromkeys(texts)]), ""] if texts else []
    lines += ["## Missing", "", "```bash", *commands, "```", ""] if commands else []
    return lines[:-1]


def missing_seeds(runs: Sequence[RunRecord], wanted: Sequence[int]) -> list[int]:
    """Returns the seeds that no run has; an unfinished run only has to be continued."""
    present = {run.settings["seed"] for run in runs}
    return [seed for seed in wanted if seed not in present]


def training_command(
    reference: RunRecord, chosen: Sequence[str], seeds: Sequence[int], like_reference: bool = False
) -> str:
    """Returns the command line that makes missing runs.

    Args:
        reference: A run whose log, simulator, schedule and tests they are to share.
        chosen: Overrides that choose the method, `agent=NAME` first.
        seeds: Of the runs.
        like_reference: Whether the agent, too, is to be that of the reference but for what is chosen.
    """
    data, (agent, *more) = [_data_choice(reference)], chosen
    whole = like_reference and is_configuration("agent", agent.partition("=")[2])
    base = [*data, agent] if whole else data
    relevant = _makes_a_difference([override.partition("=")[0] for override in more], whole)
    last = f"seed={','.join(map(str, seeds))}"
    arguments = [*data, *chosen, *overrides_like("train_hrl_mg", base, reference.values, relevant), last]
    return shell_command(TRAIN, [*(["-m"] if len(seeds) > 1 else []), *arguments])


def missing_methods(methods: Sequence[MethodRuns], names: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Returns the commands for methods, and seeds of them, that have no run.

    Args:
        methods: What there is; at least one run.
        names: Wanted, as `conf/agent` and `agent.name` have them.
        seeds: Wanted of each; the first one of methods on which the seed has no effect.
    """
    commands = []
    furthest = max((run for method in methods for run in method.runs), key=lambda run: run.step)
    for name in names:
        own = preset(methods, name)
        runs = own.runs if own else []
        if absent := missing_seeds(runs, seeds[:1] if name in WITHOUT_SEED else seeds):
            commands.append(training_command(runs[0] if runs else furthest, [f"agent={name}"], absent, bool(runs)))
    return commands


def _data_choice(reference: RunRecord) -> str:
    """Returns the override that chooses the data set of a run."""
    name = str(reference.settings.get("data.name"))
    if not is_configuration("data", name):
        name = "synthetic_funnel" if reference.settings.get("data.reader") == "synthetic_funnel" else "events_csv"
    return f"data={name}"


def _makes_a_difference(replaced: Sequence[str], whole: bool) -> Callable[[str], bool]:
    sections = ("data.", "env.", "simulator.", "train.", "evaluation.", *(("agent.",) if whole else ()))
    return lambda key: key.startswith(sections) and key not in replaced
