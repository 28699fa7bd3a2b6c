"""KuaiRec's small matrix, where all answers are known, as the environment of both systems; "not rated = 0" there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kuairec_files import BIG, SMALL, watch_ratios, write_matrix

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from hrlmg_jax.problem import load_data, make_env, true_env_params, true_users_of
from hrlmg_jax.settings import RunConfig
from sim.datasets.events import load_log
from sim.datasets.log_settings import LogConfig
from sim.datasets.rating_settings import DataConfig
from sim.datasets.ratings import load_dataset
from sim.envs.fixed_policies import scripted_policy
from sim.envs.rating_env import EnvConfig, make_env_params, make_rating_env
from sim.envs.rollout import rollout
from sim.tables.ratings import hide_ratings

USERS, ITEMS = 12, 20
RATIOS = watch_ratios(USERS, ITEMS)
CODE = {0.1: 1, 0.3: 2, 0.7: 3, 1.2: 4, 2.5: 5}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_matrix(folder, SMALL, RATIOS, without_time=3)
    sparse = np.where(np.random.default_rng(2).random(RATIOS.shape) < 0.3, RATIOS, np.nan)
    write_matrix(folder, BIG, sparse)
    return folder


def words(root, name, *more):
    return [f"data={name}", f"data.root={root}", f"data.cache={root / 'cache'}", *more]


def ratings(root, *more):
    values = composed_values("data_statistics", words(root, "kuairec_ratings", *more))["data"]
    config = read_settings(DataConfig, values, "data")
    return config, load_dataset(config)


def test_all_answers_are_ratings_by_how_long_was_watched(root):
    _, data = ratings(root)
    matrix = np.full((USERS, ITEMS), np.nan)
    matrix[np.repeat(np.arange(USERS), np.diff(data.indptr)), data.items] = data.rating_values[data.codes]
    expected = np.vectorize(lambda ratio: CODE.get(ratio, np.nan), otypes=[float])(RATIOS)
    np.testing.assert_array_equal(matrix, expected)
    assert (data.rating_min, data.rating_max) == (1, 5)


def play_ratings(data, script):
    settings = EnvConfig(
        alpha=0.0,
        episode_length=script.shape[1],
        reward_scale="half_open",
        cold_start="policy",
        allow_repeats=False,
        rating_layout="dense",
        dense_limit_mb=1,
    )
    users = np.arange(USERS)
    params = make_env_params(settings, data, users, 4.0)
    env = make_rating_env(settings, data)
    return rollout(env, params, scripted_policy(), script, jnp.arange(USERS), jax.random.key(0), False)


def test_what_is_hidden_is_not_rated_and_earns_nothing(root):
    config, full = ratings(root)
    _, hidden = ratings(root, "data.hidden_share=0.5")
    train, test = config.split(USERS)
    assert len(test)
    number = np.diff(full.indptr)
    np.testing.assert_array_equal(np.diff(hidden.indptr)[test], number[test])
    np.testing.assert_array_equal(np.diff(hidden.indptr)[train], number[train] - number[train] // 2)
    assert hidden.table_hash != full.table_hash
    # Every item to everyone: test users answer in full, training users to what is known of them.
    script = jnp.tile(jnp.arange(ITEMS, dtype=jnp.int32), (USERS, 1))
    truth, seen = (np.asarray(play_ratings(data, script).reward).T for data in (full, hidden))
    expected = np.vectorize(lambda ratio: 2 * CODE.get(ratio, 2.5) / 5 - 1, otypes=[float])(RATIOS)
    np.testing.assert_allclose(truth, expected, atol=1e-6)
    np.testing.assert_array_equal(seen[test], truth[test])
    known = np.zeros((USERS, ITEMS), bool)
    known[np.repeat(np.arange(USERS), np.diff(hidden.indptr)), hidden.items] = True
    np.testing.assert_array_equal(seen, np.where(known, truth, 0))


def test_hidden_ratings_of_a_user_do_not_depend_on_others(root):
    _, data = ratings(root)
    some, more = hide_ratings(data, np.array([3]), 0.7, 5), hide_ratings(data, np.array([1, 3, 4]), 0.7, 5)
    for hidden in (some, more):
        np.testing.assert_array_equal(hidden.items[slice(*hidden.indptr[3:5])], some.items[slice(*some.indptr[3:5])])
    nearly = hide_ratings(data, np.arange(USERS), 0.999, 0)
    assert (np.diff(nearly.indptr) == 1).all()  # nobody is left without any


def test_a_log_of_everything_knows_its_users(root):
    settings = ["simulator.held_out_fraction=0.3", "env.users=truth", "env.episode_length=10"]
    config = read_settings(RunConfig, composed_values("train_hrl_mg", words(root, "kuairec_small", *settings)))
    data = load_data(config.fit())
    log = data.log
    assert log.complete
    assert log.knows_users
    known = USERS * ITEMS - 1 - 3  # a pair that nobody knows, and rows without a time
    assert log.num_events == known
    assert f"{known / (USERS * ITEMS):.2%} of all pairs" in log.notes[-1]
    # Everyone gets all items of the catalogue, and answers as in the file.
    rows = data.first_rows("test")[:4]
    env = make_env(config.env, true_users_of(data), data.num_items)
    items = np.arange(data.num_items, dtype=np.int32)
    script = jnp.asarray(np.tile(items, (len(rows), 1)))
    played = rollout(
        env, true_env_params(data, rows), scripted_policy(), script, jnp.arange(len(rows)), jax.random.key(0), True
    )
    users, videos = (log.user_ids[log.user[rows]] - 4) // 10, log.item_ids[items] - 100
    shown = {(int(u), int(i)) for u, i in zip(log.user_ids[log.user], log.item_ids[log.item], strict=True)}
    expected = [
        [RATIOS[user, video] == 2.5 and (10 * user + 4, video + 100) in shown for video in videos] for user in users
    ]
    np.testing.assert_array_equal(np.asarray(played.feedback).T, np.asarray(expected, int))


def test_a_log_of_some_answers_is_not_complete(root):
    values = composed_values("data_statistics", words(root, "kuairec", "data.complete=true", "data.min_item_events=1"))
    with pytest.raises(UserError, match="at least 90% make a log complete"):
        load_log(read_settings(LogConfig, values["data"], "data"))
