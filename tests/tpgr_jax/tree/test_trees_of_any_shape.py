"""Trees given by their children: what is accepted, how it is renumbered, and what is refused."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from hand_made import hand_made_tree
from harness.errors import UserError
from tpgr_jax.tree import item_tree
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering
from tpgr_jax.tree.item_tree import ItemTree, load_tree, read_own_tree, tree_from_children


def nested(children, leaf_items, node=0):
    """The tree below a node as nested tuples of items, in the order of the children."""
    if node >= len(children):
        return int(leaf_items[node - len(children)])
    return tuple(nested(children, leaf_items, child) for child in children[node] if child >= 0)


def shape_of(tree: ItemTree):
    return nested(tree.children, tree.leaf_items)


def random_arrays(generator, num_items, num_children, deepest=6):
    """A random tree of any shape, with nodes numbered at random, as children and leaf_items."""
    rows, leaves = [], []

    def grow(items, level):
        row = len(rows)
        rows.append([])
        parts = np.array_split(items, np.sort(generator.integers(0, len(items) + 1, num_children - 1)))
        for part in parts:
            if len(part) == 1 or (len(part) and level + 1 == deepest):
                for item in part:
                    leaves.append(item)
                    rows[row].append(("leaf", len(leaves) - 1))
            elif len(part):
                rows[row].append(("node", grow(part, level + 1)))
        return row

    grow(generator.permutation(num_items), 0)
    inner = np.concatenate([[0], 1 + generator.permutation(len(rows) - 1)])
    outer = generator.permutation(len(leaves))
    children = np.full((len(rows), max(map(len, rows)) + 1), -1)  # the last column stays empty
    for row, entries in enumerate(rows):
        columns = np.sort(generator.choice(children.shape[1] - 1, len(entries), replace=False))
        for column, (kind, number) in zip(columns, entries, strict=True):
            children[inner[row], column] = inner[number] if kind == "node" else len(rows) + outer[number]
    leaf_items = np.empty(len(leaves), int)
    leaf_items[outer] = leaves
    return children, leaf_items


def check_arrays(tree: ItemTree):
    """Compares every array with a walk over the children."""
    n = tree.num_internal
    paths, nodes = np.zeros((2, tree.num_items, tree.depth), int)
    sizes, levels = np.zeros((n, tree.num_children), int), [0] * tree.depth

    def walk(node, path, visited):
        if node >= n:
            item, missing = tree.leaf_items[node - n], tree.depth - len(path)
            assert tree.item_leaf[item] == node - n
            paths[item], nodes[item] = path + [0] * missing, visited + [node] * missing
            return 1
        levels[len(path)] += 1
        for k, child in enumerate(tree.children[node].tolist()):
            if child >= 0:
                sizes[node, k] = walk(child, [*path, k], [*visited, node])
        return sizes[node].sum()

    assert walk(0, [], []) == tree.num_items
    np.testing.assert_array_equal(tree.item_paths, paths)
    np.testing.assert_array_equal(tree.item_nodes, nodes)
    np.testing.assert_array_equal(tree.sizes, sizes)
    assert list(tree.level_nodes) == levels or tree.regular
    assert {array.dtype for array in (tree.children, tree.leaf_items, tree.item_leaf, tree.sizes)} == {np.dtype("i4")}


def test_a_tree_by_hand():
    tree = hand_made_tree()
    assert (tree.num_items, tree.num_internal, tree.num_children, tree.depth) == (7, 4, 3, 3)
    assert (tree.level_nodes, tree.regular) == ((1, 2, 1), False)
    np.testing.assert_array_equal(tree.sizes, [[3, 1, 3], [2, 1, 0], [1, 1, 1], [1, 1, 0]])
    # Items 3 (below the root), 0 and 6 (one level down), 2 (at the bottom).
    np.testing.assert_array_equal(tree.item_paths[[3, 0, 6, 2]], [[1, 0, 0], [0, 1, 0], [2, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(tree.item_nodes[[3, 0, 6, 2]], [[0, 4, 4], [0, 1, 5], [0, 2, 6], [0, 1, 3]])
    check_arrays(tree)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.integers(1, 80), st.integers(1, 9), st.integers(0, 10_000))
def test_any_numbering_comes_to_level_order_and_keeps_the_shape(num_items, num_children, seed):
    children, leaf_items = random_arrays(np.random.default_rng(seed), num_items, num_children)
    tree = tree_from_children(children, leaf_items)
    assert shape_of(tree) == nested(children, leaf_items)
    check_arrays(tree)
    again = tree_from_children(tree.children, tree.leaf_items)
    np.testing.assert_array_equal(again.children, tree.children)
    np.testing.assert_array_equal(again.leaf_items, tree.leaf_items)
    assert (again.level_nodes, again.regular) == (tree.level_nodes, tree.regular)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.integers(1, 300), st.integers(1, 4))
def test_regular_numbering_is_recognised_and_left_alone(num_items, depth):
    tree = build_tree(num_items, depth, make_clustering("random", None, 0))
    again = tree_from_children(tree.children.astype(np.int64), tree.leaf_items)
    assert again.regular
    assert again.level_nodes == tuple(tree.num_children**level for level in range(tree.depth))
    for name in ("children", "leaf_items", "item_leaf", "sizes", "item_paths", "item_nodes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tree, name))
    check_arrays(again)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.integers(1, 25), st.integers(2, 5), st.integers(0, 10_000))
def test_the_regular_layout_holds_the_same_tree(num_items, num_children, seed):
    tree = tree_from_children(*random_arrays(np.random.default_rng(seed), num_items, num_children, deepest=4))
    padded = tree.in_regular_layout()
    assert padded.regular
    np.testing.assert_array_equal(padded.item_paths, tree.item_paths)
    assert padded.in_regular_layout() is padded
    check_arrays(padded)


def test_a_regular_layout_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(item_tree, "MAX_PADDED_SLOTS", 26)
    with pytest.raises(UserError, match="27 leaf slots, more than 26"):
        hand_made_tree().in_regular_layout()


def test_what_an_earlier_version_wrote_still_loads(tmp_path):
    """The arrays of commit 5e63f8e for seven items at depth 2, of which slots 3 and 8 are empty."""
    arrays = {
        "num_children": np.array(3),
        "depth": np.array(2),
        "leaf_items": np.array([4, 0, 3, 1, 2, -1, 6, 5, -1], np.int32),
        "item_leaf": np.array([1, 3, 4, 2, 0, 7, 6], np.int32),
        "children": np.array([[1, 2, 3], [4, 5, 6], [7, 8, -1], [10, 11, -1]], np.int32),
        "sizes": np.array([[3, 2, 2], [1, 1, 1], [1, 1, 0], [1, 1, 0]], np.int32),
        "item_paths": np.array([[0, 1], [1, 0], [1, 1], [0, 2], [0, 0], [2, 1], [2, 0]], np.int32),
        "item_nodes": np.array([[0, 1], [0, 2], [0, 2], [0, 1], [0, 1], [0, 3], [0, 3]], np.int32),
    }
    np.savez_compressed(tmp_path / "tree.npz", **arrays)
    tree = load_tree(tmp_path / "tree.npz")
    assert (tree.regular, tree.level_nodes) == (True, (1, 3))
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(tree, name), array)


def test_an_irregular_tree_comes_back_from_its_file(tmp_path):
    tree = hand_made_tree()
    tree.save(tmp_path / "tree.npz")
    again = load_tree(tmp_path / "tree.npz")
    assert (again.level_nodes, again.regular) == (tree.level_nodes, False)
    for name in ("children", "leaf_items", "item_leaf", "sizes", "item_paths", "item_nodes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tree, name))


@pytest.mark.parametrize(
    ("children", "leaf_items", "why"),
    [
        ([[1, 1], [2, 3]], [0, 1], "node 1 is a child twice"),
        ([[1, 2], [2, 3]], [0, 1], "node 2 is a child twice"),
        ([[1, 3], [0, 2]], [0, 1], "the root, node 0, is a child"),
        ([[3, 4], [2, -1], [1, -1]], [0, 1], "node 1 cannot be reached"),  # a circle apart from the root
        ([[3, -1], [4, -1], [-1, -1]], [0, 1], "node 1 cannot be reached"),
        ([[1, 2], [-1, -1]], [0], "node 1 has no children"),
        ([[-1]], [0], "node 0 has no children"),
        ([[1, -1]], [0, 1], "the leaf of item 1 cannot be reached"),
        ([[1, 2]], [0, -1], "leaf node 2 has no item"),
        ([[1, 2]], [0, 0], "item 0 has 2 leaves"),
        ([[1, 2, 3]], [0, 2, 2], "item 1 has 0 leaves"),
        ([[1, 3]], [0, 1], "between -1 and 2"),
        ([[1, -2]], [0, 1], "between -1 and 2"),
        ([[1, 2]], [0, 9], "not numbered"),
        ([[1.0, 2.0]], [0, 1], "integers"),
        ([1, 2], [0, 1], "shape"),
        ([[]], [0], "shape"),
        ([[k + 1] for k in range(40)], [0], "more than 32 levels"),
    ],
)
def test_what_is_no_tree_is_refused(tmp_path, children, leaf_items, why):
    np.savez(tmp_path / "tree.npz", children=np.array(children), leaf_items=np.array(leaf_items))
    with pytest.raises(UserError, match=rf"tree\.npz: the tree is inconsistent \(.*{why}"):
        load_tree(tmp_path / "tree.npz")


# A user's own tree.

IDS = np.array([10, 20, 30, 40])


def write_own(tmp_path, **arrays):
    np.savez(tmp_path / "own.npz", **{name: np.array(value) for name, value in arrays.items()})
    return tmp_path / "own.npz"


@pytest.mark.parametrize("as_text", [False, True])
def test_an_own_tree_by_original_ids_without_what_nobody_rated(tmp_path, as_text):
    ids = [40, 99, 10, 98, 30, 20]  # 98 and 99 were not rated; node 2 holds 98 only
    children = [[1, 2, 3], [4, 5, -1], [7, -1, -1], [6, 8, 9]]
    path = write_own(tmp_path, children=children, leaf_ids=[str(i) for i in ids] if as_text else ids)
    tree = read_own_tree(path, IDS.astype(str) if as_text else IDS)
    assert shape_of(tree) == (((3,), (0, 2, 1)))
    check_arrays(tree)


def test_an_own_tree_by_indices(tmp_path):
    path = write_own(tmp_path, children=[[1, 4, 5], [2, 3, -1]], leaf_items=[2, 0, 3, 1])
    assert shape_of(read_own_tree(path, IDS)) == ((2, 0), 3, 1)


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"children": [[1, 2, 3]], "leaf_ids": [10, 20, 30]}, "item 40 has 0 leaves"),
        ({"children": [[1, 2, 3, 4, 5]], "leaf_ids": [10, 20, 30, 40, 20]}, "item 20 has 2 leaves"),
        ({"children": [[1, 2, 3, -1]], "leaf_ids": [10, 20, 30, 40]}, "item 3 cannot be reached"),
        ({"children": [[1, 2, 3, 4, 5]], "leaf_items": [0, 1, 2, 3, 4]}, "has item 4, the data 4 items"),
        ({"children": [[1, 2]]}, "no array leaf_ids"),
        ({"leaf_ids": IDS}, "no array children"),
        ({"children": [[1, 2, 3, 4]], "leaf_items": [0.0, 1.0, 2.0, 3.0]}, "integers"),
        ({"children": [[1, 2, 3, 4]], "leaf_items": [[0, 1], [2, 3]]}, "shape"),
    ],
)
def test_an_own_tree_that_does_not_fit_is_refused(tmp_path, arrays, why):
    with pytest.raises(UserError, match=rf"own\.npz: is no tree over the items \(.*{why}"):
        read_own_tree(write_own(tmp_path, **arrays), IDS)


def test_an_own_tree_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_own_tree(tmp_path / "none.npz", IDS)
    (tmp_path / "own.npz").write_text("no archive")
    with pytest.raises(UserError, match="is damaged"):
        read_own_tree(tmp_path / "own.npz", IDS)
