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

try:
    from gymnasium import register, registry
except ImportError as error:
    raise ImportError("sim.gym needs Gymnasium: python -m pip install 'tpgr-jax[gym]'") from error

ENVIRONMENTS = {
    "TPGR/MovieLens-v0": "gym_movielens",
    "TPGR/Ratings-v0": "gym_ratings",
    "TPGR/Sessions-v0": "gym_sessions",
}
"""Configurations (`conf/NAME.yaml`) by id."""

for _id, _configuration in ENVIRONMENTS.items():
    if _id not in registry:
        register(
            _id,
            entry_point="sim.gym.entry_points:single_env",
            vector_entry_point="sim.gym.entry_points:vector_env",
            kwargs={"configuration": _configuration},
        )
