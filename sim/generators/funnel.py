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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from sim.generators.funnel_truth import KINDS
from sim.generators.funnel_world import GENERATOR_VERSION, Schedule, World, draw_sessions, draw_world
from sim.generators.shop_visits import Writer, play
from sim.tables.events import CLICK, SHOPS, WORLDS, EventLog, ShopName, WorldName, build_event_log

CLICK_RATE = 843_249 / 8_596_852  # Table 1, training day
ORDER_RATE = 46_022 / 8_596_852
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
        drawn = draw_world(generator, users, items)
        schedule = draw_sessions(generator, users)
        calibration_key, key = jax.random.split(jax.random.key(seed))
        written = Writer(shop, KINDS[world])
        drawn = _calibrated(drawn, written, schedule, calibration_key)
        columns = play(drawn, written, schedule, np.arange(users), key, True)
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


def _calibrated(world: World, writer: Writer, schedule: Schedule, key: jax.Array) -> World:
    """Sets kc so that a log of the first users, with fixed random numbers, has the click rate of Table 1."""
    import scipy.optimize  # slow to import, needed to generate only

    pilot = np.arange(min(_PILOT_USERS, len(schedule.length)))

    def with_bias(click_bias: float) -> World:
        return world._replace(params=dataclasses.replace(world.params, click_bias=jnp.float32(click_bias)))

    def excess(click_bias: float) -> float:
        played = play(with_bias(click_bias), writer, schedule, pilot, key, False)
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
