"""The likelihood of logged sessions under latent users: see `hrlmg_jax.user_model.latent.users`.

A user's lasting taste u and a session's interest v are unknown. Each is represented by draws from its prior, a mixture
with one draw or more from every component (importance sampling with the prior as proposal, stratified by component):

    log p(user) = log sum_m w_m prod_sessions p(orders | u_m) sum_j w_j p(clicks | u_m, v_j),

the moment at which the user left summed out as well (`latent.leaving`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from hrlmg_jax.user_model.latent.leaving import (
    PieceLikelihood,
    first_patience,
    hazard_logit,
    log_left,
    next_patience,
    patience_after,
    when_left,
)
from hrlmg_jax.user_model.latent.trust import TrustMap, next_trust, trust_map
from sim.tables.events import CLICK, ORDER

_TOGETHER = 8
"""Factors 1 + ab of a product of which one logarithm is taken; with |log ab| clipped, four of them are finite."""
_LARGEST_LOGIT = 18.0
LONGEST = 60
"""Steps after which a session's position changes nothing more."""


@flax.struct.dataclass
class ExposureWeights:
    """How a shop chooses what it shows (see `latent.exposures`).

    Attributes:
        sharpness: [3] a, b and g.
        memory, uniform: Scalar logits of r and e.
        turned: [E, E] from the embedding to the vectors x.
    """

    sharpness: jax.Array
    memory: jax.Array
    uniform: jax.Array
    turned: jax.Array


@flax.struct.dataclass
class LatentWeights:
    """What is learned besides the item vectors: I items, E embedding, D latent, K interests, M tastes.

    Attributes:
        to_interest, to_taste, to_order: [E, D] from the embedding to item vectors.
        own_interest, own_order: [J, D] what an item has beyond that.
        click_of_embedding, order_of_embedding: [E] appeal by the embedding.
        click_appeal, order_appeal: [J] and beyond it.
        bias: [2] of clicks and of orders given a click.
        interest, taste: [K, D + 1] and [M, D + 1] means of the components; the last coordinate is one for all items.
        interest_spread, taste_spread: [D + 1] logarithms of their standard deviations.
        interest_share, taste_share: [K], [M] logits of their weights.
        taste_in_clicks: Scalar weight of the taste's last coordinate in clicks.
        drift: [3] logits of how far an interest moves to an item shown, and clicked, and back.
        drift_length: Scalar: how far out the item is to which it moves.
        boredom: [2] weight before a softplus, and logit of the memory.
        trust: [7]: weight in clicks and in orders, logit of what is kept, gain of a click, of one that fits, threshold,
            logit of what is left of it when the next session begins (`latent.trust`).
        position: [2] weights of a fast and a slow function of the step.
        leaving: [5]: logits of the first patience, of what a skip takes from it and what a click gives, of the hazard
            at full patience, and what lacks of patience adds to that.
        exposure: How the shop chooses (`latent.exposures`); None: what it showed is no evidence.
    """

    to_interest: jax.Array
    to_taste: jax.Array
    to_order: jax.Array
    own_interest: jax.Array
    own_order: jax.Array
    click_of_embedding: jax.Array
    order_of_embedding: jax.Array
    click_appeal: jax.Array
    order_appeal: jax.Array
    bias: jax.Array
    interest: jax.Array
    taste: jax.Array
    interest_spread: jax.Array
    taste_spread: jax.Array
    interest_share: jax.Array
    taste_share: jax.Array
    taste_in_clicks: jax.Array
    drift: jax.Array
    drift_length: jax.Array
    boredom: jax.Array
    trust: jax.Array
    position: jax.Array
    leaving: jax.Array
    exposure: ExposureWeights | None = None


@flax.struct.dataclass
class LatentParams:
    """What was learned: weights, and the item embedding [J, E]."""

    weights: LatentWeights
    embedding: jax.Array


@flax.struct.dataclass
class LatentItems:
    """Items as latent users see them: vectors [J, D], biases [J], and the embedding [J, E] of which users tire."""

    interest: jax.Array
    taste: jax.Array
    order: jax.Array
    click_bias: jax.Array
    order_bias: jax.Array
    embedding: jax.Array


