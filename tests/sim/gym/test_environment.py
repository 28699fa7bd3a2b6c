"""Single environments: Gymnasium's own checks, rewards by hand, masks, seeds, mistakes."""

from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import error
from gymnasium.utils.env_checker import check_env
from small_worlds import ALPHA, FIRST_ID, ITEMS, LENGTH, rating_table, rating_world, session_world

import sim.gym
from harness.errors import UserError
from harness.settings import read_settings
from harness.training.from_python import composed_in_python, overrides_of
from sim.datasets.sessions import load_sessions
from sim.gym.environment import RecommendationEnv
from sim.gym.worlds import RATINGS as RATINGS_FILE
from sim.gym.worlds import SESSIONS as SESSIONS_FILE
from sim.gym.worlds import RatingsSettings, SessionsSettings, make_world
from tpgr_jax.problem import make_problem

RATINGS, SESSIONS = rating_world(), session_world()
SMALL = {"data.size": "tiny"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("TPGR/Ratings-v0", {**SMALL, "alpha": 0.2, "horizon": 3}),
        ("TPGR/Sessions-v0", {**SMALL, "data.num_users": 10, "data.num_items": 100, "horizon": 3}),
    ],
)
def test_gymnasium_finds_nothing_wrong(name, settings, tables, monkeypatch, recwarn):
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tables))
    env = gymnasium.make(name, **settings, render_mode="ansi")
    check_env(env.unwrapped)
    assert [str(warning.message) for warning in recwarn if "WARN" in str(warning.message)] == []
    # The data, settings and split are those of the keywords.
    assert env.unwrapped.world.view.episode_length == 3
    train = set(env.unwrapped.world.user_ids.tolist())
    test = gymnasium.make(name, **settings, split="test").unwrapped.world
    if name == "TPGR/Ratings-v0":
        assert float(env.unwrapped.world.params.alpha) == np.float32(0.2)
        assert not train & set(test.user_ids.tolist())
    assert len(test.starts)
    assert set(sim.gym.ENVIRONMENTS) <= set(gymnasium.registry)


def by_hand(user: int, items: list[int]) -> list[float]:
    """Rewards by Eq. 6 (half-open scale, maximum 5); a repeated item counts as not rated."""
    rewards, positive, negative, seen = [], 0, 0, set()
    for item in items:
        rating = rating_table()[user, item] if item not in seen else 0
        seen.add(item)
        r = 2 * rating / 5 - 1 if rating else 0
        rewards.append(r + ALPHA * (positive - negative))
        positive, negative = (positive + 1 if r > 0 else 0), (negative + 1 if r < 0 else 0)
    return rewards


@pytest.mark.parametrize("items", [[0, 3, 5, 7], [2, 2, 0, 2]])
def test_an_episode_by_hand(items):
    env = RecommendationEnv(RATINGS, render_mode="ansi")
    observation, info = env.reset(seed=0, options={"user": "u3"})
    assert info["user"] == "u3"
    assert info["action_mask"].tolist() == [1] * ITEMS
    rewards, answers = [], []
    for step, item in enumerate(items, 1):
        observation, reward, terminated, truncated, info = env.step(item)
        rewards.append(reward)
        answers.append(info["answer"])
        assert (terminated, truncated) == (False, step == LENGTH)
        assert info["repeated"] == (item in items[: step - 1])
        assert info["hit"] == (not info["repeated"] and rating_table()[3, item] > 3)
        assert observation["step"].tolist() == [step]
        assert observation["items"].tolist() == items[:step] + [-1] * (LENGTH - step)
        np.testing.assert_allclose(observation["answers"], answers + [0] * (LENGTH - step), rtol=1e-6)
        assert np.flatnonzero(info["action_mask"] == 0).tolist() == sorted(set(items[:step]))
        assert np.array_equal(env.action_masks(), info["action_mask"] == 1)
    np.testing.assert_allclose(rewards, by_hand(3, items), atol=1e-6)
    text = env.render().splitlines()
    assert text[0] == f"hand-made, user u3: 4 of 4 recommendations, reward {sum(rewards):.2f}"
    assert text[1] == f"   1. {FIRST_ID + items[0]}: answer {answers[0]:+.2f}, reward {rewards[0]:+.2f}"


