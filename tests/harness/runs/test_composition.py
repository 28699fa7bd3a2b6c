"""Command lines that compose to a given configuration."""

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.commands.command_words import override_value
from harness.runs.composition import (
    composed_values,
    devices_among,
    differing_overrides,
    is_configuration,
    overrides_like,
    shell_command,
    sweep_of,
    unlike_composed,
)

# Without control characters, which no shell or YAML file would bring here.
TEXTS = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-1e9, 1e9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@settings(deadline=None)
@given(VALUES)
@example("İ")  # equal to i, ignoring case, and none of Hydra's letters
def test_hydra_reads_back_what_is_written(value):
    override = OverridesParser.create().parse_override(f"key={override_value(value)}")
    read = override.value()
    assert _plain(read) == value
    assert shlex.split(shell_command("m", [f"key={override_value(value)}"]))[3] == f"key={override_value(value)}"


def _plain(value):
    """Quoted strings come back as such; numbers of any type are equal."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return getattr(value, "text", value)


def test_overrides_lead_from_one_configuration_to_another():
    wanted = composed_values("train", ["data=ratings_file", "data.path=a b.csv", "agent.policy.hidden=[]", "seed=3"])
    base = composed_values("train", ["data=ratings_file"])
    overrides = differing_overrides(base, wanted, lambda key: key != "seed")
    assert overrides == ['data.path="a b.csv"', "tree.seed=3", "agent.policy.hidden=[]"]
    assert composed_values("train", ["data=ratings_file", *overrides, "seed=3"]) == wanted
    assert differing_overrides(base, {"unknown": 1}, lambda key: True) == []


def test_what_a_run_has_beyond_a_composition():
    values = composed_values("train", ["agent.policy.hidden=[]", "seed=3"])
    assert overrides_like("train", [], values, lambda key: key != "tree.seed") == ["agent.policy.hidden=[]", "seed=3"]
    assert overrides_like("train", ["seed=3"], values, lambda key: True) == ["agent.policy.hidden=[]"]
    settings = {"seed": 3, "tree.depth": 2, "agent.policy.hidden": [], "unknown": None}
    assert unlike_composed("train", ["seed=3"], settings) == {"agent.policy.hidden": [], "unknown": None}


def test_configurations_and_what_experiments_sweep_over():
    assert is_configuration("agent", "tpgr")
    assert not is_configuration("agent", "nobody")
    assert sweep_of("depth") == {"tree.depth": [1, 2, 3, 4], "seed": [0, 1, 2]}
    assert sweep_of("table2")["env.alpha"] == [0.0, 0.1, 0.2]


def test_an_agents_own_schedule_has_the_last_word_in_an_experiment():
    steps = {
        agent: composed_values("train", [f"agent={agent}", "+experiment=movielens"])["train"]["steps"]
        for agent in ("tpgr", "dqn_r", "tpgr_plus", "ddpg_knn")
    }
    assert steps == {"tpgr": 1000, "dqn_r": 1000, "tpgr_plus": 300, "ddpg_knn": 150}
    assert (
        composed_values("train", ["agent=tpgr_plus", "+experiment=movielens", "train.steps=7"])["train"]["steps"] == 7
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.size=tiny", "+experiment=cluster", "devices.process=1", "env.alfa=1"],
        ["+agent=nonsense", "+experiment=cluster", "devices.process=1"],
    ],
)
def test_what_composes_tells_of_other_processes_wherever_it_is_set(overrides, monkeypatch):
    def composed(name: str, given: list[str]) -> dict[str, Any]:
        if name != "train" or "env.alfa=1" in given or "+agent=nonsense" in given:
            raise ValueError
        known = {"coordinator": "node1:80", "processes": 2} if "+experiment=cluster" in given else {}
        return {"devices": known | {"process": int("devices.process=1" in given)}}

    monkeypatch.setattr("harness.runs.composition.composed_values", composed)
    assert devices_among("train", overrides) == {"coordinator": "node1:80", "processes": 2, "process": 1}
    assert devices_among("train", []) == devices_among(None, overrides) == {}
