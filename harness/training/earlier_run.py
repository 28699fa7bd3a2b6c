"""A run that another one starts from, on newer data (`init_from`): its items, users and parameters matched by id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.run_folder import RunFolder, read_arrays
from harness.runs.seeds import read_single_run


@dataclass(frozen=True)
class EarlierRun:
    """A run that another one starts from.

    Attributes:
        folder: Its run folder.
        source: [J] int64 index of each present item among its items; -1 for new ones.
        num_vanished: Its items that are no longer there.
        num_known_users: Present users that it knew.
    """

    folder: RunFolder
    source: np.ndarray
    num_vanished: int
    num_known_users: int

    @property
    def description(self) -> str:
        """What is carried over, for people."""
        counts = self.record
        return (
            f"starting from {self.folder.path}: {counts['known_items']:,} of {len(self.source):,} items and "
            f"{self.num_known_users:,} users are known from it, {counts['new_items']:,} items are new, "
            f"{self.num_vanished:,} have vanished"
        )

    @property
    def record(self) -> dict[str, Any]:
        """What is carried over, for `run.json`."""
        known = int((self.source >= 0).sum())
        return {
            "run": str(self.folder.path),
            "known_items": known,
            "new_items": len(self.source) - known,
            "vanished_items": self.num_vanished,
            "known_users": self.num_known_users,
        }

    def state(self) -> Mapping[str, Any]:
        """Returns the state of the newest readable checkpoint, as nested dictionaries.

        Raises:
            UserError: There is none.
        """
        with Checkpoints(self.folder.checkpoints, read_only=True) as checkpoints:
            state: Mapping[str, Any] = checkpoints.restore_arrays()[1]
        return state

    def matched(
        self,
        fresh: Any,
        stored: Any,
        settings: str,
        present: Callable[[str, np.ndarray], np.ndarray] = lambda name, value: value,
    ) -> Any:
        """Returns stored parameters in the place of freshly drawn ones.

        Args:
            fresh: Nested dictionaries of arrays.
            stored: Likewise, as they were saved.
            settings: Key of the settings that decide shapes, for the message.
            present: From a parameter's name and value to its value for the present items.

        Raises:
            UserError: A parameter is missing, or has another shape.
        """

        def match(path: tuple[Any, ...], drawn: jax.Array) -> jax.Array:
            names = [key.key for key in path]
            found = stored
            for name in names:
                found = found.get(name) if isinstance(found, Mapping) else None
            value = None if found is None else present(names[-1], np.asarray(found))
            if value is None or value.shape != drawn.shape:
                raise UserError(
                    f"its networks are others than this run's: {'.'.join(names)} is "
                    f"{'missing' if value is None else f'{value.shape}, not {drawn.shape}'}",
                    where=str(self.folder.path),
                    do=f"Give the same {settings} settings as that run has in config.yaml.",
                )
            return jnp.asarray(value, drawn.dtype)

        return jax.tree_util.tree_map_with_path(match, fresh)


def read_earlier_run(path: str, agent: str, data: str, item_ids: np.ndarray, user_ids: np.ndarray) -> EarlierRun:
    """Reads what a run knew, and matches it with newer data.

    Args:
        path: The run folder.
        agent: Name of the agent that is to start from it.
        data: Name of the newer data.
        item_ids: [J] items of the newer data.
        user_ids: [U] its users.

    Raises:
        UserError: No run folder, another agent's, or the two have no items in common.
    """
    folder = RunFolder(Path(path).expanduser())
    other = read_single_run(folder).get("agent", {}).get("name")
    if other != agent:
        raise UserError(
            f"is a run of agent={other}, whose parameters agent={agent} cannot start from",
            where=str(folder.path),
            do=f"Name a run of agent={agent} as init_from.",
        )
    ids = read_arrays(folder.ids, ("item_ids", "user_ids"))
    source = _places(item_ids, ids["item_ids"])
    known = int((source >= 0).sum())
    if not known:
        raise UserError(
            f"has no item in common with {data} (its items are {_some(ids['item_ids'])}, not {_some(item_ids)})",
            where=str(folder.path),
            do="Name a run on the same catalogue as init_from.",
        )
    known_users = int((_places(user_ids, ids["user_ids"]) >= 0).sum())
    return EarlierRun(folder, source, len(ids["item_ids"]) - known, known_users)


def _places(ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Returns the index of each id among others, as text where types differ; -1 where it is not among them."""
    if ids.dtype.kind != among.dtype.kind:
        ids, among = ids.astype(str), among.astype(str)
    order = np.argsort(among, kind="stable")
    place = np.minimum(np.searchsorted(among, ids, sorter=order), len(among) - 1)
    return np.where(among[order[place]] == ids, order[place], -1)


def _some(ids: np.ndarray) -> str:
    return ", ".join(map(str, ids[:3].tolist())) + (", ..." if len(ids) > 3 else "")
