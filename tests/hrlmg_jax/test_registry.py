"""Agents by name and by module, ours and a user's own."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import hrlmg_jax
from harness.errors import UserError
from harness.extensions import load_module
from harness.runs.composition import composed_values
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from hrlmg_jax.agent import low_levels
from hrlmg_jax.agent.hrl_mg import make_learner
from hrlmg_jax.agent.low_levels import DdpgByCritic, DdpgLevel, DnnLevel
from hrlmg_jax.registry import AGENTS, HRL_MG, build_method
from hrlmg_jax.settings import RunConfig
from sim.envs.session_env import SessionEnv
from sim.generators.funnel_users import FunnelModel

OF_THE_PAPER = ["hrl_mg_paper_updates", "hrl_mg_paper"]
PRESETS = ["hrl_mg", "hrl", "hrl_mg_paper", "hrl_mg_memory_frozen", "ddpg", "ddpg_critic", "ddpg_memory", "dnn"]


@pytest.mark.parametrize("name", [*AGENTS, *PRESETS])
def test_every_agent_is_one_module(name):
    needed = {"planner": ["env.users=truth"], "python": ["agent.path=my.py:policy"]}.get(name, [])
    config = read_settings(RunConfig, composed_values("train_hrl_mg", [f"agent={name}", *needed]))
    module = load_module(AGENTS.get(name, HRL_MG), "agent.name", ("Settings", "build"))
    assert type(config.agent) is module.Settings
    assert config.agent.name == name


def test_a_function_recommends_items_of_the_catalogue_and_takes_no_part_in_the_offline_test(capsys):
    path = Path(__file__).parents[1] / "python_policies.py"
    overrides = ["agent=python", f"agent.path={path}:smallest_new_id", "agent.label=mine"]
    agent = read_settings(RunConfig, composed_values("train_hrl_mg", overrides)).agent
    log = SimpleNamespace(item_ids=np.array([0, 2, 1]), user_ids=np.array(["ann", "bob"]), user=np.array([0, 0, 1, 1]))
    data = SimpleNamespace(log=log, num_items=2)
    problem = SimpleNamespace(data=data, earlier=None)
    tested = build_method(problem, agent).best(None)
    assert agent.result_name == "mine"
    assert tested.rank is None
    assert f"agent.path runs smallest_new_id in {path}" in capsys.readouterr().err
    decide, starts, none = tested.policy(FunnelModel()).on_host, np.array([1, 0]), np.zeros((2, 0))
    sessions = SimpleNamespace(rows=np.array([0, 3]))
    assert decide(sessions, starts, none, none).tolist() == [0, 0]
    with pytest.raises(UserError, match="returned 1 for user bob at step 2, which is the id of no item"):
        decide(sessions, starts, np.array([[0], [0]]), np.array([[1], [2]]))  # the third item is not of the catalogue


def test_a_function_is_not_run_to_recommend(tmp_path):
    """Refused by the settings alone: there is neither a log nor a simulator, nor the file."""
    values = composed_values("train_hrl_mg", ["agent=python", f"agent.path={tmp_path}/my.py:policy"])
    (tmp_path / "my.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    RunFolder(tmp_path / "run").start(values)
    with pytest.raises(UserError, match="a function of yours"):
        hrlmg_jax.load(tmp_path / "run")
    assert not (tmp_path / "ran").exists()


def test_any_other_name_is_of_an_agent_that_learns():
    config = read_settings(RunConfig, composed_values("train_hrl_mg", ["agent=ddpg", "agent.name=mine"]))
    assert type(config.agent) is load_module(HRL_MG, "agent.name", ()).Settings
    assert config.agent.result_name == "mine"


@pytest.mark.parametrize(
    ("agent", "level", "learns"),
    [
        ("ddpg", DdpgLevel, "update_level"),
        ("ddpg_critic", DdpgByCritic, "update_level"),
        ("dnn", DnnLevel, "fit_rewards"),
    ],
)
def test_who_decides_and_what_is_learned(agent, level, learns, monkeypatch):
    config = read_settings(RunConfig, composed_values("train_hrl_mg", [f"agent={agent}"]))
    env = SessionEnv(FunnelModel(), config.env.episode_length, config.env.history_length)
    low = make_learner(config.agent, env, 6).policy.low
    assert type(low) is level
    assert low.config.gamma == (0 if agent == "dnn" else 0.95)
    # DDPG whose critic decides learns as DDPG does: from discounted targets, its actor too.
    called = []
    for name in ("update_level", "fit_rewards"):
        monkeypatch.setattr(low_levels, name, lambda *arguments, name=name: called.append(name))
    low.update(None, None, SimpleNamespace(embedding=None))
    assert called == [learns]
    state = SimpleNamespace(params={"actor": "LActor", "critic": "LCritic"})
    assert low.deciding(state) == ("LActor" if agent == "ddpg" else "LCritic")


def test_one_preset_updates_as_often_as_algorithm_2():
    often, seldom = (composed_values("train_hrl_mg", [f"agent={name}"])["agent"] for name in OF_THE_PAPER)
    assert often["learner"].pop("sessions") == 1  # a training step is one recommendation and one update
    recommendations = seldom["learner"].pop("sessions") * seldom["learner"].pop("warm_up_steps")
    assert often["learner"].pop("warm_up_steps") == recommendations
    assert often | {"name": ""} == seldom | {"name": ""}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("+agent.module=there_is_no_such", ["agent.module", "cannot be imported"]),
        ("+agent.module=json", ["agent.module", "Settings and build"]),
        ("agent.name=' '", ["agent.name is empty"]),
        ("train.steps=120", ["agent.learner.warm_up_steps is 120", "train.steps is 120", "more than 120"]),
        ("agent.name=best_rate", ["best_rate", "the name of a baseline"]),
        ("+agent.goals.internal_weight=0.2", ["unknown key", "called agent.goals.intrinsic_weight now"]),
    ],
)
def test_impossible_agents_are_named_with_what_to_do(override, parts):
    with pytest.raises(UserError) as caught:
        read_settings(RunConfig, composed_values("train_hrl_mg", [override]))
    assert all(part in str(caught.value) for part in parts)
