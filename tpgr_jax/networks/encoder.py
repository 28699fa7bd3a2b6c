"""The state of Figure 2: item and reward embeddings through a simple recurrent unit, beside the user status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from harness.settings import Count
from sim.envs.rating_env import STATUS_SIZE
from tpgr_jax.models.matrix_factorisation import stored_factor_vectors
from tpgr_jax.networks.drawing import in_rows
from tpgr_jax.networks.sru import sru_states, sru_step
from tpgr_jax.problem import Problem

REWARD_BINS = 10
REWARD_RANGE = (-1.0, 1.0)  # (a, b] of empirical rewards; sequential rewards outside it go into the outer bins


@dataclass(frozen=True)
class EncoderConfig:
    """What every learned policy's state is made of (`conf/agent/*.yaml` explain each)."""

    embedding_size: Count
    state_hidden: Count
    embedding: Literal["mf", "random"]
    embedding_epochs: Count
    train_embedding: bool
    status_in_rnn: bool


def reward_bin(reward: jax.Array, low: float, high: float, num_bins: int = REWARD_BINS) -> jax.Array:
    """Returns the int32 bin of a reward: l - floor(l * (b - r) / (b - a)) on (a, b], counted from 0.

    The paper's "Reward Mapping Function" (bins 1 to l there). Rewards outside (a, b] go into the first or last bin.

    Args:
        reward: Any shape.
        low: a.
        high: b > a.
        num_bins: l.
    """
    # Rounding before floor keeps exact bin edges (such as r = 0.2 on (-1, 1]) in their bin in float32.
    scaled = jnp.round(num_bins * (high - reward) / (high - low), 4)
    return jnp.clip(num_bins - 1 - jnp.floor(scaled).astype(jnp.int32), 0, num_bins - 1)


class _Gates(nn.Module):
    """The parameters of the recurrent unit's layers as one: kernel [F, 4H] and bias [4H]."""

    size: int

    @nn.compact
    def __call__(self, num_inputs: int) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (num_inputs, 4 * self.size))
        return kernel, self.param("bias", nn.initializers.zeros, (4 * self.size,))


class Encoder(nn.Module):
    """SRU (see `sru.py`) over (item embedding, one-hot reward[, user status]), one input per past step.

    Attributes:
        num_items: I.
        embedding_size: E.
        hidden_size: H.
        status_in_rnn: Whether the user status is part of x (official code).
        train_embedding: Whether gradients reach the item embeddings.
    """

    num_items: int
    embedding_size: int
    hidden_size: int
    status_in_rnn: bool
    train_embedding: bool

    def setup(self) -> None:
        """Declares the parameters."""
        self.item_embedding = self.param(
            "item_embedding", in_rows(nn.initializers.normal(0.1)), (self.num_items, self.embedding_size)
        )
        self.gates = _Gates(self.hidden_size)

    @property
    def state_size(self) -> int:
        """Numbers in a state: H + 9."""
        return self.hidden_size + STATUS_SIZE

    def inputs(self, item: jax.Array, reward: jax.Array, status: jax.Array) -> jax.Array:
        """Returns [..., F] inputs x of the recurrent unit for past interactions.

        Args:
            item: [...] int32, valid items.
            reward: [...] rewards they got.
            status: [..., 9] user status after them.
        """
        table = self.item_embedding if self.train_embedding else jax.lax.stop_gradient(self.item_embedding)
        bins = jax.nn.one_hot(reward_bin(reward, *REWARD_RANGE), REWARD_BINS)
        parts = [table[item], bins, status] if self.status_in_rnn else [table[item], bins]
        return jnp.concatenate(parts, -1)

    def step(
        self, cell: jax.Array, item: jax.Array, reward: jax.Array, status: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Takes in one interaction per episode.

        Args:
            cell: [B, H] c_{t-1}.
            item: [B] int32 last item, -1 before the first step.
            reward: [B] its reward.
            status: [B, 9] user status now.

        Returns:
            [B, H] c_t and [B, H + 9] state; before the first step zeros (s_1 = [0]).
        """
        inputs = self.inputs(jnp.maximum(item, 0), reward, status)
        cell, hidden = sru_step(cell, inputs, *self.gates(inputs.shape[-1]))
        seen = (item >= 0)[:, None]
        return jnp.where(seen, cell, 0.0), jnp.concatenate([jnp.where(seen, hidden, 0.0), status], -1)

    def __call__(self, item: jax.Array, reward: jax.Array, status: jax.Array) -> jax.Array:
        """Encodes whole episodes.

        Args:
            item: [T, B] int32 items of the episode.
            reward: [T, B] their rewards.
            status: [T, B, 9] user status before each step.

        Returns:
            [T, B, H + 9] state before each step; the first is zero.
        """
        inputs = self.inputs(item[:-1], reward[:-1], status[1:])
        hidden = sru_states(inputs, *self.gates(inputs.shape[-1]))
        hidden = jnp.concatenate([jnp.zeros_like(hidden, shape=(1, *hidden.shape[1:])), hidden])
        return jnp.concatenate([hidden, status], -1)


def make_encoder(config: EncoderConfig, num_items: int) -> Encoder:
    """Builds the encoder for a catalogue of I items."""
    return Encoder(
        num_items=num_items,
        embedding_size=config.embedding_size,
        hidden_size=config.state_hidden,
        status_in_rnn=config.status_in_rnn,
        train_embedding=config.train_embedding,
    )


def pretrained(params: Any, problem: Problem, config: EncoderConfig, seed: int) -> Any:
    """Returns freshly drawn network parameters, with a pre-trained item embedding where the settings say `mf`."""
    if config.embedding == "random":
        return params
    cache, sizes = problem.data_settings.cache_folder, (config.embedding_size, config.embedding_epochs)
    return with_item_embedding(params, stored_factor_vectors(cache, problem.data, problem.train_users, *sizes, seed))


def with_item_embedding(params: Any, embedding: np.ndarray) -> Any:
    """Returns network parameters with the encoder's item embedding replaced by a pre-trained [I, E] table."""
    encoder = {**params["encoder"], "item_embedding": jnp.asarray(embedding, jnp.float32)}
    return {**params, "encoder": encoder}
