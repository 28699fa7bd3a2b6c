"""Checkpoints of a run (Orbax): the states of the learner and of the loop, saved and restored together."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

from harness.commands.old_names import as_now, as_stored
from harness.errors import UserError

_usual_hook = sys.unraisablehook

_MAX_REASON = 120  # characters shown of a library's message


class Checkpoints(AbstractContextManager["Checkpoints"]):
    """Checkpoints in one folder, numbered by step. Orbax is opened when something is saved or found there."""

    def __init__(self, folder: Path, max_to_keep: int | None = None, *, read_only: bool = False) -> None:
        """Opens the folder (created unless `read_only`).

        Args:
            folder: `checkpoints/` of a run folder.
            max_to_keep: How many checkpoints to keep, the newest; None keeps all.
            read_only: Only `restore` is allowed.
        """
        self._folder = folder.absolute()
        self._read_only, self._max_to_keep = read_only, max_to_keep
        if not read_only and "[" in str(self._folder):
            # Orbax treats brackets as a glob pattern when it finalises a checkpoint, which then cannot be read.
            raise UserError(
                "checkpoints cannot be kept below a folder with '[' in its name",
                where=str(self._folder),
                do="Choose another run folder (hydra.run.dir, or hydra.sweep.dir and hydra.sweep.subdir).",
            )
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._max_to_keep,
            read_only=self._read_only,
            create=False,
            cleanup_tmp_directories=not self._read_only,
        )
        return ocp.CheckpointManager(self._folder, options=options)

    @property
    def _is_open(self) -> bool:
        return "_manager" in vars(self)

    @property
    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        something = self._is_open or (self._folder.is_dir() and any(self._folder.iterdir()))
        return sorted(self._manager.all_steps()) if something else []

    def save(self, step: int, state: Any, loop: dict[str, Any]) -> None:
        """Saves in the background; only a complete checkpoint becomes visible.

        Args:
            step: Training steps done.
            state: The learner's state (a pytree of arrays; random keys allowed).
            loop: The loop's own numbers (JSON).

        Raises:
            UserError: The checkpoint cannot be written.
        """
        ocp = _orbax()
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(_plain(state)), loop=ocp.args.JsonSave(loop))
        with self._reported():
            self._manager.wait_until_finished()  # Orbax drops a save that comes while another is running
            saved = self._manager.save(step, args=arguments)
        if not saved:
            raise self._unwritable(f"a checkpoint of step {self._manager.latest_step()} is in the way")

    def wait(self) -> None:
        """Waits until the last save is complete.

        Raises:
            UserError: The checkpoint could not be written.
        """
        with self._reported():
            if self._is_open:
                self._manager.wait_until_finished()

    def restore(self, like: Any, step: int | None = None) -> tuple[int, Any, dict[str, Any]]:
        """Restores a checkpoint into the shapes, types and placement of `like`.

        Args:
            like: A state of the same configuration.
            step: Step to restore; None restores the newest readable checkpoint. If newer ones are unreadable, says so
                and (unless read only) deletes them.

        Returns:
            The step, the state and the loop's numbers.

        Raises:
            UserError: There is no checkpoint, none of this step, or it is damaged.
        """
        steps = self.steps
        if not steps:
            raise UserError("the run has no checkpoint", where=str(self._folder), do="Continue it: resume=RUN_FOLDER.")
        if step is not None and step not in steps:
            raise UserError(
                f"there is no checkpoint of step {step}",
                where=str(self._folder),
                do=f"Available: {', '.join(map(str, steps))}.",
            )
        found, [state], loop = _restore_newest([self], [like], steps if step is None else [step])
        if step is None:
            self.delete_after(found)
        return found, state, loop

    def restore_arrays(self) -> tuple[int, Any]:
        """Restores the newest readable checkpoint as it was saved, whatever configuration it belongs to.

        Returns:
            The step, and nested dictionaries of arrays by the names of the state's fields; random keys as raw data.

        Raises:
            UserError: There is no checkpoint, or none can be read.
        """
        newest = self.steps[-1:]  # of `restore`'s message if there is none
        one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

        def like(stored: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(stored.shape, stored.dtype, sharding=one_device)

        step, state, _ = self.restore(jax.tree.map(like, self._stored(newest[0])) if newest else None)
        return step, state

    def delete_after(self, step: int) -> None:
        """Removes later checkpoints (unless read only); Orbax would refuse to save at or before their steps."""
        self.delete([saved for saved in self.steps if saved > step])

    def delete(self, steps: Iterable[int]) -> None:
        """Removes checkpoints (unless read only)."""
        for step in [] if self._read_only else steps:
            self._manager.delete(step)

    def _restore(self, like: Any, step: int) -> tuple[Any, dict[str, Any]]:
        ocp, plain = _orbax(), _plain(like)
        # Earlier versions gave other names to some fields.
        target = as_stored(jax.tree.map(ocp.utils.to_shape_dtype_struct, plain), self._stored(step))
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target), loop=ocp.args.JsonRestore())
        )
        state = as_now(restored["state"], plain)
        for wanted, got in zip(jax.tree.leaves(plain), jax.tree.leaves(state), strict=True):
            if wanted.shape != got.shape or wanted.dtype != got.dtype:
                raise ValueError(
                    f"holds {got.dtype}{got.shape} where this configuration has {wanted.dtype}{wanted.shape}"
                )
        return _with_keys(state, like), restored["loop"]

    def _stored(self, step: int) -> Any:
        """Returns what a checkpoint holds: shapes and types of the state's arrays."""
        return _orbax().StandardCheckpointHandler().metadata(self._folder / str(step) / "state").tree

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: Exception | str) -> UserError:
        # The end of Orbax's chain of causes, such as "No space left on device [os_error_code='28']".
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = text.rpartition(": ")[2].partition(" [")[0]
        return UserError(
            f"the checkpoint cannot be written ({reason})",
            where=str(self._folder),
            do="Check permissions and free space.",
        )

    def __exit__(self, *error: object) -> None:
        """Waits for a running save and closes."""
        if self._is_open:
            self._manager.close()


