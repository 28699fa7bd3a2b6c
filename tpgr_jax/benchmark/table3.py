"""The methods beside each other, as in Table 3 of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.reports.benchmark import (
    Line,
    alternating_seconds,
)
from tpgr_jax.benchmark.parts import (
    EPISODE_LENGTH,
    EPISODES,
    SMOKE_EPISODES,
    catalogue_problem,
    learning_from_as_many,
    method_runs,
    seconds_in_turns,
    settings,
    tree_settings,
)

TABLE_3_CATALOGUES = (("MovieLens", 10_677), ("Netflix", 17_770))
TABLE_3 = {
    "tpgr": ((3.0, 3.1), (3.4, 3.9)),
    "dqn_r": ((13.1, 15.3), (19.6, 34.6)),
    "ddpg_r": ((44.6, 58.6), (29.4, 49.6)),
    "ddpg_knn_1": ((1.3, 1.3), (1.8, 1.8)),
    "ddpg_knn_tenth": ((24.2, 40.3), (200.4, 313.0)),
    "ddpg_knn_all": ((248.4, 323.9), (1875.0, 3073.2)),
}
"""The paper's: seconds per training step of 1,000 episodes, and per 10^6 decisions, on MovieLens and Netflix."""


def bench_table3(smoke: bool) -> list[Line]:
    """All learning methods beside each other, as in Table 3: repeats allowed, hidden layers of 32 and 16.

    TPGR is timed again beside every method, in turns, so that a ratio compares what the machine did at the same time.
    """
    lines = []
    for column, (catalogue, items) in enumerate((("tiny", 50),) if smoke else TABLE_3_CATALOGUES):
        tree_runs, played = _table3_runs("tpgr", items, smoke)
        alone = alternating_seconds(tree_runs, 1 if smoke else 7)
        for agent, papers in TABLE_3.items():
            if smoke and agent not in ("tpgr", "dqn_r"):
                continue
            runs, episodes = _table3_runs(agent, items, smoke)
            both = {"tpgr": tree_runs, agent: runs}
            seconds = seconds_in_turns(both, 1 if smoke else 3) if agent != "tpgr" else {}
            for number, what in enumerate(("step", "decisions")):
                name, unit = ("step", EPISODES) if what == "step" else ("10^6 decisions", 10**6 / EPISODE_LENGTH)
                tree = seconds.get(("tpgr", what), alone[what]) * unit / played
                ours = seconds.get((agent, what), alone[what]) * unit / episodes
                paper, papers_tree = papers[number][column], TABLE_3["tpgr"][number][column]
                note = f"{ours / tree:.2f} x TPGR's {tree:.3g} s; paper {paper:,g} s, {paper / papers_tree:.2f} x TPGR"
                lines.append(Line(f"{agent}, {catalogue}: {name}", ours, "s", note=f"{note}; {episodes} episodes"))
    return lines


def _table3_runs(agent: str, items: int, smoke: bool) -> tuple[dict[str, Callable[[], Any]], int]:
    """Returns what `method_runs` does for a method in Table 3, and with how many episodes."""
    slow = agent in ("ddpg_knn_tenth", "ddpg_knn_all")
    # A step of fewer episodes for those that would take minutes; their time grows with the episodes.
    episodes = SMOKE_EPISODES if smoke else 64 if slow else EPISODES
    learning = () if agent == "tpgr" else learning_from_as_many(episodes)
    compose = tree_settings if agent == "tpgr" else settings
    config = compose(
        f"agent={agent}",
        f"train.episodes_per_step={episodes}",
        "env.allow_repeats=true",
        f"env.episode_length={EPISODE_LENGTH}",
        "agent.policy.embedding=random",
        *learning,
    )
    return method_runs(config, catalogue_problem(config, items)), episodes
