"""The simulators by the interface of gymnax 1.0: pure functions that start a new episode where one has ended.

    env = GymnaxView(make_world(RATINGS, {"data": "movielens_1m"}))
    observation, state = env.reset(key)
    observation, state, reward, terminated, truncated, info = env.step(key, state, action)

They can be jitted, vmapped and scanned. Make `params` an argument of what you compile, or the tables become constants
of the program. Observations are dictionaries of arrays (`sim.gym.views`), spaces have what gymnax's have; gymnax itself
is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from sim.envs.available_items import hide_recommended
from sim.gym.views import Observation, Viewed
from sim.gym.worlds import World


@flax.struct.dataclass
class Params:
    """What is traced: `tables` of the simulator, and `starts` [S] int32, the episodes that `reset` draws from."""

    tables: Any
    starts: jax.Array


@dataclass(frozen=True)
class Discrete:
    """The numbers 0 to n - 1."""

    n: int
    shape: tuple[int, ...] = ()
    dtype: Any = jnp.int32

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws one uniformly."""
        return jax.random.randint(key, self.shape, 0, self.n, self.dtype)

    def contains(self, x: Any) -> jax.Array:
        """Returns whether a number is one of them."""
        return (jnp.asarray(x) >= 0) & (jnp.asarray(x) < self.n)


@dataclass(frozen=True)
class Box:
    """Arrays of a shape and type, with entries from `low` to `high`."""

    low: float
    high: float
    shape: tuple[int, ...]
    dtype: Any

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws one uniformly."""
        if jnp.issubdtype(self.dtype, jnp.integer):
            return jax.random.randint(key, self.shape, int(self.low), int(self.high) + 1, self.dtype)
        return jax.random.uniform(key, self.shape, self.dtype, self.low, self.high)

    def contains(self, x: Any) -> jax.Array:
        """Returns whether an array is one of them."""
        return jnp.all((jnp.asarray(x) >= self.low) & (jnp.asarray(x) <= self.high))


@dataclass(frozen=True)
class Dict:
    """Dictionaries with an entry from each of some spaces."""

    spaces: Mapping[str, Box]

    def sample(self, key: jax.Array) -> Observation:
        """Draws each entry uniformly."""
        keys = jax.random.split(key, len(self.spaces))
        return {name: space.sample(each) for each, (name, space) in zip(keys, self.spaces.items(), strict=True)}

    def contains(self, x: Mapping[str, Any]) -> jax.Array:
        """Returns whether a dictionary is one of them."""
        return jnp.all(jnp.stack([space.contains(x[name]) for name, space in self.spaces.items()]))


@dataclass(frozen=True, eq=False)
class GymnaxView:
    """A simulator as gymnax writes its environments; hashable, as static arguments of jit must be.

    Attributes:
        world: See `sim.gym.worlds.make_world`.
    """

    world: World

    @property
    def name(self) -> str:
        """Of the data."""
        return self.world.name

    @property
    def default_params(self) -> Params:
        """The simulator's tables, and the users of the world's split."""
        return Params(self.world.params, jnp.asarray(self.world.starts))

    @property
    def num_actions(self) -> int:
        """I."""
        return self.world.view.num_items

    def action_space(self, params: Params | None = None) -> Discrete:
        """Returns the numbers of the items."""
        return Discrete(self.num_actions)

    def observation_space(self, params: Params | None = None) -> Dict:
        """Returns the arrays of an observation."""
        return Dict({name: Box(*bounds) for name, bounds in self.world.view.bounds().items()})

    def action_mask(self, observation: Observation) -> jax.Array:
        """Returns [I] bool, which items can be recommended now; every one where items may come again."""
        view = self.world.view
        every = jnp.zeros((view.num_items,))
        return (every if view.repeats else hide_recommended(every, observation["items"])) == 0

    def reset(self, key: jax.Array, params: Params | None = None) -> tuple[Observation, Viewed]:
        """Starts an episode drawn uniformly."""
        return self.reset_env(key, self.default_params if params is None else params)

    def step(
        self, key: jax.Array, state: Viewed, action: int | jax.Array, params: Params | None = None
    ) -> tuple[Observation, Viewed, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """Recommends an item. Where the episode ends with it, observation and state are the first of another one.

        Returns:
            Observation, state, reward, terminated (always False), truncated, and info, whose `final_observation` is the
            one after the step, whatever ended.
        """
        return self._step(key, state, action, self.default_params if params is None else params)

    @partial(jax.jit, static_argnames="self")
    def _step(
        self, key: jax.Array, state: Viewed, action: int | jax.Array, params: Params
    ) -> tuple[Observation, Viewed, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        step_key, reset_key = jax.random.split(key)
        observation, stepped, reward, terminated, truncated, info = self.step_env(step_key, state, action, params)
        first = self.reset_env(reset_key, params)
        begun = jax.tree.map(lambda new, old: jnp.where(truncated, new, old), first, (observation, stepped))
        info |= {"terminated": terminated, "truncated": truncated, "final_observation": observation}
        return *begun, reward, terminated, truncated, info

    @partial(jax.jit, static_argnames="self")
    def reset_env(self, key: jax.Array, params: Params) -> tuple[Observation, Viewed]:
        """Starts an episode drawn uniformly."""
        return self.world.view.reset_at(jax.random.choice(key, params.starts), params.tables)

    def step_env(
        self, key: jax.Array, state: Viewed, action: int | jax.Array, params: Params
    ) -> tuple[Observation, Viewed, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """Recommends an item and starts nothing; truncated says that the episode has ended."""
        step = self.world.view.step(key, state, jnp.asarray(action, jnp.int32), params.tables)
        return step.observation, step.viewed, step.reward, jnp.bool_(False), step.truncated, step.info
