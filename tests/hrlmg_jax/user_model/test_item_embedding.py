"""Item embeddings: what they must be of any log, and that they find what belongs together."""

import dataclasses

import hydra
import numpy as np
import pytest

from harness.errors import UserError
from harness.settings import read_settings
from hrlmg_jax.user_model.item_embedding import EmbeddingConfig, embed_items, told_by_others, turned_towards
from sim.datasets.events import load_log
from sim.datasets.log_settings import LogConfig
from sim.generators.funnel_truth import truth_of_sessions
from sim.tables.events import CLICK, ORDER, SKIP, EventLog, build_event_log

pytestmark = pytest.mark.optimised


def config(**changes) -> EmbeddingConfig:
    settings = {
        "size": 8,
        "together": "session",
        "skip_weight": 0.1,
        "click_weight": 1.0,
        "order_weight": 2.0,
        "spectrum_power": 2.0,
    }
    return read_settings(EmbeddingConfig, settings | changes, "simulator.embedding")


def make_log(rows: list[tuple]) -> EventLog:
    """A log of rows (user, session, item, feedback); items keep their numbers if all occur."""
    users, sessions, items, feedback = (np.array(column) for column in zip(*rows, strict=True))
    return build_event_log(
        name="hand-made",
        users=users,
        items=items,
        times=np.arange(len(rows)),
        feedback=feedback,
        sessions=sessions,
        session_gap=0.0,
        checksum="none",
        source="hand-made",
    )


FEEDBACK_OF = {0: lambda user: ORDER, 1: lambda user: CLICK if user % 2 else SKIP} | {
    item: lambda user: SKIP for item in range(2, 6)
}
NUM_ITEMS, GROUPS = 40, 4


