"""Several fits of one kind: whose a user is, what they disagree about, what pessimism takes off; and rates alone."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alike_users import EveryoneAlike, Rates, problem_alike, tiny_shop

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from hrlmg_jax.baselines.fixed_lists import POPULARITY
from hrlmg_jax.evaluation.disagreement import Disagreement, disagreement_of
from hrlmg_jax.evaluation.evaluate_run import Comparison
from hrlmg_jax.evaluation.online import make_validation, play_online
from hrlmg_jax.evaluation.policies import fixed_list
from hrlmg_jax.problem import load_data
from hrlmg_jax.registry import build_method
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model import store
from hrlmg_jax.user_model.ensemble import Ensemble, Members
from hrlmg_jax.user_model.kinds import make_user_model, training_model
from hrlmg_jax.user_model.rates import RatesUsers
from hrlmg_jax.user_model.settings import FitConfig
from hrlmg_jax.user_model.store import FILE, REPORT, obtain_simulator, simulator_folder

TWO = ([0.5, 0.4, 0.1], [0.9, 0.1, 0.0])
SMALL = [
    "simulator=paper",
    *("simulator.network.hidden_size=4", "simulator.network.state_size=4", "simulator.network.width=8"),
    *("simulator.embedding.size=4", "simulator.batch_size=16", "simulator.trial_sessions=0"),
    *(f"simulator.train.{key}=4" for key in ("steps", "log_every", "evaluate_every", "checkpoint_every")),
    "simulator.train.max_to_keep=9",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    return tiny_shop(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def data(config):
    return load_data(config.fit())


def two_members(problem, pessimism: float = 0.0):
    """The problem with an ensemble of users to whom all items are alike, as two fits have it."""
    embedding = problem.simulator.params.embedding
    params = Members(jax.tree.map(lambda *of: jnp.stack(of), *(Rates(jnp.asarray(one), embedding) for one in TWO)))
    model = Ensemble(EveryoneAlike(), 2)
    training = dataclasses.replace(model, pessimism=pessimism)
    simulator = dataclasses.replace(problem.simulator, model=model, params=params, training_model=training)
    return dataclasses.replace(problem, simulator=simulator)


@pytest.fixture(scope="module")
def problem(config, data):
    return problem_alike(config, data, [1.0, 0.0, 0.0], 10)


def test_answers_are_those_of_the_sessions_member_and_pessimism_takes_off_what_they_disagree_about(problem):
    params = two_members(problem).simulator.params
    np.testing.assert_array_equal(params.embedding, problem.simulator.params.embedding)
    users = [Ensemble(EveryoneAlike(), 2).initial(params, jnp.int32(start)) for start in range(4)]
    assert [int(user.member) for user in users] == [0, 1, 0, 1]

    def answers(pessimism: float, start: int) -> np.ndarray:
        return Ensemble(EveryoneAlike(), 2, pessimism).probabilities(params, users[start], None, jnp.int32(3))

    for start in range(4):
        np.testing.assert_allclose(answers(0.0, start), TWO[start % 2], atol=1e-6)
    # Clicks or orders have 0.5 and 0.1, orders 0.1 and 0: standard deviations of 0.2 and 0.05.
    spread = Ensemble(EveryoneAlike(), 2).disagreement(params, users[0], None, jnp.int32(3))
    np.testing.assert_allclose(spread, [0.2, 0.05], atol=1e-6)
    np.testing.assert_allclose(answers(1.0, 0), [0.7, 0.25, 0.05], atol=1e-6)
    np.testing.assert_allclose(answers(1.0, 1), [1, 0, 0], atol=1e-6)
    # Never more orders than clicks and orders.
    np.testing.assert_allclose(answers(2.4, 0), [0.98, 0.02, 0.0], atol=1e-6)


def test_an_agent_trains_with_pessimistic_users_and_is_tested_with_others(config, problem):
    pessimistic = two_members(problem, 1.0)
    agent = build_method(pessimistic, config.agent).agent
    assert agent.train_step.__self__.env.model.pessimism == 1.0
    assert pessimistic.users.pessimism == 0
    assert pessimistic.with_truth().training_users == pessimistic.with_truth().users
    # Its checkpoints are compared with the former: half of the sessions have a click or order at 0.3, half none.
    config = dataclasses.replace(
        config, evaluation=dataclasses.replace(config.evaluation, validation_sessions=128, long=10, sessions=128)
    )
    rewards = [
        make_validation(config, two_members(problem, pessimism))(fixed_list(problem, POPULARITY))["validation_reward"]
        for pessimism in (0.0, 1.0)
    ]
    assert rewards == pytest.approx([10 * (0.4 + 5 * 0.1 + 0.1) / 2, 10 * (0.25 + 5 * 0.05) / 2], rel=0.1)
    tested = play_online(config, pessimistic, {"list": fixed_list(problem, POPULARITY)})["list"]
    assert tested.reward.sum(1).mean() == pytest.approx(rewards[0], rel=0.1)


def test_disagreement_is_over_that_along_the_log(config, data, problem):
    two = two_members(problem)
    rows = data.first_rows("test")[:6]
    assert disagreement_of(problem, rows) is None
    found = Disagreement(two, rows)
    items, feedback = np.tile(np.arange(10), (6, 1)), np.zeros((6, 10), int)
    assert found.over_log(items, feedback) == pytest.approx(1)  # all items are alike
    comparison = Comparison(config, two)
    tested = fixed_list(two, POPULARITY)
    live = play_online(config, two, {"list": tested})["list"]
    assert comparison._signals(tested, live)["disagreement_over_log"] == pytest.approx(1)


@dataclasses.dataclass(frozen=True)
class FavouriteOfMembers:
    """One member's users click item 0 and no other, the other's click nothing, until somebody has clicked."""

    def initial(self, params, start):
        return jnp.bool_(False)

    def probabilities(self, params, hidden, histories, item):
        return jax.nn.one_hot(jnp.where((item == 0) & ~hidden & (params.rates[0] < 0.7), 1, 0), 3)

    def update(self, params, hidden, item, feedback):
        return hidden | (feedback > 0)

    def in_sessions(self, params, data, rows):
        return params


def test_disagreement_follows_the_session(problem, data):
    two = two_members(problem)
    two = dataclasses.replace(
        two, simulator=dataclasses.replace(two.simulator, model=Ensemble(FavouriteOfMembers(), 2))
    )
    found = Disagreement(two, data.first_rows("test")[:1])
    items = np.asarray([[5, 0, 7, 0]])
    skipped = found.over_log(items, np.zeros((1, 4), int))
    clicked = found.over_log(items, np.asarray([[0, 1, 0, 0]]))
    assert skipped == pytest.approx(2 * clicked)


def settings(folder, *words: str) -> tuple[FitConfig, dict]:
    small = ["data.size=tiny", "data.num_users=60", "data.num_items=100", "simulator.held_out_fraction=0.3"]
    places = [f"data.cache={folder / 'tables'}", f"simulator.root={folder / 'simulators'}"]
    values = composed_values("fit_simulator", [*small, *places, *words])
    return read_settings(FitConfig, values), values


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(store, "plot_reliability", lambda *_: None)


@pytest.mark.long
def test_members_are_fits_of_their_own_and_a_killed_ensemble_continues(tmp_path, undrawn):
    single, values = settings(tmp_path, *SMALL)
    data = load_data(single)
    alone = obtain_simulator(single, values, data).params
    config, values = settings(tmp_path, *SMALL, "simulator.members=2")
    fitted = obtain_simulator(config, values, data)
    first, second = (jax.tree.map(lambda leaf, k=k: leaf[k], fitted.params.stacked) for k in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, alone)
    np.testing.assert_array_equal(second.embedding, alone.embedding)
    kernels = [one.network["hidden"]["kernel"] for one in (first, second)]
    assert not np.allclose(*kernels)
    # Any member may be the user.
    rows, model = data.rows("test"), make_user_model(single.simulator)
    of_members = [model.predict(one, data, rows, 10) for one in (first, second)]
    np.testing.assert_allclose(fitted.model.predict(fitted.params, data, rows, 10), np.mean(of_members, 0))
    # Killed while the second was fitted.
    folder = simulator_folder(config, data)
    for name in (REPORT, FILE):
        (folder.path / name).unlink()
    shutil.rmtree(folder.path / "member_1" / "checkpoints")
    again = obtain_simulator(config, values, data)
    jax.tree.map(np.testing.assert_array_equal, again.params, fitted.params)


def test_pessimism_takes_no_other_fit_and_one_member_has_the_folder_that_it_always_had(tmp_path):
    config, _ = settings(tmp_path, *SMALL, "simulator.members=2")
    data = load_data(config)
    pessimistic, _ = settings(tmp_path, *SMALL, "simulator.members=2", "simulator.pessimism=0.5")
    single, _ = settings(tmp_path, *SMALL)
    assert simulator_folder(pessimistic, data).path == simulator_folder(config, data).path
    assert simulator_folder(config, data).path != simulator_folder(single, data).path
    assert training_model(pessimistic.simulator).pessimism == 0.5
    assert make_user_model(pessimistic.simulator).pessimism == 0
    with pytest.raises(UserError, match=r"simulator\.pessimism is 0\.5, but a single member has nobody"):
        settings(tmp_path, *SMALL, "simulator.pessimism=0.5")


def test_rates_by_hand_and_kept(tmp_path, undrawn):
    config, values = settings(tmp_path, "simulator=rates", "simulator.prior_events=4", "simulator.trial_sessions=0")
    data = load_data(config)
    simulator = obtain_simulator(config, values, data)
    assert isinstance(simulator.model, RatesUsers)
    rows, log = data.rows("train"), data.log
    item = int(np.bincount(log.item[rows]).argmax())
    of_item = rows[log.item[rows] == item]
    for answer in range(3):
        of_all = np.mean(log.feedback[rows] == answer)
        wanted = (np.sum(log.feedback[of_item] == answer) + 4 * of_all) / (len(of_item) + 4)
        assert simulator.params.rates[item, answer] == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(simulator.params.rates.sum(1), 1, rtol=1e-5)
    never = np.setdiff1d(np.arange(data.log.num_items), log.item[rows])
    np.testing.assert_allclose(
        simulator.params.rates[never], np.tile(simulator.params.rates[never[:1]], (len(never), 1))
    )
    assert simulator.report["test"]["log_loss"] < 1
    again = obtain_simulator(config, values, data)
    jax.tree.map(np.testing.assert_array_equal, again.params, simulator.params)
