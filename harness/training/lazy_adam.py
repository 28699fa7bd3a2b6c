"""Adam that touches only the rows of a table that a batch has read, and computes what dense Adam computes.

A row without a gradient still moves in Adam, by its decaying moments: j steps after step t its moments are m b1^j and
v b2^j, so that from step t on it moves by -rate * F_t(m, v) altogether, with

    F_t(m, v) = sum_{j >= 1} (m b1^j / (1 - b1^(t+j))) / (sqrt(v b2^j / (1 - b2^(t+j))) + eps).

In place of a row's position p this keeps its point of rest, p - rate * F_t(m, v), which does not change while the row
gets no gradient. Only reading needs the position: rest + rate * F_t(m_t, v_t), with the moments decayed until now. F_t
is not a product of a function of t and one of (m, v), but with c_j = sqrt(b2^j / (1 - b2^(t+j))), any centre c and
u = c sqrt(v) / (c sqrt(v) + eps), from 0 to 1,

    F_t(m, v) = m / (c sqrt(v) + eps) * sum_j b1^j / (1 - b1^(t+j)) / (1 + u (c_j / c - 1)),

whose sum is a function of u alone, the same for all rows: a polynomial of ten coefficients is exact to float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

B1, B2, EPS = 0.9, 0.999, 1e-8  # as in optax.adam
_TERMS = 192  # after which 0.9^j is below float32's rounding
_DEGREE = 10  # coefficients; the error is 2e-7 at the first step and less at all later ones


class Rows(NamedTuple):
    """What Adam keeps of tables of N rows.

    Attributes:
        mu: First moments after the last gradient of each row; a pytree of [N, ...], like the tables.
        nu: Second moments, likewise.
        last: [N] int32 Adam steps done when the row had its last gradient.
    """

    mu: Any
    nu: Any
    last: jax.Array


class Outlook(NamedTuple):
    """What is the same for all rows after a number of Adam steps; see the module.

    Attributes:
        steps: int32 t, done.
        centre: c.
        coefficients: [10] of the polynomial in 2 u - 1, the lowest first.
    """

    steps: jax.Array
    centre: jax.Array
    coefficients: jax.Array


class Stale(NamedTuple):
    """Tables whose rows have to be brought up to date when they are read.

    Attributes:
        rest: Points of rest, a pytree of [N, ...].
        rows: Adam's.
        outlook: Of now.
        learning_rate: Adam's.
    """

    rest: Any
    rows: Rows
    outlook: Outlook
    learning_rate: float

    def at(self, index: jax.Array | None = None) -> Any:
        """Returns the positions of rows [R] (None: of all); an index beyond the last row gives any position."""
        rest, (mu, nu) = _taken(self.rest, index), decayed(self.rows, self.outlook.steps, index)
        return jax.tree.map(
            lambda *leaves: leaves[0] + self.learning_rate * still_to_move(self.outlook, *leaves[1:]), rest, mu, nu
        )


def start_rows(tables: Any) -> Rows:
    """Returns what Adam keeps before its first step, when each row is at its point of rest."""
    number = jax.tree.leaves(tables)[0].shape[0]
    mu, nu = (jax.tree.map(jnp.zeros_like, tables) for _ in range(2))
    return Rows(mu, nu, jnp.zeros((number,), jnp.int32))


def outlook_after(count: jax.Array) -> Outlook:
    """Computes the polynomial of F_t for t = `count` steps done."""
    # The terms of the sum, with bias corrections that round as optax's do.
    j = jnp.arange(1, _TERMS + 1)
    weight = B1**j / (1 - B1 ** (count + j))
    scale = jnp.sqrt(B2**j / (1 - B2 ** (count + j)))
    centre = jnp.exp(jnp.sum(weight * jnp.log(scale)) / jnp.sum(weight))

    # Interpolation at Chebyshev's points.
    points = np.cos(np.pi * (np.arange(_DEGREE) + 0.5) / _DEGREE)
    values = jnp.sum(weight / (1 + (points[:, None] + 1) / 2 * (scale / centre - 1)), 1)
    to_coefficients = np.linalg.inv(np.polynomial.polynomial.polyvander(points, _DEGREE - 1)).astype(np.float32)
    return Outlook(count, centre, jnp.sum(to_coefficients * values, 1))


def still_to_move(outlook: Outlook, mu: jax.Array, nu: jax.Array) -> jax.Array:
    """Returns F_t of moments that are up to date, any shape."""
    inverse = 1 / (outlook.centre * jnp.sqrt(nu) + EPS)
    z = 1 - 2 * EPS * inverse
    total = jnp.broadcast_to(outlook.coefficients[-1], z.shape)
    for number in reversed(range(_DEGREE - 1)):
        total = total * z + outlook.coefficients[number]
    return mu * inverse * total


def decayed(rows: Rows, count: jax.Array, index: jax.Array | None = None) -> tuple[Any, Any]:
    """Returns the moments of rows [R] (None: of all) after `count` steps."""
    gap = count - _taken(rows.last, index)

    def decay(table: jax.Array, rate: float) -> jax.Array:
        taken = _taken(table, index)
        return taken * (rate**gap).reshape(-1, *[1] * (taken.ndim - 1))

    return jax.tree.map(lambda table: decay(table, B1), rows.mu), jax.tree.map(lambda table: decay(table, B2), rows.nu)


def step_rows(stale: Stale, after: Outlook, index: jax.Array, gradient: Any) -> tuple[Any, Rows]:
    """Takes one Adam step with the gradient of some rows.

    Args:
        stale: The tables before the step.
        after: `outlook_after` one more step.
        index: [R] int32 rows, ascending and distinct; those beyond the last row are left out.
        gradient: Of these rows, a pytree of [R, ...].

    Returns:
        The tables' points of rest, and what Adam keeps, after the step.
    """
    count = after.steps

    def step(position: jax.Array, slope: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, ...]:
        mu, nu = (1 - B1) * slope + B1 * mu, (1 - B2) * slope**2 + B2 * nu
        update = mu / (1 - B1**count) / (jnp.sqrt(nu / (1 - B2**count)) + EPS)
        return position - stale.learning_rate * (update + still_to_move(after, mu, nu)), mu, nu

    positions = stale.at(index)
    stepped = jax.tree.map(step, positions, gradient, *decayed(stale.rows, stale.outlook.steps, index))
    rest, mu, nu = jax.tree.transpose(jax.tree.structure(positions), jax.tree.structure((0, 0, 0)), stepped)

    def put(table: jax.Array, values: jax.Array) -> jax.Array:
        return table.at[index].set(values, mode="drop", unique_indices=True, indices_are_sorted=True)

    rows = Rows(jax.tree.map(put, stale.rows.mu, mu), jax.tree.map(put, stale.rows.nu, nu), put(stale.rows.last, count))
    return jax.tree.map(put, stale.rest, rest), rows


def _taken(tables: Any, index: jax.Array | None) -> Any:
    return tables if index is None else jax.tree.map(lambda table: table.at[index].get(mode="clip"), tables)
