"""Generated logs of a shop with a funnel (impression, click, order) whose truth is known: the embedded default.

The truth, a `FeedbackModel`. All vectors have unit norm and 50 dimensions; noise decays as k^-0.5 over the axes k,
which are then rotated at random.

* Items e lie in 25 clusters; their click appeal bc and order appeal bo are standard normal with correlation 0.2, half
  of their variance shared by the cluster ("cheap but poor" items click well and sell badly). An item's popularity in
  the logs is exp(0.5 bc + 0.3 bo) rank^-0.7 with random ranks: a long tail.
* A user has a lasting taste u (two clusters), which drives orders, and a passing curiosity v (a cluster; v0 is
  drawn for each session), which drives clicks; boredom h gathers what was shown; trust m in the shop grows with clicks
  on items that fit the taste and falls with clicks on others, so that planning pays:

      click logit = kc + 4 v.e + 0.3 u.e + 0.4 bc - 1.5 max(h.e, 0) + 2.5 m
      order logit (given a click) = ko + 3 u.e + 0.8 bo + 2 m
      v <- unit(v + 0.15 click e + 0.02 e + 0.01 (v0 - v))
      h <- 0.9 h + 0.1 e
      m <- clip(0.98 m + 0.25 click (u.e - 0.35 + 0.1 bo), -1, 1)

* The shop that wrote the log takes one of 15 candidates, by what it knows of the user, or explores; no item is shown
  twice in a session (`sim.generators.shop`). It knows (`data.shop`)

  - `seen`, the default: the direction of sum_k 0.9^k e over the items clicked so far, the last one first, in this
    session and in earlier ones: all of it is in the log;
  - `blind`: nothing;
  - `reads_minds`: (u + v) / 2. What it shows is then evidence of interests that no later policy can read, so that
    users learned from such a log pay several times too much.

* kc is set on a sample of users, ko on the log, so that the log has the click and order rates of the paper's Table 1.

Users come back over two days; taste and trust persist between sessions, curiosity and boredom start anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from sim.envs.histories import Histories, HistoryTable
from sim.envs.policy import Decision
from sim.envs.rollout import begin, play_on
from sim.envs.session_env import SessionEnv, SessionInfo, SessionObservation, SessionParams, SessionTrajectory
from sim.generators.drift import DriftModel
from sim.generators.funnel_users import FunnelModel, FunnelParams, FunnelUser, unit
from sim.generators.shop import Catalogue, shop_policy, shown_probabilities
from sim.tables.events import CLICK, SHOPS, WORLDS, EventLog, ShopName, WorldName, build_event_log

GENERATOR_VERSION = 3
"""Increment when the same settings would give a different log; cached logs then expire."""

CLICK_RATE = 843_249 / 8_596_852  # Table 1, training day
ORDER_RATE = 46_022 / 8_596_852
DIMENSION = 50
NUM_CLUSTERS = 25
MIN_SESSION, MAX_SESSION = 20, 60
DAY = 86_400
FIRST_DAY = 17_754 * DAY  # 2018-08-11
SECONDS_PER_IMPRESSION = 15
_TRAIN_SESSIONS, _TEST_SESSIONS = 1.5, 0.65  # Poisson means beyond the first of the training day
_MAX_SESSIONS_PER_DAY = 5
_USERS_PER_BATCH = 1024
_PILOT_USERS = 2048
_MEMORY = 0.9  # of a shop: what a click counts after another one
_LOGGED, _PLAYED = 1, 2  # streams of random numbers: curiosity in the log's sessions, and in those played later


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


_TRUST = FunnelModel()


class Visits(NamedTuple):
    """Sessions with the shop that writes the log: the truth, and clicks remembered [S, 50] when each begins."""

    users: FunnelParams
    clicks: jax.Array


@flax.struct.dataclass
class Visitor:
    """A user in the shop that writes the log: their hidden state, and the shop's sum_k 0.9^k e of their clicks [50]."""

    user: FunnelUser
    clicks: jax.Array


@dataclass(frozen=True)
class VisitorModel:
    """The truth as a feedback model, together with what a shop can know of its users."""

    truth: FunnelModel | DriftModel = _TRUST

    def initial(self, params: Visits, start: jax.Array) -> Visitor:
        """Returns a user at the beginning of a session."""
        return Visitor(self.truth.initial(params.users, start), params.clicks[start])

    def probabilities(self, params: Visits, hidden: Visitor, histories: Histories, item: jax.Array) -> jax.Array:
        """Returns [3] the true probabilities."""
        return self.truth.probabilities(params.users, hidden.user, histories, item)

    def update(self, params: Visits, hidden: Visitor, item: jax.Array, feedback: jax.Array) -> Visitor:
        """Returns the user after an answer; a click counts if the session goes on until then."""
        counts = (feedback >= CLICK) & (hidden.user.step < hidden.user.length)
        clicks = jnp.where(counts, _MEMORY * hidden.clicks + params.users.item[item], hidden.clicks)
        return Visitor(self.truth.update(params.users, hidden.user, item, feedback), clicks)


