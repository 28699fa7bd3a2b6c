"""Measures speed and memory of HRL-MG: `python -m hrlmg_jax.bench [--smoke] [--only SECTION ...] [--out FOLDER]`."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.commands.command import run_command
from harness.reports.benchmark import (
    Line,
    Section,
    alternating_seconds,
    composed_settings,
    matrix_product_rate,
    run_benchmark,
    seconds_of,
)
from harness.runs.composition import composed_values
from harness.settings import read_settings
from hrlmg_jax.agent import hrl_mg
from hrlmg_jax.agent.learner import Learner, World
from hrlmg_jax.agent.networks import NetworkConfig
from hrlmg_jax.baselines.fixed_lists import fixed_rankings
from hrlmg_jax.problem import Problem, load_data, make_env
from hrlmg_jax.retrieval.index import ItemIndex, make_item_index, nearest_items
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model.network import FeedbackNetwork, FeedbackParams
from hrlmg_jax.user_model.paper import PaperUsers
from hrlmg_jax.user_model.settings import PaperConfig
from hrlmg_jax.user_model.store import Simulator
from sim.datasets.speed import bench_logs, read_log, write_log
from sim.envs.fixed_policies import random_policy
from sim.envs.nearest_items import unit
from sim.envs.policy import Policy
from sim.envs.rollout import rollout

MODULE = "hrlmg_jax.bench"
_STEPS_AT_A_TIME = 25
_EMBEDDING_SIZE = 50  # of the items to look up
_SESSION = (300, 150)  # recommendations, and how many have been made
_NEAR = "near an item"


@dataclass(frozen=True)
class Parts:
    """What is measured: a run's settings, those of its agent, its learner with tables, and its problem."""

    config: RunConfig
    agent: hrl_mg.Settings
    learner: Learner
    world: World
    problem: Problem


def agent_settings(*overrides: str) -> hrl_mg.Settings:
    """Returns the agent's part of the configuration of `python -m hrlmg_jax.train OVERRIDES`."""
    return read_settings(hrl_mg.Settings, composed_values("train_hrl_mg", overrides)["agent"], "agent")


def make_parts(smoke: bool) -> Parts:
    """Builds learner and tables over the generated log with an untrained user model, which takes as long to ask."""
    overrides = ["data.size=tiny", *_SHORT] if smoke else ["data.size=small"]
    config, agent = composed_settings(RunConfig, "train_hrl_mg", *overrides), agent_settings(*overrides)
    data = load_data(config.fit(), config.longest_session)
    key, embedding_key = jax.random.split(jax.random.key(0))
    embedding = unit(jax.random.normal(embedding_key, (data.log.num_items, config.simulator.embedding.size)))
    assert isinstance(config.simulator, PaperConfig)
    model = PaperUsers(FeedbackNetwork(config.simulator.network))
    simulator = Simulator(model, FeedbackParams(model.init(key, embedding), embedding), {})
    rankings = fixed_rankings(config.env, data)
    problem = Problem(data, config.env, simulator, rankings, config.longest_session)
    env = make_env(config.env, problem.users, config.env.episode_length)
    learner = hrl_mg.make_learner(agent, env, config.simulator.embedding.size)
    return Parts(config, agent, learner, hrl_mg.make_world(problem, agent.retrieval), problem)


def encoding(config: RunConfig, hidden_size: int, state_size: int) -> float:
    """Returns the operations of the matrix products that make a state of two histories."""
    embedding = config.simulator.embedding.size
    gru = config.env.history_length * (embedding + hidden_size) * 3 * hidden_size
    return 2.0 * (2 * gru + 2 * hidden_size * state_size)


def level_operations(config: RunConfig, sizes: NetworkConfig, heads: int, batch_size: int) -> float:
    """Returns the operations of one update of a level: targets forward; losses forward and (twice as much) back."""
    embedding = config.simulator.embedding.size
    encoders = (1 + sizes.num_critics) * encoding(config, sizes.hidden_size, sizes.state_size)
    actor = 2.0 * sizes.state_size * heads * embedding
    critic = 2.0 * heads * ((sizes.state_size + embedding) * sizes.critic_width + sizes.critic_width)
    forward = encoders + actor + sizes.num_critics * critic
    return batch_size * (forward + 3 * (forward + critic))


