"""The settings of a training run: what `conf/train.yaml` composes, checked."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from harness.compute.devices import AUTOMATIC, DevicesConfig, device_mesh
from harness.runs.run_folder import RunFolder
from harness.runs.seeds import SeedsConfig
from harness.runs.tracking import FILES, LoggerConfig
from harness.settings import Count, read_settings
from harness.training.loop import ScheduleConfig
from harness.training.stored_run import StoredRunConfig
from harness.tuning.study import StudyConfig
from sim.datasets.items import NO_ITEMS, ItemsConfig
from sim.datasets.ratings import AnyDataConfig
from sim.envs.simulator import ANY_SIMULATOR, EnvSettings
from sim.tables.items import read_item_table
from tpgr_jax.earlier_run import EarlierRun, read_earlier_run
from tpgr_jax.methods import AgentSettings, Method, RunContext
from tpgr_jax.problem import Problem, make_problem, origin_of
from tpgr_jax.registry import ANY_AGENT, build_method
from tpgr_jax.tree.item_tree import TreeConfig
from tpgr_jax.tree.item_vectors import stored_item_tree, tree_path

_ITEMS_ON_EVERY_CORE = 100_000  # of more items the networks are too large to keep one copy for each core of a CPU


@dataclass(frozen=True)
class TrainConfig(ScheduleConfig):
    """The schedule, and how many episodes a training step plays (`conf/train/default.yaml`)."""

    episodes_per_step: Count


@dataclass(frozen=True)
class RunConfig(SeedsConfig):
    """Everything that decides a run's numbers."""

    data: AnyDataConfig
    env: Annotated[EnvSettings, ANY_SIMULATOR]
    tree: TreeConfig
    agent: Annotated[AgentSettings, ANY_AGENT]
    train: TrainConfig
    items: ItemsConfig = NO_ITEMS
    devices: DevicesConfig = AUTOMATIC
    logger: LoggerConfig = FILES
    init_from: str | None = None

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        self.agent.check(self.train.episodes_per_step)
        self.agent.check_warm_up(self.train.steps)


@dataclass(frozen=True, kw_only=True)
class TuneConfig(RunConfig, StudyConfig):
    """A study, and the run that its trials vary (`conf/tune.yaml`)."""


def devices_of(config: RunConfig, num_items: int) -> AbstractContextManager[None]:
    """Spreads what is computed within over a run's devices (see `harness.compute.devices`).

    Raises:
        UserError: Too few devices, or numbers that do not divide.
    """
    batch = config.train.episodes_per_step
    small = config.agent.on_a_tree and num_items <= _ITEMS_ON_EVERY_CORE
    return device_mesh(config.devices, batch, "train.episodes_per_step", config.agent.node_shards, small)


def stored_problem(stored: StoredRunConfig) -> tuple[RunConfig, Problem]:
    """Returns the settings of a stored run, and its problem, made again.

    Raises:
        UserError: No run folder, or a damaged one; data missing, or other than the run was trained on.
    """
    config = read_settings(RunConfig, stored.read_values())
    if config.agent.on_a_tree:
        stored.check_began(tree_path(stored.folder), "tree")
    problem = make_problem(config.data, config.env)
    origin_of(problem).check(stored.folder)
    return config, problem


def make_method(config: RunConfig, problem: Problem, folder: RunFolder, earlier: EarlierRun | None = None) -> Method:
    """Builds the method that a run asks for; agents on a tree keep it in the run's folder.

    Args:
        earlier: The run whose parameters training starts from; needed only where training begins.

    Raises:
        UserError: Settings that do not fit the data, or a damaged tree.
    """
    grown = None if earlier is None else earlier.grown_tree
    tree = partial(stored_item_tree, config.tree, problem.data, problem.train_users, folder, grown)
    return build_method(problem, config.agent, RunContext(config.seed, config.train.episodes_per_step, tree, earlier))


def earlier_run_of(config: RunConfig, problem: Problem, folder: RunFolder) -> EarlierRun | None:
    """Returns the run whose parameters training starts from (`init_from`), matched with the data; None without one.

    Args:
        folder: Of the run that starts from it; its table of items tells which items are alike that nobody has rated.

    Raises:
        UserError: No run folder, another agent's, or the two have no items in common.
    """
    if config.init_from is None:
        return None
    asked_for = config.init_from, config.agent.name, config.tree.depth
    return read_earlier_run(*asked_for, problem.data, problem.train_users, read_item_table(folder.path))