def interest_of(shop: ShopName, visitor: Visitor) -> jax.Array:
    """Returns [..., 50] what a shop knows of its visitors' interests, of norm 1 or less; 0 for nothing."""
    if shop == "reads_minds":
        return 0.5 * (visitor.user.taste + visitor.user.curiosity)
    return unit(visitor.clicks) if shop == "seen" else jnp.zeros_like(visitor.clicks)


@flax.struct.dataclass
class Impressions(SessionTrajectory):
    """A trajectory in the shop that writes the log; `interest` [T, B, 50] float32 is what the shop knew."""

    interest: jax.Array


@dataclass(frozen=True)
class LoggingEnv(SessionEnv):
    """The session simulator with the shop that writes the log.

    Attributes:
        shop: Which.
    """

    shop: ShopName = "seen"

    def record(
        self, observation: SessionObservation, decision: Decision, reward: jax.Array, info: SessionInfo
    ) -> Impressions:
        """Returns one step of a trajectory, and what the shop knew."""
        interest = interest_of(self.shop, observation.hidden)
        return Impressions(decision.action, info.feedback, reward, info.probabilities, interest)


def generate_log(
    *,
    size: str,
    seed: int,
    shop: ShopName = "seen",
    world: WorldName = "trust",
    num_users: int | None = None,
    num_items: int | None = None,
) -> EventLog:
    """Generates a log of two days.

    Args:
        size: One of `SIZES`.
        seed: Same settings and seed give the same log (up to rounding differences between processors), and with
            another shop the same items, users and visits.
        shop: What the shop that writes the log knows of its users.
        world: Of which kind the users are: see `true_users`.
        num_users: Number of users; None: that of the size.
        num_items: Number of items, at least 100; None: that of the size.

    Raises:
        UserError: The size or the shop is unknown, or the counts are too small.
    """
    for key, value, choices in (("size", size, [*SIZES]), ("shop", shop, [*SHOPS]), ("world", world, [*WORLDS])):
        if value not in choices:
            raise UserError(f"data.{key} is {value!r}", do=f"Choose one of: {', '.join(choices)}.")
    users, items = num_users or SIZES[size].num_users, num_items or SIZES[size].num_items
    if users < 10 or items < 100:
        raise UserError(
            f"a generated log of {users:,} users and {items:,} items is too small",
            do="Set data.num_users to at least 10 and data.num_items to at least 100.",
        )
    # Draw items, users and their sessions; play these under the logging policy.
    with _on_cpu():
        generator = np.random.default_rng([GENERATOR_VERSION, seed])
        drawn = _draw_world(generator, users, items)
        schedule = _draw_sessions(generator, users)
        calibration_key, key = jax.random.split(jax.random.key(seed))
        written = _Writer(shop, _KINDS[world])
        drawn = _calibrated(drawn, written, schedule, calibration_key)
        columns = _play(drawn, written, schedule, np.arange(users), key, True)
        columns, order_bias = _draw_orders(generator, columns)

    # The log.
    kind = {} if world == "trust" else {"world": world}  # logs from before there were kinds do not say theirs
    in_words = "".join(f"{name} {of}, " for name, of in kind.items())
    text = "/".join(map(str, (GENERATOR_VERSION, size, shop, *kind.values(), seed, users, items)))
    log = build_event_log(
        name="synthetic_funnel",
        users=columns["users"],
        items=columns["items"],
        times=columns["times"],
        feedback=columns["feedback"],
        sessions=columns["sessions"],
        probabilities=columns["probabilities"],
        shown_probability=columns["shown_probability"],
        session_gap=0.0,
        checksum=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        source=f"generated (size {size}, {in_words}shop {shop}, seed {seed}, {users:,} users, {items:,} items)",
        synthetic=True,
    )
    biases = {"click_bias": float(drawn.params.click_bias), "order_bias": order_bias}
    return dataclasses.replace(
        log, generator={"seed": seed, "users": users, "items": items, "shop": shop, **kind, **biases}
    )


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Computes on the CPU, so that the log is the same wherever training runs (if JAX has a CPU backend)."""
    try:
        return jax.default_device(jax.devices("cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


class _Writer(NamedTuple):
    """Who writes a log: a shop that knows something of its users, and users of a kind."""

    shop: ShopName
    users: FunnelModel | DriftModel


_KINDS: dict[WorldName, FunnelModel | DriftModel] = {"trust": _TRUST, "drift": DriftModel()}


def true_users(log: EventLog) -> FunnelModel | DriftModel:
    """Returns the users who wrote a generated log: `sim.generators.funnel_users`, or `sim.generators.drift`."""
    assert log.generator is not None, "only a generated log has a truth"
    return _KINDS[log.generator.get("world", "trust")]


def truth_of_sessions(log: EventLog, rows: np.ndarray) -> FunnelParams:
    """Returns the truth behind a generated log, for sessions that begin at rows of it.

    Such a session is of the row's user as they were then: with their taste, the trust that their earlier sessions have
    left, and a curiosity drawn for it. Several that begin at one row differ in their curiosity; equal rows in equal
    order give equal sessions.

    Args:
        log: A log from `generate_log`; its items may have been renumbered since.
        rows: [S] int rows.
    """
    assert log.generator is not None, "only a generated log has a truth"
    settings, truth = log.generator, true_users(log)
    generator = np.random.default_rng([GENERATOR_VERSION, settings["seed"]])
    world = _draw_world(generator, settings["users"], settings["items"])
    params, user, item = world.params, np.asarray(log.user_ids)[log.user[rows]], np.asarray(log.item_ids)
    # Which of the sessions that begin at the same row each is.
    order = np.argsort(rows, kind="stable")
    firsts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    number = np.empty(len(rows), np.int64)
    number[order] = np.arange(len(rows)) - np.repeat(firsts, np.diff(np.append(firsts, len(rows))))
    key = jax.random.fold_in(jax.random.key(settings["seed"]), _PLAYED)
    return FunnelParams(
        item=params.item[item],
        click_appeal=params.click_appeal[item],
        order_appeal=params.order_appeal[item],
        taste=params.taste[user],
        curiosity=_draw_curiosity(world.interests, key, jnp.asarray(rows), jnp.asarray(number)),
        trust=jnp.asarray(
            _trust_before(log, rows, world.params) if truth is _TRUST else np.zeros(len(user), np.float32)
        ),
        length=jnp.full((len(user),), np.iinfo(np.int32).max, jnp.int32),
        click_bias=jnp.float32(settings["click_bias"]),
        order_bias=jnp.float32(settings["order_bias"]),
    )


def _trust_before(log: EventLog, rows: np.ndarray, drawn: FunnelParams) -> np.ndarray:
    """Returns [S] float32 the trust of the users of rows [S] before these, from what they clicked until then.

    Args:
        log: The log.
        rows: [S] int rows.
        drawn: The truth as it was drawn, by original ids.
    """
    # All that each of these users was shown, in order of time, padded at the end.
    user, places = np.unique(log.user[rows], return_inverse=True)
    theirs = np.flatnonzero(np.isin(log.user, user))
    theirs = theirs[np.lexsort((log.shown_at[theirs], log.user[theirs]))]
    whose = np.searchsorted(user, log.user[theirs])
    place = np.arange(len(theirs)) - np.searchsorted(whose, whose)
    item = np.zeros((len(user), place.max() + 1), np.int32)
    feedback = np.zeros(item.shape, np.int32)
    item[whose, place], feedback[whose, place] = np.asarray(log.item_ids)[log.item[theirs]], log.feedback[theirs]
    taste = np.asarray(drawn.taste)[np.asarray(log.user_ids)[user]]
    # How it moved.
    trust = np.empty(item.shape, np.float32)
    for first in range(0, len(user), _USERS_PER_BATCH):
        batch = np.minimum(np.arange(first, first + _USERS_PER_BATCH), len(user) - 1)
        trust[batch] = _replayed_trust(drawn, jnp.asarray(taste[batch]), item[batch], feedback[batch])
    before = np.zeros(log.num_events, np.int64)
    before[theirs] = place
    return trust[places, before[rows]]


@jax.jit
def _replayed_trust(drawn: FunnelParams, taste: jax.Array, item: jax.Array, feedback: jax.Array) -> jax.Array:
    """Returns [B, T] the trust of users with tastes [B, 50] before each of their logged items [B, T]."""

    def of_user(taste: jax.Array, item: jax.Array, feedback: jax.Array) -> jax.Array:
        zero, length = jnp.zeros_like(taste), jnp.int32(np.iinfo(np.int32).max)
        first = FunnelUser(taste, zero, zero, zero, jnp.float32(0), jnp.int32(0), length)

        def step(user: FunnelUser, row: tuple[jax.Array, jax.Array]) -> tuple[FunnelUser, jax.Array]:
            return _TRUST.update(drawn, user, *row), user.trust

        return jax.lax.scan(step, first, (item, feedback))[1]

    return jax.vmap(of_user)(taste, item, feedback)


class _Interests(NamedTuple):
    """What curiosities are drawn from: centres [25, 50] of the clusters, and axes [50, 50] of the noise."""

    centres: jax.Array
    axes: jax.Array


@jax.jit
def _draw_curiosity(interests: _Interests, key: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Draws [S, 50] curiosities about one cluster each; equal numbers, [S] int each, give equal ones."""

    def draw(first: jax.Array, second: jax.Array) -> jax.Array:
        cluster_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, first), second))
        centre = interests.centres[jax.random.randint(cluster_key, (), 0, NUM_CLUSTERS)]
        return unit(centre + 0.5 * unit(jax.random.normal(noise_key, (DIMENSION,)) @ interests.axes))

    return jax.vmap(draw)(first, second)


