"""The simulators as environments of Gymnasium, one user at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import error, spaces

from sim.gym.batches import Reset
from sim.gym.episodes import MASK, METADATA, Episodes, Observation, check_render_mode, copied, observation_space, row_of
from sim.gym.transcript import transcript
from sim.gym.worlds import World


class RecommendationEnv(gymnasium.Env[Observation, np.int64]):
    """One user at a time, who answers one recommendation after another. Made by `gymnasium.make`.

    An action is the number of an item (`item_ids[action]` is its id). An episode ends after T recommendations, by
    truncation. `reset(options={"user": ID})` plays with a certain user.

    Attributes:
        item_ids: [I] original ids of the items.
        world: The simulator.
    """

    metadata = METADATA

    def __init__(self, world: World, masks: bool = True, render_mode: str | None = None) -> None:
        """Takes a simulator.

        Args:
            world: See `sim.gym.worlds.make_world`.
            masks: Whether `info` has `action_mask`, an array over all items.
            render_mode: ansi, or None.
        """
        check_render_mode(render_mode)
        self.world, self.render_mode, self._masks = world, render_mode, masks
        self.item_ids = world.item_ids
        self.observation_space = observation_space(world)
        self.action_space = spaces.Discrete(world.view.num_items)
        self._episodes = Episodes(world, 1, Reset.NEVER)
        self._rewards: list[float] = []
        self._last: Observation = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode with a user drawn at random, or the one that `options` names.

        Raises:
            UserError: There is no such user.
        """
        super().reset(seed=seed)
        seeds = None
        if seed is not None or self._episodes.ended is None:
            seeds = np.array([int(self.np_random.integers(2**31) if seed is None else seed) % 2**32], np.uint32)
        user = (options or {}).get("user")
        chosen = -1 if user is None else self.world.start_of(user)
        self._last = row_of(self._episodes.begin(seeds, np.array([chosen], np.int32)))
        self._rewards = []
        return copied(self._last), self._info({})

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Recommends an item; see `gymnasium.Env.step`.

        Raises:
            gymnasium.error.InvalidAction: No item has this number.
            gymnasium.error.ResetNeeded: The episode has ended, or none was begun.
        """
        ended = self._episodes.ended
        if ended is None or ended[0]:
            raise error.ResetNeeded("the episode has ended, or none has begun: call reset()")
        if not self.action_space.contains(action):
            raise error.InvalidAction(
                f"{action!r} is the number of no item: they are 0 to {self.world.view.num_items - 1}"
            )
        observation, rest = self._episodes.advance(np.asarray([action]))
        self._last = row_of(observation)
        self._rewards.append(float(rest.reward[0]))
        facts = {name: value[0].item() for name, value in rest.info.items()}
        return copied(self._last), self._rewards[-1], False, bool(rest.truncated[0]), self._info(facts)

    def action_masks(self) -> np.ndarray:
        """Returns [I] bool, which items can be recommended now (the name that sb3-contrib looks for)."""
        return self._episodes.masks()[0].astype(bool)

    def render(self) -> str | None:
        """Returns the episode so far as text, with the titles of items."""
        if self.render_mode is None:
            return None
        if not self._last:
            raise error.ResetNeeded("no episode has begun: call reset()")
        return transcript(self.world, self._episodes.users()[0], self._last, self._rewards)

    def _info(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        masks = {MASK: self._episodes.masks()[0]} if self._masks else {}
        return {"user": self._episodes.users()[0].item(), **facts, **masks}
