"""Environment steps a second of gym-recsys with random actions.

Its users are two functions of the caller; here they are dot products of drawn vectors, about as little as can be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gym_recsys.envs import Env
from timing import Sizes, report, steps_per_second


def measure(sizes: Sizes) -> dict[str, float]:
    """Returns steps a second with slates of one item, resets included."""
    generator = np.random.default_rng(0)
    users, items = (
        generator.standard_normal((number, sizes.factors)).astype(np.float32) for number in (sizes.users, sizes.items)
    )

    def state(user: int, history: Sequence[int]) -> np.ndarray:
        return users[user]

    def rewards(user: int, history: Sequence[int], slate: Sequence[int]) -> np.ndarray:
        return items[list(slate)] @ users[user]

    env = Env(range(sizes.users), ["none"] * sizes.items, np.ones(sizes.items), sizes.steps, 1, state, rewards)
    taken = 0

    def step() -> bool:
        nonlocal taken
        taken += 1
        env.step(env.action_space.sample())
        return taken % sizes.steps == 0

    return {"slates of one": steps_per_second(env.reset, step, sizes.seconds)}


if __name__ == "__main__":
    report("gym-recsys", measure)
