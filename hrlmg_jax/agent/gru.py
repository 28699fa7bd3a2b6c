"""The recurrence of stacked GRUs (Cho et al. 2014), with the backward pass written out.

Differentiating the scan would add up the weights' gradient step by step; written out, it is one matrix product over all
steps. Together with an unrolled forward pass that halves the time of an update on CPU (docs/performance.md).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

_UNROLL = 10  # unrolled steps run without the loop's overhead, three times as fast; more of them take long to compile


@jax.custom_vjp
def last_hidden(gates: jax.Array, known: jax.Array, recurrent: jax.Array, candidate_bias: jax.Array) -> jax.Array:
    """Returns the last hidden states [G, ..., H] of G GRUs that start from zero.

    r = sigmoid(gates_r + h U_r); z = sigmoid(gates_z + h U_z); n = tanh(gates_n + r * (h U_n + c));
    h <- n + z (h - n) at known steps, else h stays.

    Args:
        gates: [N, G, ..., 3H] the inputs' part of (r, z, n), biases included.
        known: [N, G, ...] bool.
        recurrent: [G, H, 3H] U.
        candidate_bias: [G, H] c.
    """
    return _forward(gates, known, recurrent, candidate_bias, keep=False)[0]


def _forward(
    gates: jax.Array, known: jax.Array, recurrent: jax.Array, candidate_bias: jax.Array, keep: bool
) -> tuple[jax.Array, Any]:
    """Returns the last hidden states and, per step, what the backward pass needs (None unless `keep`)."""
    size = recurrent.shape[1]
    bias = candidate_bias.reshape(-1, *(1,) * (gates.ndim - 3), size)

    def step(hidden: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
        gates_t, known_t = inputs
        recurrence = jnp.einsum("g...h,ghk->g...k", hidden, recurrent)
        both = _sigmoid(gates_t[..., : 2 * size] + recurrence[..., : 2 * size])
        candidate_recurrence = recurrence[..., 2 * size :] + bias
        candidate = jnp.tanh(gates_t[..., 2 * size :] + both[..., :size] * candidate_recurrence)
        next_hidden = jnp.where(known_t[..., None], candidate + both[..., size:] * (hidden - candidate), hidden)
        return next_hidden, (hidden, both, candidate, candidate_recurrence) if keep else None

    start = jnp.zeros((*gates.shape[1:-1], size), gates.dtype)
    return jax.lax.scan(step, start, (gates, known), unroll=min(_UNROLL, len(gates)))


def _sigmoid(x: jax.Array) -> jax.Array:
    return 0.5 * jnp.tanh(0.5 * x) + 0.5  # compiles to fewer operations than the exponential form


def _last_hidden_and_steps(
    gates: jax.Array, known: jax.Array, recurrent: jax.Array, candidate_bias: jax.Array
) -> tuple[jax.Array, Any]:
    last, steps = _forward(gates, known, recurrent, candidate_bias, keep=True)
    return last, (steps, known, recurrent)


def _backward(kept: Any, d_last: jax.Array) -> tuple[jax.Array, None, jax.Array, jax.Array]:
    steps, known, recurrent = kept
    size = recurrent.shape[1]

    def step(d_next: jax.Array, kept_t: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        (hidden, both, candidate, candidate_recurrence), known_t = kept_t
        reset, update = both[..., :size], both[..., size:]
        known_t = known_t[..., None]
        d_new = jnp.where(known_t, d_next, 0.0)
        d_candidate = d_new * (1 - update) * (1 - candidate**2)
        d_reset = d_candidate * candidate_recurrence * reset * (1 - reset)
        d_update = d_new * (hidden - candidate) * update * (1 - update)
        d_recurrence = jnp.concatenate([d_reset, d_update, d_candidate * reset], -1)
        d_hidden = jnp.where(known_t, d_next * update, d_next)
        return d_hidden + jnp.einsum("g...k,ghk->g...h", d_recurrence, recurrent), (d_recurrence, d_candidate)

    _, (d_recurrence, d_candidate) = jax.lax.scan(step, d_last, (steps, known), reverse=True)
    d_recurrent = jnp.einsum("ng...h,ng...k->ghk", steps[0], d_recurrence)
    d_bias = jnp.sum(d_recurrence[..., 2 * size :], (0, *range(2, d_recurrence.ndim - 1)))
    d_gates = jnp.concatenate([d_recurrence[..., : 2 * size], d_candidate], -1)
    return d_gates, None, d_recurrent, d_bias


last_hidden.defvjp(_last_hidden_and_steps, _backward)
