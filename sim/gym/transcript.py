"""An episode as text: what was recommended, by title, and how the user answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.gym.worlds import World


def transcript(world: World, user: Any, observation: Mapping[str, np.ndarray], rewards: Sequence[float]) -> str:
    """Returns one line for each recommendation so far, under a line about the user.

    Args:
        world: The simulator.
        user: Original id.
        observation: Of one environment, now.
        rewards: Of the steps so far; more are ignored.
    """
    taken = int(observation["step"][0])
    total = sum(rewards[:taken])
    lines = [f"{world.name}, user {user}: {taken} of {world.view.episode_length} recommendations, reward {total:.2f}"]
    for step in range(taken):
        item, answer = int(observation["items"][step]), observation["answers"][step]
        said = world.answers[int(answer)] if world.answers else f"answer {answer:+.2f}"
        lines.append(f"{step + 1:>4}. {world.title(item)}: {said}, reward {rewards[step]:+.2f}")
    return "\n".join(lines)
