"""Balanced clustering of item vectors (Algorithms 3 and 4 of the TPGR paper) on dense or sparse rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

Vectors = np.ndarray | scipy.sparse.csr_array

# Up to this many vectors or dense features an exact eigendecomposition of their Gram matrix is cheap; above, Lanczos.
_GRAM_LIMIT = 1_500


def pca_clusters(vectors: Vectors, num_clusters: int) -> list[np.ndarray]:
    """Algorithm 4: cuts the order along the first principal component into runs, the larger runs first.

    Args:
        vectors: [m, F] one row per item, dense or sparse (never densified).
        num_clusters: c >= 1.

    Returns:
        min(m, c) index arrays into the rows whose sizes differ by at most one. Ties keep the order of the rows; the
        sign of the component is chosen so that its entry of largest magnitude is positive.
    """
    num_vectors = vectors.shape[0]
    if num_vectors <= num_clusters:
        return [np.array([j]) for j in range(num_vectors)]
    order = np.argsort(principal_projection(vectors), kind="stable")
    return np.array_split(order, num_clusters)


def kmeans_clusters(vectors: Vectors, num_clusters: int, seed: int) -> list[np.ndarray]:
    """Algorithm 3: k-means centroids, then each cluster in turn takes its nearest unassigned vector.

    Args:
        vectors: [m, F] one row per item, dense or sparse.
        num_clusters: c >= 1.
        seed: Of the k-means initialisation.

    Returns:
        min(m, c) index arrays into the rows whose sizes differ by at most one, in the order of assignment.
    """
    num_vectors = vectors.shape[0]
    if num_vectors <= num_clusters:
        return [np.array([j]) for j in range(num_vectors)]
    return round_robin(vectors, kmeans_centroids(vectors, num_clusters, seed))


def kmeans_centroids(vectors: Vectors, num_clusters: int, seed: int) -> np.ndarray:
    """Returns the [c, F] centroids of "the normal k-means algorithm" (Algorithm 3, line 10).

    Groups with fewer distinct vectors than clusters get repeated centroids instead of failing.
    """
    import sklearn.cluster  # slow to import, needed by this clustering only
    import sklearn.exceptions

    model = sklearn.cluster.KMeans(num_clusters, n_init=1, max_iter=50, random_state=seed)
    if isinstance(vectors, scipy.sparse.csr_array):  # selecting rows may have widened the indices, which KMeans refuses
        parts = (vectors.data, vectors.indices.astype(np.int32), vectors.indptr.astype(np.int32))
        vectors = scipy.sparse.csr_array(parts, vectors.shape)
    with warnings.catch_warnings():
        # Fewer distinct vectors than clusters is allowed here.
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        model.fit(vectors)
    return model.cluster_centers_


def round_robin(vectors: Vectors, centroids: np.ndarray) -> list[np.ndarray]:
    """Lines 11 to 18 of Algorithm 3: cluster i takes its nearest unassigned vector, then cluster i + 1, and so on.

    Args:
        vectors: [m, F].
        centroids: [c, F].

    Returns:
        c index arrays in the order of assignment; at equal distance the earlier vector is taken.
    """
    num_clusters, num_vectors = len(centroids), vectors.shape[0]
    # |v - p|^2 up to |p|^2, which does not change the order within a cluster.
    distances = _squared_norms(vectors)[None, :] - 2 * np.asarray(vectors @ centroids.T).T
    preference = np.argsort(distances, axis=1, kind="stable")
    position = np.zeros(num_clusters, np.int64)
    assigned = np.zeros(num_vectors, bool)
    clusters: list[list[int]] = [[] for _ in range(num_clusters)]
    for taken in range(num_vectors):
        cluster = taken % num_clusters
        while assigned[preference[cluster, position[cluster]]]:
            position[cluster] += 1
        vector = preference[cluster, position[cluster]]
        assigned[vector] = True
        clusters[cluster].append(int(vector))
    return [np.array(members) for members in clusters]


def random_clusters(num_vectors: int, num_clusters: int, generator: np.random.Generator) -> list[np.ndarray]:
    """The control: a random permutation cut into runs whose sizes differ by at most one."""
    return np.array_split(generator.permutation(num_vectors), min(num_clusters, num_vectors))


def principal_projection(vectors: Vectors) -> np.ndarray:
    """Returns [m] float64 projections of the centred rows on their first principal component.

    Works on the m x m (implicitly) centred Gram matrix G, whose leading eigenvector is the projection up to scale:
    C X X' C v = lambda v. A group without variance gets zeros. Defined up to sign; see `pca_clusters`.
    """
    num_vectors, num_features = vectors.shape
    if not np.issubdtype(vectors.dtype, np.floating):
        vectors = vectors.astype(np.float32)
    squared_norms = _squared_norms(vectors)
    mean = np.asarray(vectors.mean(axis=0, dtype=np.float64)).ravel()
    variance = squared_norms.sum() - num_vectors * float(mean @ mean)
    if variance <= 1e-7 * squared_norms.sum():
        return np.zeros(num_vectors)
    dense = not scipy.sparse.issparse(vectors)
    if dense and num_features <= min(num_vectors, _GRAM_LIMIT):
        centred = vectors - mean
        value, axes = scipy.linalg.eigh(centred.T @ centred, subset_by_index=(num_features - 1, num_features - 1))
        components = centred @ axes
        components = components / np.linalg.norm(components)
    elif num_vectors <= _GRAM_LIMIT:
        product: Any = vectors @ vectors.T
        gram = np.asarray(product if isinstance(product, np.ndarray) else product.toarray(), np.float64)
        gram -= gram.mean(axis=0, keepdims=True)
        gram -= gram.mean(axis=1, keepdims=True)
        value, components = scipy.linalg.eigh(gram, subset_by_index=(num_vectors - 1, num_vectors - 1))
    else:
        value, components = _lanczos(vectors, squared_norms)
    component = components[:, 0] / components[np.argmax(np.abs(components[:, 0])), 0]
    # Equal rows differ by rounding only; rounding keeps their order.
    return np.round(component, 9) * np.sqrt(value[0] / np.sum(component**2))


def _lanczos(vectors: Vectors, squared_norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leading eigenpair of the centred Gram matrix, which is never formed."""
    num_vectors = vectors.shape[0]
    transposed = vectors.T  # for sparse rows a view in the other format, nothing is copied

    def matvec(vector: np.ndarray) -> np.ndarray:
        centred = (vector - vector.mean()).astype(vectors.dtype, copy=False).ravel()
        product = np.asarray(vectors @ (transposed @ centred), np.float64)
        return product - product.mean()

    operator = scipy.sparse.linalg.LinearOperator((num_vectors, num_vectors), matvec=matvec, dtype=np.float64)
    spread = squared_norms - squared_norms.mean()
    start = spread + 1e-3 * max(float(np.abs(spread).max()), 1.0) * np.linspace(-1, 1, num_vectors)
    return scipy.sparse.linalg.eigsh(operator, k=1, which="LA", v0=start, tol=1e-5)


def _squared_norms(vectors: Vectors) -> np.ndarray:
    if scipy.sparse.issparse(vectors):
        squared: Any = scipy.sparse.csr_array((vectors.data**2, vectors.indices, vectors.indptr), vectors.shape)
    else:
        squared = vectors**2
    return np.asarray(squared.sum(axis=1), np.float64).ravel()
