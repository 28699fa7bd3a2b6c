"""Products with functions of answers' codes, against dense tables."""

import numpy as np
import pytest
import scipy.sparse
from bandit_problem import TRAIN_USERS, make_data, make_table, reward_table

from tpgr_jax.models import coded_rewards
from tpgr_jax.models.coded_rewards import code_ratings, code_rewards

USERS, ITEMS = 30, 12


@pytest.mark.parametrize("at_a_time", [5, 2**20])  # fewer than most users have, and all
def test_second_moments_against_dense_numpy(at_a_time, monkeypatch):
    monkeypatch.setattr(coded_rewards, "_ANSWERS_AT_A_TIME", at_a_time)
    generator = np.random.default_rng(0)
    table = generator.choice([0, 0, -0.6, 0.2, 1.0], (USERS, ITEMS))
    table[7] = 0  # a user without answers
    answers = code_rewards(scipy.sparse.csr_array(table))
    assert answers.rewards.tolist() == [-0.6, 0.2, 1.0]
    assert answers.counts.tolist() == [(table == reward).sum(0).tolist() for reward in answers.rewards]
    read, write = generator.normal(size=(2, 3)), generator.normal(size=(3, 3))
    vector = generator.normal(size=(2, ITEMS))
    coded = (table[None] == answers.rewards[:, None, None]).astype(float)  # [V, n, I]
    read_of, written = np.einsum("cv,vui->cui", read, coded), np.einsum("dv,vui->dui", write, coded)
    expected = np.einsum("dui,u->di", written, np.einsum("cui,ci->u", read_of, vector))
    np.testing.assert_allclose(answers.second_moments(write, read, vector), expected, atol=1e-12)


def test_ratings_are_coded_as_they_are_kept():
    table = make_table()
    data = make_data(table)
    rewards = np.concatenate([[0.0], reward_table(data.rating_values[1:])])
    answers = code_ratings(data, TRAIN_USERS, rewards)
    assert answers.num_users == len(TRAIN_USERS)
    rated = data.matrix(np.arange(len(rewards)), TRAIN_USERS).toarray().astype(int)
    for code in range(1, len(rewards)):
        np.testing.assert_array_equal(answers.counts[code], (rated == code).sum(0))