def step_operations(parts: Parts) -> tuple[float, float]:
    """Returns the operations of the matrix products of a training step: of its recommendations, and of its updates."""
    config, agent, embedding = parts.config, parts.agent, parts.config.simulator.embedding.size
    # A recommendation: the agent's state, the user's state, the product with all items.
    acting = encoding(config, agent.network.hidden_size, agent.network.state_size)
    assert isinstance(config.simulator, PaperConfig)
    user = encoding(config, config.simulator.network.hidden_size, config.simulator.network.state_size)
    retrieval = 2.0 * embedding * parts.problem.data.num_items
    played = agent.learner.sessions * (acting + user + retrieval)
    # Updates; the low level's target asks about the nearest item.
    updated = level_operations(config, agent.network, 1, agent.learner.batch_size)
    updated += agent.learner.batch_size * retrieval
    if agent.goals.enabled:
        assert not agent.goals.memory, "operations of a memory are not counted"
        played += agent.learner.sessions * acting / agent.goals.period
        updated += level_operations(config, agent.network, agent.goals.count, agent.learner.high_batch_size)
    return played, updated


def bench_training(smoke: bool) -> list[Line]:
    """Training steps past the warm-up: one recommendation in every session, one update of each level."""
    parts = make_parts(smoke)
    config, agent, learner, world = parts.config, parts.agent, parts.learner, parts.world
    state = jax.block_until_ready(jax.jit(learner.init)(jax.random.key(0), world))
    state = dataclasses.replace(state, step=jnp.int32(agent.learner.warm_up_steps))

    def several(state: Any, world: World) -> Any:
        return jax.lax.scan(lambda state, _: learner.train_step(state, world), state, None, length=_STEPS_AT_A_TIME)

    # Donated, as in training, so that the replay memories are changed in place.
    compiled = jax.jit(several, donate_argnums=0)

    def advance() -> Any:
        nonlocal state
        state, metrics = compiled(state, world)
        return metrics

    seconds = seconds_of(advance, 1 if smoke else 7) / _STEPS_AT_A_TIME
    rate = matrix_product_rate(256 if smoke else 2048)
    played, updated = step_operations(parts)
    sessions, length = agent.learner.sessions, config.env.episode_length
    levels = 2 if agent.goals.enabled else 1
    counted = f"{played / 1e9:.3f} GFLOP of recommendations, {updated / 1e9:.3f} of updates"
    lines = [
        Line("matrix product, float32", rate / 1e9, "GFLOP/s"),
        Line("training step", seconds * 1e3, "ms", note=f"{sessions} sessions side by side; {counted}"),
        Line("step / its operations", seconds * rate / (played + updated), "x"),
        Line("updates", levels / seconds, "1/s", note="of both levels"),
        Line("sessions trained", sessions / length / seconds, "1/s", note=f"{length} recommendations each"),
        Line("replay, low level", state.low_replay.bytes_per_row, "bytes per transition", 120),
    ]
    if state.high_replay is not None:
        note = "with its M goals, which are vectors"
        lines.append(Line("replay, high level", state.high_replay.bytes_per_row, "bytes per window", note=note))
    return lines


def bench_rollout(smoke: bool) -> list[Line]:
    """Whole sessions with the learned user: greedy decisions of the agent, and a random policy."""
    parts = make_parts(smoke)
    config, learner, world, problem = parts.config, parts.learner, parts.world, parts.problem
    state = jax.jit(learner.init)(jax.random.key(0), world)
    length = config.env.episode_length
    env = make_env(config.env, problem.simulator.model, length)
    lines = []
    for sessions in (16,) if smoke else (512, 2048):
        rows = np.resize(problem.data.first_rows("train"), sessions)
        env_params = problem.env_params(rows)

        def play(policy: Policy, params: Any, env_params: Any = env_params, sessions: int = sessions) -> float:
            def batch(env_params: Any, params: Any) -> jax.Array:
                starts = jnp.arange(sessions, dtype=jnp.int32)
                return rollout(env, env_params, policy, params, starts, jax.random.key(0), explore=False).reward

            compiled = jax.jit(batch)
            return sessions / seconds_of(lambda: compiled(env_params, params), 1)

        agent = play(learner.policy.as_policy(), learner.current_params(state, world))
        alone = play(random_policy(problem.data.num_items), None)
        name = f"{sessions:,} sessions at once"
        lines.append(Line(f"{name}: agent", agent, "sessions/s", note=f"{agent * length:,.0f} recommendations/s"))
        lines.append(Line(f"{name}: simulator alone (random policy)", alone, "sessions/s"))
    return lines


