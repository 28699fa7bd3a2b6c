"""Generated logs with a known truth: its formulas by hand, a whole log replayed in NumPy, rates, times, seeds."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from quick_compilation import compiled

from harness.errors import UserError
from sim.envs.histories import Histories
from sim.generators import funnel_world
from sim.generators.funnel import generate_log
from sim.generators.funnel_truth import best_log_loss, truth_of_sessions
from sim.generators.funnel_users import FunnelModel, FunnelParams
from sim.generators.shop import shown_probabilities
from sim.tables.events import CLICK, ORDER, SHOPS, SKIP, EventLog, build_event_log, select_events

TABLE_1 = {"click": 843_249 / 8_596_852, "order": 46_022 / 8_596_852}
DAY_SECONDS = 24 * 60 * 60
NO_HISTORIES = Histories(*3 * [jnp.full((1,), -1, jnp.int32)])
MODEL = FunnelModel()
probabilities_of = jax.jit(MODEL.probabilities)
update_of = jax.jit(MODEL.update)


def unit(vector):
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def make_params(item, taste, curiosity, **others) -> FunnelParams:
    """The truth of one user by default without appeals, trust or biases."""
    settings = {
        "click_appeal": np.zeros(len(item)),
        "order_appeal": np.zeros(len(item)),
        "trust": [0.0],
        "click_bias": 0.0,
        "order_bias": 0.0,
    } | others
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in settings.items() if name != "length"}
    return FunnelParams(
        item=jnp.asarray(item, jnp.float32),
        taste=jnp.asarray([taste], jnp.float32),
        curiosity=jnp.asarray([curiosity], jnp.float32),
        length=jnp.asarray(settings.get("length", [60]), jnp.int32),
        **arrays,
    )


class Oracle:
    """One user in a session, after the formulas of the module's docstring, in double precision."""

    def __init__(self, params: dict, taste, curiosity, trust):
        self.params, self.taste, self.first, self.trust = params, taste, curiosity, trust
        self.curiosity, self.boredom = curiosity, np.zeros_like(curiosity)

    def logits(self, item):
        """The logits of a click, and of an order given a click."""
        p, e = self.params, self.params["item"][item]
        click = p["click_bias"] + 4 * self.curiosity @ e + 0.3 * self.taste @ e + 0.4 * p["click_appeal"][item]
        click += -1.5 * max(self.boredom @ e, 0) + 2.5 * self.trust
        return click, p["order_bias"] + 3 * self.taste @ e + 0.8 * p["order_appeal"][item] + 2 * self.trust

    def probabilities(self, item):
        click, order = scipy.special.expit(self.logits(item))
        return [1 - click, click * (1 - order), click * order]

    def answer(self, item, clicked):
        e = self.params["item"][item]
        moved = self.curiosity + 0.15 * clicked * e + 0.02 * e + 0.01 * (self.first - self.curiosity)
        self.curiosity = moved / math.sqrt(moved @ moved)
        self.boredom = 0.9 * self.boredom + 0.1 * e
        gain = 0.25 * clicked * (self.taste @ e - 0.35 + 0.1 * self.params["order_appeal"][item])
        self.trust = min(max(0.98 * self.trust + gain, -1), 1)


