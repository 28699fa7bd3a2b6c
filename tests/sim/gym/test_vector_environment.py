"""Vectors of environments: each plays as a single one with its seed does, in every mode of starting anew."""

import gymnasium
import numpy as np
import pytest
from gymnasium import error
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from small_worlds import ITEMS, LENGTH, rating_world, session_world

from harness.errors import UserError
from sim.gym.environment import RecommendationEnv
from sim.gym.vector_environment import RecommendationVectorEnv

WORLDS = {"ratings": rating_world(), "sessions": session_world()}
NUMBER, STEPS = 5, 2 * LENGTH + 3


def assert_equal_info(ours: dict, theirs: dict) -> None:
    """Every fact that single environments tell, where they tell it."""
    for name, told in theirs.items():
        if name.startswith("_"):
            np.testing.assert_array_equal(ours[name], told, err_msg=name)
        elif name == "final_obs":
            for mine, one in zip(ours[name], told, strict=True):
                assert (mine is None) == (one is None)
                for key, array in (one or {}).items():
                    np.testing.assert_array_equal(mine[key], array, err_msg=key)
        elif isinstance(told, dict):
            assert_equal_info(ours[name], told)
        else:
            where = theirs[f"_{name}"]
            np.testing.assert_array_equal(ours[name][where], np.asarray(told)[where], err_msg=name)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("world", WORLDS)
def test_each_plays_as_a_single_one(world, mode):
    singles = SyncVectorEnv([lambda: RecommendationEnv(WORLDS[world])] * NUMBER, autoreset_mode=mode)
    together = RecommendationVectorEnv(WORLDS[world], NUMBER, autoreset_mode=mode)
    assert together.metadata["autoreset_mode"] is mode
    assert together.observation_space == singles.observation_space
    assert together.action_space == singles.action_space
    for seed in (3, None):
        ours, theirs = together.reset(seed=seed), singles.reset(seed=seed)
        assert_equal_step((ours[0], ours[1]), (theirs[0], theirs[1]))
        random = np.random.default_rng(0)
        for _ in range(STEPS):
            actions = random.integers(0, ITEMS, NUMBER)
            ours, theirs = together.step(actions), singles.step(actions)
            assert ours[0] in together.observation_space
            for mine, one in zip(ours[1:4], theirs[1:4], strict=True):
                np.testing.assert_allclose(mine, one, rtol=1e-6)
                assert mine.dtype == one.dtype
            assert_equal_step((ours[0], ours[4]), (theirs[0], theirs[4]))


def assert_equal_step(ours: tuple[dict, dict], theirs: tuple[dict, dict]) -> None:
    assert ours[0].keys() == theirs[0].keys()
    for name, array in theirs[0].items():
        np.testing.assert_array_equal(ours[0][name], array, err_msg=name)
        assert ours[0][name].dtype == array.dtype
    assert_equal_info(ours[1], theirs[1])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_episodes_that_end_at_different_steps(mode):
    """Two of five are begun again in the middle; from then on they end apart from the rest."""
    singles = SyncVectorEnv([lambda: RecommendationEnv(WORLDS["ratings"])] * NUMBER, autoreset_mode=mode)
    together = RecommendationVectorEnv(WORLDS["ratings"], NUMBER, autoreset_mode=mode)
    both = together, singles
    for envs in both:
        envs.reset(seed=3)
    random, apart = np.random.default_rng(0), 0
    for step in range(STEPS):
        if step == 2:
            mask = np.array([True, False, True, False, False])
            ours, theirs = (envs.reset(options={"reset_mask": mask.copy()}) for envs in both)
            assert_equal_step(ours, theirs)
            assert ours[1]["_user"].tolist() == mask.tolist()
        actions = random.integers(0, ITEMS, NUMBER)
        ours, theirs = (envs.step(actions) for envs in both)
        assert_equal_step((ours[0], ours[4]), (theirs[0], theirs[4]))
        apart += 0 < ours[3].sum() < NUMBER
        if mode is AutoresetMode.SAME_STEP and ours[3].any():
            assert not ours[4]["_answer"][ours[3]].any()
            assert ours[4]["final_info"]["_answer"].tolist() == ours[3].tolist()
    assert apart >= 3


