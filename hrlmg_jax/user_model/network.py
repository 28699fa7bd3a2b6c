"""The learned user (Section 4.1): the low-level critic's architecture with a softmax over skip, click and order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from harness.settings import Count
from hrlmg_jax.agent.history_encoder import DENSE_WEIGHTS, HistoryEncoder
from sim.envs.histories import Histories
from sim.tables.events import NUM_FEEDBACK


@dataclass(frozen=True)
class FeedbackNetworkConfig:
    """Sizes of the learned user's network (`conf/simulator/paper.yaml`)."""

    hidden_size: Count
    state_size: Count
    width: Count


class FeedbackNetwork(nn.Module):
    """P(skip, click, order | s^l, item): encoder (Eq. 8), a ReLU layer on (s^l, e) (Eq. 10), a softmax layer.

    Attributes:
        config: Sizes.
    """

    config: FeedbackNetworkConfig

    @nn.compact
    def __call__(self, browsed: jax.Array, clicked: jax.Array, item: jax.Array, embedding: jax.Array) -> jax.Array:
        """Returns [..., 3] logits.

        Args:
            browsed: [..., N] int32 items shown last, padded with -1 in front.
            clicked: [..., N] int32 items clicked last.
            item: [...] int32 item shown now.
            embedding: [J, E].
        """
        state = HistoryEncoder(self.config.hidden_size, self.config.state_size, name="encoder")(
            browsed, clicked, embedding
        )
        inputs = jnp.concatenate([state, embedding[item]], -1)
        logits: jax.Array = nn.Dense(NUM_FEEDBACK, kernel_init=DENSE_WEIGHTS, name="output")(
            nn.relu(nn.Dense(self.config.width, kernel_init=DENSE_WEIGHTS, name="hidden")(inputs))
        )
        return logits


@flax.struct.dataclass
class FeedbackParams:
    """What the learned user consists of: `network` parameters and the item `embedding` [J, E]."""

    network: Any
    embedding: jax.Array


@dataclass(frozen=True)
class LearnedFeedback:
    """The learned user as a feedback model: all that it knows of the past are the histories."""

    network: FeedbackNetwork

    def init(self, key: jax.Array, embedding: jax.Array) -> Any:
        """Returns freshly drawn parameters of the network for items [J, E]."""
        history, item = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1,), jnp.int32)
        return self.network.init(key, history, history, item, embedding)["params"]

    def initial(self, params: FeedbackParams, start: jax.Array) -> tuple[()]:
        """Returns nothing: there is no hidden state."""
        return ()

    def probabilities(
        self, params: FeedbackParams, hidden: tuple[()], histories: Histories, item: jax.Array
    ) -> jax.Array:
        """Returns [3] probabilities of skip, click and order."""
        return jax.nn.softmax(self.logits(params, histories, item))

    def logits(self, params: FeedbackParams, histories: Histories, item: jax.Array) -> jax.Array:
        """Returns [..., 3] logits for histories [..., N] and items [...]."""
        logits: Any = self.network.apply(
            {"params": params.network}, histories.browsed, histories.clicked, item, params.embedding
        )
        return logits  # one array, not Flax's (array, variables)

    def update(self, params: FeedbackParams, hidden: tuple[()], item: jax.Array, feedback: jax.Array) -> tuple[()]:
        """Returns nothing."""
        return ()
