"""DDPG-KNN and DDPG-R: retrieval against brute force, targets and losses against NumPy, learning in small worlds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
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

from harness.errors import UserError
from harness.settings import read_settings
from sim.envs import nearest_items as nearest
from sim.envs.rating_env import EnvConfig, RatingEnv, Trajectory, empirical_rewards, make_env_params, make_rating_env
from sim.envs.rollout import rollout
from sim.generators.ratings import generate
from tpgr_jax.baselines.ddpg_knn import DdpgKnnPolicyConfig
from tpgr_jax.baselines.episode_replay import Episodes
from tpgr_jax.baselines.item_ddpg import (
    ItemDdpg,
    ItemDdpgConfig,
    ItemDdpgPolicyConfig,
    make_item_ddpg,
    project,
)
from tpgr_jax.baselines.replay_learner import ActingParams, World
from tpgr_jax.models.item_actions import reward_vectors, scaled_vectors

ITEMS, E, T, N = 9, 3, 4, 6
Params = dict[str, Any]

ENCODER = {
    "embedding_size": 3,
    "state_hidden": 6,
    "embedding": "random",
    "embedding_epochs": 1,
    "train_embedding": True,
    "status_in_rnn": True,
}


def policy_settings(**changes: Any) -> dict[str, Any]:
    settings = {"hidden": [16, 12], "vector_size": E, "vectors": "mf", "vector_epochs": 1, "vector_length": "unit"}
    return {**ENCODER, **settings, **changes}


def knn_settings(**changes: Any) -> DdpgKnnPolicyConfig:
    settings = policy_settings(k=None, k_fraction=None, measure="euclidean")
    return read_settings(DdpgKnnPolicyConfig, {**settings, **changes}, "agent.policy")


def learner_settings(**changes: Any) -> ItemDdpgConfig:
    settings: dict[str, Any] = {
        **REPLAY,
        "actor_rate": 0.01,
        "critic_rate": 0.01,
        "action_noise": 0.1,
        "target_action": "item",
    }
    return read_settings(ItemDdpgConfig, {**settings, **changes}, "agent.learner")


def make_knn(env: RatingEnv, episodes_per_step: int = 4, policy: Any = None, **changes: Any) -> ItemDdpg:
    return make_item_ddpg(knn_settings(**(policy or {})), learner_settings(**changes), env, episodes_per_step)


def random_params(learner: ItemDdpg, seed: int) -> Params:
    shapes = jax.eval_shape(learner.policy.init, jax.random.key(0))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.6, leaf.shape), jnp.float32), shapes)


def random_vectors(seed: int = 0, items: int = ITEMS) -> np.ndarray:
    """In the unit ball, of different lengths."""
    return scaled_vectors(np.random.default_rng(seed).normal(size=(items, E)), "at_most_one")


def random_episodes(seed: int) -> Episodes:
    generator = np.random.default_rng(seed)
    item = np.stack([generator.permutation(ITEMS)[:T] for _ in range(N)], 1)
    status = generator.random((T, N, 9)) * (np.arange(T) > 0)[:, None, None]
    reward = generator.normal(size=(T, N))
    return Episodes(jnp.asarray(item, jnp.int32), jnp.asarray(reward, jnp.float32), jnp.asarray(status, jnp.float32))


def play(learner: ItemDdpg, env_params: Any, acting: ActingParams, episodes: int, explore: bool) -> Trajectory:
    """Episodes with users 0, 1, ... in turn."""
    starts = env_params.users[jnp.arange(episodes) % env_params.users.shape[0]]

    @jax.jit
    def run(acting: ActingParams) -> Trajectory:
        return rollout(learner.env, env_params, learner.policy.as_policy(), acting, starts, jax.random.key(0), explore)

    return jax.device_get(run(acting))


# The networks by NumPy.


def states_of(params: Params, episodes: Episodes) -> np.ndarray:
    arrays = (np.asarray(array, np.float64) for array in (episodes.reward, episodes.status))
    return encode(params["encoder"], np.asarray(episodes.item), *arrays)


def actions_of(params: Params, state: np.ndarray) -> np.ndarray:
    actor = params["actor"]
    for number in range(2):
        state = relu(dense(actor[f"Dense_{number}"], state))
    vector = dense(actor["Dense_2"], state)
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def values_of(params: Params, state: np.ndarray, vector: np.ndarray) -> np.ndarray:
    critic = params["critic"]
    hidden = relu(dense(critic["of_state"], state) + dense(critic["of_vector"], vector))
    return dense(critic["output"], relu(dense(critic["layers_0"], hidden)))[..., 0]


def chosen(
    params: Params, vectors: np.ndarray, state: np.ndarray, proto: np.ndarray, past: list[int], k: int, measure: str
) -> int:
    """One item by brute force: sort the available ones by nearness, then ask the critic about the first k.

    Items with a zero vector are near to nothing: they wait until no others are left.
    """
    left = [item for item in range(len(vectors)) if item not in past]
    left = [item for item in left if vectors[item].any()] or left
    distance = {
        item: np.linalg.norm(vectors[item] - proto) if measure == "euclidean" else -float(vectors[item] @ proto)
        for item in left
    }
    candidates = sorted(left, key=lambda item: distance[item])[:k]
    if k == 1:
        return candidates[0]
    return max(candidates, key=lambda item: float(values_of(params, state, vectors[item])))


# --- Retrieval -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["euclidean", "inner"])
@pytest.mark.parametrize("k", [1, 3, ITEMS - 1, ITEMS])
@pytest.mark.parametrize("without_ratings", [[], [0, 2, 3, 6, 7, 8]])
def test_the_critics_favourite_of_the_nearest_available_items_is_taken(
    k: int, measure: str, without_ratings: list[int], monkeypatch: Any
) -> None:
    monkeypatch.setattr(nearest, "NUMBERS_AT_A_TIME", 10 * ITEMS * 6)  # ten rows at a time
    learner = make_knn(RatingEnv(ITEMS, T), policy={"k": k, "measure": measure})
    params, vectors, generator = random_params(learner, 1), random_vectors(), np.random.default_rng(2)
    vectors[without_ratings] = 0
    rows = 36
    state, proto = generator.normal(size=(rows, 15)), generator.normal(size=(rows, E))
    past = np.full((rows, T), -1)
    for row, items in enumerate(past):
        items[: row % (T + 1)] = generator.permutation(ITEMS)[: row % (T + 1)]
    found = jax.jit(learner.policy.choose)(
        params,
        jnp.asarray(vectors),
        jnp.asarray(state, jnp.float32),
        jnp.asarray(proto, jnp.float32),
        jnp.asarray(past, jnp.int32),
    )
    expected = [
        chosen(params, vectors, s, p, [item for item in items if item >= 0], k, measure)
        for s, p, items in zip(state, proto, past.tolist(), strict=True)
    ]
    assert np.asarray(found).tolist() == expected
    nearest_only = [chosen(params, vectors, s, p, [], 1, measure) for s, p in zip(state, proto, strict=True)]
    assert k == 1 or nearest_only != expected  # the critic has a say
    known = np.delete(np.arange(ITEMS), without_ratings)
    used_up = np.array([np.isin(known, items).all() for items in past])
    assert used_up.any() == (len(without_ratings) > 0)
    np.testing.assert_array_equal(np.isin(found, known), ~used_up)


def test_all_neighbours_are_the_critics_global_choice_whatever_the_actor_says() -> None:
    learner = make_knn(RatingEnv(ITEMS, T), policy={"k_fraction": 1.0})
    params, vectors, generator = random_params(learner, 3), random_vectors(), np.random.default_rng(4)
    state, nothing = generator.normal(size=(20, 15)).astype(np.float32), jnp.full((20, T), -1)
    choose, proto = jax.jit(learner.policy.choose), vectors[:1].repeat(20, 0)
    found = [choose(params, vectors, state, sign * proto, nothing) for sign in (1, -1)]
    q = values_of(params, state[:, None].astype(np.float64), vectors)
    for items in found:
        np.testing.assert_array_equal(items, q.argmax(-1))


def largest_array(jaxpr: Any) -> int:
    """Numbers in the largest array that a program makes, loops included."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [variable.aval.size for variable in equation.outvars]
        sizes += [largest_array(inner) for inner in jaxprs_in_params(equation.params)]
    return max(sizes)


