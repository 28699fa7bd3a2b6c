"""Latent users: likelihood and posterior against enumeration, what stays, what they may know, the fit."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from latent_toys import (
    SMALL,
    a_returning_user,
    answer_probabilities,
    enumerated,
    hazards,
    left_at_each_step,
    log_share,
    sessions_of,
    some_weights,
    trust_left,
)
from scipy.special import logsumexp
from small_worlds import generated_log

from harness.runs.composition import composed_values
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from hrlmg_jax.problem import load_data
from hrlmg_jax.user_model.item_embedding import embed_items, told_by_others
from hrlmg_jax.user_model.latent import fit as fit_module
from hrlmg_jax.user_model.latent.fit import _make_world, fit_latent
from hrlmg_jax.user_model.latent.leaving import PieceLikelihood, log_likelihood_of_users
from hrlmg_jax.user_model.latent.likelihood import (
    LatentParams,
    Pieces,
    draw_users,
    items_of,
    log_likelihoods,
    softplus_of_sums,
    trust_maps,
)
from hrlmg_jax.user_model.latent.logged_pieces import LoggedPieces
from hrlmg_jax.user_model.latent.trust import trust_along
from hrlmg_jax.user_model.latent.users import MOST_PIECES, LatentUsers
from hrlmg_jax.user_model.settings import FitConfig
from sim.datasets.sessions import SessionData
from sim.generators.funnel import generate_log
from sim.tables.events import CLICK, ORDER, SKIP


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> FitConfig:
    cache = tmp_path_factory.mktemp("tables")
    return read_settings(FitConfig, composed_values("fit_simulator", [*SMALL, f"data.cache={cache}"]))


@pytest.fixture(scope="module")
def data(config) -> SessionData:
    return load_data(config)


@pytest.fixture(scope="module")
def toy(config, data) -> LatentParams:
    embedding = np.random.default_rng(1).standard_normal((data.log.num_items, 4)).astype(np.float32)
    return LatentParams(some_weights(config, data.log.num_items), jnp.asarray(embedding))


def piece_likelihoods(params: LatentParams, pieces, follows=False) -> PieceLikelihood:
    """What is computed of pieces (items, answers) of different sessions, or of one, padded to 7 steps."""
    padded = np.zeros((2, len(pieces), 7), np.int32)
    shown, before = np.zeros((len(pieces), 7), bool), np.full((len(pieces), 7), -1, np.int8)
    for number, piece in enumerate(pieces):
        padded[:, number, : len(piece[0])], shown[number, : len(piece[0])] = piece, True
        if follows and number:
            before[number] = pieces[number - 1][1]
    session = np.zeros(len(pieces), np.int32) if follows else np.arange(len(pieces), dtype=np.int32)
    logged = Pieces(*map(jnp.asarray, (*padded, shown, before, session)))
    draws = draw_users(params.weights, jax.random.key(0), 2, 3)
    return jax.jit(log_likelihoods)(
        params.weights, items_of(params.weights, params.embedding), draws, logged, jnp.zeros((len(pieces), 2))
    )


def test_softplus_of_sums_and_its_gradient_are_those_of_all_pairs():
    random = np.random.default_rng(0)
    first, second = jnp.asarray(random.normal(size=(3, 11, 2))), jnp.asarray(3 * random.normal(size=(3, 11, 4)))
    shown = jnp.asarray(np.arange(11) < [[11], [5], [0]], jnp.float32)

    def plain(first, second):
        return jnp.einsum("stmj,st->smj", jax.nn.softplus(first[..., None] + second[:, :, None]), shown)

    np.testing.assert_allclose(softplus_of_sums(first, second, shown), plain(first, second), rtol=1e-5)
    found = jax.grad(lambda *both: jnp.sum(jnp.sin(softplus_of_sums(*both, shown))), (0, 1))(first, second)
    wanted = jax.grad(lambda *both: jnp.sum(jnp.sin(plain(*both))), (0, 1))(first, second)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("answers", [[SKIP, ORDER, SKIP, SKIP, SKIP], [SKIP, ORDER, CLICK, SKIP, CLICK], [SKIP] * 5])
def test_the_likelihood_is_that_of_enumeration(toy, answers):
    items = np.asarray([3, 9, 4, 40, 7])
    found = log_likelihood_of_users(piece_likelihoods(toy, [(items, answers)]))
    joint, _ = enumerated(toy, items, answers)
    np.testing.assert_allclose(found, logsumexp(joint + log_share(toy.weights.interest_share), axis=1), rtol=1e-4)


def test_who_has_left_stays_away_in_the_rest_of_a_session_and_comes_back_for_the_next(toy):
    """Sessions of two or three pieces, against the sum over the step at which the user left."""
    items = np.asarray([3, 9, 4, 40, 7, 11, 12, 2, 5, 8, 1, 0, 6, 10, 15, 21, 13])
    log_share_of = log_share(toy.weights.interest_share)
    for answers in ([CLICK, *[SKIP] * 16], [*[SKIP] * 9, CLICK, *[SKIP] * 7], [*[SKIP] * 15, ORDER, SKIP]):
        pieces = [(items[first : first + 7], answers[first : first + 7]) for first in (0, 7, 14)]
        hazard = hazards(toy, answers)
        wanted = np.zeros(len(toy.weights.taste))
        for m, taste in enumerate(np.asarray(toy.weights.taste, float)):
            for left in range(len(items) + 1):
                here = np.prod(1 - hazard[:left]) * (hazard[left] if left < len(items) else 1)
                for number, piece in enumerate(pieces):  # each with an interest of its own
                    gone = np.arange(len(piece[0])) + 7 * number >= left
                    by_interest = [
                        answer_probabilities(toy, taste, interest, *piece)
                        for interest in np.asarray(toy.weights.interest, float)
                    ]
                    chances = np.where(gone[:, None], np.eye(3)[SKIP], by_interest)
                    here *= np.exp(log_share_of) @ chances[:, np.arange(len(gone)), piece[1]].prod(1)
                wanted[m] += here
        found = log_likelihood_of_users(piece_likelihoods(toy, pieces, follows=True))
        np.testing.assert_allclose(found, np.log(wanted), rtol=1e-4)
        # Of different sessions it is the product.
        apart = piece_likelihoods(toy, pieces)
        alone = [log_likelihood_of_users(jax.tree.map(lambda of, n=n: of[n : n + 1], apart)) for n in range(3)]
        np.testing.assert_allclose(log_likelihood_of_users(apart), sum(alone), rtol=1e-5)


def test_trust_goes_from_piece_to_piece(toy):
    """Of two users with three and two pieces, the second of which goes on with the first's session."""
    random, weights = np.random.default_rng(0), toy.weights.trust.at[4].set(1.5)
    params = dataclasses.replace(toy, weights=dataclasses.replace(toy.weights, trust=weights))
    items = random.integers(100, size=(2, 3, 7))
    answers = random.integers(3, size=items.shape)
    shown = np.arange(7) < np.asarray([[7, 7, 4], [7, 7, 0]])[..., None]
    shape = 6, 7
    blank = np.zeros(6, np.int32)
    columns = items.reshape(shape), answers.reshape(shape), shown.reshape(shape), np.full(shape, -1), blank
    draws = draw_users(params.weights, jax.random.key(0), 2, 3)
    maps = trust_maps(params.weights, items_of(params.weights, params.embedding), draws, Pieces(*columns))
    maps = jax.tree.map(lambda array: array.reshape(2, 3, *array.shape[1:]), maps)
    follows = np.asarray([[False, True, False]] * 2)
    found = trust_along(weights, maps, jnp.asarray(follows), jnp.asarray(shown.any(-1)))
    for user in range(2):
        pieces = [(items[user, piece][of], answers[user, piece][of]) for piece, of in enumerate(shown[user])]
        both = [np.concatenate(of) for of in zip(*pieces[:2], strict=True)]
        np.testing.assert_allclose(found[user, 0], 0)
        kept = 1 / (1 + np.exp(-float(weights[6])))
        np.testing.assert_allclose(kept * found[user, 1], trust_left(params, pieces[:1]), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found[user, 2], trust_left(params, [both]), rtol=1e-4, atol=1e-6)
    assert np.abs(np.asarray(found)).max() > 0.5