def test_the_first_steps_by_hand():
    params = make_params(
        [[1, 0], [0, 1], [0.6, 0.8]],
        taste=[0, 1],
        curiosity=[1, 0],
        click_appeal=[0.5, -1, 0],
        order_appeal=[-1, 2, 0.5],
        click_bias=-2.0,
        order_bias=-1.0,
    )
    user = MODEL.initial(params, jnp.int32(0))
    # Click logit -2 + 4 * 1 + 0 + 0.4 * 0.5 = 2.2; order logit -1 + 0 - 0.8 = -1.8.
    click, order = 1 / (1 + math.exp(-2.2)), 1 / (1 + math.exp(1.8))
    found = probabilities_of(params, user, NO_HISTORIES, jnp.int32(0))
    np.testing.assert_allclose(found, [1 - click, click * (1 - order), click * order], rtol=1e-5)
    np.testing.assert_allclose(found, [0.09975, 0.77255, 0.12770], atol=1e-5)
    user = update_of(params, user, jnp.int32(0), jnp.int32(CLICK))
    np.testing.assert_allclose(user.curiosity, [1, 0], atol=1e-6)  # (1.17, 0), at norm 1
    np.testing.assert_allclose(user.boredom, [0.1, 0], rtol=1e-6)
    np.testing.assert_allclose(user.trust, 0.25 * (0 - 0.35 - 0.1), rtol=1e-6)  # -0.1125
    # The same item again: 2.2 - 1.5 * 0.1 + 2.5 * -0.1125 = 1.76875; order -1.8 - 0.225.
    found = probabilities_of(params, user, NO_HISTORIES, jnp.int32(0))
    np.testing.assert_allclose(found[0], 1 / (1 + math.exp(1.76875)), rtol=1e-5)
    np.testing.assert_allclose(found[2] / (found[1] + found[2]), 1 / (1 + math.exp(2.025)), rtol=1e-5)
    user = update_of(params, user, jnp.int32(1), jnp.int32(SKIP))
    np.testing.assert_allclose(user.curiosity, np.array([1, 0.02]) / math.sqrt(1.0004), rtol=1e-5)
    np.testing.assert_allclose(user.boredom, [0.09, 0.1], rtol=1e-6)
    np.testing.assert_allclose(user.trust, 0.98 * -0.1125, rtol=1e-6)
    user = update_of(params, user, jnp.int32(1), jnp.int32(ORDER))  # an order is a click: u.e = 1, bo = 2
    np.testing.assert_allclose(user.trust, 0.98 * -0.11025 + 0.25 * (1 - 0.35 + 0.2), rtol=1e-5)
    moved = np.array([1, 0.02]) / math.sqrt(1.0004)
    moved = moved + 0.17 * np.array([0, 1]) + 0.01 * (np.array([1, 0]) - moved)
    np.testing.assert_allclose(user.curiosity, unit(moved), rtol=1e-5)


def test_boredom_with_the_opposite_costs_nothing():
    params = make_params([[1, 0], [-1, 0]], taste=[0, 1], curiosity=[0, 1])
    user = update_of(params, MODEL.initial(params, jnp.int32(0)), jnp.int32(0), jnp.int32(SKIP))
    bored = probabilities_of(params, user, NO_HISTORIES, jnp.int32(0))
    opposite = probabilities_of(params, user, NO_HISTORIES, jnp.int32(1))
    drift = 0.02 / math.hypot(1, 0.02)  # of curiosity towards item 0
    np.testing.assert_allclose(scipy.special.logit(1 - bored[0]), 4 * drift - 0.15, atol=1e-5)
    np.testing.assert_allclose(scipy.special.logit(1 - opposite[0]), -4 * drift, atol=1e-5)


def test_trust_stays_between_minus_one_and_one_and_rests_after_the_session():
    params = make_params([[1, 0]], [1, 0], [1, 0], order_appeal=[3.0], trust=[0.99], length=[2])
    user = MODEL.initial(params, jnp.int32(0))
    trust = []
    for _ in range(4):
        user = update_of(params, user, jnp.int32(0), jnp.int32(CLICK))
        trust.append(float(user.trust))
    assert trust == [1, 1, 1, 1]
    params = make_params([[1, 0]], [-1, 0], [1, 0], trust=[0.5], length=[2])
    user = MODEL.initial(params, jnp.int32(0))
    trust = []
    for _ in range(4):
        user = update_of(params, user, jnp.int32(0), jnp.int32(CLICK))
        trust.append(float(user.trust))
    # 0.49 - 0.3375 = 0.1525; 0.14945 - 0.3375 = -0.18805; then the session has ended.
    np.testing.assert_allclose(trust, [0.1525, -0.18805, -0.18805, -0.18805], rtol=1e-5)
    params = make_params([[1, 0]], [-1, 0], [1, 0], trust=[-0.9])
    user = update_of(params, MODEL.initial(params, jnp.int32(0)), jnp.int32(0), jnp.int32(CLICK))
    assert float(user.trust) == -1


@pytest.fixture(scope="module")
def log() -> EventLog:
    with compiled(optimised=True):
        return generate_log(size="tiny", seed=0)


def first_rows_of_users(log: EventLog) -> np.ndarray:
    return np.flatnonzero(np.diff(log.user, prepend=-1))


