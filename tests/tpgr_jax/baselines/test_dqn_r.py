"""DQN-R: values, targets and losses against NumPy; known values, and learning, in small worlds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_networks import dense, encode, relu
from three_items import (
    BEST,
    BEST_REWARD,
    FIRST_VALUES,
    REPLAY,
    SECOND_VALUES,
    all_episodes,
    make_three_items,
)

from sim.envs.rating_env import EnvConfig, RatingEnv, Trajectory, make_env_params, make_rating_env
from sim.envs.rollout import rollout
from sim.generators.ratings import generate
from tpgr_jax.baselines.dqn_r import DqnConfig, DqnR, QNetwork, QPolicyConfig, make_dqn_r
from tpgr_jax.baselines.episode_replay import Episodes
from tpgr_jax.baselines.replay_learner import ActingParams, World

ITEMS, T, N = 7, 4, 6
Params = dict[str, Any]


def make_learner(
    env: RatingEnv,
    episodes_per_step: int = 4,
    hidden: tuple[int, ...] = (5, 4),
    state_hidden: int = 4,
    dueling: bool = True,
    **changes: Any,
) -> DqnR:
    policy = QPolicyConfig(
        embedding_size=3,
        state_hidden=state_hidden,
        embedding="random",
        embedding_epochs=1,
        train_embedding=True,
        status_in_rnn=True,
        hidden=list(hidden),
        dueling=dueling,
    )
    settings: dict[str, Any] = {
        **REPLAY,
        "learning_rate": 0.01,
        "double": True,
    }
    return make_dqn_r(policy, DqnConfig(**{**settings, **changes}), env, episodes_per_step)


def random_params(learner: DqnR, seed: int) -> Params:
    shapes = jax.eval_shape(learner.policy.init, jax.random.key(0))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.6, leaf.shape), jnp.float32), shapes)


def random_episodes(seed: int) -> Episodes:
    generator = np.random.default_rng(seed)
    item = np.stack([generator.permutation(ITEMS)[:T] for _ in range(N)], 1)
    status = generator.random((T, N, 9)) * (np.arange(T) > 0)[:, None, None]
    reward = generator.normal(size=(T, N))
    return Episodes(jnp.asarray(item, jnp.int32), jnp.asarray(reward, jnp.float32), jnp.asarray(status, jnp.float32))


def q_values(params: Params, episodes: Episodes, dueling: bool) -> np.ndarray:
    """[T, N, ITEMS] by NumPy."""
    arrays = (np.asarray(array, np.float64) for array in (episodes.reward, episodes.status))
    hidden = encode(params["encoder"], np.asarray(episodes.item), *arrays)
    for number in range(2):
        hidden = relu(dense(params[f"layers_{number}"], hidden))
    advantage = hidden @ np.asarray(params["item_kernel"], np.float64).T + np.asarray(params["item_bias"], np.float64)
    if not dueling:
        return advantage
    return dense(params["state_value"], hidden) + advantage - advantage.mean(-1, keepdims=True)


def play(learner: DqnR, env_params: Any, acting: ActingParams, episodes: int, explore: bool) -> Trajectory:
    """Episodes with users 0, 1, ... in turn."""
    starts = env_params.users[jnp.arange(episodes) % env_params.users.shape[0]]

    @jax.jit
    def run(acting: ActingParams) -> Trajectory:
        return rollout(learner.env, env_params, learner.policy.as_policy(), acting, starts, jax.random.key(0), explore)

    return jax.device_get(run(acting))


@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("double", [True, False])
def test_targets_take_the_best_available_item_of_the_next_state(dueling: bool, double: bool) -> None:
    learner = make_learner(RatingEnv(ITEMS, T), dueling=dueling, double=double)
    params, target, episodes = random_params(learner, 1), random_params(learner, 2), random_episodes(3)
    online, primed = q_values(params, episodes, dueling), q_values(target, episodes, dueling)
    expected, masked = np.zeros((T - 1, N)), 0
    for t in range(1, T):
        for n in range(N):
            past = np.asarray(episodes.item)[:t, n]
            choosing = np.array((online if double else primed)[t, n])
            masked += choosing.argmax() in past
            choosing[past] = -np.inf
            expected[t - 1, n] = primed[t, n, choosing.argmax()]
    assert masked > 0
    found = jax.jit(learner.next_values)(params, target, episodes)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("dueling", [True, False])
def test_the_loss_and_its_gradient_are_those_of_the_chosen_items_values(dueling: bool) -> None:
    learner = make_learner(RatingEnv(ITEMS, T), dueling=dueling)
    params, episodes = random_params(learner, 4), random_episodes(5)
    targets = np.random.default_rng(6).normal(size=(T, N)).astype(np.float32)

    def expected(params: Params) -> float:
        q = np.take_along_axis(q_values(params, episodes, dueling), np.asarray(episodes.item)[..., None], -1)[..., 0]
        return float(np.mean((q - targets) ** 2) / 2)

    (loss, _), gradient = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))(params, episodes, targets)
    assert float(loss) == pytest.approx(expected(params), rel=1e-4)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for seed in range(5):
        direction = jax.tree.map(np.asarray, random_params(learner, 10 + seed))
        ahead, behind = (expected(jax.tree.map(lambda p, d, h=h: p + h * d, exact, direction)) for h in (1e-5, -1e-5))
        slopes = jax.tree.map(lambda g, d: float(np.sum(np.asarray(g, np.float64) * d)), gradient, direction)
        assert sum(jax.tree.leaves(slopes)) == pytest.approx((ahead - behind) / 2e-5, rel=1e-3, abs=1e-4)


def test_acting_is_greedy_and_recurrent() -> None:
    """Acting step by step takes the items that the values of whole episodes say."""
    env, env_params = make_three_items()
    learner = make_learner(env)
    params = random_params(learner, 7)
    played = play(learner, env_params, ActingParams(params, jnp.float32(1.0), None), 2, explore=False)
    q = q_values(params, Episodes(played.item, played.reward, played.status), True)
    first, second = played.item
    assert (first == q[0].argmax(-1)).all()
    q[1, np.arange(2), first] = -np.inf
    assert (second == q[1].argmax(-1)).all()


@pytest.mark.parametrize("allow_repeats", [False, True])
def test_no_item_comes_twice_unless_repeats_are_allowed(allow_repeats: bool) -> None:
    _, env_params = make_three_items()
    learner = make_learner(RatingEnv(3, 2, allow_repeats=allow_repeats))
    params = random_params(learner, 8)
    params["item_bias"] += jnp.asarray([0.0, 0.0, 50.0])  # likes item 2 always
    for explore in (False, True):
        played = play(learner, env_params, ActingParams(params, jnp.float32(0.5), None), 40, explore)
        assert bool(played.repeated.any()) == allow_repeats
        assert (played.item[0] == 2).mean() > 0.5


def test_values_converge_to_the_discounted_sums_and_the_best_order_is_found() -> None:
    env, env_params = make_three_items()
    learner = make_learner(env, 16, (16,), 8, batch_episodes=32, updates_per_step=4, target_rate=0.1)
    world = World(env_params)
    train = jax.jit(lambda state: jax.lax.scan(lambda state, _: learner.train_step(state, world), state, length=250))
    state, metrics = train(jax.jit(learner.init)(jax.random.key(0)))
    assert all(np.isfinite(values).all() for values in metrics.values())
    played = play(learner, env_params, learner.policy_params(state, world), 4, explore=False)
    np.testing.assert_array_equal(played.item, np.tile(BEST, (4, 1)).T)
    assert float(played.reward.mean()) == pytest.approx(BEST_REWARD)
    episodes = Episodes(*all_episodes())

    @jax.jit
    def value(params: Params, item: jax.Array) -> jax.Array:
        features = learner.policy.apply(QNetwork.encode, params, episodes.item, episodes.reward, episodes.status)
        return learner.policy.apply(QNetwork.value, params, features, item)

    values = np.stack([value(state.params, jnp.full((2, 6), choice)) for choice in range(3)], -1)
    np.testing.assert_allclose(values[0], np.tile(FIRST_VALUES, (6, 1)), atol=0.06)
    for found, first in zip(values[1], np.asarray(episodes.item)[0], strict=True):
        left = np.arange(3) != first
        np.testing.assert_allclose(found[left], SECOND_VALUES[first][left], atol=0.06)


@pytest.mark.long
def test_learning_from_generated_ratings_beats_chance() -> None:
    data = generate("tiny", 0)
    config = EnvConfig(0.1, 8, "half_open", "policy", False, "dense", 10.0)
    env = make_rating_env(config, data)
    world = World(make_env_params(config, data, np.arange(150), 3))
    held_out = make_env_params(config, data, np.arange(150, 200), 3)
    learner = make_learner(
        env, 32, (32, 16), 16, replay_episodes=2_000, batch_episodes=32, updates_per_step=2, epsilon_end=0.1
    )
    train = jax.jit(lambda state: jax.lax.scan(lambda state, _: learner.train_step(state, world), state, length=200))
    state, metrics = train(jax.jit(learner.init)(jax.random.key(0)))
    chance = float(metrics["reward"][0])  # epsilon is 1 in the first step
    played = play(learner, held_out, learner.policy_params(state, world), 50, explore=False)
    assert played.reward.mean() > chance + 0.2