def test_gradients_are_finite_where_a_hazard_is_nearly_zero_or_one(toy):
    pieces = [(np.arange(7), [CLICK, *[SKIP] * 6]), (np.arange(7), [SKIP] * 7)]

    def value(leaving):
        params = dataclasses.replace(toy, weights=dataclasses.replace(toy.weights, leaving=leaving))
        return jnp.sum(log_likelihood_of_users(piece_likelihoods(params, pieces)))

    for full in (-30.0, 30.0):
        assert np.all(np.isfinite(jax.grad(value)(toy.weights.leaving.at[3].set(full))))
    never = dataclasses.replace(
        toy, weights=dataclasses.replace(toy.weights, leaving=toy.weights.leaving.at[3].set(-9))
    )
    of = piece_likelihoods(never, pieces)
    np.testing.assert_allclose(log_likelihood_of_users(of), of.stays.sum(0), rtol=1e-6)


def test_posterior_and_predictions_are_those_of_enumeration(config, data, toy):
    log = data.log
    *earlier, last = sessions_of(data, a_returning_user(data))
    log_taste = log_share(toy.weights.taste_share)
    assert len(earlier) <= MOST_PIECES
    answered = [(log.item[rows], log.feedback[rows]) for rows in [*earlier, last]]
    for number in range(len(earlier)):
        joint, _ = enumerated(toy, *answered[number], trust_left(toy, answered[:number]))
        log_taste = log_taste + logsumexp(joint + log_share(toy.weights.interest_share), axis=1)
    # Users drawn for many sessions that begin at the row.
    users = LatentUsers(config.simulator)
    drawn = users.in_sessions(toy, data, np.full(4000, last[0]))
    of_first = np.mean(np.abs(np.asarray(drawn.taste) - np.asarray(toy.weights.taste[0])).max(1) < 1e-4)
    wanted = np.exp(log_share(log_taste))[0]
    assert 0.02 < wanted < 0.98
    assert of_first == pytest.approx(wanted, abs=0.03)
    shares = [
        np.mean(np.abs(np.asarray(drawn.interest) - np.asarray(one)).max(1) < 1e-4) for one in toy.weights.interest
    ]
    np.testing.assert_allclose(shares, np.exp(log_share(toy.weights.interest_share)), atol=0.03)
    left = trust_left(toy, answered[:-1])
    assert np.abs(left[0] - left[1]) > 0.01
    is_first = np.abs(np.asarray(drawn.taste) - np.asarray(toy.weights.taste[0])).max(1) < 1e-4
    np.testing.assert_allclose(drawn.trust, np.where(is_first, *left), rtol=1e-4)
    # Predictions along the session, which filter.
    weight = log_taste[:, None] + log_share(toy.weights.interest_share)
    answers = log.feedback[last]
    _, chances = enumerated(toy, *answered[-1], trust_left(toy, answered[:-1]))
    for step, found in enumerate(users.predict(toy, data, last, 10)):
        share = np.exp(weight - logsumexp(weight))
        np.testing.assert_allclose(found, np.einsum("mk,mka->a", share, chances[:, :, step]), rtol=2e-3, atol=1e-5)
        weight = weight + np.log(chances[:, :, step, answers[step]])


