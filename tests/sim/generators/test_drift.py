"""The second kind of users: its formulas by hand, and that a log of theirs is written and replayed by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from harness.errors import UserError
from sim.generators.drift import DRIFT, FATIGUE, FATIGUE_STEPS, GAIN, LOSS, DriftModel
from sim.generators.funnel import generate_log
from sim.generators.funnel_truth import true_users, truth_of_sessions
from sim.generators.funnel_users import FunnelModel, FunnelParams
from sim.tables.events import CLICK, ORDER, SKIP

MODEL = DriftModel()


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def log():
    return generate_log(size="tiny", seed=0, shop="blind", world="drift", num_users=40, num_items=100)


@pytest.fixture(scope="module")
def params(log) -> FunnelParams:
    return truth_of_sessions(log, log.session_starts()[:8])


def played(params, answers, item=3):
    user = MODEL.initial(params, jnp.int32(1))
    for answer in answers:
        user = MODEL.update(params, user, jnp.int32(item), jnp.int32(answer))
    return user


def test_first_answers_by_hand(params):
    item = 5
    vector, taste, curiosity = (
        np.asarray(array) for array in (params.item[item], params.taste[1], params.curiosity[1])
    )
    wish = unit(taste + curiosity)
    for step in (0, 2):
        user = MODEL.initial(params, jnp.int32(1)).replace(step=jnp.int32(step))
        logit = float(params.click_bias) + 4 * wish @ vector + 0.4 * float(params.click_appeal[item])
        click = scipy.special.expit(logit - FATIGUE * (1 - np.exp(-step / FATIGUE_STEPS)))
        order = scipy.special.expit(
            float(params.order_bias) + 3 * (0.7 * taste + 0.3 * wish) @ vector + 0.8 * float(params.order_appeal[item])
        )
        found = MODEL.probabilities(params, user, None, jnp.int32(item))
        np.testing.assert_allclose(found, [1 - click, click * (1 - order), click * order], rtol=2e-5)


def test_patience_is_used_up_by_skips_and_who_has_left_stays_away(params):
    assert float(played(params, [SKIP, SKIP, CLICK]).trust) == pytest.approx(1.0)
    assert float(played(params, [SKIP] * 10 + [ORDER]).trust) == pytest.approx(1 - 10 * LOSS + GAIN, abs=1e-5)
    gone = played(params, [SKIP] * 26)
    assert float(gone.trust) <= 0
    for user in (gone, MODEL.update(params, gone, jnp.int32(3), jnp.int32(CLICK))):
        np.testing.assert_allclose(MODEL.probabilities(params, user, None, jnp.int32(3)), [1, 0, 0], atol=2e-6)


def test_interests_drift_by_themselves(params):
    first = np.asarray(MODEL.initial(params, jnp.int32(1)).curiosity)
    one, other = played(params, [SKIP] * 5), played(params, [CLICK] * 5, item=7)
    np.testing.assert_array_equal(one.curiosity, other.curiosity)
    cosine = float(first @ np.asarray(one.curiosity))
    assert 1 - cosine == pytest.approx(5 * DRIFT**2 / 2, rel=0.5)
    assert np.linalg.norm(one.curiosity) == pytest.approx(1, abs=1e-5)


def test_a_log_has_the_rates_and_knows_its_users(log):
    assert log.generator["world"] == "drift"
    assert isinstance(true_users(log), DriftModel)
    other = generate_log(size="tiny", seed=0, shop="blind", num_users=40, num_items=100)
    assert "world" not in other.generator
    assert isinstance(true_users(other), FunnelModel)
    assert log.checksum != other.checksum
    assert np.mean(log.feedback >= CLICK) == pytest.approx(843_249 / 8_596_852, rel=0.15)
    assert 0.02 < np.mean(log.probabilities[:, SKIP] > 1 - 2e-6) < 0.8  # of those who left


def test_the_truth_of_sessions_differs_from_session_to_session(log):
    users = truth_of_sessions(log, np.zeros(4, int))
    first = jax.vmap(MODEL.initial, (None, 0))(users, jnp.arange(4))
    assert len(np.unique(np.asarray(first.curiosity)[:, 0])) == 4
    assert len(np.unique(np.asarray(first.taste)[:, 0])) == 1


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match=r"data\.world is 'x'"):
        generate_log(size="tiny", seed=0, world="x")
