"""The trust bench: its scores by hand, users who do not move, and a run with users who are plainly bad."""

import dataclasses
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alike_users import EveryoneAlike, problem_alike, tiny_shop

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.runs.run_folder import write_json
from harness.settings import read_settings
from hrlmg_jax.baselines.fixed_lists import POPULARITY
from hrlmg_jax.evaluation.evaluate_run import Comparison
from hrlmg_jax.evaluation.online import OnlineTest, play_online
from hrlmg_jax.evaluation.policies import fixed_list
from hrlmg_jax.evaluation.trust_bench import BenchConfig, run_bench
from hrlmg_jax.evaluation.trust_scores import (
    THRESHOLDS,
    agreement,
    warning,
    warning_of_users,
    weighted_calibration,
    windows_beyond_log,
)
from hrlmg_jax.evaluation.trust_signals import LoggedAnswers, value_ratio
from hrlmg_jax.evaluation.unmoved_users import UnmovedUsers
from hrlmg_jax.evaluation.users_trial import TRIED, try_users
from hrlmg_jax.problem import load_data
from hrlmg_jax.reports.trust import picture, table
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.train import _verdicts
from hrlmg_jax.trust import RESULTS, TrustConfig, _decisive, _done, _scores
from hrlmg_jax.user_model.quality import report_on
from hrlmg_jax.user_model.store import Simulator
from sim.envs.fixed_policies import scripted_policy
from sim.envs.rollout import rollout
from sim.envs.session_env import SessionEnv, SessionParams


def test_agreement_by_hand():
    found = agreement(np.array([1.0, 4.0, 9.0, 2.0]), np.array([1.0, 2.0, 6.0, 8.0]))
    assert found["policies"] == 4
    assert found["ratio"] == {"median": 1.25, "least": 0.25, "most": 2.0}
    assert found["error"] == {"median": pytest.approx(0.625), "largest": 1.0}
    assert found["within_25_percent"] == 1
    assert found["spearman"] == pytest.approx(1 - 6 * (0 + 1 + 1 + 4) / (4 * 15))  # places 1342 and 1234
    assert found["regret"] == pytest.approx(1 - 6 / 8)
    low, high = found["spearman_ci95"]
    assert low <= found["spearman"] <= high


def test_policies_that_earn_alike_have_no_order():
    found = agreement(np.ones(3), np.array([1.0, 2.0, 3.0]))
    assert found["spearman"] is None
    assert found["spearman_ci95"] is None


def test_windows_beyond_the_log_by_hand():
    logged = np.zeros((2, 12), int)
    logged[0, [0, 5, 9]] = 1
    logged[1] = 1  # of which only nine are there, so that no window is
    shown = np.arange(12) < [[12], [9]]
    simulated = np.zeros((1, 13), int)
    simulated[0, [0, 1, 2, 9]] = [1, 2, 1, 1]  # 4 clicks in the first window, 3 in the second
    assert windows_beyond_log(simulated, logged, shown) == pytest.approx(1 / 4)
    assert windows_beyond_log(simulated[:, :5], logged, shown) is None


def test_weighted_calibration_by_hand():
    chance, happened = np.array([0.1, 0.1, 0.8]), np.array([False, True, True])
    found = weighted_calibration(chance, happened, np.array([1.0, 0.0, 3.0]))
    assert found["calibration_error"] == pytest.approx((1 * 0.1 + 3 * 0.2) / 4)
    found = weighted_calibration(chance, happened, np.array([0.0, 2.0, 0.0]))
    assert found["calibration_error"] == pytest.approx(0.9)


