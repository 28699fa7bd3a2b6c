"""Generated logs of a shop with a funnel (impression, click, order) whose truth is known: the embedded default.

The truth, a `FeedbackModel`. All vectors have unit norm and 50 dimensions; noise decays as k^-0.5 over the axes k,
which are then rotated at random.

* Items e lie in 25 clusters; their click appeal bc and order appeal bo are standard normal with correlation 0.2, half
  of their variance shared by the cluster ("cheap but poor" items click well and sell badly). An item's popularity in
  the logs is exp(0.5 bc + 0.3 bo) rank^-0.7 with random ranks: a long tail.
* A user has a lasting taste u (two clusters), which drives orders, and a passing curiosity v (another cluster; v0 at
  the beginning of each session), which drives clicks; boredom h gathers what was shown; trust m in the shop grows with
  clicks on items that fit the taste and falls with clicks on others, so that planning pays:

      click logit = kc + 4 v.e + 0.3 u.e + 0.4 bc - 1.5 max(h.e, 0) + 2.5 m
      order logit (given a click) = ko + 3 u.e + 0.8 bo + 2 m
      v <- unit(v + 0.15 click e + 0.02 e + 0.01 (v0 - v))
      h <- 0.9 h + 0.1 e
      m <- clip(0.98 m + 0.25 click (u.e - 0.35 + 0.1 bo), -1, 1)

* The shop that wrote the log shows the best of a few: 15 candidates drawn by popularity^0.5, one taken by a softmax of
  1.5 (u + v).e. No item is shown twice in a session.
* kc and ko are set on a sample of users so that the log has the click and order rates of the paper's Table 1.

Users come back over two days; taste and trust persist between sessions, curiosity and boredom start anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special

from harness.errors import UserError
from sim.envs.histories import Histories, HistoryTable
from sim.envs.policy import Decision, Policy
from sim.envs.rollout import begin, play_on
from sim.envs.session_env import SessionEnv, SessionObservation, SessionParams, SessionTrajectory
from sim.tables.events import CLICK, EventLog, build_event_log

GENERATOR_VERSION = 2
"""Increment when the same settings would give a different log; cached logs then expire."""

CLICK_RATE = 843_249 / 8_596_852  # Table 1, training day
ORDER_RATE = 46_022 / 8_596_852
DIMENSION = 50
NUM_CLUSTERS = 25
NUM_CANDIDATES = 15
MIN_SESSION, MAX_SESSION = 20, 60
DAY = 86_400
FIRST_DAY = 17_754 * DAY  # 2018-08-11
SECONDS_PER_IMPRESSION = 15
_TRAIN_SESSIONS, _TEST_SESSIONS = 1.5, 0.65  # Poisson means beyond the first of the training day
_MAX_SESSIONS_PER_DAY = 5
_USERS_PER_BATCH = 1024
_PILOT_USERS = 2048


@dataclass(frozen=True)
class Size:
    """Users and items of a generated log; a user has about 125 impressions."""

    num_users: int
    num_items: int


SIZES = {
    "tiny": Size(200, 200),
    "small": Size(4_000, 2_000),
    "large": Size(85_000, 550_000),  # about the samples and items of Table 1
}


@flax.struct.dataclass
class FunnelParams:
    """The truth behind a generated log.

    Attributes:
        item: [I, 50] float32 item vectors e.
        click_appeal: [I] float32 bc.
        order_appeal: [I] float32 bo.
        taste: [U, 50] float32 u.
        curiosity: [U, 50] float32 v0.
        trust: [U] float32 m at the beginning of the session.
        length: [U] int32 steps after which trust changes no more, because the session has ended.
        click_bias: float32 kc.
        order_bias: float32 ko.
    """

    item: jax.Array
    click_appeal: jax.Array
    order_appeal: jax.Array
    taste: jax.Array
    curiosity: jax.Array
    trust: jax.Array
    length: jax.Array
    click_bias: jax.Array
    order_bias: jax.Array


@flax.struct.dataclass
class FunnelUser:
    """The hidden state of one user: vectors [50] float32; trust, steps done and length of the session (scalars)."""

    taste: jax.Array
    first_curiosity: jax.Array
    curiosity: jax.Array
    boredom: jax.Array
    trust: jax.Array
    step: jax.Array
    length: jax.Array


@dataclass(frozen=True)
class FunnelModel:
    """The truth as a feedback model; session `start` belongs to user `start`."""

    def initial(self, params: FunnelParams, start: jax.Array) -> FunnelUser:
        """Returns a user at the beginning of a session."""
        curiosity = params.curiosity[start]
        return FunnelUser(
            taste=params.taste[start],
            first_curiosity=curiosity,
            curiosity=curiosity,
            boredom=jnp.zeros_like(curiosity),
            trust=params.trust[start],
            step=jnp.int32(0),
            length=params.length[start],
        )

    def probabilities(
        self, params: FunnelParams, hidden: FunnelUser, histories: Histories, item: jax.Array
    ) -> jax.Array:
        """Returns [3] the true probabilities; histories play no part."""
        vector = params.item[item]
        click = jax.nn.sigmoid(
            params.click_bias
            + 4 * hidden.curiosity @ vector
            + 0.3 * hidden.taste @ vector
            + 0.4 * params.click_appeal[item]
            - 1.5 * jax.nn.relu(hidden.boredom @ vector)
            + 2.5 * hidden.trust
        )
        order = jax.nn.sigmoid(
            params.order_bias + 3 * hidden.taste @ vector + 0.8 * params.order_appeal[item] + 2 * hidden.trust
        )
        return jnp.stack([1 - click, click * (1 - order), click * order])

    def update(self, params: FunnelParams, hidden: FunnelUser, item: jax.Array, feedback: jax.Array) -> FunnelUser:
        """Returns the user after an answer."""
        vector = params.item[item]
        clicked = (feedback >= CLICK).astype(jnp.float32)
        pull = 0.01 * (hidden.first_curiosity - hidden.curiosity)
        trust = jnp.clip(0.98 * hidden.trust + clicked * self.trust_gain(params, hidden, item), -1.0, 1.0)
        return dataclasses.replace(
            hidden,
            curiosity=_unit(hidden.curiosity + (0.15 * clicked + 0.02) * vector + pull),
            boredom=0.9 * hidden.boredom + 0.1 * vector,
            trust=jnp.where(hidden.step < hidden.length, trust, hidden.trust),
            step=hidden.step + 1,
        )

    def trust_gain(self, params: FunnelParams, hidden: FunnelUser, item: jax.Array) -> jax.Array:
        """Returns what a click on an item adds to the user's trust: below 0 where it does not fit the taste."""
        return 0.25 * (hidden.taste @ params.item[item] - 0.35 + 0.1 * params.order_appeal[item])


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)


