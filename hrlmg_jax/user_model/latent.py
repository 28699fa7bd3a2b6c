"""simulator=latent: users with a taste and an interest that no simulated answer changes.

A model of histories takes what a user clicks in a simulation for news about the user: a policy that shows more of what
was clicked is paid for what the simulation itself has made up, and a session runs away. Here a user is what they are:

* a lasting **taste** u, drawn from its posterior given the user's earlier sessions when a session begins;
* the session's **interest** v, drawn then from its prior. How much of an interest lasts from one session to the next,
  and how much is new, is for the log to say;

both mixtures of Gaussians, as interests lie around few centres. With (u, v) held, the answer to item i is

    click logit = b_i + u.a_i + v_t.c_i - s max(h_t.e_i, 0) + w m_t + p(t)
    order logit = b'_i + u.o_i + w' m_t,  given a click,

where a_i, c_i, o_i = W e_i (+ what is the item's own). The dynamics are causal and few: the interest moves a little to
what is shown and clicked, and back; boredom h gathers what is shown; trust m grows with clicks on items that fit the
taste and falls with others; p saturates.

The fit maximises the likelihood of whole sessions with u and v summed out over draws (`latent_likelihood`): what is
evidence of taste is then not taken for dynamics. What the shop showed is no evidence of u and v here. Where it follows
from what the log shows that is right; where the shop reads minds it leaves evidence unused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.runs.run_folder import RunFolder
from hrlmg_jax.user_model.latent_fit import first_weights, fit_latent
from hrlmg_jax.user_model.latent_likelihood import (
    Draws,
    LatentItems,
    LatentParams,
    LatentState,
    LatentWeights,
    Pieces,
    Terms,
    draw_users,
    first_state,
    interest_term,
    items_of,
    log_likelihoods,
    next_state,
    order_term,
    taste_term,
    terms_at,
)
from hrlmg_jax.user_model.logged_pieces import LoggedPieces
from hrlmg_jax.user_model.settings import FitConfig, LatentConfig
from sim.datasets.sessions import SessionData
from sim.envs.histories import Histories
from sim.tables.events import CLICK, ORDER

MOST_PIECES = 8
"""Earlier pieces of a user, the last ones, that tell of the taste."""
_AT_A_TIME = 128


@flax.struct.dataclass
class SessionUsers:
    """Who answers in S sessions: the weights, the items, and each session's taste and interest [S, D + 1]."""

    weights: LatentWeights
    items: LatentItems
    taste: jax.Array
    interest: jax.Array


@flax.struct.dataclass
class LatentUser:
    """One user in a session: taste and interest [D + 1], which nothing changes, and the state, which answers do."""

    taste: jax.Array
    interest: jax.Array
    state: LatentState