@dataclass(frozen=True)
class Vectors:
    """Items [I, E] to look up, and queries [B, E] by kind; unit norm."""

    items: np.ndarray
    queries: dict[str, np.ndarray]


def draw_vectors(num_items: int, num_queries: int, clustered: bool = True) -> Vectors:
    """Draws items, and queries that are near one of them (as a trained actor's) or unrelated.

    Clustered, items lie around as many centres as the root of their number, unrelated queries between two centres; axis
    k has a share of 1 / k in the variance (`sim.generators.funnel`). Otherwise all directions are alike, the worst
    that can be.
    """
    generator = np.random.default_rng(0)
    scale = np.arange(1, _EMBEDDING_SIZE + 1) ** -0.5 if clustered else np.ones(_EMBEDDING_SIZE)

    def scaled(vectors: np.ndarray) -> np.ndarray:
        return np.asarray(unit(jnp.asarray(vectors, jnp.float32)))

    def noise(number: int) -> np.ndarray:
        return scaled(generator.standard_normal((number, _EMBEDDING_SIZE), np.float32) * scale)

    if clustered:
        centres = noise(round(math.sqrt(num_items)))
        items = scaled(centres[generator.integers(len(centres), size=num_items)] + 0.5 * noise(num_items))
        two = centres[generator.integers(len(centres), size=(num_queries, 2))]
        unrelated = scaled(two.sum(1) + 0.3 * noise(num_queries))
    else:
        items, unrelated = noise(num_items), noise(num_queries)
    aimed_at = items[generator.integers(num_items, size=num_queries)]
    cosine = generator.uniform(0.7, 0.9, (num_queries, 1))
    sideways = generator.normal(size=aimed_at.shape)
    sideways = scaled(sideways - np.sum(sideways * aimed_at, -1, keepdims=True) * aimed_at)
    near = scaled(cosine * aimed_at + np.sqrt(1 - cosine**2) * sideways)
    return Vectors(items, {_NEAR: near, "between clusters" if clustered else "anywhere": unrelated})


def recall(found: Any, truth: Any) -> float:
    """Returns the share of the true items [B, K] that are among those found [B, K]."""
    return float(np.mean(np.any(np.asarray(truth)[:, :, None] == np.asarray(found)[:, None, :], -1)))


def bench_retrieval(smoke: bool) -> list[Line]:
    """The nearest items of 512 queries at once by each backend, in catalogues of growing size."""
    num_queries, repeats = (16, 1) if smoke else (512, 5)
    sizes = (1_000,) if smoke else (10**4, 10**5, 10**6)
    lines = []
    for num_items in sizes:
        vectors = draw_vectors(num_items, num_queries)
        exact = _item_index(vectors.items, "exact")
        hashed = {f"hash, {codes}": _item_index(vectors.items, "hash", codes) for codes in ("hyperplanes", "learned")}
        others = {"approx": _item_index(vectors.items, "approx"), **hashed}
        judged = num_items == 10**6
        measured = [
            *_building(vectors, "learned"),
            *_recalls(vectors, exact, others, judged),
            *_speeds(vectors, {"exact": exact, **others}, judged, repeats),
        ]
        lines += _titled(f"{num_items:,} items", measured)
    lines += _in_a_session(vectors, exact, hashed["hash, learned"], judged, repeats)
    vectors = draw_vectors(sizes[-1], num_queries, clustered=False)
    others = {"hash, learned": _item_index(vectors.items, "hash")}
    measured = _recalls(vectors, _item_index(vectors.items, "exact"), others, False)
    return lines + _titled(f"{sizes[-1]:,} items without structure", measured)


def _titled(title: str, lines: list[Line]) -> list[Line]:
    return [dataclasses.replace(line, name=f"{title}: {line.name}") for line in lines]


