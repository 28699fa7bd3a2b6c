"""The agents by name.

An agent is one module that defines two things:

* `Settings`, a dataclass that inherits from `tpgr_jax.methods.AgentSettings` and is filled from `conf/agent/NAME.yaml`;
* `build(problem, settings, run) -> Method`, for a `Problem`, those settings and a `RunContext`.

To add an agent, write its module, its line here and its yaml. An agent outside this package needs no line: its yaml
names the module by the key `module` (`docs/extending.md`).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from harness.errors import UserError
from harness.extensions import ByModule
from sim.envs.rating_env import Observation
from tpgr_jax.methods import AgentSettings, Method, RunContext
from tpgr_jax.problem import Problem

AGENTS = {
    "tpgr": "tpgr_jax.agents.tpgr",
    "tpgr_plus": "tpgr_jax.agents.tpgr_plus",
    "dqn_r": "tpgr_jax.baselines.dqn_r",
    "ddpg_knn": "tpgr_jax.baselines.ddpg_knn",
    "ddpg_r": "tpgr_jax.baselines.ddpg_r",
    "popularity": "tpgr_jax.baselines.popularity",
    "greedy_svd": "tpgr_jax.baselines.greedy_svd",
    "linear_ucb": "tpgr_jax.baselines.linear_ucb",
    "hlinear_ucb": "tpgr_jax.baselines.hlinear_ucb",
    "gaussian_posterior": "tpgr_jax.baselines.gaussian_posterior",
    "python": "tpgr_jax.baselines.python_function",
}
"""Modules, which are imported when they are asked for."""

_OBSERVED: dict[str, tuple[str, ...]] = {
    "popularity": ("recommended",),
    "python": (),
    "tpgr_plus": (),  # checks itself
}
"""Fields of an observation that agents read; those without an entry read all of `Observation`."""

_CARRIED_OVER = ("tpgr", "dqn_r")
"""Agents that can start from an earlier run: their parameters belong to single items, or to none."""

ANY_AGENT = ByModule("agent", AgentSettings, ("build",), AGENTS)
"""For the annotation of a field that holds an agent's settings."""


def build_method(problem: Problem, settings: AgentSettings, run: RunContext) -> Method:
    """Builds the method that an agent's settings ask for.

    Raises:
        UserError: Settings that do not fit the data, a damaged tree, or a module that cannot be used.
    """
    if settings.module is None:
        _check_observation(problem, settings.name)
        if run.earlier is not None and settings.name not in _CARRIED_OVER:
            raise UserError(
                f"agent={settings.name} learns from vectors that are computed from all ratings: parameters that were "
                "learned from others mean nothing to it",
                where="init_from",
                do=f"Set init_from=null, or choose agent={' or '.join(_CARRIED_OVER)}.",
            )
    method: Method = ANY_AGENT.module_of(settings).build(problem, settings, run)
    return method


def _check_observation(problem: Problem, name: str) -> None:
    """Refuses a user's simulator whose observations lack what one of our agents reads."""
    observation = jax.eval_shape(problem.env.reset_at, jnp.int32(0), problem.env_params)[0]
    fields = _OBSERVED.get(name, [field.name for field in dataclasses.fields(Observation)])
    if missing := [field for field in fields if not hasattr(observation, field)]:
        raise UserError(
            f"{name} reads {', '.join(missing)} of each observation, which {type(problem.env).__name__} does not give",
            where="env.module",
            do="Add the fields to the simulator's observation (docs/extending.md), or choose another agent.",
        )