def logging_policy() -> Policy:
    """The shop that wrote the log. Its parameters are (item vectors [I, 50], cumulative popularity^0.5 [I])."""

    def act(
        params: tuple[jax.Array, jax.Array],
        carry: tuple[()],
        observation: SessionObservation,
        key: jax.Array,
        explore: bool,
    ) -> tuple[tuple[()], Decision]:
        vectors, cumulative = params
        draw_key, choice_key = jax.random.split(key)
        batch = observation.step.shape[0]
        drawn = jax.random.uniform(draw_key, (batch, NUM_CANDIDATES)) * cumulative[-1]
        candidates = jnp.minimum(jnp.searchsorted(cumulative, drawn, side="right"), len(cumulative) - 1)
        interest = observation.hidden.taste + observation.hidden.curiosity
        logits = 1.5 * jnp.einsum("bd,bkd->bk", interest, vectors[candidates])
        shown = jnp.any(candidates[:, :, None] == observation.recommended[:, None, :], -1)
        logits = jnp.where(shown, -jnp.inf, logits) + jax.random.gumbel(choice_key, logits.shape)
        chosen = jnp.take_along_axis(candidates, jnp.argmax(logits, -1)[:, None], 1)[:, 0].astype(jnp.int32)
        # Where all candidates had been shown the impression is a repetition, which build_event_log leaves out.
        return carry, Decision(chosen, jnp.zeros((batch,)))

    return Policy(lambda params, batch_size: (), act)