class JointCheckpoints(AbstractContextManager["JointCheckpoints"]):
    """Checkpoints of runs that train together: one folder per run, all with the same steps."""

    def __init__(self, folders: Sequence[Path], max_to_keep: int, keep_others: bool = False) -> None:
        """Opens `checkpoints/` of all runs.

        Args:
            folders: One per run.
            max_to_keep: As for `Checkpoints`, but at least 2 for several runs.
            keep_others: Whether `save` says which older ones to keep, too.
        """
        # If a kill comes when only some have saved, all go back to the checkpoint before.
        self._newest = max_to_keep if len(folders) == 1 else max(2, max_to_keep)
        self._keep_others = keep_others
        self._checkpoints = [Checkpoints(folder, None if keep_others else self._newest) for folder in folders]

    @property
    def steps(self) -> list[int]:
        """Steps at which every run has a complete checkpoint, ascending."""
        return sorted(set.intersection(*(set(checkpoints.steps) for checkpoints in self._checkpoints)))

    def save(self, step: int, states: Sequence[Any], loop: dict[str, Any], others: Collection[int] = ()) -> None:
        """Saves the state of each run in the background; see `Checkpoints.save`.

        Args:
            others: Steps to keep beside the newest.

        Raises:
            UserError: A checkpoint cannot be written.
        """
        self.wait()  # no run may get two checkpoints ahead of another
        self.keep_newest(others)
        for checkpoints, state in zip(self._checkpoints, states, strict=True):
            checkpoints.save(step, state, loop)

    def keep_newest(self, others: Collection[int]) -> None:
        """Removes all but the newest checkpoints and those of other steps, where `keep_others`."""
        for checkpoints in self._checkpoints if self._keep_others else []:
            checkpoints.delete(set(checkpoints.steps[: -self._newest]) - set(others))

    def wait(self) -> None:
        """Waits until the last saves are complete.

        Raises:
            UserError: A checkpoint could not be written.
        """
        for checkpoints in self._checkpoints:
            checkpoints.wait()

    def restore(self, likes: Sequence[Any]) -> tuple[int, list[Any], dict[str, Any]]:
        """Restores all runs at the newest step that is readable for all; later checkpoints are removed.

        Args:
            likes: For each run a state of the shapes to restore.

        Returns:
            The step, the states and the loop's numbers.

        Raises:
            UserError: No step can be read.
        """
        step, states, loop = _restore_newest(self._checkpoints, likes, self.steps)
        for checkpoints in self._checkpoints:
            checkpoints.delete_after(step)
        return step, states, loop

    def start_over(self) -> None:
        """Prepares to start at step 0 when no step is common: removes what only some runs saved before a kill.

        Raises:
            UserError: More than the first save would be lost.
        """
        saved = [len(checkpoints.steps) for checkpoints in self._checkpoints]
        if all(saved) or max(saved) > 1:
            raise UserError(
                "the runs have no checkpoint of the same step",
                where=_common_folder(self._checkpoints),
                do="Continue them one by one, resume=FOLDER with the folder of each, or restore their checkpoints.",
            )
        for checkpoints in self._checkpoints:
            checkpoints.delete_after(0)

    def __exit__(self, *error: object) -> None:
        """Waits for running saves and closes."""
        with ExitStack() as stack:
            for checkpoints in self._checkpoints:
                stack.push(checkpoints)


