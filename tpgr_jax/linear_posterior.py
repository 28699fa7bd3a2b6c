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
    projected = jnp.einsum("bkl,bl->bk", posterior.covariance, features, precision="highest")
    variance = jnp.sum(features * projected, -1) + noise
    surprise = target - jnp.sum(features * posterior.mean, -1)
    direction = jnp.where(observed, jax.lax.rsqrt(variance), 0)[:, None] * projected
    step = jnp.where(observed, surprise * jax.lax.rsqrt(variance), 0)[:, None]
    covariance = posterior.covariance - direction[:, :, None] * direction[:, None, :]
    return LinearPosterior(posterior.mean + step * direction, covariance), direction


def predict(features: jax.Array, vector: jax.Array) -> jax.Array:
    """Returns [B, I] predictions of [I, K] items' features and [B, K] vectors, in full precision on every device."""
    return jnp.matmul(vector, features.T, precision="highest")