def generate_log(*, size: str, seed: int, num_users: int | None = None, num_items: int | None = None) -> EventLog:
    """Generates a log of two days.

    Args:
        size: One of `SIZES`.
        seed: Same settings and seed give the same log (up to rounding differences between processors).
        num_users: Number of users; None: that of the size.
        num_items: Number of items, at least 100; None: that of the size.

    Raises:
        UserError: The size is unknown, or the counts are too small.
    """
    if size not in SIZES:
        raise UserError(f"data.size is {size!r}", do=f"Choose one of: {', '.join(SIZES)}.")
    users, items = num_users or SIZES[size].num_users, num_items or SIZES[size].num_items
    if users < 10 or items < 100:
        raise UserError(
            f"a generated log of {users:,} users and {items:,} items is too small",
            do="Set data.num_users to at least 10 and data.num_items to at least 100.",
        )
    # Draw items, users and their sessions; play these under the logging policy.
    with _on_cpu():
        generator = np.random.default_rng([GENERATOR_VERSION, seed])
        params, cumulative = _draw_world(generator, users, items)
        schedule = _draw_sessions(generator, users)
        params = _calibrated(params, cumulative, schedule, jax.random.key(seed))
        columns = _play(params, cumulative, schedule, np.arange(users), jax.random.key(seed + 1))
        columns, order_bias = _draw_orders(generator, columns)

    # The log.
    text = f"{GENERATOR_VERSION}/{size}/{seed}/{users}/{items}"
    log = build_event_log(
        name="synthetic_funnel",
        users=columns["users"],
        items=columns["items"],
        times=columns["times"],
        feedback=columns["feedback"],
        sessions=columns["sessions"],
        probabilities=columns["probabilities"],
        session_gap=0.0,
        checksum=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        source=f"generated (size {size}, seed {seed}, {users:,} users, {items:,} items)",
        synthetic=True,
    )
    biases = {"click_bias": float(params.click_bias), "order_bias": order_bias}
    return dataclasses.replace(log, generator={"seed": seed, "users": users, "items": items, **biases})


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Computes on the CPU, so that the log is the same wherever training runs (if JAX has a CPU backend)."""
    try:
        return jax.default_device(jax.devices("cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def truth_of_sessions(log: EventLog, users: np.ndarray) -> FunnelParams:
    """Returns the truth behind a generated log, for sessions of given users who start with neutral trust.

    Args:
        log: A log from `generate_log`; its items may have been renumbered since.
        users: [S] int user of each session.
    """
    assert log.generator is not None, "only a generated log has a truth"
    settings = log.generator
    generator = np.random.default_rng([GENERATOR_VERSION, settings["seed"]])
    world, _ = _draw_world(generator, settings["users"], settings["items"])
    user, item = np.asarray(log.user_ids)[users], np.asarray(log.item_ids)
    return FunnelParams(
        item=world.item[item],
        click_appeal=world.click_appeal[item],
        order_appeal=world.order_appeal[item],
        taste=world.taste[user],
        curiosity=world.curiosity[user],
        trust=jnp.zeros((len(user),)),
        length=jnp.full((len(user),), np.iinfo(np.int32).max, jnp.int32),
        click_bias=jnp.float32(settings["click_bias"]),
        order_bias=jnp.float32(settings["order_bias"]),
    )


def _draw_world(generator: np.random.Generator, users: int, items: int) -> tuple[FunnelParams, jax.Array]:
    """Draws items and users; returns the truth (not yet calibrated) and the items' cumulative popularity^0.5."""
    scale = np.arange(1, DIMENSION + 1) ** -0.5
    rotation = np.linalg.qr(generator.normal(size=(DIMENSION, DIMENSION)))[0]

    def noise(*shape: int) -> np.ndarray:
        return generator.normal(size=(*shape, DIMENSION)) * scale

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    # Items: clusters, vectors and appeal.
    centres = unit(noise(NUM_CLUSTERS))
    cluster = generator.integers(NUM_CLUSTERS, size=items)
    vectors = unit(centres[cluster] + 0.5 * unit(noise(items)))
    mixing = np.linalg.cholesky([[1.0, 0.2], [0.2, 1.0]])
    of_cluster, of_item = generator.normal(size=(NUM_CLUSTERS, 2)), generator.normal(size=(items, 2))
    click_appeal, order_appeal = ((of_cluster[cluster] + of_item) / np.sqrt(2) @ mixing.T).T
    # Users: taste for two clusters, curiosity about one.
    two = np.stack([generator.choice(NUM_CLUSTERS, 2, replace=False) for _ in range(users)])
    taste = unit(centres[two].sum(1) + 0.3 * unit(noise(users)))
    curiosity = unit(centres[generator.integers(NUM_CLUSTERS, size=users)] + 0.5 * unit(noise(users)))
    # Popularity: a long tail.
    rank = generator.permutation(items) + 1.0
    popularity = np.exp(0.5 * click_appeal + 0.3 * order_appeal) * rank**-0.7
    params = FunnelParams(
        item=jnp.asarray(vectors @ rotation, jnp.float32),
        click_appeal=jnp.asarray(click_appeal, jnp.float32),
        order_appeal=jnp.asarray(order_appeal, jnp.float32),
        taste=jnp.asarray(taste @ rotation, jnp.float32),
        curiosity=jnp.asarray(curiosity @ rotation, jnp.float32),
        trust=jnp.zeros((users,)),
        length=jnp.full((users,), MAX_SESSION, jnp.int32),
        click_bias=jnp.float32(0),
        order_bias=jnp.float32(0),
    )
    return params, jnp.asarray(np.cumsum(np.sqrt(popularity)), jnp.float32)


