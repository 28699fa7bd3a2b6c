"""One update of a level: TD targets, losses, gradients, Adam and target networks, each from its formula."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrlmg_jax.agent.ddpg import (
    Batch,
    LevelConfig,
    LevelState,
    OptimizerConfig,
    actor_critic_loss,
    fit_rewards,
    optimizers,
    td_targets,
    update_level,
)
from hrlmg_jax.agent.networks import ActorCritic, NetworkConfig
from hrlmg_jax.retrieval.index import ItemIndex, nearest_embedding

E, M, B, N, ITEMS = 4, 2, 6, 3, 9
DIRECTIONS = np.random.default_rng(0).normal(size=(ITEMS, E))
EMBEDDING = jnp.asarray(DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True), jnp.float32)


def make_networks(heads: int = M, directions: int = 0, **changes: Any) -> ActorCritic:
    settings: dict[str, Any] = {
        "hidden_size": 3,
        "state_size": 4,
        "critic_width": 6,
        "action_norm": "unit",
        "action_bound": 1.0,
        "q_output": "linear",
        "critics": "twin",
    }
    return ActorCritic(NetworkConfig(**{**settings, **changes}), heads, E, directions)


def random_params(networks: ActorCritic, seed: int) -> dict[str, Any]:
    shapes = jax.eval_shape(networks.init, jax.random.key(0))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: generator.normal(0, 0.7, leaf.shape).astype(np.float32), shapes)


def make_batch(heads: int = M, directions: int = 0, seed: int = 1) -> Batch:
    """The second transition ends a session; the third and fourth lack stages."""
    generator = np.random.default_rng(seed)
    histories = generator.integers(-1, ITEMS, (4, B, N)).astype(np.int32)
    active = np.ones((B, heads))
    active[2, -1] = active[3] = 0

    def normal(*shape: int) -> Any:  # NumPy's arrays: taking rows of them compiles nothing
        return generator.normal(size=shape).astype(np.float32)

    return Batch(
        state=(histories[0], histories[1]),
        action=normal(B, heads, E),
        reward=normal(B, heads),
        active=active.astype(np.float32),
        discount=np.array([0.9, 0.0, 0.5, 0.9, 0.81, 0.9], np.float32),
        next_state=(histories[2], histories[3]),
        directions=normal(B, directions, E) if directions else None,
        next_directions=normal(B, directions, E) if directions else None,
    )


def identity(vector: jax.Array) -> jax.Array:
    return vector


@functools.cache
def compiled_targets(networks: ActorCritic) -> Any:
    return jax.jit(lambda target, batch: td_targets(networks, target, batch, EMBEDDING, identity))


@functools.cache
def compiled_gradients(networks: ActorCritic) -> Any:
    """Gradients of the losses with respect to the parameters, and metrics."""
    return jax.jit(
        jax.grad(
            lambda params, batch, targets: actor_critic_loss(networks, params, batch, targets, EMBEDDING), has_aux=True
        )
    )


# Each network alone, one transition at a time: what `td_targets` and `actor_critic_loss` are made of.


def action_of(networks: ActorCritic, params: Any, first: Any, second: Any, seen: Any) -> jax.Array:
    """[M, E] for the histories [N] of one transition."""
    return networks.act(params["actor"], first, second, EMBEDDING, seen).vector


def value_of(
    networks: ActorCritic, params: Any, number: int, first: Any, second: Any, action: Any, seen: Any
) -> jax.Array:
    """[M] by one of the critics, for one transition."""
    own = jax.tree.map(lambda leaf: leaf[number], params["critic"])
    state = networks.encoder.apply({"params": own["encoder"]}, first, second, EMBEDDING)
    single = jax.tree.map(lambda leaf: leaf[None], own)
    batched = None if seen is None else seen[None]
    return networks.value(single, state[None, None], action[None], batched)[0, 0]


def row(tree: Any, b: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[b], tree)


CASES = [
    pytest.param({}, M, 0, id="two heads"),
    pytest.param({}, M, 3, id="two heads, three directions"),
    pytest.param(
        {"critics": "single", "q_output": "relu", "action_norm": "tanh", "action_bound": 2.0}, 1, 1, id="one direction"
    ),
]


@pytest.mark.parametrize(("changes", "heads", "directions"), CASES)
def test_targets_are_rewards_and_the_least_primed_value_of_the_primed_action(
    changes: dict[str, Any], heads: int, directions: int
) -> None:
    networks = make_networks(heads, directions, **changes)
    target, batch = random_params(networks, 2), make_batch(heads, directions)

    @jax.jit
    def values(first: Any, second: Any, seen: Any) -> jax.Array:
        action = action_of(networks, target, first, second, seen)
        numbers = range(networks.config.num_critics)
        return jnp.stack([value_of(networks, target, k, first, second, action, seen) for k in numbers])

    found = compiled_targets(networks)(target, batch)
    assert found.shape == (B, heads)
    chosen = set()
    for b in range(B):
        q = np.asarray(values(*row(batch.next_state, b), row(batch.next_directions, b)), np.float64)
        chosen |= set(q.argmin(0).tolist())
        expected = np.asarray(batch.reward[b]) + float(batch.discount[b]) * q.min(0)
        np.testing.assert_allclose(found[b], expected, atol=1e-5)
    np.testing.assert_array_equal(found[1], batch.reward[1])  # discount 0: nothing follows
    assert chosen == set(range(networks.config.num_critics))


def test_targets_ask_the_critics_about_the_executed_item() -> None:
    """`item`: the embedding of the item nearest to the primed proto-action, found among the catalogue."""
    networks = make_networks(1)
    target, batch, catalogue = random_params(networks, 2), make_batch(1), 6
    index = ItemIndex(EMBEDDING, catalogue)

    @jax.jit
    def step(first: Any, second: Any) -> jax.Array:
        return action_of(networks, target, first, second, None)

    @jax.jit
    def values(first: Any, second: Any, action: Any) -> jax.Array:
        return jnp.stack([value_of(networks, target, k, first, second, action, None) for k in range(2)])

    found = jax.jit(
        lambda target: td_targets(
            networks, target, batch, index.embedding, lambda proto: nearest_embedding(proto[:, 0], index)[:, None]
        )
    )(target)
    for b in range(B):
        proto = np.asarray(step(*row(batch.next_state, b)))[0]
        item = max(range(catalogue), key=lambda i, proto=proto: float(EMBEDDING[i] @ proto))
        q = np.asarray(values(*row(batch.next_state, b), jnp.asarray(EMBEDDING[item])[None]))
        expected = np.asarray(batch.reward[b]) + float(batch.discount[b]) * q.min(0)
        np.testing.assert_allclose(found[b], expected, atol=1e-5)


@pytest.mark.parametrize(("changes", "heads", "directions"), CASES)
def test_losses_and_gradients_are_equations_16_to_21(changes: dict[str, Any], heads: int, directions: int) -> None:
    """Losses summed over critics and heads, each a mean over transitions; the policy gradient by the chain rule.

    The critics are moved by their own loss alone, and the actor by the first critic's gradient at the proto-action
    alone, though both come from one sum.
    """
    networks = make_networks(heads, directions, **changes)
    params, batch = random_params(networks, 15), make_batch(heads, directions)
    targets = np.random.default_rng(4).normal(size=(B, heads)).astype(np.float32)

    @jax.jit
    def of_one(params: Any, transition: Batch, target: jax.Array) -> tuple[Any, ...]:
        """Squared errors and their gradient; value of the actor's action and the product of two gradients."""
        state, seen = transition.state, transition.directions

        def squared_errors(critic: Any) -> jax.Array:
            total = jnp.float32(0)
            for k in range(networks.config.num_critics):
                q = value_of(networks, {"critic": critic}, k, *state, transition.action, seen)
                total += sum(transition.active[i] * (target[i] - q[i]) ** 2 for i in range(heads))
            return total

        action, pull_back = jax.vjp(lambda actor: action_of(networks, {"actor": actor}, *state, seen), params["actor"])
        value, slope = jax.value_and_grad(lambda a: jnp.sum(value_of(networks, params, 0, *state, a, seen)))(action)
        return *jax.value_and_grad(squared_errors)(params["critic"]), value, pull_back(slope)[0]

    def expected(params: Any) -> list[Any]:
        every = [jax.device_get(of_one(params, row(batch, b), targets[b])) for b in range(B)]
        return [jax.tree.map(lambda *leaves: sum(leaves) / B, *each) for each in zip(*every, strict=True)]

    gradient, metrics = jax.device_get(compiled_gradients(networks)(params, batch, targets))
    critic_loss, critic_gradient, actor_value, ascent = expected(params)
    assert float(metrics["critic_loss"]) == pytest.approx(float(critic_loss), rel=1e-5)
    assert float(metrics["actor_loss"]) == pytest.approx(-float(actor_value), rel=1e-4, abs=1e-6)
    assert float(metrics["q_of_actor"]) == pytest.approx(float(actor_value) / heads, rel=1e-4, abs=1e-6)
    for found, wanted in (
        (gradient["critic"], critic_gradient),
        (gradient["actor"], jax.tree.map(np.negative, ascent)),
    ):
        assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(wanted)) > 1e-3
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4), found, wanted)
    # And by finite differences of the mean of sum_i Q_i(s, f_i(s)), the critics held still.
    step, direction = 1e-3, random_params(networks, 10)["actor"]
    ahead, behind = (
        float(expected({**params, "actor": jax.tree.map(lambda p, d, h=h: p + h * d, params["actor"], direction)})[2])
        for h in (step, -step)
    )
    slope = -float(flatten(gradient["actor"]) @ flatten(direction))
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=0.02, abs=5e-3)


