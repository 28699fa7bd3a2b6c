"""Pre-training of the encoder: it learns, it touches nothing else, and its episodes are random but informative."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from hand_made import hand_made_ratings
from sim.envs.rating_env import EnvConfig, make_env_params, make_rating_env
from sim.generators import ratings as synthetic
from sim.tables.ratings import RatingData
from tpgr_jax.agents.encoder_pretraining import pretrain_encoder, random_script
from tpgr_jax.agents.tree_policy import PolicyConfig, make_tree_policy
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering

LENGTH, STEPS = 8, 60
TRAINING_USERS = np.arange(160)


class Pretrained(NamedTuple):
    """Parameters before and after, and the loss of each update."""

    before: Any
    after: Any
    losses: list[float]


@pytest.fixture(scope="module")
def data() -> RatingData:
    return synthetic.generate("tiny")


def pretrain(data: RatingData, train_embedding: bool, steps: int) -> Pretrained:
    config = EnvConfig(
        alpha=0.1,
        episode_length=LENGTH,
        reward_scale="half_open",
        cold_start="policy",
        allow_repeats=False,
        rating_layout="dense",
        dense_limit_mb=1.0,
    )
    networks = PolicyConfig(
        hidden=[4],
        embedding_size=8,
        state_hidden=16,
        embedding="random",
        embedding_epochs=1,
        train_embedding=train_embedding,
        status_in_rnn=True,
        count_prior=True,
        encoder_pretrain_steps=steps,
    )
    tree = build_tree(data.num_items, 2, make_clustering("random", None, 0))
    policy = make_tree_policy(networks, tree)
    params = jax.jit(policy.init)(jax.random.key(0))
    before = jax.tree.map(lambda leaf: np.array(leaf, copy=True), params)
    after, losses = pretrain_encoder(
        policy.network.encoder,
        params,
        make_rating_env(config, data),
        make_env_params(config, data, TRAINING_USERS, 3),
        data,
        TRAINING_USERS,
        steps=steps,
        episodes=64,
        seed=0,
    )
    for leaf, kept in zip(jax.tree.leaves(before), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(leaf, kept)  # the caller's parameters stay usable
    return Pretrained(before, jax.device_get(after), losses)


@pytest.fixture(scope="module")
def pretrained(data: RatingData) -> Pretrained:
    return pretrain(data, train_embedding=True, steps=STEPS)


def test_the_loss_falls_clearly(pretrained: Pretrained) -> None:
    assert len(pretrained.losses) == STEPS
    assert np.all(np.isfinite(pretrained.losses))
    assert np.mean(pretrained.losses[-10:]) < 0.85 * np.mean(pretrained.losses[:10])


def test_only_the_encoder_changes(pretrained: Pretrained) -> None:
    assert jax.tree.structure(pretrained.before) == jax.tree.structure(pretrained.after)
    after = dict(jax.tree_util.tree_leaves_with_path(pretrained.after))
    for path, leaf in jax.tree_util.tree_leaves_with_path(pretrained.before):
        same = np.array_equal(leaf, after[path])
        assert same is not ("encoder" in jax.tree_util.keystr(path)), jax.tree_util.keystr(path)


def test_a_frozen_embedding_stays_frozen(data: RatingData) -> None:
    frozen = pretrain(data, train_embedding=False, steps=3)
    np.testing.assert_array_equal(frozen.before["encoder"]["item_embedding"], frozen.after["encoder"]["item_embedding"])
    assert np.any(frozen.before["encoder"]["gates"]["kernel"] != frozen.after["encoder"]["gates"]["kernel"])


def rated_items(data: RatingData, user: int) -> np.ndarray:
    return data.items[data.indptr[user] : data.indptr[user + 1]]


@pytest.mark.parametrize("length", [1, 7, 32, 100])
def test_random_scripts_have_valid_items_and_no_repeats(data: RatingData, length: int) -> None:
    users = np.random.default_rng(1).choice(TRAINING_USERS, 40)
    script = random_script(np.random.default_rng(0), data, users, length)
    assert script.shape == (40, length)
    assert script.dtype == np.int32
    assert script.min() >= 0
    assert script.max() < data.num_items
    for row in script:
        assert len(set(row)) == length


def test_about_half_of_a_random_script_is_rated_in_random_places() -> None:
    """Each user rates 30 of 600 items, so that hardly any uniformly drawn item is rated."""
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(20), 30)
    items = np.concatenate([np.arange(user * 30, user * 30 + 30) for user in range(20)])
    data = hand_made_ratings(users, items, generator.integers(1, 6, 600), 1, 5)
    drawn = np.arange(400) % 20
    script = random_script(generator, data, drawn, 16)
    rated = np.stack([np.isin(row, rated_items(data, user)) for row, user in zip(script, drawn, strict=True)])
    assert np.all(rated.sum(1) >= 8)
    assert 0.5 <= rated.mean() < 0.6
    assert np.all(np.abs(rated.mean(0) - 0.5) < 0.15)  # no place of the episode is preferred
    # Users who rated fewer items than half an episode contribute all of them.
    short = random_script(generator, data, drawn[:20], 120)
    for row, user in zip(short, drawn, strict=False):
        assert np.isin(rated_items(data, user), row).all()
        assert len(set(row)) == 120


def test_scripts_repeat_with_the_same_generator_only(data: RatingData) -> None:
    first, again, other = (
        random_script(np.random.default_rng(seed), data, TRAINING_USERS[:9], 12) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
