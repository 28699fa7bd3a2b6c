"""Runs that differ only in their seed and train together: a group folder that holds one run folder per seed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from omegaconf import DictConfig

from harness.errors import UserError
from harness.runs.index import flattened
from harness.runs.run_folder import RunFolder, plain_config
from harness.settings import Count, Seed, read_settings

_SEEDS = 2**32


@dataclass(frozen=True, kw_only=True)
class SeedsConfig:
    """Which seeds train together: `seed`, `seed + 1`, ... (`num_seeds` in `conf/training.yaml`)."""

    seed: Seed
    num_seeds: Count = 1

    def __post_init__(self) -> None:
        """Checks that the last seed is in range; raises UserError naming the keys."""
        if self.seed + self.num_seeds > _SEEDS:
            raise UserError(
                f"the last of num_seeds={self.num_seeds} seeds from seed={self.seed} is "
                f"{self.seed + self.num_seeds - 1}",
                do=f"Seeds must be less than {_SEEDS:,}: start at a lower one.",
            )

    @property
    def seeds(self) -> range:
        """All seeds."""
        return range(self.seed, self.seed + self.num_seeds)


class Run(NamedTuple):
    """A run: its composed configuration (without `resume`) and its folder."""

    values: dict[str, Any]
    folder: RunFolder


def new_runs(composed: DictConfig, folder: RunFolder) -> list[Run]:
    """Returns the runs that a composed configuration asks for: one in the folder, or one per seed in folders below it.

    Raises:
        UserError: Impossible seeds, or a configuration that cannot be resolved.
    """
    seeds = _read_seeds(_plain_run(composed))
    if seeds.num_seeds == 1:
        return [Run(_plain_run(composed), folder)]
    return [
        Run(_plain_run(_with_seed(composed, seed)), seed_folder)
        for seed, seed_folder in zip(seeds.seeds, _seed_folders(folder, seeds), strict=True)
    ]


def runs_in(folder: RunFolder) -> list[Run]:
    """Returns the runs in a folder with the configurations stored there.

    Raises:
        UserError: No run folder, or a configuration is missing or damaged.
    """
    run, seeds = _stored(folder)
    if seeds.num_seeds == 1:
        return [run]
    return [_stored(seed_folder)[0] for seed_folder in _seed_folders(folder, seeds)]


def read_single_run(folder: RunFolder) -> dict[str, Any]:
    """Reads the configuration of a single run; refuses a group of several seeds.

    Raises:
        UserError: No run folder, a damaged configuration, or a group; the message names the group's runs.
    """
    runs = runs_in(folder)
    if len(runs) > 1:
        raise UserError(
            f"holds the runs of {len(runs)} seeds",
            where=str(folder.path),
            do=f"Name one of them: {', '.join(str(run.folder.path) for run in runs)}.",
        )
    return runs[0].values


def group_of(runs: Sequence[Run]) -> Run | None:
    """Returns the group folder of several runs with its configuration; None for a single run."""
    if len(runs) == 1:
        return None
    first = runs[0]
    return Run({**first.values, "num_seeds": len(runs)}, RunFolder(first.folder.path.parent))


def name_folders(folders: Sequence[RunFolder]) -> str:
    """Returns a line that tells the user where the runs are kept."""
    if len(folders) == 1:
        return f"run folder: {folders[0].path}"
    return f"{len(folders)} run folders: {folders[0].path} to {folders[-1].path.name}"


def check_alike(runs: Sequence[Run], per_seed: Sequence[str]) -> None:
    """Checks that runs which train together differ only in their seeds.

    Args:
        runs: All runs of the group.
        per_seed: Keys that may differ besides `seed`, such as `tree.seed`.

    Raises:
        UserError: Another key differs; the message names it.
    """
    first, *others = (dict(flattened(run.values)) for run in runs)
    for run, settings in zip(runs[1:], others, strict=True):
        for key in sorted({*first, *settings}):
            if first.get(key) != settings.get(key) and key not in ("seed", *per_seed):
                raise UserError(
                    f"{key} differs between seed {runs[0].values['seed']} and seed {run.values['seed']}, which "
                    "train together",
                    do=f"Give {key} one value for all of them, or train the seeds one by one.",
                )


def _plain_run(composed: DictConfig) -> dict[str, Any]:
    return {key: value for key, value in plain_config(composed).items() if key != "resume"}


def _read_seeds(values: Mapping[str, Any]) -> SeedsConfig:
    return read_settings(SeedsConfig, {key: values[key] for key in ("seed", "num_seeds") if key in values})


def _stored(folder: RunFolder) -> tuple[Run, SeedsConfig]:
    """Reads a run folder's configuration; one that was cut has lost its seeds, which come near its end."""
    values = folder.read_config()
    try:
        return Run(values, folder), _read_seeds(values)
    except UserError as error:
        raise UserError(str(error).splitlines()[0], where=str(folder.config), do="Restore the file.") from None


def _with_seed(composed: DictConfig, seed: int) -> DictConfig:
    """Returns the configuration of one seed; interpolations of `seed` resolve to it."""
    single = copy.deepcopy(composed)
    single.seed, single.num_seeds = seed, 1
    return single


def _seed_folders(folder: RunFolder, seeds: SeedsConfig) -> list[RunFolder]:
    return [RunFolder(folder.path / f"seed_{seed}") for seed in seeds.seeds]
