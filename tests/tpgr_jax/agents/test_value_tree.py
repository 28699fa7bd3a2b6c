"""The value tree against NumPy: exhaustive choice over all items, backups by hand, and what it learns."""

import dataclasses
import functools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bandit_problem import (
    LENGTH,
    NUM_ITEMS,
    TEST_USERS,
    TRAIN_USERS,
    is_best_left,
    make_data,
    make_simulator,
    make_table,
    play_and_keep,
    reward_table,
)

from harness.compute.devices import DevicesConfig, device_mesh
from harness.runs.composition import composed_values
from harness.settings import read_settings
from sim.envs.fixed_policies import fixed_list_policy
from sim.envs.rating_env import Observation, statuses
from sim.envs.rollout import rollout
from tpgr_jax.agents.reinforce import World
from tpgr_jax.agents.tree_ops import MASKED_LOGIT, make_tree_tables, past_leaves_of
from tpgr_jax.agents.value_learner import ValueLearner, ValueLearnerConfig
from tpgr_jax.agents.value_tree import ValueTreeConfig, ValueTreeParams, filter_estimate, make_value_tree
from tpgr_jax.models.coded_rewards import code_ratings
from tpgr_jax.models.user_response_model import fit_response_model
from tpgr_jax.networks import grouped_matmul as node_batching
from tpgr_jax.settings import RunConfig
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering
from tpgr_jax.tree.item_tree import tree_from_children

ALPHA = 0.1
ABLATIONS = Path(__file__).parents[3] / "conf" / "ablation"


def policy_config(**changes):
    values = {"factors": 3, "noise": 0.05, "channels": "all", "hidden": [8], "streak": True, "beam": 12}
    return read_settings(ValueTreeConfig, values | {"value_rank": None, "temperature": 0.1} | changes, "agent.policy")


def learner_config(**changes):
    values = {"fit_to": "ratings", "fit_episodes": 4, "steps_per_episode": 3, "random_paths": 2, "clip_norm": 10.0}
    rates = {"learning_rate": 0.02, "learning_rate_end": 0.002, "decay_steps": 100}
    return read_settings(ValueLearnerConfig, values | rates | changes, "agent.learner")


@functools.cache
def problem(depth=2, alpha=ALPHA, repeats=False, beam=12, irregular=False):
    """A learner over a small random tree, or over one of two levels with an item right below the root."""
    data = make_data(make_table())
    env, env_params, reward_of_code = make_simulator(data, alpha=alpha, allow_repeats=repeats)
    tree = build_tree(NUM_ITEMS, depth, make_clustering("random", None, 1))
    if irregular:
        children = np.array([[1, 4, 2, 3], [5, 6, 7, -1], [8, 9, 10, 11], [12, 13, 14, 15]])
        tree = tree_from_children(children, np.random.default_rng(0).permutation(NUM_ITEMS)).in_regular_layout()
    config = policy_config(beam=beam)
    policy = make_value_tree(config, tree, LENGTH, alpha)
    learner = ValueLearner(env, policy, learner_config(), 16)
    state = jax.jit(learner.init)(jax.random.key(0))
    answers = fit_response_model(config, code_ratings(data, TRAIN_USERS, reward_of_code), 0)
    state = dataclasses.replace(state, params=policy.with_fitted(state.params, answers, tree.leaf_items))
    return learner, World(env_params, make_tree_tables(tree)), state, tree


def scrambled(learned, seed=1):
    """Network parameters that say something else everywhere."""
    generator = np.random.default_rng(seed)
    network = jax.tree.map(lambda leaf: leaf + generator.normal(0, 0.2, leaf.shape).astype("f4"), learned.network)
    return dataclasses.replace(learned, network=network)


@functools.cache
def fitted_answers():
    data = make_data(make_table())
    _, _, reward_of_code = make_simulator(data)
    return fit_response_model(policy_config(), code_ratings(data, TRAIN_USERS, reward_of_code), 0)


