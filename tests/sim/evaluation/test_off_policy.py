"""Off-policy estimates: by hand, against scope-rl and obp, and exact expectations of a small decision process."""

import itertools

import numpy as np
import pytest

from sim.evaluation.off_policy import (
    LoggedDecisions,
    cumulative_weights,
    doubly_robust,
    effective_size,
    off_policy_estimates,
    per_decision,
)


def decisions(ratio, reward, shown=None, unit=None, q=None, v=None) -> LoggedDecisions:
    ratio = np.asarray(ratio, float)
    shown = np.ones(ratio.shape, bool) if shown is None else np.asarray(shown, bool)
    unit = np.arange(len(ratio)) if unit is None else np.asarray(unit)
    return LoggedDecisions(unit, shown, np.asarray(reward, float), ratio, q, v)


def test_weights_and_effective_sizes_by_hand():
    ratio = np.array([[2.0, 0.5, 3.0], [1.0, 4.0, 99.0]])
    shown = np.array([[1, 1, 1], [1, 1, 0]], bool)
    np.testing.assert_allclose(cumulative_weights(ratio, shown), [[2, 1, 3], [1, 4, 0]])
    np.testing.assert_allclose(cumulative_weights(ratio, shown, 2.5), [[2, 1, 2.5], [1, 2.5, 0]])
    np.testing.assert_allclose(effective_size(np.array([[2.0, 1.0], [1.0, 4.0]]), 0), [9 / 5, 25 / 17])
    assert effective_size(np.zeros(3)) == 0
    assert effective_size(np.full(7, 0.3)) == pytest.approx(7)


def test_per_decision_by_hand_where_a_session_ends_early():
    logged = decisions([[2.0, 0.5], [1.0, 7.0]], [[1.0, 5.0], [0.0, 9.0]], shown=[[1, 1], [1, 0]])
    np.testing.assert_allclose(per_decision(logged), [2 / 3, 5.0])
    np.testing.assert_allclose(per_decision(logged, normalised=False), [2 / 2, 5.0 / 1])
    np.testing.assert_allclose(per_decision(logged, most=1.5), [1.5 / 2.5, 5.0])


def test_doubly_robust_by_hand():
    q, v = np.array([[0.5, 2.0], [0.5, 1.0]]), np.array([[1.0, 1.0], [3.0, 2.0]])
    logged = decisions([[2.0, 0.5], [1.0, 3.0]], [[1.0, 5.0], [0.0, 1.0]], q=q, v=v)
    # Step 0: (2 x 0.5 - 0.5) / 3 + (1 + 3) / 2; step 1: (1 x 3 + 3 x 0) / 4 + (2 x 1 + 1 x 2) / 3.
    np.testing.assert_allclose(doubly_robust(logged), [0.5 / 3 + 2, 3 / 4 + 4 / 3])
    np.testing.assert_allclose(doubly_robust(logged, normalised=False), [0.5 / 2 + 2, 3 / 2 + 4 / 2])


# Four trajectories of three steps, three actions. The expected numbers are those of scope-rl 0.2.1
# (scope_rl.ope.discrete) and obp 0.4.1 (obp.ope) on these arrays.
ACTION = np.array([0, 1, 2, 1, 1, 0, 2, 0, 1, 0, 2, 2])
REWARD = np.array([1, 0, 5, 0, 1, 0, 5, 0, 0, 1, 1, 0.0])
LOGGED = np.array([0.5, 0.25, 0.2, 0.25, 0.4, 0.5, 0.1, 0.6, 0.25, 0.5, 0.3, 0.2])
POLICY = np.array(
    [
        *[[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3], [0.25, 0.5, 0.25], [0.7, 0.2, 0.1]],
        *[[0.2, 0.2, 0.6], [0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.4, 0.4, 0.2], [0.3, 0.3, 0.4], [0.2, 0.6, 0.2]],
    ]
)
VALUE = np.array(
    [
        *[[1, 0.5, 2], [0.3, 0.2, 1], [0, 1, 4], [0.5, 0.1, 1], [1, 0.7, 0.2], [0.2, 0.1, 0.1]],
        *[[1, 1, 3], [0.5, 0.2, 0.1], [0.1, 0.3, 0.2], [1.2, 0.4, 0.3], [0.2, 0.1, 0.8], [0.3, 0.2, 0.1]],
    ]
)