@pytest.mark.parametrize("k_fraction", [0.1, 1.0])
def test_no_array_grows_with_states_times_items(k_fraction: float) -> None:
    items, rows, width = 5_000, 512, 32
    learner = make_knn(RatingEnv(items, T), policy={"k_fraction": k_fraction, "hidden": [width, width]})
    params = jax.eval_shape(learner.policy.init, jax.random.key(0))
    shapes = [(items, E), (rows, 15), (rows, E)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    program = jax.make_jaxpr(learner.policy.choose)(params, *arrays, jax.ShapeDtypeStruct((rows, T), jnp.int32))
    found = largest_array(program.jaxpr)
    assert items < found <= nearest.NUMBERS_AT_A_TIME < rows * k_fraction * items * width


def test_ddpg_r_takes_the_item_of_the_highest_score() -> None:
    config = read_settings(ItemDdpgPolicyConfig, policy_settings(), "agent.policy")
    learner = make_item_ddpg(config, learner_settings(), RatingEnv(ITEMS, T), 4)
    params, vectors, generator = random_params(learner, 5), random_vectors(), np.random.default_rng(6)
    weights = generator.normal(size=(30, E)).astype(np.float32)
    past = np.stack([generator.permutation(ITEMS)[:T] for _ in range(30)])
    found = jax.jit(learner.policy.choose)(params, vectors, np.zeros((30, 15)), weights, past)
    scores = weights.astype(np.float64) @ vectors.T
    np.put_along_axis(scores, past, -np.inf, 1)
    np.testing.assert_array_equal(found, scores.argmax(-1))


def test_ddpg_r_and_one_nearest_neighbour_decide_alike_among_unit_vectors() -> None:
    score = make_item_ddpg(
        read_settings(ItemDdpgPolicyConfig, policy_settings(), "agent.policy"), learner_settings(), RatingEnv(40, T), 4
    ).policy
    neighbour = make_knn(RatingEnv(40, T), policy={"k": 1}).policy
    generator = np.random.default_rng(7)
    vectors = scaled_vectors(generator.normal(size=(40, E)), "unit")
    vectors[[1, 5, 30]] = 0  # without training ratings
    params = random_params(make_knn(RatingEnv(40, T), policy={"k": 1}), 8)
    state, weights = generator.normal(size=(200, 15)), generator.normal(size=(200, E))
    past = np.stack([generator.permutation(40)[:T] for _ in range(200)])
    arguments = [jnp.asarray(array, jnp.float32) for array in (vectors, state, weights)]
    items = [jax.jit(policy.choose)(params, *arguments, jnp.asarray(past)) for policy in (score, neighbour)]
    np.testing.assert_array_equal(*items)
    assert len(set(items[0].tolist())) > 20
    rankings = [
        jax.jit(policy.rank, static_argnums=5)(params, *arguments, jnp.asarray(past), 40, jnp.ones((200, 40), bool))
        for policy in (score, neighbour)
    ]
    np.testing.assert_array_equal(rankings[0].items, rankings[1].items)


@pytest.mark.parametrize(
    ("k", "k_fraction", "num_items", "expected"),
    [(1, None, 50, 1), (7, None, 50, 7), (70, None, 50, 50), (None, 0.1, 30, 3), (None, 0.1, 31, 4), (None, 1.0, 9, 9)],
)
def test_the_number_of_neighbours(k: int | None, k_fraction: float | None, num_items: int, expected: int) -> None:
    assert knn_settings(k=k, k_fraction=k_fraction).neighbours(num_items) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": None, "k_fraction": None}, r"agent\.policy\.k is None"),
        ({"k": 3, "k_fraction": 0.1}, r"agent\.policy\.k is 3"),
        ({"k": 0}, r"agent\.policy\.k"),
        ({"k_fraction": 1.5}, r"agent\.policy\.k_fraction"),
        ({"k": 1, "measure": "cosine"}, r"agent\.policy\.measure"),
        ({"k": 1, "hidden": []}, r"agent\.policy\.hidden"),
        ({"k": 1, "vector_length": "long"}, r"agent\.policy\.vector_length"),
    ],
)
def test_wrong_policy_settings_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        knn_settings(**changes)