@dataclass(frozen=True)
class _Schedule:
    """When users visit: `length` [U, S] impressions of each session in order (0: none) and their `start` times."""

    length: np.ndarray
    start: np.ndarray


def _draw_sessions(generator: np.random.Generator, users: int) -> _Schedule:
    """Draws each user's sessions; slots of the day keep them from overlapping."""
    counts = np.stack([1 + generator.poisson(_TRAIN_SESSIONS, users), generator.poisson(_TEST_SESSIONS, users)])
    train, test = np.minimum(counts, _MAX_SESSIONS_PER_DAY)[:, :, None]
    session = np.arange(2 * _MAX_SESSIONS_PER_DAY)
    second_day = session >= train
    of_day = np.where(second_day, session - train, session)
    slot = DAY // _MAX_SESSIONS_PER_DAY
    shape = (users, len(session))
    start = FIRST_DAY + second_day * DAY + of_day * slot
    start = start + generator.integers(0, slot - MAX_SESSION * SECONDS_PER_IMPRESSION, shape)
    length = generator.integers(MIN_SESSION, MAX_SESSION + 1, shape)
    return _Schedule(np.where(session < train + test, length, 0), start)


def _calibrated(params: FunnelParams, cumulative: jax.Array, schedule: _Schedule, key: jax.Array) -> FunnelParams:
    """Sets kc so that a log of the first users, with fixed random numbers, has the click rate of Table 1."""
    pilot = np.arange(min(_PILOT_USERS, len(schedule.length)))

    def excess(click_bias: float) -> float:
        world = dataclasses.replace(params, click_bias=jnp.float32(click_bias))
        played = _play(world, cumulative, schedule, pilot, key)
        return float(np.log(np.mean(1 - played["probabilities"][:, 0]) / CLICK_RATE))

    return dataclasses.replace(params, click_bias=jnp.float32(scipy.optimize.brentq(excess, -5.0, -1.0, xtol=0.02)))


