"""With which probability a shop showed what it showed, fitted to a log that does not say.

A conditional logit: of the items i that it has not shown in the session, the shop takes one in proportion to exp(f_i),

    f_i = a log(n_i + 1) + (b_1 x_1 + b_2 x_2 + b_3 x_3) . e_i,

where n_i is how often training users were shown i, e_i its vector, and x the directions of the user's last click, of
all clicks in the histories and of what was shown there; a share of what it shows is uniform. What a shop knew beyond
that the fit cannot know: its probabilities are then wrong, and with them the estimates.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sim.datasets.sessions import SessionData
from sim.envs.histories import NO_ITEM, HistoryTable

_HISTORY = 10  # items of the histories that are looked at
_EARLIER = 100  # items of the session, the last ones, that are not shown again
_ROWS = 2_048  # of the training part, to fit to
_STEPS = 150
_RATE = 0.1
_MOST_ITEMS = 4_096  # larger catalogues are represented by as many items drawn by their counts
_AT_A_TIME = 1_024


@flax.struct.dataclass
class ShopWeights:
    """What is fitted: `count` a, `follow` [3] b, `uniform` the logit of the uniform share."""

    count: jax.Array
    follow: jax.Array
    uniform: jax.Array


def by_counts() -> ShopWeights:
    """Returns a shop that shows items in proportion to n + 1."""
    return ShopWeights(jnp.float32(1), jnp.zeros(3), jnp.float32(-20))


class _Catalogue(NamedTuple):
    """Logs of n + 1 [I], vectors [I, E]; items that stand for all of them [M], and the log of how many each is."""

    log_count: jax.Array
    vector: jax.Array
    sample: jax.Array
    log_weight: jax.Array


class _Moments(NamedTuple):
    """Rows of the log [r], the items shown there [r], and those before in the session [r, P], -1 for none."""

    row: jax.Array
    item: jax.Array
    earlier: jax.Array


def fitted_propensities(
    data: SessionData, embedding: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Fits a shop to the training users' rows and asks it about others.

    Args:
        data: The log and its parts.
        embedding: [J, E] item vectors.
        rows: [r] rows.

    Returns:
        [r] float64 probabilities, 1 for what is not of the catalogue; and the mean of -log of the others ("log_loss",
        nats) beside that of a shop that shows items as often as the training part has them ("log_loss_of_counts").
    """
    catalogue, training = _catalogue(data, embedding), data.rows("train")
    some = np.unique(training[np.linspace(0, len(training) - 1, min(_ROWS, len(training))).round().astype(int)])
    weights = fit_shop(catalogue, data.table, _moments(data, some))
    known = data.log.item[rows] < data.num_items
    fitted, counted = (_ask(data, catalogue, shop, rows[known]) for shop in (weights, by_counts()))
    chance = np.ones(len(rows))
    chance[known] = np.exp(fitted)
    return chance, {"log_loss": -float(fitted.mean()), "log_loss_of_counts": -float(counted.mean())}


def _catalogue(data: SessionData, embedding: np.ndarray) -> _Catalogue:
    count = data.training_counts()["shown"] + 1.0
    sample, weight = np.arange(len(count)), np.ones(len(count))
    if len(count) > _MOST_ITEMS:
        # Systematic sampling by counts: an item stands for the inverse of how often it is drawn.
        cumulative = np.cumsum(count)
        points = (np.arange(_MOST_ITEMS) + 0.5) / _MOST_ITEMS * cumulative[-1]
        sample = np.searchsorted(cumulative, points, side="right")
        weight = cumulative[-1] / (_MOST_ITEMS * count[sample])
    logs = (jnp.asarray(np.log(values), jnp.float32) for values in (count, weight))
    return _Catalogue(next(logs), jnp.asarray(embedding[: len(count)], jnp.float32), jnp.asarray(sample), next(logs))