def test_episodes_that_ended_are_started_anew_on_demand():
    envs = RecommendationVectorEnv(WORLDS["ratings"], 3, autoreset_mode="Disabled", render_mode="ansi")
    envs.reset(seed=[5, 6, 7], options={"user": ["u1", "u3", "u5"]})
    for item in range(LENGTH):
        observation, *_, truncated, info = envs.step([item] * 3)
    assert truncated.all()
    with pytest.raises(error.ResetNeeded):
        envs.step([0, 0, 0])
    observation, info = envs.reset(options={"reset_mask": [False, True, False], "user": ["u1", "u5", "u1"]})
    assert observation["step"].ravel().tolist() == [LENGTH, 0, LENGTH]
    assert info["user"].tolist() == ["u1", "u5", "u5"]
    assert [text.splitlines()[0].split(", ")[1] for text in envs.render()] == [
        *("user u1: 4 of 4 recommendations", "user u5: 0 of 4 recommendations", "user u5: 4 of 4 recommendations")
    ]


def test_masks():
    envs = RecommendationVectorEnv(WORLDS["ratings"], 2)
    envs.reset(seed=0)
    *_, info = envs.step([1, 2])
    assert [np.flatnonzero(row == 0).tolist() for row in info["action_mask"]] == [[1], [2]]
    assert np.array_equal(envs.action_masks(), info["action_mask"] == 1)


def test_made_by_gymnasium(tables, monkeypatch):
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tables))
    envs = gymnasium.make_vec("sim.gym:TPGR/Ratings-v0", num_envs=4, **{"data.size": "tiny"}, horizon=3)
    assert isinstance(envs, RecommendationVectorEnv)
    assert envs.reset(seed=0)[0] in envs.observation_space
    assert envs.reset(seed=0)[1]["user"].tolist() == envs.reset(seed=0)[1]["user"].tolist()


@pytest.mark.parametrize("actions", [[0, 1, 2], [0, ITEMS], [-1, 0], [0.0, 1.0]])
def test_impossible_actions(actions):
    envs = RecommendationVectorEnv(WORLDS["ratings"], 2)
    envs.reset(seed=0)
    with pytest.raises(error.InvalidAction):
        envs.step(actions)


def test_mistakes():
    envs = RecommendationVectorEnv(WORLDS["ratings"], 2)
    with pytest.raises(error.ResetNeeded):
        envs.step([0, 1])
    for named in ({"seed": [1]}, {"options": {"user": ["u1"]}}, {"options": {"reset_mask": [True]}}):
        with pytest.raises(UserError, match="there are 2 environments"):
            envs.reset(**named)
    with pytest.raises(UserError, match="num_envs"):
        RecommendationVectorEnv(WORLDS["ratings"], 0)
    with pytest.raises(UserError, match=r"autoreset_mode is 'same_step'\n.*SameStep"):
        RecommendationVectorEnv(WORLDS["ratings"], 2, autoreset_mode="same_step")
    for seed in ([1.5, 2], [None, 2], [-1, 2], "ab"):
        with pytest.raises(UserError, match="seed"):
            envs.reset(seed=seed)
    with pytest.raises(UserError, match="user is 5"):
        envs.reset(options={"user": 5})
    with pytest.raises(error.ResetNeeded):
        RecommendationVectorEnv(WORLDS["ratings"], 2, render_mode="ansi").render()


def test_seeds_of_every_size():
    envs = RecommendationVectorEnv(WORLDS["sessions"], 2)

    def played(seed) -> list:
        first = envs.reset(seed=seed)[1]["user"].tolist()
        return first + [envs.step([item, item])[4]["answer"].tolist() for item in range(LENGTH)]

    assert played(2**63) == played([2**63, 2**63 + 1])
    assert played(np.int64(7)) == played(np.array([7, 8]))
    played(7)
    assert played([None, None]) != played(7)
