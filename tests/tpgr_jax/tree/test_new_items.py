"""New items in a tree that is there already."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hand_made import hand_made_items, hand_made_ratings
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering
from tpgr_jax.tree.item_tree import regular_tree, tree_from_children
from tpgr_jax.tree.new_items import most_similar, with_new_items


def test_a_new_item_goes_beside_its_nearest_and_vanished_items_leave_their_places():
    # Leaves of two nodes: [0, 1, free], [2, 3, free]; then item 1 vanishes, and two new ones come.
    tree = regular_tree(3, 2, np.array([0, 1, -1, 2, 3, -1, -1, -1, -1], np.int32))
    source = np.array([0, 2, 3, -1, -1, -1])  # the present items 0, 1, 2 are the earlier 0, 2, 3
    grown = with_new_items(tree, source, nearest=np.array([2, 2, 0]))
    assert grown.leaf_items.tolist() == [0, 4, 5, 1, 2, 3, -1, -1, -1]
    # 3 takes the free leaf beside its nearest, 4 the next one above, 5 one of those that are left beside item 0.


def test_a_tree_without_room_is_none_as_is_one_of_another_shape():
    full = regular_tree(2, 2, np.array([0, 1, 2, 3], np.int32))
    assert with_new_items(full, np.array([0, 1, 2, 3, -1]), np.array([0])) is None
    irregular = tree_from_children(np.array([[1, 2, 3], [4, 5, -1]]), np.array([0, 1, 2, 3]))
    assert not irregular.regular
    assert with_new_items(irregular, np.array([0, 1, 2, 3]), np.zeros(0, int)) is None


@given(st.integers(2, 40), st.integers(1, 3), st.floats(0, 0.5), st.randoms(use_true_random=False))
def test_every_present_item_has_one_leaf_and_known_ones_keep_theirs(num_items, depth, spare, random):
    tree = build_tree(num_items, depth, make_clustering("random", None, 0), spare)
    assert tree.num_items == num_items
    assert len(tree.leaf_items) >= num_items * (1 + spare)
    kept = sorted(random.sample(range(num_items), random.randint(1, num_items)))
    number = random.randint(0, len(tree.leaf_items) - len(kept))
    source = np.array(kept + [-1] * number)
    nearest = np.array([random.randrange(len(kept)) for _ in range(number)], int)
    grown = with_new_items(tree, source, nearest)
    assert np.array_equal(np.sort(grown.leaf_items[grown.leaf_items >= 0]), np.arange(len(source)))
    assert np.array_equal(grown.item_leaf[: len(kept)], tree.item_leaf[kept])
    assert with_new_items(tree, np.append(source, [-1] * (len(tree.leaf_items) + 1 - len(source))), nearest) is None


def test_free_leaves_are_spread_over_the_lowest_nodes():
    tree = build_tree(100, 2, make_clustering("random", None, 0), spare=0.21)
    assert tree.num_children == 11
    assert set((tree.leaf_items.reshape(-1, 11) < 0).sum(1)) == {1, 2}


def test_similar_items_are_those_whose_ratings_have_the_smallest_angle():
    #          item 0  1  2  3  4
    table = [[5.0, 1, 0, 5, 0], [4, 0, 2, 4, 0], [0, 3, 2, 1, 0], [0, 0, 0, 0, 5]]
    users, items = np.nonzero(table)
    data = hand_made_ratings(users, items, np.array(table)[users, items])
    known = np.array([True, True, True, False, False])
    found = most_similar(data, np.array([0, 1, 2]), known, 2)
    # The columns of 0 to 3 over the first three users: (5,4,0), (1,0,3), (0,2,2), (5,4,1). Item 4 was not rated there.
    assert found.tolist() == [[0, 2], [0, 1]]
    columns = np.array(table)[:3].T
    cosine = [columns[3] @ columns[i] / np.linalg.norm(columns[3]) / np.linalg.norm(columns[i]) for i in range(3)]
    assert np.argsort(cosine)[::-1].tolist() == [0, 2, 1]
    assert most_similar(data, np.array([0, 1, 2]), known, 9).shape == (2, 3)


def test_unrated_items_are_like_those_of_the_same_categories_and_the_most_rated_of_these_first():
    #          item 0  1  2  3  4
    table = [[5.0, 1, 0, 0, 0], [4, 0, 2, 0, 0], [0, 3, 2, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 4, 5]]
    users, items = np.nonzero(table)
    data = hand_made_ratings(users, items, np.array(table)[users, items])
    known, trained = np.array([True, True, True, False, False]), np.arange(4)
    assert most_similar(data, trained, known, 3).tolist() == [[1, 0, 2]] * 2  # 3, 2 and 2 ratings
    # Item 3 is a comedy as 0 and 2 are, of which 2 is nothing else; nothing is known of item 4.
    categories = hand_made_items(["comedy", "drama"], [[0, 1], [1], [0], [0], []])
    assert most_similar(data, trained, known, 3, categories).tolist() == [[2, 0, 1], [1, 0, 2]]
