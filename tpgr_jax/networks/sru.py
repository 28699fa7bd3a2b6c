"""The simple recurrent unit (Lei and Zhang 2017) over whole episodes, with the backward pass written out.

Both passes go through time with everything of one step in the processor's cache: the backward pass computes the gates
again instead of reading them back, and adds up the weights' gradient as it goes. On CPU that takes half the time of
differentiating the whole-sequence form (docs/performance.md).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def sru_step(cell: jax.Array, inputs: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x~ = U x; f = sigmoid(W_f x + b_f); r = sigmoid(W_r x + b_r); c <- c_t; h = r * tanh(c_t) + (1 - r) * P x.

    with c_t = f * c_{t-1} + (1 - f) * x~. (U and P have a bias too; where x holds a one-hot vector it changes nothing.)

    Args:
        cell: [..., H] c_{t-1}.
        inputs: [..., F] x.
        kernel: [F, 4H] U, W_f, W_r, P.
        bias: [4H].

    Returns:
        c_t and h, [..., H] each.
    """
    candidate, forget, reset, skip = _gates(inputs, kernel, bias)
    cell = candidate + forget * (cell - candidate)
    return cell, skip + reset * (jnp.tanh(cell) - skip)


def _gates(inputs: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, ...]:
    candidate, forget, reset, skip = jnp.split(inputs @ kernel + bias, 4, -1)
    return candidate, _sigmoid(forget), _sigmoid(reset), skip


def _sigmoid(x: jax.Array) -> jax.Array:
    return 0.5 * jnp.tanh(0.5 * x) + 0.5  # compiles to fewer operations than the exponential form


@jax.custom_vjp
def sru_states(inputs: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns [T, B, H] h of every step of episodes [T, B, F] that begin with a cell of zeros."""
    return _forward(inputs, kernel, bias)[0]


def _forward(inputs: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns h and the cells before each step, [T, B, H] each."""

    def step(cell: jax.Array, inputs_t: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        next_cell, hidden = sru_step(cell, inputs_t, kernel, bias)
        return next_cell, (hidden, cell)

    start = jnp.zeros((inputs.shape[1], kernel.shape[1] // 4), inputs.dtype)
    states: tuple[jax.Array, jax.Array] = jax.lax.scan(step, start, inputs)[1]
    return states


def _forward_and_kept(inputs: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, Any]:
    hidden, cells = _forward(inputs, kernel, bias)
    return hidden, (inputs, cells, kernel, bias)


def _backward(kept: Any, d_states: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    inputs, cells, kernel, bias = kept

    def step(carry: Any, step_t: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        d_cell, d_kernel, d_bias = carry
        inputs_t, cell, d_hidden = step_t
        # The gates again, then their gradients, then what they add to the weights'.
        candidate, forget, reset, skip = _gates(inputs_t, kernel, bias)
        squashed = jnp.tanh(candidate + forget * (cell - candidate))
        d_next_cell = d_cell + d_hidden * reset * (1 - squashed**2)
        d_gates = jnp.concatenate(
            [
                d_next_cell * (1 - forget),
                d_next_cell * (cell - candidate) * forget * (1 - forget),
                d_hidden * (squashed - skip) * reset * (1 - reset),
                d_hidden * (1 - reset),
            ],
            -1,
        )
        carry = (d_next_cell * forget, d_kernel + inputs_t.T @ d_gates, d_bias + jnp.sum(d_gates, 0))
        return carry, d_gates @ kernel.T

    start = (jnp.zeros_like(cells[0]), jnp.zeros_like(kernel), jnp.zeros_like(bias))
    (_, d_kernel, d_bias), d_inputs = jax.lax.scan(step, start, (inputs, cells, d_states), reverse=True)
    return d_inputs, d_kernel, d_bias


sru_states.defvjp(_forward_and_kept, _backward)
