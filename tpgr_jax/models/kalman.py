"""A Kalman filter for constant vectors, in B episodes at once: linear regression, one observation at a time."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class KalmanState:
    """What each episode knows of its user's vector: a Gaussian.

    With a prior variance of 1 / ridge and a noise of 1 it is ridge regression with penalty `ridge` towards the prior's
    mean: `mean` is the solution, and an update is the Sherman-Morrison update of the inverse of
    A = ridge * identity + sum x x^T.

    Attributes:
        mean: [B, K] float32.
        covariance: [B, K, K] float32, A^-1.
    """

    mean: jax.Array
    covariance: jax.Array

    @classmethod
    def initial(cls, mean: jax.Array, variance: jax.Array, batch_size: int) -> KalmanState:
        """Returns the state before any observation: N(mean, variance * identity) for a [K] mean, scalar variance."""
        covariance = variance * jnp.eye(mean.shape[0])
        return cls(
            jnp.broadcast_to(mean, (batch_size, *mean.shape)),
            jnp.broadcast_to(covariance, (batch_size, *covariance.shape)),
        )

    def update(
        self, features: jax.Array, target: jax.Array, noise: jax.Array, observed: jax.Array
    ) -> tuple[KalmanState, jax.Array]:
        """Takes in one observation y = x . vector + N(0, noise) per episode, in O(K^2).

        Args:
            features: [B, K] x.
            target: [B] y.
            noise: [B] or scalar variance of the observation, positive.
            observed: [B] bool; episodes where it is false keep their state.

        Returns:
            The next state, and [B, K] `direction`, by whose outer product the covariance shrank: the variance of a
            prediction x' . vector falls by (x' . direction)^2.
        """
        state, directions = self.update_many(features[:, None], target[:, None], noise, observed)
        return state, directions[:, 0]

    def update_many(
        self, features: jax.Array, targets: jax.Array, noise: jax.Array | float, observed: jax.Array
    ) -> tuple[KalmanState, jax.Array]:
        """Takes in N observations per episode with independent noise: as `update` N times, at the price of one.

        The covariance is read once and written once, whatever N.

        Args:
            features: [B, N, K].
            targets: [B, N].
            noise: [B] or scalar variance of each observation, positive.
            observed: [B] bool; episodes where it is false keep their state.

        Returns:
            The next state, and [B, N, K] directions: the covariance shrank by the sum of their outer products.
        """
        mean, covariance = self.mean, self.covariance
        columns = jnp.einsum("bkl,bnk->bnl", covariance, features, precision="highest")

        # One observation after the other, with the covariance less what the earlier ones took from it.
        directions: list[jax.Array] = []
        for number in range(features.shape[1]):
            x, column = features[:, number], columns[:, number]
            for earlier in directions:
                column -= jnp.sum(x * earlier, -1, keepdims=True) * earlier
            scale = jnp.where(observed, jax.lax.rsqrt(jnp.sum(x * column, -1) + noise), 0)[:, None]
            innovation = targets[:, number] - jnp.sum(x * mean, -1)
            directions.append(scale * column)
            mean += innovation[:, None] * scale * directions[-1]

        # Products that the compiler fuses into one pass: on CPU faster than a batch of small matrix products.
        for direction in directions:
            covariance -= direction[:, :, None] * direction[:, None, :]
        return KalmanState(mean, covariance), jnp.stack(directions, 1)


def predict(features: jax.Array, vector: jax.Array) -> jax.Array:
    """Returns [B, I] predictions of [I, K] items' features and [B, K] vectors, in full precision on every device."""
    return jnp.matmul(vector, features.T, precision="highest")
