"""Lazy Adam against optax's, which moves every row in every step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from harness.training.lazy_adam import Stale, outlook_after, start_rows, step_rows, still_to_move

ROWS, RATE = 12, 0.01


def visits(steps: int) -> list[list[int]]:
    """Row 0 in every step, row 1 in the first alone, row 2 never, the others at random, rarer and rarer."""
    generator = np.random.default_rng(0)
    often = 2.0 ** -np.arange(ROWS)
    return [
        [0, *([1] if step == 0 else []), *(row for row in range(3, ROWS) if generator.random() < often[row - 3])]
        for step in range(steps)
    ]


def gradients(step: int, rows: list[int]) -> dict[str, np.ndarray]:
    """Zero where a row is not visited; sizes from far below Adam's eps to far above."""
    generator = np.random.default_rng(step)
    drawn = {"kernel": generator.normal(size=(ROWS, 3, 2)), "bias": generator.normal(size=(ROWS, 5))}
    drawn["kernel"] *= 10.0 ** np.linspace(-10, 1, ROWS * 6).reshape(ROWS, 3, 2)[:, ::-1]
    visited = np.isin(np.arange(ROWS), rows)
    return {
        name: np.where(visited.reshape(-1, *[1] * (value.ndim - 1)), value, 0).astype(np.float32)
        for name, value in drawn.items()
    }


def exact_step(position, mu, nu, gradient, step):
    """Adam in float64, as Kingma and Ba print it."""
    mu, nu = 0.9 * mu + 0.1 * gradient, 0.999 * nu + 0.001 * gradient**2
    return position - RATE * (mu / (1 - 0.9**step)) / (np.sqrt(nu / (1 - 0.999**step)) + 1e-8), mu, nu


def test_positions_are_those_of_dense_adam_over_many_steps():
    steps, generator = 1_000, np.random.default_rng(1)
    start = {"kernel": generator.normal(size=(ROWS, 3, 2)), "bias": generator.normal(size=(ROWS, 5))}
    dense = rest = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), start)
    exact = {name: (np.asarray(value, np.float64), 0.0, 0.0) for name, value in rest.items()}
    optimizer = optax.adam(RATE)
    dense_state, rows = optimizer.init(dense), start_rows(rest)

    @jax.jit
    def both(dense, dense_state, rest, rows, count, visited, gradient):
        updates, dense_state = optimizer.update(gradient, dense_state)
        stale = Stale(rest, rows, outlook_after(count), RATE)
        taken = jax.tree.map(lambda table: table.at[visited].get(mode="clip"), gradient)
        rest, rows = step_rows(stale, outlook_after(count + 1), visited, taken)
        return optax.apply_updates(dense, updates), dense_state, rest, rows

    @jax.jit
    def read(rest, rows, count):
        return Stale(rest, rows, outlook_after(count), RATE).at()

    for count, visited in enumerate(visits(steps)):
        gradient = gradients(count, visited)
        visited = np.asarray([*visited, *range(ROWS, 2 * ROWS - len(visited))], np.int32)
        dense, dense_state, rest, rows = both(dense, dense_state, rest, rows, np.int32(count), visited, gradient)
        for name, slope in gradient.items():
            exact[name] = exact_step(*exact[name], slope.astype(np.float64), count + 1)
        if count < 10 or count % 37 == 0:
            found = read(rest, rows, np.int32(count + 1))
            for name, (expected, _, _) in exact.items():
                error, of_dense = (np.abs(np.asarray(value[name]) - expected).max() for value in (found, dense))
                assert error < 4 * of_dense + 1e-6, (name, count)
                assert error < 2e-5, (name, count)  # rows have moved by about 1
    np.testing.assert_array_equal(rows.last[:3], [steps, 1, 0])
    np.testing.assert_array_equal(found["bias"][2], rest["bias"][2])


@pytest.mark.parametrize("count", [1, 2, 7, 100, 20_000])
def test_what_is_left_to_move_is_the_sum_of_the_steps_to_come(count):
    nu = np.concatenate([[0.0], np.logspace(-30, 6, 200)]).astype(np.float32)
    j = np.arange(1, 1000.0)
    first, second = 0.9**j / (1 - 0.9 ** (count + j)), np.sqrt(0.999**j / (1 - 0.999 ** (count + j)))
    expected = 3 * np.sum(first / (np.sqrt(nu.astype(np.float64))[:, None] * second + 1e-8), 1)
    found = still_to_move(outlook_after(jnp.int32(count)), jnp.float32(3), jnp.asarray(nu))
    np.testing.assert_allclose(found, expected, rtol=3e-5)