def item_scores(learner, learned, mean, spread, status):
    """[I] (r + lambda p) / (1 + lambda) of one state, from the fitted model and by the formula of the streak."""
    fitted = fitted_answers()
    reward = fitted.mean[:, 2] + fitted.loadings[:, 2] @ mean
    positive = fitted.mean[:, 1] + fitted.loadings[:, 1] @ mean
    estimate = np.concatenate([mean, [spread], status])
    network = jax.tree.map(np.asarray, learned.network)
    layer, output = network["persistence_layers_0"], network["persistence_output"]
    hidden = np.maximum(estimate @ layer["kernel"] + layer["bias"], 0)
    logit = (hidden @ output["kernel"] + output["bias"])[0]
    p = min(1 / (1 + np.exp(-logit)), 0.97)
    later = LENGTH - round(LENGTH * status[3]) - 1
    gain = sum(learner.policy.alpha * (round(LENGTH * status[5]) + 1) * p**k for k in range(later))
    return (reward + gain * positive) / (1 + gain)


@pytest.mark.parametrize(
    ("depth", "alpha"),
    [
        (2, ALPHA),
        *(pytest.param(depth, ALPHA, marks=pytest.mark.long) for depth in (1, 3)),
        *(pytest.param(depth, 0.0, marks=pytest.mark.long) for depth in (1, 2, 3)),
    ],
)
def test_a_beam_over_everything_takes_the_best_item_of_all(depth, alpha):
    learner, world, state, _ = problem(depth, alpha)
    learned = scrambled(state.params)
    params = ValueTreeParams(learned, world.tree)
    items, answers, posterior = play_and_keep(learner.env, world.env, learner.policy.as_policy(), params, TEST_USERS)
    for episode in range(len(TEST_USERS)):
        status = np.asarray(statuses(answers[:-1, episode]))
        past = []
        for step in range(LENGTH):
            covariance = np.asarray(posterior.covariance[step, episode])
            mean = np.asarray(posterior.mean[step, episode], np.float64)
            score = item_scores(learner, learned, mean, np.trace(covariance) / 3, status[step])
            assert is_best_left(int(items[step, episode]), score, past)
            past.append(int(items[step, episode]))


def ranking_problem(**settings):
    """Params, posterior, observation (of half-played episodes) and the values [B, I] of all items."""
    learner, world, state, _ = problem(**settings)
    learned = scrambled(state.params)
    generator, users = np.random.default_rng(3), 5
    recommended = np.stack([generator.permutation(NUM_ITEMS)[:LENGTH] for _ in range(users)])
    recommended = np.where(np.arange(LENGTH) < np.arange(users)[:, None], recommended, -1).astype(np.int32)
    step = np.arange(users, dtype=np.int32)
    status = (generator.integers(0, LENGTH, (users, 9)) / LENGTH).astype(np.float32)
    status[:, 3] = step / LENGTH
    observation = Observation(step, recommended, np.full(users, -1), np.zeros(users), np.zeros(users), status)
    posterior = learned.answers.initial(users)
    mean = jnp.asarray(generator.normal(size=posterior.mean.shape), jnp.float32)
    posterior = dataclasses.replace(posterior, mean=mean)
    params = ValueTreeParams(learned, world.tree)
    after, _ = learner.policy.as_policy().act(params, posterior, observation, jax.random.key(0), False)
    mean, spread = (np.asarray(part, np.float64) for part in filter_estimate(after))
    values = [item_scores(learner, learned, mean[user], spread[user], status[user]) for user in range(users)]
    return learner, params, posterior, observation, np.stack(values)


MASKS = {
    "all": np.ones(NUM_ITEMS, bool),
    "of all episodes": np.random.default_rng(4).random(NUM_ITEMS) < 0.6,
    "of each": np.random.default_rng(5).random((5, NUM_ITEMS)) < 0.6,
    "two items": np.isin(np.arange(NUM_ITEMS), [3, 8]),
    "none": np.zeros(NUM_ITEMS, bool),
}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"depth": 1}, marks=pytest.mark.long),
        pytest.param({"depth": 3}, marks=pytest.mark.long),
        {"irregular": True},
    ],
)
def test_rank_over_everything_is_the_order_of_the_values(settings):
    learner, params, posterior, observation, values = ranking_problem(**settings)
    policy = learner.policy.as_policy()
    rank = jax.jit(policy.rank, static_argnums=3)
    decision = jax.jit(policy.act, static_argnums=4)(params, posterior, observation, jax.random.key(0), False)[1]
    for mask, available in MASKS.items():
        for k in (2, NUM_ITEMS + 3) if available.ndim == 1 else (NUM_ITEMS + 3,):
            ranking = rank(params, posterior, observation, k, jnp.asarray(available))
            chex.assert_shape([ranking.items, ranking.scores], (len(values), k))
            if mask == "all":
                np.testing.assert_array_equal(ranking.items[:, 0], decision.action)
            for user, recommended in enumerate(observation.recommended):
                left = np.broadcast_to(available, values.shape)[user].copy()
                left[recommended[recommended >= 0]] = False
                expected = np.sort(values[user, left])[::-1][:k]
                number = len(expected)
                items, scores = np.asarray(ranking.items[user]), np.asarray(ranking.scores[user])
                np.testing.assert_allclose(scores[:number], expected, atol=1e-4)
                np.testing.assert_allclose(values[user, items[:number]], expected, atol=1e-4)
                assert np.all(left[items[:number]])
                assert len(set(items[:number].tolist())) == number
                assert np.all(items[number:] == -1)
                assert np.all(scores[number:] == -np.inf)