@dataclass(frozen=True)
class LatentUsers:
    """The model as a `UserModel`.

    Attributes:
        config: Sizes.
    """

    config: LatentConfig

    def initial(self, params: SessionUsers, start: jax.Array) -> LatentUser:
        """Returns the user of a session, as it begins."""
        return LatentUser(params.taste[start], params.interest[start], first_state(params.weights, jnp.float32(0)))

    def probabilities(
        self, params: SessionUsers, hidden: LatentUser, histories: Histories, item: jax.Array
    ) -> jax.Array:
        """Returns [3] probabilities of skip, click and order; histories play no part."""
        row = jax.tree.map(lambda column: column[item], params.items)
        taste = taste_term(params.weights, hidden.state, row, hidden.taste)
        click = jax.nn.sigmoid(taste + interest_term(hidden.state, row, hidden.interest))
        order = jax.nn.sigmoid(order_term(params.weights, hidden.state, row, hidden.taste))
        return jnp.stack([1 - click, click * (1 - order), click * order])

    def update(self, params: SessionUsers, hidden: LatentUser, item: jax.Array, feedback: jax.Array) -> LatentUser:
        """Returns the user after an answer: who they are stays."""
        row = jax.tree.map(lambda column: column[item], params.items)
        clicked = (feedback >= CLICK).astype(jnp.float32)
        return hidden.replace(state=next_state(params.weights, hidden.state, row, hidden.taste, clicked))  # type: ignore[attr-defined]

    def fit(self, config: FitConfig, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> LatentParams:
        """Maximises the likelihood of the training users' sessions; see `latent_fit`."""
        return fit_latent(config, data, embedding, folder)

    def shapes(self, num_items: int, embedding_size: int) -> LatentParams:
        """Returns parameters with shapes in place of arrays."""

        def make(embedding: jax.Array) -> LatentParams:
            return LatentParams(first_weights(self.config, embedding, jax.random.key(0)), embedding)

        return jax.eval_shape(make, jax.ShapeDtypeStruct((num_items, embedding_size), jnp.float32))

    def in_sessions(self, params: LatentParams, data: SessionData, rows: np.ndarray) -> SessionUsers:
        """Returns a user for each session that begins at rows [S], drawn given the earlier sessions alone.

        Equal rows in equal order give equal users; several that begin at one row differ.
        """
        pieces = LoggedPieces(data.log)
        draws = self._draws(params)
        items = items_of(params.weights, params.embedding)
        before = pieces.before(rows, MOST_PIECES)
        log_weight = draws.log_taste + self._evidence(params, items, draws, pieces, before)
        return self._drawn(params, items, draws, log_weight)

    def of_strangers(self, params: LatentParams, number: int) -> SessionUsers:
        """Returns users drawn from the prior."""
        draws = self._draws(params)
        log_weight = jnp.tile(draws.log_taste, (number, 1))
        return self._drawn(params, items_of(params.weights, params.embedding), draws, log_weight)

    def predict(self, params: LatentParams, data: SessionData, rows: np.ndarray, history_length: int) -> np.ndarray:
        """Returns [r, 3] probabilities at rows, given earlier sessions and what came before in the row's own piece.

        An answer in a piece counts from the next item on.
        """
        pieces, draws = LoggedPieces(data.log), self._draws(params)
        items = items_of(params.weights, params.embedding)
        wanted = np.unique(np.searchsorted(pieces.first, rows, side="right") - 1)
        before = pieces.before(pieces.first[wanted], MOST_PIECES)
        log_taste = np.asarray(draws.log_taste + self._evidence(params, items, draws, pieces, before))
        found = np.zeros((data.log.num_events, 3))
        for first in range(0, len(wanted), _AT_A_TIME):
            batch = np.resize(wanted[first : first + _AT_A_TIME], _AT_A_TIME)
            logged, place, shown = _pieces(pieces, batch)
            weight = jnp.asarray(np.resize(log_taste[first : first + _AT_A_TIME], (_AT_A_TIME, log_taste.shape[1])))
            found[place[shown]] = np.asarray(_filtered(params.weights, items, draws, logged, weight))[shown]
        return found[rows]

    def _draws(self, params: LatentParams) -> Draws:
        return draw_users(
            params.weights, jax.random.key(0), self.config.posterior_tastes, self.config.posterior_interests
        )

    def _evidence(
        self, params: LatentParams, items: LatentItems, draws: Draws, pieces: LoggedPieces, before: np.ndarray
    ) -> jax.Array:
        """Returns [r, M] log p(answers in pieces [r, most] | taste), where -1 is no piece."""
        needed, place = np.unique(before, return_inverse=True)
        place = place.reshape(before.shape)
        evidence = np.zeros((len(needed), draws.taste.shape[0]), np.float32)
        known = np.flatnonzero(needed >= 0)
        for first in range(0, len(known), _AT_A_TIME):
            batch = known[first : first + _AT_A_TIME]
            logged, _, _ = _pieces(pieces, np.resize(needed[batch], _AT_A_TIME))
            evidence[batch] = np.asarray(_log_likelihoods(params.weights, items, draws, logged))[: len(batch)]
        return jnp.asarray(evidence[place].sum(1))

    def _drawn(self, params: LatentParams, items: LatentItems, draws: Draws, log_weight: jax.Array) -> SessionUsers:
        """Draws a taste by weights [S, M] and an interest from the prior for each session."""
        taste_key, interest_key = jax.random.split(jax.random.key(1))
        taste = draws.taste[jax.random.categorical(taste_key, log_weight)]
        weights = params.weights
        component_key, noise_key = jax.random.split(interest_key)
        component = jax.random.categorical(component_key, weights.interest_share, shape=(len(log_weight),))
        noise = jax.random.normal(noise_key, (len(log_weight), weights.interest.shape[1]))
        interest = weights.interest[component] + jnp.exp(weights.interest_spread) * noise
        return SessionUsers(weights, items, taste, interest)


def _pieces(pieces: LoggedPieces, numbers: np.ndarray) -> tuple[Pieces, np.ndarray, np.ndarray]:
    """Returns pieces on the device, the rows of the log that they hold, and which of these there are."""
    rows, shown = pieces.rows_of(numbers)
    log = pieces.log
    logged = Pieces(jnp.asarray(log.item[rows], jnp.int32), jnp.asarray(log.feedback[rows]), jnp.asarray(shown))
    return logged, rows, shown


_log_likelihoods = jax.jit(log_likelihoods)


@partial(jax.jit)
def _filtered(
    weights: LatentWeights, items: LatentItems, draws: Draws, pieces: Pieces, log_taste: jax.Array
) -> jax.Array:
    """Returns [S, T, 3] probabilities of the answers of sessions, each given those before it in the session."""

    def along(piece: Pieces, log_taste: jax.Array) -> jax.Array:
        rows = jax.tree.map(lambda column: column[piece.item], items)

        def step(carry: tuple[LatentState, jax.Array], row: Any) -> tuple[Any, jax.Array]:
            (state, log_weight), (item, feedback, shown) = carry, row
            terms: Terms = terms_at(weights, draws, state, item)
            logit = terms.taste[:, None] + terms.interest
            share, click = jax.nn.softmax(log_weight.ravel()).reshape(log_weight.shape), jax.nn.sigmoid(logit)
            clicks = jnp.sum(share * click)
            orders = jnp.sum(share * click * jax.nn.sigmoid(terms.order)[:, None])
            # The answer as evidence of what comes next.
            clicked, ordered = feedback >= CLICK, feedback >= ORDER
            given_click = jax.nn.log_sigmoid(jnp.where(ordered, terms.order, -terms.order))
            answer = jax.nn.log_sigmoid(jnp.where(clicked, logit, -logit)) + clicked * given_click[:, None]
            state = next_state(weights, state, item, draws.taste, clicked.astype(jnp.float32))
            return (state, log_weight + shown * answer), jnp.stack([1 - clicks, clicks - orders, orders])

        first = first_state(weights, jnp.zeros(draws.taste.shape[0])), log_taste[:, None] + draws.log_interest
        return jax.lax.scan(step, first, (rows, piece.feedback, piece.shown))[1]

    return jax.vmap(along)(pieces, log_taste)
