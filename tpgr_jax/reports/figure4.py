"""Figure 4: how the clustering of the items and the depth of the tree change reward and time per training step."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.reports.method_results import EPISODES, MethodResult, MethodRuns
from harness.reports.plots import Bars, Points, PointsPanel, plot_bars, plot_points
from harness.reports.results import Estimate, estimate
from harness.reports.system_results import Rerun, RunsConfig, grouped, most_runs, title_of
from harness.reports.tables import Cell, Table, markdown_table, markdown_text
from harness.runs.index import RunRecord, finished, group_by_settings
from harness.runs.metric_writer import read_rows
from harness.settings import NotNegative
from tpgr_jax.reports import results as tpgr

DEPTHS = (1, 2, 3, 4)
PAPER_DEPTH = 2
_CLUSTERINGS = {"pca": "PCA", "kmeans": "k-means", "random": "random"}
_VECTORS = {"rating": "rating", "vae": "VAE", "mf": "MF"}
_OF_VECTORS = ("tree.vectors", "tree.vector_size", "tree.vector_epochs")


@dataclass(frozen=True, kw_only=True)
class Figure4Config(RunsConfig):
    """Which runs to compare (`conf/report/figure4.yaml`)."""

    alpha: NotNegative


class Arm(NamedTuple):
    """A tree: how items are clustered, by which vectors (None: by none), and its depth."""

    clustering: str
    vectors: str | None
    depth: int

    @property
    def label(self) -> str:
        """Its name without the depth."""
        vectors = "" if self.vectors is None else f", {_VECTORS.get(self.vectors, self.vectors)} vectors"
        return f"{_CLUSTERINGS.get(self.clustering, self.clustering)}{vectors}"

    @property
    def overrides(self) -> list[str]:
        """What chooses it on the command line of training."""
        group = [f"tree={self.clustering}{f'_{self.vectors}' if self.vectors not in (None, 'rating') else ''}"]
        return group if self.depth == PAPER_DEPTH else [*group, f"tree.depth={self.depth}"]


CLUSTERING_ARMS = (
    *(Arm(clustering, vectors, PAPER_DEPTH) for clustering in ("pca", "kmeans") for vectors in _VECTORS),
    Arm("random", None, PAPER_DEPTH),
)
DEPTH_ARMS = tuple(Arm("pca", "rating", depth) for depth in DEPTHS)


class ArmResult(NamedTuple):
    """What TPGR reached with a tree, and the time per training step (None: nowhere measured)."""

    result: MethodResult
    seconds: Estimate | None


class Compared(NamedTuple):
    """Results by tree, why runs were left out, and what casts doubt on the comparison."""

    arms: dict[Arm, ArmResult]
    left_out: list[str]
    warnings: list[str]


def arm_of(run: RunRecord) -> Arm:
    """Returns the tree of a TPGR run; a random tree does not depend on vectors."""
    clustering = str(run.settings.get("tree.clustering"))
    vectors = None if clustering == "random" else str(run.settings.get("tree.vectors"))
    return Arm(clustering, vectors, int(run.settings.get("tree.depth", PAPER_DEPTH)))


def seconds_per_step(run: RunRecord) -> float | None:
    """Returns the median over log points of the seconds per training step.

    The time up to the first log point includes compilation and is not counted. None where there are fewer than two log
    points, or where several seeds trained in one program, so that none has a time of its own.

    Raises:
        UserError: The rows are damaged.
    """
    if run.seeds_together > 1 or not run.folder.metrics.exists():
        return None
    rows = read_rows(run.folder.metrics)
    rates = [
        (after["seconds"] - before["seconds"]) / (after["step"] - before["step"])
        for before, after in pairwise(row for row in rows if "seconds" in row)
        if after["step"] > before["step"]
    ]
    return statistics.median(rates) if rates else None


def compare(runs: Sequence[RunRecord], alpha: float) -> Compared:
    """Compares finished TPGR runs that are equal but for tree and seed; of several such sets, the one with most runs.

    Args:
        runs: On the same data.
        alpha: Runs with another one are not considered.

    Raises:
        UserError: A result is damaged, or of other test users.
    """

    def ignored(key: str) -> bool:
        return tpgr.SYSTEM.has_no_effect(key) or key in ("env.alpha", "tree.clustering", "tree.depth", *_OF_VECTORS)

    # Runs that differ in nothing but the tree.
    of_alpha = [run for run in finished(runs) if tpgr.method_name(run) == tpgr.TPGR and tpgr.alpha_of(run) == alpha]
    candidates = [run for run in of_alpha if not run.settings.get("tree.path")]
    left_out = [f"{run.folder.path}: its tree was read from a file" for run in of_alpha if run not in candidates]
    by_arm = grouped(most_runs(group_by_settings(candidates, ignored), left_out), arm_of)
    # Within a tree, runs that differ in nothing; the size of vectors counts only for vectors that have one.
    methods = []
    for arm, runs_of in by_arm.items():
        kept = _OF_VECTORS if arm.vectors not in (None, "rating") else ()
        alike = most_runs(group_by_settings(runs_of, lambda key: ignored(key) and key not in kept), left_out)  # noqa: B023
        methods.append(MethodRuns(arm.label, tpgr.TPGR, {}, alike))
    # Their results and times.
    collected = tpgr.SYSTEM.read(methods, tpgr.TEST)
    arms = {}
    for result in collected.results:
        seconds = [time for run in result.runs if (time := seconds_per_step(run)) is not None]
        arms[arm_of(result.runs[0])] = ArmResult(result, estimate(np.array(seconds)) if seconds else None)
    return Compared(arms, [*left_out, *collected.left_out], collected.warnings)


def missing_runs(compared: Compared, alpha: float) -> list[Rerun]:
    """Returns each tree of the paper's figure (and the random one) that has no run."""
    runs = [run for arm in compared.arms.values() for run in arm.result.runs]
    wanted = [arm for arm in dict.fromkeys((*CLUSTERING_ARMS, *DEPTH_ARMS)) if arm not in compared.arms]
    last, reference = [f"env.alpha={alpha:g}", *tpgr.repetitions_of(runs)], next(iter(runs), None)
    return [Rerun(tpgr.TPGR, reference, arm.overrides, last, reference is not None) for arm in wanted]