@flax.struct.dataclass
class Draws:
    """Draws from the prior: tastes [M, D + 1], interests [J, D + 1], and the logarithms of their weights [M], [J]."""

    taste: jax.Array
    interest: jax.Array
    log_taste: jax.Array
    log_interest: jax.Array


class Pieces(NamedTuple):
    """S logged sessions, or pieces of long ones, padded to T.

    Attributes:
        item: [S, T] int32.
        feedback: [S, T] int.
        shown: [S, T] bool.
        before: [S, T] int8 answers to the last piece of the same session; -1: this is the first.
        session: [S] int32 which session it is of.
        clicks: [S, 32] int32 items clicked before, the last one first, padded with -1; None: nobody asks.
    """

    item: jax.Array
    feedback: jax.Array
    shown: jax.Array
    before: jax.Array
    session: jax.Array
    clicks: jax.Array | None = None

    @property
    def follows(self) -> jax.Array:
        """[S] bool whether it is not the first of its session."""
        return self.before[:, 0] >= 0


def items_of(weights: LatentWeights, embedding: jax.Array) -> LatentItems:
    """Returns the items as users see them, for embeddings [J, E]."""
    return LatentItems(
        interest=embedding @ weights.to_interest + weights.own_interest,
        taste=embedding @ weights.to_taste,
        order=embedding @ weights.to_order + weights.own_order,
        click_bias=weights.bias[0] + embedding @ weights.click_of_embedding + weights.click_appeal,
        order_bias=weights.bias[1] + embedding @ weights.order_of_embedding + weights.order_appeal,
        embedding=embedding,
    )


def draw_users(weights: LatentWeights, key: jax.Array, tastes: int, interests: int) -> Draws:
    """Draws so many tastes and interests, equally many from each component as far as that goes."""
    taste_key, interest_key = jax.random.split(key)

    def draw(key: jax.Array, means: jax.Array, spread: jax.Array, share: jax.Array, number: int) -> Any:
        component = jnp.arange(number) % means.shape[0]
        noise = jax.random.normal(key, (number, means.shape[1]))
        times = jnp.bincount(component, length=means.shape[0])
        return means[component] + jnp.exp(spread) * noise, (jax.nn.log_softmax(share) - jnp.log(times))[component]

    taste, log_taste = draw(taste_key, weights.taste, weights.taste_spread, weights.taste_share, tastes)
    interest, log_interest = draw(
        interest_key, weights.interest, weights.interest_spread, weights.interest_share, interests
    )
    return Draws(taste, interest, log_taste, log_interest)


@flax.struct.dataclass
class LatentState:
    """What answers change, of one user.

    Attributes:
        kept: Scalar: how much of the session's first interest is left in the present one ...
        moved: [D] ... and what has been added to it.
        tired: [E] decaying mean of the items shown.
        trust: [...] trust; with several tastes in question one for each.
        patience: Scalar, see `latent.leaving`.
        step: int32.
    """

    kept: jax.Array
    moved: jax.Array
    tired: jax.Array
    trust: jax.Array
    patience: jax.Array
    step: jax.Array


def first_state(weights: LatentWeights, trust: jax.Array, before: jax.Array | None = None) -> LatentState:
    """Returns the state at the beginning of a session, or of a piece of one.

    Args:
        trust: [...] with which it begins.
        before: [T] answers to the last piece, -1 for none, which patience remembers.
    """
    embedding, latent = weights.to_interest.shape
    patience = first_patience(weights.leaving)
    if before is not None:
        patience = patience_after(weights.leaving, before >= CLICK, before >= 0)
    return LatentState(jnp.float32(1), jnp.zeros(latent), jnp.zeros(embedding), trust, patience, jnp.int32(0))


def next_state(
    weights: LatentWeights, state: LatentState, item: LatentItems, taste: jax.Array, clicked: jax.Array
) -> LatentState:
    """Returns the state after an answer to an item, of tastes [..., D + 1]; `clicked` is 0 or 1 (float32)."""
    # The interest moves, and is pulled back to where it began.
    shown, click, back = jax.nn.sigmoid(weights.drift)
    pull = shown + click * clicked
    kept = state.kept * (1 - pull) + back * (1 - state.kept)
    moved = state.moved * (1 - pull - back) + pull * weights.drift_length * item.interest
    # Boredom; trust, which a click changes by how well the item fits the taste.
    memory = jax.nn.sigmoid(weights.boredom[1])
    tired = memory * state.tired + (1 - memory) * item.embedding
    trust = next_trust(weights.trust, state.trust, fit_of(weights, item, taste), clicked)
    patience = next_patience(weights.leaving, state.patience, clicked)
    return LatentState(kept, moved, tired, trust, patience, state.step + 1)


