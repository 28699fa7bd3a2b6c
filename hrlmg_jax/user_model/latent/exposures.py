"""What a shop showed as evidence of its users (`simulator.exposures`).

A shop that knows its users shows what they like, and what it shows is then evidence of it, as far as the log does not
explain the choice. Where a shop follows the clicks that the log has, nothing is left to explain; where it knows more
than the log tells, what was shown tells what it knew. So the choice is modelled, together with the answers:

    P(shows j | u, v, clicks) = e / I + (1 - e) q_j exp(s_j) / sum_k q_k exp(s_k),   s_j = a v.c_j + b u.o_j + g d.x_j,

with e the share that is drawn uniformly from all I items, q_j how often j is shown to anybody, and d the direction of
sum_k r^k x over the items clicked before, the last one first, earlier sessions included; a, b, g, e, r and the vectors
x_j (the embedding, turned) are learned. With a = b = 0 what was shown is no evidence.

What was shown says who a user is, and not what tastes are: the fit learns the vectors c and o, and the mixtures of u
and v, from answers alone (no gradient of the chances of what was shown reaches them). There are a hundred times as many
exposures as orders, and tastes would otherwise become whatever explains exposures best.

Where a shop does follow the log, this predicts a little worse than ignoring what was shown, since no model of a shop is
exact; `simulator.exposures=auto` compares both on held-out users (`latent.fit`).

The normaliser is a mean over items drawn by q. Only one factor of each of its terms depends on the step, one on the
taste and one on the interest, so that for all of them together it is a product of matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hrlmg_jax.user_model.latent.likelihood import Draws, ExposureWeights, LatentItems, LatentWeights, Pieces
from sim.tables.events import CLICK

_REFERENCE = 128
_LARGEST = 15.0  # of a part of s, so that products of exponentials are finite


class ShownItems(NamedTuple):
    """What is shown to anybody: log q [I], and items drawn by it [R] int32."""

    log_share: jax.Array
    reference: jax.Array


def first_exposure_weights(embedding_size: int) -> ExposureWeights:
    """Returns the weights of a shop that shows the same to everybody, and would remember clicks in the embedding."""
    memory, uniform = jnp.float32(2.2), jnp.float32(-2.2)  # r = 0.9, e = 0.1
    return ExposureWeights(jnp.zeros(3), memory, uniform, jnp.eye(embedding_size))


def counts_exposures(weights: LatentWeights) -> bool:
    """Returns whether what was shown is evidence for fitted users: of interests or of tastes."""
    return weights.exposure is not None and bool(np.any(np.asarray(weights.exposure.sharpness[:2])))


def log_chances(
    weights: LatentWeights, items: LatentItems, draws: Draws, piece: Pieces, shown: ShownItems
) -> jax.Array:
    """Returns [T, M, J] log P(shows what it showed) - log q along one piece, for every taste and interest.

    Args:
        piece: Without the axis of pieces.
        shown: What is shown to anybody.
    """
    exposure = weights.exposure
    assert exposure is not None
    of_interest, of_taste, of_clicks = exposure.sharpness

    def parts_of(some: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns what interests [J, n] and tastes [M, n] add to s of some items [n]: all would be the catalogue."""
        interest = of_interest * draws.interest[:, :-1] @ items.interest[some].T
        return interest, of_taste * draws.taste[:, :-1] @ items.order[some].T

    interest, taste = parts_of(piece.item)
    direction = of_clicks * _directions(exposure, items.embedding, piece)
    known = jnp.einsum("te,te->t", direction, items.embedding[piece.item] @ exposure.turned)
    # What the items drawn by q would have had, by step and by both draws.
    reference = shown.reference
    by_step = direction @ (items.embedding[reference] @ exposure.turned).T
    bounded = (jnp.clip(part, -_LARGEST, _LARGEST) for part in (by_step, *parts_of(reference)))
    step, of_j, of_m = (jnp.exp(part) for part in bounded)
    both = (of_m[:, None] * of_j[None]).reshape(-1, len(reference))
    normaliser = jnp.log(step @ both.T / len(reference)).reshape(len(step), len(of_m), len(of_j))
    score = known[:, None, None] + taste.T[:, :, None] + interest.T[:, None]
    # A share is drawn uniformly.
    log_uniform = jax.nn.log_sigmoid(exposure.uniform) - shown.log_share[piece.item] - jnp.log(len(shown.log_share))
    return jnp.logaddexp(log_uniform[:, None, None], jax.nn.log_sigmoid(-exposure.uniform) + score - normaliser)


def log_chances_of_shown(
    weights: LatentWeights, items: LatentItems, draws: Draws, pieces: Pieces, shown: ShownItems
) -> jax.Array:
    """Returns [S, M, J] the sum of `log_chances` over what was shown in each of the pieces."""

    def of_piece(piece: Pieces) -> jax.Array:
        return jnp.einsum("tmj,t->mj", log_chances(weights, items, draws, piece, shown), piece.shown.astype(float))

    return jax.vmap(of_piece)(pieces)


def _directions(exposure: ExposureWeights, embedding: jax.Array, piece: Pieces) -> jax.Array:
    """Returns [T, E] the directions of the clicks before each item, 0 without one; embedding [I, E] is of all items."""
    assert piece.clicks is not None
    memory = jax.nn.sigmoid(exposure.memory)
    clicked = piece.shown & (piece.feedback >= CLICK)
    weight = jnp.where(piece.clicks >= 0, memory ** jnp.arange(len(piece.clicks)), 0.0)

    def step(clicks: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        vector, clicked = row
        return jnp.where(clicked, memory * clicks + vector, clicks), clicks

    earlier, vectors = (embedding[some] @ exposure.turned for some in (piece.clicks, piece.item))
    clicks = jax.lax.scan(step, weight @ earlier, (vectors, clicked))[1]
    return clicks / jnp.sqrt(jnp.maximum(jnp.sum(clicks**2, -1, keepdims=True), 1e-12))


def shown_items(log_share: jax.Array, key: jax.Array) -> ShownItems:
    """Returns what is shown to anybody, other items drawn for every key; log_share [I] as `log_shares` gives it."""
    reference = jax.random.choice(key, len(log_share), (_REFERENCE,), p=jnp.exp(log_share))
    return ShownItems(log_share, reference)


def log_shares(items: np.ndarray, number: int) -> np.ndarray:
    """Returns [I] log q of items, from those shown [n]; each has half an exposure more, so that no share is 0."""
    counts = np.bincount(items, minlength=number) + 0.5
    return np.log(counts / counts.sum()).astype(np.float32)
