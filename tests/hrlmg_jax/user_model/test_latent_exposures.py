"""What a shop showed as evidence of latent users: its chances and what it knew by loops, posteriors by enumeration."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from latent_toys import SMALL, a_returning_user, enumerated, log_share, sessions_of, some_weights, trust_left
from scipy.special import expit, logsumexp

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from hrlmg_jax.problem import load_data
from hrlmg_jax.user_model.item_embedding import embed_items
from hrlmg_jax.user_model.latent import fit as fitting
from hrlmg_jax.user_model.latent.exposures import ShownItems, counts_exposures, log_chances, log_shares, shown_items
from hrlmg_jax.user_model.latent.fit import FURTHER, _make_world, fit_latent
from hrlmg_jax.user_model.latent.likelihood import ExposureWeights, LatentParams, draw_users, items_of
from hrlmg_jax.user_model.latent.logged_pieces import LoggedPieces
from hrlmg_jax.user_model.latent.users import MOST_PIECES, LatentUsers
from hrlmg_jax.user_model.settings import FitConfig
from sim.datasets.sessions import SessionData
from sim.tables.events import CLICK


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> FitConfig:
    cache = tmp_path_factory.mktemp("tables")
    words = [*SMALL, f"data.cache={cache}", "simulator.exposures=evidence"]
    return read_settings(FitConfig, composed_values("fit_simulator", words))


@pytest.fixture(scope="module")
def data(config) -> SessionData:
    return load_data(config)


@pytest.fixture(scope="module")
def toy(config, data) -> LatentParams:
    random = np.random.default_rng(1)
    embedding = jnp.asarray(random.standard_normal((data.log.num_items, 4)), jnp.float32)
    exposure = ExposureWeights(
        jnp.asarray([0.2, -0.06, 0.5]),
        jnp.float32(1.2),
        jnp.float32(-1.0),
        jnp.asarray(np.eye(4) + 0.3 * random.standard_normal((4, 4)), jnp.float32),
    )
    weights = some_weights(config, data.log.num_items)
    return LatentParams(dataclasses.replace(weights, exposure=exposure), embedding)


def shown_in(data: SessionData, key: int = 0) -> ShownItems:
    log_share = log_shares(data.log.item[data.rows("train")], data.log.num_items)
    return shown_items(jnp.asarray(log_share), jax.random.key(key))


def chances_of_shown(params: LatentParams, taste, interest, items, answers, clicks, shown) -> np.ndarray:
    """[T] log P(shows) - log q of one user along a session, by loops; clicks are the items clicked before, in order."""
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params.weights)
    embedding, clicks, found = np.asarray(params.embedding, np.float64), list(clicks), []
    vectors, memory = embedding @ w.exposure.turned, expit(w.exposure.memory)
    uniform = expit(w.exposure.uniform)
    of_interest = embedding @ w.to_interest + w.own_interest
    of_taste = embedding @ w.to_order + w.own_order
    a, b, g = w.exposure.sharpness
    for item, answer in zip(items, answers, strict=True):
        direction = sum((memory**k * vectors[one] for k, one in enumerate(clicks[::-1])), np.zeros(4))
        direction /= max(np.linalg.norm(direction), 1e-6)
        score = a * of_interest @ interest[:-1] + b * of_taste @ taste[:-1] + g * vectors @ direction
        share = np.exp(np.asarray(shown.log_share, float)[item])
        chosen = share * np.exp(score[item]) / np.mean(np.exp(score[np.asarray(shown.reference)]))
        found.append(np.log((uniform / len(embedding) + (1 - uniform) * chosen) / share))
        if answer >= CLICK:
            clicks.append(item)
    return np.asarray(found)


def clicks_before(data: SessionData, row: int) -> np.ndarray:
    """The items that the user of a row clicked before it, in order of time."""
    log = data.log
    earlier = np.flatnonzero((log.user == log.user[row]) & (log.shown_at < log.shown_at[row]))
    earlier = earlier[np.argsort(log.shown_at[earlier])]
    return log.item[earlier[log.feedback[earlier] >= CLICK]]


def test_clicks_before_pieces_are_those_of_loops(data):
    feedback = np.random.default_rng(0).integers(3, size=data.log.num_events)
    data = dataclasses.replace(data, log=dataclasses.replace(data.log, feedback=feedback))
    pieces = LoggedPieces(data.log)
    found = pieces.clicks_before()
    assert found.shape == (len(pieces.first), 32)
    assert (found[:, -1] >= 0).any()
    for first, clicks in zip(pieces.first, found, strict=True):
        wanted = clicks_before(data, first)[::-1][:32]
        np.testing.assert_array_equal(clicks[: len(wanted)], wanted)
        assert (clicks[len(wanted) :] == -1).all()


def test_chances_of_what_was_shown_are_those_of_loops(config, data, toy):
    pieces = LoggedPieces(data.log)
    *_, rows = sessions_of(data, a_returning_user(data))
    number = np.searchsorted(pieces.first, rows[:1])
    padded, _, _ = pieces.padded(number, pieces.clicks_before())
    draws = draw_users(toy.weights, jax.random.key(0), 2, 3)
    shown = shown_in(data, 3)
    items = items_of(toy.weights, toy.embedding)
    piece = jax.tree.map(lambda column: column[0], padded)
    found = np.asarray(log_chances(toy.weights, items, draws, piece, shown))[: len(rows)]
    clicks = clicks_before(data, rows[0])
    assert len(clicks)
    for m, taste in enumerate(np.asarray(draws.taste)):
        for j, interest in enumerate(np.asarray(draws.interest)):
            wanted = chances_of_shown(toy, taste, interest, data.log.item[rows], data.log.feedback[rows], clicks, shown)
            np.testing.assert_allclose(found[:, m, j], wanted, rtol=1e-4, atol=1e-4)


def test_items_are_drawn_as_often_as_they_are_shown():
    log_share = log_shares(np.asarray([0, 0, 0, 1]), 3)
    np.testing.assert_allclose(np.exp(log_share), np.asarray([3.5, 1.5, 0.5]) / 5.5, rtol=1e-6)
    drawn = np.asarray(shown_items(jnp.asarray(log_share), jax.random.key(0)).reference)
    assert np.mean(drawn == 0) == pytest.approx(3.5 / 5.5, abs=0.15)


def test_posterior_and_predictions_with_exposures_are_those_of_enumeration(config, data, toy):
    log, users = data.log, LatentUsers(config.simulator)

    def chances_along(rows: np.ndarray) -> np.ndarray:
        """[M, K, T] log-chances of what was shown in a session, by the components without spread."""
        clicks = clicks_before(data, rows[0])
        return np.asarray(
            [
                [
                    chances_of_shown(toy, taste, interest, log.item[rows], log.feedback[rows], clicks, shown_in(data))
                    for interest in np.asarray(toy.weights.interest)
                ]
                for taste in np.asarray(toy.weights.taste)
            ]
        )

    *earlier, last = sessions_of(data, a_returning_user(data))
    log_taste = log_share(toy.weights.taste_share)
    assert len(earlier) <= MOST_PIECES
    answered = [(log.item[rows], log.feedback[rows]) for rows in [*earlier, last]]
    for number, rows in enumerate(earlier):
        joint, _ = enumerated(toy, *answered[number], trust_left(toy, answered[:number]))
        log_taste = log_taste + logsumexp(
            joint + chances_along(rows).sum(-1) + log_share(toy.weights.interest_share), axis=1
        )
    drawn = users.in_sessions(toy, data, np.full(4000, last[0]))
    of_first = np.mean(np.abs(np.asarray(drawn.taste) - np.asarray(toy.weights.taste[0])).max(1) < 1e-4)
    wanted = np.exp(log_share(log_taste))[0]
    assert 0.02 < wanted < 0.98
    assert of_first == pytest.approx(wanted, abs=0.03)
    # Along the session, what is shown is known before its answer.
    weight, answers, of_shown = (
        log_taste[:, None] + log_share(toy.weights.interest_share),
        log.feedback[last],
        chances_along(last),
    )
    _, chances = enumerated(toy, *answered[-1], trust_left(toy, answered[:-1]))
    for step, found in enumerate(users.predict(toy, data, last, 10)):
        weight = weight + of_shown[:, :, step]
        share = np.exp(weight - logsumexp(weight))
        np.testing.assert_allclose(found, np.einsum("mk,mka->a", share, chances[:, :, step]), rtol=5e-3, atol=1e-5)
        weight = weight + np.log(chances[:, :, step, answers[step]])


def test_sampled_skips_are_no_evidence(config, data, toy):
    sampled = dataclasses.replace(data, log=dataclasses.replace(data.log, synthetic_skips=True))
    with pytest.raises(UserError, match="nobody was shown them") as caught:
        _make_world(config.simulator, sampled, np.asarray(toy.embedding))
    assert caught.value.where == "simulator.exposures=evidence"
    ignored = dataclasses.replace(config.simulator, exposures="ignored")
    assert _make_world(ignored, sampled, np.asarray(toy.embedding))[0].log_share is None


@pytest.fixture(scope="module")
def automatic(config, data, tmp_path_factory):
    """Settings, vectors, and folders of whole fits: with what was shown ignored, and with both compared."""
    settings = {kind: with_exposures(config, kind) for kind in ("ignored", "auto")}
    embedding = embed_items(config.simulator.embedding, data.log, data.rows("train"), 0)
    path = tmp_path_factory.mktemp("fits")
    folders = {kind: RunFolder(path / kind) for kind in settings}
    folders["ignored"].path.mkdir()
    params = {"ignored": fit_latent(settings["ignored"], data, embedding, folders["ignored"])}
    copied(folders["ignored"], folders["auto"].path)  # both begin alike
    params["auto"] = fit_latent(settings["auto"], data, embedding, folders["auto"])
    return settings, embedding, folders, params


def with_exposures(config: FitConfig, kind: str) -> FitConfig:
    return dataclasses.replace(config, simulator=dataclasses.replace(config.simulator, exposures=kind))


def held_out_losses(folder: RunFolder) -> list[float]:
    return [row["held_out_log_loss"] for row in read_rows(folder.metrics)]


def copied(folder: RunFolder, path) -> RunFolder:
    shutil.copytree(folder.path, path)
    return RunFolder(path)


def test_what_was_shown_counts_only_if_it_predicts_held_out_users_better(
    config, data, automatic, monkeypatch, tmp_path
):
    settings, embedding, folders, params = automatic
    further = RunFolder(folders["auto"].path / FURTHER)
    losses = [min(held_out_losses(folder)) for folder in (folders["auto"], further)]
    ignored = params["ignored"].weights
    for gain, counts in ((1 - losses[1] / losses[0] - 1e-4, True), (1 - losses[1] / losses[0] + 1e-4, False)):
        monkeypatch.setattr(fitting, "_LEAST_GAIN", gain)
        folder = copied(folders["auto"], tmp_path / str(counts))
        weights = fit_latent(settings["auto"], data, embedding, folder).weights
        assert counts_exposures(weights) == counts
        users = LatentUsers(settings["auto"].simulator)
        assert len(users.findings(LatentParams(weights, jnp.asarray(embedding)))) == counts
        if not counts:
            jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(weights, exposure=None), ignored)
            rows = data.rows("test")[:40]
            one, other = (
                LatentUsers(settings[kind].simulator).predict(LatentParams(found, embedding), data, rows, 10)
                for kind, found in (("auto", weights), ("ignored", ignored))
            )
            np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_a_comparison_that_was_killed_continues_bit_for_bit(config, data, automatic, tmp_path):
    settings, embedding, folders, params = automatic
    again = copied(folders["auto"], tmp_path / "again")
    shutil.rmtree(again.path / FURTHER)
    found = fit_latent(settings["auto"], data, embedding, again)
    jax.tree.map(np.testing.assert_array_equal, found, params["auto"])
    one, other = (held_out_losses(RunFolder(folder.path / FURTHER)) for folder in (folders["auto"], again))
    assert one == other


@pytest.mark.long
def test_a_comparison_without_hope_ends_half_way(config, data, automatic, monkeypatch, tmp_path):
    settings, embedding, folders, _ = automatic
    monkeypatch.setattr(fitting, "_HOPELESS", -1.0)
    again = copied(folders["auto"], tmp_path / "again")
    shutil.rmtree(again.path / FURTHER)
    fit_latent(settings["auto"], data, embedding, again)
    rows = [read_rows(RunFolder(folder.path / FURTHER).metrics) for folder in (folders["auto"], again)]
    assert [of[-1]["step"] for of in rows] == [3, 2]


def test_sampled_skips_are_not_compared(config, data, automatic, tmp_path):
    settings, embedding, folders, params = automatic
    sampled = dataclasses.replace(data, log=dataclasses.replace(data.log, synthetic_skips=True))
    folder = copied(folders["ignored"], tmp_path / "sampled")
    found = fit_latent(settings["auto"], sampled, embedding, folder)
    assert not (folder.path / FURTHER).exists()
    assert not counts_exposures(found.weights)
    jax.tree.map(
        np.testing.assert_array_equal, dataclasses.replace(found.weights, exposure=None), params["ignored"].weights
    )


@pytest.mark.long
@pytest.mark.parametrize(("shop", "hidden"), [("reads_minds", True), ("seen", False), ("blind", False)])
def test_what_a_shop_shows_is_evidence_where_it_knows_more_than_the_log(shop, hidden, tmp_path):
    words = [
        "simulator=latent",
        "data.size=tiny",
        "data.num_users=500",
        f"data.shop={shop}",
        "simulator.exposures=evidence",
    ]
    words += [f"data.cache={tmp_path}", "simulator.size=8", "simulator.train.steps=100"]
    config = read_settings(FitConfig, composed_values("fit_simulator", words))
    data = load_data(config)
    embedding = embed_items(config.simulator.embedding, data.log, data.rows("train"), 0)
    folder = RunFolder(tmp_path / "fit")
    folder.path.mkdir()
    interest, _, clicks = np.asarray(fit_latent(config, data, embedding, folder).weights.exposure.sharpness)
    assert (interest > 0.15) == hidden
    assert (clicks > 0.5) == (shop == "seen")
