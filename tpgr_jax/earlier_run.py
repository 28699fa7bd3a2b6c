"""Training that starts from an earlier run's parameters, on newer data; items are matched by id (`init_from`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.run_folder import RunFolder, read_arrays
from harness.runs.seeds import read_single_run
from sim.tables.ratings import RatingData
from tpgr_jax.tree.item_tree import ItemTree, load_tree
from tpgr_jax.tree.new_items import NUM_NEIGHBOURS, most_similar, with_new_items

_BY_ITEM = ("item_embedding", "item_kernel", "item_bias")
"""Names of the parameters that have a row for each item."""


@dataclass(frozen=True)
class EarlierRun:
    """A run that another one starts from.

    Attributes:
        folder: Its run folder.
        source: [I] int64 index of each present item in its catalogue; -1 for new ones.
        similar: [new, k] int64 present items that are known and most like each new one, the most similar first.
        num_vanished: Its items that are no longer there.
        num_known_users: Present users that it knew.
    """

    folder: RunFolder
    source: np.ndarray
    similar: np.ndarray
    num_vanished: int
    num_known_users: int

    @property
    def description(self) -> str:
        """What is carried over, for people."""
        known = int((self.source >= 0).sum())
        return (
            f"starting from {self.folder.path}: {known:,} of {len(self.source):,} items and {self.num_known_users:,} "
            f"users are known from it, {len(self.similar):,} items are new, {self.num_vanished:,} have vanished"
        )

    @property
    def record(self) -> dict[str, Any]:
        """What is carried over, for `run.json`."""
        return {
            "run": str(self.folder.path),
            "known_items": int((self.source >= 0).sum()),
            "new_items": len(self.similar),
            "vanished_items": self.num_vanished,
            "known_users": self.num_known_users,
        }

    @cached_property
    def _tree(self) -> ItemTree:
        return load_tree(self.folder.path / "tree.npz")

    def grown_tree(self) -> ItemTree | None:
        """Returns its tree with the present items; None if it has no room for the new ones."""
        return with_new_items(self._tree, self.source, self.similar[:, 0])

    def keeps_places(self, tree: ItemTree) -> bool:
        """Says whether a tree has the shape of the run's own, and the items that both have are at the same leaves."""
        old, known = self._tree, np.flatnonzero(self.source >= 0)
        return (
            tree.regular
            and old.regular
            and tree.level_nodes == old.level_nodes
            and np.array_equal(tree.item_leaf[known], old.item_leaf[self.source[known]])
        )

    def carry_over(self, fresh: Any, leave_out: Collection[str] = ()) -> Any:
        """Returns network parameters with those of the run's newest checkpoint in their place.

        Parameters with a row for each item are matched by id; new items get the mean of the `similar` ones.

        Args:
            fresh: Parameters as they are drawn for the present data, in nested dictionaries.
            leave_out: Names, at the top, of those that stay fresh.

        Raises:
            UserError: There is no readable checkpoint, or its networks have another shape.
        """
        with Checkpoints(self.folder.checkpoints, read_only=True) as checkpoints:
            _, stored = checkpoints.restore_arrays()
        return self._matched(fresh, stored["params"], leave_out)

    def _matched(self, fresh: Mapping[str, Any], stored: Mapping[str, Any], leave_out: Collection[str]) -> Any:
        def match(path: tuple[Any, ...], drawn: jax.Array) -> jax.Array:
            names = [key.key for key in path]
            if names[0] in leave_out:
                return drawn
            found: Any = stored
            for name in names:
                found = found.get(name) if isinstance(found, Mapping) else None
            value = None if found is None else np.asarray(found)
            if value is not None and names[-1] in _BY_ITEM:
                value = self._of_present_items(value)
            if value is None or value.shape != drawn.shape:
                raise UserError(
                    f"its networks are others than this run's: {'.'.join(names)} is "
                    f"{'missing' if value is None else f'{value.shape}, not {drawn.shape}'}",
                    where=str(self.folder.path),
                    do="Give the same agent.policy settings as that run has in config.yaml.",
                )
            return jnp.asarray(value, drawn.dtype)

        return jax.tree_util.tree_map_with_path(match, fresh)

    def _of_present_items(self, rows: np.ndarray) -> np.ndarray:
        """Returns [I, ...] a row for each present item from the rows of the run's own items."""
        values = rows[np.maximum(self.source, 0)]
        values[self.source < 0] = values[self.similar].mean(1)
        return values


def read_earlier_run(path: str, agent: str, depth: int, data: RatingData, users: np.ndarray) -> EarlierRun:
    """Matches the items of a run with those of newer data.

    Args:
        path: The run folder.
        agent: Name of the agent that is to start from it.
        depth: Of the tree that is asked for.
        data: The newer data.
        users: [n] its training users, ascending; their ratings say which items are alike.

    Raises:
        UserError: No run folder, another agent's or with another depth, or the two have no items in common.
    """
    # Is it a run of the same kind?
    folder = RunFolder(Path(path).expanduser())
    values = read_single_run(folder)
    other = values.get("agent", {}).get("name")
    if other != agent:
        raise UserError(
            f"is a run of agent={other}, whose parameters agent={agent} cannot start from",
            where=str(folder.path),
            do=f"Name a run of agent={agent} as init_from.",
        )
    if (earlier_depth := values.get("tree", {}).get("depth")) != depth:
        raise UserError(
            f"tree.depth is {depth}, {folder.path} has {earlier_depth}",
            where="init_from",
            do=f"Set tree.depth={earlier_depth}.",
        )
    # Match ids, and look for known items like the new ones.
    ids = read_arrays(folder.ids, ("item_ids", "user_ids"))
    source = _places(np.asarray(data.item_ids), ids["item_ids"])
    if not (source >= 0).any():
        raise UserError(
            f"has no item in common with {data.name} (its items are {_some(ids['item_ids'])}, not "
            f"{_some(np.asarray(data.item_ids))})",
            where=str(folder.path),
            do="Name a run on the same catalogue as init_from.",
        )
    known_users = int((_places(np.asarray(data.user_ids), ids["user_ids"]) >= 0).sum())
    similar = most_similar(data, users, source >= 0, NUM_NEIGHBOURS)
    return EarlierRun(folder, source, similar, len(ids["item_ids"]) - int((source >= 0).sum()), known_users)


def _places(ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Returns the index of each id among others, as text where types differ; -1 where it is not among them."""
    if ids.dtype.kind != among.dtype.kind:
        ids, among = ids.astype(str), among.astype(str)
    order = np.argsort(among, kind="stable")
    place = np.minimum(np.searchsorted(among, ids, sorter=order), len(among) - 1)
    return np.where(among[order[place]] == ids, order[place], -1)


def _some(ids: np.ndarray) -> str:
    return ", ".join(map(str, ids[:3].tolist())) + (", ..." if len(ids) > 3 else "")
