"""Episodes on one world, with NumPy outside and compiled programs inside; what both kinds of environments share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from harness.errors import UserError
from sim.gym.batches import Reset, Running, advance, begin, keys_of
from sim.gym.worlds import World

Observation = dict[str, np.ndarray]
METADATA: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
MASK = "action_mask"


def observation_space(world: World) -> Any:
    """Returns the space of a single environment's observations."""
    boxes: dict[str, spaces.Space[Any]] = {
        name: spaces.Box(np.full(shape, low, dtype), np.full(shape, high, dtype), dtype=dtype)
        for name, (low, high, shape, dtype) in world.view.bounds().items()
    }
    return spaces.Dict(boxes)


def action_masks(items: np.ndarray, num_items: int, repeats: bool) -> np.ndarray:
    """Returns [B, I] int8, 1 for the items that can be recommended after [B, T] items, padded with -1."""
    masks = np.ones((len(items), num_items), np.int8)
    if not repeats:
        rows, steps = np.nonzero(items >= 0)
        masks[rows, items[rows, steps]] = 0
    return masks


class Episodes:
    """B environments on one world: what single environments and vectors of them share."""

    def __init__(self, world: World, number: int, reset: Reset) -> None:
        """Takes a simulator, B, and when an episode that has ended starts anew."""
        self.world, self.number = world, number
        self._reset = reset
        self._starts = jnp.asarray(world.starts)
        self._running: Running | None = None
        self._observation: Any = None
        self.ended: np.ndarray | None = None
        """[B] bool, whether each episode has ended; None before the first."""
        self.items = np.zeros((number, 0), np.int32)
        """[B, T] the items recommended so far."""
        self._playing = np.zeros(number, np.int32)
        order = np.argsort(world.starts, kind="stable")
        self._user_of = world.user_ids[order], world.starts[order]

    def begin(self, seeds: np.ndarray | None, chosen: np.ndarray, where: np.ndarray | None = None) -> Observation:
        """Starts episodes: the first after [B] seeds (uint32), or the next ones; only those `where` [B] says so."""
        if seeds is not None:
            keys, numbers = keys_of(jnp.asarray(seeds, jnp.uint32)), jnp.zeros(self.number, jnp.int32)
        else:
            assert self._running is not None
            keys, numbers = self._running.key, self._running.number + 1
        world = self.world
        observation, running = begin(world.view, world.params, self._starts, keys, numbers, jnp.asarray(chosen))
        if where is not None and self._running is not None:
            before = self._observation, self._running
            observation, running = jax.tree.map(
                lambda new, old: jnp.where(where.reshape(-1, *[1] * (new.ndim - 1)), new, old),
                (observation, running),
                before,
            )
        self._observation, self._running = observation, running
        told, ended, playing = jax.device_get((observation, running.ended, world.view.start_of(running.viewed)))
        return self._told(told, ended, playing)

    def advance(self, action: np.ndarray) -> tuple[Observation, Any]:
        """Takes a step with [B] items; returns observations and the rest of `batches.Stepped` as NumPy arrays."""
        assert self._running is not None
        world = self.world
        stepped = advance(
            world.view, self._reset, world.params, self._starts, self._running, np.asarray(action, np.int32)
        )
        self._observation, self._running = stepped.observation, stepped.running
        final = stepped.final if self._reset is Reset.SAME_STEP else None
        told, ended, rest = jax.device_get(
            (stepped.observation, stepped.running.ended, stepped._replace(running=None, observation=None, final=final))
        )
        return self._told(told, ended, rest.playing), rest

    def _told(self, observation: Any, ended: np.ndarray, playing: np.ndarray) -> Observation:
        told = {name: np.array(leaf) for name, leaf in observation.items()}
        self.ended, self._playing, self.items = ended, playing, told["items"].copy()
        return told

    def masks(self) -> np.ndarray:
        """Returns [B, I] int8 what can be recommended now."""
        view = self.world.view
        return action_masks(self.items, view.num_items, view.repeats)

    def users(self) -> np.ndarray:
        """Returns [B] original ids of the users who are played with."""
        return self.users_of(self._playing)

    def users_of(self, starts: np.ndarray) -> np.ndarray:
        """Returns [B] original ids of the users of episodes."""
        ids, ordered = self._user_of
        return ids[np.searchsorted(ordered, starts)]


def check_render_mode(mode: str | None) -> None:
    """Raises UserError unless an environment can be rendered so."""
    if mode not in (None, "ansi"):
        raise UserError(f"render_mode is {mode!r}", do="Use ansi, or none.")


def row_of(observation: Observation, row: int = 0) -> Observation:
    """Returns a copy of the observation of one environment of several."""
    return {name: np.array(value[row]) for name, value in observation.items()}


def copied(observation: Observation) -> Observation:
    """Returns a copy that may be written to."""
    return {name: value.copy() for name, value in observation.items()}
