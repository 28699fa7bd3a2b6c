"""An agent from outside the package: every item's mean reward, learned by trying items at random now and then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from harness.settings import Share
from harness.training.agent import Agent
from sim.envs.available_items import draw_item
from sim.envs.policy import Decision, Policy, scoring_policy
from sim.envs.rollout import TrainingEnvironment, rollout
from tpgr_jax.methods import AgentSettings, Method, RunContext
from tpgr_jax.problem import Problem


@dataclass(frozen=True)
class Settings(AgentSettings):
    """What `conf/agent/toy.yaml` holds."""

    exploration: Share


@flax.struct.dataclass
class ToyState:
    """What training changes: `total` [I] rewards and `count` [I] of each item, the step and the run's key."""

    total: jax.Array
    count: jax.Array
    step: jax.Array
    key: jax.Array


def init(key: jax.Array, num_items: int) -> ToyState:
    """Returns the state before the first step."""
    return ToyState(jnp.zeros(num_items), jnp.zeros(num_items), jnp.int32(0), key)


def make_policy(exploration: float, num_items: int) -> Policy:
    """Returns the policy of the items' mean rewards [I]: the best item; where it explores, sometimes a random one."""
    greedy = scoring_policy(_no_carry, _same_scores)

    def act(means: Any, carry: Any, observation: Any, key: jax.Array, explore: bool) -> tuple[Any, Decision]:
        carry, decision = greedy.act(means, carry, observation, key, explore)
        if not explore:
            return carry, decision
        coin_key, draw_key = jax.random.split(key)
        drawn = draw_item(draw_key, observation.step, observation.recommended, num_items)
        tries = jax.random.uniform(coin_key, drawn.shape) < exploration
        return carry, Decision(jnp.where(tries, drawn, decision.action), decision.log_prob)

    return Policy(_no_carry, act, greedy.rank)


def _no_carry(means: jax.Array, batch_size: int) -> tuple[()]:
    return ()


def _same_scores(means: jax.Array, carry: Any, observation: Any) -> tuple[Any, jax.Array]:
    return carry, jnp.broadcast_to(means, (*observation.step.shape, *means.shape))


def means_of(state: ToyState) -> jax.Array:
    """Returns [I] mean rewards, 0 for items that were never tried."""
    return state.total / jnp.maximum(state.count, 1)


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    env: TrainingEnvironment = problem.env
    policy = make_policy(settings.exploration, env.num_items)

    def train_step(state: ToyState, env_params: Any) -> tuple[ToyState, dict[str, jax.Array]]:
        start_key, key = jax.random.split(jax.random.fold_in(state.key, state.step))
        starts = env.draw_starts(start_key, env_params, run.episodes_per_step)
        played = rollout(env, env_params, policy, means_of(state), starts, key, explore=True)
        item, reward = played.item.ravel(), played.reward.ravel()
        state = ToyState(state.total.at[item].add(reward), state.count.at[item].add(1), state.step + 1, state.key)
        return state, {"reward": jnp.mean(reward)}

    return Method(
        settings.result_name,
        Agent(
            lambda key, env_params: init(key, env.num_items),
            lambda state: state,
            train_step,
            problem.env_params,
            run.episodes_per_step,
        ),
        policy,
        means_of,
        False,
        f"{settings.name}: means of {env.num_items:,} items",
    )