def _draw_orders(generator: np.random.Generator, columns: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """Sets ko so that the log has the order rate of Table 1, and redraws the orders; returns the columns and ko.

    Orders do not affect later steps, so that drawing them last is exact.
    """
    skip, click, order = columns["probabilities"].astype(np.float64).T  # with ko = 0

    def given_click(order_bias: float) -> np.ndarray:
        return np.asarray(scipy.special.expit(np.log(order / click) + order_bias))

    def excess(order_bias: float) -> float:
        return float(np.mean((1 - skip) * given_click(order_bias)) - ORDER_RATE)

    order_bias = float(scipy.optimize.brentq(excess, -15.0, 5.0))
    chance = given_click(order_bias)
    clicked = columns["feedback"] >= CLICK
    ordered = clicked & (generator.random(len(chance)) < chance)
    probabilities = np.stack([skip, (1 - skip) * (1 - chance), (1 - skip) * chance], axis=1)
    return {**columns, "feedback": clicked.astype(np.int8) + ordered, "probabilities": probabilities}, order_bias


@jax.jit
def _play_sessions(
    params: FunnelParams, cumulative: jax.Array, users: jax.Array, key: jax.Array
) -> tuple[jax.Array, SessionTrajectory]:
    """Plays one session with each user under the logging policy; returns their final trust and the trajectory."""
    env = SessionEnv(FunnelModel(), MAX_SESSION, 1)
    nothing = jnp.zeros((1,), jnp.int32)  # the truth ignores histories
    table = HistoryTable(nothing, nothing, jnp.zeros((2,), jnp.int32), jnp.zeros((2,), jnp.int32), nothing, nothing)
    world = SessionParams(table, jnp.zeros_like(params.length), None, params)
    policy, shop = logging_policy(), (params.item, cumulative)
    episodes = begin(env, world, policy, shop, users)
    episodes, trajectory = play_on(env, world, policy, shop, episodes, key, True)
    return episodes.state.hidden.trust, trajectory


def _play(
    params: FunnelParams, cumulative: jax.Array, schedule: _Schedule, users: np.ndarray, key: jax.Array
) -> dict[str, np.ndarray]:
    """Plays all sessions of the users, in batches, and returns the columns of the log."""
    columns: dict[str, list[np.ndarray]] = {}
    size = min(_USERS_PER_BATCH, len(users))
    steps = np.arange(MAX_SESSION)
    for session in range(schedule.length.shape[1]):
        visiting = users[schedule.length[users, session] > 0]
        params = dataclasses.replace(params, length=jnp.asarray(schedule.length[:, session], jnp.int32))
        for first in range(0, len(visiting), size):
            batch = visiting[first : first + size]
            padded = jnp.asarray(np.resize(batch, size), jnp.int32)
            batch_key = jax.random.fold_in(jax.random.fold_in(key, session), first)
            trust, played = jax.device_get(_play_sessions(params, cumulative, padded, batch_key))
            params = dataclasses.replace(params, trust=params.trust.at[batch].set(trust[: len(batch)]))
            kept = (steps[:, None] < schedule.length[batch, session]).T
            start = schedule.start[batch, session]
            batch_columns = {
                "users": np.broadcast_to(batch[:, None], kept.shape),
                "items": played.item.T[: len(batch)],
                "times": start[:, None] + steps * SECONDS_PER_IMPRESSION,
                "feedback": played.feedback.T[: len(batch)],
                "sessions": np.broadcast_to(batch[:, None] * schedule.length.shape[1] + session, kept.shape),
                "probabilities": played.probabilities.transpose(1, 0, 2)[: len(batch)],
            }
            for column, values in batch_columns.items():
                columns.setdefault(column, []).append(values[kept])
    return {column: np.concatenate(values) for column, values in columns.items()}


def best_log_loss(log: EventLog, rows: np.ndarray) -> float | None:
    """Returns the mean log-loss (nats) of the truth on rows of a generated log; None for a real log."""
    if log.probabilities is None:
        return None
    given = log.probabilities[rows, log.feedback[rows]]
    return float(-np.mean(np.log(np.maximum(given, 1e-12), dtype=np.float64)))
