"""What the value-based learners share, from its formulas; resuming, and what exploration may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf
from three_items import make_three_items

from harness.errors import UserError
from harness.settings import read_settings
from sim.envs.rating_env import Observation
from tpgr_jax.baselines.ddpg_knn import DdpgKnnPolicyConfig
from tpgr_jax.baselines.dqn_r import DqnConfig, DqnR, QPolicyConfig, make_dqn_r
from tpgr_jax.baselines.item_ddpg import ItemDdpgConfig, ItemDdpgPolicyConfig
from tpgr_jax.baselines.replay_learner import ReplayState, World, epsilon_greedy, regression_loss, td_targets
from tpgr_jax.networks.encoder import with_item_embedding


def test_targets_by_hand() -> None:
    reward, following = jnp.asarray([[1.0, -1.0], [0.5, 0.0], [2.0, 3.0]]), jnp.asarray([[4.0, 2.0], [-1.0, 10.0]])
    # Nothing counts after the third step.
    np.testing.assert_allclose(td_targets(reward, following, 0.5), [[3, 0], [0, 5], [2, 3]])
    np.testing.assert_allclose(td_targets(reward[:1], jnp.zeros((0, 2)), 0.5), [[1, -1]])


def test_losses_by_hand() -> None:
    value, target = jnp.asarray([0.0, 1.0, 5.0]), jnp.asarray([0.5, 1.0, 2.0])
    assert float(regression_loss(value, target, "squared")) == pytest.approx((0.125 + 0 + 4.5) / 3)
    assert float(regression_loss(value, target, "huber")) == pytest.approx((0.125 + 0 + 2.5) / 3)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("allow_repeats", [False, True])
def test_exploration_takes_a_share_of_random_available_items(epsilon: float, allow_repeats: bool) -> None:
    number, items, past = 20_000, 5, [3, 1]
    observation = Observation(
        step=jnp.full(number, 2),
        recommended=jnp.tile(jnp.asarray([] if allow_repeats else [*past, -1], jnp.int32), (number, 1)),
        last_item=jnp.full(number, 1),
        last_reward=jnp.zeros(number),
        last_empirical=jnp.zeros(number),
        status=jnp.zeros((number, 9)),
    )
    greedy = jnp.full(number, 4)
    found = epsilon_greedy(jax.random.key(0), jnp.float32(epsilon), greedy, observation, items)
    left = [item for item in range(items) if allow_repeats or item not in past]
    share = np.bincount(found, minlength=items) / number
    expected = np.isin(np.arange(items), left) * epsilon / len(left) + (1 - epsilon) * (np.arange(items) == 4)
    np.testing.assert_allclose(share, expected, atol=5 * np.sqrt(0.25 / number))
    np.testing.assert_array_equal(share[expected == 0], 0)


def learner_settings(**changes: Any) -> DqnConfig:
    settings: dict[str, Any] = {
        "discount": 0.6,
        "updates_per_step": 2,
        "batch_episodes": 8,
        "replay_episodes": 20,
        "target_rate": 0.05,
        "loss": "squared",
        "clip_norm": 10.0,
        "epsilon": 1.0,
        "epsilon_end": 0.2,
        "epsilon_steps": 4,
        "learning_rate": 0.01,
        "double": True,
    }
    return read_settings(DqnConfig, {**settings, **changes}, "agent.learner")


def make_learner() -> tuple[DqnR, World]:
    env, env_params = make_three_items()
    policy = QPolicyConfig(
        embedding_size=3,
        state_hidden=4,
        embedding="random",
        embedding_epochs=1,
        train_embedding=True,
        status_in_rnn=True,
        hidden=[5],
        dueling=True,
    )
    return make_dqn_r(policy, learner_settings(), env, 6), World(env_params)


def test_a_state_that_was_saved_continues_bit_by_bit() -> None:
    learner, world = make_learner()
    step = jax.jit(learner.train_step)
    state, epsilons = jax.jit(learner.init)(jax.random.key(3)), []
    for _ in range(3):
        state, metrics = step(state, world)
        epsilons.append(float(metrics["epsilon"]))
    np.testing.assert_allclose(epsilons, [1.0, 0.8, 0.6], atol=1e-6)
    plain = state.replace(key=jax.random.key_data(state.key))
    restored = flax.serialization.from_bytes(plain, flax.serialization.to_bytes(plain))
    restored = jax.tree.map(jnp.asarray, restored)
    again: ReplayState = restored.replace(key=jax.random.wrap_key_data(restored.key))
    for _ in range(3):
        (state, metrics), (again, same) = step(state, world), step(again, world)
        assert metrics.keys() == same.keys() >= {"reward", "precision", "loss", "gradient_norm", "q", "epsilon"}
        for name in metrics:
            assert np.asarray(metrics[name]).tobytes() == np.asarray(same[name]).tobytes()
    for leaf, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(leaf, other)
    assert int(state.step) == int(again.step) == 6


def test_steps_are_remembered_and_differ() -> None:
    learner, world = make_learner()
    step = jax.jit(learner.train_step)
    state = jax.jit(learner.init)(jax.random.key(0))
    for done in range(1, 5):
        state, _ = step(state, world)
        assert int(state.replay.size) == min(6 * done, 20)
    items = np.asarray(state.replay.rows.item)
    assert (items[:, 0] != items[:, 1]).all()  # nothing twice in an episode
    assert len({tuple(row) for row in items.tolist()}) > 3


def test_a_pretrained_embedding_reaches_both_networks() -> None:
    learner, _ = make_learner()
    table = np.arange(9.0).reshape(3, 3)
    state = jax.jit(learner.init)(jax.random.key(0))
    state = learner.with_params(state, with_item_embedding(state.params, table))
    for params in (state.params, state.target):
        np.testing.assert_array_equal(params["encoder"]["item_embedding"], table)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("discount", 1.1),
        ("updates_per_step", 0),
        ("batch_episodes", 0),
        ("replay_episodes", 0),
        ("target_rate", 0.0),
        ("loss", "absolute"),
        ("clip_norm", 0.0),
        ("epsilon", 1.5),
        ("epsilon_end", -0.1),
        ("epsilon_steps", -1),
        ("learning_rate", 0.0),
    ],
)
def test_wrong_settings_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"agent\.learner\.{key}"):
        learner_settings(**{key: value})


@pytest.mark.parametrize(
    ("name", "policy", "learner"),
    [
        ("dqn_r", QPolicyConfig, DqnConfig),
        ("ddpg_knn", DdpgKnnPolicyConfig, ItemDdpgConfig),
        ("ddpg_r", ItemDdpgPolicyConfig, ItemDdpgConfig),
    ],
)
def test_the_configured_settings_are_accepted(repository: Path, name: str, policy: Any, learner: Any) -> None:
    config = OmegaConf.load(repository / "conf" / "agent" / f"{name}.yaml")
    assert config.name == name
    assert read_settings(policy, config.policy, "agent.policy").hidden == [32, 16]
    assert read_settings(learner, config.learner, "agent.learner").discount == 0.6


def test_a_memory_smaller_than_a_training_step_is_refused() -> None:
    learner, _ = make_learner()
    with pytest.raises(UserError, match=r"agent\.learner\.replay_episodes.*train\.episodes_per_step"):
        DqnR(learner.env, learner.policy, learner.config, 21)
