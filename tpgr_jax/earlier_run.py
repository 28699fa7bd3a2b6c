"""Training that starts from an earlier run's tree and parameters, on newer data (`init_from`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.runs.seeds import read_single_run
from harness.training import earlier_run
from sim.tables.items import ItemTable
from sim.tables.ratings import RatingData
from tpgr_jax.tree.item_tree import ItemTree, load_tree
from tpgr_jax.tree.new_items import NUM_NEIGHBOURS, most_similar, with_new_items

_BY_ITEM = ("item_embedding", "item_kernel", "item_bias")
"""Names of the parameters that have a row for each item."""


@dataclass(frozen=True)
class EarlierRun(earlier_run.EarlierRun):
    """A run on ratings that another one starts from.

    Attributes:
        similar: [new, k] int64 present items that are known and most like each new one, the most similar first.
    """

    similar: np.ndarray

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

    def carry_over(
        self,
        fresh: Any,
        leave_out: Collection[str] = (),
        params_of: Callable[[Mapping[str, Any]], Any] = lambda state: state["params"],
    ) -> Any:
        """Returns network parameters with those of the run's newest checkpoint in their place.

        Parameters with a row for each item are matched by id; new items get the mean of the `similar` ones.

        Args:
            fresh: Parameters as they are drawn for the present data, in nested dictionaries.
            leave_out: Names, at the top, of those that stay fresh.
            params_of: From the checkpoint's state, in nested dictionaries, to the parameters.

        Raises:
            UserError: There is no readable checkpoint, or its networks have another shape.
        """
        carried = {name: value for name, value in fresh.items() if name not in leave_out}
        matched = self.matched(carried, params_of(self.state()), "agent.policy", self._of_present_items)
        return {name: matched.get(name, value) for name, value in fresh.items()}

    def _of_present_items(self, name: str, value: np.ndarray) -> np.ndarray:
        """Returns a parameter; one with a row for each item of the run has one for each present item."""
        if name not in _BY_ITEM:
            return value
        rows = value[np.maximum(self.source, 0)]
        rows[self.source < 0] = rows[self.similar].mean(1)
        return rows


def read_earlier_run(
    path: str, agent: str, depth: int, data: RatingData, users: np.ndarray, items: ItemTable | None = None
) -> EarlierRun:
    """Matches the items of a run with those of newer data.

    Args:
        path: The run folder.
        agent: Name of the agent that is to start from it.
        depth: Of the tree that is asked for.
        data: The newer data.
        users: [n] its training users, ascending; their ratings say which items are alike.
        items: What is known of its items, for those that nobody has rated.

    Raises:
        UserError: No run folder, another agent's or with another depth, or the two have no items in common.
    """
    run = earlier_run.read_earlier_run(path, agent, data.name, np.asarray(data.item_ids), np.asarray(data.user_ids))
    if (earlier_depth := read_single_run(run.folder).get("tree", {}).get("depth")) != depth:
        raise UserError(
            f"tree.depth is {depth}, {run.folder.path} has {earlier_depth}",
            where="init_from",
            do=f"Set tree.depth={earlier_depth}.",
        )
    similar = most_similar(data, users, run.source >= 0, NUM_NEIGHBOURS, items)
    return EarlierRun(run.folder, run.source, run.num_vanished, run.num_known_users, similar)