def others(chance: np.ndarray) -> LoggedDecisions:
    ratio, q = (table[np.arange(12), ACTION] for table in (chance, VALUE))
    arrays = (ratio / LOGGED, q, (VALUE * chance).sum(1))
    ratio, q, v = (array.reshape(4, 3) for array in arrays)
    return decisions(ratio, REWARD.reshape(4, 3), q=q, v=v)


@pytest.mark.parametrize(
    ("estimate", "normalised", "expected"),
    [
        (per_decision, False, 20.766666666666666),  # PerDecisionImportanceSampling
        (per_decision, True, 5.255286239752482),  # SelfNormalizedPDIS
        (doubly_robust, False, 7.919999999999999),  # DoublyRobust
        (doubly_robust, True, 3.5765918222023667),  # SelfNormalizedDR
    ],
)
def test_sequential_estimates_are_those_of_scope_rl(estimate, normalised, expected):
    assert estimate(others(POLICY), normalised=normalised).sum() == pytest.approx(expected, rel=1e-8)


def test_replay_is_that_of_obp():
    greedy = np.eye(3)[POLICY.argmax(1)]
    found = off_policy_estimates(others(greedy), None, [1], None, 1)["step"]
    assert found["replay"]["reward"] == pytest.approx(2.094650205761317)  # SelfNormalizedInverseProbabilityWeighting
    assert found["matches"] == 11
    evenly = decisions(others(greedy).ratio > 0, REWARD.reshape(4, 3))
    found = off_policy_estimates(evenly, None, [1], None, 1)["step"]
    assert found["replay"]["reward"] == pytest.approx(1.272727272727273)  # ReplayMethod
    drawn = off_policy_estimates(others(POLICY), None, [1], None, 1)["step"]
    assert drawn["replay"]["reward"] == pytest.approx(2.217332430602573)
    assert drawn["doubly_robust"]["reward"] == pytest.approx(1.4191731550440083)  # SelfNormalizedDoublyRobust


STATES, ACTIONS, STEPS = 2, 2, 3
NEXT = np.array([[[0.7, 0.3], [0.2, 0.8]], [[0.5, 0.5], [0.9, 0.1]]])  # state, action, next state
PAYS = np.array([[1.0, 0.0], [0.5, 2.0]])
SHOP = np.array([[0.6, 0.4], [0.3, 0.7]])
TARGET = np.array([[0.1, 0.9], [0.8, 0.2]])


def true_value() -> float:
    value = np.zeros(STATES)
    for _ in range(STEPS):
        value = (TARGET * (PAYS + NEXT @ value)).sum(1)
    return float(value[0])


@pytest.mark.parametrize("estimate", [per_decision, doubly_robust])
def test_estimates_are_right_on_average_whatever_is_predicted(estimate):
    # Every trajectory of a small decision process that begins in state 0, and how likely the shop makes it.
    q = np.random.default_rng(0).normal(size=(STEPS, STATES, ACTIONS))
    chance, ratio, reward, predicted, mean = [], [], [], [], []
    for actions in itertools.product(range(ACTIONS), repeat=STEPS):
        for later in itertools.product(range(STATES), repeat=STEPS - 1):
            states = (0, *later)
            steps = list(zip(states, actions, strict=True))
            moves = [NEXT[steps[t]][states[t + 1]] for t in range(STEPS - 1)]
            chance.append(np.prod([SHOP[step] for step in steps]) * np.prod(moves))
            ratio.append([TARGET[step] / SHOP[step] for step in steps])
            reward.append([PAYS[step] for step in steps])
            predicted.append([q[t][step] for t, step in enumerate(steps)])
            mean.append([(TARGET[state] * q[t, state]).sum() for t, state in enumerate(states)])
    # The mean over trajectories is linear in each, so that weights make it an expectation.
    arrays = [np.asarray(array) for array in (ratio, reward, predicted, mean)]
    expected = 0.0
    for number, likely in enumerate(chance):
        one = [array[number : number + 1] for array in arrays]
        expected += likely * estimate(decisions(one[0], one[1], q=one[2], v=one[3]), normalised=False).sum()
    assert sum(chance) == pytest.approx(1)
    assert expected == pytest.approx(true_value())


