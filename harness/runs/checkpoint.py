"""Checkpoints of a run (Orbax): the learner's whole state and the loop's, saved and restored together."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp

from harness.errors import UserError
from harness.old_names import as_now, as_stored

_usual_hook = sys.unraisablehook

_MAX_REASON = 120  # characters of another library's message


class Checkpoints:
    """Checkpoints in one folder, numbered by step."""

    def __init__(self, folder: Path, max_to_keep: int | None = None, *, read_only: bool = False) -> None:
        """Opens the folder (created unless `read_only`).

        Args:
            folder: `checkpoints/` of a run folder.
            max_to_keep: Older ones are deleted; None keeps all.
            read_only: Only `restore` is allowed.
        """
        self._folder = folder.absolute()
        self._read_only = read_only
        if not read_only and "[" in str(self._folder):
            # Orbax takes brackets for a pattern when it finishes a checkpoint, and leaves one that nobody can read.
            raise UserError(
                "checkpoints cannot be kept below a folder with '[' in its name",
                where=str(self._folder),
                do="Choose another run folder (hydra.run.dir, or hydra.sweep.dir and hydra.sweep.subdir).",
            )
        self._manager: ocp.CheckpointManager | None = None
        if self._folder.is_dir() or not read_only:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=max_to_keep,
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return [] if self._manager is None else sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, loop: dict[str, Any]) -> None:
        """Saves in the background; only a complete checkpoint becomes visible.

        Args:
            step: Training steps done.
            state: The learner's state (a pytree of arrays; random keys allowed).
            loop: The loop's own numbers (JSON).

        Raises:
            UserError: The checkpoint cannot be written.
        """
        assert self._manager is not None
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(_plain(state)), loop=ocp.args.JsonSave(loop))
        try:
            self._manager.wait_until_finished()  # Orbax drops a save that comes while another is running
            saved = self._manager.save(step, args=arguments)
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from None
        if not saved:
            raise self._unwritable(f"a checkpoint of step {self._manager.latest_step()} is in the way")

    def wait(self) -> None:
        """Waits until the last save is complete.

        Raises:
            UserError: The checkpoint could not be written.
        """
        assert self._manager is not None
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from None

    def restore(self, like: Any, step: int | None = None) -> tuple[int, Any, dict[str, Any]]:
        """Restores a checkpoint into the shapes, types and placement of `like`.

        Args:
            like: A state of the same configuration.
            step: Which one; None takes the newest that can be read. If that is not the newest, says so, and (unless
                read only) deletes the unreadable ones.

        Returns:
            The step, the state and the loop's numbers.

        Raises:
            UserError: No checkpoint, not this one, or damaged.
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

    def delete_after(self, step: int) -> None:
        """Removes later checkpoints (unless read only), which would keep Orbax from saving before or at their steps."""
        assert self._manager is not None
        for later in [] if self._read_only else [saved for saved in self.steps if saved > step]:
            self._manager.delete(later)

    def _restore(self, like: Any, step: int) -> tuple[Any, dict[str, Any]]:
        assert self._manager is not None
        plain = _plain(like)
        # Earlier versions gave other names to some fields.
        stored = ocp.StandardCheckpointHandler().metadata(self._folder / str(step) / "state").tree
        target = as_stored(jax.tree.map(ocp.utils.to_shape_dtype_struct, plain), stored)
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

    def _unwritable(self, error: Exception | str) -> UserError:
        # Of Orbax's chain "what: why: why that" the end: "No space left on device [os_error_code='28']".
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = text.rpartition(": ")[2].partition(" [")[0]
        return UserError(
            f"the checkpoint cannot be written ({reason})",
            where=str(self._folder),
            do="Check permissions and free space.",
        )

    def __enter__(self) -> Checkpoints:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for a running save and closes."""
        if self._manager is not None:
            self._manager.close()


class JointCheckpoints:
    """Checkpoints of runs that train together: a folder for each, all of the same steps."""

    def __init__(self, folders: Sequence[Path], max_to_keep: int) -> None:
        """Opens `checkpoints/` of all runs; `max_to_keep` as for `Checkpoints`, but at least 2 for several runs."""
        # A kill may come when some have saved and others not: then all go back to the checkpoint before.
        keep = max_to_keep if len(folders) == 1 else max(2, max_to_keep)
        self._members = [Checkpoints(folder, keep) for folder in folders]

    @property
    def steps(self) -> list[int]:
        """Steps of which every run has a complete checkpoint, ascending."""
        return sorted(set.intersection(*(set(member.steps) for member in self._members)))

    def save(self, step: int, states: Sequence[Any], loop: dict[str, Any]) -> None:
        """Saves the state of each run in the background; see `Checkpoints.save`.

        Raises:
            UserError: A checkpoint cannot be written.
        """
        self.wait()  # no run may ever be two checkpoints ahead of another
        for member, state in zip(self._members, states, strict=True):
            member.save(step, state, loop)

    def wait(self) -> None:
        """Waits until the last saves are complete.

        Raises:
            UserError: A checkpoint could not be written.
        """
        for member in self._members:
            member.wait()

    def restore(self, likes: Sequence[Any]) -> tuple[int, list[Any], dict[str, Any]]:
        """Restores all runs at the newest step that all have and that can be read; later checkpoints are removed.

        Args:
            likes: A state of each run's configuration.

        Returns:
            The step, the states and the loop's numbers.

        Raises:
            UserError: None can be read.
        """
        step, states, loop = _restore_newest(self._members, likes, self.steps)
        for member in self._members:
            member.delete_after(step)
        return step, states, loop

    def start_over(self) -> None:
        """Prepares to begin at step 0, where no step is common: removes what some saved before a kill stopped others.

        Raises:
            UserError: More than the first save would be lost.
        """
        saved = [len(member.steps) for member in self._members]
        if all(saved) or max(saved) > 1:
            raise UserError(
                "the runs have no checkpoint of the same step",
                where=_place(self._members),
                do="Continue them one by one, resume=FOLDER with the folder of each, or restore their checkpoints.",
            )
        for member in self._members:
            member.delete_after(0)

    def __enter__(self) -> JointCheckpoints:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for running saves and closes."""
        with ExitStack() as stack:
            for member in self._members:
                stack.push(member)


