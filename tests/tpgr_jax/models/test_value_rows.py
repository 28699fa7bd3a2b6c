"""Items' values as products of fewer numbers, against NumPy."""

import numpy as np
import pytest

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from tpgr_jax.models.user_response_model import FittedResponses
from tpgr_jax.models.value_rows import compressed, value_inputs, value_rows
from tpgr_jax.settings import RunConfig

ITEMS, FACTORS = 40, 5
INPUTS = 2 * (FACTORS + 1)


def fitted():
    """Chances that go with rewards, as those of people do, and something of their own."""
    generator = np.random.default_rng(0)
    scale = np.linspace(1, 0.1, FACTORS)
    reward = generator.normal(size=(ITEMS, FACTORS)) * scale
    positive = 0.8 * reward + 0.1 * generator.normal(size=(ITEMS, FACTORS))
    mean = generator.normal(size=(ITEMS, 3))
    return FittedResponses(None, mean, np.stack([np.zeros_like(reward), positive, reward], 1))


def users(number):
    generator = np.random.default_rng(1)
    return generator.normal(size=(number, FACTORS)), generator.random(number)


def test_a_value_is_reward_and_chance_weighed():
    model, (factors, share) = fitted(), users(7)
    reward = model.mean[:, 2] + factors @ model.loadings[:, 2].T
    chance = model.mean[:, 1] + factors @ model.loadings[:, 1].T
    expected = (1 - share[:, None]) * reward + share[:, None] * chance
    found = np.asarray(value_inputs(factors, share)) @ value_rows(model).T
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_all_numbers_change_nothing():
    rows = value_rows(fitted())
    mixing, kept = compressed(rows, INPUTS, np.ones(ITEMS))
    np.testing.assert_allclose(mixing @ kept.T, rows.T, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 4, 7])
def test_no_other_products_of_so_many_numbers_come_nearer(rank):
    """The mean square of what is lost is that of a singular value decomposition over very many users."""
    rows = value_rows(fitted())
    inputs = np.asarray(value_inputs(*users(200_000)), np.float64)
    weight = np.random.default_rng(2).random(ITEMS)
    mixing, kept = compressed(rows, rank, weight)
    lost = np.mean(weight * (inputs @ (mixing @ kept.T - rows.T)) ** 2)
    weighted = np.linalg.qr(inputs)[1] @ rows.T * np.sqrt(weight)
    least = np.sum(np.linalg.svd(weighted)[1][rank:] ** 2) / len(inputs) / ITEMS
    assert least <= lost * (1 + 1e-9)
    assert lost == pytest.approx(least, rel=0.01)


def test_more_numbers_than_there_are_cannot_be_kept():
    values = composed_values("train", ["agent=tpgr_plus", "agent.policy.factors=3", "agent.policy.value_rank=9"])
    with pytest.raises(UserError, match=r"(?s)agent.policy.value_rank is 9, above the 8 numbers .*Set it to null"):
        read_settings(RunConfig, values)
