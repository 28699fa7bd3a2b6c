"""Balanced clustering against literal transcriptions of Algorithms 3 and 4, and groups that must not fail."""

import math

import numpy as np
import pytest
import scipy.sparse

import tpgr_jax.tree.clustering
from tpgr_jax.tree.clustering import kmeans_clusters, pca_clusters, principal_projection, random_clusters, round_robin


def spread_vectors(seed, count, features):
    """Random vectors with an offset and a clear first principal component."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, features)) * np.linspace(3, 0.5, features) + generator.normal(size=features)


def sparse_vectors(seed, count, features):
    """Sparse rows, all different and none empty."""
    generator = np.random.default_rng(seed)
    rows = np.where(generator.random((count, features)) < 0.15, generator.integers(1, 6, (count, features)), 0)
    rows[:, 0] = generator.permutation(count) + 1
    return scipy.sparse.csr_array(rows.astype(np.float64))


def svd_projection(vectors):
    """Projections on the first principal component; the one of largest magnitude is positive."""
    centred = vectors - vectors.mean(axis=0)
    projection = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    return projection * np.sign(projection[np.argmax(np.abs(projection))])


def algorithm_4(vectors, c):
    """The printed algorithm with its 1-based indices; vector j of the paper is row j - 1."""
    m = len(vectors)
    clusters = {j: [] for j in range(1, c + 1)}
    if m <= c:
        for j in range(1, m + 1):
            clusters[j] = [j]
        return [clusters[j] for j in range(1, m + 1)]
    projection = svd_projection(vectors)
    ordered = dict(enumerate(sorted(range(1, m + 1), key=lambda j: projection[j - 1]), start=1))
    threshold = (m - 1) % c + 1
    max_length = math.ceil(m / c)
    for j in range(1, threshold + 1):
        start = (j - 1) * max_length + 1
        clusters[j] = [ordered[k] for k in range(start, start + max_length - 1 + 1)]
    for j in range(threshold + 1, c + 1):
        start = threshold * max_length + (j - 1 - threshold) * (max_length - 1) + 1
        clusters[j] = [ordered[k] for k in range(start, start + max_length - 2 + 1)]
    return [clusters[j] for j in range(1, c + 1)]


def algorithm_3(vectors, centroids):
    """Lines 11 to 19 as printed; among equally near vectors the first."""
    m, c = len(vectors), len(centroids)
    clusters = {i: [] for i in range(1, c + 1)}
    unassigned = list(range(1, m + 1))
    i = 1
    while unassigned:
        nearest = min(unassigned, key=lambda j: math.dist(vectors[j - 1], centroids[i - 1]))
        clusters[i].append(nearest)
        unassigned.remove(nearest)
        i = i % c + 1
    return [clusters[i] for i in range(1, c + 1)]


def assert_same(found, printed):
    assert [cluster.tolist() for cluster in found] == [[j - 1 for j in cluster] for cluster in printed]


def assert_balanced(clusters, num_vectors, num_clusters):
    sizes = [len(cluster) for cluster in clusters]
    assert len(clusters) == min(num_vectors, num_clusters)
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    np.testing.assert_array_equal(np.sort(np.concatenate(clusters)), np.arange(num_vectors))


SIZES = [(1, 1), (1, 4), (3, 4), (4, 4), (5, 4), (7, 4), (8, 4), (9, 4), (60, 8), (61, 8), (67, 8), (50, 1), (50, 49)]


@pytest.mark.parametrize(("m", "c"), SIZES)
def test_pca_is_algorithm_4(m, c):
    vectors = spread_vectors(m, m, 5)
    clusters = pca_clusters(vectors, c)
    assert_same(clusters, algorithm_4(vectors, c))
    assert_balanced(clusters, m, c)


@pytest.mark.parametrize(("m", "c"), [(5, 4), (60, 8), (67, 8)])
def test_pca_of_sparse_and_dense_rows_is_the_same(m, c):
    vectors = sparse_vectors(m, m, 30)
    dense = vectors.toarray()
    assert_same(pca_clusters(vectors, c), algorithm_4(dense, c))
    assert_same(pca_clusters(dense, c), algorithm_4(dense, c))


@pytest.mark.parametrize(("m", "c"), [(5, 4), (8, 4), (9, 4), (60, 8), (67, 8), (50, 1)])
def test_round_robin_is_algorithm_3(m, c):
    vectors, centroids = spread_vectors(m, m, 4), spread_vectors(1_000 + m, c, 4)
    clusters = round_robin(vectors, centroids)
    assert_same(clusters, algorithm_3(vectors, centroids))
    assert_balanced(clusters, m, c)


def test_round_robin_of_sparse_and_dense_rows_is_the_same():
    vectors = sparse_vectors(3, 70, 20)
    centroids = np.random.default_rng(4).random((6, 20)) * 5
    printed = algorithm_3(vectors.toarray(), centroids)
    assert_same(round_robin(vectors, centroids), printed)
    assert_same(round_robin(vectors.toarray(), centroids), printed)


def test_round_robin_takes_the_first_of_equally_near_vectors():
    generator = np.random.default_rng(5)
    vectors = generator.integers(0, 3, (40, 2)).astype(float)  # many duplicates, exact arithmetic
    centroids = np.array([[0.0, 0.0], [2.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    assert_same(round_robin(vectors, centroids), algorithm_3(vectors, centroids))


@pytest.mark.parametrize("make", [lambda rows: rows, scipy.sparse.csr_array])
@pytest.mark.parametrize(("m", "c"), [(1, 3), (3, 3), (4, 3), (30, 7)])
def test_kmeans_clusters_are_balanced_and_repeatable(make, m, c):
    vectors = make(spread_vectors(m, m, 4))
    clusters = kmeans_clusters(vectors, c, 0)
    assert_balanced(clusters, m, c)
    assert all((a == b).all() for a, b in zip(clusters, kmeans_clusters(vectors, c, 0), strict=True))


def test_kmeans_separates_distant_groups():
    generator = np.random.default_rng(6)
    groups = np.arange(30) % 3
    vectors = 100.0 * np.eye(3)[groups] + generator.normal(size=(30, 3))
    assert all(len(set(groups[cluster])) == 1 for cluster in kmeans_clusters(vectors, 3, 1))


@pytest.mark.parametrize(("m", "c"), SIZES)
def test_random_clusters_are_balanced(m, c):
    assert_balanced(random_clusters(m, c, np.random.default_rng(0)), m, c)


# The three code paths: the m x m Gram matrix, the F x F covariance, Lanczos iterations.


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("limit", "make"),
    [
        (1_000, lambda rows: rows),  # Gram, dense
        (1_000, scipy.sparse.csr_array),  # Gram, sparse
        (20, lambda rows: rows),  # covariance: more vectors than 20, not more features
        (10, lambda rows: rows),  # Lanczos, dense
        (20, scipy.sparse.csr_array),  # Lanczos, sparse
    ],
)
def test_every_way_to_the_projection_agrees_with_an_svd(monkeypatch, limit, make, seed):
    vectors = spread_vectors(seed, 80, 15)
    monkeypatch.setattr(tpgr_jax.tree.clustering, "_GRAM_LIMIT", limit)
    used = []
    lanczos = tpgr_jax.tree.clustering._lanczos
    monkeypatch.setattr(tpgr_jax.tree.clustering, "_lanczos", lambda *inputs: used.append(1) or lanczos(*inputs))
    found = principal_projection(make(vectors))
    assert bool(used) == (limit == 10 or (limit == 20 and make is scipy.sparse.csr_array))
    expected = svd_projection(vectors)
    assert found.shape == (80,)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    assert found[np.argmax(np.abs(found))] > 0


@pytest.mark.parametrize("limit", [1_000, 15, 10])
def test_single_precision_is_enough(monkeypatch, limit):
    vectors = spread_vectors(7, 80, 15)
    monkeypatch.setattr(tpgr_jax.tree.clustering, "_GRAM_LIMIT", limit)
    expected = svd_projection(vectors)
    found = principal_projection(vectors.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_more_vectors_than_the_real_limit():
    vectors = sparse_vectors(8, tpgr_jax.tree.clustering._GRAM_LIMIT + 10, 40)
    expected = svd_projection(vectors.toarray())
    for rows in (vectors, vectors.toarray()):
        np.testing.assert_allclose(principal_projection(rows), expected, atol=1e-3 * np.abs(expected).max())


# Ties and groups without variance must not fail.


def test_one_large_offset_does_not_hide_the_variance():
    vectors = spread_vectors(9, 40, 6)
    expected = svd_projection(vectors)
    found = principal_projection(vectors + 1_000)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("limit", [1_000, 20])  # Gram and covariance
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7])
def test_equal_vectors_keep_their_order(monkeypatch, limit, value):
    monkeypatch.setattr(tpgr_jax.tree.clustering, "_GRAM_LIMIT", limit)
    vectors = np.full((30, 6), value)
    np.testing.assert_array_equal(principal_projection(vectors), np.zeros(30))
    clusters = pca_clusters(vectors, 4)
    assert [cluster.tolist() for cluster in clusters] == [part.tolist() for part in np.array_split(np.arange(30), 4)]


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array])
def test_empty_rows_and_empty_groups(make):
    assert_balanced(pca_clusters(make(np.zeros((11, 4))), 3), 11, 3)
    assert_balanced(kmeans_clusters(make(np.zeros((11, 4))), 3, 0), 11, 3)
    some = np.zeros((11, 4))
    some[[2, 7]] = [[1, 0, 2, 0], [0, 0, 5, 1]]
    clusters = pca_clusters(make(some), 3)
    assert_balanced(clusters, 11, 3)
    assert {2, 7} <= set(clusters[-1].tolist())  # far from the nine empty rows, on the positive side
    assert_balanced(kmeans_clusters(make(some), 3, 0), 11, 3)


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("limit", [1_000, 12, 4])
def test_duplicates_stay_together_up_to_the_cuts(monkeypatch, make, limit):
    monkeypatch.setattr(tpgr_jax.tree.clustering, "_GRAM_LIMIT", limit)
    generator = np.random.default_rng(10)
    distinct = np.outer([0, 1, 2, 3], [2.0, 1.0, 0.5, 0.2, 1.0])
    kind = generator.permutation(np.repeat(np.arange(4), 10))
    clusters = pca_clusters(make(distinct[kind]), 4)
    assert_balanced(clusters, 40, 4)
    assert sorted(set(kind[cluster].tolist()).pop() for cluster in clusters) == [0, 1, 2, 3]
    assert all(len(set(kind[cluster].tolist())) == 1 for cluster in clusters)


def test_kmeans_with_fewer_distinct_vectors_than_clusters():
    vectors = np.repeat([[0.0, 1.0], [5.0, 5.0]], 6, axis=0)
    assert_balanced(kmeans_clusters(vectors, 5, 0), 12, 5)
    assert_balanced(kmeans_clusters(scipy.sparse.csr_array(vectors), 5, 0), 12, 5)


def test_inputs_are_left_as_they_were():
    vectors = spread_vectors(11, 30, 5)
    sparse = scipy.sparse.csr_array(vectors)
    before = vectors.copy()
    for rows in (vectors, sparse):
        pca_clusters(rows, 4)
        kmeans_clusters(rows, 4, 0)
    np.testing.assert_array_equal(vectors, before)
    np.testing.assert_array_equal(sparse.toarray(), before)


@pytest.mark.parametrize(
    "vectors",
    [np.ones((1_600, 1_600)), scipy.sparse.csr_array(np.ones((1_600, 4))), scipy.sparse.csr_array((1_600, 4))],
)
def test_equal_vectors_above_the_gram_limit_keep_their_order(vectors):
    assert [part.tolist() for part in pca_clusters(vectors, 3)] == [
        part.tolist() for part in np.array_split(np.arange(1_600), 3)
    ]


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array])
def test_tied_rows_keep_their_order(make):
    generator = np.random.default_rng(0)
    kind = generator.integers(0, 10, 60)
    order = np.concatenate(pca_clusters(make(generator.normal(size=(10, 6))[kind]), 4))
    for value in range(10):
        assert (np.diff(order[kind[order] == value]) > 0).all()