def drawn_sessions(number: int, steps: int) -> LoggedDecisions:
    """A shop that shows one of two items evenly; the policy shows the first, which earns 0.8, with 0.75."""
    generator = np.random.default_rng(1)
    first = generator.random((number, steps)) < 0.5
    reward = generator.random((number, steps)) < np.where(first, 0.8, 0.2)
    q, v = np.where(first, 0.8, 0.2), np.full(first.shape, 0.75 * 0.8 + 0.25 * 0.2)
    return decisions(np.where(first, 1.5, 0.5), reward, unit=np.arange(number) // 2, q=q, v=v)


def test_what_the_log_cannot_tell_is_not_told():
    simulated = np.full(40, 0.6)
    found = off_policy_estimates(drawn_sessions(400, 40), simulated, [1, 5, 40], None, 50)
    assert found["mean_ratio"]["ci95"][0] < 1 < found["mean_ratio"]["ci95"][1]
    true = 0.75 * 0.8 + 0.25 * 0.2
    one, five, forty = (found["first"][key] for key in ("1", "5", "40"))
    for horizon, estimates in ((1, one), (5, five)):
        for name in ("per_decision", "doubly_robust"):
            low, high = estimates[name]["ci95"]
            assert low < horizon * true < high
        assert estimates["corrected_steps"] == horizon
        assert estimates["effective"] > 50
    # Forty steps: the weights of 400 sessions are those of a few. What is known corrects the simulation.
    assert forty["per_decision"] is None
    assert forty["effective"] < 50
    known = forty["corrected_steps"]
    assert 5 < known < 40
    rest = 0.6 * (40 - known)
    corrected = off_policy_estimates(drawn_sessions(400, 40), simulated, [known], None, 50)["first"][str(known)]
    assert forty["doubly_robust"]["reward"] == pytest.approx(corrected["doubly_robust"]["reward"] + rest)
    assert off_policy_estimates(drawn_sessions(400, 40), None, [40], None, 50)["first"]["40"]["doubly_robust"] is None
    # Nothing at all with few sessions.
    few = off_policy_estimates(drawn_sessions(20, 3), simulated, [1], None, 100)
    assert few["step"]["replay"] is None
    assert few["first"]["1"]["doubly_robust"] is None
    assert few["first"]["1"]["simulated"] == pytest.approx(0.6)


def test_intervals_are_of_users_and_not_of_sessions():
    one = drawn_sessions(200, 4)
    arrays = (one.shown, one.reward, one.ratio, one.q, one.v)
    twice = LoggedDecisions(np.tile(one.unit, 4), *(np.tile(array, (4, 1)) for array in arrays))
    widths = []
    for logged in (one, twice):
        low, high = off_policy_estimates(logged, None, [2], None, 1)["first"]["2"]["per_decision"]["ci95"]
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0])  # the same users again tell nothing new


def test_truncated_weights_are_biased_and_say_less_is_unknown():
    logged = drawn_sessions(400, 20)
    free, truncated = (off_policy_estimates(logged, None, [20], most, 1) for most in (None, 1.5))
    assert truncated["first"]["20"]["effective"] > free["first"]["20"]["effective"]
    assert truncated["mean_ratio"] == free["mean_ratio"]
