"""From the runs of a system to a report: found, grouped, read into one long table, what is missing, what is written."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl

from harness.errors import UserError
from harness.reports.method_results import MethodResult, MethodRuns, first_of_each_split, splits_of, stacked
from harness.reports.tables import Table, kind_of, markdown_list, markdown_text, write_report
from harness.runs.composition import is_configuration, overrides_like, shell_command, unlike_composed
from harness.runs.index import (
    RunGroup,
    RunRecord,
    RunsFound,
    Status,
    check_comparable,
    difference_from,
    find_runs,
    finished,
    group_by_settings,
    label_of,
    newest_of_each_seed,
    numbers_of,
    searched,
)
from harness.runs.run_folder import read_arrays

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Variant = TypeVar("Variant", MethodRuns, MethodResult)


@dataclass(frozen=True)
class RunsConfig:
    """Which runs a report shows, and where it is written (`conf/report/of_runs.yaml`)."""

    report: str
    runs: list[str] | None
    data_name: str | None
    out: str


class ComparedTest(NamedTuple):
    """A test that a run ends with.

    Attributes:
        file: Name of its files in the run folder, without ending.
        metrics: Its metrics by the names of their arrays, with the names for people; the first one ranks methods.
        episode: Name of the array that says which episodes they are.
        episodes: What these are called.
        same: Settings, in dots, that must agree for results to be comparable.
        of_baselines: Settings, in dots, that the results of baselines depend on.
        digits: After the decimal point, in tables.
        disjoint: Whether no episode may be in two splits, as test users must not who are pooled.
    """

    file: str
    metrics: Mapping[str, str]
    episode: str
    episodes: str
    same: Sequence[str] = ()
    of_baselines: Sequence[str] = ()
    digits: int = 4
    disjoint: bool = False


class Collected(NamedTuple):
    """Results of one test.

    Attributes:
        results: Of the methods, in their order.
        baselines: Of the policies that runs were tested beside and that are no method's own result, each once.
        left_out: Why runs do not count.
        warnings: What casts doubt on the comparison.
    """

    results: list[MethodResult]
    baselines: list[MethodResult]
    left_out: list[str]
    warnings: list[str]


class Rerun(NamedTuple):
    """A missing run, or several that differ in alpha or seed.

    Attributes:
        agent: `conf/agent/AGENT.yaml`.
        reference: A run whose data and simulator it is to share; None for the system's own experiment.
        chosen: Further overrides; a group among them is taken as it is, whatever the reference has there.
        last: Overrides that may be lists (`seed=0,1`).
        like_reference: Whether agent and schedule, too, are to be those of the reference, a run of the same method.
    """

    agent: str
    reference: RunRecord | None
    chosen: Sequence[str]
    last: Sequence[str]
    like_reference: bool = False


@dataclass(frozen=True, kw_only=True)
class System:
    """What reports must know of a system.

    Attributes:
        train: The module that trains.
        evaluate: The module that evaluates.
        config: Name of the configuration that `train` composes.
        experiment: Makes runs for whoever has none.
        result: JSON file that a finished run leaves.
        belongs: Whether a run is the system's.
        types: Types that settings, in dots, must have; a run where one has not is unreadable.
        data_facts: What a CSV says about the data: its head by key of the run's description.
        labels: Methods and baselines by name, as tables write them and in their order; other names stay as they are.
        name_of: The name of a run's method.
        columns: What else tells a run from others, by head, for people.
        metric: In metrics.jsonl, what a list of runs shows of training.
        tested: The metric of the run's own policy in `result` that it shows of the test.
        seedless: Methods that neither train nor draw from their seed.
        splits: Settings, in dots, that set apart runs of one method on several splits, such as folds, whose episodes
            stand in a row.
        without_effect: Settings, in dots (sections end with one), that cannot set results on the same data apart.
        choose_data: The overrides that choose the data of a run (None: of the experiment).
        problem_sections: Sections that a missing run shares with its reference.
        method_sections: Sections that it shares, too, with a run of the same method.
        irrelevant: Whether a key that differs from the reference needs no override.
    """

    train: str
    evaluate: str
    config: str
    experiment: str
    result: str
    belongs: Callable[[RunRecord], bool]
    types: Mapping[str, tuple[type, ...]]
    data_facts: Mapping[str, str]
    labels: Mapping[str, str]
    name_of: Callable[[RunRecord], str]
    columns: Mapping[str, Callable[[RunRecord], str]]
    metric: str
    tested: str
    seedless: Sequence[str] = ()
    splits: Sequence[str] = ()
    without_effect: Sequence[str]
    choose_data: Callable[[RunRecord | None], list[str]]
    problem_sections: Sequence[str]
    method_sections: Sequence[str]
    irrelevant: Callable[[RunRecord, str], bool] = field(default=lambda run, key: False)

    # What there is.

    def runs(self, folders: Sequence[str] | None) -> RunsFound:
        """Finds the runs of the system, and no other's.

        Raises:
            UserError: A folder that was named does not exist.
        """
        found = find_runs(folders, self.result)
        runs, unreadable = [], list(found.unreadable)
        for run in filter(self.belongs, found.runs):
            wrong = [key for key, kinds in self.types.items() if type(run.settings.get(key)) not in kinds]
            if wrong:
                unreadable.append(f"{run.folder.config}: {wrong[0]} is {run.settings.get(wrong[0])!r}")
            else:
                runs.append(run)
        return RunsFound(runs, unreadable)

    def comparable(
        self,
        config: RunsConfig,
        found: RunsFound,
        same: Sequence[str],
        unless: Mapping[str, str] | None = None,
        worlds: Sequence[str] = (),
    ) -> RunsFound:
        """Returns the runs that a report shows, which must be about one data set and agree in the settings `same`.

        See `check_comparable` for the other arguments.

        Raises:
            UserError: No runs, or runs whose results cannot be mixed.
        """
        named = [run for run in found.runs if config.data_name in (None, run.data_name)]
        runs = [run for run in named if run.status is not Status.UNTESTED]
        untested = [f"{run.folder.path}: {run.status}" for run in named if run not in runs]
        found = RunsFound(runs, [*found.unreadable, *untested])
        if not runs:
            experiment = config.report if is_configuration("experiment", config.report) else self.experiment
            unreadable = f" ({found.unreadable[0]})" if found.unreadable else ""
            raise UserError(
                f"no runs{'' if config.data_name is None else f' on {config.data_name}'} below {searched(config.runs)}"
                f"{unreadable}",
                do=f"Make them, for instance with: python -m {self.train} -m +experiment={experiment}",
            )
        check_comparable([run for run in runs if run.data], same, unless, worlds)
        return found

    def label(self, run: RunRecord) -> str:
        """Returns the name of a run's method as tables write it."""
        return self.labels.get(self.name_of(run), self.name_of(run))

    def order(self, name: str) -> tuple[bool, int, str]:
        """Sorts names of methods: those with labels in their order, then others by name."""
        names = list(self.labels)
        return (name not in names, names.index(name) if name in names else 0, name)

    def has_no_effect(self, key: str) -> bool:
        """Says whether a setting, in dots, cannot set results of comparable runs apart, or is the seed."""
        return key in self.without_effect or any(key.startswith(one) for one in self.without_effect if one[-1] == ".")

    def methods(
        self,
        runs: Sequence[RunRecord],
        ignored: Callable[[str, str], bool] = lambda name, key: False,
        apart: Callable[[RunRecord], Any] = lambda run: None,
    ) -> list[MethodRuns]:
        """Returns runs by method and by variant of it, in the order of `labels`.

        Args:
            runs: Comparable ones.
            ignored: Whether a setting (method, key in dots) makes no variant.
            apart: What sets runs of one variant apart that are no repetitions of each other, such as their alpha.
        """
        methods = []
        for name, runs_of in sorted(grouped(runs, self.name_of).items(), key=lambda pair: self.order(pair[0])):
            for group in group_by_settings(runs_of, lambda key: self.has_no_effect(key) or ignored(name, key)):  # noqa: B023
                distinction = self.unlike_preset(name, group.distinction, group.runs[0])
                label = label_of(self.labels.get(name, name), distinction)
                parts = grouped(group.runs, apart)
                methods += [MethodRuns(label, name, distinction, parts[part]) for part in sorted(parts)]
        return methods

    def unlike_preset(self, name: str, settings: Mapping[str, Any], run: RunRecord) -> dict[str, Any]:
        """Returns those of some settings, in dots, that a run has and `agent=NAME` on its data would not have."""
        agent = [f"agent={name}"] if is_configuration("agent", name) else []
        return unlike_composed(self.config, [*self.choose_data(run), *agent], settings) if settings else {}

    # What they reached.

    def read(self, methods: Sequence[MethodRuns], test: ComparedTest) -> Collected:
        """Reads the results of a test per episode; runs of one split must be about the same episodes.

        Raises:
            UserError: A file is damaged, or of other episodes than another one.
        """
        # Files: the newest run of each seed and split that has a result.
        left_out: list[str] = []
        tested = [(method, self._tested(method.runs, test, left_out)) for method in methods]
        everything = [run for _, runs in tested for run in runs]
        self._check_same_episodes(everything, test)
        # One long table, from which all else is taken.
        splits = sorted({numbers_of(run, self.splits) for run, _ in everything})
        parts = [self._table(number, runs, test, splits) for number, (_, runs) in enumerate(tested)]
        table = pl.concat([pl.DataFrame(schema=_LONG_TABLE), *parts])

        def result(method: MethodRuns, rows: pl.DataFrame, beside: pl.DataFrame) -> MethodResult:
            has_effect = method.name not in self.seedless
            return MethodResult(*method, stacked(rows, [*test.metrics]), has_effect, beside, splits_of(rows))

        results = []
        for number, (method, runs) in enumerate(tested):
            part = table.filter(pl.col("method") == number)
            if runs:
                results.append(result(method._replace(runs=[run for run, _ in runs]), part.filter("is_method"), part))
        # Baselines: each once, from the first run of each split that was tested beside it.
        baselines, warnings = [], []
        others = table.filter(~pl.col("is_method"))
        for name in sorted(others["policy"].unique(), key=self.order):
            warnings += self._unequal(name, others.filter(pl.col("policy") == name), test)
            if name not in {one.name for one in results}:
                rows = first_of_each_split(others, name)
                method = MethodRuns(self.labels.get(name, name), name, {}, [])
                baselines.append(
                    result(method, rows, table.filter(pl.col("run").is_in(rows["run"].unique().to_list())))
                )
        return Collected(results, baselines, left_out, warnings)

    def _tested(self, runs: Sequence[RunRecord], test: ComparedTest, left_out: list[str]) -> list[Tested]:
        """Returns the newest finished run of each seed with its arrays; adds to `left_out` why others do not count."""
        arrays = {}
        for run in finished(runs):
            path = run.folder.path / f"{test.file}.npz"
            wanted = (test.episode, *test.metrics)
            stored = read_arrays(path, lambda name: name.endswith(wanted)) if path.exists() else {}  # noqa: B023
            if stored.keys() >= set(wanted):
                arrays[run.folder.path] = _by_episode(stored, test.episode)
            else:
                left_out.append(f"{run.folder.path}: has no result in {path.name}")
        with_result = [run for run in runs if run.folder.path in arrays]
        newest = newest_of_each_seed(with_result, self.result, left_out, self.splits)
        return [(run, arrays[run.folder.path]) for run in newest]

    def _check_same_episodes(self, tested: Sequence[Tested], test: ComparedTest) -> None:
        """Checks that results are about the same episodes wherever the split is the same, with one value for each.

        Raises:
            UserError: They are not, or two splits share what they must not; the message names two runs.
        """
        firsts: dict[Any, Tested] = {}
        for run, arrays in tested:
            first, first_arrays = firsts.setdefault(numbers_of(run, self.splits), (run, arrays))
            episodes = first_arrays[test.episode]
            values = [arrays[name] for name in arrays if name.endswith(tuple(test.metrics))]
            if not np.array_equal(arrays[test.episode], episodes) or any(one.shape != episodes.shape for one in values):
                raise UserError(
                    f"has other {test.episodes} than {first.folder.path}, or not one value for each",
                    where=str(run.folder.path / f"{test.file}.npz"),
                    do=f"Evaluate both runs again: python -m {self.evaluate} run=FOLDER",
                )
        for (first, first_arrays), (run, arrays) in combinations(firsts.values(), 2) if test.disjoint else ():
            shared = len(np.intersect1d(first_arrays[test.episode], arrays[test.episode]))
            if shared:
                raise UserError(
                    f"shares {shared:,} {test.episodes} with {first.folder.path}, so their results are not independent",
                    where=str(run.folder.path / f"{test.file}.npz"),
                    do="Choose runs of one split, or of the folds of one, with runs=FOLDER,FOLDER.",
                )

    def _table(
        self, method: int, tested: Sequence[Tested], test: ComparedTest, splits: Sequence[tuple[float, ...]]
    ) -> pl.DataFrame:
        """Returns the rows of a method in the long table: one per run, policy and metric, with the episodes' values."""
        first = next(iter(test.metrics))
        rows: list[tuple[Any, ...]] = []
        for run, arrays in tested:
            prefixes = {"": self.name_of(run)}
            prefixes |= {f"{name.removesuffix(f'_{first}')}_": "" for name in arrays if name.endswith(f"_{first}")}
            condition = str([run.settings.get(key) for key in (*self.splits, *test.of_baselines)])
            split, seed = splits.index(numbers_of(run, self.splits)), run.settings["seed"]
            for prefix, name in prefixes.items():
                if arrays.keys() >= {f"{prefix}{metric}" for metric in test.metrics}:
                    about = (method, str(run.folder.path), seed, split, condition, not prefix, name or prefix[:-1])
                    rows += [(*about, metric, arrays[f"{prefix}{metric}"].astype(float)) for metric in test.metrics]
        return pl.DataFrame(rows, _LONG_TABLE, orient="row")

    def _unequal(self, name: str, beside: pl.DataFrame, test: ComparedTest) -> list[str]:
        """Says so where a baseline, which is the same for all runs, has different results beside them."""
        metric, head = next(iter(test.metrics.items()))
        means = beside.filter(pl.col("metric") == metric).with_columns(mean=pl.col("values").list.mean()).sort("mean")
        warnings = []
        for _, alike in means.group_by("condition", maintain_order=True):
            low, high = (alike.row(row, named=True) for row in (0, -1))
            if low["mean"] != high["mean"]:
                got = [f"{row['mean']:.{test.digits}f} beside {row['run']}" for row in (low, high)]
                warnings.append(
                    f"{self.labels.get(name, name)} got {got[0]} and {got[1]} ({head}): their simulators or machines "
                    "are not quite the same"
                )
        return warnings

    # What is missing.

    def rerun_commands(self, missing: Sequence[Rerun]) -> list[str]:
        """Returns the command lines that make missing runs; agents that need the same settings share one."""
        agents: dict[tuple[tuple[str, ...], tuple[str, ...], bool], list[str]] = {}
        for one in missing:
            data, rest = self.choose_data(one.reference), [*self._like_reference(one), *one.last]
            several = any("," in override for override in one.last)
            agents.setdefault((tuple(data), (*one.chosen, *rest), several), []).append(one.agent)
        return [
            shell_command(
                self.train, [*(["-m"] if several or len(names) > 1 else []), *data, f"agent={','.join(names)}", *rest]
            )
            for (data, rest, several), names in agents.items()
        ]

    def _like_reference(self, missing: Rerun) -> list[str]:
        """Returns the overrides that give a missing run the settings of its reference."""
        reference, data = missing.reference, self.choose_data(missing.reference)
        if reference is None:
            return []
        # A preset that is gone says nothing; for data and simulator any agent will do.
        whole = missing.like_reference and is_configuration("agent", missing.agent)
        sections = (*self.problem_sections, *(self.method_sections if whole else ()))
        replaced = [override.partition("=")[0] for override in (*missing.chosen, *missing.last)]

        def relevant(key: str) -> bool:
            section = key.partition(".")[0]
            return section in sections and not self.irrelevant(reference, key) and not {key, section} & {*replaced}

        base = [*data, f"agent={missing.agent}"] if whole else data
        return overrides_like(self.config, base, reference.values, relevant)

    def unfinished(self, found: RunsFound) -> list[str]:
        """Says which runs have no result that could be used, and how to continue them."""
        texts = []
        for run in found.runs:
            if run.status is not Status.FINISHED:
                then = shell_command(self.train, [f"resume={run.folder.path}"])
                then = "" if run.status is Status.RUNNING else f"; continue with: {then}"
                columns = [f"{head} {text}" for head, of in self.columns.items() if (text := of(run))]
                name = ", ".join([self.label(run), *columns, f"seed {run.settings['seed']}"])
                texts.append(f"{run.folder.path} ({name}): {run.status}{then}")
        return [*texts, *found.unreadable]

    # What is written.

    def write(
        self,
        config: RunsConfig,
        title: str,
        found: RunsFound,
        lines: Sequence[str],
        table: Table,
        pictures: Sequence[str] = (),
        left_out: Sequence[str] = (),
        warnings: Sequence[str] = (),
        missing: Sequence[Rerun] = (),
    ) -> None:
        """Prints and writes a report: Markdown that ends with what is not in it, and a CSV of its numbers.

        Args:
            config: Where to write.
            found: All runs that it is about.
            lines: Markdown between title and end.
            table: The numbers, without what `data_facts` puts in front.
            pictures: Names of files that were written before.
            left_out: Why runs do not count; repetitions are shown once.
            warnings: What casts doubt on the comparison; likewise.
            missing: Runs to make.

        Raises:
            UserError: The folder cannot be written.
        """
        # Markdown.
        text = [f"# {markdown_text(title)}", "", *lines]
        lists = {"Warnings": warnings, "Incomplete runs": self.unfinished(found), "Left out": left_out}
        for head, texts in lists.items():
            text += ["", f"## {head}", "", *markdown_list([*dict.fromkeys(texts)])] if texts else []
        if commands := self.rerun_commands(missing):
            text += ["", "## Missing", "", "```bash", *commands, "```"]
        # Numbers: every row says from which data.
        data = [run.data for run in found.runs if run.data] or [{}]
        facts = []
        for key in self.data_facts:
            values = dict.fromkeys(one.get(key, False if key.startswith("synthetic") else "") for one in data)
            facts.append(next(iter(values)) if len(values) == 1 else " ".join(map(str, values)))
        rows = [[*facts, *row] for row in table.rows]
        write_report(
            Path(config.out),
            config.report,
            _tidy(text),
            Table([*self.data_facts.values(), *table.heads], rows),
            pictures,
        )