def _item_index(items: np.ndarray, backend: str, codes: str = "learned") -> ItemIndex:
    config = agent_settings(f"agent.retrieval.backend={backend}", f"agent.retrieval.codes={codes}").retrieval
    return jax.block_until_ready(make_item_index(config, items, len(items), np.zeros(0, np.int32), 0))


def _building(vectors: Vectors, codes: str) -> list[Line]:
    """Returns what an index of codes takes."""
    started = time.perf_counter()
    tables = _item_index(vectors.items, "hash", codes).tables
    seconds = time.perf_counter() - started
    taken = sum(leaf.nbytes for leaf in jax.tree.leaves(tables)) / len(vectors.items)
    scanned = sum(table.scanned for table in tables)
    return [
        Line("hash: building", seconds, "s", note=f"{len(tables)} tables, {scanned:,} codes scanned by a query"),
        Line("hash: codes and tables", taken, "bytes per item", note=f"beside {4 * _EMBEDDING_SIZE} of the embedding"),
    ]


def _recalls(vectors: Vectors, exact: ItemIndex, indices: dict[str, ItemIndex], judged: bool) -> list[Line]:
    """Returns how many of the truly nearest items each backend finds."""
    lines = []
    for kind, query in vectors.queries.items():
        truth = _find(query, exact, 10)
        for name, index in indices.items():
            target = 0.9 if judged and name == "hash, learned" else None
            first, ten = (recall(_find(query, index, number), truth[:, :number]) for number in (1, 10))
            lines.append(Line(f"{name}: recall@1, queries {kind}", first, "", target, at_most=False))
            lines.append(Line(f"{name}: recall@10, queries {kind}", ten, ""))
    return lines


def _speeds(
    vectors: Vectors, indices: dict[str, ItemIndex], judged: bool, repeats: int, recommended: jax.Array | None = None
) -> list[Line]:
    """Returns the time of each backend, timed in turns, and its ratio to exact search."""
    query = vectors.queries[_NEAR]
    runs = {name: partial(_find, query, index, 1, recommended) for name, index in indices.items()}
    seconds = alternating_seconds(runs, repeats)
    lines = [Line(f"{name}: 1,000 queries", value / len(query) * 1e6, "ms") for name, value in seconds.items()]
    for name, value in seconds.items():
        if name != "exact":
            target = 5 if judged and name == "hash, learned" else None
            lines.append(Line(f"exact / {name}", seconds["exact"] / value, "x", target, at_most=False))
    return lines


def _in_a_session(vectors: Vectors, exact: ItemIndex, hashed: ItemIndex, judged: bool, repeats: int) -> list[Line]:
    """Returns speed, and the similarity given up, in the middle of sessions that had all the nearest items already."""
    query = vectors.queries[_NEAR]
    length, step = _SESSION
    played = jnp.pad(_find(query, exact, step), ((0, 0), (0, length - step)), constant_values=-1)
    best, found = (vectors.items[_find(query, index, 1, played)[:, 0]] for index in (exact, hashed))
    share = float(np.mean(np.sum(query * found, -1)) / np.mean(np.sum(query * best, -1)))
    lines = _speeds(vectors, {"exact": exact, "hash, learned": hashed}, judged, repeats, played)
    lines.append(Line("hash, learned: cosine of what is found / of the best", share, ""))
    return _titled(f"{len(vectors.items):,} items, step {step} of sessions of {length}", lines)


_find = jax.jit(nearest_items, static_argnums=2)
_SHORT = (
    "env.episode_length=20",
    "evaluation.long=20",
    "evaluation.short=10",
    *(f"{part}.network.{size}=4" for part in ("agent", "simulator") for size in ("hidden_size", "state_size")),
    "agent.network.critic_width=8",
    "simulator.network.width=8",
    *(f"agent.learner.{size}=8" for size in ("sessions", "batch_size", "high_batch_size")),
    "agent.learner.replay_capacity=1000",
)
SECTIONS: dict[str, Section] = {
    "training": bench_training,
    "rollout": bench_rollout,
    "retrieval": bench_retrieval,
    "logs": partial(bench_logs, MODULE),
}


def main() -> None:
    """Measures what the arguments of this process ask for."""
    run_benchmark(MODULE, SECTIONS, (write_log, read_log))


if __name__ == "__main__":
    run_command(main)
