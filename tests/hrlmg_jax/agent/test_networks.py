"""Actors and critics against NumPy; where proposals lie; that heads and twins share nothing but the encoder."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.errors import UserError
from harness.settings import read_settings
from hrlmg_jax.agent.history_encoder import HistoryEncoder
from hrlmg_jax.agent.networks import ActorCritic, NetworkConfig
from sim.envs.nearest_items import unit

E, S, B, N, ITEMS = 6, 4, 3, 3, 8


def config(**changes: Any) -> NetworkConfig:
    settings: dict[str, Any] = {
        "hidden_size": 3,
        "state_size": S,
        "critic_width": 5,
        "action_norm": "unit",
        "action_bound": 1.0,
        "q_output": "linear",
        "critics": "twin",
    }
    return read_settings(NetworkConfig, {**settings, **changes}, "agent.network")


def random_params(networks: ActorCritic, seed: int = 0) -> dict[str, Any]:
    """Parameters of every kind away from zero."""
    shapes = jax.eval_shape(networks.init, jax.random.key(0))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: generator.normal(0, 0.6, leaf.shape).astype(np.float32), shapes)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def with_activation(networks: ActorCritic, activation: np.ndarray) -> dict[str, Any]:
    """An actor whose z is the same [M * E] numbers in every state."""
    params = random_params(networks)["actor"]
    output = params["heads"]["output"]
    heads = {"output": {"kernel": np.zeros_like(output["kernel"]), "bias": activation.astype(np.float32)}}
    return {**params, "heads": heads}


# --- Actors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("norm", ["unit", "tanh"])
def test_proposals_are_equation_5_with_one_linear_layer_per_head(heads: int, norm: str) -> None:
    networks = ActorCritic(config(action_norm=norm, action_bound=2.5), heads, E)
    actor, state = random_params(networks)["actor"], normal(B, S)
    found = np.asarray(networks.propose(actor, state, None).vector)
    assert found.shape == (B, heads, E)
    weight = np.asarray(actor["heads"]["output"]["kernel"], np.float64).reshape(S, heads, E)
    bias = np.asarray(actor["heads"]["output"]["bias"], np.float64).reshape(heads, E)
    for b in range(B):
        for i in range(heads):
            squashed = np.tanh(np.asarray(state[b], np.float64) @ weight[:, i] + bias[i])
            expected = squashed / np.linalg.norm(squashed) if norm == "unit" else 2.5 * squashed
            np.testing.assert_allclose(found[b, i], expected, atol=1e-6)


def test_unit_proposals_have_norm_one_and_tanh_proposals_stay_within_the_bound() -> None:
    for scale in (1e-3, 1.0, 100.0):
        state = scale * normal(50, S)
        for norm, bound in (("unit", 7.0), ("tanh", 0.5), ("tanh", 3.0)):
            networks = ActorCritic(config(action_norm=norm, action_bound=bound), 2, E)
            vector = np.asarray(networks.propose(random_params(networks)["actor"], state, None).vector)
            if norm == "unit":
                np.testing.assert_allclose(np.linalg.norm(vector, axis=-1), 1, atol=1e-5)
            else:
                assert np.abs(vector).max() <= bound
                if scale == 100:
                    assert np.abs(vector).max() == pytest.approx(bound, rel=1e-3)


def test_saturation_is_the_share_of_tanh_outputs_beyond_0_99() -> None:
    """tanh(2.6) = 0.989, tanh(2.7) = 0.991."""
    networks = ActorCritic(config(), 2, E)
    for activation, expected in (
        (np.zeros(2 * E), 0),
        (np.full(2 * E, 2.6), 0),
        (np.full(2 * E, -2.7), 1),
        (np.resize([-5.0, 0.5], 2 * E), 0.5),
        (np.resize([2.6, 2.7, -2.7], 2 * E), 2 / 3),
    ):
        saturation = networks.propose(with_activation(networks, activation), normal(B, S), None).saturation
        assert saturation.shape == (B, 2)
        np.testing.assert_allclose(saturation, expected, atol=1e-6)


def test_each_actor_parameter_behind_the_encoder_moves_one_head_only() -> None:
    networks = ActorCritic(config(), 3, E)
    actor, state = random_params(networks)["actor"], normal(S)

    def propose(heads: Any) -> jax.Array:
        return networks.propose({**actor, "heads": heads}, state, None).vector

    owners = heads_moved_by(jax.jit(jax.jacrev(propose))(actor["heads"]), 3)
    assert (owners.sum(0) == 1).all()
    assert owners.sum(1).tolist() == [S * E + E] * 3


def heads_moved_by(jacobian: Any, heads: int) -> np.ndarray:
    """Returns [heads, P]: whether output [heads, ...] of a head depends on each of P parameters."""
    rows = []
    for leaf in jax.tree.leaves(jacobian):
        outputs = np.asarray(leaf).reshape(heads, -1, *leaf.shape[2:]) if leaf.ndim > 1 else np.asarray(leaf)
        rows.append(np.any(outputs != 0, axis=1).reshape(heads, -1))
    return np.concatenate(rows, axis=1)


@pytest.mark.parametrize("norm", ["unit", "tanh"])
def test_actors_go_along_directions_by_weights_that_depend_on_all_they_see(norm: str) -> None:
    """z_i + sum_k 4 w_ik d_k in NumPy, z and w linear in the state and the directions; a state alone has neither."""
    heads, number = 2, 3
    networks = ActorCritic(config(action_norm=norm, action_bound=1.5), heads, E, number)
    actor, state, directions = random_params(networks)["actor"], normal(B, S), normal(B, number, E, seed=2)
    layers = actor["heads"]
    size = S + number * E
    assert layers["output"]["kernel"].shape == (size, heads * E)
    found = np.asarray(networks.propose(actor, state, directions).vector)
    for b in range(B):
        seen = np.concatenate([state[b], *directions[b]]).astype(np.float64)
        z = (seen @ layers["output"]["kernel"] + layers["output"]["bias"]).reshape(heads, E)
        weights = 4 * (seen @ layers["weights"]["kernel"] + layers["weights"]["bias"]).reshape(heads, number)
        along = weights @ np.asarray(directions[b], np.float64)
        for i in range(heads):
            expected = np.tanh(z[i]) + along[i] if norm == "unit" else 1.5 * np.tanh(z[i] + along[i])
            expected = expected / np.linalg.norm(expected) if norm == "unit" else expected
            np.testing.assert_allclose(found[b, i], expected, atol=1e-5)
    assert "weights" not in random_params(ActorCritic(config(), heads, E))["actor"]["heads"]


def test_an_untrained_actor_follows_no_direction() -> None:
    networks = ActorCritic(config(), 2, E, 3)
    weights = jax.jit(networks.init)(jax.random.key(0))["actor"]["heads"]["weights"]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(weights))


def test_critics_see_directions_and_how_near_actions_are_to_them() -> None:
    heads, number = 2, 3
    networks = ActorCritic(config(), heads, E, number)
    critic = random_params(networks)["critic"]
    hidden = np.asarray(critic["heads"]["hidden"], np.float64)
    assert hidden.shape == (2, heads, S + number * E + E + number, 5)
    states, action, directions = normal(2, B, S), normal(B, heads, E, seed=1), normal(B, number, E, seed=2)
    found = np.asarray(networks.value(critic, states, action, directions))
    for k in range(2):
        for b in range(B):
            for i in range(heads):
                near = [float(action[b, i] @ direction) for direction in directions[b]]
                seen = np.concatenate([states[k, b], *directions[b], action[b, i], near])
                first = np.maximum(seen @ hidden[k, i] + critic["heads"]["hidden_bias"][k, i], 0)
                expected = first @ critic["heads"]["output"][k, i, :, 0] + critic["heads"]["output_bias"][k, i]
                assert found[k, b, i] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("norm", ["unit", "tanh"])
def test_noise_moves_proposals_but_not_out_of_where_they_lie(norm: str) -> None:
    networks = ActorCritic(config(action_norm=norm, action_bound=0.8), 2, E)
    vector = networks.propose(random_params(networks)["actor"], normal(40, S), None).vector
    for deviation in (0.05, 1.0, 10.0):
        noisy = np.asarray(networks.perturb(vector, deviation, jax.random.key(0)))
        assert noisy.shape == vector.shape
        assert (np.abs(noisy - vector).max(-1) > 1e-3).all()
        if norm == "unit":
            np.testing.assert_allclose(np.linalg.norm(noisy, axis=-1), 1, atol=1e-5)
        else:
            assert np.abs(noisy).max() <= np.float32(0.8)
    np.testing.assert_allclose(networks.perturb(vector, 0.0, jax.random.key(0)), vector, atol=1e-6)


def test_noise_in_the_box_is_gaussian_of_the_given_deviation() -> None:
    networks = ActorCritic(config(action_norm="tanh", action_bound=100.0), 1, E)
    noise = np.asarray(networks.perturb(jnp.full((4000, 1, E), 3.0), 0.1, jax.random.key(1))) - 3
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs(noise.mean()) < 0.003
    assert np.mean(np.abs(noise) < 0.1) == pytest.approx(0.6827, abs=0.01)
    assert np.abs(np.corrcoef(noise[:, 0].T) - np.eye(E)).max() < 0.06


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)))
def test_unit_keeps_the_direction_and_zero(vectors: np.ndarray) -> None:
    hypothesis.assume(
        all(
            norm > 1e-4 or not vector.any()
            for vector, norm in zip(vectors, np.linalg.norm(vectors, axis=-1), strict=True)
        )
    )
    found = np.asarray(unit(jnp.asarray(vectors)))
    for vector, result in zip(vectors.astype(np.float64), found, strict=True):
        norm = np.linalg.norm(vector)
        np.testing.assert_allclose(result, vector / norm if norm else 0, atol=1e-5)


def test_the_gradient_of_unit_is_finite_at_zero_and_right_elsewhere() -> None:
    jacobian = jax.jacrev(unit)
    assert np.isfinite(np.asarray(jacobian(jnp.zeros(4)))).all()
    vector = np.array([1.0, -2.0, 0.5, 3.0])
    norm = np.linalg.norm(vector)
    expected = np.eye(4) / norm - np.outer(vector, vector) / norm**3
    np.testing.assert_allclose(jacobian(jnp.asarray(vector, jnp.float32)), expected, atol=1e-6)


def test_gradients_through_an_actor_whose_output_is_zero_are_finite() -> None:
    networks = ActorCritic(config(), 1, E)
    actor = with_activation(networks, np.zeros(E))
    gradient = jax.grad(lambda actor: jnp.sum(networks.propose(actor, normal(B, S), None).vector))(actor)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(gradient))


# --- Critics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("critics", ["single", "twin"])
@pytest.mark.parametrize("output", ["linear", "relu"])
def test_values_are_equations_6_and_7_for_each_critic_and_head(heads: int, critics: str, output: str) -> None:
    networks = ActorCritic(config(critics=critics, q_output=output), heads, E)
    count = {"single": 1, "twin": 2}[critics]
    assert networks.config.num_critics == count
    critic = random_params(networks, seed=5)["critic"]
    states, action = normal(count, 60, S), normal(60, heads, E, seed=1)
    found = np.asarray(networks.value(critic, states, action, None))
    assert found.shape == (count, 60, heads)
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in critic["heads"].items()}
    linear = np.zeros(found.shape)
    for k, b, i in np.ndindex(*found.shape):
        inputs = np.concatenate([states[k, b], action[b, i]]).astype(np.float64)
        hidden = np.maximum(inputs @ weights["hidden"][k, i] + weights["hidden_bias"][k, i], 0)
        linear[k, b, i] = hidden @ weights["output"][k, i, :, 0] + weights["output_bias"][k, i]
    assert linear.min() < 0 < linear.max()
    np.testing.assert_allclose(found, np.maximum(linear, 0) if output == "relu" else linear, atol=1e-5)


def test_each_critic_parameter_behind_the_encoder_moves_one_head_of_one_critic_only() -> None:
    networks = ActorCritic(config(), 3, E)
    critic, states, action = random_params(networks)["critic"], normal(2, 20, S), normal(20, 3, E, seed=1)

    def values(heads: Any) -> jax.Array:  # [6, 20]: six functions, seen at twenty points
        return networks.value({**critic, "heads": heads}, states, action, None).transpose(0, 2, 1).reshape(6, 20)

    owners = heads_moved_by(jax.jit(jax.jacrev(values))(critic["heads"]), 6)
    assert owners.sum(0).max() == 1
    assert (owners.sum(1) <= (S + E) * 5 + 5 + 5 + 1).all()
    assert owners.any(1).all()


def test_a_goal_is_valued_by_its_own_head_only() -> None:
    networks = ActorCritic(config(), 3, E)
    critic, states, action = random_params(networks)["critic"], normal(2, B, S), normal(B, 3, E, seed=1)
    before = np.asarray(networks.value(critic, states, action, None))
    changed = before != np.asarray(networks.value(critic, states, action.at[:, 1].add(1.0), None))
    assert changed[:, :, 1].all()
    assert not changed[:, :, [0, 2]].any()


# --- Encoders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("critics", ["single", "twin"])
def test_all_encoders_of_a_level_at_once_give_what_each_gives_alone(critics: str) -> None:
    networks = ActorCritic(config(critics=critics), 2, E)
    params = random_params(networks)
    embedding = normal(ITEMS, E, seed=5)
    first, second = jnp.asarray(np.random.default_rng(6).integers(-1, ITEMS, (2, B, N)), jnp.int32)
    actor_state, critic_states = jax.jit(networks.encode)(params, first, second, embedding)
    assert actor_state.shape == (B, S)
    assert critic_states.shape == ({"single": 1, "twin": 2}[critics], B, S)

    @jax.jit
    def alone(encoder: Any) -> jax.Array:
        return HistoryEncoder(3, S).apply({"params": encoder}, first, second, embedding)

    np.testing.assert_allclose(actor_state, alone(params["actor"]["encoder"]), atol=1e-6)
    for k, state in enumerate(critic_states):
        own = jax.tree.map(lambda leaf, k=k: leaf[k], params["critic"]["encoder"])
        np.testing.assert_allclose(state, alone(own), atol=1e-6)
        assert np.abs(np.asarray(state - actor_state)).max() > 1e-3
    np.testing.assert_allclose(
        jax.jit(networks.act)(params["actor"], first, second, embedding, None).vector,
        networks.propose(params["actor"], actor_state, None).vector,
        atol=1e-6,
    )


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 0),
        ("state_size", 0),
        ("critic_width", -1),
        ("action_norm", "sphere"),
        ("action_bound", 0.0),
        ("action_bound", float("inf")),
        ("q_output", "softplus"),
        ("critics", "triple"),
    ],
)
def test_a_bad_setting_is_named(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"agent.network.{key}"):
        config(**{key: value})
