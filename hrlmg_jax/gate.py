"""Checks that a generated log is worth learning from: `python -m hrlmg_jax.gate [data.seed=1] [KEY=VALUE ...]`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.errors import UserError
from harness.settings import Count, read_settings
from hrlmg_jax.baselines.oracle import Settings as OracleSettings
from hrlmg_jax.baselines.oracle import oracle
from hrlmg_jax.evaluation.online import OnlineTest, make_player
from hrlmg_jax.problem import make_env, true_env_params
from sim.datasets.events import log_statistics
from sim.datasets.log_settings import LogConfig
from sim.datasets.sessions import load_sessions
from sim.envs.nearest_items import map_rows
from sim.envs.session_env import SessionConfig, SessionEnv, SessionParams
from sim.generators.funnel import CLICK_RATE, ORDER_RATE
from sim.generators.funnel_truth import true_users

_RATE_TOLERANCE = 0.1
_LEAST_PLANNING = 1.3
_LEAST_LEFT, _MOST_LEFT = 0.1, 0.9
_HELD_OUT, _SEED = 0.1, 0  # the parts of training users play no role here


@dataclass(frozen=True)
class GateConfig:
    """What to check (`conf/gate.yaml`)."""

    data: LogConfig
    env: SessionConfig
    agent: OracleSettings
    sessions: Count
    sessions_at_a_time: Count


class Check(NamedTuple):
    """One measurement: what, its value, the least and most that it may be, and how it came about."""

    name: str
    value: float
    least: float
    most: float
    note: str

    @property
    def passed(self) -> bool:
        """Whether the value is in its range."""
        return self.least <= self.value <= self.most

    def __str__(self) -> str:
        """One line."""
        bounds = [f">= {self.least:.4g}", *([f"<= {self.most:.4g}"] if math.isfinite(self.most) else [])]
        verdict = "pass" if self.passed else "FAIL"
        return f"{verdict}  {self.name}: {self.value:.4g} ({' and '.join(bounds)}); {self.note}"


@hydra_command("gate")
def main(composed: DictConfig) -> None:
    """Prints the checks of a generated log."""
    checks = check_generator(read_settings(GateConfig, composed))
    print("\n".join(map(str, checks)))
    if not all(check.passed for check in checks):
        raise SystemExit(1)


def check_generator(config: GateConfig) -> list[Check]:
    """Generates a log and plays with the users who wrote it.

    Raises:
        UserError: The log is not a generated one, or has too few items.
    """
    data = load_sessions(config.data, _HELD_OUT, _SEED)
    length = config.env.episode_length
    if data.log.generator is None:
        raise UserError("only a generated log knows its users", where=data.log.name, do="Choose data=synthetic_funnel.")
    if data.num_items < length:
        raise UserError(
            f"{data.log.name} has {data.num_items} items, a session recommends {length} different ones",
            do=f"Set env.episode_length to at most {data.num_items}.",
        )
    train = log_statistics(data.log)["parts"]["train"]
    source = f"{train['samples']:,} impressions of the first day"
    rates = [
        _within(name, train[name], wanted, source)
        for name, wanted in (("click_rate", CLICK_RATE), ("order_rate", ORDER_RATE))
    ]
    rows = data.spread_first_rows("test", config.sessions)
    env = make_env(config.env, true_users(data.log), length)
    env_params = true_env_params(data, rows)
    play = make_player(env, env_params, config.sessions_at_a_time)
    planner, greedy = (play(oracle(config.env, data.num_items, weight)) for weight in (config.agent.trust_weight, 0.0))
    return [*rates, _planning(planner, greedy), *_conflict(env, env_params, data.num_items)]


def _within(name: str, value: float, wanted: float, note: str) -> Check:
    least, most = (1 - _RATE_TOLERANCE) * wanted, (1 + _RATE_TOLERANCE) * wanted
    return Check(name.replace("_", " "), value, least, most, f"Table 1: {wanted:.4g}; {note}")


def _planning(planner: OnlineTest, greedy: OnlineTest) -> Check:
    number, length = greedy.items.shape
    first, second = (float(test.reward.sum(1).mean()) for test in (planner, greedy))
    note = f"reward per session {first:.1f} / {second:.1f}, {number:,} sessions of {length}"
    return Check("planner / greedy oracle", first / second, _LEAST_PLANNING, math.inf, note)


def _conflict(env: SessionEnv, env_params: SessionParams, num_items: int) -> list[Check]:
    """Compares each session's best items for clicks and for orders before the first recommendation."""
    chances = np.asarray(_chances_of_best(env, env_params, num_items)).mean(0)
    checks = []
    for kind, name, other in ((0, "clicks", "orders"), (1, "orders", "clicks")):
        best, left = float(chances[kind, kind]), float(chances[1 - kind, kind])
        note = f"chance {left:.4g} in place of {best:.4g} at the first step"
        name = f"{name} left by the best items for {other}"
        checks.append(Check(name, left / best, _LEAST_LEFT, _MOST_LEFT, note))
    return checks


@partial(jax.jit, static_argnums=(0, 2))
def _chances_of_best(env: SessionEnv, env_params: SessionParams, num_items: int) -> jax.Array:
    """Returns [n, 2, 2] the chances of a click and an order that the best items for each have at the first step."""

    def of_session(start: jax.Array) -> jax.Array:
        _, state = env.reset_at(start, env_params)

        def of_item(item: jax.Array) -> jax.Array:
            skip, _, order = env.model.probabilities(env_params.model, state.hidden, state.histories, item)
            return jnp.stack([1 - skip, order])

        chances = jax.vmap(of_item)(jnp.arange(num_items))
        return chances[jnp.argmax(chances, 0)]

    return map_rows(of_session, jnp.arange(env_params.rows.shape[0]), num_items)


if __name__ == "__main__":
    run_command(main)