def fit_of(weights: LatentWeights, item: LatentItems, taste: jax.Array) -> jax.Array:
    """Returns [...] how well an item (or each of several) fits tastes [..., D + 1], which a click tells the user."""
    return taste[..., :-1] @ item.order.T + 0.3 * (item.order_bias - weights.bias[1])


def trust_maps(weights: LatentWeights, items: LatentItems, draws: Draws, pieces: Pieces) -> TrustMap:
    """Returns what S pieces make of trust, by taste: [S] and [S, M]."""

    def of_piece(item: jax.Array, feedback: jax.Array, shown: jax.Array) -> TrustMap:
        rows = jax.tree.map(lambda column: column[item], items)
        clicked = (feedback >= CLICK).astype(jnp.float32)
        return trust_map(weights.trust, fit_of(weights, rows, draws.taste).T, clicked, shown)

    return jax.vmap(of_piece)(pieces.item, pieces.feedback, pieces.shown)


def taste_term(weights: LatentWeights, state: LatentState, item: LatentItems, taste: jax.Array) -> jax.Array:
    """Returns [...] the click logit of an item for tastes [..., D + 1], but for `interest_term`."""
    step = jnp.minimum(state.step, LONGEST).astype(jnp.float32)
    return (
        item.click_bias
        + weights.position @ (1 - jnp.exp(-step / jnp.asarray([10.0, 60.0])))
        + state.moved @ item.interest
        - jax.nn.softplus(weights.boredom[0]) * jax.nn.relu(state.tired @ item.embedding)
        + taste[..., :-1] @ item.taste
        + weights.taste_in_clicks * taste[..., -1]
        + weights.trust[0] * state.trust
    )


def interest_term(state: LatentState, item: LatentItems, interest: jax.Array) -> jax.Array:
    """Returns [...] what interests [..., D + 1], as they were when the session began, add to the click logit."""
    return state.kept * (interest[..., :-1] @ item.interest) + interest[..., -1]


def order_term(weights: LatentWeights, state: LatentState, item: LatentItems, taste: jax.Array) -> jax.Array:
    """Returns [...] the order logit, given a click, of an item for tastes [..., D + 1]."""
    return item.order_bias + taste[..., :-1] @ item.order + taste[..., -1] + weights.trust[1] * state.trust


class Terms(NamedTuple):
    """Logits along a session: clicks, by taste [T, M] plus by interest [T, J]; orders [T, M]; leaving [T]."""

    taste: jax.Array
    interest: jax.Array
    order: jax.Array
    hazard: jax.Array


def terms_at(weights: LatentWeights, draws: Draws, state: LatentState, item: LatentItems) -> Terms:
    """Returns the logits of an item in a state: [M], [J], [M] and a scalar."""
    return Terms(
        taste_term(weights, state, item, draws.taste),
        interest_term(state, item, draws.interest),
        order_term(weights, state, item, draws.taste),
        hazard_logit(weights.leaving, state.patience),
    )


