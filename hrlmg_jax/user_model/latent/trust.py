"""Trust of latent users, which lasts: it grows with clicks on what fits a taste, and falls with others.

    m <- clip(k m + g, -1, 1),   g = click (w0 + w1 tanh((fit + w2) / 2)),

and a session begins with what is left of the last one's, a share that is learned. Users come to a session with the
experience that the log tells; how much of it they have differs from one taste to the other.

Along a piece of a session trust is a clipped linear function of what it began with, and so is the whole piece's:

    clip(k clip(a m + b, l, h) + g, -1, 1) = clip(k a m + k b + g, clip(k l + g), clip(k h + g)).

Pieces are looked at all at once, and their functions then applied one after another.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class TrustMap(NamedTuple):
    """What pieces make of trust m: clip(slope m + shift, low, high); slope [...], the others [..., M] by taste."""

    slope: jax.Array
    shift: jax.Array
    low: jax.Array
    high: jax.Array

    def __call__(self, trust: jax.Array) -> jax.Array:
        """Returns [..., M] the trust after the piece."""
        return jnp.clip(self.slope[..., None] * trust + self.shift, self.low, self.high)


def trust_gain(weights: jax.Array, fit: jax.Array, clicked: jax.Array) -> jax.Array:
    """Returns [...] what an answer adds to trust.

    Args:
        weights: [7] of trust, see `LatentWeights`.
        fit: [...] of the item to tastes.
        clicked: 0 or 1.
    """
    return clicked * (weights[3] + weights[4] * jnp.tanh((fit + weights[5]) / 2))


def next_trust(weights: jax.Array, trust: jax.Array, fit: jax.Array, clicked: jax.Array) -> jax.Array:
    """Returns [...] the trust after an answer."""
    return jnp.clip(jax.nn.sigmoid(weights[2]) * trust + trust_gain(weights, fit, clicked), -1, 1)


def trust_map(weights: jax.Array, fit: jax.Array, clicked: jax.Array, shown: jax.Array) -> TrustMap:
    """Returns what a piece makes of trust.

    Args:
        weights: [7] of trust.
        fit: [T, M] of its items to tastes.
        clicked: [T] 0 or 1.
        shown: [T] bool, which items there are.
    """
    kept = jax.nn.sigmoid(weights[2])

    def step(so_far: TrustMap, row: tuple[jax.Array, ...]) -> tuple[TrustMap, None]:
        gain, shown = row
        after = TrustMap(
            kept * so_far.slope,
            kept * so_far.shift + gain,
            *(jnp.clip(kept * bound + gain, -1, 1) for bound in (so_far.low, so_far.high)),
        )
        return TrustMap(*(jnp.where(shown, new, old) for new, old in zip(after, so_far, strict=True))), None

    zero = jnp.zeros(fit.shape[1])
    first = TrustMap(jnp.float32(1), zero, zero - 1, zero + 1)
    return jax.lax.scan(jax.checkpoint(step), first, (trust_gain(weights, fit, clicked[:, None]), shown))[0]


def between(weights: jax.Array, trust: jax.Array, follows: jax.Array) -> jax.Array:
    """Returns [..., M] the trust with which a piece begins.

    Args:
        weights: [7] of trust.
        trust: [..., M] when the user's last piece ended.
        follows: [...] bool, whether that was of the same session.
    """
    return jnp.where(follows[..., None], 1.0, jax.nn.sigmoid(weights[6])) * trust


def trust_along(weights: jax.Array, pieces: TrustMap, follows: jax.Array, there: jax.Array) -> jax.Array:
    """Returns [..., P, M] the trust with which each piece of users begins, 0 at first.

    Args:
        weights: [7] of trust.
        pieces: Of P pieces of each user, in order, [..., P] and [..., P, M].
        follows: [..., P] bool, whether a piece goes on with a session.
        there: [..., P] bool, which pieces there are.
    """
    trust, begins = jnp.zeros_like(pieces.shift[..., 0, :]), []
    for number in range(pieces.slope.shape[-1]):
        start = between(weights, trust, follows[..., number])
        begins.append(start)
        after = jax.tree.map(lambda array, number=number: jnp.take(array, number, axis=follows.ndim - 1), pieces)
        trust = jnp.where(there[..., number, None], after(start), trust)
    return jnp.stack(begins, -2)
