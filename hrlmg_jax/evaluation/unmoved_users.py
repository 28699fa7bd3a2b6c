"""Sessions whose users answer every item as if it came first: what a simulation says without its own feedback."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from sim.envs.session_env import SessionEnv, SessionInfo, SessionObservation, SessionParams, SessionState
from sim.tables.events import NUM_FEEDBACK


@dataclass(frozen=True)
class UnmovedUsers(SessionEnv):
    """The session simulator with the users' histories and state as they were when the session began.

    The policy sees its own recommendations and the answers. A policy that earns much more with live users lives on
    what the simulation tells itself.

    Attributes:
        is_unmoved: Whether it is so; False: live users, as `SessionEnv` has. It may be traced, so that one program
            plays with both.
    """

    is_unmoved: bool | jax.Array = True

    def reset_at(self, start: jax.Array, params: SessionParams) -> tuple[SessionObservation, SessionState]:
        """Starts a session; the hidden state keeps the histories of its beginning."""
        observation, state = super().reset_at(start, params)
        return observation, dataclasses.replace(state, hidden=(state.hidden, state.hidden, state.histories))

    def step(
        self, key: jax.Array, state: SessionState, action: jax.Array, params: SessionParams
    ) -> tuple[SessionObservation, SessionState, jax.Array, jax.Array, jax.Array, SessionInfo]:
        """Recommends an item and samples the answer of the user as the session began; see `SessionEnv.step`."""
        hidden, *first = state.hidden
        user, past = jax.tree.map(partial(jnp.where, self.is_unmoved), tuple(first), (hidden, state.histories))
        probabilities = self.model.probabilities(params.model, user, past, action)
        feedback = jnp.sum(jax.random.uniform(key) >= jnp.cumsum(probabilities)[: NUM_FEEDBACK - 1], dtype=jnp.int32)
        inner = dataclasses.replace(state, hidden=hidden)
        observation, after = super().answer(inner, action, feedback, params)
        after = dataclasses.replace(after, hidden=(after.hidden, *first))
        info = SessionInfo(feedback, probabilities)
        reward, truncated = self.reward_of(feedback), after.step >= self.episode_length
        return observation, after, reward, jnp.bool_(False), truncated, info


def unmoved(env: SessionEnv) -> UnmovedUsers:
    """Returns sessions like those of `env`, whose users answer every item as if it came first."""
    return UnmovedUsers(**{field.name: getattr(env, field.name) for field in dataclasses.fields(env)})