def test_a_session_answers_by_chance_and_skips_what_came_before():
    env = RecommendationEnv(SESSIONS, render_mode="ansi")
    given = []
    for seed in range(60):
        observation, info = env.reset(seed=seed)
        assert observation["browsed"].tolist() == [-1, 0, 1]
        assert observation["clicked"].tolist() == [-1, -1, 1]
        observation, reward, _, _, info = env.step(5)
        assert reward == (0, 1, 5)[info["answer"]]
        assert observation["clicked"].tolist() == ([-1, -1, 1] if info["answer"] == 0 else [-1, 1, 5])
        assert observation["answers"].tolist() == [info["answer"], -1, -1, -1]
        given.append(info["answer"])
        clicked = observation["clicked"]
        observation, reward, _, _, info = env.step(5)
        assert (reward, info["answer"], info["repeated"]) == (0, 0, True)
        assert np.array_equal(observation["clicked"], clicked)
    assert np.abs(np.bincount(given, minlength=3) / 60 - [0.4, 0.4, 0.2]).max() < 0.2
    assert env.render().splitlines()[2] == "   2. 105: skip, reward +0.00"


def test_repeats_where_they_are_allowed():
    env = RecommendationEnv(rating_world(repeats=True))
    env.reset(seed=0, options={"user": "u1"})
    rewards = [env.step(0)[1] for _ in range(2)]
    np.testing.assert_allclose(rewards, [0.6, 0.7], rtol=1e-6)
    assert env.action_masks().all()


def test_seeds_repeat_and_users_differ():
    env = RecommendationEnv(SESSIONS)

    def played(seed: int | None) -> list:
        _, info = env.reset(seed=seed)
        return [info["user"], *(env.step(item)[4]["answer"] for item in range(LENGTH))]

    first, second = [played(3), played(None)], [played(3), played(None)]
    assert first == second
    assert first[0] != first[1]
    env = RecommendationEnv(RATINGS)
    assert {env.reset(seed=seed)[1]["user"] for seed in range(20)} == {"u1", "u3", "u5"}


def test_what_is_given_out_may_be_written_to():
    env = RecommendationEnv(RATINGS)
    env.reset(seed=0)
    observation, *_, info = env.step(2)
    observation["items"][:] = 9
    info["action_mask"][:] = 0
    assert env.step(3)[0]["items"].tolist() == [2, 3, -1, -1]
    assert env.action_masks().sum() == ITEMS - 2


def test_masks_can_be_left_out():
    assert "action_mask" not in RecommendationEnv(RATINGS, masks=False).reset(seed=0)[1]


def test_mistakes():
    env = RecommendationEnv(RATINGS)
    with pytest.raises(error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    for wrong in (ITEMS, -1, 0.5, "a"):
        with pytest.raises(error.InvalidAction, match="0 to 11"):
            env.step(wrong)
    for item in range(LENGTH):
        env.step(item)
    with pytest.raises(error.ResetNeeded):
        env.step(5)
    with pytest.raises(UserError, match="no user 'u2'"):  # a user of the other split
        env.reset(options={"user": "u2"})
    for user in ([1, 2], ["u1", "u3", "u5"]):
        with pytest.raises(UserError, match="no user"):
            env.reset(options={"user": user})
    with pytest.raises(UserError, match="render_mode"):
        RecommendationEnv(RATINGS, render_mode="human")
    with pytest.raises(error.ResetNeeded):
        RecommendationEnv(RATINGS, render_mode="ansi").render()
    env.reset(seed=2**64)


@pytest.mark.parametrize("held_out", ["validation", "selection"])
def test_validation_users_are_those_of_a_run(held_out):
    """Who trains an agent here is nobody who measures it there."""
    settings = {**SMALL, f"data.{held_out}": True, "env.episode_length": 3}
    config = read_settings(RatingsSettings, composed_in_python(RATINGS_FILE, overrides_of(settings)))
    problem = make_problem(config.data, config.env)
    ids = problem.data.user_ids
    run = problem.test_users if held_out == "validation" else problem.selection_users
    for split, users in (("train", problem.train_users), ("validation", run)):
        world = make_world(RATINGS_FILE, settings, split)
        assert world.user_ids.tolist() == ids[users].tolist()
        assert len(users)
    for leaf, other in zip(jax.tree.leaves(world.params), jax.tree.leaves(problem.env_params), strict=True):
        np.testing.assert_array_equal(leaf, other)


def test_sessions_are_those_of_a_run(tmp_path, monkeypatch):
    """Catalogue, training users and held-out users of HRL-MG on the same log."""
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tmp_path))
    settings = {"data.size": "tiny", "data.num_users": 10, "data.num_items": 200, "simulator.seed": 1}
    settings["env.episode_length"] = 3
    config = read_settings(SessionsSettings, composed_in_python(SESSIONS_FILE, overrides_of(settings)))
    data = load_sessions(config.data, 0.1, 1)
    assert data.num_items < data.log.num_items
    for split, part in (("train", "train"), ("validation", "held_out"), ("test", "test")):
        world = make_world(SESSIONS_FILE, settings, split)
        assert world.view.num_items == data.num_items
        assert world.item_ids.tolist() == data.log.item_ids[: data.num_items].tolist()
        assert world.user_ids.tolist() == data.log.user_ids[data.log.user[data.first_rows(part)]].tolist()
        env = RecommendationEnv(world)
        assert all(env.reset(seed=seed)[0] in env.observation_space for seed in range(5))


