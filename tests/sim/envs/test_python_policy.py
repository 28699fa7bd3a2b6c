"""A function of the user's as a policy: the same episodes as a compiled policy that decides alike, and its mistakes."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_worlds import FIRST_ID, ITEMS, LENGTH, rating_table, rating_world, session_world

from harness.errors import UserError
from harness.runs.run_folder import RunFolder
from harness.user_function import UserFunction
from sim.envs.fixed_policies import fixed_list_policy
from sim.envs.python_policy import RECORDED, PythonSettings, python_policy, refuse_to_recommend, warn_if_changed
from sim.envs.rating_env import RatingEnv
from sim.evaluation.protocol import compiled_rollout, make_episode_batch

RATINGS, SESSIONS = rating_world(), session_world()
ORDER = [7, 3, 0, 9, 2, 11]
STARTS, KEY = jnp.array([1, 3, 5]), jax.random.key(4)


def policy_of(function, batched=False, world=RATINGS, distinct=True):
    user = UserFunction(Path("my.py"), "policy", function, "0" * 64)
    return python_policy(
        user, batched, world.item_ids, distinct, lambda params, starts: [f"user {start}" for start in starts]
    )


def in_order(history):
    """The items of `ORDER` that are not in the history."""
    return next(FIRST_ID + item for item in ORDER if FIRST_ID + item not in {known for known, _ in history})


@pytest.mark.parametrize("cold_start", ["policy", "random"])
@pytest.mark.parametrize("batched", [False, True])
def test_ratings_are_played_as_by_a_compiled_policy(batched, cold_start):
    env = RatingEnv(ITEMS, LENGTH, cold_start)
    compiled = make_episode_batch(env, fixed_list_policy(), False)
    function = (lambda histories: [in_order(history) for history in histories]) if batched else in_order
    played = make_episode_batch(env, policy_of(function, batched), False)(RATINGS.params, None, STARTS, KEY)
    for mine, one in zip(played, compiled(RATINGS.params, jnp.array(ORDER), STARTS, KEY), strict=True):
        np.testing.assert_array_equal(mine, one)


def test_users_of_sessions_answer_as_they_answer_compiled_policies():
    env, starts = SESSIONS.view.env, jnp.array([0, 1, 2, 0, 1, 2])
    policy = policy_of(in_order, world=SESSIONS)
    mine = compiled_rollout(env, policy, False, SESSIONS.params, None, starts, KEY)
    one = compiled_rollout(env, fixed_list_policy(), False, SESSIONS.params, jnp.array(ORDER), starts, KEY)
    jax.tree.map(np.testing.assert_array_equal, mine, one)
    assert len(np.unique(mine.feedback)) == 3


def test_histories_hold_ids_and_answers():
    told = []

    def policy(history):
        told.append(history)
        return in_order(history)

    make_episode_batch(RATINGS.view.env, policy_of(policy), False)(RATINGS.params, None, STARTS[:1], KEY)
    ratings = rating_table()[1, ORDER]
    answers = [0.0 if rating == 0 else round(2 * rating / 5 - 1, 6) for rating in ratings.tolist()]
    expected = [(FIRST_ID + item, answer) for item, answer in zip(ORDER, answers, strict=True)]
    assert told == [expected[:step] for step in range(LENGTH)]
    told.clear()
    sessions = policy_of(policy, world=SESSIONS)
    played = compiled_rollout(SESSIONS.view.env, sessions, False, SESSIONS.params, None, STARTS[:1] * 0, KEY)
    assert [answer for _, answer in told[-1]] == played.feedback[:-1, 0].tolist()
    assert all(type(item) is int and type(answer) is int for item, answer in told[-1])


@pytest.mark.parametrize("kind", [int, np.int64, lambda item: np.array(item), lambda item: jnp.int32(item)])
def test_ids_of_any_kind_of_number(kind):
    batch = make_episode_batch(RATINGS.view.env, policy_of(lambda history: kind(in_order(history))), False)
    assert batch(RATINGS.params, None, STARTS, KEY)[0][:, 0].tolist() == ORDER[:LENGTH]


def refusal(function, batched=False, **settings) -> str:
    batch = make_episode_batch(RATINGS.view.env, policy_of(function, batched, **settings), False)
    with pytest.raises(UserError) as caught:
        batch(RATINGS.params, None, STARTS, KEY)
    return str(caught.value)


def test_mistakes_name_function_user_and_step():
    def fails_late(history):
        return {}["x"] if len(history) == 2 else in_order(history)

    assert "policy in my.py: raised KeyError: 'x' for user 1 at step 3" in refusal(fails_late)
    assert "returned 55 for user 1 at step 1, which is the id of no item" in refusal(lambda history: 55)
    assert "such as 100, 101, 102" in refusal(lambda history: None)
    assert "is the id of no item" in refusal(lambda history: [100])
    again = refusal(lambda history: in_order([]))
    assert f"returned {FIRST_ID + ORDER[0]} for user 1 at step 2, which it had recommended already" in again
    assert "raised ZeroDivisionError: division by zero for 3 users at step 1" in refusal(lambda many: 1 / 0, True)
    for wrong in ([100], 100, "abcd", None):
        assert "an item for each history" in refusal(lambda many, wrong=wrong: wrong, True)


def test_items_may_come_again_where_the_simulator_allows_it():
    world = rating_world(repeats=True)
    batch = make_episode_batch(world.view.env, policy_of(lambda history: FIRST_ID, distinct=False), False)
    items, rewards, _ = batch(world.params, None, STARTS, KEY)
    assert not items.any()
    assert (np.diff(rewards, axis=0) > 0).all()  # everybody gives item 0 four stars


def test_a_simulator_that_tells_no_answers_is_refused():
    class Silent(RatingEnv):
        def step(self, *arguments):
            return (*super().step(*arguments)[:-1], ())

    batch = make_episode_batch(Silent(ITEMS, LENGTH), policy_of(in_order), False)
    with pytest.raises(UserError, match="do not say what users answer"):
        batch(RATINGS.params, None, STARTS, KEY)


def test_settings():
    def check(**changes):
        settings(**changes).check_function(("random",))

    check(label="2nd-ppo_2")
    for changes, key in (
        ({"path": None}, "path"),
        ({"label": "random"}, "label"),
        ({"label": "a b"}, "label"),
        ({"label": "café"}, "label"),
    ):
        with pytest.raises(UserError, match=rf"agent\.{key}"):
            check(**changes)
    with pytest.raises(UserError, match="a function of yours"):
        refuse_to_recommend(settings(path="my.py:policy"), "run")
    refuse_to_recommend(object(), "run")


def test_the_notice_comes_before_the_code_runs(tmp_path, capsys):
    (tmp_path / "my.py").write_text("import sys\nprint('RUNS', file=sys.stderr)\nsys.exit()\n")
    with pytest.raises(UserError, match="SystemExit"):
        settings(path=f"{tmp_path}/my.py:policy").load()
    notice, ran = capsys.readouterr().err.splitlines()
    assert notice.startswith(f"notice: agent.path runs policy in {tmp_path}/my.py (sha256 ")
    assert ran == "RUNS"


def settings(**changes) -> PythonSettings:
    return PythonSettings(name="python", **{"path": "my.py:policy", "batched": False, "label": None, **changes})


def test_generators_give_items_and_fail_as_the_function_does():
    def items(histories):
        for history in histories:
            yield in_order(history)

    def fails(histories):
        yield in_order(histories[0])
        raise KeyError("late")

    def endless(histories):
        while True:
            yield FIRST_ID

    batch = make_episode_batch(RATINGS.view.env, policy_of(items, True), False)
    assert batch(RATINGS.params, None, STARTS, KEY)[0][:, 0].tolist() == ORDER[:LENGTH]
    assert "policy in my.py: raised KeyError: 'late' for 3 users at step 1" in refusal(fails, True)
    assert "returned more than 3 items for 3 users at step 1" in refusal(endless, True)


def test_another_file_than_the_run_was_made_with_is_told(tmp_path, capsys):
    folder, record = RunFolder(tmp_path), {"file": "my.py", "function": "policy", "sha256": "1" * 64}
    for recorded in ({}, {RECORDED: record}):  # runs of earlier commits recorded nothing
        folder.provenance.write_text(json.dumps(recorded))
        warn_if_changed(record, folder)
    warn_if_changed(None, RunFolder(tmp_path / "nowhere"))
    assert capsys.readouterr().err == ""
    warn_if_changed({**record, "sha256": "2" * 64}, folder)
    assert (
        "warning: my.py has changed since the run was made: its sha256 was 111111111111, now" in capsys.readouterr().err
    )
    with pytest.raises(UserError, match=r"no such file\n  Put the file back, or train again\."):
        settings(path=f"{tmp_path}/my.py:policy").check_file()
