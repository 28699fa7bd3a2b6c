"""The simulators for agents from elsewhere, by the interfaces of Gymnasium and gymnax. Extra `gym`.

    import gymnasium
    import sim.gym  # registers the environments

    env = gymnasium.make("TPGR/MovieLens-v0", alpha=0.1, horizon=32)
    envs = gymnasium.make_vec("TPGR/MovieLens-v0", num_envs=256)

Gymnasium 1 finds no environments by itself; `gymnasium.make("sim.gym:TPGR/MovieLens-v0")` needs no import.
`sim.gym.views` describes observations, `sim.gym.environment` and `sim.gym.vector_environment` actions and `info`,
`sim.gym.worlds` the keyword arguments, `sim.gym.gymnax_view` the pure functions.
"""

from __future__ import annotations

from typing import Any

try:
    from gymnasium import register, registry
except ImportError as error:
    raise ImportError("sim.gym needs Gymnasium: python -m pip install 'tpgr-jax[gym]'") from error

_RATINGS = {
    "entry_point": "sim.gym.entry_points:ratings_env",
    "vector_entry_point": "sim.gym.entry_points:ratings_vector_env",
}
_SESSIONS = {
    "entry_point": "sim.gym.entry_points:sessions_env",
    "vector_entry_point": "sim.gym.entry_points:sessions_vector_env",
}
# What is called MovieLens plays with MovieLens, or not at all.
_MOVIELENS = {"data": "movielens_1m", "data.offline_fallback": False}
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "TPGR/MovieLens-v0": {**_RATINGS, "kwargs": _MOVIELENS},
    "TPGR/Ratings-v0": _RATINGS,
    "TPGR/Sessions-v0": _SESSIONS,
}
"""By id: entry points of a single environment and of a vector of them, and keyword arguments."""

for _id, _described in ENVIRONMENTS.items():
    if _id not in registry:
        register(_id, **_described)