@pytest.mark.parametrize("data", ["movielens_100k", {"expected_users": None}])
def test_movielens_stays_movielens_whatever_else_is_set(data, tmp_path, monkeypatch):
    """A mapping is merged into the data set; both read a file of the user's own."""
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tmp_path / "cache"))
    rows = [(user, item, 1 + (user + item) % 5) for user in range(1, 11) for item in range(1, 9)]
    separator, name = ("\t", "ml-100k/u.data") if isinstance(data, str) else ("::", "ml-1m/ratings.dat")
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("".join(separator.join(map(str, (*row, 0))) + "\n" for row in rows))
    counts = {f"data.expected_{what}": None for what in ("users", "items", "ratings")}
    settings = {**counts, "data.root": str(tmp_path), "horizon": 3}
    env = gymnasium.make("TPGR/MovieLens-v0", data=data, **settings).unwrapped
    assert env.world.name == ("movielens_100k" if isinstance(data, str) else "movielens_1m")
    assert env.item_ids.tolist() == list(range(1, 9))


def test_a_file_that_was_rewritten_is_read_again(tmp_path, monkeypatch):
    """So is another file of the same relative name, after a change of folder."""
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tmp_path / "cache"))

    def items(first: int) -> list[int]:
        rows = [f"{user},{item},{1 + (user + item) % 5}" for user in range(10) for item in range(first, first + 4)]
        Path("ratings.csv").write_text("\n".join(["user,item,rating", *rows]))
        named = {"data.path": "ratings.csv", "horizon": 2}
        return gymnasium.make("TPGR/Ratings-v0", data="ratings_file", **named).unwrapped.item_ids.tolist()

    for folder, first in (("a", 0), ("a", 5), ("b", 9)):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        assert items(first) == list(range(first, first + 4))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("TPGR/Ratings-v0", {"split": "half"}, "split is 'half'"),
        ("TPGR/Ratings-v0", {**SMALL, "horizon": 1000}, "100 items"),
        ("TPGR/Ratings-v0", {**SMALL, "data.test_fraction": 0, "split": "test"}, "nobody to play with"),
        ("TPGR/Ratings-v0", {"data.no_such": 1}, "no_such"),
        ("TPGR/Ratings-v0", {"alpha": -1}, "env.alpha"),
        ("TPGR/Ratings-v0", {**SMALL, "data.validation": True, "split": "test"}, "data.validation"),
        ("TPGR/Ratings-v0", {**SMALL, "split": "validation"}, "data.validation"),
        ("TPGR/Sessions-v0", {"env.users": "learned", "data.size": "tiny"}, "env.users"),
        ("TPGR/MovieLens-v0", {"data.root": "nowhere", "data.url": None, "data.checksum": None}, "movielens_1m"),
        ("TPGR/MovieLens-v0", {"data": "synthetic"}, "synthetic is no MovieLens data set"),
        (
            "TPGR/MovieLens-v0",
            {
                "data": {
                    "root": "nowhere",
                    "url": None,
                    "checksum": None,
                    "offline_fallback": True,
                    "fallback_size": "tiny",
                }
            },
            "synthetic_tiny is no MovieLens data set",
        ),
    ],
)
def test_mistakes_in_keywords_are_named(name, settings, message, tables, monkeypatch):
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tables))
    with pytest.raises(UserError, match=message):
        gymnasium.make(name, **settings)
