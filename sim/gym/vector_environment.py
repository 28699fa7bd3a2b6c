"""The simulators as vector environments of Gymnasium, which step in one compiled program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import error, spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from harness.errors import UserError
from sim.gym.batches import Reset
from sim.gym.episodes import (
    MASK,
    METADATA,
    Episodes,
    Observation,
    action_masks,
    check_render_mode,
    copied,
    observation_space,
    row_of,
)
from sim.gym.transcript import transcript
from sim.gym.worlds import World

_RESETS = {
    AutoresetMode.NEXT_STEP: Reset.NEXT_STEP,
    AutoresetMode.SAME_STEP: Reset.SAME_STEP,
    AutoresetMode.DISABLED: Reset.NEVER,
}


class RecommendationVectorEnv(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """Many users at once, who answer in one compiled program. Made by `gymnasium.make_vec`.

    With seed s, environment i plays as a single one with seed s + i. `metadata["autoreset_mode"]` says what happens
    where an episode has ended: NEXT_STEP (the default; the next step starts another episode, whatever the action, with
    reward 0), SAME_STEP (the step returns the first observation of the next episode, and `info` has the last one of the
    old: `final_obs`, `final_info`) or DISABLED (call `reset(options={"reset_mask": [...]})`).
    """

    def __init__(
        self,
        world: World,
        num_envs: int,
        masks: bool = True,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        """Takes a simulator; see `RecommendationEnv`.

        Args:
            world: See `sim.gym.worlds.make_world`.
            num_envs: B.
            masks: See there; `info["action_mask"]` is [B, I].
            autoreset_mode: See above; or its value, such as "SameStep".
            render_mode: ansi, or None.
        """
        check_render_mode(render_mode)
        if num_envs < 1:
            raise UserError(f"num_envs is {num_envs}", do="Give at least 1.")
        try:
            mode = AutoresetMode(autoreset_mode)
        except ValueError:
            known = ", ".join(one.value for one in AutoresetMode)
            raise UserError(f"autoreset_mode is {autoreset_mode!r}", do=f"Use {known}.") from None
        self.metadata = {**METADATA, "autoreset_mode": mode}
        self.num_envs, self.world, self.render_mode, self._masks = num_envs, world, render_mode, masks
        self.item_ids = world.item_ids
        self.single_observation_space = observation_space(world)
        self.single_action_space = spaces.Discrete(world.view.num_items)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._mode, self._episodes = mode, Episodes(world, num_envs, _RESETS[mode])
        self._rewards = np.zeros((num_envs, world.view.episode_length))
        self._last: Observation = {}

    def reset(  # a list of seeds, as SyncVectorEnv takes it
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode in every environment, or in those that `options["reset_mask"]` [B] names.

        Args:
            seed: Of the first environment, whose followers get the next numbers; or one of each; None: those of before.
            options: Also `user`, a list with the id of a user for each environment.

        Raises:
            UserError: There is no such user, a seed is none, or the lists are of another length.
        """
        seeds = self._seeds(seed)
        users, where = ((options or {}).get(name) for name in ("user", "reset_mask"))
        chosen = np.full(self.num_envs, -1, np.int32)
        if users is not None:
            self._check_length(users, "user")
            chosen = np.array([self.world.start_of(user) for user in users], np.int32)
        if where is not None:
            self._check_length(where, "reset_mask")
            where = np.asarray(where, bool)
            if self._episodes.ended is None:
                where = None  # where nothing runs yet, everything begins
        self._last = self._episodes.begin(seeds, chosen, where)
        return copied(self._last), self._info({}, began=where)

    def step(self, actions: Any) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Recommends an item to each user; see `gymnasium.vector.VectorEnv.step`.

        Raises:
            gymnasium.error.InvalidAction: No item has such a number, or there are too few or too many.
            gymnasium.error.ResetNeeded: No episode was begun; or (DISABLED) one has ended.
        """
        actions = np.asarray(actions)
        ended = self._episodes.ended
        if ended is None or (self._mode is AutoresetMode.DISABLED and ended.any()):
            raise error.ResetNeeded("an episode has ended, or none has begun: call reset()")
        items = self.world.view.num_items
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise error.InvalidAction(f"{self.num_envs} integers are needed, not {actions.dtype} {actions.shape}")
        if actions.min() < 0 or actions.max() >= items:
            raise error.InvalidAction(f"actions are numbers of items, 0 to {items - 1}: {actions[:8]}")
        observation, rest = self._episodes.advance(actions)
        self._last = observation
        stepped = ~ended if self._mode is AutoresetMode.NEXT_STEP else np.ones(self.num_envs, bool)
        rewards, truncated = np.asarray(rest.reward, np.float64), np.array(rest.truncated)
        self._remember(rewards, stepped)
        # Facts belong to the episode that `info` is about, which (SAME_STEP) may have begun with this step.
        same_step = self._mode is AutoresetMode.SAME_STEP
        told = stepped & ~truncated if same_step else stepped
        facts = {name: np.where(told, value, np.zeros_like(value)) for name, value in rest.info.items()}
        info = self._info(facts, told)
        if same_step and truncated.any():
            info |= self._final(rest, truncated)
        return copied(observation), rewards, np.zeros(self.num_envs, bool), truncated, info

    def action_masks(self) -> np.ndarray:
        """Returns [B, I] bool, which items can be recommended now."""
        return self._episodes.masks().astype(bool)

    def render(self) -> tuple[str, ...] | None:
        """Returns the episodes so far as texts, with the titles of items."""
        if self.render_mode is None:
            return None
        if not self._last:
            raise error.ResetNeeded("no episode has begun: call reset()")
        return tuple(
            transcript(self.world, user, row_of(self._last, row), self._rewards[row])
            for row, user in enumerate(self._episodes.users())
        )

    def _info(
        self, facts: Mapping[str, np.ndarray], told: np.ndarray | None = None, began: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Returns what is known of each environment by NAME, and as `_NAME` of which, as Gymnasium does.

        Args:
            facts: About the step.
            told: [B] bool, the environments that have taken one.
            began: [B] bool, the environments that were reset; None: the rest is told of every one.
        """
        everywhere = np.ones(self.num_envs, bool) if began is None else began
        values = {"user": self._episodes.users()} | ({MASK: self._episodes.masks()} if self._masks else {})
        info: dict[str, Any] = {}
        for name, value in values.items():
            info |= {name: value, f"_{name}": everywhere.copy()}
        for name, value in facts.items():
            info |= {name: value, f"_{name}": everywhere.copy() if told is None else told.copy()}
        return info

    def _final(self, rest: Any, ended: np.ndarray) -> dict[str, Any]:
        """Returns observations and facts of the episodes that have just ended."""
        view = self.world.view
        last = {name: np.array(value) for name, value in rest.final.items()}
        masks = {MASK: action_masks(last["items"], view.num_items, view.repeats)} if self._masks else {}
        values = {"user": self._episodes.users_of(rest.start), **rest.info, **masks}
        final_info: dict[str, Any] = {}
        for name, value in values.items():
            final_info |= {name: np.array(value), f"_{name}": ended.copy()}
        observations = np.empty(self.num_envs, object)
        for row in np.flatnonzero(ended).tolist():
            observations[row] = row_of(last, row)
        return {
            "final_obs": observations,
            "_final_obs": ended.copy(),
            "final_info": final_info,
            "_final_info": ended.copy(),
        }

    def _remember(self, rewards: np.ndarray, stepped: np.ndarray) -> None:
        taken = self._last["step"][:, 0]
        rows = np.flatnonzero(stepped & (taken > 0))
        self._rewards[rows, taken[rows] - 1] = rewards[rows]

    def _seeds(self, seed: Any) -> np.ndarray | None:
        """Returns [B] seeds, below 2^32; None: the environments go on with those they have."""
        several = seed is not None and not isinstance(seed, (int, np.integer))
        if several:
            self._check_length(seed, "seed")
            if all(one is None for one in seed):  # as SyncVectorEnv takes it
                seed, several = None, False
        super().reset(seed=None if several or seed is None else int(seed))
        if seed is None and self._episodes.ended is not None:
            return None
        first = int(self.np_random.integers(2**31)) if seed is None else seed
        seeds = list(seed) if several else [int(first) + row for row in range(self.num_envs)]
        for one in seeds:
            if not isinstance(one, (int, np.integer)) or one < 0:
                raise UserError(f"{one!r} is no seed", do="Give an integer, 0 or more, for each environment, or one.")
        return np.array([int(one) % 2**32 for one in seeds], np.uint32)

    def _check_length(self, values: Any, name: str) -> None:
        if not isinstance(values, (list, tuple, np.ndarray)):
            raise UserError(f"{name} is {values!r}", do=f"Give a list of {self.num_envs}, one for each environment.")
        if len(values) != self.num_envs:
            raise UserError(f"{name} has {len(values)} entries, there are {self.num_envs} environments")
