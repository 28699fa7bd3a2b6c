"""The compared methods behind one interface: what each trains, if anything, and how it takes part in the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from harness.training.agent import Agent
from hrlmg_jax.agent.learner import HrlState
from hrlmg_jax.evaluation.policies import Contestant, fixed_list, learned, oracle, random_items
from hrlmg_jax.problem import Problem, make_learner
from hrlmg_jax.settings import OracleAgent, PopularityAgent, RunConfig, TwoLevelAgent


class Method(NamedTuple):
    """A method, ready to be trained and tested.

    Attributes:
        agent: What the outer loop trains; None if there is nothing to train.
        best: `state -> contestant`, with the best networks of a state so far (the state is None without an agent).
        newest: The same with the newest networks.
        step_of_best: `state -> training steps` that the best networks have had.
        describe: `state -> one line about its size`; shapes will do.
    """

    agent: Agent | None
    best: Callable[[Any], Contestant]
    newest: Callable[[Any], Contestant]
    step_of_best: Callable[[Any], int]
    describe: Callable[[Any], str]


def make_method(config: RunConfig, problem: Problem) -> Method:
    """Builds the method that a configuration asks for."""
    if isinstance(config.agent, TwoLevelAgent):
        return _two_level(config, config.agent, problem)
    contestant = _untrained(config, problem)
    name = config.agent.name
    return Method(None, lambda _: contestant, lambda _: contestant, lambda _: 0, lambda _: f"{name}: nothing to train")


def _two_level(config: RunConfig, agent: TwoLevelAgent, problem: Problem) -> Method:
    learner, world = make_learner(config, problem)

    def keep_best(state: HrlState, found: dict[str, float]) -> HrlState:
        return learner.keep_best(state, found["validation_reward"])

    def describe(state: HrlState) -> str:
        replays = f"{state.low_replay.bytes_per_row} bytes per transition"
        if state.high_replay is not None:
            replays += f", {state.high_replay.bytes_per_row} per window"
        return f"{agent.name}: {agent.learner.sessions} sessions side by side, replay {replays}"

    trained = Agent(
        init=learner.init,
        pretrain=lambda state: state,
        train_step=learner.train_step,
        world=world,
        episodes_per_step=agent.learner.sessions / config.env.episode_length,
        after_evaluation=keep_best,
    )
    return Method(
        trained,
        lambda state: learned(config, problem, learner, learner.acting_params(state, world)),
        lambda state: learned(config, problem, learner, learner.current_params(state, world)),
        lambda state: int(state.best.step),
        describe,
    )


def _untrained(config: RunConfig, problem: Problem) -> Contestant:
    agent = config.agent
    if isinstance(agent, PopularityAgent):
        return fixed_list(problem.rankings[agent.ranking], problem.data.log.num_items, config.evaluation.long)
    if isinstance(agent, OracleAgent):
        return oracle(config.env, problem.data.num_items, agent.trust_weight)
    return random_items(problem)
