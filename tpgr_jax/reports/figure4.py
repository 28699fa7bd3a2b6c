"""Figure 4: how the clustering of the items and the depth of the tree change reward and time per training step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from harness.reports.plots import Bars, Points, plot_bars, plot_points
from harness.reports.results import Estimate, estimate
from harness.reports.tables import Cell, Table, markdown_list, markdown_table, markdown_text, write_report
from harness.runs.index import RunRecord, RunsFound, difference_from, finished, group_by_settings
from harness.runs.metric_writer import read_rows
from harness.settings import NotNegative
from tpgr_jax.reports.results import (
    TPGR,
    MethodResult,
    comparable_runs,
    describe_problem,
    describe_unfinished,
    is_synthetic,
    method_label,
    read_results,
    training_command,
    without_effect,
)

DEPTHS = (1, 2, 3, 4)
PAPER_DEPTH = 2
_CLUSTERINGS = {"pca": "PCA", "kmeans": "k-means", "random": "random"}
_VECTORS = {"rating": "rating", "vae": "VAE", "mf": "MF"}
_OF_VECTORS = ("tree.vectors", "tree.vector_size", "tree.vector_epochs")


@dataclass(frozen=True)
class Figure4Config:
    """Which runs to compare (`conf/report/figure4.yaml`)."""

    report: Literal["figure4"]
    runs: list[str] | None
    data_name: str | None
    alpha: NotNegative
    out: str
    several_splits: bool = False


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
    """Results by tree, and why runs were left out."""

    arms: dict[Arm, ArmResult]
    left_out: list[str]


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
        runs: Finished runs on the same data.
        alpha: Runs with another one are not considered.

    Raises:
        UserError: A result is missing or damaged.
    """
    candidates = [run for run in runs if method_label(run) == TPGR.label and run.settings["env.alpha"] == alpha]
    groups = sorted(group_by_settings(candidates, _ignored), key=lambda group: -len(group.runs))
    left_out = [f"{run.folder.path}: {difference_from(groups[0], group)}" for group in groups[1:] for run in group.runs]
    by_arm: dict[Arm, list[RunRecord]] = {}
    for run in groups[0].runs if groups else []:
        by_arm.setdefault(arm_of(run), []).append(run)
    arms = {}
    for arm, own in by_arm.items():
        variants = sorted(
            group_by_settings(own, partial(_ignored_within_arm, arm=arm)), key=lambda group: -len(group.runs)
        )
        left_out += [
            f"{run.folder.path}: {difference_from(variants[0], group)}" for group in variants[1:] for run in group.runs
        ]
        result, repeated = read_results(variants[0].runs, arm.label, TPGR.label, alpha)
        left_out += [f"{run.folder.path}: an older repetition of seed {run.settings['seed']}" for run in repeated]
        seconds = [found for run in result.runs if (found := seconds_per_step(run)) is not None]
        arms[arm] = ArmResult(result, estimate(np.array(seconds)) if seconds else None)
    return Compared(arms, left_out)


def missing_commands(arms: Sequence[Arm], reference: RunRecord | None, alpha: float) -> list[str]:
    """Returns the command for each tree of the paper's figure (and the random one) that has no run.

    Args:
        arms: Those that have one.
        reference: A run that the others are to equal but for the tree; None for the experiment on MovieLens-1M.
        alpha: Weight of the sequential reward.
    """
    wanted = [arm for arm in dict.fromkeys((*CLUSTERING_ARMS, *DEPTH_ARMS)) if arm not in arms]
    return [training_command(reference, TPGR, alpha, arm.overrides, reference is not None) for arm in wanted]


