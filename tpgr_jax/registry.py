"""The agents by name.

An agent is one module that defines two things:

* `Settings`, a dataclass that inherits from `tpgr_jax.methods.AgentSettings` and is filled from `conf/agent/NAME.yaml`;
* `build(problem, settings, run) -> Method`, for a `Problem`, those settings and a `RunContext`.

To add an agent, write its module, its line here and its yaml. An agent outside this package needs no line: its yaml
names the module by the key `module` (`docs/extending.md`).
"""

from __future__ import annotations

from harness.extensions import ByModule
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
}
"""Modules, which are imported when they are asked for."""

ANY_AGENT = ByModule("agent", AgentSettings, ("build",), AGENTS)
"""For the annotation of a field that holds an agent's settings."""


def build_method(problem: Problem, settings: AgentSettings, run: RunContext) -> Method:
    """Builds the method that an agent's settings ask for.

    Raises:
        UserError: Settings that do not fit the data, a damaged tree, or a module that cannot be used.
    """
    method: Method = ANY_AGENT.module_of(settings).build(problem, settings, run)
    return method