def test_simulated_users_leave_as_the_likelihood_says(config, data, toy):
    """What a user answers next, along a session, against enumeration; after a click they are there for certain."""
    users = LatentUsers(config.simulator)
    params = users.in_sessions(toy, data, data.first_rows("test")[:4])
    user = users.initial(params, jnp.int32(2))
    items = np.asarray([3, 9, 4, 11, 7, 20, 31, 5])
    answers = np.asarray([SKIP, SKIP, CLICK, SKIP, SKIP, SKIP, SKIP, SKIP])
    trust = float(user.state.trust)
    assert trust
    of_present = answer_probabilities(toy, np.asarray(user.taste), np.asarray(user.interest), items, answers, trust)
    for step, (item, answer) in enumerate(zip(items, answers, strict=True)):
        wanted = [left_at_each_step(toy, of_present[: step + 1], [*answers[:step], one]).sum() for one in (0, 1, 2)]
        found = users.probabilities(params, user, None, jnp.int32(item))
        np.testing.assert_allclose(found, wanted / np.sum(wanted), rtol=1e-4)
        user = users.update(params, user, jnp.int32(item), jnp.int32(answer))
    assert user.there < 0.5


def test_a_prediction_in_a_long_session_knows_that_the_user_may_have_left(config, data, toy):
    """All sessions in one: pieces of 60, in the later of which hardly anything is expected after 60 skips."""
    log = generate_log(size="tiny", seed=0, num_users=20, num_items=100)
    rows = np.arange(150)
    answers = np.zeros_like(log.feedback)
    one = dataclasses.replace(
        log, session=np.zeros_like(log.session), is_test=np.zeros(1, bool), feedback=answers, user=0 * log.user
    )
    users = LatentUsers(config.simulator)

    def clicks(feedback) -> np.ndarray:
        changed = dataclasses.replace(one, feedback=feedback)
        return users.predict(toy, dataclasses.replace(data, log=changed), rows, 10)[:, CLICK:].sum(1)

    answers[58] = CLICK
    clicked_late = clicks(answers)
    answers[58] = SKIP
    skipped = clicks(answers)
    assert skipped[60] < 0.01 < 0.5 * clicked_late[60]
    assert skipped[149] < 1e-4