def report_figure4(config: Figure4Config) -> None:
    """Prints and writes `figure4.md`, `.csv`, `figure4_clustering.png` and `figure4_depth.png`.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    found = comparable_runs(config.runs, config.data_name, config.several_splits)
    compared = compare(finished(found.runs), config.alpha)
    folder = Path(config.out)
    results = [arm.result for arm in compared.arms.values()]
    kind = " (SYNTHETIC)" if results and is_synthetic(results[0].runs) else ""
    title = f"Figure 4{f': {results[0].runs[0].data_name}' if results else ''}{kind}, alpha {config.alpha:g}"
    clustering = {arm: compared.arms[arm] for arm in _clustering_arms(compared)}
    depth = {arm: compared.arms[arm] for arm in DEPTH_ARMS if arm in compared.arms}
    pictures = []
    if clustering:
        bars = {arm.label: found.result.estimate("reward") for arm, found in clustering.items()}
        best = {"best fixed list": results[0].opponent("best_fixed_list", "reward").mean}
        path = folder / "figure4_clustering.png"
        plot_bars(path, title, "reward per recommendation, 95 % interval", [Bars("clustering", bars, best)])
        pictures.append(path.name)
    if depth:
        path = folder / "figure4_depth.png"
        plot_points(path, title, "depth of the tree", _depth_panels(depth))
        pictures.append(path.name)
    lines = _lines(title, config.alpha, found, compared, clustering, depth)
    write_report(folder, "figure4", lines, _table(compared), pictures)


def _ignored(key: str) -> bool:
    return without_effect(key) or key in ("env.alpha", "tree.clustering", "tree.depth", *_OF_VECTORS)


def _ignored_within_arm(key: str, arm: Arm) -> bool:
    """The size of vectors counts only for trees whose vectors have one."""
    sized = arm.vectors not in (None, "rating")
    return _ignored(key) and not (sized and key in _OF_VECTORS)


def _clustering_arms(compared: Compared) -> list[Arm]:
    """Returns the trees of the paper's depth in the paper's order, then others of that depth."""
    others = [arm for arm in compared.arms if arm.depth == PAPER_DEPTH and arm not in CLUSTERING_ARMS]
    return [*(arm for arm in CLUSTERING_ARMS if arm in compared.arms), *others]


def _depth_panels(depth: dict[Arm, ArmResult]) -> dict[str, list[Points]]:
    rewards = Points("", [arm.depth for arm in depth], [found.result.estimate("reward") for found in depth.values()])
    timed = {arm.depth: found.seconds for arm, found in depth.items() if found.seconds is not None}
    panels = {"reward per recommendation": [rewards]}
    if timed:
        panels["seconds per training step"] = [Points("", list(timed), list(timed.values()), "tab:green")]
    return panels


def _lines(
    title: str,
    alpha: float,
    found: RunsFound,
    compared: Compared,
    clustering: dict[Arm, ArmResult],
    depth: dict[Arm, ArmResult],
) -> list[str]:
    lines = [f"# {markdown_text(title)}", ""]
    results = [arm.result for arm in compared.arms.values()]
    if results:
        episodes = results[0].runs[0].settings.get("train.episodes_per_step")
        lines += [
            f"{markdown_text(describe_problem(results[0]))}; {episodes} episodes per training step. 95 % t-intervals: "
            "over seeds where seeds differ, else over users. Seconds per training step: median over log points but "
            "the first, which includes compilation; runs whose seeds trained in one program have none.",
            "",
        ]
    for name, arms in (("Clustering", clustering), ("Depth", depth)):
        if arms:
            lines += [f"## {name}", "", *_arm_table(arms), ""]
    if unfinished := describe_unfinished(found):
        lines += ["## Incomplete runs", "", *markdown_list(unfinished), ""]
    if compared.left_out:
        lines += ["## Left out", "", *markdown_list(compared.left_out), ""]
    reference = results[0].runs[0] if results else None
    if commands := missing_commands(list(compared.arms), reference, alpha):
        lines += ["## Missing", "", "```bash", *commands, "```", ""]
    return lines[:-1]


def _arm_table(arms: dict[Arm, ArmResult]) -> list[str]:
    heads = ["clustering", "depth", "reward", "reward / best list", "seconds per step", "seeds"]
    rows = [
        [
            arm.label,
            str(arm.depth),
            str(found.result.estimate("reward")),
            f"{found.result.ratio:.3f}",
            str(found.seconds or ""),
            str(len(found.result.runs)),
        ]
        for arm, found in arms.items()
    ]
    return markdown_table(heads, rows)


def _table(compared: Compared) -> Table:
    heads = ["data", "synthetic", "checksum", "alpha", "clustering", "vectors", "depth", "seeds", "interval_over"]
    heads += ["reward", "reward_low", "reward_high", "ratio_to_best_list"]
    heads += ["seconds_per_step", "seconds_per_step_low", "seconds_per_step_high"]
    rows: list[list[Cell]] = []
    for arm, (result, seconds) in compared.arms.items():
        data = result.runs[0].data
        row: list[Cell] = [data["name"], bool(data["synthetic"]), data["checksum"], result.alpha, *arm]
        row += [" ".join(map(str, result.seeds)), "seeds" if result.seed_matters else "users"]
        rows.append([*row, *result.estimate("reward"), result.ratio, *(seconds or (None, None, None))])
    return Table(heads, rows)
