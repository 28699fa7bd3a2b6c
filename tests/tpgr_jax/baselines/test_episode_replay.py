"""Episodes come back from memory as they were played."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_made import hand_made_ratings
from sim.envs.fixed_policies import random_policy
from sim.envs.rating_env import EnvConfig, Trajectory, make_env_params, make_rating_env, statuses
from sim.envs.rollout import rollout
from tpgr_jax.baselines.episode_replay import add_episodes, make_episode_replay, sample_episodes

T = 6


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    """40 random episodes with every kind of answer, neutral ratings (3 of 6) among them."""
    generator = np.random.default_rng(0)
    table = generator.integers(0, 7, (5, 12))
    table[0], table[:, 0] = 6, 1
    users, items = np.nonzero(table)
    data = hand_made_ratings(users, items, table[users, items], 1, 6)
    config = EnvConfig(0.1, T, "half_open", "policy", False, "dense", 1.0)
    env, params = make_rating_env(config, data), make_env_params(config, data, np.arange(5), 3)
    starts = jnp.arange(40) % 5
    return rollout(env, params, random_policy(12), None, starts, jax.random.key(0), explore=True)


def test_sampled_episodes_are_whole_and_as_played(trajectory: Trajectory) -> None:
    replay = add_episodes(make_episode_replay(T, 40), trajectory)
    found = jax.jit(sample_episodes, static_argnums=2)(replay, jax.random.key(1), 300)
    assert found.item.shape == found.reward.shape == (T, 300)
    rows = {tuple(column): n for n, column in enumerate(np.asarray(trajectory.item).T.tolist())}
    drawn = np.array([rows[tuple(column)] for column in np.asarray(found.item).T.tolist()])
    assert len(set(drawn.tolist())) == 40
    np.testing.assert_array_equal(found.reward, np.asarray(trajectory.reward)[:, drawn])
    np.testing.assert_allclose(found.status, np.asarray(trajectory.status)[:, drawn], atol=1e-6)
    signs = np.sign(np.diff(np.asarray(trajectory.status)[..., 1] - np.asarray(trajectory.status)[..., 0], axis=0))
    assert {-1.0, 0.0, 1.0} == set(signs.ravel().tolist())


def test_the_oldest_episodes_give_way(trajectory: Trajectory) -> None:
    def part(first: int, last: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[:, first:last], trajectory)

    replay = make_episode_replay(T, 25)
    for first in (0, 10, 20):
        replay = add_episodes(replay, part(first, first + 10))
    held = {tuple(row) for row in np.asarray(replay.rows.item).tolist()}
    played = [tuple(column) for column in np.asarray(trajectory.item).T.tolist()]
    assert held == set(played[5:30])
    assert int(replay.size) == 25


def test_an_episode_takes_few_bytes() -> None:
    assert make_episode_replay(32, 10).bytes_per_row == 287


@hypothesis.given(st.lists(st.sampled_from([-0.6, 0.0, 1.0]), min_size=T - 1, max_size=T - 1))
@hypothesis.settings(max_examples=50, deadline=None)
def test_statuses_count_what_happened(empirical: list[float]) -> None:
    found = np.asarray(jax.jit(statuses)(jnp.asarray(empirical))) * T
    for t in range(T):
        past = [int(np.sign(r)) for r in empirical[:t]]

        def run(allowed: set[int], past: list[int] = past) -> int:
            length = 0
            while length < len(past) and past[-1 - length] in allowed:
                length += 1
            return length

        totals = [past.count(-1), past.count(1), past.count(0), t]
        runs = [run({-1}), run({1}), run({0}), run({0, 1}), run({0, -1})]
        np.testing.assert_allclose(found[t], totals + runs, atol=1e-5)
