"""The best item by a score of every item, against plain loops; critics that decide, and their exploration."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sim.envs.nearest_items
from hrlmg_jax.agent.ddpg import LevelConfig, OptimizerConfig
from hrlmg_jax.agent.low_levels import DdpgByCritic, DnnLevel
from hrlmg_jax.agent.networks import ActorCritic, NetworkConfig
from hrlmg_jax.agent.policy import ActingParams, OneLevelPolicy
from hrlmg_jax.retrieval.index import ItemIndex
from hrlmg_jax.retrieval.item_scores import ItemScores, best_scored_item, rank_scored_items
from sim.envs.histories import Histories, HistoryTable
from sim.envs.session_env import SessionObservation

ITEMS, CATALOGUE, E, N, T, B = 12, 10, 4, 3, 8, 6
EMBEDDING = np.random.default_rng(0).normal(size=(ITEMS, E)).astype(np.float32)
CONFIG = NetworkConfig(
    hidden_size=3,
    state_size=4,
    critic_width=5,
    action_norm="unit",
    action_bound=1.0,
    q_output="linear",
    critics="twin",
)
NETWORKS = ActorCritic(CONFIG, 1, E)


def observe(seed: int, done: int, candidates: np.ndarray | None = None) -> SessionObservation:
    """B sessions after some recommendations of different items."""
    generator = np.random.default_rng(seed)
    recommended = np.full((B, T), -1, np.int32)
    for row in recommended:
        row[:done] = generator.permutation(CATALOGUE)[:done]
    histories = generator.integers(-1, ITEMS, (3, B, N)).astype(np.int32)
    return SessionObservation(
        step=jnp.full((B,), done, jnp.int32),
        recommended=jnp.asarray(recommended),
        last_item=jnp.full((B,), -1, jnp.int32),
        histories=Histories(*map(jnp.asarray, histories)),
        candidates=None if candidates is None else jnp.asarray(candidates, jnp.int32),
        hidden=(),
    )


def distance_score(state: jax.Array, items: jax.Array) -> jax.Array:
    return -jnp.sum((items - state) ** 2, -1)


@pytest.mark.parametrize("sessions_at_a_time", [1, 2, B])
@pytest.mark.parametrize("done", [0, 3, T])
def test_it_is_the_best_of_the_catalogue_that_is_left(
    sessions_at_a_time: int, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim.envs.nearest_items, "NUMBERS_AT_A_TIME", CATALOGUE * sessions_at_a_time)
    states = np.random.default_rng(done).normal(size=(B, E)).astype(np.float32)
    observation = observe(done, done)
    scores = ItemScores(distance_score, jnp.asarray(states), jnp.asarray(EMBEDDING))
    found = best_scored_item(scores, CATALOGUE, observation)
    for state, recommended, item in zip(states, np.asarray(observation.recommended), found, strict=True):
        left = [i for i in range(CATALOGUE) if i not in recommended]
        assert int(item) == min(left, key=lambda i: float(np.sum((EMBEDDING[i] - state) ** 2)))


def test_of_a_logged_session_it_is_the_best_candidate_that_is_left() -> None:
    generator = np.random.default_rng(5)
    candidates = np.stack([generator.permutation(ITEMS)[:6] for _ in range(B)])
    candidates[:, 4:] = -1
    states = generator.normal(size=(B, E)).astype(np.float32)
    observation = observe(1, 3, candidates)
    scores = ItemScores(distance_score, jnp.asarray(states), jnp.asarray(EMBEDDING))
    found = best_scored_item(scores, CATALOGUE, observation)
    for row in range(B):
        left = [i for i in candidates[row, :4] if i not in np.asarray(observation.recommended[row])]
        assert int(found[row]) == min(left, key=lambda i: float(np.sum((EMBEDDING[i] - states[row]) ** 2)))


@pytest.mark.parametrize("sessions_at_a_time", [2, B])
@pytest.mark.parametrize("masks", ["one", "one each", "few"])
@pytest.mark.parametrize("logged", [False, True])
def test_a_ranking_sorts_what_is_allowed_left_and_a_candidate(
    sessions_at_a_time: int, masks: str, logged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against sorting by hand; with few allowed items the rest is empty."""
    monkeypatch.setattr(sim.envs.nearest_items, "NUMBERS_AT_A_TIME", CATALOGUE * sessions_at_a_time)
    generator = np.random.default_rng(7)
    candidates = np.stack([generator.permutation(ITEMS)[:8] for _ in range(B)])
    candidates[:, 6:] = -1
    observation = observe(6, 3, candidates if logged else None)
    shape = (CATALOGUE,) if masks == "one" else (B, CATALOGUE)
    available = generator.random(shape) < (0.1 if masks == "few" else 0.7)
    states, k = generator.normal(size=(B, E)).astype(np.float32), 4
    of_all = ItemScores(distance_score, jnp.asarray(states), jnp.asarray(EMBEDDING))
    items, scores = rank_scored_items(of_all, observation, k, jnp.asarray(available))
    assert (items.shape, scores.shape) == ((B, k), (B, k))
    lengths = set()
    for row in range(B):
        allowed = set(np.flatnonzero(available if available.ndim == 1 else available[row]).tolist())
        allowed -= set(np.asarray(observation.recommended[row]).tolist())
        allowed &= set(candidates[row].tolist()) if logged else allowed
        distance = {item: float(np.sum((EMBEDDING[item] - states[row]) ** 2)) for item in allowed}
        best = sorted(allowed, key=distance.__getitem__)[:k]
        assert items[row].tolist() == best + [-1] * (k - len(best))
        np.testing.assert_allclose(scores[row, : len(best)], [-distance[item] for item in best], rtol=1e-5)
        assert (np.asarray(scores[row, len(best) :]) == -np.inf).all()
        lengths.add(len(best))
    # Rows with k items and, where few are allowed, rows with fewer were both compared.
    assert logged or (k in lengths) == (masks != "few")
    assert not logged or lengths


