"""The agents by name.

Each is one module that defines two things:

* `Settings`, a dataclass that inherits from `hrlmg_jax.methods.AgentSettings`, filled from `conf/agent/NAME.yaml`;
* `build(problem, settings) -> Method`, for a `Problem` and those settings.

To add an agent, write its module, its line here and its yaml. An agent outside this package needs no line: its yaml
names the module by the key `module` (`docs/extending.md`).
"""

from __future__ import annotations

from harness.errors import UserError
from harness.extensions import ByModule
from hrlmg_jax.methods import AgentSettings, Method
from hrlmg_jax.problem import Problem

AGENTS = {
    "random": "hrlmg_jax.baselines.random_items",
    "popularity": "hrlmg_jax.baselines.popularity",
    "greedy_oracle": "hrlmg_jax.baselines.oracle",
    "planner": "hrlmg_jax.baselines.oracle",
    "python": "hrlmg_jax.baselines.python_function",
}
"""Modules, which are imported when they are asked for."""

HRL_MG = "hrlmg_jax.agent.hrl_mg"
"""The module of all other names: HRL-MG with any settings, its ablations, and DDPG and DNN, which are parts of it."""

ANY_AGENT = ByModule("agent", AgentSettings, ("build",), AGENTS, default=HRL_MG)
"""For the annotation of a field that holds an agent's settings."""


def build_method(problem: Problem, settings: AgentSettings) -> Method:
    """Builds the method that an agent's settings ask for.

    Raises:
        UserError: Settings that do not fit the data, or a module that cannot be used.
    """
    if problem.earlier is not None and settings.name in AGENTS:
        raise UserError(
            f"agent={settings.name} has no parameters that could be carried over",
            where="init_from",
            do="Leave init_from out, or choose an agent that learns.",
        )
    method: Method = ANY_AGENT.module_of(settings).build(problem, settings)
    return method