class _World(NamedTuple):
    """Items and users: the truth, with no curiosity yet; what curiosities are drawn from; the shop's catalogue."""

    params: FunnelParams
    interests: _Interests
    catalogue: Catalogue


def _draw_world(generator: np.random.Generator, users: int, items: int) -> _World:
    """Draws items and users; the truth is not yet calibrated."""
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
    # Users: taste for two clusters.
    two = np.stack([generator.choice(NUM_CLUSTERS, 2, replace=False) for _ in range(users)])
    taste = unit(centres[two].sum(1) + 0.3 * unit(noise(users)))
    # Popularity: a long tail.
    rank = generator.permutation(items) + 1.0
    popularity = np.exp(0.5 * click_appeal + 0.3 * order_appeal) * rank**-0.7
    params = FunnelParams(
        item=jnp.asarray(vectors @ rotation, jnp.float32),
        click_appeal=jnp.asarray(click_appeal, jnp.float32),
        order_appeal=jnp.asarray(order_appeal, jnp.float32),
        taste=jnp.asarray(taste @ rotation, jnp.float32),
        curiosity=jnp.zeros((users, DIMENSION)),
        trust=jnp.zeros((users,)),
        length=jnp.full((users,), MAX_SESSION, jnp.int32),
        click_bias=jnp.float32(0),
        order_bias=jnp.float32(0),
    )
    return _World(
        params,
        _Interests(jnp.asarray(centres @ rotation, jnp.float32), jnp.asarray(scale[:, None] * rotation, jnp.float32)),
        Catalogue(params.item, jnp.asarray(np.cumsum(np.sqrt(popularity)), jnp.float32)),
    )


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