def test_a_loss_by_hand() -> None:
    """Critics that say 2 and -1 whatever they are asked: sums of squares on paper."""
    networks = make_networks()
    params = jax.tree.map(np.zeros_like, random_params(networks, 0))
    params["critic"]["heads"]["output_bias"] = np.array([[2, 2], [-1, -1]], np.float32)
    batch = dataclasses.replace(
        make_batch(), active=np.array([[1, 1], [1, 0], [0, 0], [1, 0], [1, 1], [0, 0]], np.float32)
    )
    targets = np.array([[2, 0], [3, 99], [99, 99], [1, 99], [2, -1], [99, 99]], np.float32)
    # First head: errors 0, -1, 1, 0 of the first critic and -3, -4, -2, -3 of the second; second head: 2, 3 and -1, 0.
    expected = (0 + 1 + 1 + 0 + 9 + 16 + 4 + 9 + 4 + 9 + 1 + 0) / B
    metrics = compiled_gradients(networks)(params, batch, targets)[1]
    assert float(metrics["critic_loss"]) == pytest.approx(expected)
    assert float(metrics["actor_loss"]) == pytest.approx(-4)
    assert float(metrics["q"]) == pytest.approx(0.5)
    assert float(metrics["q_of_actor"]) == pytest.approx(2)
    assert float(metrics["saturation"]) == 0


