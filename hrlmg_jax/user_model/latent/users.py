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
taste and falls with others; p saturates. Between two answers a user may leave, and skips all that follows
(`latent.leaving`).

The fit maximises the likelihood of whole sessions with u and v summed out over draws (`latent.likelihood`): what is
evidence of taste is then not taken for dynamics. What the shop showed is evidence of u and v where it knew more than
the log tells (`latent.exposures`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.runs.run_folder import RunFolder
from hrlmg_jax.user_model.latent.exposures import (
    ShownItems,
    counts_exposures,
    log_chances,
    log_chances_of_shown,
    log_shares,
    shown_items,
)
from hrlmg_jax.user_model.latent.fit import first_weights, fit_latent
from hrlmg_jax.user_model.latent.leaving import PieceLikelihood, log_likelihood_of_users, only_those, still_there
from hrlmg_jax.user_model.latent.likelihood import (
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
    trust_maps,
)
from hrlmg_jax.user_model.latent.logged_pieces import LoggedPieces
from hrlmg_jax.user_model.latent.trust import between
from hrlmg_jax.user_model.settings import AUTO, FitConfig, LatentConfig
from sim.datasets.sessions import SessionData
from sim.envs.histories import Histories
from sim.tables.events import CLICK, ORDER, SKIP

MOST_PIECES = 8
"""Earlier pieces of a user, the last ones, that tell of the taste."""
_AT_A_TIME = 128


@flax.struct.dataclass
class SessionUsers:
    """Who answers in S sessions: weights and items; taste and interest [S, D + 1] and trust [S] as sessions begin."""

    weights: LatentWeights
    items: LatentItems
    taste: jax.Array
    interest: jax.Array
    trust: jax.Array


@flax.struct.dataclass
class LatentUser:
    """One user in a session.

    Attributes:
        taste, interest: [D + 1]; nothing changes them.
        state: What answers change.
        there: Scalar chance that they have not left, given their answers.
    """

    taste: jax.Array
    interest: jax.Array
    state: LatentState
    there: jax.Array


@dataclass(frozen=True)
class LatentUsers:
    """The model as a `UserModel`.

    Attributes:
        config: Sizes.
    """

    config: LatentConfig

    def initial(self, params: SessionUsers, start: jax.Array) -> LatentUser:
        """Returns the user of a session, as it begins."""
        state = first_state(params.weights, params.trust[start])
        return LatentUser(params.taste[start], params.interest[start], state, jnp.float32(1))

    def probabilities(
        self, params: SessionUsers, hidden: LatentUser, histories: Histories, item: jax.Array
    ) -> jax.Array:
        """Returns [3] probabilities of skip, click and order; histories play no part."""
        row = jax.tree.map(lambda column: column[item], params.items)
        click = hidden.there * _click_of_present(params.weights, hidden, row)
        order = jax.nn.sigmoid(order_term(params.weights, hidden.state, row, hidden.taste))
        return jnp.stack([1 - click, click * (1 - order), click * order])

    def update(self, params: SessionUsers, hidden: LatentUser, item: jax.Array, feedback: jax.Array) -> LatentUser:
        """Returns the user after an answer: who they are stays."""
        row = jax.tree.map(lambda column: column[item], params.items)
        clicked = (feedback >= CLICK).astype(jnp.float32)
        state = next_state(params.weights, hidden.state, row, hidden.taste, clicked)
        click = _click_of_present(params.weights, hidden, row)
        there = still_there(params.weights.leaving, hidden.there, click, clicked, state.patience)
        return dataclasses.replace(hidden, state=state, there=there)

    def fit(self, config: FitConfig, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> LatentParams:
        """Maximises the likelihood of the training users' sessions; see `latent.fit`."""
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
        read = self._read(params, data, rows)
        before = read.pieces.before(rows, MOST_PIECES)
        log_weight = read.draws.log_taste + read.evidence(before)
        trust = between(params.weights.trust, jnp.asarray(read.trust_after(before)), jnp.zeros(len(rows), bool))
        return self._drawn(params, read.items, read.draws, log_weight, trust)

    def of_strangers(self, params: LatentParams, number: int) -> SessionUsers:
        """Returns users drawn from the prior."""
        draws = self._draws(params)
        log_weight = jnp.tile(draws.log_taste, (number, 1))
        trust = jnp.zeros(log_weight.shape)
        return self._drawn(params, items_of(params.weights, params.embedding), draws, log_weight, trust)

    def predict(self, params: LatentParams, data: SessionData, rows: np.ndarray, history_length: int) -> np.ndarray:
        """Returns [r, 3] probabilities at rows, given earlier sessions and what came before in the row's own piece.

        An answer in a piece counts from the next item on.
        """
        read = self._read(params, data, rows)
        pieces, draws = read.pieces, read.draws
        # The pieces that hold the rows, and what comes before them in their sessions.
        number = pieces.number_in_session
        wanted = np.unique(np.searchsorted(pieces.first, rows, side="right") - 1)
        rounds = range(number[wanted].max(initial=0) + 1)
        wanted = np.unique(np.concatenate([wanted[number[wanted] >= back] - back for back in rounds]))
        log_taste = np.asarray(draws.log_taste + read.evidence(pieces.before(pieces.first[wanted], MOST_PIECES)))
        found, gone = np.zeros((data.log.num_events, 3)), np.zeros(len(pieces.first), np.float32)
        for earlier in rounds:
            now = np.flatnonzero(number[wanted] == earlier)
            for first in range(0, len(now), _AT_A_TIME):
                batch = np.resize(now[first : first + _AT_A_TIME], _AT_A_TIME)
                logged, place, shown = read.padded(wanted[batch])
                left = gone[wanted[batch] - 1] if earlier else np.zeros(_AT_A_TIME, np.float32)
                begins = read.trust_at(wanted[batch])
                answers, gone_now = _filtered(
                    params.weights, read.items, draws, logged, read.shown, log_taste[batch], begins, left
                )
                found[place[shown]] = np.asarray(answers)[shown]
                gone[wanted[batch]] = gone_now
        return found[rows]

    def findings(self, params: LatentParams) -> list[str]:
        """Returns whether the shop knew more of its users than the log tells, where the fit was asked to find out."""
        if self.config.exposures != AUTO or not counts_exposures(params.weights):
            return []
        return [
            "what was shown is evidence of what users like: the shop knew more of them than the log tells, so that "
            "probabilities of what it showed, fitted to the log, are wrong (simulator.exposures)"
        ]

    def _draws(self, params: LatentParams) -> Draws:
        return draw_users(
            params.weights, jax.random.key(0), self.config.posterior_tastes, self.config.posterior_interests
        )

    def _read(self, params: LatentParams, data: SessionData, rows: np.ndarray) -> _ReadLog:
        """Returns the log as fitted users see it, for questions about the users of rows."""
        pieces, items = LoggedPieces(data.log), items_of(params.weights, params.embedding)
        shown = clicks = None
        if counts_exposures(params.weights):
            log_share = log_shares(data.log.item[data.rows("train")], data.log.num_items)
            shown = shown_items(jnp.asarray(log_share), jax.random.key(0))
            clicks = pieces.clicks_before()
        of_users = np.flatnonzero(np.isin(pieces.user, data.log.user[rows]))
        return _ReadLog(params.weights, items, self._draws(params), pieces, of_users, shown, clicks)

    def _drawn(
        self, params: LatentParams, items: LatentItems, draws: Draws, log_weight: jax.Array, trust: jax.Array
    ) -> SessionUsers:
        """Draws a taste by weights [S, M], with its trust of [S, M], and an interest from the prior, by session."""
        taste_key, interest_key = jax.random.split(jax.random.key(1))
        chosen = jax.random.categorical(taste_key, log_weight)
        taste, trust = draws.taste[chosen], jnp.take_along_axis(trust, chosen[:, None], 1)[:, 0]
        weights = params.weights
        component_key, noise_key = jax.random.split(interest_key)
        component = jax.random.categorical(component_key, weights.interest_share, shape=(len(log_weight),))
        noise = jax.random.normal(noise_key, (len(log_weight), weights.interest.shape[1]))
        interest = weights.interest[component] + jnp.exp(weights.interest_spread) * noise
        return SessionUsers(weights, items, taste, interest, trust)


def _click_of_present(weights: LatentWeights, user: LatentUser, item: LatentItems) -> jax.Array:
    """Returns the chance of a click of a user who is there."""
    taste = taste_term(weights, user.state, item, user.taste)
    return jax.nn.sigmoid(taste + interest_term(user.state, item, user.interest))


@dataclass(frozen=True)
class _ReadLog:
    """A log as users with some weights see it.

    Attributes:
        weights, items, draws: The users.
        pieces: The log's sessions.
        of_users: [p] int which of them are of the users in question.
        shown: What the training part shows to anybody; None: what is shown is no evidence.
        clicks: [P, 32] clicks before each piece, likewise.
    """

    weights: LatentWeights
    items: LatentItems
    draws: Draws
    pieces: LoggedPieces
    of_users: np.ndarray
    shown: ShownItems | None
    clicks: np.ndarray | None

    def padded(self, numbers: np.ndarray) -> tuple[Pieces, np.ndarray, np.ndarray]:
        """Returns pieces as `LoggedPieces.padded` does."""
        return self.pieces.padded(numbers, self.clicks)

    def evidence(self, before: np.ndarray) -> jax.Array:
        """Returns [r, M] log p(answers in pieces [r, most], and what was shown if it counts | taste); -1: no piece."""
        needed = np.unique(before[before >= 0])
        if not len(needed):
            return jnp.zeros((len(before), len(self.draws.taste)))
        parts = []
        for first in range(0, len(needed), _AT_A_TIME):
            batch = np.resize(needed[first : first + _AT_A_TIME], _AT_A_TIME)
            (logged, _, _), begins = self.padded(batch), self.trust_at(batch)
            found = _log_likelihoods(self.weights, self.items, self.draws, logged, begins, self.shown)
            parts.append(jax.tree.map(np.asarray, found))
        of_piece = jax.tree.map(lambda *of: np.concatenate(of), *parts)
        place = np.minimum(np.searchsorted(needed, before), len(needed) - 1)
        of_user = jax.tree.map(lambda column: jnp.asarray(column[place]), of_piece)
        return log_likelihood_of_users(only_those(of_user, jnp.asarray(before >= 0)))

    def trust_at(self, numbers: np.ndarray) -> np.ndarray:
        """Returns [p, M] the trust with which pieces of the users in question begin, by taste."""
        return self._trust[0][np.searchsorted(self.of_users, numbers)]

    def trust_after(self, before: np.ndarray) -> np.ndarray:
        """Returns [r, M] the trust after the last of pieces [r, most], where -1 is none: 0 without one."""
        last = before[np.arange(len(before)), np.maximum(np.sum(before >= 0, 1) - 1, 0)]
        ends = self._trust[1][np.searchsorted(self.of_users, np.maximum(last, self.of_users[0]))]
        return np.where((last >= 0)[:, None], ends, 0)

    @cached_property
    def _trust(self) -> tuple[np.ndarray, np.ndarray]:
        """[p, M] the trust with which each of the pieces `of_users` begins and ends."""
        number, maps = len(self.of_users), []
        for first in range(0, number, _AT_A_TIME):
            batch = np.resize(self.of_users[first : first + _AT_A_TIME], _AT_A_TIME)
            found = _trust_maps(self.weights, self.items, self.draws, self.pieces.padded(batch)[0])
            maps.append(jax.tree.map(np.asarray, found))
        of_piece = jax.tree.map(lambda *of: np.concatenate(of)[:number], *maps)
        # One piece of every user after another; what was answered after a session began does not count for it.
        begins, ends = (np.zeros_like(of_piece.shift) for _ in range(2))
        follows = self.pieces.number_in_session[self.of_users] > 0
        complete = self.pieces.complete_at[self.of_users]
        begun = self.pieces.log.shown_at[self.pieces.first[self.of_users]]
        for last, now in self.pieces.in_turn(self.of_users):
            if last is not None:
                known = follows[now] | (complete[last] < begun[now])
                trust = np.where(known[:, None], ends[last], begins[last])
                begins[now] = between(self.weights.trust, jnp.asarray(trust), jnp.asarray(follows[now]))
            ends[now] = jax.tree.map(lambda array, now=now: array[now], of_piece)(begins[now])
        return begins, ends


_trust_maps = jax.jit(trust_maps)


@jax.jit
def _log_likelihoods(
    weights: LatentWeights,
    items: LatentItems,
    draws: Draws,
    pieces: Pieces,
    trust: jax.Array,
    shown: ShownItems | None,
) -> PieceLikelihood:
    exposures = None if shown is None else log_chances_of_shown(weights, items, draws, pieces, shown)
    return log_likelihoods(weights, items, draws, pieces, trust, exposures)


@jax.jit
def _filtered(
    weights: LatentWeights,
    items: LatentItems,
    draws: Draws,
    pieces: Pieces,
    shown: ShownItems | None,
    log_taste: jax.Array,
    trust: jax.Array,
    left: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns probabilities of the answers of pieces, each given those before it in the piece, and who is gone.

    Args:
        log_taste: [S, M] log-weights of the tastes.
        trust: [S, M] with which the pieces begin.
        left: [S] chance that the user left in an earlier piece of the session.

    Returns:
        [S, T, 3] probabilities; [S] that chance when the piece ends.
    """

    def along(piece: Pieces, log_taste: jax.Array, trust: jax.Array, left: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = jax.tree.map(lambda column: column[piece.item], items)
        follows = piece.before[0] >= 0
        # Where what is shown is evidence, it is known before the answer.
        chances_of_shown = jnp.zeros((len(piece.item), 1, 1))
        if shown is not None:
            chances_of_shown = log_chances(weights, items, draws, piece, shown)

        def step(carry: tuple[LatentState, jax.Array, jax.Array], row: Any) -> tuple[Any, jax.Array]:
            (state, log_weight, gone), (item, feedback, shown, of_shown) = carry, row
            log_weight += shown * of_shown
            terms: Terms = terms_at(weights, draws, state, item)
            # Some leave.
            hazard = jnp.where(shown & (follows | (state.step > 0)), jax.nn.sigmoid(terms.hazard), 0.0)
            gone = gone + (1 - gone) * hazard
            logit = terms.taste[:, None] + terms.interest
            share, click = jax.nn.softmax(log_weight.ravel()).reshape(log_weight.shape), jax.nn.sigmoid(logit)
            clicks = jnp.sum(share * click)
            orders = jnp.sum(share * click * jax.nn.sigmoid(terms.order)[:, None])
            # The answer as evidence of what comes next.
            clicked, ordered = feedback >= CLICK, feedback >= ORDER
            given_click = jax.nn.log_sigmoid(jnp.where(ordered, terms.order, -terms.order))
            answer = jax.nn.log_sigmoid(jnp.where(clicked, logit, -logit)) + clicked * given_click[:, None]
            state = next_state(weights, state, item, draws.taste, clicked.astype(jnp.float32))
            skipped = gone / (gone + (1 - gone) * (1 - clicks))
            known = jnp.where(shown, jnp.where(clicked, 0.0, skipped), gone)
            chances = (1 - gone) * jnp.stack([1 - clicks, clicks - orders, orders]) + gone * jnp.eye(3)[SKIP]
            return (state, log_weight + shown * answer, known), chances

        state = first_state(weights, trust, piece.before)
        first = state, log_taste[:, None] + draws.log_interest, left
        (_, _, gone), found = jax.lax.scan(step, first, (rows, piece.feedback, piece.shown, chances_of_shown))
        return found, gone

    return jax.vmap(along)(pieces, log_taste, trust, left)
