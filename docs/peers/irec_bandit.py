"""LinearUCB of iRec (github.com/irec-org/irec): users x steps a second, decision and update.

Its value function and its greedy choice are called as its agents call them; items' vectors, which it would fit first,
are drawn.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from timing import SMOKE, Sizes, arguments, median_seconds

DECISIONS = 64  # one after the other, each of another user


def measure(source: Path, sizes: Sizes) -> dict[str, float]:
    """Returns decisions with updates a second."""
    sys.path.insert(0, str(source))
    from irec.recommendation.agents.action_selection_policies.greedy import ASPGreedy
    from irec.recommendation.agents.value_functions.linear_ucb import LinearUCB

    # As after its own fit.
    width = sizes.features
    model = LinearUCB(alpha=0.3, num_lat=width, var=1.0, user_var=1.0, item_var=1.0, stop_criteria=0.1, iterations=1)
    model.items_means = np.random.default_rng(0).standard_normal((sizes.items, width)) / np.sqrt(2 * width)
    model.bs = defaultdict(lambda: np.zeros(width))
    model.As = defaultdict(lambda: model.get_user_lambda() * np.eye(width))
    choice = ASPGreedy()
    left = {user: np.arange(sizes.items) for user in range(DECISIONS)}

    def play() -> None:
        for user, items in left.items():
            actions = (user, items)
            (_, chosen), _ = choice.select_actions(actions, model.actions_estimate(actions)[0], 1)
            model.update(None, (user, chosen[0]), 0.5, {})
            left[user] = items[items != chosen[0]]

    return {"": DECISIONS / median_seconds(play, sizes.repeats)}


def main() -> None:
    """Measures, and prints the version and the rates as JSON in the last line."""
    smoke, source = arguments()
    assert source is not None
    rates = measure(source.resolve(), SMOKE if smoke else Sizes())
    print(json.dumps({"version": "code of 2024", "rates": rates}))


if __name__ == "__main__":
    main()