def _restore_newest(
    members: Sequence[Checkpoints], likes: Sequence[Any], steps: Sequence[int]
) -> tuple[int, list[Any], dict[str, Any]]:
    """Restores all members at the newest of some steps that can be read in every folder; says so if others cannot."""
    problems: dict[str, list[int]] = {}
    for step in sorted(steps, reverse=True):
        try:
            restored = [member._restore(like, step) for member, like in zip(members, likes, strict=True)]
        except Exception as error:  # whatever damage makes Orbax raise: the next older one may be whole
            problems.setdefault(_brief(error), []).append(step)
            continue
        if problems:
            print(f"warning: unreadable checkpoint skipped ({_listed(problems)})", file=sys.stderr)
        return step, [state for state, _ in restored], restored[0][1]
    raise UserError(
        f"no checkpoint can be read ({_listed(problems)})",
        where=_place(members),
        do="Restore the folder, its config.yaml too if that was changed, or train again.",
    )


def _brief(error: Exception) -> str:
    """Returns the first sentence of a library's message, without its advice."""
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    sentence = first.partition(". ")[0]
    return sentence if len(sentence) <= _MAX_REASON else f"{sentence[:_MAX_REASON]}..."


def _listed(problems: Mapping[str, Sequence[int]]) -> str:
    return "; ".join(f"step {', '.join(map(str, steps))}: {problem}" for problem, steps in problems.items())


def _place(members: Sequence[Checkpoints]) -> str:
    return os.path.commonpath([member._folder for member in members])


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(state: Any) -> Any:
    """Random keys as their raw numbers, which every Orbax version can store."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, state)


def _with_keys(plain: Any, like: Any) -> Any:
    return jax.tree.map(
        lambda leaf, wanted: (
            jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(wanted)) if _is_key(wanted) else leaf
        ),
        plain,
        like,
    )


def silence_orbax() -> None:
    """Silences its logs, and reads and writes that end after another one has failed; their error was raised once."""
    for name in ("absl", "asyncio"):  # Orbax logs every save, asyncio the failures of its writers
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _without_late_reads


def _without_late_reads(unraisable: sys.UnraisableHookArgs) -> None:
    """Passes over Orbax's coroutines that nobody waits for any more, and reports to its event loop that is gone."""
    code = getattr(unraisable.object, "cr_code", None)
    abandoned = code is not None and "orbax" in code.co_filename
    late = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"
    if not (abandoned or late):
        _usual_hook(unraisable)


silence_orbax()