def test_rank_begins_with_the_decision_of_a_narrow_beam_and_still_finds_k_items():
    learner, params, posterior, observation, values = ranking_problem(depth=3, beam=1)
    policy = learner.policy.as_policy()
    decision = jax.jit(policy.act, static_argnums=4)(params, posterior, observation, jax.random.key(0), False)[1]
    rank = jax.jit(policy.rank, static_argnums=3)
    for k in (1, 2, NUM_ITEMS):
        ranking = rank(params, posterior, observation, k, jnp.ones(NUM_ITEMS, bool))
        np.testing.assert_array_equal(ranking.items[:, 0], decision.action)
        left = NUM_ITEMS - np.asarray(observation.step)
        np.testing.assert_array_equal((ranking.items >= 0).sum(1), np.minimum(k, left))
        for user in range(len(values)):
            scores = np.asarray(ranking.scores[user, : min(k, left[user])])
            np.testing.assert_allclose(scores, values[user, ranking.items[user, : len(scores)]], atol=1e-4)
            assert np.all(np.diff(scores[1:]) <= 0)
    best = np.where(np.asarray(observation.recommended)[:, :, None] == np.arange(NUM_ITEMS), -np.inf, 0).min(1) + values
    assert np.any(np.argmax(best, 1) != decision.action)  # the narrow beam does miss the best item


def test_what_a_streak_is_worth_by_hand():
    learner, _, state, _ = problem()
    output = {"kernel": jnp.zeros((8, 1)), "bias": jnp.zeros(1)}  # every answer is positive with chance 1/2
    network = {**state.params.network, "persistence_output": output}
    status = jnp.zeros((2, 9)).at[0, 3].set(3 / LENGTH).at[0, 5].set(2 / LENGTH).at[1, 3].set(5 / LENGTH)
    learned = dataclasses.replace(state.params, network=network)
    found = learner.policy.user_state(learned, jnp.zeros((2, 3)), jnp.ones(2), status)
    # After 3 of 6 steps with the last 2 positive: 0.1 * 3 * (1 + 1/2); at the last step nothing follows.
    np.testing.assert_allclose(found.streak_weight, [0.45, 0], atol=1e-6)
    without = dataclasses.replace(learner.policy, config=policy_config(streak=False))
    np.testing.assert_array_equal(without.user_state(learned, jnp.zeros((2, 3)), jnp.ones(2), status).streak_weight, 0)