def truth(log: EventLog) -> dict[str, np.ndarray]:
    """The truth of a session of each user of a log, in double precision."""
    params = truth_of_sessions(log, first_rows_of_users(log))
    arrays = {field.name: np.asarray(getattr(params, field.name)) for field in dataclasses.fields(params)}
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def logged_curiosity(log: EventLog) -> np.ndarray:
    """[S, 50] the curiosity of each session of a log, in double precision."""
    generator = np.random.default_rng([funnel_world.GENERATOR_VERSION, log.generator["seed"]])
    world = funnel_world.draw_world(generator, log.generator["users"], log.generator["items"])
    _, key = jax.random.split(jax.random.key(log.generator["seed"]))
    user = log.user[log.session_starts()[:-1]]
    of_user = np.arange(len(user)) - np.searchsorted(user, user)  # sessions of a user are numbered in their order
    key = jax.random.fold_in(key, funnel_world.LOGGED)
    drawn = funnel_world.draw_curiosity(world.interests, key, jnp.asarray(log.user_ids[user]), jnp.asarray(of_user))
    return np.asarray(drawn, np.float64)


def test_the_formulas_in_fifty_dimensions_equal_the_oracle(log):
    found = truth(log)
    settings = {name: found[name] for name in ("item", "click_appeal", "order_appeal", "click_bias", "order_bias")}
    generator = np.random.default_rng(5)
    for user in range(3):
        params = make_params(taste=found["taste"][user], curiosity=found["curiosity"][user], **settings)
        hidden = MODEL.initial(params, jnp.int32(0))
        oracle = Oracle(settings, found["taste"][user], found["curiosity"][user], 0.0)
        for item, feedback in zip(generator.permutation(200)[:20].tolist(), generator.integers(0, 3, 20), strict=True):
            probabilities = np.asarray(probabilities_of(params, hidden, NO_HISTORIES, jnp.int32(item)))
            np.testing.assert_allclose(probabilities, oracle.probabilities(item), rtol=1e-4)
            np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-6)
            hidden = update_of(params, hidden, jnp.int32(item), jnp.int32(feedback))
            oracle.answer(item, feedback >= CLICK)
            np.testing.assert_allclose(hidden.curiosity, oracle.curiosity, atol=1e-5)
            np.testing.assert_allclose(hidden.boredom, oracle.boredom, atol=1e-6)
            np.testing.assert_allclose(hidden.trust, oracle.trust, atol=1e-5)


def test_a_whole_log_follows_the_formulas(log):
    # Replays every session from what was shown and clicked; trust lasts from session to session.
    found, curiosity = truth(log), logged_curiosity(log)
    starts = log.session_starts()
    trust = np.zeros(log.num_users)
    expected = np.empty((log.num_events, 3))
    for first, end in itertools.pairwise(starts):
        user = log.user[first]
        oracle = Oracle(found, found["taste"][user], curiosity[log.session[first]], trust[user])
        for row in range(first, end):
            expected[row] = oracle.probabilities(log.item[row])
            oracle.answer(log.item[row], log.feedback[row] >= CLICK)
        trust[user] = oracle.trust
    np.testing.assert_allclose(log.probabilities, expected, rtol=1e-3, atol=1e-6)


def test_the_truth_follows_items_and_users_that_are_numbered_anew(log):
    kept = (log.item % 3 != 0) & (log.user % 2 == 1)
    part = select_events(log, kept)
    order = np.random.default_rng(0).permutation(part.num_items)  # as the catalogue is put in another order
    part = dataclasses.replace(part, item=np.argsort(order)[part.item].astype(np.int32), item_ids=part.item_ids[order])
    users = np.array([3, 0, 3])
    found, full = truth_of_sessions(part, first_rows_of_users(part)[users]), truth(log)
    for name in ("item", "click_appeal", "order_appeal"):
        np.testing.assert_array_equal(getattr(found, name), full[name][part.item_ids])
    np.testing.assert_array_equal(found.taste, full["taste"][part.user_ids[users]])
    np.testing.assert_array_equal(found.trust, np.zeros(3))
    assert (float(found.click_bias), float(found.order_bias)) == (full["click_bias"], full["order_bias"])


def test_sessions_begin_with_the_trust_that_earlier_ones_have_left(log):
    """Orders after a click do not depend on curiosity, so that they are as in the log wherever a session begins."""
    rows = log.session_starts()[:-1]
    params = truth_of_sessions(log, rows)
    assert np.mean(np.asarray(params.trust) < -0.05) > 0.2
    begun = jax.vmap(MODEL.initial, (None, 0))(params, jnp.arange(len(rows)))
    played = jax.vmap(lambda user, item: MODEL.probabilities(params, user, NO_HISTORIES, item))(
        begun, jnp.asarray(log.item[rows], jnp.int32)
    )
    of_click, of_log = (chances[:, 2] / chances[:, 1:].sum(1) for chances in (played, log.probabilities[rows]))
    np.testing.assert_allclose(of_click, of_log, rtol=1e-3)
    # Whichever sessions are asked for, in whatever order, and several at one row.
    some = rows[[5, 2, 5]]
    np.testing.assert_array_equal(truth_of_sessions(log, some).trust, np.asarray(params.trust)[[5, 2, 5]])


