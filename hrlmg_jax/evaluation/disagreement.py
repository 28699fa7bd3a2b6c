"""How far the members of an ensemble disagree along sessions: if more than along the log, the log tells little."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hrlmg_jax.problem import Problem, make_env
from hrlmg_jax.user_model.ensemble import Ensemble
from sim.envs.histories import add_feedback
from sim.envs.session_env import SessionEnv, SessionParams


class Disagreement:
    """Compares sessions with logged ones, in learned users that are an ensemble.

    Args:
        problem: Log and users.
        rows: [n] rows of the log before which the sessions begin.
    """

    def __init__(self, problem: Problem, rows: np.ndarray) -> None:
        """Looks at the logged sessions that begin there."""
        self._params = problem.env_params(rows)
        self._env = make_env(problem.env, problem.simulator.model, 1)
        log, starts = problem.data.log, problem.data.log.session_starts()
        end = starts[np.searchsorted(starts, rows, side="right")]
        at = rows[:, None] + np.arange(max(int(np.max(end - rows)), 1))
        shown = at < end[:, None]
        at = np.where(shown, at, rows[:, None])
        self._logged = self._mean(log.item[at], log.feedback[at], shown)

    def over_log(self, items: np.ndarray, feedback: np.ndarray) -> float:
        """Returns the mean disagreement on whether an item is clicked, over that along the logged sessions.

        Args:
            items: [n, T] int32 items shown.
            feedback: [n, T] answers.
        """
        return self._mean(items, feedback, np.ones(items.shape, bool)) / max(self._logged, 1e-9)

    def _mean(self, items: np.ndarray, feedback: np.ndarray, shown: np.ndarray) -> float:
        found = _along(self._env, self._params, jnp.asarray(items, jnp.int32), jnp.asarray(feedback, jnp.int32))
        return float(np.mean(np.asarray(found)[shown]))


def disagreement_of(problem: Problem, rows: np.ndarray) -> Disagreement | None:
    """Returns what compares sessions with logged ones; None: the users are no ensemble."""
    return Disagreement(problem, rows) if isinstance(problem.simulator.model, Ensemble) else None


@partial(jax.jit, static_argnums=0)
def _along(env: SessionEnv, params: SessionParams, items: jax.Array, feedback: jax.Array) -> jax.Array:
    """Returns [n, T] the members' standard deviation of the chance of a click, along sessions that were played."""
    ensemble = env.model
    assert isinstance(ensemble, Ensemble)

    def session(start: jax.Array, items: jax.Array, feedback: jax.Array) -> jax.Array:
        _, state = env.reset_at(start, params)
        first = state.hidden, state.histories

        def step(carry: Any, row: Any) -> Any:
            (hidden, histories), (item, answer) = carry, row
            spread = ensemble.disagreement(params.model, hidden, histories, item)[0]
            hidden = ensemble.update(params.model, hidden, item, answer)
            return (hidden, add_feedback(histories, item, answer)), spread

        return jax.lax.scan(step, first, (items, feedback))[1]

    return jax.vmap(session)(jnp.arange(len(items), dtype=jnp.int32), items, feedback)