@dataclass(frozen=True)
class Grows:
    """Clicks surely from the third answer on, and where the histories hold a click."""

    def initial(self, params, start):
        return jnp.int32(0)

    def probabilities(self, params, hidden, histories, item):
        click = (hidden >= 2) | jnp.any(histories.clicked >= 0)
        return jax.nn.one_hot(jnp.where(click, 1, 0), 3)

    def update(self, params, hidden, item, feedback):
        return hidden + 1


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    return tiny_shop(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def data(config):
    return load_data(config.fit())


@pytest.mark.parametrize(
    ("env", "clicks"), [(SessionEnv, 2), (UnmovedUsers, 0), (partial(UnmovedUsers, is_unmoved=False), 2)]
)
def test_unmoved_users_answer_as_if_every_item_came_first(data, env, clicks):
    log = data.log
    first = next(row for row in data.first_rows("train") if not (log.user[:row] == log.user[row]).any())
    world = SessionParams(data.table, jnp.asarray([first], jnp.int32), None, ())
    script = jnp.asarray([[0, 1, 2, 3]], jnp.int32)
    played = rollout(
        env(Grows(), 4, 3), world, scripted_policy(), script, jnp.zeros(1, jnp.int32), jax.random.key(0), True
    )
    assert int(np.sum(np.asarray(played.feedback) >= 1)) == clicks
    np.testing.assert_array_equal(np.asarray(played.item)[:, 0], script[0])


@pytest.mark.long
def test_users_to_whom_all_items_are_alike_cannot_rank_policies(config, data, tmp_path):
    problem = problem_alike(config, data, [0.5, 0.4, 0.1], 10)
    report = report_on(problem.simulator.model, problem.simulator.params, data, 10, 4)
    tried = report["signals"]
    assert {name: signals["live_over_unmoved"] for name, signals in tried.items()} == dict.fromkeys(TRIED, 1)
    assert all(signals["reward_over_log"] > THRESHOLDS["reward_over_log"] for signals in tried.values())
    # Training says what the fit has said, unless the true users answer.
    learned = dataclasses.replace(problem, simulator=Simulator(problem.simulator.model, None, report))
    assert len(_verdicts(learned)) == 2
    assert _verdicts(learned.with_truth()) == []
    twice = Simulator(problem.simulator.model, dataclasses.replace(problem.simulator.params, rates=_LESS), report)
    problem = dataclasses.replace(problem, second=twice)
    bench = BenchConfig(16, 16, (5, 10), (1,), False, 1, 2, 4)
    found = run_bench(bench, problem, {})
    assert len(found["policies"]) >= 18
    # All policies earn the same, 0.9 a step: the draws of the answers are the same for all.
    learned = [by_length["10"]["reward"]["learned"]["mean"] for by_length in found["policies"].values()]
    assert len(set(learned)) == 1
    assert learned[0] == pytest.approx(9, abs=2)
    assert found["agreement"]["10"]["reward"]["spearman"] is None
    assert found["agreement"]["10"]["reward"]["ratio"]["median"] > 2
    assert all(signal["live_over_unmoved"] == 1 for signal in found["signals"].values())
    # The same seen by users of another kind, who click half as often.
    assert all(signal["value_over_second_kind"] == pytest.approx(2, rel=0.3) for signal in found["signals"].values())
    # They pay more per item than the best of the log.
    for signal in found["signals"].values():
        assert signal["reward_over_log"] > 1 > signal["reward_over_log_true"]
    # Calibrated for nobody.
    assert min(each["click"]["calibration_error"] for each in found["calibration"].values()) > 0.2
    # What the log alone tells: of all policies at one step, with what it is compared.
    estimated = found["off_policy"]
    assert set(estimated["policies"]) == set(found["policies"])
    assert set(estimated["true"]["random"]) == {"step", "1", "5"}
    assert estimated["true"]["random"]["5"] == pytest.approx(found["policies"]["random"]["5"]["reward"]["true"]["mean"])
    assert estimated["agreement"]["step"]["replay"]["policies"] >= 1
    assert 0.1 < estimated["first_shown"] < 1.5
    # Table and picture.
    prediction = {part: _scores(report[part]) for part in ("held_out", "test")}
    entry = {"world": 0, "shop": "seen", "simulator": "alike", "agents": [], "prediction": prediction, **found}
    lines = table([entry])
    assert any(line.startswith("| exploiter |") for line in lines)
    assert any(line.startswith("| step | replay |") for line in lines)
    policies = len(found["policies"])
    overpaid = sum(line == f"| any of them | other policies | {policies} of {policies} | - | - | - |" for line in lines)
    assert overpaid == 1
    picture(tmp_path / "trust.png", [entry])
    assert (tmp_path / "trust.png").stat().st_size > 1000
    write_json(tmp_path / RESULTS, {"logs": [entry]})  # all of it is JSON


_LESS = jnp.array([0.75, 0.2, 0.05])


@dataclass(frozen=True)
class ClicksMore(EveryoneAlike):
    """Clicks with probability 0.2 twice, and then with 0.8."""

    def initial(self, params, start):
        return jnp.int32(0)

    def probabilities(self, params, hidden, histories, item):
        return jnp.where(hidden >= 2, jnp.array([0.2, 0.8, 0.0]), jnp.array([0.8, 0.2, 0.0]))

    def update(self, params, hidden, item, feedback):
        return hidden + 1


def test_a_fit_says_without_an_agent_that_its_users_pay_for_their_own_answers(config, data):
    params = problem_alike(config, data, [1.0, 0.0, 0.0], 10).simulator.params
    found = try_users(ClicksMore(), params, data, 10, 32)
    assert list(found) == list(TRIED)
    steps = data.num_items // 2
    expected = (2 * 0.2 + (steps - 2) * 0.8) / (steps * 0.2)
    for signals in found.values():
        assert signals["live_over_unmoved"] == pytest.approx(expected, rel=0.15)
    assert "they pay" in warning_of_users(found)
    assert found == try_users(ClicksMore(), params, data, 10, 32)


def test_a_run_values_its_agent_in_users_of_another_kind(config, data):
    problem = problem_alike(config, data, [0.5, 0.4, 0.1], 10)
    other = dataclasses.replace(problem.simulator.params, rates=_LESS)
    problem = dataclasses.replace(problem, second=Simulator(problem.simulator.model, other, {}))
    short = dataclasses.replace(config.evaluation, long=10, sessions=16, sessions_at_a_time=16)
    comparison = Comparison(dataclasses.replace(config, evaluation=short), problem)
    tested = fixed_list(problem, POPULARITY)
    live = play_online(comparison.config, problem, {"list": tested})["list"]
    found = comparison._signals(tested, live)
    assert found["value_over_second_kind"] == pytest.approx(0.9 / 0.45, rel=0.3)
    assert found["live_over_unmoved"] == 1
    assert "value_over_second_kind" not in Comparison(comparison.config, problem.with_second())._signals(tested, live)


def test_results_of_other_settings_are_not_mixed(tmp_path):
    config = read_settings(TrustConfig, composed_values("trust", [f"out={tmp_path}"]))
    assert _done(tmp_path / RESULTS, config) == []
    write_json(tmp_path / RESULTS, {"settings": _decisive(config), "logs": [{"world": 3}]})
    assert _done(tmp_path / RESULTS, config) == [{"world": 3, "agents": ["ddpg", "hrl_mg_memory"]}]
    other = read_settings(TrustConfig, composed_values("trust", ["sessions=7"]))
    with pytest.raises(UserError, match="holds results of other settings"):
        _done(tmp_path / RESULTS, other)


def a_log() -> LoggedAnswers:
    """200 sessions of 60: a click at every tenth step, an order in the last session."""
    feedback = np.zeros((200, 60), int)
    feedback[:, ::10] = 1
    feedback[-1, 0] = 2
    return LoggedAnswers(feedback, np.ones((200, 60), bool), np.select([feedback == 2, feedback == 1], [5.0, 1.0], 0.0))


def test_signals_by_hand():
    played = np.zeros((3, 60), int)
    played[:, 40:50] = 1
    test = OnlineTest(played, played, played.astype(float))
    found = a_log().about(played, test.reward)
    assert found["reward_over_log"] == pytest.approx((10 / 60) / (6 / 60))
    assert found["late_clicks_over_log"] == pytest.approx((10 / 20) / (2 / 20))
    # Windows begin at 0 to 50; those from 32 to 48 have two clicks or more, and the log's have one each.
    assert found["windows_beyond_log"] == pytest.approx(17 / 51)
    assert value_ratio(test.reward, 0.5 * played) == 2
    # Of sessions that end early, and of a log without clicks, nothing is said.
    assert a_log().about(played[:, :50], played[:, :50])["late_clicks_over_log"] is None
    empty = LoggedAnswers(0 * a_log().feedback, a_log().shown, 0 * a_log().reward)
    assert empty.about(played, test.reward)["reward_over_log"] is None
    assert empty.about(played, test.reward)["late_clicks_over_log"] is None


def test_a_warning_names_the_number_that_is_over_its_threshold():
    fine = dict.fromkeys(THRESHOLDS, 0.1) | {"windows_beyond_log": None}
    assert warning("ddpg", fine) is None
    assert warning("ddpg", dict.fromkeys(THRESHOLDS)) is None
    for name, threshold in THRESHOLDS.items():
        said = warning("ddpg", fine | {name: threshold + 4})
        assert said.startswith("ddpg may live on the mistakes of the learned users: ")
        assert f"{threshold + 4:.1f} times" in said
        assert said.count(";") == 0