# --- A critic that decides --------------------------------------------------------------------------------------------


def random_params(seed: int = 0) -> dict[str, Any]:
    shapes = jax.eval_shape(NETWORKS.init, jax.random.key(0))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: generator.normal(0, 0.7, leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("q_output", ["linear", "relu"])
def test_values_of_many_items_are_the_first_critics_values_of_each(q_output: str) -> None:
    networks = ActorCritic(NetworkConfig(**{**vars(CONFIG), "q_output": q_output}), 1, E)
    params, observation = random_params(), observe(2, 0)
    browsed, clicked = observation.histories.browsed, observation.histories.clicked
    states = networks.encode_for_critic(params["critic"], browsed, clicked, EMBEDDING)
    both = networks.encode(params, browsed, clicked, EMBEDDING)[1]
    np.testing.assert_allclose(states, both[0], atol=1e-6)
    found = jax.vmap(lambda state: networks.values_of_items(params["critic"], state, EMBEDDING))(states)
    for item in range(ITEMS):
        action = jnp.broadcast_to(EMBEDDING[item], (B, 1, E))
        one = networks.value(params["critic"], both, action, None)[0, :, 0]
        np.testing.assert_allclose(found[:, item], one, atol=1e-5)


def dnn_policy(epsilon: float) -> OneLevelPolicy:
    level = LevelConfig(OptimizerConfig(0.1, 0.1, 1.0), tau=0.1, gamma=0.0, bootstrap=True)
    return OneLevelPolicy(DnnLevel(NETWORKS, level), epsilon)


def ddpg_policy(epsilon: float) -> OneLevelPolicy:
    level = LevelConfig(OptimizerConfig(0.1, 0.1, 1.0), tau=0.1, gamma=0.9, bootstrap=True)
    return OneLevelPolicy(DdpgByCritic(NETWORKS, level, 0.1, True), epsilon)


NO_LOG = HistoryTable(*(jnp.zeros(1, jnp.int32) for _ in range(6)))


def acting_params(critic: Any) -> ActingParams:
    index = ItemIndex(jnp.asarray(EMBEDDING), CATALOGUE)
    return ActingParams(critic, None, index, NO_LOG, jnp.arange(1.0, CATALOGUE + 1), jnp.bool_(False))


@pytest.mark.parametrize("policy_of", [dnn_policy, ddpg_policy])
def test_what_the_critic_values_most_is_recommended(policy_of: Any) -> None:
    params, observation = random_params(3), observe(3, 4)
    policy = policy_of(0.5).as_policy()
    _, decision = policy.act(acting_params(params["critic"]), (), observation, jax.random.key(0), False)
    assert policy.rank is not None
    ranking = policy.rank(acting_params(params["critic"]), (), observation, 7, jnp.ones(CATALOGUE, bool))
    states = NETWORKS.encode_for_critic(
        params["critic"], observation.histories.browsed, observation.histories.clicked, EMBEDDING
    )
    for row in range(B):
        values = np.asarray(NETWORKS.values_of_items(params["critic"], states[row], EMBEDDING[:CATALOGUE]))
        left = [i for i in range(CATALOGUE) if i not in np.asarray(observation.recommended[row])]
        ranked = sorted(left, key=lambda i: -values[i])
        assert int(decision.action[row]) == ranked[0]
        assert ranking.items[row, :6].tolist() == ranked


def test_exploring_draws_the_share_of_items_that_epsilon_says() -> None:
    params, observation = acting_params(random_params(4)["critic"]), observe(4, 4)
    chosen = {}
    for epsilon in (0.0, 0.3, 1.0):
        act = jax.jit(dnn_policy(epsilon).as_policy().act, static_argnums=4)
        chosen[epsilon] = np.array(
            [act(params, (), observation, jax.random.key(number), True)[1].action for number in range(300)]
        )
    recommended = np.asarray(observation.recommended)
    assert not any((drawn[:, row, None] == recommended[row, :4]).any() for drawn in chosen.values() for row in range(B))
    best = chosen[0.0][0]
    assert (chosen[0.0] == best).all()
    # A drawn item, too, is the best one in one case of the six that are left.
    for epsilon in (0.3, 1.0):
        share = np.mean(chosen[epsilon] != best)
        assert share == pytest.approx(epsilon * 5 / 6, abs=4 * np.sqrt(0.25 / chosen[epsilon].size))
    counts = [np.unique(chosen[1.0][:, row], return_counts=True)[1] for row in range(B)]
    assert all(len(count) == 6 and count.min() > 25 for count in counts)
