"""Where metrics go besides the run folder: nowhere, or to Weights & Biases."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import UserError
from harness.runs.run_folder import RunFolder, write_atomically
from harness.settings import SettingError

Log = Callable[[int, dict[str, Any]], None]
"""`log(step, values)` records one row of metrics."""


@dataclass(frozen=True)
class LoggerConfig:
    """Where metrics go besides `metrics.jsonl` and TensorBoard events (`conf/logger/wandb.yaml` explains each)."""

    name: Literal["files", "wandb"]
    project: str | None = None
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the key."""
        if self.name == "wandb" and not self.project:
            raise SettingError(".project is missing", do="Name the project of Weights & Biases that runs go to.")


FILES = LoggerConfig("files")


@contextmanager
def tracking(config: LoggerConfig, folder: RunFolder, labels: dict[str, Any]) -> Iterator[Log]:
    """Yields the function that records each row of metrics of a run.

    A resumed run continues the same Weights & Biases run (`wandb_id` in its folder); rows that it repeats appear twice.
    Once training has begun, a failure of the service is only a warning.

    Raises:
        UserError: The package is missing, or the service cannot be used.
    """
    if config.name == "files":
        yield lambda step, values: None
        return
    run = _open(config, folder, labels)
    warned = False

    def attempt(call: Callable[[], Any]) -> None:
        nonlocal warned
        try:
            call()
        except Exception as error:
            if not warned:
                print(
                    f"warning: Weights & Biases rejected the metrics ({error}); they are in the folder", file=sys.stderr
                )
            warned = True

    code = 1
    try:
        yield lambda step, values: attempt(lambda: run.log({"step": step, **values}))
        code = 0
    finally:
        attempt(lambda: run.finish(exit_code=code))


def check_logger(config: LoggerConfig) -> None:
    """Raises UserError if the configured logger cannot work, as far as that can be checked in advance."""
    if config.name == "wandb":
        _package()


def _package() -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError(
            "logger=wandb needs the package wandb", do="pip install wandb (extra `wandb`), or leave logger=wandb out."
        ) from None
    return wandb


def _open(config: LoggerConfig, folder: RunFolder, labels: dict[str, Any]) -> Any:
    wandb = _package()
    identity = folder.path / "wandb_id"
    if not identity.exists():
        write_atomically(identity, lambda temporary: temporary.write_text(secrets.token_hex(8)))
    try:
        run = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=config.mode,
            id=identity.read_text(),
            name=folder.path.name,
            dir=str(folder.path),
            config={**folder.read_config(), **labels},
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
    except Exception as error:
        raise UserError(
            f"Weights & Biases cannot be used ({' '.join(str(error).split())})",
            do="Log in with `wandb login`, or set logger.mode=offline, or leave logger=wandb out.",
        ) from None
    return run
