"""A second kind of users behind generated logs, with none of the dynamics of the first (`sim.generators.funnel`).

Items, appeals, tastes, curiosities, visits and shops are the first kind's; the users are not (`data.world=drift`):

* an interest w, which is the user's taste and the session's curiosity at first and then drifts by itself, whatever is
  shown and clicked;
* fatigue, which grows with the position in the session;
* patience p, which skips use up and clicks restore: a user who has none left leaves, and skips all that follows.

    click logit = kc + 4 w.e + 0.4 bc - 1.5 (1 - exp(-t / 25)) if p > 0; otherwise no click
    order logit (given a click) = ko + 3 (0.7 u + 0.3 w).e + 0.8 bo
    w <- unit(w + 0.15 n_t), n_t of norm 1, drawn for the session and step
    p <- p - 0.04 after a skip; min(p + 0.3, 1) after a click; 1 at first

There is no trust and no boredom, and a click changes no taste.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from sim.envs.histories import Histories
from sim.envs.nearest_items import unit
from sim.generators.funnel_users import FunnelParams, FunnelUser
from sim.tables.events import CLICK

FATIGUE, FATIGUE_STEPS = 1.5, 25.0
DRIFT = 0.15
LOSS, GAIN = 0.04, 0.3
_GONE = 1e-6
"""Chance of a click of who has left; not 0, so that orders given a click have a probability."""


@dataclass(frozen=True)
class DriftModel:
    """The truth as a feedback model; `trust` of its users is their patience."""

    def initial(self, params: FunnelParams, start: jax.Array) -> FunnelUser:
        """Returns a user at the beginning of a session."""
        taste, curiosity = params.taste[start], params.curiosity[start]
        return FunnelUser(
            taste=taste,
            first_curiosity=curiosity,
            curiosity=unit(taste + curiosity),
            boredom=jnp.zeros_like(curiosity),
            trust=jnp.float32(1),
            step=jnp.int32(0),
            length=params.length[start],
        )

    def probabilities(
        self, params: FunnelParams, hidden: FunnelUser, histories: Histories, item: jax.Array
    ) -> jax.Array:
        """Returns [3] the true probabilities; histories play no part."""
        vector = params.item[item]
        fatigue = FATIGUE * (1 - jnp.exp(-hidden.step.astype(jnp.float32) / FATIGUE_STEPS))
        logit = params.click_bias + 4 * hidden.curiosity @ vector + 0.4 * params.click_appeal[item] - fatigue
        click = jnp.where(hidden.trust > 0, jax.nn.sigmoid(logit), _GONE)
        interest = 0.7 * hidden.taste + 0.3 * hidden.curiosity
        order = jax.nn.sigmoid(params.order_bias + 3 * interest @ vector + 0.8 * params.order_appeal[item])
        return jnp.stack([1 - click, click * (1 - order), click * order])

    def update(self, params: FunnelParams, hidden: FunnelUser, item: jax.Array, feedback: jax.Array) -> FunnelUser:
        """Returns the user after an answer."""
        # Noise of the session and step: sessions differ by their curiosity.
        bits = jax.lax.bitcast_convert_type(hidden.first_curiosity[0], jnp.uint32)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), bits), hidden.step)
        noise = unit(jax.random.normal(key, hidden.curiosity.shape))
        patience = jnp.where(feedback >= CLICK, jnp.minimum(hidden.trust + GAIN, 1.0), hidden.trust - LOSS)
        return dataclasses.replace(
            hidden,
            curiosity=unit(hidden.curiosity + DRIFT * noise),
            trust=jnp.where(hidden.trust > 0, patience, hidden.trust),
            step=hidden.step + 1,
        )