def report_figure4(config: Figure4Config) -> None:
    """Prints and writes `figure4.md`, `.csv`, `figure4_clustering.png` and `figure4_depth.png`.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    found = tpgr.comparable_runs(config)
    compared = compare(found.runs, config.alpha)
    arms, folder = compared.arms, Path(config.out)
    # Trees of the paper's depth in the paper's order, then others of that depth; depths in order.
    others = [arm for arm in arms if arm.depth == PAPER_DEPTH and arm not in CLUSTERING_ARMS]
    clustering = {arm: arms[arm] for arm in (*CLUSTERING_ARMS, *others) if arm in arms}
    depth = {arm: arms[arm] for arm in DEPTH_ARMS if arm in arms}
    results = [arm.result for arm in arms.values()]
    title = f"{title_of('Figure 4', results[0].runs if results else [])}, alpha {config.alpha:g}"
    references = tpgr.baselines(tpgr.with_most_users(results)) if results else {}
    lines, pictures = _introduction(results), []
    if clustering:
        lines += ["", "## Clustering", "", *_arm_table(clustering)]
        pictures.append("figure4_clustering.png")
        bars = Bars(
            "clustering",
            {arm.label: one.result.estimate("reward", EPISODES) for arm, one in clustering.items()},
            references,
        )
        plot_bars(folder / pictures[-1], title, f"reward per recommendation, 95 % interval over {tpgr.USERS}", [bars])
    if depth:
        lines += ["", "## Depth", "", *_arm_table(depth)]
        pictures.append("figure4_depth.png")
        horizontal = f"depth of the tree (95 % intervals of rewards over {tpgr.USERS}, of seconds over runs)"
        plot_points(folder / pictures[-1], title, horizontal, _depth_panels(depth, references))
    left_out, warnings = compared.left_out, compared.warnings
    missing = missing_runs(compared, config.alpha)
    tpgr.SYSTEM.write(
        config, title, found, lines, _table(compared, config.alpha), pictures, left_out, warnings, missing
    )


def _introduction(results: Sequence[MethodResult]) -> list[str]:
    if not results:
        return []
    episodes = results[0].runs[0].settings.get("train.episodes_per_step")
    problem = markdown_text(tpgr.describe_problem(tpgr.with_most_users(results)))
    return [
        f"{problem}; {episodes} episodes per training step. Reward: 95 % t-intervals over {tpgr.USERS}, a user's value "
        "being the mean over seeds. Seconds per training step: the run's median over log points but the first, which "
        "includes compilation, with the 95 % t-interval over runs; runs whose seeds trained in one program have none."
    ]


def _depth_panels(depth: Mapping[Arm, ArmResult], references: Mapping[str, float]) -> list[PointsPanel]:
    rewards = Points(
        "TPGR", [arm.depth for arm in depth], [one.result.estimate("reward", EPISODES) for one in depth.values()]
    )
    timed = {arm.depth: one.seconds for arm, one in depth.items() if one.seconds is not None}
    panels = [PointsPanel("reward per recommendation", [rewards], references)]
    if timed:
        panels.append(PointsPanel("seconds per training step", [Points("TPGR", list(timed), list(timed.values()))]))
    return panels


def _arm_table(arms: Mapping[Arm, ArmResult]) -> list[str]:
    heads = ["clustering", "depth", "reward", "reward / best list", "seconds per step", "seeds"]
    rows = []
    for arm, (result, seconds) in arms.items():
        cells = [str(result.estimate("reward", EPISODES)), f"{tpgr.ratio(result):.3f}", str(seconds or "")]
        rows.append([arm.label, str(arm.depth), *cells, result.seeds_text])
    return markdown_table(heads, rows)


def _table(compared: Compared, alpha: float) -> Table:
    heads = [
        "alpha",
        "clustering",
        "vectors",
        "depth",
        "seeds",
        "reward",
        "reward_low_over_users",
        "reward_high_over_users",
    ]
    heads += ["ratio_to_best_list", "seconds_per_step"]
    heads += ["seconds_per_step_low_over_runs", "seconds_per_step_high_over_runs"]
    rows: list[list[Cell]] = []
    for arm, (result, seconds) in compared.arms.items():
        row: list[Cell] = [alpha, *arm, " ".join(map(str, result.seeds))]
        rows.append([*row, *result.estimate("reward", EPISODES), tpgr.ratio(result), *(seconds or (None, None, None))])
    return Table(heads, rows)
