"""What a command's configuration offers."""

from pathlib import Path

import pytest
import yaml

from harness.commands.command import _help
from harness.commands.configuration import CONFIGURATION, Configuration, owner_of, system_of_run, systems
from harness.commands.nearest import nearest
from harness.runs.composition import composed_values

SYSTEMS = {"tpgr_jax": "train", "hrlmg_jax": "train_hrl_mg"}


def test_every_choice_belongs_to_the_system_whose_command_takes_it():
    assert sorted(systems()) == sorted(SYSTEMS)
    for system, name in SYSTEMS.items():
        configuration = Configuration(name)
        other = Configuration(next(one for one in SYSTEMS.values() if one != name))
        assert configuration.system == system
        for group in ("data", "agent", "experiment"):
            files = {path.stem for path in Path(CONFIGURATION, group).glob("*.yaml")} - {"base", "log_base", "auto"}
            assert set(configuration.choices(group)) | set(other.choices(group)) == files
        assert not set(configuration.choices("experiment")) & set(other.choices("experiment"))
        assert not set(configuration.choices("data")) & set(other.choices("data"))
    shared = set(Configuration("train").choices("agent")) & set(Configuration("train_hrl_mg").choices("agent"))
    assert shared == {"popularity", "python"}


def test_agents_of_tpgr_are_those_of_its_registry():
    from tpgr_jax.registry import AGENTS

    for path in Path(CONFIGURATION, "agent").glob("*.yaml"):
        chain = path
        values = yaml.safe_load(path.read_text("utf-8"))
        while "name" not in values:
            chain = path.with_name(f"{values['defaults'][0]}.yaml")
            values = yaml.safe_load(chain.read_text("utf-8"))
        if path.stem not in ("popularity", "python"):
            assert owner_of(path) == ("tpgr_jax" if values["name"] in AGENTS else "hrlmg_jax"), path.stem


@pytest.mark.parametrize(("system", "name"), SYSTEMS.items())
def test_a_stored_run_tells_its_system(system, name):
    assert system_of_run(composed_values(name, [])) == system
    assert system_of_run({"seed": 0}) is None


def test_help_lists_a_commands_own_choices():
    shown = _help(Configuration("train"), [])
    assert "agent: ddpg_knn" in shown
    assert "movielens_1m" in shown
    for other in ("hrl_mg", "jdata", "figure8", "retrieval", "hydra/"):
        assert other not in shown
    shown = _help(Configuration("data_statistics"), ["data=movielens_1m"])
    assert "jdata" in shown
    assert "name: movielens_1m" in shown


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("train.step", "train.steps"),
        ("steps", "train.steps"),
        ("agent.lerner.rate", "agent.learner.rate"),
        ("x", None),
    ],
)
def test_nearest(word, first):
    known = ["train.steps", "train.seed", "agent.learner.rate", "agent.policy.rate", "data.path"]
    assert (nearest(word, known) or [None])[0] == first
