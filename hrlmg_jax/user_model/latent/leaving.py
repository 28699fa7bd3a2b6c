"""Leaving: a latent user may be gone for good, and then skips whatever is shown.

Patience p, between 0 and 1, falls with each skip and rises with each click,

    p <- max(p - loss, 0) after a skip, min(p + gain, 1) after a click,

and before each item but a session's first, who is there leaves with the chance sigmoid(4 (a + b (1 - p))), the hazard.
Where nobody leaves it is learned to be nearly 0.

Patience follows from the answers, so that the hazard is the same for all draws of tastes and interests. Whoever
clicked was there until then. Of the skips after the last click, the likelihood is a sum over the step k at which the
user left, or never did. With w_k the chance of leaving then and q_t that of a skip of who is there,

    p(skips c + 1 .. n) = prod_t q_t (w_never + sum_k w_k F_k),   F_k = prod_{t >= k} 1 / q_t.

Simulated users carry the chance that they are still there, given what they have answered: what they answer next has
then the same distribution as if the moment of leaving had been drawn, and nothing need be drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

_UNIT = 4.0
"""In which logits of the hazard are learned: they have far to go where nobody leaves, or leaves at a threshold."""
_NEVER = -1e30
_LARGEST = 1e30
_SMALLEST = 1e-30


def first_patience(leaving: jax.Array) -> jax.Array:
    """Returns the patience (scalar) at the beginning of a session; `leaving` [5] is described in `LatentWeights`."""
    return jax.nn.sigmoid(leaving[0])


def next_patience(leaving: jax.Array, patience: jax.Array, clicked: jax.Array) -> jax.Array:
    """Returns the patience after an answer; `clicked` is 0 or 1 (float32)."""
    loss, gain = jax.nn.sigmoid(leaving[1]), jax.nn.sigmoid(leaving[2])
    return jnp.clip(patience + jnp.where(clicked > 0, gain, -loss), 0, 1)


def patience_after(leaving: jax.Array, clicked: jax.Array, known: jax.Array) -> jax.Array:
    """Returns the patience (scalar) after answers [T] of which some are known; clicked is 0 or 1."""

    def step(patience: jax.Array, answer: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        clicked, known = answer
        return jnp.where(known, next_patience(leaving, patience, clicked), patience), None

    return jax.lax.scan(jax.checkpoint(step), first_patience(leaving), (clicked, known))[0]


def hazard_logit(leaving: jax.Array, patience: jax.Array) -> jax.Array:
    """Returns the logit of the chance that a user with some patience leaves before the next item."""
    return _UNIT * (leaving[3] + leaving[4] * (1 - patience))


def still_there(
    leaving: jax.Array, there: jax.Array, click: jax.Array, clicked: jax.Array, patience: jax.Array
) -> jax.Array:
    """Returns the chance that a user is there for the next item.

    Args:
        there: That for the last item.
        click: Chance of a click on it of who is there.
        clicked: Whether it was clicked.
        patience: After that answer.
    """
    skips = there * (1 - click)
    present = jnp.where(clicked > 0, 1.0, skips / jnp.maximum(skips + 1 - there, _SMALLEST))
    return present * jax.nn.sigmoid(-hazard_logit(leaving, patience))


class Leaving(NamedTuple):
    """When users may have left: log-chance of staying [S], and the chances w [S, T] of leaving before each item.

    Given that they are there when a session or its piece begins; w is 0 before the last click.
    """

    log_stays: jax.Array
    leaves: jax.Array


def when_left(logits: jax.Array, follows: jax.Array, clicked: jax.Array, shown: jax.Array) -> Leaving:
    """Returns when users may have left.

    Args:
        logits: [S, T] of the hazard before each item.
        follows: [S] bool, whether there is a hazard before the first item: the piece goes on with a session.
        clicked: [S, T] bool.
        shown: [S, T] bool.
    """
    possible = shown & ((jnp.arange(shown.shape[1]) > 0) | follows[:, None])
    stays = jnp.where(possible, jax.nn.log_sigmoid(-logits), 0.0)
    so_far = jnp.cumsum(stays, 1)
    clicked_later = jnp.flip(jnp.cumsum(jnp.flip(clicked & shown, 1), 1), 1) > 0
    log_leaves = jax.nn.log_sigmoid(logits) + so_far - stays
    return Leaving(so_far[:, -1], jnp.where(possible & ~clicked_later, jnp.exp(log_leaves), 0.0))


def log_left(first: jax.Array, second: jax.Array, leaves: jax.Array, shown: jax.Array) -> jax.Array:
    """Returns [S, M, J] log sum_k w_k F_k for click logits that are sums first_tm + second_tj.

    Args:
        first: [S, T, M].
        second: [S, T, J].
        leaves: [S, T] w.
        shown: [S, T] 0 or 1.
    """
    one, other = jnp.exp(jnp.clip(first, -9, 9)), jnp.exp(jnp.clip(second, -9, 9)) * shown[..., None]
    shape = (len(first), first.shape[-1], second.shape[-1])

    def step(
        carry: tuple[jax.Array, jax.Array], row: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        (factor, total), (one, other, leaves) = carry, row
        factor = jnp.minimum(factor * (1 + one[:, :, None] * other[:, None]), _LARGEST)
        return (factor, total + leaves[:, None, None] * factor), None

    rows = tuple(jnp.swapaxes(array, 0, 1) for array in (one, other, leaves))
    (_, total), _ = jax.lax.scan(jax.checkpoint(step), (jnp.ones(shape), jnp.zeros(shape)), rows, reverse=True)
    return jnp.log(total + _SMALLEST)


class PieceLikelihood(NamedTuple):
    """log p(answers of a piece of a session, and what became of its user | taste, there when it began).

    Attributes:
        stays: [..., M] still there when it ended.
        left: [..., M] left after the last click.
        clicked: [...] bool, whether there was a click at all.
        session: [...] int which session it is of.
    """

    stays: jax.Array
    left: jax.Array
    clicked: jax.Array
    session: jax.Array


def only_those(piece: PieceLikelihood, there: jax.Array) -> PieceLikelihood:
    """Returns the pieces with those that are not there [...] (bool) left out of the likelihood of all."""
    return PieceLikelihood(
        jnp.where(there[..., None], piece.stays, 0.0),
        jnp.where(there[..., None], piece.left, _NEVER),
        piece.clicked & there,
        jnp.where(there, piece.session, -1),
    )


def log_likelihood_of_users(pieces: PieceLikelihood) -> jax.Array:
    """Returns [..., M] log p(answers | taste) of users with P pieces [..., P] each, in order.

    Who has left stays away for the rest of the session, and is there again when the next begins.
    """
    there = gone = jnp.zeros_like(pieces.stays[..., 0, :])  # of the pieces from here on
    for number in reversed(range(pieces.stays.shape[-2])):
        last = number + 1 == pieces.stays.shape[-2]
        if not last:
            goes_on = pieces.session[..., number] == pieces.session[..., number + 1]
            gone = jnp.where(goes_on[..., None], gone, there)
        there = jnp.logaddexp(pieces.stays[..., number, :] + there, pieces.left[..., number, :] + gone)
        gone = jnp.where(pieces.clicked[..., number, None], _NEVER, gone)
    return there
