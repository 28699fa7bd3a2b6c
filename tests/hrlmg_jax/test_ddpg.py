"""One update of a level: TD targets, losses, gradients, Adam and target networks, each from its formula."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrlmg_jax.ddpg import (
    Batch,
    LevelState,
    OptimizerConfig,
    init_level,
    losses,
    optimizers,
    soft_update,
    td_targets,
    update_level,
)
from hrlmg_jax.networks import ActorCritic, NetworkConfig
from hrlmg_jax.retrieval import ItemIndex, nearest_embedding

E, M, B, N, ITEMS = 4, 2, 5, 3, 9
EMBEDDING = np.random.default_rng(0).normal(size=(ITEMS, E)).astype(np.float32)
EMBEDDING /= np.linalg.norm(EMBEDDING, axis=1, keepdims=True)


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled without optimisation, which is what takes long."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def make_networks(heads: int = M, goal_conditioned: bool = False, **changes: Any) -> ActorCritic:
    settings: dict[str, Any] = {
        "hidden_size": 3,
        "state_size": 4,
        "critic_width": 6,
        "action_norm": "unit",
        "action_bound": 1.0,
        "q_output": "linear",
        "critics": "twin",
    }
    return ActorCritic(NetworkConfig(**{**settings, **changes}), heads, E, goal_conditioned)


def random_params(networks: ActorCritic, seed: int) -> dict[str, Any]:
    shapes = jax.eval_shape(networks.init, jax.random.key(0))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.7, leaf.shape), jnp.float32), shapes)


def make_batch(heads: int = M, goal_conditioned: bool = False, seed: int = 1) -> Batch:
    """The second transition ends a session; the third and fourth lack stages."""
    generator = np.random.default_rng(seed)
    histories = jnp.asarray(generator.integers(-1, ITEMS, (4, B, N)), jnp.int32)
    active = np.ones((B, heads))
    active[2, -1] = active[3] = 0

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    return Batch(
        state=(histories[0], histories[1]),
        action=normal(B, heads, E),
        reward=normal(B, heads),
        active=jnp.asarray(active, jnp.float32),
        discount=jnp.asarray([0.9, 0.0, 0.5, 0.9, 0.81]),
        following=(histories[2], histories[3]),
        goal=normal(B, E) if goal_conditioned else None,
        following_goal=normal(B, E) if goal_conditioned else None,
    )


def identity(vector: jax.Array) -> jax.Array:
    return vector


# Each network alone, one transition at a time: what `td_targets` and `losses` are made of.


def action_of(networks: ActorCritic, params: Any, first: Any, second: Any, goal: Any) -> jax.Array:
    """[M, E] for the histories [N] of one transition."""
    return networks.act(params["actor"], first, second, jnp.asarray(EMBEDDING), goal).vector


def value_of(
    networks: ActorCritic, params: Any, number: int, first: Any, second: Any, action: Any, goal: Any
) -> jax.Array:
    """[M] by one of the critics, for one transition."""
    own = jax.tree.map(lambda leaf: leaf[number], params["critic"])
    state = networks.encoder.apply({"params": own["encoder"]}, first, second, jnp.asarray(EMBEDDING))
    single = jax.tree.map(lambda leaf: leaf[None], own)
    batched_goal = None if goal is None else goal[None]
    return networks.value(single, state[None, None], action[None], batched_goal)[0, 0]


def row(tree: Any, b: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[b], tree)


CASES = [
    pytest.param({}, 1, False, id="low"),
    pytest.param({}, M, False, id="high"),
    pytest.param(
        {"critics": "single", "q_output": "relu", "action_norm": "tanh", "action_bound": 2.0}, M, False, id="paper"
    ),
    pytest.param({}, 1, True, id="goal-conditioned"),
]


@pytest.mark.parametrize(("changes", "heads", "goal_conditioned"), CASES)
def test_targets_are_rewards_and_the_least_primed_value_of_the_primed_action(
    changes: dict[str, Any], heads: int, goal_conditioned: bool
) -> None:
    networks = make_networks(heads, goal_conditioned, **changes)
    target, batch = random_params(networks, 2), make_batch(heads, goal_conditioned)

    @quick_jit
    def values(first: Any, second: Any, goal: Any) -> jax.Array:
        action = action_of(networks, target, first, second, goal)
        numbers = range(networks.config.num_critics)
        return jnp.stack([value_of(networks, target, k, first, second, action, goal) for k in numbers])

    found = quick_jit(lambda target: td_targets(networks, target, batch, jnp.asarray(EMBEDDING), identity))(target)
    assert found.shape == (B, heads)
    chosen = set()
    for b in range(B):
        q = np.asarray(values(*row(batch.following, b), row(batch.following_goal, b)), np.float64)
        chosen |= set(q.argmin(0).tolist())
        expected = np.asarray(batch.reward[b]) + float(batch.discount[b]) * q.min(0)
        np.testing.assert_allclose(found[b], expected, atol=1e-5)
    np.testing.assert_array_equal(found[1], batch.reward[1])  # discount 0: nothing follows
    assert chosen == set(range(networks.config.num_critics))


def test_targets_ask_the_critics_about_the_executed_item() -> None:
    """`item`: the embedding of the item nearest to the primed proto-action, found among the catalogue."""
    networks = make_networks(1)
    target, batch, catalogue = random_params(networks, 2), make_batch(1), 6
    index = ItemIndex(jnp.asarray(EMBEDDING), catalogue)

    @quick_jit
    def step(first: Any, second: Any) -> jax.Array:
        return action_of(networks, target, first, second, None)

    @quick_jit
    def values(first: Any, second: Any, action: Any) -> jax.Array:
        return jnp.stack([value_of(networks, target, k, first, second, action, None) for k in range(2)])

    found = quick_jit(
        lambda target: td_targets(
            networks, target, batch, index.embedding, lambda proto: nearest_embedding(proto[:, 0], index)[:, None]
        )
    )(target)
    for b in range(B):
        proto = np.asarray(step(*row(batch.following, b)))[0]
        item = max(range(catalogue), key=lambda i, proto=proto: float(EMBEDDING[i] @ proto))
        q = np.asarray(values(*row(batch.following, b), jnp.asarray(EMBEDDING[item])[None]))
        expected = np.asarray(batch.reward[b]) + float(batch.discount[b]) * q.min(0)
        np.testing.assert_allclose(found[b], expected, atol=1e-5)


@pytest.mark.parametrize(("changes", "heads", "goal_conditioned"), CASES)
def test_losses_and_gradients_are_equations_16_to_21(
    changes: dict[str, Any], heads: int, goal_conditioned: bool
) -> None:
    """The M losses summed over critics and heads, each a mean over transitions; the policy gradient by the chain rule.

    The critics are moved by their own loss alone and the actor by the first critic's gradient at the proto-action
    alone, though both come from one sum.
    """
    networks = make_networks(heads, goal_conditioned, **changes)
    params, batch = random_params(networks, 3), make_batch(heads, goal_conditioned)
    targets = jnp.asarray(np.random.default_rng(4).normal(size=(B, heads)), jnp.float32)
    numbers = range(networks.config.num_critics)

    @quick_jit
    def expected(params: Any) -> tuple[Any, Any, Any, Any]:
        def squared_errors(critic: Any) -> jax.Array:
            total = jnp.float32(0)
            for b in range(B):
                for k in numbers:
                    q = value_of(
                        networks, {"critic": critic}, k, *row(batch.state, b), batch.action[b], row(batch.goal, b)
                    )
                    for i in range(heads):
                        total += batch.active[b, i] * (targets[b, i] - q[i]) ** 2 / B
            return total

        actor_value, actor_gradient = jnp.float32(0), jax.tree.map(jnp.zeros_like, params["actor"])
        for b in range(B):
            state, goal = row(batch.state, b), row(batch.goal, b)
            action, pull_back = jax.vjp(
                lambda actor, state=state, goal=goal: action_of(networks, {"actor": actor}, *state, goal),
                params["actor"],
            )
            q, value_gradient = jax.value_and_grad(
                lambda action, state=state, goal=goal: jnp.sum(value_of(networks, params, 0, *state, action, goal))
            )(action)
            actor_value += q / B
            # Descent on the loss is ascent on Q.
            actor_gradient = jax.tree.map(lambda a, g: a - g / B, actor_gradient, pull_back(value_gradient)[0])
        return *jax.value_and_grad(squared_errors)(params["critic"]), actor_value, actor_gradient

    gradient, metrics = quick_jit(
        jax.grad(lambda params: losses(networks, params, batch, targets, jnp.asarray(EMBEDDING)), has_aux=True)
    )(params)
    critic_loss, critic_gradient, actor_value, actor_gradient = expected(params)
    assert float(metrics["critic_loss"]) == pytest.approx(float(critic_loss), rel=1e-5)
    assert float(metrics["actor_loss"]) == pytest.approx(-float(actor_value), rel=1e-4, abs=1e-6)
    assert float(metrics["q_of_actor"]) == pytest.approx(float(actor_value) / heads, rel=1e-4, abs=1e-6)
    for found, wanted in ((gradient["critic"], critic_gradient), (gradient["actor"], actor_gradient)):
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted)) > 1e-3
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4), found, wanted)


def test_the_actor_gradient_is_the_slope_of_the_first_critic_along_any_direction() -> None:
    """Finite differences of mean_b sum_i Q_i(s, f_i(s)), the critics held still."""
    networks = make_networks()
    params, batch = random_params(networks, 5), make_batch()
    targets = jnp.zeros((B, M))

    @quick_jit
    def climbed(actor: Any) -> jax.Array:
        total = jnp.float32(0)
        for b in range(B):
            action = action_of(networks, {"actor": actor}, *row(batch.state, b), None)
            total += jnp.sum(value_of(networks, params, 0, *row(batch.state, b), action, None)) / B
        return total

    gradient = quick_jit(jax.grad(lambda p: losses(networks, p, batch, targets, jnp.asarray(EMBEDDING))[0]))(params)
    for seed in range(4):
        direction = random_params(networks, 10 + seed)["actor"]
        step = 2e-3
        ahead, behind = (
            float(climbed(jax.tree.map(lambda p, d, s=s: p + s * step * d, params["actor"], direction)))
            for s in (1, -1)
        )
        slope = -sum(
            float(jnp.vdot(a, b))
            for a, b in zip(jax.tree.leaves(gradient["actor"]), jax.tree.leaves(direction), strict=True)
        )
        assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=0.02, abs=5e-3)


def test_a_loss_by_hand() -> None:
    """Critics that say 2 and -1 whatever they are asked: sums of squares on paper."""
    networks = make_networks()
    params = jax.tree.map(jnp.zeros_like, random_params(networks, 0))
    params["critic"]["heads"]["output_bias"] = jnp.asarray([[2.0, 2.0], [-1.0, -1.0]])
    batch = dataclasses.replace(
        make_batch(), active=jnp.asarray([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    )
    targets = jnp.asarray([[2.0, 0.0], [3.0, 99.0], [99.0, 99.0], [1.0, 99.0], [2.0, -1.0]])
    # First head: errors 0, -1, 1, 0 of the first critic and -3, -4, -2, -3 of the second; second head: 2, 3; -1, 0.
    expected = (0 + 1 + 1 + 0 + 9 + 16 + 4 + 9 + 4 + 9 + 1 + 0) / B
    metrics = losses(networks, params, batch, targets, jnp.asarray(EMBEDDING))[1]
    assert float(metrics["critic_loss"]) == pytest.approx(expected)
    assert float(metrics["actor_loss"]) == pytest.approx(-4)
    assert float(metrics["q"]) == pytest.approx(0.5)
    assert float(metrics["q_of_actor"]) == pytest.approx(2)
    assert float(metrics["saturation"]) == 0


def test_a_transition_without_a_stage_teaches_its_head_nothing() -> None:
    networks, batch = make_networks(), make_batch()
    params = random_params(networks, 6)

    @quick_jit
    def gradient(batch: Batch, targets: jax.Array) -> Any:
        return jax.grad(lambda params: losses(networks, params, batch, targets, jnp.asarray(EMBEDDING))[0])(params)

    targets = jnp.zeros((B, M))
    before = gradient(batch, targets)
    other_action = batch.action.at[2, 1].add(1.0).at[3].add(-2.0)
    after = gradient(dataclasses.replace(batch, action=other_action), targets.at[2, 1].set(50.0).at[3].set(-50.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), before, after)
    changed = gradient(batch, targets.at[2, 0].set(50.0))
    assert np.abs(np.asarray(changed["critic"]["heads"]["hidden"] - before["critic"]["heads"]["hidden"])).max() > 1e-2


def test_no_gradient_passes_from_the_targets() -> None:
    """Even where the target parameters are the parameters, the update treats the targets as numbers."""
    networks, batch = make_networks(1), make_batch(1)
    config = OptimizerConfig(0.0, 0.01, 1e9)
    params = random_params(networks, 7)
    actor, critic = optimizers(config)
    level = LevelState(params, params, (actor.init(params["actor"]), critic.init(params["critic"])))

    @quick_jit
    def norms(level: LevelState) -> tuple[Any, Any]:
        targets = td_targets(networks, level.target, batch, jnp.asarray(EMBEDDING), identity)
        gradient = jax.grad(lambda p: losses(networks, p, batch, targets, jnp.asarray(EMBEDDING))[0])(level.params)
        metrics = update_level(networks, config, 0.5, level, batch, jnp.asarray(EMBEDDING), identity)[1]
        return gradient, metrics

    gradient, metrics = norms(level)
    for name in ("actor", "critic"):
        norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient[name])))
        assert float(metrics[f"{name}_gradient_norm"]) == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("clip_norm", [0.05, 1e9])
def test_updates_are_adams_on_the_clipped_gradients_and_targets_follow(clip_norm: float) -> None:
    """Two updates with other batches, by Adam's formulas (beta 0.9 and 0.999, epsilon 1e-8) in float64."""
    networks = make_networks()
    config, tau = OptimizerConfig(actor_rate=0.003, critic_rate=0.01, clip_norm=clip_norm), 0.2
    params, target = random_params(networks, 8), random_params(networks, 9)
    actor, critic = optimizers(config)
    level = LevelState(params, target, (actor.init(params["actor"]), critic.init(params["critic"])))

    @quick_jit
    def step(level: LevelState, batch: Batch) -> tuple[LevelState, Any]:
        targets = td_targets(networks, level.target, batch, jnp.asarray(EMBEDDING), identity)
        gradient = jax.grad(lambda p: losses(networks, p, batch, targets, jnp.asarray(EMBEDDING))[0])(level.params)
        return update_level(networks, config, tau, level, batch, jnp.asarray(EMBEDDING), identity)[0], gradient

    moments: dict[str, list[np.ndarray]] = {}
    for number in (1, 2):
        before = level
        level, gradient = step(before, make_batch(seed=20 + number))
        for name, rate in (("actor", 0.003), ("critic", 0.01)):
            leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradient[name])]
            norm = np.sqrt(sum(np.sum(leaf**2) for leaf in leaves))
            flat = np.concatenate([leaf.ravel() for leaf in leaves]) * min(1, clip_norm / norm)
            first, second = moments.get(name, [np.zeros_like(flat), np.zeros_like(flat)])
            moments[name] = [0.9 * first + 0.1 * flat, 0.999 * second + 0.001 * flat**2]
            mean, square = moments[name][0] / (1 - 0.9**number), moments[name][1] / (1 - 0.999**number)
            expected = flatten(before.params[name]) - rate * mean / (np.sqrt(square) + 1e-8)
            known = np.abs(flat) > 1e-6  # elsewhere a gradient of rounding errors decides the direction
            np.testing.assert_allclose(flatten(level.params[name])[known], expected[known], atol=2e-5)
            assert np.abs(flatten(level.params[name]) - flatten(before.params[name])).max() > rate / 2
        followed = tau * flatten(level.params) + (1 - tau) * flatten(before.target)
        np.testing.assert_allclose(flatten(level.target), followed, atol=1e-6)


def flatten(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("tau", [0.01, 1.0])
def test_soft_updates_move_targets_a_share_of_the_way(tau: float) -> None:
    target, params = {"a": jnp.asarray([0.0, 4.0])}, {"a": jnp.asarray([1.0, 2.0])}
    np.testing.assert_allclose(soft_update(target, params, tau)["a"], [tau, 4 - 2 * tau], rtol=1e-6)


def test_a_fresh_level_has_equal_targets_and_different_encoders_and_critics() -> None:
    networks = make_networks()
    level = quick_jit(lambda key: init_level(networks, OptimizerConfig(1e-3, 1e-3, 1.0), key))(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, level.params, level.target)
    encoders = [level.params["actor"]["encoder"], *(row(level.params["critic"]["encoder"], k) for k in range(2))]
    for name in ("inputs", "recurrent"):
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert np.abs(np.asarray(encoders[a][name] - encoders[b][name])).max() > 0.05
    hidden = np.asarray(level.params["critic"]["heads"]["hidden"])
    heads = hidden.reshape(2 * M, -1)
    assert min(np.abs(heads[a] - heads[b]).max() for a in range(2 * M) for b in range(a)) > 0.05
