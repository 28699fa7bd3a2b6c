"""The run folder: what a run writes, so that a kill never leaves half a file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.commands.old_names import current_settings
from harness.compute.processes import is_first_process
from harness.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder.

    Attributes:
        path: The folder (Hydra's output folder).
    """

    path: Path

    @property
    def config(self) -> Path:
        """The composed configuration."""
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        """What the run was made from: data, versions, device, git commit."""
        return self.path / "run.json"

    @property
    def ids(self) -> Path:
        """Original ids of users and items and the split."""
        return self.path / "ids.npz"

    @property
    def metrics(self) -> Path:
        """One JSON row per log point."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints by step."""
        return self.path / "checkpoints"

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Keeps other processes from training in this folder; the lock ends with the process.

        Args:
            wait: Whether to wait (and say so) while another process holds the lock.

        Raises:
            UserError: Another process holds the lock, unless `wait`.
        """
        if fcntl is None:
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise UserError(
                        "another process is training in this folder",
                        where=str(self.path),
                        do="Wait for it, or stop it.",
                    ) from None
                print(f"waiting for another process that works in {self.path}", file=sys.stderr)
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:
                pass  # some network file systems have no locks
            yield
        finally:
            os.close(handle)

    def is_locked(self) -> bool:
        """Returns whether a process trains in this folder (False if unknown)."""
        if fcntl is None:
            return False
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may check at the same time
        except BlockingIOError:
            return True
        except OSError:
            pass  # some network file systems have no locks
        finally:
            os.close(handle)
        return False

    def check_unused(self) -> None:
        """Raises UserError if the folder already contains a run."""
        if self.config.exists():
            raise UserError(
                "already holds a run",
                where=str(self.path),
                do="Resume it with resume=FOLDER, or choose another folder.",
            )

    def start(self, config: dict[str, Any]) -> None:
        """Creates the folder and writes its configuration.

        Raises:
            UserError: The folder already contains a run, or cannot be written.
        """
        self.check_unused()
        self.write_config(config)

    def read_config(self) -> dict[str, Any]:
        """Reads the configuration; keys that had other names in earlier versions get those of now.

        Raises:
            UserError: No run folder, or its configuration is damaged.
        """
        advice = "Name the folder of a training run."
        if not self.path.is_dir():
            raise UserError("there is no such folder", where=str(self.path), do=advice)
        try:
            config = OmegaConf.load(self.config)
        except FileNotFoundError:
            raise UserError("is not a run folder (it has no config.yaml)", where=str(self.path), do=advice) from None
        except (OSError, yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
            raise UserError(f"cannot be read ({error})", where=str(self.config), do="Restore the file.") from None
        if not isinstance(config, DictConfig) or not config:
            raise UserError("holds no configuration", where=str(self.config), do="Restore the file.")
        return current_settings(plain_config(config, str(self.config)))

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes the configuration, replacing any earlier one."""
        write_atomically(self.config, lambda path: path.write_text(OmegaConf.to_yaml(OmegaConf.create(config))))


def plain_config(config: DictConfig, where: str = "configuration") -> dict[str, Any]:
    """Returns a configuration as plain containers with interpolations resolved.

    Raises:
        UserError: An interpolation leads nowhere.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0], where=where, do="Correct the ${...} in it.") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def register_run_folder_resolver() -> None:
    """Registers `${run_folder:RESUME,DEFAULT}`, Hydra's output folder of a new or resumed run."""

    def run_folder(resume: str | int | None, default: str) -> str:
        if resume is None:
            return default
        # Hydra creates its output folder: a wrong name must not leave an empty folder behind.
        return str(resume) if RunFolder(Path(str(resume))).config.is_file() else "."

    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


@contextmanager
def discard_if_empty(path: Path) -> Iterator[None]:
    """Removes the folder (and the empty day folder of a default name) if the block fails before writing to it."""
    try:
        yield
    except BaseException:
        remove_if_empty(path)
        raise


@contextmanager
def emptied_on_failure(path: Path) -> Iterator[Callable[[], None]]:
    """Removes what the block wrote into a folder that was new or empty, if it fails; yields what to call to keep it."""
    new = path.absolute() != Path.cwd() and not (path.is_dir() and any(path.iterdir()))
    kept = False

    def keep() -> None:
        nonlocal kept
        kept = True

    try:
        yield keep
    except BaseException:
        if new and not kept and path.is_dir():
            for one in path.iterdir():
                if one.is_dir() and not one.is_symlink():
                    shutil.rmtree(one, ignore_errors=True)
                else:
                    one.unlink(missing_ok=True)
        raise


def remove_if_empty(path: Path) -> None:
    """Removes an empty folder (and the empty day folder of a default name)."""
    with suppress(OSError, ValueError):
        path.rmdir()
        for parent in path.absolute().relative_to(Path.cwd()).parents:
            if parent.parts[:1] in (("outputs",), ("multirun",)):
                parent.rmdir()


@contextmanager
def writing(path: Path, problem: str = "cannot be written", then: str = "") -> Iterator[None]:
    """Raises UserError about a path where the block fails to write; its advice may go on with `then`."""
    try:
        yield
    except OSError as error:
        do = f"Check permissions and free space, or choose another folder{then}."
        raise UserError(f"{problem} ({error.strerror or error})", where=str(path), do=do) from None


def make_folder(path: Path) -> None:
    """Creates a folder and its parents.

    Raises:
        UserError: It cannot be created.
    """
    with writing(path, "cannot be created"):
        path.mkdir(parents=True, exist_ok=True)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a temporary file in the same folder, then renames it; of several processes only the first does.

    Args:
        path: The final path.
        write: Writes the content to a given path.

    Raises:
        UserError: The folder cannot be written (permission, full disk).
    """
    if not is_first_process():
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)  # mkstemp makes files private
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically; refuses NaN and infinities (ValueError)."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        UserError: Missing or damaged file.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError("is missing", where=str(path), do="Restore the file, or train again.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({error})", where=str(path), do="Restore the file.") from None


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz atomically; object arrays, which need pickling, are a ValueError."""
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"array {name!r} holds Python objects")

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    write_atomically(path, write)


def _is_pickle(path: Path) -> bool:
    """Returns whether a file begins as a pickle does (NumPy says so of any file that is no archive)."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(1) == b"\x80"
    return False


def read_arrays(path: Path, names: Sequence[str] | Callable[[str], bool] | None) -> dict[str, np.ndarray]:
    """Reads arrays of an .npz without pickles.

    Args:
        names: Names of the arrays, or a predicate on names; None reads all.

    Raises:
        UserError: The file is missing or damaged, or lacks an array.
    """
    try:
        # Opened here: of a damaged archive np.load leaves the file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            chosen = filter(names, arrays.files) if names is None or callable(names) else names
            return {name: arrays[name] for name in chosen}
    except FileNotFoundError:
        raise UserError("is missing", where=str(path), do="Restore the file, or train again.") from None
    except Exception as error:  # a damaged archive can raise anything
        if "Object arrays" in str(error) or _is_pickle(path):
            raise UserError(
                "holds Python objects, which nothing but a pickle can store",
                where=str(path),
                do="Store numbers, or text as in np.array(ids, dtype=str); pickles are not read, as they can run code.",
            ) from None
        raise UserError(f"is damaged ({error})", where=str(path), do="Restore the file.") from None