@pytest.mark.parametrize(
    ("key", "value"), [("actor_rate", 0.0), ("critic_rate", -1.0), ("action_noise", -0.1), ("target_action", "goal")]
)
def test_wrong_learner_settings_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"agent\.learner\.{key}"):
        learner_settings(**{key: value})


def test_actions_are_brought_back_into_the_unit_ball() -> None:
    on_device = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [0.6, 0.0]])
    np.testing.assert_allclose(project(on_device, "unit"), [[0.6, 0.8], [0, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(project(on_device, "at_most_one"), [[0.6, 0.8], [0, 0], [0.6, 0]], atol=1e-6)
    for length in ("unit", "at_most_one"):
        slope = jax.grad(lambda x, length=length: jnp.sum(project(x, length)))(jnp.zeros(2))
        assert np.isfinite(slope).all()


# --- Targets and losses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target_action", "k"), [("proto", 3), ("item", 1), ("item", 3), ("item", ITEMS)])
def test_targets_are_the_primed_values_of_the_primed_action(target_action: str, k: int) -> None:
    learner = make_knn(RatingEnv(ITEMS, T), policy={"k": k}, target_action=target_action)
    target, episodes, vectors = random_params(learner, 7), random_episodes(8), random_vectors()
    state = states_of(target, episodes)[1:]
    action = actions_of(target, state)
    if target_action == "item":
        for t, n in np.ndindex(T - 1, N):
            past = np.asarray(episodes.item)[: t + 1, n].tolist()
            item = chosen(target, vectors, state[t, n], action[t, n], past, k, "euclidean")
            action[t, n] = vectors[item]
    found = jax.jit(learner.next_values)(target, jnp.asarray(vectors), episodes)
    np.testing.assert_allclose(found, values_of(target, state, action), atol=1e-4)


def test_critic_and_actor_each_follow_their_own_loss() -> None:
    """Losses by NumPy, gradients by finite differences of the loss that each part has to follow."""
    learner = make_knn(RatingEnv(ITEMS, T), policy={"k": 1})
    params, episodes, vectors = random_params(learner, 9), random_episodes(10), random_vectors()
    targets = np.random.default_rng(11).normal(size=(T, N)).astype(np.float32)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def critic_loss(params: Params) -> float:
        q = values_of(params, states_of(params, episodes), vectors[np.asarray(episodes.item)])
        return float(np.mean((q - targets) ** 2) / 2)

    def actor_loss(params: Params) -> float:
        state = states_of(exact, episodes)
        return -float(np.mean(values_of(exact, state, actions_of(params, state))))

    gradient, metrics = jax.jit(jax.grad(learner.losses, has_aux=True))(params, episodes, targets, jnp.asarray(vectors))
    assert float(metrics["loss"]) == pytest.approx(critic_loss(exact), rel=1e-4)
    assert float(metrics["q_of_actor"]) == pytest.approx(-actor_loss(exact), rel=1e-4)
    for names, loss in ((("encoder", "critic"), critic_loss), (("actor",), actor_loss)):
        for seed in range(4):
            drawn = jax.tree.map(np.asarray, random_params(learner, 20 + seed))
            direction = {name: jax.tree.map(lambda d, here=name in names: d * here, drawn[name]) for name in drawn}
            ahead, behind = (loss(jax.tree.map(lambda p, d, h=h: p + h * d, exact, direction)) for h in (1e-5, -1e-5))
            slopes = jax.tree.map(lambda g, d: float(np.sum(np.asarray(g, np.float64) * d)), gradient, direction)
            assert sum(jax.tree.leaves(slopes)) == pytest.approx((ahead - behind) / 2e-5, rel=1e-3, abs=1e-4)


# --- Learning --------------------------------------------------------------------------------------------------------

CORNERS = np.array([[1.0, 0.0, 0.0], [-0.5, 0.8, 0.0], [-0.5, -0.8, 0.0]], np.float32)


def three_item_learner(method: str) -> tuple[ItemDdpg, World]:
    env, env_params = make_three_items()
    common = {**policy_settings(hidden=[16, 16], state_hidden=8)}
    config = learner_settings(batch_episodes=32, updates_per_step=4, target_rate=0.1, actor_rate=0.003, epsilon_end=0.3)
    if method == "ddpg_r":
        learner = make_item_ddpg(read_settings(ItemDdpgPolicyConfig, common, "agent.policy"), config, env, 16)
    else:
        learner = make_item_ddpg(knn_settings(**common, k=3), config, env, 16)
    return learner, World(env_params, jnp.asarray(CORNERS))


@pytest.mark.parametrize("method", ["ddpg_knn", "ddpg_r"])
def test_values_converge_to_the_discounted_sums_and_the_best_order_is_found(method: str) -> None:
    learner, world = three_item_learner(method)
    train = jax.jit(lambda state: jax.lax.scan(lambda state, _: learner.train_step(state, world), state, length=300))
    state, metrics = train(jax.jit(learner.init)(jax.random.key(1)))
    assert all(np.isfinite(values).all() for values in metrics.values())
    played = play(learner, world.env, learner.policy_params(state, world), 4, explore=False)
    np.testing.assert_array_equal(played.item, np.tile(BEST, (4, 1)).T)
    assert float(played.reward.mean()) == pytest.approx(BEST_REWARD)
    episodes = Episodes(*all_episodes())

    @jax.jit
    def every_value(params: Params) -> jax.Array:
        return learner.policy.value(params, learner.policy.encode(params, episodes)[..., None, :], world.item_vectors)

    values = np.asarray(every_value(state.params))
    np.testing.assert_allclose(values[0], np.tile(FIRST_VALUES, (6, 1)), atol=0.08)
    for found, first in zip(values[1], np.asarray(episodes.item)[0], strict=True):
        left = np.arange(3) != first
        np.testing.assert_allclose(found[left], SECOND_VALUES[first][left], atol=0.08)


@pytest.mark.parametrize(("k", "allow_repeats"), [(1, False), (2, False), (3, False), (2, True)])
def test_no_item_comes_twice_unless_repeats_are_allowed(k: int, allow_repeats: bool) -> None:
    _, env_params = make_three_items()
    learner = make_knn(RatingEnv(3, 2, allow_repeats=allow_repeats), policy={"k": k})
    acting = ActingParams(random_params(learner, 12), jnp.float32(0.2), jnp.asarray(CORNERS))
    assert bool(play(learner, env_params, acting, 40, explore=True).repeated.any()) == allow_repeats


def test_noise_moves_the_item_only_when_exploring() -> None:
    env, env_params = make_three_items()
    learner = make_knn(env, policy={"k": 1}, action_noise=3.0)
    acting = ActingParams(random_params(learner, 13), jnp.float32(0.0), jnp.asarray(CORNERS))
    assert len(np.unique(play(learner, env_params, acting, 200, explore=False).item[0])) == 1
    assert len(np.unique(play(learner, env_params, acting, 200, explore=True).item[0])) == 3


@pytest.mark.long
def test_learning_from_generated_ratings_beats_chance() -> None:
    data, train_users = generate("tiny", 0), np.arange(150)
    config = EnvConfig(0.1, 8, "half_open", "policy", False, "dense", 10.0)
    env = make_rating_env(config, data)
    vectors = reward_vectors(data, train_users, empirical_rewards(data, config.reward_scale), 8)
    world = World(make_env_params(config, data, train_users, 3), jnp.asarray(scaled_vectors(vectors, "unit")))
    held_out = make_env_params(config, data, np.arange(150, 200), 3)
    learner = make_knn(
        env,
        32,
        {"k_fraction": 0.1, "vector_size": 8, "hidden": [32, 16], "state_hidden": 16},
        replay_episodes=2_000,
        batch_episodes=16,
        updates_per_step=2,
        epsilon_end=0.1,
        actor_rate=0.001,
        critic_rate=0.003,
    )
    train = jax.jit(lambda state: jax.lax.scan(lambda state, _: learner.train_step(state, world), state, length=150))
    state, metrics = train(jax.jit(learner.init)(jax.random.key(0)))
    chance = float(metrics["reward"][0])  # epsilon is 1 in the first step
    played = play(learner, held_out, learner.policy_params(state, world), 50, explore=False)
    assert played.reward.mean() > chance + 0.2
