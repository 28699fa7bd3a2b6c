"""Recursive linear regression in B episodes at once: ridge regression that takes in one observation per episode."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class LinearPosterior:
    """What each episode believes of its user's vector: a Gaussian.

    Attributes:
        mean: [B, K] float32, the ridge regression's solution.
        covariance: [B, K, K] float32, the inverse of the ridge regression's matrix.
    """

    mean: jax.Array
    covariance: jax.Array


def linear_prior(mean: jax.Array, variance: jax.Array, batch_size: int) -> LinearPosterior:
    """Returns the belief before any observation: N(mean, variance * identity) for [K] `mean` and a scalar variance."""
    covariance = variance * jnp.eye(mean.shape[0])
    return LinearPosterior(
        jnp.broadcast_to(mean, (batch_size, *mean.shape)),
        jnp.broadcast_to(covariance, (batch_size, *covariance.shape)),
    )


def observe(
    posterior: LinearPosterior, features: jax.Array, target: jax.Array, noise: jax.Array, observed: jax.Array
) -> tuple[LinearPosterior, jax.Array]:
    """Takes in one observation `target = features . vector + N(0, noise)` per episode, in O(K^2).

    A step of the Kalman filter for a constant vector, which is the Sherman-Morrison update of the inverse of
    A = ridge * identity + sum x x^T: a prior variance of 1 / ridge and a noise of 1 give the ridge regression with
    penalty `ridge` towards the prior's mean.

    Args:
        posterior: Before the observation.
        features: [B, K] x.
        target: [B] y.
        noise: [B] or scalar variance of the observation, positive.
        observed: [B] bool; episodes where it is false keep their posterior.

    Returns:
        The posterior, and [B, K] `direction`, by whose outer product the covariance shrank: the variance of a
        prediction x' . vector falls by (x' . direction)^2.
    """
    posterior, directions = observe_all(posterior, features[:, None], target[:, None], noise, observed)
    return posterior, directions[:, 0]


def observe_all(
    posterior: LinearPosterior, features: jax.Array, targets: jax.Array, noise: jax.Array | float, observed: jax.Array
) -> tuple[LinearPosterior, jax.Array]:
    """Takes in N observations per episode whose noises are independent: as `observe` N times, at the price of one.

    The covariance is read once and written once, whatever N.

    Args:
        posterior: Before the observations.
        features: [B, N, K].
        targets: [B, N].
        noise: [B] or scalar variance of each observation, positive.
        observed: [B] bool; episodes where it is false keep their posterior.

    Returns:
        The posterior, and [B, N, K] directions: the covariance shrank by the sum of their outer products.
    """
    mean, covariance = posterior.mean, posterior.covariance
    columns = jnp.einsum("bkl,bnk->bnl", covariance, features, precision="highest")
    directions: list[jax.Array] = []
    for number in range(features.shape[1]):
        own, column = features[:, number], columns[:, number]
        for earlier in directions:
            column -= jnp.sum(own * earlier, -1, keepdims=True) * earlier
        scale = jnp.where(observed, jax.lax.rsqrt(jnp.sum(own * column, -1) + noise), 0)[:, None]
        surprise = targets[:, number] - jnp.sum(own * mean, -1)
        directions.append(scale * column)
        mean += surprise[:, None] * scale * directions[-1]
    # Products that the compiler fuses into one pass: on CPU faster than a batch of small matrix products.
    for direction in directions:
        covariance -= direction[:, :, None] * direction[:, None, :]
    return LinearPosterior(mean, covariance), jnp.stack(directions, 1)


def predict(features: jax.Array, vector: jax.Array) -> jax.Array:
    """Returns [B, I] predictions of [I, K] items' features and [B, K] vectors, in full precision on every device."""
    return jnp.matmul(vector, features.T, precision="highest")