def _restore_newest(
    folders: Sequence[Checkpoints], likes: Sequence[Any], steps: Sequence[int]
) -> tuple[int, list[Any], dict[str, Any]]:
    """Restores all runs at the newest of the given steps that every folder can read; reports newer ones."""
    problems: dict[str, list[int]] = {}
    for step in sorted(steps, reverse=True):
        try:
            restored = [folder._restore(like, step) for folder, like in zip(folders, likes, strict=True)]
        except Exception as error:  # damage can make Orbax raise anything; try the next older one
            problems.setdefault(_brief(error), []).append(step)
            continue
        if problems:
            print(f"warning: unreadable checkpoint skipped ({_listed(problems)})", file=sys.stderr)
        return step, [state for state, _ in restored], restored[0][1]
    raise UserError(
        f"no checkpoint can be read ({_listed(problems)})",
        where=_common_folder(folders),
        do="Restore the folder, its config.yaml too if that was changed, or train again.",
    )


def _brief(error: Exception) -> str:
    """Returns the first sentence of a library's message, without its advice."""
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    sentence = first.partition(". ")[0]
    return sentence if len(sentence) <= _MAX_REASON else f"{sentence[:_MAX_REASON]}..."


def _listed(problems: Mapping[str, Sequence[int]]) -> str:
    return "; ".join(f"step {', '.join(map(str, steps))}: {problem}" for problem, steps in problems.items())


def _common_folder(folders: Sequence[Checkpoints]) -> str:
    return os.path.commonpath([folder._folder for folder in folders])


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(state: Any) -> Any:
    """Replaces random keys by their raw data, which every Orbax version can store."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, state)


def _with_keys(plain: Any, like: Any) -> Any:
    return jax.tree.map(
        lambda leaf, wanted: (
            jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(wanted)) if _is_key(wanted) else leaf
        ),
        plain,
        like,
    )


@functools.cache
def _orbax() -> Any:
    """Imports Orbax, which takes 0.2 s that a run need not spend before its first step.

    Silences its logs, and the errors of reads and writes that end after another one has failed and raised.
    """
    import orbax.checkpoint as ocp

    for name in ("absl", "asyncio"):  # Orbax logs every save, asyncio the failures of its writers
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _without_late_reads
    return ocp


def _without_late_reads(unraisable: sys.UnraisableHookArgs) -> None:
    """Ignores Orbax's abandoned coroutines and their reports to a closed event loop; shows everything else."""
    code = getattr(unraisable.object, "cr_code", None)
    abandoned = code is not None and "orbax" in code.co_filename
    late = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"
    if not (abandoned or late):
        _usual_hook(unraisable)
