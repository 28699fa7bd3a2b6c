"""The state of both agents (Eq. 4 and 8): two histories of items through a GRU each, merged by a linear layer."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from hrlmg_jax.agent.gru import last_hidden

DENSE_WEIGHTS = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
"""Of all layers; uniform, because normal numbers take far longer to compile."""
WEIGHTS = nn.initializers.variance_scaling(1.0, "fan_in", "uniform", batch_axis=0)
"""The same for stacks of layers, [stack, fan in, fan out]."""


class HistoryEncoder(nn.Module):
    """GRU (Cho et al. 2014) over each of two histories; s = W_1 h_1 + W_2 h_2 + b with their last hidden states.

    r = sigmoid(x W_r + h U_r + b_r); z = sigmoid(x W_z + h U_z + b_z); n = tanh(x W_n + b_n + r * (h U_n + c_n));
    h <- (1 - z) n + z h.

    Attributes:
        hidden_size: H of each GRU.
        state_size: Of s.
    """

    hidden_size: int
    state_size: int

    @nn.compact
    def __call__(self, first: jax.Array, second: jax.Array, embedding: jax.Array) -> jax.Array:
        """Encodes histories.

        Args:
            first: [..., N] int32 items, oldest first, padded with -1 in front. Padding leaves the hidden state as it
                is, so that a padded history gives the same state as the history alone.
            second: [..., N] likewise.
            embedding: [I, E] item embeddings.

        Returns:
            [..., state_size] state.
        """
        size = self.hidden_size
        items = jnp.moveaxis(jnp.stack([first, second]), -1, 0)  # [N, 2, ...]
        inputs = self.param("inputs", WEIGHTS, (2, embedding.shape[-1], 3 * size))
        recurrent = self.param("recurrent", WEIGHTS, (2, size, 3 * size))
        bias = self.param("bias", nn.initializers.zeros, (2, 3 * size))
        candidate_bias = self.param("candidate_bias", nn.initializers.zeros, (2, size))
        merge = nn.Dense(self.state_size, kernel_init=DENSE_WEIGHTS, name="merge")
        # The products with the inputs need no recurrence: one for all steps.
        gates = jnp.einsum("ng...e,geh->ng...h", embedding[jnp.maximum(items, 0)], inputs)
        gates += bias.reshape(2, *(1,) * (gates.ndim - 3), -1)
        hidden = last_hidden(gates, items >= 0, recurrent, candidate_bias)
        return merge(jnp.concatenate([hidden[0], hidden[1]], -1))