def log_likelihoods(
    weights: LatentWeights,
    items: LatentItems,
    draws: Draws,
    pieces: Pieces,
    trust: jax.Array,
    exposures: jax.Array | None = None,
) -> PieceLikelihood:
    """Returns log p(answers of pieces | taste) [S, M], interests summed out, by what became of the user.

    Args:
        trust: [S, M] with which the pieces begin, by taste.
        exposures: [S, M, J] log-chances of what was shown, by taste and interest, of which the likelihood is then, too.
    """

    def along(rows: LatentItems, feedback: jax.Array, before: jax.Array, trust: jax.Array) -> Terms:
        def step(state: LatentState, row: tuple[LatentItems, jax.Array]) -> tuple[LatentState, LatentState]:
            item, feedback = row
            clicked = (feedback >= CLICK).astype(jnp.float32)
            return next_state(weights, state, item, draws.taste, clicked), state

        states = jax.lax.scan(jax.checkpoint(step), first_state(weights, trust, before), (rows, feedback))[1]
        # The terms of all steps at once; the gradient of the loop then needs its states alone.
        return jax.vmap(terms_at, (None, None, 0, 0))(weights, draws, states, rows)

    # Items are looked up before the scan: their gradient is then one sum over the rows.
    rows = jax.tree.map(lambda column: column[pieces.item], items)
    terms = jax.vmap(along)(rows, pieces.feedback, pieces.before, trust)
    shown = pieces.shown.astype(jnp.float32)
    clicked = shown * (pieces.feedback >= CLICK)
    ordered = shown * (pieces.feedback >= ORDER)
    # Clicks of who is there, for every pair of a taste and an interest.
    clicks = (
        jnp.einsum("stm,st->sm", terms.taste, clicked)[:, :, None]
        + jnp.einsum("stj,st->sj", terms.interest, clicked)[:, None]
        - softplus_of_sums(terms.taste, terms.interest, shown)
        + draws.log_interest
    )
    if exposures is not None:
        clicks += exposures
    orders = jnp.einsum("stm,st->sm", terms.order, ordered) - jnp.einsum(
        "stm,st->sm", jax.nn.softplus(terms.order), clicked
    )
    # When the user may have left.
    leaving = when_left(terms.hazard, pieces.follows, clicked > 0, pieces.shown)
    left = log_left(terms.taste, terms.interest, leaving.leaves, shown)
    return PieceLikelihood(
        stays=jax.nn.logsumexp(clicks, -1) + orders + leaving.log_stays[:, None],
        left=jax.nn.logsumexp(clicks + left, -1) + orders,
        clicked=jnp.any(clicked > 0, 1),
        session=pieces.session,
    )


@jax.custom_vjp
def softplus_of_sums(first: jax.Array, second: jax.Array, shown: jax.Array) -> jax.Array:
    """Returns [S, M, J] sum_t shown_t log(1 + exp(first_tm + second_tj)) without an array [S, T, M, J].

    The exponential of a sum is the product of exponentials, and several factors 1 + ab are multiplied before their
    logarithm is taken: two operations for each of S T M J elements. Logits are clipped to 18 in size.

    Args:
        first: [S, T, M].
        second: [S, T, J].
        shown: [S, T] 0 or 1.
    """
    return _sums(first, second, shown)[0]


def _sums(first: jax.Array, second: jax.Array, shown: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    half = _LARGEST_LOGIT / 2
    one = jnp.exp(jnp.clip(first, -half, half))
    other = jnp.exp(jnp.clip(second, -half, half)) * shown[..., None]
    steps = one.shape[1]

    def in_groups(array: jax.Array) -> jax.Array:
        padded = jnp.pad(array, ((0, 0), (0, -steps % _TOGETHER), (0, 0)))
        grouped = padded.reshape(len(array), -1, _TOGETHER, array.shape[-1])
        return jnp.moveaxis(grouped, (1, 2), (0, 1))

    def add(total: jax.Array, group: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        factors = [1 + a[:, :, None] * b[:, None] for a, b in zip(*group, strict=True)]
        for part in (factors[: _TOGETHER // 2], factors[_TOGETHER // 2 :]):
            product = part[0]
            for factor in part[1:]:
                product = product * factor
            total = total + jnp.log(product)
        return total, None

    total = jnp.zeros((len(one), one.shape[-1], other.shape[-1]))
    return jax.lax.scan(add, total, (in_groups(one), in_groups(other)))[0], (one, other)


def _gradients(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    def at_step(_: None, both: tuple[jax.Array, jax.Array]) -> tuple[None, tuple[jax.Array, jax.Array]]:
        odds = both[0][:, :, None] * both[1][:, None]
        share = gradient * (odds / (1 + odds))
        return None, (share.sum(-1), share.sum(1))

    _, found = jax.lax.scan(at_step, None, (jnp.swapaxes(saved[0], 0, 1), jnp.swapaxes(saved[1], 0, 1)))
    return jnp.swapaxes(found[0], 0, 1), jnp.swapaxes(found[1], 0, 1), None


softplus_of_sums.defvjp(_sums, _gradients)