def test_a_transition_without_a_stage_teaches_its_head_nothing() -> None:
    networks, batch = make_networks(), make_batch()
    params = random_params(networks, 6)

    def gradient(batch: Batch, targets: np.ndarray) -> Any:
        return compiled_gradients(networks)(params, batch, targets)[0]

    targets = np.zeros((B, M), np.float32)
    before = flatten(gradient(batch, targets))
    action, other_targets = np.array(batch.action), targets.copy()
    for stage, change in (((2, 1), 50), (3, -20)):
        action[stage] += change
        other_targets[stage] = change
    after = gradient(dataclasses.replace(batch, action=action), other_targets)
    np.testing.assert_allclose(flatten(after), before, atol=1e-6)
    other_targets[2, 0] = 50
    assert np.abs(flatten(gradient(batch, other_targets)) - before).max() > 0.1


def test_updates_are_adams_on_the_clipped_gradients_and_targets_follow() -> None:
    """Two updates with other batches, by Adam's formulas (beta 0.9 and 0.999, epsilon 1e-8) in float64.

    The bound lies between the norms of the two networks' gradients: one is clipped, the other is not.
    """
    networks, clip_norm = make_networks(), 10.0
    tau = 0.2
    config = LevelConfig(OptimizerConfig(0.003, 0.01, clip_norm), tau, gamma=0.0, bootstrap=True)
    params, target = random_params(networks, 8), random_params(networks, 9)
    actor, critic = optimizers(config.optimizer)
    level = LevelState(params, target, (actor.init(params["actor"]), critic.init(params["critic"])))

    @jax.jit
    def step(level: LevelState, batch: Batch) -> tuple[LevelState, Any]:
        return update_level(networks, config, level, batch, EMBEDDING, identity)

    moments: dict[str, list[np.ndarray]] = {}
    for number in (1, 2):
        before = level
        batch = make_batch(seed=20 + number)
        batch = dataclasses.replace(batch, reward=50 * batch.reward)
        level, metrics = step(before, batch)
        targets = compiled_targets(networks)(before.target, batch)
        gradient = compiled_gradients(networks)(before.params, batch, targets)[0]
        for name, rate in (("actor", 0.003), ("critic", 0.01)):
            flat = flatten(gradient[name])
            norm = np.linalg.norm(flat)
            assert float(metrics[f"{name}_gradient_norm"]) == pytest.approx(norm, rel=1e-4)
            assert (norm > clip_norm) == (name == "critic")
            flat *= min(1, clip_norm / norm)
            first, second = moments.get(name, [np.zeros_like(flat), np.zeros_like(flat)])
            moments[name] = [0.9 * first + 0.1 * flat, 0.999 * second + 0.001 * flat**2]
            mean, square = moments[name][0] / (1 - 0.9**number), moments[name][1] / (1 - 0.999**number)
            expected = flatten(before.params[name]) - rate * mean / (np.sqrt(square) + 1e-8)
            known = np.abs(flat) > 1e-5  # elsewhere a gradient of rounding errors decides the direction
            np.testing.assert_allclose(flatten(level.params[name])[known], expected[known], atol=2e-5)
            assert np.abs(flatten(level.params[name]) - flatten(before.params[name])).max() > rate / 2
        followed = tau * flatten(level.params) + (1 - tau) * flatten(before.target)
        np.testing.assert_allclose(flatten(level.target), followed, atol=1e-6)


