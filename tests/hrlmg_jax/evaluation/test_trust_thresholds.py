"""Warnings counted against the truth, and thresholds proposed from some worlds, by hand."""

import pytest

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from hrlmg_jax.evaluation.trust_thresholds import (
    BANDS,
    SIGNALS,
    Case,
    Rule,
    cases_of,
    count,
    present_rules,
    proposed_rules,
)
from hrlmg_jax.reports.trust import thresholds_section, warnings_section
from hrlmg_jax.trust import TrustConfig


def entry(world: int, paid: dict[str, tuple[float, float]], shop: str = "seen") -> dict:
    """Results of policies by name: learned / true in long sessions, and live / unmoved."""
    reward = {name: {"learned": {"mean": 10 * ratio}, "true": {"mean": 10.0}} for name, (ratio, _) in paid.items()}
    alike = {"learned": {"mean": 1.0}, "true": {"mean": 1.0}}
    return {
        "world": world,
        "shop": shop,
        "simulator": "paper",
        "agents": ["ddpg"],
        "agreement": {"50": {}, "300": {}},
        "policies": {name: {"50": {"reward": alike}, "300": {"reward": of}} for name, of in reward.items()},
        "signals": {name: {"live_over_unmoved": signal} for name, (_, signal) in paid.items()},
    }


def case(ratio: float, **signals: float) -> Case:
    return Case(0, "seen", "paper", False, ratio, signals)


def test_cases_by_hand():
    found = cases_of([entry(3, {"ddpg 300, half random": (1.5, 2.0), "random": (0.5, 1.0)})])
    assert [(one.world, one.is_agent, one.ratio) for one in found] == [(3, True, 1.5), (3, False, 0.5)]
    assert found[0].signals == dict.fromkeys(SIGNALS) | {"live_over_unmoved": 2.0}


def test_warnings_are_counted_where_there_is_a_signal():
    cases = [
        case(2.5, live_over_unmoved=3.0),
        case(2.0, live_over_unmoved=2.2),
        case(1.6),
        case(1.0, reward_over_log=1),
    ]
    rule = present_rules()[0]
    assert [count(cases, rule, *bounds) for bounds in BANDS.values()] == [(1, 1), (0, 1), (0, 0), (0, 0)]
    assert [count(cases, present_rules()[-1], *bounds) for bounds in BANDS.values()] == [(1, 1), (0, 1), (0, 0), (1, 1)]


def test_proposed_thresholds_leave_as_many_false_alarms_as_allowed():
    # Ten fine cases: one signal has 0.1 to 1.0 of them, the other the reverse; a wrong case is above both.
    fine = [case(1.0, live_over_unmoved=k / 10, reward_over_log=(11 - k) / 10) for k in range(1, 11)]
    wrong = [case(2.0, live_over_unmoved=2.0, reward_over_log=0.1)]
    rules = {rule.name: rule.thresholds for rule in proposed_rules([*fine, *wrong], 1.25, 0.2)}
    assert rules["live_over_unmoved"] == {"live_over_unmoved": pytest.approx(0.8)}
    assert rules["reward_over_log"] == {"reward_over_log": pytest.approx(0.8)}
    # Both together: one case above each, which are not the same.
    assert rules["any"] == {"live_over_unmoved": pytest.approx(0.9), "reward_over_log": pytest.approx(0.9)}
    assert count(fine, Rule("any", rules["any"])) == (2, 10)
    assert count(wrong, Rule("any", rules["any"])) == (1, 1)
    # No signal that no fine case has, and none above the highest without false alarms.
    assert set(rules) == {"live_over_unmoved", "reward_over_log", "any"}
    strict = {rule.name: rule.thresholds for rule in proposed_rules(fine, 1.25, 0.0)}
    assert strict["any"] == {"live_over_unmoved": pytest.approx(1.0), "reward_over_log": pytest.approx(1.0)}


def test_thresholds_are_rounded_up_to_three_digits():
    rules = proposed_rules([case(1.0, live_over_unmoved=1.2345), case(1.0, live_over_unmoved=0.0)], 1.25, 0.0)
    assert rules[0].thresholds == {"live_over_unmoved": 1.24}
    small = proposed_rules([case(1.0, windows_beyond_log=0.00012341)], 1.25, 0.0)
    assert small[0].thresholds == {"windows_beyond_log": pytest.approx(0.000124)}


def test_tables_by_hand():
    results = [
        entry(0, {"ddpg 300": (3.0, 4.0), "random": (1.0, 1.0), "list": (1.2, 1.6)}),
        entry(10, {"ddpg 300": (3.0, 1.3), "random": (1.0, 1.7), "list": (1.2, 1.1)}, "blind"),
    ]
    lines = warnings_section(results)
    assert "| live_over_unmoved \\> 2.2 | agents | 1 of 2 | - | - | - |" in lines
    assert "| live_over_unmoved \\> 2.2 | other policies | - | - | - | 0 of 4 |" in lines
    assert "| any of them | blind, paper | 0 of 1 | - | - | 0 of 2 |" in lines
    lines = thresholds_section(results, [0], [10], 1.5, 1.25, 0.5)
    assert (
        "| proposed | live_over_unmoved \\> 1 | 1 of 1 | 1 of 2 | 1 of 1 | - | 1 of 1 | 2 of 2 | 1 of 1 | - |" in lines
    )
    with pytest.raises(UserError, match=r"no policy of worlds \[7\] is paid at most 1.25 times the truth"):
        thresholds_section(results, [7], [10], 1.5, 1.25, 0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["choose_on=[0,1]", "test_on=[1,2]"], r"share worlds \[1\]"),
        (["fine_below=2"], "fine_below is 2, above"),
    ],
)
def test_thresholds_are_tested_elsewhere(words, said):
    with pytest.raises(UserError, match=said):
        read_settings(TrustConfig, composed_values("trust", words))
