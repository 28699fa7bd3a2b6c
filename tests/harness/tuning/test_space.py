"""Search spaces: those of conf/tune name settings that exist, and the published defaults lie within them."""

from pathlib import Path

import pytest

import hrlmg_jax.settings
import tpgr_jax.settings
from harness.commands.configuration import CONFIGURATION
from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from harness.tuning.space import read_space

UNTUNED = ("popularity", "random", "greedy_oracle", "planner", "python")
"""Agents that learn nothing."""
SCHEMAS = {"tune": tpgr_jax.settings.TuneConfig, "tune_hrl_mg": hrlmg_jax.settings.TuneConfig}
OF_TPGR = (
    *("tpgr", "tpgr_plus", "dqn_r", "ddpg_r", "ddpg_knn", "ddpg_knn_1", "ddpg_knn_tenth", "ddpg_knn_all"),
    *("greedy_svd", "linear_ucb", "hlinear_ucb", "gaussian_posterior"),
)
AGENTS = sorted(path.stem for path in Path(CONFIGURATION, "agent").glob("*.yaml") if path.stem not in UNTUNED)


@pytest.mark.parametrize("agent", AGENTS)
def test_every_learning_agent_has_a_space_around_its_defaults(agent):
    name = "tune" if agent in OF_TPGR else "tune_hrl_mg"
    values = composed_values(name, [f"agent={agent}"])
    config = read_settings(SCHEMAS[name], values)
    dimensions = read_space(config.space, values)  # checks keys and defaults
    assert dimensions
    # Both ends, or every choice, are settings that the agent takes.
    for dimension in dimensions:
        bounds = dimension.bounds
        for value in bounds.choices or (bounds.low, bounds.high):
            changed = _with(values, dimension.key, value)
            read_settings(SCHEMAS[name], changed)


def _with(values, key, value):
    first, _, rest = key.partition(".")
    return {**values, first: _with(values[first], rest, value) if rest else value}


def test_a_space_without_settings_is_refused():
    values = composed_values("tune", ["agent=popularity"])
    with pytest.raises(UserError, match="nothing to tune"):
        read_space(values.get("space"), values)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"agent": {"rate": {"low": 0, "high": 1}}}, "no agent.rate"),
        ({"agent": {"size": {"low": 0.1}}}, "either low and high, or choices"),
        ({"agent": {"size": {"low": 1, "high": 9, "choices": [3]}}}, "either low and high, or choices"),
        ({"agent": {"size": {"low": 0, "high": 9, "log": True}}}, "above 0 with log"),
        ({"agent": {"size": {"low": 9, "high": 1}}}, "low is at most high"),
        ({"agent": {"size": {"low": 5, "high": 9}}}, "agent.size is 3, the search space has 5 to 9"),
        ({"agent": {"size": {"choices": [1, 2]}}}, "agent.size is 3, the search space has 1, 2"),
        ({"agent": {"size": {"low": 1, "high": 9, "step": 2}}}, "unknown key space.agent.size.step"),
        ({"agent": {"size": 3}}, "space.agent.size"),
    ],
)
def test_impossible_spaces_are_refused(space, says):
    with pytest.raises(UserError, match=says):
        read_space(space, {"agent": {"size": 3, "hidden": [8]}})


def test_choices_may_be_lists_and_null():
    values = {"agent": {"hidden": [32, 16], "factors": None}}
    space = {"agent": {"hidden": {"choices": [[], [32, 16]]}, "factors": {"choices": [None, 8]}}}
    hidden, factors = read_space(space, values)
    assert hidden.of_stored(hidden.stored_default) == [32, 16]
    assert factors.of_stored(factors.stored_default) is None


def test_whole_numbers_stay_whole():
    (dimension,) = read_space({"agent": {"size": {"low": 1, "high": 9}}}, {"agent": {"size": 3}})

    class Trial:
        def suggest_int(self, key, low, high, log):
            return (key, low, high, log)

    assert dimension.suggest(Trial()) == ("agent.size", 1, 9, False)
