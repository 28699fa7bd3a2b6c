"""The balanced tree: Eq. 2 and 5, numbering and arrays against an independent traversal, save and load."""

import contextlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse

from harness.errors import UserError
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering, smallest_branching
from tpgr_jax.tree.item_tree import load_tree, regular_tree

ARRAYS = ("leaf_items", "item_leaf", "children", "sizes", "item_paths", "item_nodes")


def random_tree(num_items, depth, seed=0):
    return build_tree(num_items, depth, make_clustering("random", None, seed))


def check_tree(tree, num_items, depth):
    """Walks down from the root by `children` alone and compares every array with what it meets."""
    c, reached = tree.num_children, tree.depth
    assert c**depth >= num_items
    assert c == 1 or (c - 1) ** depth < num_items
    assert reached <= depth
    assert num_items == 1 or c ** (reached - 1) < num_items <= c**reached
    assert tree.num_items == num_items
    assert tree.num_internal == sum(c**level for level in range(reached))
    if c > 1:
        assert tree.num_internal == (c**reached - 1) // (c - 1)
    children, sizes, paths, nodes = tree.children, tree.sizes, tree.item_paths, tree.item_nodes
    assert children.shape == sizes.shape == (tree.num_internal, c)
    assert paths.shape == nodes.shape == (num_items, reached)
    assert {array.dtype for array in (children, sizes, paths, nodes, tree.leaf_items, tree.item_leaf)} == {
        np.dtype(np.int32)
    }
    children, sizes, leaf_items = children.tolist(), sizes.tolist(), tree.leaf_items.tolist()
    seen, visited = {}, set()

    def walk(node, level, path, internal):
        """Returns the items below a node and the height of its subtree without padding."""
        if level == reached:
            item = leaf_items[node - tree.num_internal]
            assert item >= 0
            assert item not in seen
            seen[item] = (path, internal, node - tree.num_internal)
            return [item], 0
        visited.add(node)
        items, heights, counts = [], [], []
        for k in range(c):
            child = children[node][k]
            if child == -1:
                assert sizes[node][k] == 0
                continue
            assert child == c * node + 1 + k
            assert child + 1 == (node + 1 - 1) * c + (k + 1) + 1  # the paper's (i - 1) * c + k + 1, all 1-based
            below, height = walk(child, level + 1, [*path, k], [*internal, node])
            assert sizes[node][k] == len(below)
            items += below
            heights.append(height)
            counts.append(len(below))
        assert 1 <= len(counts) == min(c, len(items))
        assert children[node][: len(counts)].count(-1) == 0  # existing children come first
        assert max(counts) - min(counts) <= 1
        assert counts == sorted(counts, reverse=True)
        assert max(heights) - min(heights) <= 1
        return items, 0 if len(items) == 1 else 1 + max(heights)

    items, height = walk(0, 0, [], [])
    assert sorted(items) == list(range(num_items))
    assert height <= reached
    assert height == (0 if num_items == 1 else reached)
    for item, (path, internal, leaf) in seen.items():
        assert paths[item].tolist() == path
        assert nodes[item].tolist() == internal
        assert tree.item_leaf[item] == leaf
    for node in set(range(tree.num_internal)) - visited:
        assert children[node] == [-1] * c
        assert sizes[node] == [0] * c
    assert (tree.leaf_items == -1).sum() == c**reached - num_items
    for level in range(reached):
        first = sum(c**above for above in range(level))
        np.testing.assert_array_equal(tree.level_sizes(level), tree.sizes[first : first + c**level])


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.integers(1, 2_000), st.integers(1, 5), st.integers(0, 9))
def test_trees_of_all_sizes(num_items, depth, seed):
    check_tree(random_tree(num_items, depth, seed), num_items, depth)


@pytest.mark.parametrize("depth", range(1, 6))
def test_the_smallest_trees(depth):
    for num_items in range(1, 41):
        check_tree(random_tree(num_items, depth), num_items, depth)


@pytest.mark.parametrize(("num_items", "depth"), [(8, 3), (64, 3), (125, 3), (243, 5), (1_024, 5), (1_681, 2), (81, 4)])
def test_exact_powers_fill_the_tree(num_items, depth):
    tree = random_tree(num_items, depth)
    check_tree(tree, num_items, depth)
    assert tree.num_children**depth == num_items
    assert tree.depth == depth
    assert (tree.leaf_items >= 0).all()


