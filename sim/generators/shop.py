"""The shops that write a generated log: what they show, and with which probability it was shown.

A shop looks at 15 candidates, drawn with replacement by popularity^0.5, and takes one that it has not shown in the
session by a softmax of 3 i.e, where i, of norm 1 or less, is what it knows of the user's interests
(`sim.tables.events.SHOPS`). One time in ten, and where it has shown all candidates, it shows an item drawn uniformly
from those not shown yet.

The log keeps the probability of what was shown, over candidates and exploration. With p_j the chance that item j is a
candidate, w_j = exp(3 i.e_j) (0 for items already shown) and K candidates, the softmax over them shows item i with

    P(i) = E[number of i's / sum of the candidates' w] w_i = K p_i w_i int_0^inf exp(-t w_i) phi(t)^(K - 1) dt,
    phi(t) = sum_j p_j exp(-t w_j),

since 1 / s = int exp(-t s) dt and the other K - 1 candidates are independent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sim.envs.available_items import draw_item
from sim.envs.fast_argmax import fast_argmax
from sim.envs.policy import Decision, Policy
from sim.envs.session_env import SessionObservation

NUM_CANDIDATES = 15
EXPLORATION = 0.1
SHARPNESS = 3.0

_EXACT_ITEMS = 4_096
"""Larger catalogues: phi is a mean over as many items drawn by p."""
_NODES = 2.0 ** np.arange(-16, 10)
"""Of the quadrature: the trapezoid rule in log t, whose error falls as exp(-pi^2 / step), below 1e-6 here."""
_ROWS = 1_024
"""Rows at a time, which bounds memory."""


class Catalogue(NamedTuple):
    """The items: vectors [I, 50] float32, and cumulative popularity^0.5 [I] float32."""

    item: jax.Array
    cumulative: jax.Array


def shop_policy(interest: Callable[[Any], jax.Array]) -> Policy:
    """Returns a shop; its parameters are a `Catalogue`.

    Args:
        interest: From the hidden states of B users to what it knows of them, [B, 50].
    """

    def act(
        params: Catalogue, carry: tuple[()], observation: SessionObservation, key: jax.Array, explore: bool
    ) -> tuple[tuple[()], Decision]:
        draw_key, choice_key, whether_key, which_key = jax.random.split(key, 4)
        # Candidates, and the best of them for this user by a softmax.
        batch, number = observation.step.shape[0], len(params.cumulative)
        drawn = jax.random.uniform(draw_key, (batch, NUM_CANDIDATES)) * params.cumulative[-1]
        candidates = jnp.minimum(jnp.searchsorted(params.cumulative, drawn, side="right"), number - 1)
        fit = jnp.einsum("bd,bkd->bk", interest(observation.hidden), params.item[candidates])
        shown = jnp.any(candidates[:, :, None] == observation.recommended[:, None, :], -1)
        logits = SHARPNESS * fit + jax.random.gumbel(choice_key, fit.shape)
        best = fast_argmax(jnp.where(shown, -jnp.inf, logits))
        chosen = jnp.take_along_axis(candidates, best[:, None], 1)[:, 0].astype(jnp.int32)
        # Exploration.
        anything = draw_item(which_key, observation.step, observation.recommended, number)
        explores = jax.random.bernoulli(whether_key, EXPLORATION, (batch,)) | jnp.all(shown, -1)
        return carry, Decision(jnp.where(explores, anything, chosen), jnp.zeros((batch,)))

    return Policy(lambda params, batch_size: (), act)


def shown_probabilities(
    catalogue: Catalogue, interest: np.ndarray, known: np.ndarray, item: np.ndarray, shown: np.ndarray
) -> np.ndarray:
    """Returns [n] float32 the probabilities with which a shop showed items.

    They are exact to 1e-5 for up to 4,096 items. Larger catalogues are represented by as many items drawn by p,
    the same for all rows: the standard error is about 1 % of the probability (tests measure it).

    Args:
        catalogue: The items.
        interest: [m, 50] what the shop knew of users.
        known: [n] int row of `interest` for each impression.
        item: [n] int item shown.
        shown: [n, T] int items shown before in the session, padded with -1.
    """
    cumulative = np.asarray(catalogue.cumulative)
    chance = _chances(cumulative)
    weight = chance
    sample = np.arange(len(chance))
    if len(chance) > _EXACT_ITEMS:
        # Systematic sampling by p: an item of chance p is drawn floor or ceil of 4,096 p times.
        points = (np.arange(_EXACT_ITEMS) + 0.5) / _EXACT_ITEMS
        sample = np.searchsorted(cumulative, points * cumulative[-1], side="right")
        weight = np.full(_EXACT_ITEMS, 1 / _EXACT_ITEMS)
    sampled = catalogue.item[sample], jnp.asarray(weight, jnp.float32)

    # phi without regard to what was shown, once for each interest.
    phi = _in_parts(partial(_phi, *sampled), len(interest), interest)
    # The softmax over the candidates, and what is left for a uniform draw.
    found = _in_parts(
        partial(_of_shown, catalogue.item, jnp.asarray(chance, jnp.float32)),
        len(item),
        *(phi[known], interest[known], item, shown),
    )
    return found.astype(np.float32)


def _chances(cumulative: np.ndarray) -> np.ndarray:
    """Returns [I] float64 how often each item is drawn as a candidate, as `shop_policy` draws.

    Its uniform float32 numbers are multiples of 2^-23, which is coarse beside the share of one item of many.
    """
    grid = np.arange(2**23, dtype=np.float32) / np.float32(2**23) * cumulative[-1]
    below = np.searchsorted(grid, cumulative)  # how many numbers draw this item or one before it
    below[-1] = len(grid)
    return np.diff(below, prepend=0) / len(grid)


def _in_parts(function: Callable[..., jax.Array], number: int, *arrays: np.ndarray) -> np.ndarray:
    """Returns the function of arrays [number, ...], a thousand rows at a time in one compiled shape."""
    parts = []
    for first in range(0, number, _ROWS):
        rows = np.minimum(np.arange(first, first + _ROWS), number - 1)
        parts.append(np.asarray(function(*(jnp.asarray(array[rows]) for array in arrays))))
    return np.concatenate(parts)[:number]


@jax.jit
def _phi(items: jax.Array, weight: jax.Array, interest: jax.Array) -> jax.Array:
    """Returns [B, Q] phi at the nodes, had nothing been shown."""
    appeal = jnp.exp(SHARPNESS * interest @ items.T)
    return jax.lax.map(lambda node: jnp.exp(-node * appeal) @ weight, jnp.asarray(_NODES, jnp.float32)).T


@jax.jit
def _of_shown(
    items: jax.Array, chance: jax.Array, phi: jax.Array, interest: jax.Array, item: jax.Array, shown: jax.Array
) -> jax.Array:
    """Returns [B] the probabilities that a shop shows items, see `shown_probabilities`."""
    nodes, step = jnp.asarray(_NODES, jnp.float32), float(np.log(_NODES[1] / _NODES[0]))
    # Items shown before have a w of 0, so that they add p_j to phi at every node.
    before = jnp.where(shown >= 0, chance[shown], 0.0)
    appeal = jnp.exp(SHARPNESS * jnp.einsum("bd,btd->bt", interest, items[shown]))
    phi += jnp.einsum("bt,btq->bq", before, 1 - jnp.exp(-nodes * appeal[..., None]))
    # The integral over log t; below the first node the integrand is t, and the sum of the nodes left out is t_0.
    fit = jnp.exp(SHARPNESS * jnp.sum(interest * items[item], -1))
    integrand = nodes * jnp.exp(-nodes * fit[:, None]) * phi ** (NUM_CANDIDATES - 1)
    integral = step * (jnp.sum(integrand, -1) + integrand[:, 0])
    chosen = NUM_CANDIDATES * chance[item] * fit * integral
    # A uniform draw: exploration, or all candidates had been shown.
    uniform = 1 / (items.shape[0] - jnp.sum(shown >= 0, -1))
    none_left = jnp.sum(before, -1) ** NUM_CANDIDATES
    return EXPLORATION * uniform + (1 - EXPLORATION) * (chosen + none_left * uniform)