def test_every_session_has_a_curiosity_of_its_own(log):
    logged = logged_curiosity(log)
    starts = log.session_starts()[:-1]
    rows = np.concatenate([starts, starts[:50], starts[:50]])
    played = np.asarray(truth_of_sessions(log, rows).curiosity, np.float64)
    everything = np.concatenate([logged, played])
    np.testing.assert_allclose(np.linalg.norm(everything, axis=1), 1, atol=1e-5)
    cosines = everything @ everything.T
    assert np.abs(cosines[~np.eye(len(cosines), dtype=bool)]).max() < 0.999
    # Two of one user are as far from each other as those of two users.
    same_user = (log.user[starts][:, None] == log.user[starts]) & ~np.eye(len(starts), dtype=bool)
    assert abs(cosines[: len(starts), : len(starts)][same_user].mean() - cosines.mean()) < 0.05
    # A session that begins at a row is the same whichever others are played beside it.
    np.testing.assert_array_equal(truth_of_sessions(log, starts[::-1]).curiosity[::-1], played[: len(starts)])


def test_items_and_users_are_what_the_docstring_says():
    generator = np.random.default_rng(1)
    params, interests, (item, cumulative) = funnel_world.draw_world(generator, 300, 3_000)
    np.testing.assert_array_equal(item, params.item)
    numbers = jnp.arange(300)
    curiosity = funnel_world.draw_curiosity(interests, jax.random.key(0), numbers, numbers)
    # A curiosity is nearest to one centre, at a cosine of about 1 / sqrt(1.25) = 0.894, and every centre has its turn.
    nearest = np.asarray(curiosity @ interests.centres.T)
    assert 0.8 < nearest.max(1).mean() < 0.95
    assert len(np.unique(nearest.argmax(1))) == 25
    for vectors in (params.item, params.taste, curiosity):
        assert vectors.shape[1] == 50
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # Half of the variance is shared by only 25 clusters, so that means vary by 0.14 and spreads by 0.07.
    click, order = np.asarray(params.click_appeal), np.asarray(params.order_appeal)
    for appeal in (click, order):
        assert abs(appeal.mean()) < 0.6
        assert 0.7 < appeal.std() < 1.3
    assert -0.3 < np.corrcoef(click, order)[0, 1] < 0.6
    # 25 clusters of items much nearer to each other (cosine 1 / 1.25 between two of them) than to most others.
    item = np.asarray(params.item)
    assert 1 / 40 < (item @ item.T > 0.6).mean() < 1 / 8
    # Dividing the appeals out of the popularity leaves rank^-0.7 of every rank once.
    weight = np.diff(np.asarray(cumulative, np.float64), prepend=0)
    rank = np.sort((weight**2 / np.exp(0.5 * click + 0.3 * order)) ** (-1 / 0.7))
    np.testing.assert_allclose(rank[:100], np.arange(1, 101), rtol=0.02)
    np.testing.assert_allclose(rank, np.arange(1, 3_001), rtol=0.2)  # weights are differences of float32 sums


def known_by_the_log(log: EventLog) -> np.ndarray:
    """[n, 50] the direction of the items that a user clicked before each row, from the log's columns alone."""
    vectors = truth(log)["item"]
    known = np.zeros((log.num_events, 50))
    for user in range(log.num_users):
        total = np.zeros(50)
        for row in np.flatnonzero(log.user == user):
            known[row] = total / max(np.linalg.norm(total), 1e-12)
            if log.feedback[row] >= CLICK:
                total = 0.9 * total + vectors[log.item[row]]
    return known


def shown_before(log: EventLog) -> np.ndarray:
    """[n, 60] the items shown before each row in its session, padded with -1."""
    shown = np.full((log.num_events, 60), -1)
    for first, end in itertools.pairwise(log.session_starts()):
        for row in range(first, end):
            shown[row, : row - first] = log.item[first:row]
    return shown


def test_what_the_seeing_shop_does_follows_from_the_log(log):
    generator = np.random.default_rng([funnel_world.GENERATOR_VERSION, log.generator["seed"]])
    catalogue = funnel_world.draw_world(generator, log.num_users, log.num_items).catalogue
    everything = np.arange(log.num_events)
    known = known_by_the_log(log).astype(np.float32)
    expected = shown_probabilities(catalogue, known, everything, log.item, shown_before(log))
    np.testing.assert_allclose(log.shown_probability, expected, rtol=1e-4)
    # It does look: what it shows fits what it knows, better than all items do.
    vectors = truth(log)["item"]
    fit = np.sum(known * vectors[log.item], 1)[np.any(known != 0, 1)]
    assert fit.mean() > (known @ vectors.mean(0)).mean() + 0.1