@pytest.mark.parametrize("beam", [1, 2])
def test_the_beam_follows_the_highest_values(beam):
    learner, world, state, tree = problem(3, beam=beam)
    params = ValueTreeParams(scrambled(state.params), world.tree)
    user = learner.policy.user_state(params.learned, jnp.asarray([[0.3, -1, 0.5]]), jnp.ones(1), jnp.zeros((1, 9)))
    past = world.tree.item_leaf[jnp.asarray([[0, 5, 7]])]
    nodes = np.zeros(1, int)
    for level in range(tree.depth - 1):
        values = learner.policy.child_values(params, level, user, jnp.asarray([nodes]), past)[0]
        order = np.argsort(-np.asarray(values).ravel(), kind="stable")[:beam]
        nodes = nodes[order // tree.num_children] * tree.num_children + order % tree.num_children
    np.testing.assert_array_equal(learner.policy.follow_beam(params, user, past)[0], nodes)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_sampling_never_repeats_and_reports_its_probability(depth):
    learner, world, state, _ = problem(depth, beam=2)
    params = ValueTreeParams(scrambled(state.params), world.tree)
    users = jnp.asarray(np.repeat(TRAIN_USERS, 4), jnp.int32)
    play = jax.jit(functools.partial(rollout, learner.env, explore=True), static_argnums=1)
    episodes = play(world.env, learner.policy.as_policy(), params, users, jax.random.key(3))
    for items in np.asarray(episodes.item).T:
        assert len(set(items)) == LENGTH
    assert not np.any(episodes.repeated)
    assert np.all(episodes.log_prob <= 0)
    first = np.asarray(episodes.item[0]).tolist(), np.exp(np.asarray(episodes.log_prob[0])).tolist()
    shares = dict(zip(*first, strict=True))
    assert 0 < sum(shares.values()) <= 1 + 1e-5  # each item was drawn with the probability reported for it


def test_with_repeats_allowed_an_item_may_come_again():
    learner, world, state, _ = problem(alpha=0.0, repeats=True)
    params = ValueTreeParams(state.params, world.tree)
    items, *_ = play_and_keep(learner.env, world.env, learner.policy.as_policy(), params, TRAIN_USERS)
    assert any(len(set(column)) < LENGTH for column in np.asarray(items).T)


def test_the_deepest_heads_hold_the_fitted_model():
    _, _, state, tree = problem()
    fitted = fitted_answers()
    kernel = np.asarray(state.params.leaf_kernel)
    assert kernel.shape == (tree.num_children, 8, tree.num_children)
    for item, leaf in enumerate(tree.item_leaf):
        node, child = divmod(int(leaf), tree.num_children)
        expected = [*fitted.loadings[item, 2], fitted.mean[item, 2], *fitted.loadings[item, 1], fitted.mean[item, 1]]
        np.testing.assert_allclose(kernel[node, :, child], expected, atol=1e-5)


def test_values_of_many_nodes_are_those_of_each_alone_without_what_was_recommended():
    """Of unequal nodes in any order, for users who have been given different items."""
    learner, world, state, tree = problem(2)
    generator, users, branching = np.random.default_rng(1), 5, tree.num_children
    policy, params = learner.policy, ValueTreeParams(state.params, world.tree)
    status = generator.random((users, 9))
    state = policy.user_state(params.learned, generator.normal(size=(users, 3)), np.ones(users), status)
    leaf_nodes = branching ** (tree.depth - 1)
    node = np.stack([generator.permutation(leaf_nodes)[:3] for _ in range(users)]).astype(np.int32)
    recommended = np.stack([generator.permutation(tree.num_items)[:LENGTH] for _ in range(users)])
    recommended = np.where(np.arange(LENGTH) < np.arange(users)[:, None] * 2, recommended, -1)
    found = np.asarray(policy.item_values(params, state, node, past_leaves_of(world.tree, recommended)))
    weight = np.asarray(state.streak_weight, np.float64)
    kernel = np.asarray(params.learned.leaf_kernel, np.float64)
    hidden = 0
    for user, path, child in np.ndindex(found.shape):
        item = tree.leaf_items[node[user, path] * branching + child]
        if item < 0 or item in recommended[user]:
            hidden += item >= 0
            assert found[user, path, child] < MASKED_LOGIT / 2
            continue
        factors = [*np.asarray(state.factors[user]), 1]
        reward, positive = kernel[node[user, path], :, child].reshape(2, -1) @ factors
        expected = (reward + weight[user] * positive) / (1 + weight[user])
        assert found[user, path, child] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert hidden


def test_heads_learn_the_best_value_below_each_child():
    learner, world, state, tree = problem(3)
    step = jax.jit(learner.train_step)
    first = None
    for _ in range(150):
        state, metrics = step(state, world)
        first = first if first is not None else metrics
    assert float(metrics["backup"]) < 0.4 * float(first["backup"])
    params = ValueTreeParams(state.params, world.tree)
    policy = learner.policy
    user = policy.user_state(state.params, jnp.zeros((1, 3)), jnp.ones(1), jnp.zeros((1, 9)))
    past = jnp.full((1, LENGTH), -1)
    leaf_nodes = jnp.arange(tree.num_children ** (tree.depth - 1))[None]
    items = np.asarray(policy.item_values(params, user, leaf_nodes, past))[0].reshape(tree.num_children, -1)
    best = np.where(items > -1e29, items, -np.inf).max(1)
    roots = np.asarray(policy.child_values(params, 0, user, jnp.zeros((1, 1), jnp.int32), past))[0, 0]
    there = np.isfinite(best)
    np.testing.assert_allclose(roots[there], best[there], atol=0.12)


def test_it_beats_the_best_fixed_list_on_held_out_users():
    learner, world, state, _ = problem(2, beam=2)
    step = jax.jit(learner.train_step)
    for _ in range(100):
        state, _ = step(state, world)
    users = jnp.asarray(TEST_USERS, jnp.int32)
    play = jax.jit(functools.partial(rollout, learner.env, explore=False), static_argnums=1)
    params = ValueTreeParams(state.params, world.tree)
    own = play(world.env, learner.policy.as_policy(), params, users, jax.random.key(0))
    ranking = jnp.asarray(np.argsort(-reward_table(make_table())[TRAIN_USERS].mean(0))[: LENGTH + 1], jnp.int32)
    fixed = play(world.env, fixed_list_policy(), ranking, users, jax.random.key(0))
    assert float(jnp.mean(own.reward)) > 1.3 * float(jnp.mean(fixed.reward))


def test_paths_to_one_node_learn_the_same():
    """The best item of the node was recommended: it must count in neither path."""
    learner, world, state, tree = problem(2)
    policy, params = learner.policy, ValueTreeParams(scrambled(state.params), world.tree)
    user = policy.user_state(params.learned, jnp.full((1, 3), 0.3), jnp.ones(1), jnp.zeros((1, 9)))
    nothing = jnp.full((1, LENGTH), -1)
    values = np.asarray(policy.item_values(params, user, jnp.asarray([[1]]), nothing))[0, 0]
    best = tree.leaf_items[tree.num_children + np.argmax(values)]
    past = past_leaves_of(world.tree, nothing.at[0, 0].set(int(best)))
    loss = jax.jit(learner._backup_loss)
    once, twice = (loss(params, user, jnp.asarray([node]), past) for node in ([1], [1, 1]))
    assert float(once) == pytest.approx(float(twice), rel=1e-5)
    assert float(once) != pytest.approx(float(loss(params, user, jnp.asarray([[1]]), nothing)))


@pytest.mark.parametrize(
    ("count", "gathered_bytes"),
    [pytest.param(2, 2**22, marks=pytest.mark.long), (8, 2**22), pytest.param(2, 0, marks=pytest.mark.long)],
)
def test_many_devices_learn_what_one_does(count, gathered_bytes, monkeypatch):
    monkeypatch.setattr(node_batching, "_GATHERED_BYTES", gathered_bytes)
    learner, world, state, _ = problem(2, beam=2)
    learned = scrambled(state.params)

    def losses():
        current, found = dataclasses.replace(state, params=learned), []
        # A function of its own: one that was compiled before would not see what is patched.
        step = jax.jit(lambda state, world: learner.train_step(state, world))
        for _ in range(3):
            current, metrics = step(current, world)
            found.append([float(metrics[name]) for name in ("backup", "persistence", "reward")])
        return found

    expected = losses()
    with device_mesh(DevicesConfig(count=count), 16, "train.episodes_per_step", 1):
        np.testing.assert_allclose(losses(), expected, rtol=2e-4)


@pytest.mark.parametrize("name", [path.stem for path in sorted(ABLATIONS.glob("*.yaml"))])
def test_every_ablation_composes_and_changes_one_thing(name):
    whole, without = (
        leaves(composed_values("train", ["+experiment=movielens", "agent=tpgr_plus", f"+ablation={choice}"]))
        for choice in ("none", name)
    )
    read_settings(RunConfig, composed_values("train", ["agent=tpgr_plus", f"+ablation={name}"]))
    changed = {key for key in whole if whole[key] != without[key]}
    schedule = {key for key in changed if key.startswith("train.")}
    assert whole.keys() == without.keys()
    assert len(changed - schedule) == (0 if name in ("none", "untrained_heads") else 1)
    assert bool(schedule) == (name == "untrained_heads")


def leaves(values, prefix=""):
    """Settings by their dotted names."""
    found = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