@pytest.fixture(scope="module")
def grouped() -> EventLog:
    """Each session clicks items of one group (item mod 4) and skips any; each user has a session of every group."""
    generator = np.random.default_rng(0)
    rows = []
    for session in range(240):
        user, group = session // GROUPS, session % GROUPS
        clicked = generator.choice(NUM_ITEMS // GROUPS, 5, replace=False) * GROUPS + group
        rows += [(user, session, item, CLICK if item % 3 else ORDER) for item in clicked.tolist()]
        skipped = [item for item in generator.permutation(NUM_ITEMS).tolist() if item not in clicked][:8]
        rows += [(user, session, item, SKIP) for item in skipped]
    return make_log(rows)


def all_rows(log: EventLog) -> np.ndarray:
    return np.arange(log.num_events)


def nearest(vectors: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the most similar other rows of each row."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1)[:, :count]


@pytest.mark.parametrize("together", ["session", "user"])
@pytest.mark.parametrize("size", [1, 8, 60])
def test_every_item_has_unit_norm_and_unsupported_dimensions_are_zero(grouped, together, size):
    vectors = embed_items(config(size=size, together=together), grouped, all_rows(grouped), seed=0)
    assert vectors.shape == (NUM_ITEMS, size)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    # 40 items have at most 39 directions beyond that of popularity.
    assert (vectors[:, NUM_ITEMS - 1 :] == 0).all()


def test_items_that_share_sessions_are_near(grouped):
    vectors = embed_items(config(), grouped, all_rows(grouped), seed=0)
    group = grouped.item_ids % GROUPS
    assert (group[nearest(vectors, NUM_ITEMS // GROUPS - 1)] == group[:, None]).mean() > 0.95  # by chance 0.23
    # Users have all groups alike, so that nothing can be seen from what a user's sessions share.
    blind = embed_items(config(together="user"), grouped, all_rows(grouped), seed=0)
    assert (group[nearest(blind, NUM_ITEMS // GROUPS - 1)] == group[:, None]).mean() < 0.4


def test_the_last_coordinate_is_the_appeal_where_that_has_a_weight():
    # Item 0 is ordered by everyone, 1 clicked by half, the others skipped; all are shown 60 times.
    rows = [(user, user, item, FEEDBACK_OF[item](user)) for user in range(60) for item in range(6)]
    log = make_log(rows)
    plain = embed_items(config(size=4), log, all_rows(log), seed=0)
    vectors = embed_items(config(size=5, appeal_weight=0.5), log, all_rows(log), seed=0)
    mean = (5 * 60 + 30) / 360
    appeal = np.log((np.array([300, 30, 0, 0, 0, 0]) / mean + 50) / 110)
    appeal = np.clip(appeal / appeal.std(), -2.5, 2.5)
    expected = np.append(plain, 0.5 * appeal[:, None], axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert vectors[0, -1] > vectors[1, -1] > vectors[2, -1]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_the_appeal_is_that_of_the_training_rows(grouped):
    some = np.flatnonzero(grouped.session < 200)
    changed = dataclasses.replace(grouped, feedback=np.where(grouped.session < 200, grouped.feedback, ORDER))
    both = [embed_items(config(appeal_weight=0.5), log, some, seed=0) for log in (grouped, changed)]
    np.testing.assert_array_equal(*both)


def test_two_separate_circles_by_hand():
    # Sessions of items {0, 1} and {2, 3} in turn, and one of all four: beyond popularity, the singular vector with the
    # largest singular value has one sign for each pair.
    rows = [(0, session, item, CLICK) for session in range(6) for item in ([0, 1], [2, 3])[session % 2]]
    rows += [(0, 6, item, CLICK) for item in range(4)]
    vectors = embed_items(config(size=1), make_log(rows), np.arange(16), seed=0)
    assert vectors[0, 0] == vectors[1, 0] == -vectors[2, 0] == -vectors[3, 0]
    assert abs(vectors[0, 0]) == 1


def test_a_generated_shops_clusters_are_found(tables):
    with hydra.initialize_config_module("conf", version_base="1.3"):
        composed = hydra.compose("fit_simulator", ["data.size=tiny", f"data.cache={tables}"])
    log = load_log(read_settings(LogConfig, composed.data, "data"))
    true = np.asarray(truth_of_sessions(log, np.array([0])).item)
    cosine = true @ true.T
    off = ~np.eye(len(true), dtype=bool)
    for together in ("user", "session"):
        vectors = embed_items(config(size=50, together=together), log, all_rows(log), seed=0)
        similarity = vectors @ vectors.T
        near = np.take_along_axis(cosine, nearest(vectors, 5), axis=1).mean()
        assert near > 0.25 > 3 * cosine[off].mean()  # the best five have 0.8, five by chance 0.04
        # Items of one cluster have true cosines of about 0.8, others hardly ever over 0.6.
        assert similarity[off & (cosine > 0.6)].mean() > similarity[off & (cosine < 0.6)].mean() + 0.15


def test_only_the_given_rows_matter(grouped):
    training = np.flatnonzero(grouped.user < 40)
    expected = embed_items(config(), grouped, training, seed=3)
    generator = np.random.default_rng(1)
    item, feedback = grouped.item.copy(), grouped.feedback.copy()
    others = np.setdiff1d(all_rows(grouped), training)
    item[others] = generator.integers(0, NUM_ITEMS, len(others))
    feedback[others] = generator.integers(0, 3, len(others))
    changed = dataclasses.replace(grouped, item=item, feedback=feedback)
    np.testing.assert_array_equal(embed_items(config(), changed, training, seed=3), expected)
    assert not np.array_equal(embed_items(config(), changed, all_rows(grouped), seed=3), expected)


def test_the_seed_matters_little_and_repeats(grouped):
    one, again, other = (embed_items(config(size=3), grouped, all_rows(grouped), seed) for seed in (1, 1, 2**32 + 5))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=0.02)  # up to signs the same three directions


@pytest.mark.parametrize("how", ["without rows", "without weight"])
@pytest.mark.parametrize("together", ["session", "user"])
def test_items_that_nobody_touched_get_the_mean_direction(grouped, how, together):
    untouched = np.isin(np.arange(NUM_ITEMS), [0, 1, 5, 17, 39])
    if how == "without rows":
        settings, log = config(together=together), grouped
        rows = np.flatnonzero(~untouched[log.item])
    else:
        feedback = np.where(untouched[grouped.item], SKIP, grouped.feedback).astype(np.int8)
        settings, log = config(together=together, skip_weight=0.0), dataclasses.replace(grouped, feedback=feedback)
        rows = all_rows(log)
    vectors = embed_items(settings, log, rows, seed=0)
    mean = vectors[~untouched].astype(np.float64).mean(0)
    np.testing.assert_allclose(vectors[untouched], np.tile(mean / np.linalg.norm(mean), (5, 1)), atol=1e-5)


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 0, item, CLICK) for item in range(5)],  # one session
        [(0, session, 0, CLICK) for session in range(5)],  # one item
        [(0, session, item, CLICK) for session in range(2) for item in range(2)],
    ],
)
def test_logs_too_small_to_embed_are_refused(rows):
    log = make_log(rows)
    with pytest.raises(UserError, match="hand-made has too few sessions or items"):
        embed_items(config(), log, all_rows(log), seed=0)


def test_the_smallest_log_has_one_dimension():
    log = make_log([(0, session, item, CLICK) for session in range(3) for item in range(3) if item != session])
    vectors = embed_items(config(), log, all_rows(log), seed=0)
    np.testing.assert_allclose(np.abs(vectors), np.eye(1, 8).repeat(3, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 0),
        ("together", "day"),
        ("skip_weight", -0.1),
        ("order_weight", float("nan")),
        ("spectrum_power", -1.0),
    ],
)
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(UserError, match=rf"simulator\.embedding\.{key}"):
        config(**{key: value})


def test_some_feedback_must_have_a_weight():
    with pytest.raises(UserError, match="all 0"):
        config(skip_weight=0.0, click_weight=0.0, order_weight=0.0)


def test_vectors_are_turned_to_where_known_items_were():
    random = np.random.default_rng(0)
    settings = config(size=5, appeal_weight=0.5)
    before = random.normal(size=(9, 5))
    turn = np.linalg.qr(random.normal(size=(4, 4)))[0]
    now = np.concatenate([before[:, :4] @ turn, random.normal(size=(9, 1))], 1).astype(np.float32)
    turned = turned_towards(settings, now, np.arange(6), before[:6])
    np.testing.assert_allclose(turned[:, :4], before[:, :4], atol=1e-5)  # the three unknown ones as well
    np.testing.assert_array_equal(turned[:, 4], now[:, 4])  # the appeal stays


def test_each_half_of_the_users_gets_vectors_that_the_other_half_tells_of(grouped):
    rows, users = all_rows(grouped), np.unique(grouped.user)
    halves = np.array_split(np.random.default_rng(0).permutation(users), 2)
    embedding = embed_items(config(), grouped, rows, 0)
    found = told_by_others(config(), grouped, rows, halves, embedding, 0)
    assert found.shape == (2, NUM_ITEMS, 8)
    # Other answers of one half are other vectors for the other half, and for no one else.
    feedback, mine = grouped.feedback.copy(), np.isin(grouped.user, halves[0])
    feedback[mine] = np.random.default_rng(1).permutation(feedback[mine])
    changed = dataclasses.replace(grouped, feedback=feedback)
    again = told_by_others(config(), changed, rows, halves, embedding, 0)
    np.testing.assert_array_equal(again[0], found[0])
    assert np.abs(again[1] - found[1]).max() > 0.1
    # They are turned to where the vectors of all are.
    assert np.einsum("hje,je->hj", found, embedding).mean() > 0.9


def test_a_half_that_is_too_small_gives_the_vectors_of_all(grouped):
    rows = all_rows(grouped)
    embedding = embed_items(config(), grouped, rows, 0)
    halves = np.unique(grouped.user), np.asarray([], int)
    found = told_by_others(config(), grouped, rows, halves, embedding, 0)
    np.testing.assert_array_equal(found[0], embedding)