def test_no_simulated_answer_changes_who_the_user_is(config, data, toy):
    users = LatentUsers(config.simulator)
    params = users.in_sessions(toy, data, data.first_rows("test")[:4])
    first = user = users.initial(params, jnp.int32(2))
    for item, answer in ((3, CLICK), (9, ORDER), (4, SKIP)):
        user = users.update(params, user, jnp.int32(item), jnp.int32(answer))
    np.testing.assert_array_equal(user.taste, first.taste)
    np.testing.assert_array_equal(user.interest, first.interest)
    assert not np.allclose(user.state.moved, first.state.moved)


def test_users_know_nothing_of_what_comes_after_their_session_begins(config, data, toy):
    users, log = LatentUsers(config.simulator), data.log
    user = a_returning_user(data)
    *earlier, last = sessions_of(data, user)
    rows = np.full(64, last[0])

    def with_answers_turned(changed: np.ndarray) -> SessionData:
        feedback = log.feedback.copy()
        feedback[changed] = CLICK - np.minimum(feedback[changed], CLICK)
        return dataclasses.replace(data, log=dataclasses.replace(log, feedback=feedback))

    first = users.in_sessions(toy, data, rows)
    later = users.in_sessions(toy, with_answers_turned(last), rows)
    jax.tree.map(np.testing.assert_array_equal, first, later)
    before = users.in_sessions(toy, with_answers_turned(np.concatenate(earlier)), rows)
    assert not np.array_equal(first.taste, before.taste)
    # An answer to an earlier session that was given when the session had begun.
    late = earlier[0][log.feedback[earlier[0]] >= CLICK][:1]
    clicked_at = log.clicked_at.copy()
    clicked_at[late] = log.shown_at[rows[0]] + 1
    unknown = [
        dataclasses.replace(one, log=dataclasses.replace(one.log, clicked_at=clicked_at))
        for one in (data, with_answers_turned(late))
    ]
    one, other = (users.in_sessions(toy, changed, rows) for changed in unknown)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert not np.array_equal(one.trust, first.trust)
    # The same of the pieces that are looked at.
    pieces = LoggedPieces(log)
    seen = pieces.before(last[:1], MOST_PIECES)[0]
    assert set(log.session[pieces.first[seen[seen >= 0]]]) == {log.session[rows[0]] for rows in earlier}


def test_strangers_are_drawn_from_the_prior(config, toy):
    drawn = LatentUsers(config.simulator).of_strangers(toy, 4000)
    of_first = np.mean(np.abs(np.asarray(drawn.taste) - np.asarray(toy.weights.taste[0])).max(1) < 1e-4)
    assert of_first == pytest.approx(np.exp(log_share(toy.weights.taste_share))[0], abs=0.03)


