"""Stages, intrinsic reward and benefit assignment against the paper's formulas written out in plain Python."""

from __future__ import annotations

import itertools
import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from hrlmg_jax.agent.goals import assign_benefit, intrinsic_reward, stage_lengths, stage_of

BETAS = [0.0, 0.3, 0.5, 1.0]
WINDOWS = [(period, goals) for period in range(1, 13) for goals in range(1, period + 1)]


def stages(period: int, goals: int) -> list[int]:
    """The goal in force at every step of a window: floor(c / M) steps each, what remains to the last."""
    length = period // goals
    ordered = [goal for goal in range(goals) for _ in range(length)]
    return ordered + [goals - 1] * (period - len(ordered))


def stage_sums(rewards: list[float], goals: int) -> list[float]:
    """Eq. 14 (with the remaining steps in the last sum), steps counted from 0."""
    length = len(rewards) // goals
    sums = [sum(rewards[length * (i - 1) : length * i]) for i in range(1, goals + 1)]
    sums[-1] += sum(rewards[length * goals :])
    return sums


def benefits(sums: list[float], beta: float) -> list[float]:
    """Eq. 15, i and k counted from 1 as in the paper; Python has 0.0 ** 0 == 1."""
    return [sum(beta ** (i - k) * sums[k - 1] for k in range(1, i + 1)) for i in range(1, len(sums) + 1)]


def test_the_oracle_cuts_windows_as_the_paper_says() -> None:
    assert stages(10, 2) == [0] * 5 + [1] * 5
    assert stages(10, 3) == [0] * 3 + [1] * 3 + [2] * 4
    assert stages(5, 4) == [0, 1, 2, 3, 3]
    assert stages(4, 1) == [0, 0, 0, 0]


@pytest.mark.parametrize(("period", "goals"), WINDOWS)
def test_every_step_of_every_window_has_the_goal_of_its_stage(period: int, goals: int) -> None:
    found = stage_of(jnp.arange(3 * period), period, goals)
    assert found.dtype == jnp.int32
    assert np.asarray(found).tolist() == 3 * stages(period, goals)
    assert stage_lengths(period, goals) == np.bincount(stages(period, goals)).tolist()


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_stages_of_steps_of_any_shape(shape: tuple[int, ...]) -> None:
    step = np.random.default_rng(0).integers(0, 300, shape).astype(np.int32)
    found = stage_of(jnp.asarray(step), 10, 3)
    assert found.shape == shape
    expected = [stages(10, 3)[t % 10] for t in step.ravel()]
    assert np.asarray(found).ravel().tolist() == expected


@pytest.mark.parametrize(("period", "goals"), WINDOWS)
def test_window_rewards_reach_the_goals_by_equations_14_and_15(period: int, goals: int) -> None:
    """From the rewards of a window to phi, the sums taken as the learner does: by the stage of each step."""
    rewards = np.random.default_rng(period).choice([0.0, 1.0, 5.0], (6, period))
    stage = np.asarray(stage_of(jnp.arange(period), period, goals))
    sums = np.stack([rewards[:, stage == goal].sum(1) for goal in range(goals)], -1)
    np.testing.assert_array_equal(sums, [stage_sums(list(row), goals) for row in rewards])
    for beta in BETAS:
        found = assign_benefit(jnp.asarray(sums, jnp.float32), beta)
        expected = [benefits(stage_sums(list(row), goals), beta) for row in rewards]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_benefits_by_hand() -> None:
    sums = jnp.asarray([1.0, 6.0, 0.0])
    np.testing.assert_allclose(assign_benefit(sums, 0.0), [1, 6, 0])
    np.testing.assert_allclose(assign_benefit(sums, 0.5), [1, 6.5, 3.25])
    np.testing.assert_allclose(assign_benefit(sums, 1.0), [1, 7, 7])


def test_benefits_of_many_windows_at_once_are_those_of_each() -> None:
    sums = np.random.default_rng(0).normal(size=(2, 3, 4))
    found = np.asarray(assign_benefit(jnp.asarray(sums, jnp.float32), 0.3))
    for a, b in itertools.product(range(2), range(3)):
        np.testing.assert_allclose(found[a, b], benefits(list(sums[a, b]), 0.3), rtol=1e-5, atol=1e-6)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(hnp.arrays(np.float32, 4, elements=st.floats(-50, 50, width=32)), st.floats(0, 1))
def test_a_goal_earns_its_stage_and_beta_times_what_the_goal_before_earned(sums: np.ndarray, beta: float) -> None:
    phi = np.asarray(assign_benefit(jnp.asarray(sums), beta), np.float64)
    np.testing.assert_allclose(phi, sums + np.append(0, beta * phi[:-1]), atol=1e-4)


def test_intrinsic_reward_is_the_cosine() -> None:
    generator = np.random.default_rng(1)
    action, goal = generator.normal(size=(2, 5, 3, 4)) * np.exp(generator.normal(size=(2, 5, 3, 1)) * 3)
    found = np.asarray(intrinsic_reward(jnp.asarray(action, jnp.float32), jnp.asarray(goal, jnp.float32)))
    assert found.shape == (5, 3)
    for place in itertools.product(range(5), range(3)):
        a, g = action[place], goal[place]
        expected = sum(x * y for x, y in zip(a, g, strict=True)) / (math.hypot(*a) * math.hypot(*g))
        assert found[place] == pytest.approx(expected, abs=1e-6)


def test_intrinsic_reward_by_hand() -> None:
    goal = jnp.asarray([3.0, 4.0])
    for action, expected in (
        ([3, 4], 1),
        ([-6, -8], -1),
        ([-4, 3], 0),
        ([1, 0], 0.6),
        ([0.002, 0], 0.6),
        ([0, 700], 0.8),
    ):
        assert float(intrinsic_reward(jnp.asarray(action, jnp.float32), goal)) == pytest.approx(expected, abs=1e-6)


def test_intrinsic_reward_of_a_zero_vector_is_zero() -> None:
    zero, other = jnp.zeros(3), jnp.asarray([1.0, -2.0, 2.0])
    assert float(intrinsic_reward(zero, other)) == 0
    assert float(intrinsic_reward(other, zero)) == 0
    assert float(intrinsic_reward(zero, zero)) == 0
