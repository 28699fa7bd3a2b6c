"""The first kind of users behind generated logs: their parameters, state and answers (see `sim.generators.funnel`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import flax.struct
import jax
import jax.numpy as jnp

from sim.envs.histories import Histories
from sim.tables.events import CLICK


@flax.struct.dataclass
class FunnelParams:
    """The truth behind a generated log.

    Attributes:
        item: [I, 50] float32 item vectors e.
        click_appeal: [I] float32 bc.
        order_appeal: [I] float32 bo.
        taste: [S, 50] float32 u of each session's user.
        curiosity: [S, 50] float32 v0.
        trust: [S] float32 m at the beginning of the session.
        length: [S] int32 steps after which trust changes no more, because the session has ended.
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
    """The truth as a feedback model."""

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
            curiosity=unit(hidden.curiosity + (0.15 * clicked + 0.02) * vector + pull),
            boredom=0.9 * hidden.boredom + 0.1 * vector,
            trust=jnp.where(hidden.step < hidden.length, trust, hidden.trust),
            step=hidden.step + 1,
        )

    def trust_gain(self, params: FunnelParams, hidden: FunnelUser, item: jax.Array) -> jax.Array:
        """Returns what a click on an item adds to the user's trust: below 0 where it does not fit the taste."""
        return 0.25 * (hidden.taste @ params.item[item] - 0.35 + 0.1 * params.order_appeal[item])


def unit(vector: jax.Array) -> jax.Array:
    """Returns vectors of norm 1 along the last axis; zero stays zero."""
    return vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)
