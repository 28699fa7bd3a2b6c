"""Environment steps a second of SARDINE with random actions; it has single environments only."""

from __future__ import annotations

import gymnasium
import sardine  # noqa: F401 (registers the environments)
from timing import Sizes, report, steps_per_second

ENVIRONMENTS = {"single items": "sardine/SingleItem-Static-v0", "slates of ten": "sardine/SlateTopK-Bored-v0"}


def measure(sizes: Sizes) -> dict[str, float]:
    """Returns steps a second, resets included."""
    return {name: _rate(environment, sizes) for name, environment in ENVIRONMENTS.items()}


def _rate(name: str, sizes: Sizes) -> float:
    env = gymnasium.make(name, num_items=sizes.items, env_embedds=None, disable_env_checker=True)
    actions = [env.action_space.sample() for _ in range(64)]
    taken = 0

    def step() -> bool:
        nonlocal taken
        taken += 1
        _, _, terminated, truncated, _ = env.step(actions[taken % len(actions)])
        return terminated or truncated

    return steps_per_second(lambda: env.reset(seed=0), step, sizes.seconds)


if __name__ == "__main__":
    report("sardine-rec", measure)
