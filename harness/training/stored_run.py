"""What the commands that evaluate a run share: its folder, its configuration, one of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax

from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.run_folder import RunFolder
from harness.runs.seeds import read_single_run
from harness.settings import Integer
from harness.training.agent import Agent
from harness.training.command import check_system, relocated


@dataclass(frozen=True, kw_only=True)
class StoredRunConfig:
    """Which run, which of its checkpoints (None: the newest), and where its data are, if no longer in their place.

    Attributes:
        system: The package whose commands train and evaluate the run.
    """

    system: ClassVar[str]
    run: str | None
    checkpoint: Integer | None
    data_root: str | None
    data_cache: str | None
    data_path: str | None

    def __post_init__(self) -> None:
        """Checks values; raises UserError naming the key."""
        if self.run is None:
            raise UserError("no run given", do="Name a run folder: run=RUN_FOLDER")

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        return RunFolder(Path(self.run or ""))

    def read_values(self) -> dict[str, Any]:
        """Returns the run's configuration with the present places of its data.

        Raises:
            UserError: No run folder, a damaged configuration, a group of several seeds, or a run of the other system.
        """
        values = read_single_run(self.folder)
        check_system(values, self.system, self.folder, "evaluate", "run")
        return relocated(values, self.data_root, self.data_cache, self.data_path)

    def check_began(self, path: Path, name: str) -> None:
        """Raises UserError if the run lacks a file, called `name`, that it makes before its training begins."""
        if not path.exists():
            raise UserError(
                f"the run has no {name} (it stopped before training began)",
                where=str(self.folder.path),
                do=f"Continue it: python -m {self.system}.train resume={self.folder.path}",
            )

    def restore(self, agent: Agent, seed: int) -> tuple[int, Any, str]:
        """Restores the checkpoint.

        Args:
            agent: What the run trained.

        Returns:
            Its step, the agent's state, and the suffix of its results' names: the newest one's have none, so that they
            keep their place.

        Raises:
            UserError: There is no checkpoint, none of this step, or it is damaged.
        """
        like = agent.initial_state(jax.random.key(seed))
        with Checkpoints(self.folder.checkpoints, read_only=True) as checkpoints:
            newest = max(checkpoints.steps, default=0)
            step, state, _ = checkpoints.restore(like, self.checkpoint)
        return step, state, "" if step == newest else f"_step_{step}"