@pytest.mark.parametrize("method", ["pca", "kmeans"])
@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize(("num_items", "depth"), [(1, 2), (2, 2), (90, 1), (90, 2), (90, 3)])
def test_trees_over_vectors(method, make, num_items, depth):
    generator = np.random.default_rng(num_items)
    vectors = np.where(generator.random((num_items, 12)) < 0.3, generator.integers(1, 6, (num_items, 12)), 0.0)
    vectors[num_items // 2 :] = vectors[num_items // 2]  # duplicates
    check_tree(build_tree(num_items, depth, make_clustering(method, make(vectors), 0)), num_items, depth)


def test_a_pca_tree_keeps_the_order_along_the_component():
    generator = np.random.default_rng(1)
    value = generator.permutation(1 + np.arange(100.0)) ** 1.5  # no ties, clear sign: the largest value is positive
    vectors = np.stack([value, np.zeros(100)], axis=1)
    tree = build_tree(100, 2, make_clustering("pca", vectors, 0))
    assert tree.num_children == tree.depth + 8 == 10
    first = tree.item_paths[:, 0]
    np.testing.assert_array_equal(first, np.argsort(np.argsort(value)) // 10)


def test_the_seed_decides_the_random_tree():
    assert (random_tree(50, 2, 0).item_leaf == random_tree(50, 2, 0).item_leaf).all()
    assert (random_tree(50, 2, 0).item_leaf != random_tree(50, 2, 1).item_leaf).any()


# c = ceil(|A|^(1/d)) in integers.


@pytest.mark.parametrize(
    ("num_items", "depth", "expected"),
    [
        (125, 3, 5),
        (126, 3, 6),
        (124, 3, 5),
        (10**6, 2, 1_000),
        (10**6, 3, 100),
        (10**6, 6, 10),
        (10**6 + 1, 6, 11),
        (3**13, 13, 3),
        (3**13 - 1, 13, 3),
        (3**13 + 1, 13, 4),
        (10_677, 2, 104),
        (17_770, 2, 134),
        (3_706, 2, 61),
        (1_682, 1, 1_682),
        (1, 4, 1),
        (2, 4, 2),
        (7**20, 20, 7),
        (94_906_267**2, 2, 94_906_267),
        (94_906_267**2 + 1, 2, 94_906_268),
    ],
)
def test_branching(num_items, depth, expected):
    assert smallest_branching(num_items, depth) == expected


@hypothesis.given(st.integers(2, 400), st.integers(1, 12))
def test_branching_of_exact_powers_and_their_neighbours(base, depth):
    power = base**depth
    assert smallest_branching(power, depth) == base
    assert smallest_branching(power + 1, depth) == base + 1
    if depth > 1:
        assert smallest_branching(power - 1, depth) == base


@hypothesis.given(st.integers(1, 10**9), st.integers(1, 12))
def test_branching_is_the_smallest_that_suffices(num_items, depth):
    c = smallest_branching(num_items, depth)
    assert c**depth >= num_items
    assert c == 1 or (c - 1) ** depth < num_items


# Short paths.


def test_short_paths_go_on_with_single_children():
    # 5 items, depth 3: c = 2, and 2^2 < 5 <= 2^3. Sizes 3 + 2, then 2 + 1 and 1 + 1: three paths end after two steps.
    tree = random_tree(5, 3)
    np.testing.assert_array_equal(tree.sizes, [[3, 2], [2, 1], [1, 1], [1, 1], [1, 0], [1, 0], [1, 0]])
    np.testing.assert_array_equal(tree.children, [[1, 2], [3, 4], [5, 6], [7, 8], [9, -1], [11, -1], [13, -1]])
    assert (tree.item_paths[:, 2] == 0).sum() == 4
    assert sorted(tree.item_nodes[:, 2].tolist()) == [3, 3, 4, 5, 6]


@pytest.mark.parametrize(("num_items", "depth", "children", "reached"), [(2, 5, 2, 1), (1, 3, 1, 1), (4, 5, 2, 2)])
def test_small_catalogues_reach_less_than_the_depth_asked_for(num_items, depth, children, reached):
    tree = random_tree(num_items, depth)
    assert (tree.num_children, tree.depth) == (children, reached)


def test_depth_one_is_flat():
    tree = random_tree(37, 1)
    assert tree.num_internal == 1
    np.testing.assert_array_equal(tree.sizes, np.ones((1, 37)))
    assert sorted(tree.item_paths[:, 0].tolist()) == list(range(37))


# Files.


@pytest.fixture
def saved(tmp_path):
    tree = random_tree(23, 2, 5)
    tree.save(tmp_path / "tree.npz")
    return tree, tmp_path / "tree.npz"


def test_a_saved_tree_comes_back(saved):
    tree, path = saved
    again = load_tree(path)
    assert (again.num_children, again.depth) == (tree.num_children, tree.depth)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(tree, name))
    check_tree(again, 23, 2)


def test_the_file_holds_every_array_without_pickles(saved):
    tree, path = saved
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays.files) == {"num_children", "depth", *ARRAYS}
        for name in ARRAYS:
            np.testing.assert_array_equal(arrays[name], getattr(tree, name))


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="missing"):
        load_tree(tmp_path / "tree.npz")


def test_a_truncated_file_is_refused_wherever_it_ends(saved):
    path = saved[1]
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load_tree(path)


def test_damaged_contents_are_refused(saved):
    path = saved[1]
    damaged = bytearray(path.read_bytes())
    start = damaged.index(b"leaf_items.npy") + len("leaf_items.npy") + 30
    damaged[start : start + 8] = bytes(8)
    path.write_bytes(bytes(damaged))
    with pytest.raises(UserError):
        load_tree(path)