def _calibrated(world: _World, writer: _Writer, schedule: _Schedule, key: jax.Array) -> _World:
    """Sets kc so that a log of the first users, with fixed random numbers, has the click rate of Table 1."""
    import scipy.optimize  # slow to import, needed to generate only

    pilot = np.arange(min(_PILOT_USERS, len(schedule.length)))

    def with_bias(click_bias: float) -> _World:
        return world._replace(params=dataclasses.replace(world.params, click_bias=jnp.float32(click_bias)))

    def excess(click_bias: float) -> float:
        played = _play(with_bias(click_bias), writer, schedule, pilot, key, False)
        return float(np.log(np.mean(1 - played["probabilities"][:, 0]) / CLICK_RATE))

    return with_bias(scipy.optimize.brentq(excess, -6.0, 0.0, xtol=0.02))


def _draw_orders(generator: np.random.Generator, columns: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """Sets ko so that the log has the order rate of Table 1, and redraws the orders; returns the columns and ko.

    Orders do not affect later steps, so that drawing them last is exact.
    """
    import scipy.optimize  # slow to import, needed to generate only

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


@partial(jax.jit, static_argnums=0)
def _play_sessions(
    writer: _Writer, visits: Visits, catalogue: Catalogue, users: jax.Array, key: jax.Array
) -> tuple[Visitor, Impressions]:
    """Plays one session with each user; returns them afterwards, and what was played."""
    env = LoggingEnv(VisitorModel(writer.users), MAX_SESSION, 1, shop=writer.shop)
    nothing = jnp.zeros((1,), jnp.int32)  # the truth ignores histories
    table = HistoryTable(nothing, nothing, jnp.zeros((2,), jnp.int32), jnp.zeros((2,), jnp.int32), nothing, nothing)
    env_params = SessionParams(table, jnp.zeros_like(visits.users.length), None, visits)
    policy = shop_policy(partial(interest_of, writer.shop))
    episodes = begin(env, env_params, policy, catalogue, users)
    episodes, played = play_on(env, env_params, policy, catalogue, episodes, key, True)
    return episodes.state.hidden, played


def _play(
    world: _World, writer: _Writer, schedule: _Schedule, users: np.ndarray, key: jax.Array, with_shown: bool
) -> dict[str, np.ndarray]:
    """Plays all sessions of the users, in batches, and returns the columns of the log.

    Args:
        with_shown: Whether to compute the probabilities with which items were shown.
    """
    columns: dict[str, list[np.ndarray]] = {}
    size, everyone = min(_USERS_PER_BATCH, len(users)), jnp.arange(len(schedule.length))
    steps = np.arange(MAX_SESSION)
    # On the host, where setting rows of many numbers compiles nothing.
    trust, clicks = np.array(world.params.trust), np.zeros((len(everyone), DIMENSION), np.float32)
    for session in range(schedule.length.shape[1]):
        # The session of this number: another curiosity; trust, and what the shop remembers, last.
        visiting = users[schedule.length[users, session] > 0]
        lengths = jnp.asarray(schedule.length[:, session], jnp.int32)
        curiosity_key = jax.random.fold_in(key, _LOGGED)
        curiosity = _draw_curiosity(world.interests, curiosity_key, everyone, jnp.full_like(everyone, session))
        today = dataclasses.replace(world.params, length=lengths, curiosity=curiosity)
        for first in range(0, len(visiting), size):
            batch = visiting[first : first + size]
            padded = jnp.asarray(np.resize(batch, size), jnp.int32)
            batch_key = jax.random.fold_in(jax.random.fold_in(key, session), first)
            visits = Visits(dataclasses.replace(today, trust=jnp.array(trust)), jnp.array(clicks))
            visitors, played = _play_sessions(writer, visits, world.catalogue, padded, batch_key)
            trust[batch] = np.asarray(visitors.user.trust)[: len(batch)]
            clicks[batch] = np.asarray(visitors.clicks)[: len(batch)]
            # Columns, up to the end of each session.
            kept = (steps[:, None] < schedule.length[batch, session]).T
            start = schedule.start[batch, session]
            item, feedback, probabilities = (
                np.moveaxis(np.asarray(array), 0, 1)[: len(batch)]
                for array in (played.item, played.feedback, played.probabilities)
            )
            batch_columns = {
                "users": np.broadcast_to(batch[:, None], kept.shape),
                "items": item,
                "times": start[:, None] + steps * SECONDS_PER_IMPRESSION,
                "feedback": feedback,
                "sessions": np.broadcast_to(batch[:, None] * schedule.length.shape[1] + session, kept.shape),
                "probabilities": probabilities,
            }
            for column, values in batch_columns.items():
                columns.setdefault(column, []).append(values[kept])
            if with_shown:
                knew = np.moveaxis(np.asarray(played.interest), 0, 1)[: len(batch)]
                chances = _shown_probabilities(world.catalogue, knew, item, kept)
                columns.setdefault("shown_probability", []).append(chances)
    return {column: np.concatenate(values) for column, values in columns.items()}


def _shown_probabilities(catalogue: Catalogue, knew: np.ndarray, item: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Returns the probabilities with which the kept impressions of B sessions were shown.

    Args:
        knew: [B, T, 50] what the shop knew.
        item: [B, T] items.
        kept: [B, T] bool.
    """
    # A shop learns by clicks, so that it mostly knew the same as a step before.
    news = np.any(np.diff(knew, axis=1, prepend=np.nan) != 0, -1) & kept
    known = np.cumsum(news).reshape(news.shape) - 1
    earlier = np.tri(MAX_SESSION, k=-1, dtype=bool)  # [step, step before]
    session, step = np.nonzero(kept)
    shown = np.where(earlier[step], item[session], -1)
    return shown_probabilities(catalogue, knew[news], known[kept], item[kept], shown)


def best_log_loss(log: EventLog, rows: np.ndarray) -> float | None:
    """Returns the mean log-loss (nats) of the truth on rows of a generated log; None for a real log."""
    if log.probabilities is None:
        return None
    given = log.probabilities[rows, log.feedback[rows]]
    return float(-np.mean(np.log(np.maximum(given, 1e-12), dtype=np.float64)))