def _moments(data: SessionData, rows: np.ndarray) -> _Moments:
    log = data.log
    first = log.session_starts()[log.session[rows]]
    place = rows[:, None] - 1 - np.arange(_EARLIER)
    earlier = np.where(place >= first[:, None], log.item[np.maximum(place, 0)], NO_ITEM)
    earlier = np.where(earlier < data.num_items, earlier, NO_ITEM)
    return _Moments(*(jnp.asarray(column, jnp.int32) for column in (rows, log.item[rows], earlier)))


def log_chances(weights: ShopWeights, catalogue: _Catalogue, table: HistoryTable, moments: _Moments) -> jax.Array:
    """Returns [r] the logs of the probabilities with which a shop shows the items of r moments."""
    # What it follows.
    histories = jax.vmap(lambda row: table.before(row, _HISTORY))(moments.row)
    number = len(catalogue.log_count)

    def direction(items: jax.Array) -> jax.Array:
        known = ((items != NO_ITEM) & (items < number)).astype(jnp.float32)
        total = jnp.einsum("rn,rne->re", known, catalogue.vector[jnp.minimum(items, number - 1)])
        return total / jnp.maximum(jnp.linalg.norm(total, axis=-1, keepdims=True), 1e-6)

    seen = jnp.stack([direction(histories.clicked[:, -1:]), direction(histories.clicked), direction(histories.browsed)])
    followed = jnp.einsum("k,kre->re", weights.follow, seen)

    def score(items: jax.Array) -> jax.Array:  # [r, n] of items [r, n]
        return weights.count * catalogue.log_count[items] + jnp.einsum("re,rne->rn", followed, catalogue.vector[items])

    # The softmax over what is left: all items, without those shown before.
    everything = weights.count * catalogue.log_count[catalogue.sample] + followed @ catalogue.vector[catalogue.sample].T
    total = jax.nn.logsumexp(everything + catalogue.log_weight, axis=-1)
    before = moments.earlier != NO_ITEM
    gone = jnp.sum(jnp.where(before, jnp.exp(score(moments.earlier) - total[:, None]), 0.0), -1)
    own = score(moments.item[:, None])[:, 0] - total - jnp.log1p(-jnp.minimum(gone, 0.999))
    # Or any of these.
    share, left = jax.nn.log_sigmoid(weights.uniform), number - jnp.sum(before, -1)
    return jnp.logaddexp(jax.nn.log_sigmoid(-weights.uniform) + jnp.minimum(own, 0.0), share - jnp.log(left))


@jax.jit
def fit_shop(catalogue: _Catalogue, table: HistoryTable, moments: _Moments) -> ShopWeights:
    """Returns the shop that makes what was shown most likely: Adam, from `by_counts` with a uniform share of a half."""
    first, optimiser = by_counts().replace(uniform=jnp.float32(0)), optax.adam(_RATE)  # type: ignore[attr-defined]

    def loss(weights: ShopWeights) -> jax.Array:
        return -jnp.mean(log_chances(weights, catalogue, table, moments))

    def step(carry: tuple[ShopWeights, optax.OptState], _: None) -> tuple[tuple[ShopWeights, optax.OptState], None]:
        weights, state = carry
        updates, state = optimiser.update(jax.grad(loss)(weights), state)
        return (optax.apply_updates(weights, updates), state), None

    return jax.lax.scan(step, (first, optimiser.init(first)), None, length=_STEPS)[0][0]


_log_chances = jax.jit(log_chances)


def _ask(data: SessionData, catalogue: _Catalogue, weights: ShopWeights, rows: np.ndarray) -> np.ndarray:
    """Returns [r] log-probabilities, some rows at a time in one compiled shape."""
    parts = []
    for first in range(0, len(rows), _AT_A_TIME):
        batch = np.resize(rows[first : first + _AT_A_TIME], _AT_A_TIME)
        parts.append(np.asarray(_log_chances(weights, catalogue, data.table, _moments(data, batch)), np.float64))
    return np.concatenate(parts)[: len(rows)] if parts else np.zeros(0)