Tested = tuple[RunRecord, dict[str, np.ndarray]]
"""A run, and the arrays of a test of it."""

_LONG_TABLE: dict[str, Any] = {
    "method": pl.Int64,  # index in the list of methods
    "run": pl.String,  # folder
    "seed": pl.Int64,
    "split": pl.Int64,  # index in the sorted list of splits
    "condition": pl.String,  # what results of baselines depend on
    "is_method": pl.Boolean,  # whether the policy is the run's method, or one that it was tested beside
    "policy": pl.String,
    "metric": pl.String,
    "values": pl.List(pl.Float64),  # per episode
}


def grouped(items: Sequence[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Returns runs, or results, by what they have in common."""
    parts: dict[Key, list[Item]] = {}
    for item in items:
        parts.setdefault(key(item), []).append(item)
    return parts


def most_runs(
    groups: Sequence[RunGroup], left_out: list[str], distance: Callable[[RunGroup], int] = lambda group: 0
) -> list[RunRecord]:
    """Returns the runs of the largest group (of equally large ones, the nearest); adds why others do not count."""
    first, *others = sorted(groups, key=lambda group: (-len(group.runs), distance(group))) or [RunGroup([], {})]
    left_out += [f"{run.folder.path}: {difference_from(first, group)}" for group in others for run in group.runs]
    return first.runs


def preset(variants: Sequence[Variant], name: str) -> Variant | None:
    """Returns the variant of a method that is nearest to `conf/agent/NAME.yaml`, if the method is there.

    Of equally near ones it is the one with most runs.
    """
    candidates = [variant for variant in variants if variant.name == name]
    return min(candidates, key=lambda variant: (len(variant.distinction), -len(variant.runs)), default=None)


def title_of(figure: str, runs: Sequence[RunRecord]) -> str:
    """Returns a report's title with the data set, and whether it is real."""
    run = next((run for run in runs if run.data), None)
    return figure if run is None else f"{figure}: {run.data_name}{kind_of(run.data)}"


def _by_episode(arrays: dict[str, np.ndarray], episode: str) -> dict[str, np.ndarray]:
    """Returns arrays in the order of the names of their episodes; equal names keep their order."""
    names = arrays[episode]
    order = np.argsort(names, kind="stable")
    return {key: one[order] if one.shape == names.shape else one for key, one in arrays.items()}


def _tidy(lines: Sequence[str]) -> list[str]:
    """Returns Markdown with one empty line where there were several, and none at the end."""
    return [line for line, next_line in zip(lines, [*lines[1:], ""], strict=True) if line or next_line]