@pytest.fixture(scope="module")
def fitted(config, data, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("fit"))
    embedding = embed_items(config.simulator.embedding, data.log, data.rows("train"), 0)
    return folder, embedding, fit_latent(config, data, embedding, folder)


@pytest.mark.long
def test_a_fit_that_was_killed_continues_bit_for_bit(config, data, fitted, tmp_path):
    folder, embedding, params = fitted
    again = RunFolder(tmp_path / "again")
    shutil.copytree(folder.path, again.path)
    for step in (4, 6):
        shutil.rmtree(again.checkpoints / str(step))
    jax.tree.map(np.testing.assert_array_equal, fit_latent(config, data, embedding, again), params)
    one, other = ([row["held_out_log_loss"] for row in read_rows(f.metrics)] for f in (folder, again))
    assert one == other


def test_a_fit_lowers_the_held_out_loss(fitted):
    losses = [row["held_out_log_loss"] for row in read_rows(fitted[0].metrics)]
    assert losses[-1] < losses[0]


def test_what_is_fitted_to_is_of_training_users(config, data):
    """The test part is replaced, and the answers of held-out users; what steps read stays."""
    log, random = data.log, np.random.default_rng(0)
    feedback = log.feedback.copy()
    for part in ("test", "held_out"):
        feedback[data.rows(part)] = random.permutation(feedback[data.rows(part)])
    other = dataclasses.replace(data, log=dataclasses.replace(log, feedback=feedback))
    embedding = np.random.default_rng(1).standard_normal((log.num_items, 4)).astype(np.float32)
    settings = dataclasses.replace(config.simulator, exposures="evidence")
    worlds = [_make_world(settings, one, embedding)[0] for one in (data, other)]
    jax.tree.map(np.testing.assert_array_equal, worlds[0].first, worlds[1].first)
    np.testing.assert_array_equal(worlds[0].log_share, worlds[1].log_share)
    mine = np.unique(np.asarray(worlds[0].of_user))
    mine = mine[mine >= 0]
    one, two = (jax.tree.map(lambda column: np.asarray(column)[mine], world.sessions) for world in worlds)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_users_are_fitted_with_item_vectors_that_others_tell_of(config, data):
    log, pieces = data.log, LoggedPieces(data.log)
    embedding = embed_items(config.simulator.embedding, log, data.rows("train"), 0)
    world, _ = _make_world(config.simulator, data, embedding)
    needed = np.unique(np.concatenate([pieces.by_user(data.rows(part), 5) for part in ("train", "held_out")]))
    halves = [pieces.user[needed[needed >= 0][np.asarray(half)[:, 0]]] for half in world.of_user]
    assert not np.intersect1d(*halves).size
    assert min(map(len, halves)) >= 20
    of_others = told_by_others(config.simulator.embedding, log, data.rows("train"), halves, embedding, 0)
    np.testing.assert_array_equal(world.of_others, of_others)


def test_of_many_held_out_users_some_say_when_the_fit_stops(config, data, monkeypatch):
    embedding = np.ones((data.log.num_items, 4), np.float32)
    settings = dataclasses.replace(config.simulator, exposures="ignored")
    everybody = len(np.unique(data.log.user[data.rows("held_out")]))
    assert len(_make_world(settings, data, embedding)[1]) == everybody > 3
    monkeypatch.setattr(fit_module, "ENOUGH_USERS", 3)
    assert len(_make_world(settings, data, embedding)[1]) == 3


def test_long_sessions_are_cut_into_pieces():
    log = generated_log()
    session = np.zeros_like(log.session)
    pieces = LoggedPieces(dataclasses.replace(log, session=session, is_test=np.zeros(1, bool)))
    np.testing.assert_array_equal(pieces.first, np.arange(0, log.num_events, 60))
    rows, shown = pieces.rows_of(np.arange(len(pieces.first)))
    np.testing.assert_array_equal(rows[shown], np.arange(log.num_events))
