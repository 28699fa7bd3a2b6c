"""Where the sessions of the online test begin, and whose luck they have."""

import jax.numpy as jnp
import numpy as np
import pytest
from small_worlds import generated_log

from hrlmg_jax.evaluation.online import make_player
from hrlmg_jax.evaluation.policies import EvaluationPolicy
from hrlmg_jax.problem import true_env_params
from sim.datasets.sessions import SessionData
from sim.envs.fixed_policies import fixed_list_policy
from sim.envs.session_env import SessionEnv
from sim.generators.funnel_users import FunnelModel
from sim.tables.events import with_test_sessions

STEPS = 12


@pytest.fixture(scope="module")
def data() -> SessionData:
    log = generated_log()
    log = with_test_sessions(log, np.arange(log.num_sessions) % 4 == 3)
    return SessionData(log, log.num_items, np.zeros(20, bool))


def test_few_sessions_spread_over_the_part_and_many_begin_again(data: SessionData) -> None:
    firsts = data.first_rows("test")
    assert data.spread_first_rows("test", 3).tolist() == [firsts[0], firsts[round((len(firsts) - 1) / 2)], firsts[-1]]
    assert data.spread_first_rows("test", len(firsts)).tolist() == firsts.tolist()
    number = 3 * len(firsts) + 1
    rows = data.spread_first_rows("test", number)
    assert len(rows) == number
    assert set(np.unique(rows, return_counts=True)[1]) <= {2, 3, 4}
    assert set(rows) == set(firsts)


def test_who_begins_again_where_another_did_has_other_luck(data: SessionData) -> None:
    """A fixed list, in which only the users' answers are drawn; in batches of unequal size."""
    rows = data.spread_first_rows("test", 4 * len(data.first_rows("test")))
    env = SessionEnv(FunnelModel(), STEPS, 3)
    world, at_a_time = true_env_params(data, rows), len(rows) // 2 + 1
    items = jnp.arange(data.num_items, dtype=jnp.int32)
    policy = EvaluationPolicy(lambda users: fixed_list_policy(), lambda params: items, False, None)
    first, again = (make_player(env, world, at_a_time)(policy) for _ in range(2))
    np.testing.assert_array_equal(first.feedback, again.feedback)
    same_beginning = rows[1:] == rows[:-1]
    other_answers = (first.feedback[1:] != first.feedback[:-1]).any(1)
    assert other_answers[same_beginning].mean() > 0.5  # with a click rate of a tenth, many skip all twelve
