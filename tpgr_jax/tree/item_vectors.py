"""Item vectors for the clustering: rating columns, matrix factorisation, or an auto-encoder. Training users only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.errors import UserError
from harness.runs.run_folder import RunFolder, write_atomically
from sim.tables.ratings import RatingData
from tpgr_jax.models.matrix_factorisation import factor_vectors
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering
from tpgr_jax.tree.clustering import Vectors
from tpgr_jax.tree.item_tree import ItemTree, TreeConfig, load_tree, read_own_tree
from tpgr_jax.tree.item_vae import vae_vectors


def item_vectors(config: TreeConfig, data: RatingData, users: np.ndarray) -> Vectors:
    """Returns one row per item: sparse [I, n] ratings (never densified), or dense [I, vector_size].

    Args:
        config: Which vectors.
        data: Ratings.
        users: [n] training users, ascending.
    """
    if config.vectors == "mf":
        return factor_vectors(data, users, config.vector_size, config.vector_epochs, config.seed)
    item_ratings = data.matrix(data.rating_values, users).T.tocsr()
    if config.vectors == "vae":
        return vae_vectors(item_ratings, config.vector_size, config.vector_epochs, config.seed)
    return item_ratings


def build_item_tree(config: TreeConfig, data: RatingData, users: np.ndarray) -> ItemTree:
    """Builds the tree that a configuration asks for from the ratings of the training users, or reads the user's own.

    Raises:
        UserError: Too many items, or `tree.path` names no tree over them.
    """
    if config.path is not None:
        return read_own_tree(Path(config.path).expanduser(), data.item_ids)
    vectors = None if config.clustering == "random" else item_vectors(config, data, users)
    return build_tree(
        data.num_items, config.depth, make_clustering(config.clustering, vectors, config.seed), config.spare
    )


def stored_item_tree(
    config: TreeConfig,
    data: RatingData,
    users: np.ndarray,
    folder: RunFolder,
    grown: Callable[[], ItemTree | None] | None = None,
) -> ItemTree:
    """Takes the tree from the run folder, or builds (or reads the user's own) and saves it there.

    Args:
        config: Which tree.
        data: Ratings.
        users: [n] training users, ascending.
        grown: Returns an earlier run's tree with the present items, which is taken in place of a new one; or None.

    Raises:
        UserError: The saved tree is damaged or of another catalogue.
    """
    path = tree_path(folder)
    if not path.exists():
        tree = (None if config.path or grown is None else grown()) or build_item_tree(config, data, users)
        write_atomically(path, tree.save)
        return tree
    tree = load_tree(path)
    if tree.num_items != data.num_items:
        raise UserError(
            f"the tree is over {tree.num_items:,} items, {data.name} has {data.num_items:,}",
            where=str(path),
            do="Use the data set that the run was trained on.",
        )
    return tree


TREE_FILE = "tree.npz"


def tree_path(folder: RunFolder) -> Path:
    """Where a run keeps its tree."""
    return folder.path / TREE_FILE