def test_a_supervised_update_fits_the_rewards_alone_and_leaves_the_actor() -> None:
    networks = make_networks(heads=1)
    config = LevelConfig(OptimizerConfig(actor_rate=0.003, critic_rate=0.01, clip_norm=1e9), 0.1, 0.0, True)
    actor, critic = optimizers(config.optimizer)
    params = random_params(networks, 3)
    level = LevelState(params, params, (actor.init(params["actor"]), critic.init(params["critic"])))
    batch = make_batch(heads=1, seed=5)

    @jax.jit
    def step(level: LevelState, batch: Batch) -> tuple[LevelState, Any]:
        return fit_rewards(networks, config, level, batch, EMBEDDING)

    after, metrics = step(level, batch)
    loss = 0.0
    for number, b in itertools.product(range(2), range(B)):
        q = value_of(networks, params, number, *row(batch.state, b), batch.action[b], None)
        loss += float(batch.active[b, 0] * (q[0] - batch.reward[b, 0]) ** 2) / B
    assert float(metrics["critic_loss"]) == pytest.approx(loss, rel=1e-5)
    assert set(metrics) == {"critic_loss", "q", "critic_gradient_norm"}
    # What follows plays no part.
    other = step(level, dataclasses.replace(batch, next_state=batch.state, discount=0 * batch.discount))[0]
    jax.tree.map(np.testing.assert_array_equal, after, other)
    jax.tree.map(np.testing.assert_array_equal, after.params["actor"], params["actor"])
    jax.tree.map(np.testing.assert_array_equal, after.opt_state[0], level.opt_state[0])
    gradient = compiled_gradients(networks)(params, batch, batch.reward)[0]["critic"]
    moved = flatten(after.params["critic"]) - flatten(params["critic"])
    known = np.abs(flatten(gradient)) > 1e-5
    np.testing.assert_allclose(moved[known], -0.01 * np.sign(flatten(gradient)[known]), rtol=1e-2)  # Adam's first step


def flatten(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
