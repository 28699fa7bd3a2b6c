"""A simulator from outside the package: a user clicks on an item that she likes, but not always."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.settings import Count, Share
from sim.envs.available_items import recommended_before
from sim.envs.policy import Decision, Policy
from sim.envs.simulator import EnvSettings, Simulator
from sim.tables.ratings import RatingData


@dataclass(frozen=True)
class Settings(EnvSettings):
    """What `conf/env/toy.yaml` holds."""

    episode_length: Count
    attention: Share


@flax.struct.dataclass
class ToyParams:
    """Tables: `liked` [U, I] bool, `users` [n] int32 to train with, `attention` chance of a click on a liked item."""

    liked: jax.Array
    users: jax.Array
    attention: jax.Array


@flax.struct.dataclass
class ToyState:
    """One episode: its user, the steps made, and [T] int32 items recommended (-1 = not yet)."""

    user: jax.Array
    step: jax.Array
    recommended: jax.Array


@flax.struct.dataclass
class ToyObservation:
    """What a policy sees: steps made, [T] items recommended, the last of them (-1: none) and its reward."""

    step: jax.Array
    recommended: jax.Array
    last_item: jax.Array
    last_reward: jax.Array


class ToyTrajectory(NamedTuple):
    """What is kept of every step, [T, B] each."""

    item: jax.Array
    reward: jax.Array
    hit: jax.Array


@dataclass(frozen=True)
class ToyEnv:
    """The functions of `sim.envs.rollout.TrainingEnvironment`."""

    num_items: int
    episode_length: int
    first_decision: int = 0

    def draw_starts(self, key: jax.Array, params: ToyParams, number: int) -> jax.Array:
        """Draws training users."""
        return jax.random.choice(key, params.users, (number,))

    def recommended_before(self, items: jax.Array, steps: jax.Array | None = None) -> jax.Array:
        """See `sim.envs.available_items.recommended_before`."""
        return recommended_before(items, steps)

    def prepare(self, policy: Policy) -> Policy:
        """Lets the policy decide every step."""
        return policy

    def reset_at(self, start: jax.Array, params: ToyParams) -> tuple[ToyObservation, ToyState]:
        """Starts an episode with a user."""
        none = jnp.full((self.episode_length,), -1, jnp.int32)
        state = ToyState(start, jnp.int32(0), none)
        return ToyObservation(state.step, none, jnp.int32(-1), jnp.float32(0)), state

    def step(self, key: jax.Array, state: ToyState, action: jax.Array, params: ToyParams) -> tuple[Any, ...]:
        """Pays 1 for a click; an item that was recommended before gets none."""
        new = jnp.all(state.recommended != action)
        hit = params.liked[state.user, action] & new
        reward = (hit & (jax.random.uniform(key) < params.attention)).astype(jnp.float32)
        state = ToyState(state.user, state.step + 1, state.recommended.at[state.step].set(action))
        observation = ToyObservation(state.step, state.recommended, action, reward)
        return observation, state, reward, jnp.bool_(False), state.step >= self.episode_length, hit

    def record(self, observation: ToyObservation, decision: Decision, reward: jax.Array, info: jax.Array) -> Any:
        """Keeps item, reward and whether the user likes the item."""
        return ToyTrajectory(decision.action, reward, info)


def build(settings: Settings, data: RatingData, train_users: np.ndarray, relevant_above: float) -> Simulator:
    """Builds the simulator (see `sim.envs.simulator.make_simulator`)."""
    liked = np.nan_to_num(data.rating_values) > relevant_above  # by rating code; "not rated" is NaN
    table = data.matrix(liked.astype(float)).toarray() > 0
    params = ToyParams(jnp.asarray(table), jnp.asarray(train_users, jnp.int32), jnp.float32(settings.attention))
    return Simulator(ToyEnv(data.num_items, settings.episode_length), params, liked.astype(float))