@pytest.fixture(scope="module")
def blind() -> EventLog:
    with compiled(optimised=True):
        return generate_log(size="tiny", seed=0, shop="blind")


@pytest.mark.parametrize(
    "shop", [pytest.param(shop, marks=pytest.mark.long) if shop == "reads_minds" else shop for shop in SHOPS]
)
def test_inverse_propensity_weights_average_to_one(shop, log, blind):
    if shop != "seen":
        log = blind if shop == "blind" else generate_log(size="tiny", seed=2, shop=shop, num_users=60)
    assert log.shown_probability.dtype == np.float32
    p = log.shown_probability.astype(np.float64)
    before = np.arange(log.num_events) - log.session_starts()[log.session]
    left = log.num_items - before
    assert (p >= 0.1 / left * 0.9999).all()
    # Weighed so, what was shown stands for a uniform draw from what was left: all of it, or any half of the items.
    weight = 1 / (left * p)
    assert abs(weight.mean() - 1) < 4.5 * weight.std() / math.sqrt(len(p))
    half = np.random.default_rng(0).random(log.num_items) < 0.5
    gone = np.where(shown_before(log) >= 0, half[shown_before(log)], False).sum(1)
    difference = weight * half[log.item] - (half.sum() - gone) / left
    assert abs(difference.mean()) < 4.5 * difference.std() / math.sqrt(len(p))


def test_shops_write_different_logs_of_one_world(log, blind):
    for name in ("user", "session", "time"):
        np.testing.assert_array_equal(getattr(log, name), getattr(blind, name))
    np.testing.assert_array_equal(truth(log)["taste"], truth(blind)["taste"])
    assert not np.array_equal(log.item, blind.item)
    assert log.checksum != blind.checksum
    assert (log.generator["shop"], blind.generator["shop"]) == ("seen", "blind")


def test_probabilities_sum_to_one_and_rates_are_those_of_table_1(log):
    p = log.probabilities.astype(np.float64)
    assert (p > 0).all()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    # Orders are calibrated on the log itself. Clicks are on a pilot: its bias is exact to 0.02 (2 % of the rate), and
    # 600 sessions with about 4 clicks each, whose trust and taste differ, add 2 %.
    np.testing.assert_allclose(p[:, 2].mean(), TABLE_1["order"], rtol=1e-3)
    np.testing.assert_allclose(1 - p[:, 0].mean(), TABLE_1["click"], rtol=0.08)
    # The answers were drawn from these probabilities: 4.5 standard deviations of a sum of independent draws.
    for least in (CLICK, ORDER):
        chance = p[:, least:].sum(1)
        deviation = (log.feedback >= least).sum() - chance.sum()
        assert abs(deviation) < 4.5 * np.sqrt((chance * (1 - chance)).sum())
    # ... also where they are high, and where they are low.
    chance = p[:, 1:].sum(1)
    for part in np.array_split(np.argsort(chance), 10):
        deviation = (log.feedback[part] >= CLICK).sum() - chance[part].sum()
        assert abs(deviation) < 4.5 * np.sqrt((chance[part] * (1 - chance[part])).sum())


def test_no_item_comes_twice_in_a_session_and_sessions_are_long_enough(log):
    starts = log.session_starts()
    assert len({*zip(log.session.tolist(), log.item.tolist(), strict=True)}) == log.num_events
    lengths = np.diff(starts)
    assert (lengths.min(), lengths.max()) == (20, 60)
    assert 100 < log.num_events / log.num_users < 150
    assert (log.num_users, log.num_items) == (200, 200)
    assert (log.synthetic, log.synthetic_skips) == (True, False)


