"""The shops that write generated logs: what they show, and the probability that the log keeps of it."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sim.envs.histories import Histories
from sim.envs.session_env import SessionObservation
from sim.generators import shop
from sim.generators.funnel_world import draw_world
from sim.generators.shop import EXPLORATION, Catalogue, shop_policy, shown_probabilities

SESSIONS = 40_000
shop_acts = jax.jit(shop_policy(lambda interest: interest).act, static_argnums=4)


def shown_items(catalogue: Catalogue, interest, before, seed: int, steps: int = 12) -> np.ndarray:
    """What a shop shows to as many users alike."""
    recommended = jnp.asarray([*before, *[-1] * (steps - len(before))], jnp.int32)
    nothing = jnp.full((1,), -1, jnp.int32)
    one = SessionObservation(
        step=jnp.int32(len(before)),
        recommended=recommended,
        last_item=recommended[len(before) - 1],
        histories=Histories(nothing, nothing, nothing),
        candidates=None,
        hidden=jnp.asarray(interest, jnp.float32),
    )
    observation = jax.tree.map(lambda array: jnp.broadcast_to(array, (SESSIONS, *array.shape)), one)
    _, decision = shop_acts(catalogue, (), observation, jax.random.key(seed), True)
    assert decision.action.dtype == jnp.int32
    return np.asarray(decision.action)


def catalogue_of(vectors, weight) -> Catalogue:
    return Catalogue(jnp.asarray(vectors, jnp.float32), jnp.asarray(np.cumsum(weight), jnp.float32))


def probabilities(catalogue: Catalogue, interest, before) -> np.ndarray:
    """The probabilities of all items."""
    number = len(catalogue.cumulative)
    shown = np.full((number, 12), -1)
    shown[:, : len(before)] = before
    known = np.zeros(number, int)
    return shown_probabilities(catalogue, np.asarray([interest], np.float32), known, np.arange(number), shown)


def test_without_interests_items_are_drawn_by_their_weights_and_one_in_ten_uniformly():
    weight = np.array([1.0, 2.0, 0.0, 4.0, 1.0])
    found = probabilities(catalogue_of(np.zeros((5, 2)), weight), [0, 0], [])
    np.testing.assert_allclose(found, 0.9 * weight / weight.sum() + 0.1 / 5, rtol=2e-5)


def test_what_fits_is_shown_by_a_softmax_over_fifteen_candidates():
    # Two items of equal weight, i.e of 1 and 0: k of 15 candidates are the first, k ~ B(15, 1/2).
    found = probabilities(catalogue_of([[1.0, 0.0], [0.0, 0.0]], [1.0, 1.0]), [1, 0], [])
    k = np.arange(16)
    first = (scipy.stats.binom.pmf(k, 15, 0.5) * k * math.e**3 / (k * math.e**3 + 15 - k)).sum()
    np.testing.assert_allclose(found, 0.9 * np.array([first, 1 - first]) + 0.05, rtol=2e-5)


@pytest.mark.parametrize(
    ("interest", "before"),
    [
        pytest.param(None, [], id="nothing known"),
        pytest.param([3], [], id="one item clicked"),
        pytest.param([1, 2], [3, 5], id="two clicked, two shown"),
        pytest.param([0, 1], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], id="all candidates mostly shown before"),
    ],
)
def test_the_probabilities_are_those_of_simulated_shops(interest, before):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(12, 50))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    knows = np.zeros(50) if interest is None else vectors[interest].mean(0)
    catalogue = catalogue_of(vectors, random.random(12) ** 3)
    p = probabilities(catalogue, knows, before).astype(np.float64)
    p[before] = 0
    np.testing.assert_allclose(p.sum(), 1, atol=2e-5)
    counts = np.bincount(shown_items(catalogue, knows, before, len(before)), minlength=12)
    assert (np.abs(counts - SESSIONS * p) <= 4.5 * np.sqrt(SESSIONS * p * (1 - p))).all()
    if len(before) == 10:
        chance = np.diff(catalogue.cumulative, prepend=0) / float(catalogue.cumulative[-1])
        assert chance[before].sum() ** 15 > 0.01  # so that it matters what happens then


def test_large_catalogues_are_sampled_with_an_error_of_one_percent(monkeypatch):
    world = draw_world(np.random.default_rng(0), 40, 8_000)
    random = np.random.default_rng(1)
    cumulative = np.asarray(world.catalogue.cumulative)
    draw = lambda *shape: np.searchsorted(cumulative, random.random(shape) * cumulative[-1])  # noqa: E731
    interest, known = np.asarray(world.params.taste), np.repeat(np.arange(40), 5)
    of_these = partial(shown_probabilities, world.catalogue, interest, known, draw(200), draw(200, 10))
    sampled = of_these()
    monkeypatch.setattr(shop, "_EXACT_ITEMS", 8_000)
    error = sampled / of_these() - 1
    assert 0.0005 < np.sqrt(np.mean(error**2)) < 0.015
    assert abs(error.mean()) < 0.005


def test_every_item_has_its_share_of_the_exploration():
    world = draw_world(np.random.default_rng(0), 40, 300)
    found = probabilities(world.catalogue, world.params.taste[0], [])
    assert found.min() >= EXPLORATION / 300