@pytest.mark.parametrize("content", [b"", b"not a tree\n", b"PK\x03\x04 and no more", b"\x93NUMPY", b"\x80\x04."])
def test_a_foreign_file(tmp_path, content):
    path = tmp_path / "tree.npz"
    path.write_bytes(content)
    with pytest.raises(UserError):
        load_tree(path)


def test_a_directory(tmp_path):
    with pytest.raises(UserError):
        load_tree(tmp_path)


def test_an_archive_of_other_arrays(tmp_path):
    path = tmp_path / "tree.npz"
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(UserError):
        load_tree(path)


def test_leaves_that_contradict_the_items(saved):
    tree, path = saved
    np.savez(
        path,
        children=tree.children,
        leaf_items=tree.leaf_items,
        item_leaf=np.roll(tree.item_leaf, 1),
    )
    with pytest.raises(UserError, match="inconsistent"):
        load_tree(path)


class Trap:
    """Would leave a mark if it were ever unpickled."""

    sprung = False

    def __reduce__(self):
        """Sets the mark."""
        return (setattr, (Trap, "sprung", True))


@pytest.mark.parametrize("name", ["num_children", "depth", *ARRAYS])
def test_pickled_objects_are_refused_and_not_run(saved, name):
    tree, path = saved
    arrays = {key: getattr(tree, key) for key in ("num_children", "depth", *ARRAYS)}
    trapped = np.empty(1, object)
    trapped[0] = Trap()
    np.savez(path, **(arrays | {name: trapped}))
    with pytest.raises(UserError):
        load_tree(path)
    assert not Trap.sprung


def test_too_many_leaf_slots():
    with pytest.raises(UserError, match="too many leaf slots"):
        build_tree(2**31, 1, lambda items, count: pytest.fail("must be refused before clustering"))


def test_an_item_tree_by_hand():
    # Two levels of three children: slots 0-2 hold items 4, 0, 3, slots 3-4 hold 1, 2, the rest is empty.
    leaf_items = np.array([4, 0, 3, 1, 2, -1, -1, -1, -1], np.int32)
    tree = regular_tree(3, 2, leaf_items)
    np.testing.assert_array_equal(tree.sizes, [[3, 2, 0], [1, 1, 1], [1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(tree.children, [[1, 2, -1], [4, 5, 6], [7, 8, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(tree.item_paths, [[0, 1], [1, 0], [1, 1], [0, 2], [0, 0]])
    np.testing.assert_array_equal(tree.item_nodes, [[0, 1], [0, 2], [0, 2], [0, 1], [0, 1]])


SEVEN = build_tree(7, 2, make_clustering("random", None, 0))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"item_leaf": SEVEN.item_leaf + 100}, "item_leaf contradicts"),
        ({"item_leaf": SEVEN.item_leaf.astype(float)}, "item_leaf contradicts"),
        ({"item_leaf": SEVEN.item_leaf - 9}, "item_leaf contradicts"),
        ({"leaf_items": np.int32(3)}, "shape"),
        ({"num_children": np.arange(3)}, "num_children contradicts"),
        ({"num_children": 4}, "num_children contradicts"),
        ({"depth": 5}, "depth contradicts"),
        ({"leaf_items": np.where(SEVEN.leaf_items < 0, 2, SEVEN.leaf_items)}, "item 2 has 3 leaves"),
        ({"sizes": SEVEN.sizes + 1}, "sizes contradicts"),
        ({"item_paths": SEVEN.item_paths[:, ::-1]}, "item_paths contradicts"),
        ({"item_nodes": SEVEN.item_nodes.T}, "item_nodes contradicts"),
        ({"children": SEVEN.children[:, :2]}, "cannot be reached"),
        ({"children": SEVEN.children[0]}, "shape"),
        ({"children": SEVEN.children.astype(float)}, "integers"),
    ],
)
def test_inconsistent_trees_are_refused(tmp_path, changes, why):
    arrays = {name: getattr(SEVEN, name) for name in ("num_children", "depth", *ARRAYS)}
    np.savez(tmp_path / "tree.npz", **(arrays | changes))
    with pytest.raises(UserError, match=rf"tree\.npz: the tree is inconsistent \(.*{why}"):
        load_tree(tmp_path / "tree.npz")


def test_a_bare_npy_is_refused(tmp_path):
    with (tmp_path / "tree.npz").open("wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(UserError):
        load_tree(tmp_path / "tree.npz")


@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_one_damaged_byte_never_escapes_as_another_error(tmp_path, flip):
    path = tmp_path / "tree.npz"
    SEVEN.save(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[position] ^= flip
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(UserError):  # some bytes (dates, arrays that follow from others) do not matter
            load_tree(path)


def test_a_tree_of_fewer_levels_says_so(capsys):
    assert random_tree(100, 9).depth == 7
    assert capsys.readouterr().err == "tree.depth is 9: 100 items need no more than 7 levels\n"
    random_tree(100, 2)
    assert capsys.readouterr().err == ""