def test_every_user_trains_on_the_first_day_and_some_come_back_on_the_next(log):
    starts = log.session_starts()
    first, last = log.time[starts[:-1]], log.time[starts[1:] - 1]
    day = first // DAY_SECONDS
    np.testing.assert_array_equal(last // DAY_SECONDS, day)  # no session goes on past midnight
    first_day = day.min()
    assert set(day.tolist()) == {first_day, first_day + 1}
    owner = log.user[starts[:-1]]
    assert set(owner[day == first_day].tolist()) == set(range(200))
    assert 0.3 < len(np.unique(owner[day > first_day])) / 200 < 0.7
    same = owner[1:] == owner[:-1]
    assert (first[1:] > last[:-1])[same].all()  # the sessions of a user do not overlap
    inside = np.diff(log.session) == 0
    assert (np.diff(log.time)[inside] == 15).all()


def test_both_days_are_alike(log):
    # Table 1: 9.81 % clicks in training, 9.77 % in test. Here trust drifts a little and other users come: within a
    # fifth, of the true probabilities.
    starts = log.session_starts()
    second = (log.time // DAY_SECONDS) > log.time.min() // DAY_SECONDS
    click = log.probabilities[:, 1:].sum(1)
    assert 0.8 < click[second].mean() / click[~second].mean() < 1.2
    assert len(starts) > 600


def same(one: EventLog, other: EventLog) -> bool:
    arrays = (
        "user",
        "session",
        "time",
        "item",
        "feedback",
        "probabilities",
        "shown_probability",
        "user_ids",
        "item_ids",
    )
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)


def test_a_seed_gives_one_log_and_another_seed_another():
    # The smallest logs that can be generated; the size's own counts do not matter then.
    sizes = {"num_users": 10, "num_items": 100}
    one, again, other = (
        generate_log(size=size, seed=seed, **sizes) for size, seed in (("tiny", 3), ("tiny", 3), ("small", 4))
    )
    assert same(one, again)
    assert one.checksum == again.checksum
    assert not np.array_equal(one.feedback, other.feedback)
    assert not np.array_equal(one.item, other.item)
    assert one.checksum != other.checksum
    for log in (one, other):
        assert (log.num_users, log.num_items) == (10, 100)
        np.testing.assert_allclose(1 - log.probabilities[:, 0].mean(), TABLE_1["click"], rtol=0.5)
        np.testing.assert_allclose(log.probabilities[:, 2].mean(), TABLE_1["order"], rtol=1e-3)


def log_loss(probabilities, feedback):
    return float(np.mean([-math.log(row[answer]) for row, answer in zip(probabilities, feedback, strict=True)]))


def test_the_best_log_loss_is_that_of_the_truth(log):
    rows = np.arange(0, log.num_events, 3)
    p, answers = log.probabilities[rows].astype(np.float64), log.feedback[rows]
    best = best_log_loss(log, rows)
    np.testing.assert_allclose(best, log_loss(p, answers), rtol=1e-6)
    base = np.bincount(answers, minlength=3) / len(rows)
    assert best < log_loss(np.tile(base, (len(rows), 1)), answers)
    # Every difference below is over 4 standard deviations of this many draws.
    generator, shift = np.random.default_rng(0), np.array([0.0, 0.5, 0.5])
    perturbed = [
        p[generator.permutation(len(rows))],
        scipy.special.softmax(np.log(p) * 0.7, axis=1),
        scipy.special.softmax(np.log(p) * 1.5, axis=1),
        scipy.special.softmax(np.log(p) + shift, axis=1),
        scipy.special.softmax(np.log(p) - shift, axis=1),
        scipy.special.softmax(np.log(p) + generator.normal(size=p.shape), axis=1),
    ]
    for other in perturbed:
        assert best < log_loss(other, answers)


def test_the_best_log_loss_by_hand():
    columns = {"users": np.zeros(3, int), "items": np.arange(3), "times": np.arange(3), "feedback": np.array([0, 1, 2])}
    columns |= {"sessions": None, "session_gap": 100.0, "checksum": "none"}
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.25, 0.65], [0.9, 0.1, 0.0]])
    log = build_event_log(name="log", source="hand-made", probabilities=p, **columns)
    np.testing.assert_allclose(best_log_loss(log, np.array([0, 1])), (math.log(2) + math.log(4)) / 2, rtol=1e-6)
    assert best_log_loss(log, np.array([1])) == pytest.approx(math.log(4))
    assert math.isfinite(best_log_loss(log, np.array([2])))  # an impossible answer costs much, not everything
    assert best_log_loss(dataclasses.replace(log, probabilities=None), np.array([0])) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": "medium"}, "data.size is 'medium'"),
        ({"size": "tiny", "shop": "sees"}, "data.shop is 'sees'"),
        ({"size": "tiny", "num_users": 9}, "data.num_users"),
        ({"size": "tiny", "num_items": 99}, "data.num_items"),
    ],
)
def test_impossible_logs_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        generate_log(seed=0, **settings)
