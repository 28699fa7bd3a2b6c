"""What a shop showed as evidence of its users: `simulator.exposures=evidence`.

A shop that knows its users shows what they like, and what it shows is then evidence of it, as far as the log does not
explain the choice. Where a shop follows the clicks that the log has, nothing is left to explain; where it knows more
than the log tells, what was shown tells what it knew. So the choice is modelled, together with the answers:

    P(shows j | u, v, clicks) = q_j exp(s_j) / sum_k q_k exp(s_k),   s_j = a v.c_j + b u.o_j + g d.x_j,

with q_j how often j is shown to anybody, d the direction of sum_k r^k x over the items clicked before, the last one
first, earlier sessions included; a, b, g, r and the vectors x_j (the embedding turned, and what is an item's own) are
learned. With a = b = 0 what was shown is no evidence.

The normaliser is a mean over items drawn by q. Only one factor of each of its terms depends on the step, one on the
taste and one on the interest, so that for all of them together it is a product of matrices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hrlmg_jax.user_model.latent_likelihood import Draws, ExposureWeights, LatentItems, LatentWeights, Pieces
from sim.tables.events import CLICK

_REFERENCE = 128
_LARGEST = 15.0  # of a part of s, so that products of exponentials are finite


def first_exposure_weights(items: int, embedding_size: int) -> ExposureWeights:
    """Returns the weights of a shop that shows the same to everybody, and would remember clicks in the embedding."""
    memory = jnp.float32(2.2)  # r = 0.9
    return ExposureWeights(jnp.zeros(3), memory, jnp.eye(embedding_size), jnp.zeros((items, embedding_size)))


def log_chances(
    weights: LatentWeights, items: LatentItems, draws: Draws, piece: Pieces, reference: jax.Array
) -> jax.Array:
    """Returns [T, M, J] log P(shows what it showed) - log q along one piece, for every taste and interest.

    Args:
        piece: Without the axis of pieces.
        reference: [R] int32 items drawn by q.
    """
    exposure = weights.exposure
    assert exposure is not None
    of_interest, of_taste, of_clicks = exposure.sharpness
    interest = of_interest * draws.interest[:, :-1] @ items.interest.T  # [J, I]
    taste = of_taste * draws.taste[:, :-1] @ items.order.T  # [M, I]
    vectors = items.embedding @ exposure.turned + exposure.own  # [I, E]
    direction = of_clicks * _directions(exposure, vectors, piece)
    known = jnp.einsum("te,te->t", direction, vectors[piece.item])
    # What the items drawn by q would have had, by step and by both draws.
    bounded = (
        jnp.clip(part, -_LARGEST, _LARGEST)
        for part in (direction @ vectors[reference].T, taste[:, reference], interest[:, reference])
    )
    step, of_m, of_j = (jnp.exp(part) for part in bounded)
    both = (of_m[:, None] * of_j[None]).reshape(-1, len(reference))
    normaliser = jnp.log(step @ both.T / len(reference)).reshape(len(step), len(of_m), len(of_j))
    return known[:, None, None] + taste[:, piece.item].T[:, :, None] + interest[:, piece.item].T[:, None] - normaliser


def log_chances_of_shown(
    weights: LatentWeights, items: LatentItems, draws: Draws, pieces: Pieces, reference: jax.Array
) -> jax.Array:
    """Returns [S, M, J] the sum of `log_chances` over what was shown in each of the pieces."""

    def of_piece(piece: Pieces) -> jax.Array:
        return jnp.einsum("tmj,t->mj", log_chances(weights, items, draws, piece, reference), piece.shown.astype(float))

    return jax.vmap(of_piece)(pieces)


def _directions(exposure: ExposureWeights, vectors: jax.Array, piece: Pieces) -> jax.Array:
    """Returns [T, E] the directions of the clicks before each item, 0 without one; vectors [I, E] are of all items."""
    assert piece.clicks is not None
    memory = jax.nn.sigmoid(exposure.memory)
    clicked = piece.shown & (piece.feedback >= CLICK)
    weight = jnp.where(piece.clicks >= 0, memory ** jnp.arange(len(piece.clicks)), 0.0)

    def step(clicks: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        vector, clicked = row
        return jnp.where(clicked, memory * clicks + vector, clicks), clicks

    clicks = jax.lax.scan(step, weight @ vectors[piece.clicks], (vectors[piece.item], clicked))[1]
    return clicks / jnp.sqrt(jnp.maximum(jnp.sum(clicks**2, -1, keepdims=True), 1e-12))


def draw_reference(items: jax.Array, key: jax.Array) -> jax.Array:
    """Returns [R] items drawn by how often they are shown, from those shown [n]."""
    return items[jax.random.randint(key, (_REFERENCE,), 0, len(items))]
