"""Reports from run folders made by hand: figures by hand and p-values against SciPy, then real command lines."""

import csv
import os
import re
import shlex

import numpy as np
import pytest
import scipy.stats
from command_lines import assert_one_message
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from run_folders import make_run, make_session_run

from harness.errors import UserError
from harness.reports.command import hydra_arguments, make_report
from harness.reports.method_results import EPISODES, SEEDS
from harness.reports.results import p_text
from harness.reports.system_results import Rerun, preset
from harness.runs.composition import composed_values, sweep_of
from harness.runs.index import flattened
from harness.runs.run_folder import RunFolder, read_json, write_json
from harness.settings import read_settings
from hrlmg_jax.baselines import popularity
from hrlmg_jax.evaluation.policies import BASELINES
from hrlmg_jax.registry import AGENTS
from hrlmg_jax.report import MODULE, REPORTS
from hrlmg_jax.reports.figure6 import Figure6Config, report_figure6
from hrlmg_jax.reports.figures7_8 import report_figure7, report_figure8
from hrlmg_jax.reports.figures9_12 import SensitivityConfig, report_alpha, report_goals
from hrlmg_jax.reports.ranking import describe_p, order_table, ranked, ratio_table
from hrlmg_jax.reports.results import (
    LABELS,
    OFFLINE,
    ONLINE,
    ONLINE_TRUTH,
    POPULARITY,
    SYSTEM,
    WITHOUT_SEED,
    comparable_runs,
    hrl_mg_runs,
    missing_methods,
)
from hrlmg_jax.reports.worlds import WorldsConfig
from hrlmg_jax.settings import RunConfig

PNG = b"\x89PNG"


def agent(name, **settings):
    """Settings of a method as its preset has them where a report looks."""
    own = {"hrl": {"agent.goals.count": 1}, "hrl_mg_frozen": {"agent.goals.frozen": True}}.get(name, {})
    if name in ("dnn", "ddpg"):
        own = {"agent.goals.enabled": False}
    return {"agent.name": name, **own, **settings}


def rows_of(values, every=10):
    return [
        {"step": every * number, "episodes": 2 * number, "seconds": 1.0 * number, "low_q": value / 2, **both(value)}
        for number, value in enumerate(values, 1)
    ]


def both(value):
    return {"reward": value, "validation_reward": 10 * value}


def results_in(folder, test=ONLINE):
    return SYSTEM.read(SYSTEM.methods(hrl_mg_runs([str(folder)]).runs), test)


def report(make, folder, config=WorldsConfig, name="figure8", data_name=None, **more):
    make(config(name, [str(folder)], data_name, str(folder / "out"), **more))
    return (folder / "out" / f"{name}.md").read_text()


def figure8(folder, **more):
    return report(report_figure8, folder, **more)


def table_rows(text, head):
    """The cells of the table after a head."""
    lines = text[text.index(f"\n{head}\n") :].splitlines()[2:]
    start = next(number for number, line in enumerate(lines) if line.startswith("| ---"))
    body = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        body.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return body


def csv_rows(folder, name):
    with (folder / "out" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_runs_of_this_system_and_no_others(tmp_path):
    make_session_run(tmp_path / "a", [1, 2])
    make_run(tmp_path / "tpgr", [1, 2])
    simulator = RunFolder(tmp_path / "simulators" / "log-0123456789")
    values = composed_values("train_hrl_mg", [])
    simulator.start({key: values[key] for key in ("data", "env", "simulator")})
    make_session_run(tmp_path / "b", [1, 2], {"agent.name": 7})
    without = make_session_run(tmp_path / "c", [1, 2]) / "online.json"
    without.write_text('{"data": {"name": "x", "checksum": "y", "synthetic": true}, "step": 1}')
    found = hrl_mg_runs([str(tmp_path)])
    assert [run.folder.path.name for run in found.runs] == ["a"]
    assert len(found.unreadable) == 2
    assert any("agent.name is 7" in message for message in found.unreadable)
    assert any("c: its files do not describe the data" in message for message in found.unreadable)


def test_names_of_methods(tmp_path):
    cases = {
        "DNN": agent("dnn"),
        "HRL-MG (goals frozen)": agent("hrl_mg_frozen"),
        "HRL-MG (paper)": agent("hrl_mg_paper"),
        "mine": agent("mine"),
        "Popularity": agent("popularity"),
        "Best rate": agent("popularity", **{"agent.policy.by": "average"}),
        "Popularity (count)": agent("popularity", **{"agent.policy.by": "count"}),
    }
    for number, settings in enumerate(cases.values()):
        make_session_run(tmp_path / str(number), [1, 2], settings)
    assert [SYSTEM.label(run) for run in hrl_mg_runs([str(tmp_path)]).runs] == list(cases)
    order = ["Popularity", "Best rate", "Popularity (count)", "DNN", "HRL-MG (goals frozen)", "HRL-MG (paper)", "mine"]
    assert [result.label for result in results_in(tmp_path).results] == order
    # The names are those of the results themselves.
    assert {*BASELINES, *AGENTS} <= LABELS.keys()
    assert {*BASELINES, *AGENTS} <= {*WITHOUT_SEED}
    for by, name in ((None, "popularity"), ("reward", "popularity"), ("average", "best_rate"), ("count", "count")):
        settings = popularity.Settings(name="popularity", policy=popularity.RankingConfig(by))
        assert settings.result_name == name


def test_means_intervals_and_ratios_by_hand(tmp_path):
    make_session_run(tmp_path / "a", [10, 20, 30, 40], {"seed": 0}, baselines={"popularity": [10, 10, 10, 10]})
    make_session_run(tmp_path / "b", [20, 30, 40, 50], {"seed": 1}, baselines={"popularity": [10, 10, 10, 30]})
    (result,) = results_in(tmp_path).results
    # Seeds have means 25 and 35: standard error 5, t(0.975, 1) = 12.706205.
    assert result.estimate("long_reward", SEEDS) == pytest.approx((30, 30 - 63.531, 30 + 63.531), abs=1e-3)
    assert result.estimate("short_clicks", SEEDS) == pytest.approx((1.5, 1.5 - 3.17655, 1.5 + 3.17655), abs=1e-4)
    assert result.ratios(POPULARITY, "long_reward") == pytest.approx([25 / 10, 35 / 15])
    *_, least = ratio_table([result], "long_reward")[-1].strip("| ").split(" | ")
    assert least == f"{35 / 15:.3f}"
    (offline,) = results_in(tmp_path, OFFLINE).results
    assert offline.mean("ndcg40") == pytest.approx(0.9)
    assert results_in(tmp_path, ONLINE_TRUTH).results == []


def test_a_single_seed_and_equal_seeds_have_intervals_over_sessions(tmp_path):
    make_session_run(tmp_path / "one", [1, 2, 3, 4])
    for seed in (0, 1):
        make_session_run(tmp_path / f"list{seed}", [1, 2, 3, 4], agent("random", seed=seed))
    for result in results_in(tmp_path).results:
        assert result.estimate("long_reward", EPISODES) == pytest.approx(
            (2.5, 2.5 - 2.054260, 2.5 + 2.054260), abs=1e-5
        )
    text = figure8(tmp_path)
    rows = {
        row[0]: row[4]
        for row in table_rows(text, "## Long sessions (300 recommendations), users: learned from the log")
    }
    assert (rows["HRL-MG"], rows["Random"]) == ("1", "2 (equal)")


def test_each_method_is_compared_with_the_next_best_over_seeds(tmp_path):
    rng = np.random.default_rng(0)
    played = {name: rng.normal(mean, 2.0, (3, 20)) for name, mean in {"dnn": 20, "ddpg": 30, "hrl_mg": 25}.items()}
    popular = list(rng.normal(22, 1.0, 20))
    for name, seeds in played.items():
        for seed, rewards in enumerate(seeds):
            settings = agent(name, seed=seed)
            make_session_run(tmp_path / f"{name}{seed}", list(rewards), settings, baselines={"popularity": popular})
    collected = results_in(tmp_path)
    order = ranked([*collected.results, *collected.baselines], "long_reward")
    assert [one.result.label for one in order] == ["DDPG", "HRL-MG", "Popularity", "DNN"]
    means = {name: seeds.mean(1) for name, seeds in played.items()}
    first, second, third, last = (one.above for one in order)
    assert first.mean == pytest.approx(means["ddpg"].mean() - means["hrl_mg"].mean())
    assert first.p_value == pytest.approx(scipy.stats.ttest_ind(means["ddpg"], means["hrl_mg"], equal_var=False).pvalue)
    assert second.p_value == pytest.approx(scipy.stats.ttest_1samp(means["hrl_mg"], np.mean(popular)).pvalue)
    assert third.p_value == pytest.approx(scipy.stats.ttest_1samp(means["dnn"], np.mean(popular)).pvalue)
    assert last is None
    assert describe_p(first).endswith("(3 and 3 seeds)")
    assert describe_p(second).endswith("(3 seeds)")
    figure8(tmp_path)
    of_metric = [row for row in csv_rows(tmp_path, "figure8") if row["metric"] == "long_reward"]
    assert [row["method"] for row in of_metric] == ["DDPG", "HRL-MG", "Popularity", "DNN"]
    top = of_metric[0]
    assert (top["rank"], top["seeds"], top["next_best"]) == ("1", "0 1 2", "HRL-MG")
    assert (top["welch_n"], top["welch_n_next_best"]) == ("3", "3")
    assert float(top["welch_p_over_seeds"]) == pytest.approx(first.p_value)
    paired = scipy.stats.ttest_rel(played["ddpg"].mean(0), played["hrl_mg"].mean(0)).pvalue
    assert float(top["paired_p_over_sessions"]) == pytest.approx(paired)
    assert (of_metric[2]["method"], of_metric[2]["low_over_seeds"]) == ("Popularity", "")
    assert float(of_metric[2]["low_over_sessions"]) < np.mean(popular) < float(of_metric[2]["high_over_sessions"])
    assert float(top["least_ratio_to_popularity"]) == pytest.approx(means["ddpg"].min() / np.mean(popular))
    assert [row["rank"] for row in of_metric] == ["1", "2", "3", "4"]
    assert (of_metric[3]["next_best"], of_metric[3]["welch_p_over_seeds"]) == ("", "")


def test_the_papers_order_is_tested_pair_by_pair(tmp_path):
    rng = np.random.default_rng(0)
    played = {}
    for name, mean in {"dnn": 10, "hrl": 8, "hrl_mg": 12, "hrl_mg_frozen": 13}.items():
        played[name] = rng.normal(mean, 1.0, (2, 10))
        for seed, rewards in enumerate(played[name]):
            make_session_run(tmp_path / f"{name}{seed}", list(rewards), agent(name, seed=seed))
    other = {"seed": 2, "agent.goals.intrinsic_weight": 0}
    make_session_run(tmp_path / "variant", list(played["hrl_mg"][0] + 90), agent("hrl_mg", **other))
    lines = order_table(results_in(tmp_path).results, {"long_reward": "reward"}, 2)
    cells = {row[0]: row[1] for row in (line.strip("| ").split(" | ") for line in lines if line.startswith("| H"))}
    assert list(cells) == ["HRL - DNN", "HRL-MG - DNN", "HRL-MG - HRL", "HRL-MG - HRL-MG (goals frozen)"]
    means = {name: seeds.mean(1) for name, seeds in played.items()}
    for higher, lower, shown in (("hrl", "dnn", "HRL - DNN"), ("hrl_mg", "hrl_mg_frozen", list(cells)[3])):
        p_value = scipy.stats.ttest_ind(means[higher], means[lower], equal_var=False).pvalue
        mean = means[higher].mean() - means[lower].mean()
        assert cells[shown] == f"{mean:+.2f}, p = {p_value:.2g} (2 and 2 seeds)"
    assert order_table([], {"long_reward": "reward"}, 2) == []
    # Seed by seed, on the same sessions.
    text = figure8(tmp_path)
    rows = {row[0]: row[1:] for row in table_rows(text, "### Pairs by seed: reward")}
    assert list(rows) == list(cells)
    pairs = [(played["hrl"], played["dnn"]), *zip(played["hrl"], played["dnn"], strict=True)]
    p_values = [
        scipy.stats.ttest_rel(*(one.mean(0) if one.ndim == 2 else one for one in pair)).pvalue for pair in pairs
    ]
    assert rows["HRL - DNN"][1:] == [f"p = {p_value:.2g}" for p_value in p_values]


def test_a_table_of_intervals_has_one_unit(tmp_path):
    for seed in (0, 1):
        make_session_run(tmp_path / f"own{seed}", [1 + seed, 2], agent("hrl_mg", seed=seed))
    make_session_run(tmp_path / "one", [1, 2], agent("hrl"))
    text = figure8(tmp_path, name="figure8")
    assert text.count("±: 95 % interval over seeds.") == 2
    rows = {
        row[0]: row for row in table_rows(text, "## Long sessions (300 recommendations), users: learned from the log")
    }
    # Seeds have 1.5 and 2: standard error 0.25; one seed, and a list, have no interval over seeds.
    assert [rows[name][1] for name in ("HRL-MG", "HRL", "Popularity")] == ["1.750 ± 3.177", "1.500", "2.000"]


def test_the_agent_with_a_memory_is_compared_with_its_controls_and_with_less_of_a_hierarchy(tmp_path):
    for number, name in enumerate(("ddpg", "hrl_mg_memory", "hrl_mg_memory_alpha0")):
        make_session_run(tmp_path / name, [number, number + 1.0], agent(name))
    lines = order_table(results_in(tmp_path).results, {"long_reward": "reward"}, 2)
    pairs = [line.strip("| ").split(" | ")[0] for line in lines if line.startswith("| H")]
    assert pairs == ["HRL-MG (memory) - HRL-MG (memory, alpha = 0)", "HRL-MG (memory) - DDPG"]


def test_variants_are_told_apart_and_named_by_what_their_preset_has_not(tmp_path):
    for seed in (0, 1):
        make_session_run(tmp_path / f"a{seed}", [1, 2], agent("hrl_mg", seed=seed, **{"train.log_every": 25}))
    make_session_run(tmp_path / "b", [3, 4], agent("hrl_mg", **{"agent.goals.intrinsic_weight": 0}))
    make_session_run(tmp_path / "c", [5, 6], agent("hrl_mg", **{"train.evaluate_every": 500}))
    methods = SYSTEM.methods(hrl_mg_runs([str(tmp_path)]).runs)
    assert {method.label: len(method.runs) for method in methods} == {
        "HRL-MG": 2,
        "HRL-MG with agent.goals.intrinsic_weight=0": 1,
        "HRL-MG with train.evaluate_every=500": 1,  # other evaluations choose other actors
    }
    assert preset(methods, "hrl_mg").label == "HRL-MG"
    assert preset(methods, "hrl") is None
    assert preset(methods[1:], "hrl_mg").label == "HRL-MG with agent.goals.intrinsic_weight=0"


def test_baselines_are_rows_once(tmp_path):
    beside = {"popularity": [2, 3], "best_rate": [4, 5], "planner": [9, 9]}
    make_session_run(tmp_path / "a", [1, 2], {"seed": 0}, baselines={"popularity": [2, 3]})
    make_session_run(tmp_path / "b", [1, 3], {"seed": 1}, baselines=beside)
    listed = agent("popularity", **{"agent.policy.by": "average"})
    make_session_run(tmp_path / "c", [4, 5], listed, baselines={"popularity": [2, 3]}, step=0)
    collected = results_in(tmp_path)
    assert [result.label for result in collected.results] == ["Best rate", "HRL-MG"]
    assert [(result.label, result.runs) for result in collected.baselines] == [("Popularity", []), ("Planner", [])]
    assert collected.warnings == []
    assert collected.results[0].seedless  # a single run, of which it is known
    popularity = collected.baselines[0]
    assert popularity.mean("long_reward") == 2.5
    assert popularity.ratios(POPULARITY, "long_reward") == [1.0]
    make_session_run(tmp_path / "d", [1, 4], {"seed": 2}, baselines={"popularity": [2, 4]})
    (warning,) = results_in(tmp_path).warnings
    assert "Popularity got 2.500 beside" in warning
    assert f"3.000 beside {tmp_path / 'd'}" in warning
    assert "## Warnings" in figure8(tmp_path)


def test_a_repeated_seed_counts_once_and_is_named(tmp_path):
    for number in range(2):
        make_session_run(tmp_path / f"run{number}", [number, number + 1])
        os.utime(tmp_path / f"run{number}" / "online.json", (number, number))
    collected = results_in(tmp_path)
    assert collected.results[0].mean("long_reward") == 1.5
    assert collected.left_out == [f"{tmp_path / 'run0'}: an older repetition of seed 0"]
    assert f"* {tmp_path / 'run0'}" in figure8(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("env.order_reward", 4.0),
        ("env.users", "truth"),
        ("simulator.seed", 1),
        ("simulator.held_out_fraction", 0.2),
        ("simulator.train.steps", 20),
        ("data.split", "quantile"),
        ("data.order_proxy", ["is_like"]),
        ("evaluation.short", 20),
        ("evaluation.sessions", 4096),
    ],
)
def test_runs_about_different_things_are_not_mixed(tmp_path, key, value):
    make_session_run(tmp_path / "a", [1, 2])
    make_session_run(tmp_path / "b", None, {key: value})  # unfinished ones, too, would be named in one table
    with pytest.raises(UserError, match=f"{key} is .* in .*a and {re.escape(str(value))} in .*b"):
        figure8(tmp_path)


def test_runs_of_before_there_were_proxies_of_orders_still_count(tmp_path):
    make_session_run(tmp_path / "a", [1, 2])
    make_session_run(tmp_path / "b", [3, 4], {"seed": 1})
    older = tmp_path / "a" / "config.yaml"
    lines = older.read_text().splitlines(keepends=True)
    older.write_text("".join(line for line in lines if "order_proxy" not in line))
    assert len(older.read_text().splitlines()) == len(lines) - 1
    assert [result.values["long_reward"].shape for result in results_in(tmp_path).results] == [(2, 2)]


def test_one_log_read_in_two_ways_is_refused_with_the_settings_that_differ(tmp_path):
    make_session_run(tmp_path / "a", [1, 2])
    orders = {"data.feedback_of_event": {"click": "order"}, "data.skip_popularity_power": 0.0}
    make_session_run(tmp_path / "b", [1, 2], {"seed": 1, **orders}, table="sha256:dd")
    named = r"data\.feedback_of_event\.click is None and order, data\.skip_popularity_power is 0\.5 and 0\.0"
    for name, module in (("figure8", report_figure8), ("figure7", report_figure7)):
        with pytest.raises(UserError, match=f"different tables of the same data .*{named}"):
            report(module, tmp_path, name=name)


def test_a_run_whose_log_was_built_otherwise_is_left_out_and_says_so(tmp_path):
    make_session_run(tmp_path / "b", [7, 8], {"seed": 1}, table=None)
    with pytest.raises(UserError, match=r"no runs below .*/b: its log was built otherwise \("):
        figure8(tmp_path)
    make_session_run(tmp_path / "a", [1, 2])
    text = figure8(tmp_path)
    assert re.search(r"/b: its log was built otherwise \(.*\), so only commit 5e63f8e can evaluate it", text)
    assert results_in(tmp_path).results[0].seeds == [0]


def test_what_does_not_matter_to_a_test_may_differ(tmp_path):
    make_session_run(tmp_path / "a", [1, 2])
    elsewhere = {"evaluation.offline_sessions": 10, "simulator.root": "elsewhere", "evaluation.sessions_at_a_time": 8}
    make_session_run(tmp_path / "b", [1, 2], {"seed": 1, **elsewhere})
    assert "| HRL-MG |" in figure8(tmp_path)
    with pytest.raises(UserError, match=r"evaluation\.offline_sessions is 4096 in .*a and 10 in .*b"):
        report(report_figure7, tmp_path, name="figure7")


def test_other_data_and_other_sessions_are_refused(tmp_path):
    make_session_run(tmp_path / "a", [1, 2])
    make_session_run(tmp_path / "b", [1, 2, 3], {"seed": 1})
    with pytest.raises(UserError, match=r"b/online\.npz: has other test sessions than .*a, or not"):
        figure8(tmp_path)
    make_session_run(tmp_path / "c", [5, 6], name="other", checksum="sha256:bb")
    with pytest.raises(UserError, match=r"checksum is .*\n.*data_name=NAME \(other, synthetic_funnel\)"):
        figure8(tmp_path)
    assert "# Figure 8, online test: other (SYNTHETIC)\n" in figure8(tmp_path, data_name="other")
    with pytest.raises(UserError, match=r"no runs on third below .*\n.*hrlmg_jax\.train -m \+experiment=figure8"):
        figure8(tmp_path, data_name="third")


def test_every_test_has_its_section_and_runs_without_it_are_named(tmp_path):
    make_session_run(tmp_path / "a", [10, 20], truth=[1, 2])
    make_session_run(tmp_path / "b", [30, 40], agent("planner"), offline=False, step=0)
    text = figure8(tmp_path)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Long sessions (300 recommendations), users: the generator's truth",
        "## Short sessions (50 recommendations), users: the generator's truth",
        "## Long sessions (300 recommendations), users: learned from the log",
        "## Short sessions (50 recommendations), users: learned from the log",
        "## Left out",
        "## Missing",
    ]
    short = table_rows(text, "## Short sessions (50 recommendations), users: the generator's truth")
    # A tenth of 1 and 2; standard error 0.05.
    assert [row[:2] for row in short] == [["Popularity", "0.200"], ["HRL-MG", "0.150 ± 0.635"]]
    assert f"* {tmp_path / 'b'}: has no result in online_truth.npz" in text
    for name in ("long", "short", "truth_long", "truth_short"):
        assert (tmp_path / "out" / f"figure8_{name}.png").read_bytes().startswith(PNG)
    offline = report(report_figure7, tmp_path, name="figure7")
    assert [row[:4] for row in table_rows(offline, "## 2 logged test sessions, ranked again")] == [
        ["HRL-MG", "0.1500 ± 0.6353", "0.3000 ± 1.2706", "0.4500 ± 1.9059"],
        ["Popularity", "0.0200", "0.0400", "0.0600"],
    ]
    assert "b: has no result in offline.npz" in offline
    assert (tmp_path / "out" / "figure7.png").read_bytes().startswith(PNG)


def off_policy_of(reward, effective, first=None):
    """The estimates of a policy; those of the first step are unknown unless given."""

    def estimate(value):
        return None if value is None else {"reward": value, "ci95": [value - 0.1, value + 0.2]}

    step = {"simulated": 0.3, "replay": estimate(reward), "doubly_robust": estimate(reward), "effective": effective}
    one = {"simulated": 0.5, "per_decision": None, "doubly_robust": estimate(first), "effective": 1.0}
    return {"step": step, "first": {"1": one | {"corrected_steps": 1}}, "warning": None}


def test_what_the_log_alone_tells_is_a_table_of_figure7(tmp_path):
    for number, (reward, first) in enumerate([(0.2, None), (0.4, 0.7), (None, None)]):
        folder = make_session_run(tmp_path / str(number), [10, 20], settings={"seed": number})
        estimates = {"hrl_mg": off_policy_of(reward, 90.0 - number, first), "popularity": off_policy_of(0.15, 60.0)}
        path = folder / "offline.json"
        content = read_json(path) if path.exists() else {}
        write_json(path, {**content, "off_policy": {"policies": estimates}})
    make_session_run(tmp_path / "silent", [10, 20], settings={"seed": 3})
    text = report(report_figure7, tmp_path, name="figure7")
    assert table_rows(text, "### What the log alone tells") == [
        ["HRL-MG", "0.300", *["0.300 (0.200 to 0.500)"] * 2, "88", "0.500", "-", "0.700 (0.600 to 0.900)", "1"],
        ["Popularity", "0.300", *["0.150 (0.050 to 0.350)"] * 2, "60", "0.500", "-", "-", "1"],
    ]
    assert "1 run has no such estimates: python -m hrlmg_jax.evaluate run=FOLDER makes them" in text


def test_users_are_named_where_the_truth_answers_in_training_too(tmp_path):
    make_session_run(tmp_path / "a", [1, 2], {"env.users": "truth"})
    assert "## Long sessions (300 recommendations), users: the generator's truth\n" in figure8(tmp_path)


def test_missing_and_unfinished_runs_are_named_with_their_commands(tmp_path):
    same = {"env.episode_length": 20, "data.size": "tiny"}
    for seed in (0, 1, 3, 4):
        own = agent("hrl_mg", seed=seed, **same, **{"train.steps": 40, "agent.goals.period": 4})
        make_session_run(tmp_path / f"a{seed}", [1, 2], own, checkpoint=40)
    make_session_run(tmp_path / "b", None, agent("hrl", seed=4, **same), checkpoint=4)
    runs = comparable_runs(WorldsConfig("figure8", [str(tmp_path)], None, ""), ONLINE.same)
    commands = SYSTEM.rerun_commands(missing_methods(SYSTEM.methods(runs.runs), "figure8"))
    start, tiny = "python -m hrlmg_jax.train", "data.size=tiny env.episode_length=20"
    learning = "dnn,ddpg,ddpg_critic,hrl_mg_frozen,hrl_mg_alpha0,ddpg_paper,hrl_paper,hrl_mg_paper"
    assert commands == [
        f"{start} -m data=synthetic_funnel agent=random,popularity {tiny} train.steps=40 seed=0",
        f"{start} -m data=synthetic_funnel agent={learning} {tiny} train.steps=40 seed=0,1,2,3,4",
        f"{start} -m data=synthetic_funnel agent=hrl {tiny} seed=0,1,2,3",
        f"{start} data=synthetic_funnel agent=hrl_mg {tiny} agent.goals.period=4 train.steps=40 seed=2",
    ]
    text = figure8(tmp_path)
    assert all(command in text for command in commands)
    name = "(HRL, alpha 0.5, M 1, seed 4)"
    unfinished = f"{tmp_path / 'b'} {name}: interrupted; continue with: python -m hrlmg_jax.train resume="
    assert unfinished in text
    # What the command says leads to the run that is missing.
    *_, overrides = commands[3].partition("hrlmg_jax.train ")
    wanted = OmegaConf.to_container(OmegaConf.load(tmp_path / "a0" / "config.yaml"))
    assert dict(flattened(composed_values("train_hrl_mg", shlex.split(overrides)))) == dict(
        flattened({**wanted, "seed": 2})
    )


def test_commands_for_own_logs(tmp_path):
    own = {"data.reader": "events_table", "data.path": "/x/my log.csv", "data.user_column": "u"}
    make_session_run(tmp_path / "a", [1, 2], own, name="=mine|", synthetic=False)
    (run,) = hrl_mg_runs([str(tmp_path)]).runs
    (command,) = SYSTEM.rerun_commands([Rerun("ddpg", run, [], ["seed=0"])])
    assert command.startswith("python -m hrlmg_jax.train data=events_csv agent=ddpg 'data.name=\"=mine|\"' ")
    assert "'data.path=\"/x/my log.csv\"' data.user_column=u " in command


def test_only_unfinished_runs_make_a_list_of_what_to_do(tmp_path):
    make_session_run(tmp_path / "a")
    text = figure8(tmp_path)
    assert "no checkpoint yet; continue with: python -m hrlmg_jax.train resume=" in text
    asked = [name for names in re.findall(r" agent=(\S+)", text) for name in names.split(",")]
    assert sorted(asked) == sorted(sweep_of("figure8")["agent"])
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == []
    assert csv_rows(tmp_path, "figure8") == []


def alpha_of(folder, make=report_alpha, name="alpha", agent="hrl_mg", **more):
    return report(make, folder, SensitivityConfig, name, agent=agent, **more)


def test_alpha_is_chosen_by_held_out_users_and_compared_in_the_test(tmp_path):
    rng = np.random.default_rng(0)
    played = {}
    for weight, mean in ((0, 10), (0.5, 14), (1.0, 12)):
        played[weight] = rng.normal(mean, 1.0, (3, 10))
        for seed, rewards in enumerate(played[weight]):
            settings = agent("hrl_mg", seed=seed, **{"agent.goals.intrinsic_weight": weight})
            rows = rows_of([2 + weight - seed / 10, 1])  # held-out users like 1 best, test users 0.5
            make_session_run(tmp_path / f"{weight}_{seed}", list(rewards), settings, rows, truth=list(20 - rewards))
    make_session_run(tmp_path / "more", [99] * 10, agent("hrl_mg", **{"agent.goals.count": 3}))
    zero = {"seed": 3, "agent.goals.intrinsic_weight": 0.0}
    make_session_run(tmp_path / "zero", [8] * 10, agent("hrl_mg_alpha0", **zero), rows_of([2]), truth=[21] * 10)
    make_session_run(tmp_path / "hrl", [99] * 10, agent("hrl"))
    make_session_run(tmp_path / "ddpg", [99] * 10, agent("ddpg"))
    text = alpha_of(tmp_path)
    assert text.startswith("# Figures 9 and 11, weight of the intrinsic reward (alpha): synthetic_funnel (SYNTHETIC)\n")
    learned, truth = (
        table_rows(text, f"## Users: {users}") for users in ("learned from the log", "the generator's truth")
    )
    assert [row[0] for row in learned] == ["0", "0.5", "1"]
    assert [row[1] for row in learned] == ["19.250", "24.000", "29.000 \\*"]
    assert [row[1] for row in truth] == [row[1] for row in learned]
    assert not any("\\*" in cell for row in learned + truth for cell in row[2:])
    assert "`*`: held-out users choose alpha = 1, whose row is the result." in text
    assert [row[8] for row in learned] == ["4", "3", "3"]
    means = {weight: rewards.mean(1) for weight, rewards in played.items()}
    p_value = scipy.stats.ttest_ind(means[0.5], means[1.0], equal_var=False).pvalue
    above = means[0.5].mean() - means[1.0].mean()
    assert f"* reward, long sessions: highest at 0.5, +{above:.3f} above 1, p = {p_value:.2g} (3 and 3 seeds)\n" in text
    assert "The paper's best is 0.5." in text
    assert f"* {tmp_path / 'more'}: differs from most runs: agent.goals.count=3" in text
    commands = [line for line in text.splitlines() if line.startswith("python")]
    seeds = {0: "4", 0.1: "0,1,2,3,4", 0.25: "0,1,2,3,4", 0.5: "3,4", 0.75: "0,1,2,3,4", 1.0: "3,4"}
    end = "data=synthetic_funnel agent=hrl_mg agent.goals.intrinsic_weight"
    assert [command.removeprefix("python -m hrlmg_jax.train ").removeprefix("-m ") for command in commands] == [
        f"{end}={weight} seed={absent}" for weight, absent in seeds.items()
    ]
    rows = [row for row in csv_rows(tmp_path, "alpha") if row["metric"] == "long_reward"]
    assert [(row["users"], row["agent.goals.intrinsic_weight"]) for row in rows] == [
        *(("the generator's truth", weight) for weight in ("0.0", "1.0", "0.5")),
        *(("learned from the log", weight) for weight in ("0.5", "1.0", "0.0")),
    ]
    for name in ("alpha_long", "alpha_short", "alpha_truth_long", "alpha_truth_short"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(PNG)


def test_hrl_is_hrl_mg_with_one_goal(tmp_path):
    for seed in (0, 1):
        make_session_run(tmp_path / f"one{seed}", [1 + seed, 2], agent("hrl", seed=seed))
        make_session_run(tmp_path / f"two{seed}", [3 + seed, 4], agent("hrl_mg", seed=seed))
    make_session_run(tmp_path / "weight", [9, 9], agent("hrl_mg", **{"agent.goals.intrinsic_weight": 0}))
    text = alpha_of(tmp_path, report_goals, "goals")
    rows = table_rows(text, "## Users: learned from the log")
    # Seeds have means 1.5 and 2, and 3.5 and 4: standard error 0.25, t(0.975, 1) = 12.706205.
    assert [row[:3] for row in rows] == [["1", "", "1.750 ± 3.177"], ["2", "", "3.750 ± 3.177"]]
    assert "Held-out users choose none: not every run has validations." in text
    assert "weight: differs from most runs: agent.goals.intrinsic_weight=0" in text
    commands = [line for line in text.splitlines() if line.startswith("python")]
    counts = [(1, "2,3,4"), (2, "2,3,4"), *((count, "0,1,2,3,4") for count in (3, 4, 5))]
    start = "python -m hrlmg_jax.train -m data=synthetic_funnel agent=hrl_mg"
    assert commands == [f"{start} agent.goals.count={count} seed={seeds}" for count, seeds in counts]
    with pytest.raises(UserError, match=r"no run has goals and agent\.name hrl_mg_paper or hrl_paper"):
        alpha_of(tmp_path, report_goals, "goals", "hrl_mg_paper")


def test_the_remainder_of_a_window_is_named_beside_the_number_of_goals(tmp_path):
    for count in (2, 3, 4, 5):
        own = agent("hrl_mg", **{"agent.goals.count": count, "agent.goals.period": 10})
        make_session_run(tmp_path / str(count), [count, 2], own)
    text = alpha_of(tmp_path, report_goals, "goals")
    named = [line for line in text.splitlines() if line.startswith("* M = ")]
    assert named == [
        f"* M = {count}: stages of {lengths} steps; the last goal has what floor(10 / {count}) leaves"
        for count, lengths in ((3, "3, 3, 4"), (4, "2, 2, 2, 4"))
    ]


def figure6(folder, agents=("hrl", "hrl_mg"), variants=False, **more):
    chosen = None if agents is None else list(agents)
    return report(report_figure6, folder, Figure6Config, "figure6", agents=chosen, variants=variants, **more)


def test_training_curves_end_at_the_last_common_step(tmp_path):
    make_session_run(tmp_path / "a0", [1, 2], agent("hrl", seed=0), rows_of([1, 2, 3]), checkpoint=30)
    make_session_run(tmp_path / "a1", None, agent("hrl", seed=1), rows_of([2, 4]), checkpoint=20)
    for seed, values in enumerate(([5, 6, 7, 8], [6, 8, 9, 9])):
        make_session_run(tmp_path / f"b{seed}", [1, 2], agent("hrl_mg", seed=seed), rows_of(values), checkpoint=40)
    other = agent("hrl_mg", **{"agent.goals.intrinsic_weight": 0})
    make_session_run(tmp_path / "c", [1, 2], other, rows_of([9, 9, 9, 9]), checkpoint=40)
    make_session_run(tmp_path / "d", [1, 2], agent("ddpg"), rows_of([1, 1, 1, 1]), checkpoint=40)
    text = figure6(tmp_path)
    # At step 20, HRL 2 and 4, HRL-MG 6 and 8: standard errors 1, t(0.975, 1) = 12.706205.
    p_value = scipy.stats.ttest_ind([60, 80], [20, 40], equal_var=False).pvalue
    assert table_rows(text, "## After 20 training steps: reward, held-out users") == [
        ["HRL-MG", "70.000 ± 127.062", "2", "+40.000", f"p = {p_value:.2g} (2 and 2 seeds)", ""],
        ["HRL", "30.000 ± 127.062", "2", "", "", ""],
    ]
    training = table_rows(text, "## After 20 training steps: reward, training sessions")
    assert [row[1] for row in training] == ["7.000 ± 12.706", "3.000 ± 12.706"]
    assert "* HRL-MG with agent.goals.intrinsic_weight=0: a variant; variants=true draws it" in text
    assert f"{tmp_path / 'a1'} (HRL, alpha 0.5, M 1, seed 1): interrupted; continue with:" in text
    rows = csv_rows(tmp_path, "figure6")
    (last,) = [row for row in rows if (row["runs"], row["metric"], row["step"]) == ("HRL", "low_q", "30")]
    assert (last["mean"], last["seeds"], last["synthetic"]) == ("1.5", "1", "True")
    assert not [row for row in rows if row["metric"] == "high_q"]
    assert (tmp_path / "out" / "figure6.png").read_bytes().startswith(PNG)
    everything = figure6(tmp_path, None, True)
    shown = [row[0] for row in table_rows(everything, "## After 20 training steps: reward, held-out users")]
    assert shown == ["HRL-MG with agent.goals.intrinsic_weight=0", "HRL-MG", "HRL", "DDPG"]
    with pytest.raises(UserError, match=r"no run of dnn has metrics yet\n.*agents=null"):
        figure6(tmp_path, ["dnn"])


def test_names_of_data_sets_stay_text(tmp_path):
    name = "=cmd()|x|$\\frac$\n# head"
    kinds = {"synthetic_skips": True, "order_proxy": "is_like"}
    make_session_run(tmp_path / "runs", [1, 2], rows=rows_of([1, 2]), name=name, **kinds)
    shown = "=cmd()\\|x\\|$\\\\frac$ \\# head (SYNTHETIC, SAMPLED SKIPS, ORDERS ARE A PROXY: is_like)"
    assert figure8(tmp_path).startswith(f"# Figure 8, online test: {shown}\n")
    assert report(report_figure7, tmp_path, name="figure7").startswith(f"# Figure 7, offline test: {shown}\n")
    assert figure6(tmp_path).startswith(f"# Figure 6, training: {shown}\n")
    assert f": {shown}\n" in alpha_of(tmp_path).splitlines(keepends=True)[0]
    for file in ("figure6", "figure7", "figure8", "alpha"):
        rows = csv_rows(tmp_path, file)
        assert {row["data"] for row in rows} == {"'=cmd()|x|$\\frac$ # head"}
        found = {(row["synthetic"], row["synthetic_skips"], row["order_proxy"]) for row in rows}
        assert found == {("True", "True", "is_like")}


@pytest.mark.parametrize("experiment", ["figure6", "figure7", "figure8", "alpha", "goals"])
def test_every_run_of_an_experiment_is_one(experiment):
    swept = sweep_of("figure8" if experiment == "figure7" else experiment)
    assert swept.pop("seed") == [0, 1, 2, 3, 4]
    ((key, values),) = swept.items()
    for value in values:
        composed = composed_values("train_hrl_mg", [f"+experiment={experiment}", f"{key}={value}"])
        config = read_settings(RunConfig, composed)
        assert config.evaluation.sessions == 4096
        assert (config.agent.name == value) is (key == "agent")


def test_figure7_has_the_runs_of_figure8():
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose("train_hrl_mg", overrides=["+experiment=figure7"], return_hydra_config=True)
    swept = composed.hydra.sweeper.params
    assert {key: str(values).split(",") for key, values in swept.items()} == {
        key: [str(value) for value in values] for key, values in sweep_of("figure8").items()
    }


def two_seeds(folder):
    group = make_session_run(folder / "group", settings={"num_seeds": 2})
    for seed in (0, 1):
        make_session_run(group / f"seed_{seed}", [1 + seed, 2 + seed], {"seed": seed}, rows_of([1, 2]), checkpoint=20)
    make_run(folder / "tpgr", [1, 3])


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("figure6", ["figure6.png"]),
        ("figure7", ["figure7.png"]),
        ("alpha", ["alpha_long.png", "alpha_short.png"]),
        ("goals", ["goals_long.png", "goals_short.png"]),
    ],
)
def test_every_report_of_the_command(tmp_path, monkeypatch, capsys, name, pictures):
    monkeypatch.chdir(tmp_path)
    two_seeds(tmp_path / "outputs")
    composed = composed_values("report_hrl_mg", hydra_arguments(MODULE, REPORTS, [name]))
    make_report(MODULE, REPORTS, OmegaConf.create(composed))
    shown = capsys.readouterr().out
    assert shown.endswith(f"written to outputs/report: {', '.join([f'{name}.md', f'{name}.csv', *pictures])}\n")
    assert (tmp_path / "outputs" / "report" / f"{name}.md").read_text().strip() in shown
    assert "SYNTHETIC" in shown


def test_reports_through_the_command_line(run_command_line, tmp_path):
    two_seeds(tmp_path / "outputs")
    finished = run_command_line(MODULE, "figure8", "outputs/group", "out=x")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "| HRL-MG | 2.000 ± 6.353 |" in finished.stdout
    files = "figure8.md, figure8.csv, figure8_long.png, figure8_short.png"
    assert finished.stdout.endswith(f"written to x: {files}\n")
    assert {path.name for path in (tmp_path / "x").iterdir()} == set(files.split(", "))
    listed = run_command_line(MODULE, "runs")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.splitlines()[0].split()[:7] == ["folder", "method", "data", "alpha", "M", "seed", "status"]
    assert [line.split()[4:8] for line in listed.stdout.splitlines()[1:]] == [
        ["0.5", "2", str(seed), "finished"] for seed in (0, 1)
    ]
    assert "tpgr" not in listed.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["table2"], ["there is no report 'table2'", "hrlmg_jax.report figure6|figure7|figure8|alpha|goals|runs"]),
        (["figure8", "alpha=0.1"], ["alpha"]),
        (["figure7"], ["no runs below outputs or multirun", "+experiment=figure7"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_message_and_leave_nothing_behind(run_command_line, tmp_path, arguments, parts):
    assert_one_message(run_command_line(MODULE, *arguments), *parts)
    assert list(tmp_path.iterdir()) == []


def test_help_names_reports_and_keys(run_command_line):
    shown = run_command_line(MODULE, "goals", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "python -m hrlmg_jax.report figure6" in shown.stdout
    assert "agent: hrl_mg" in shown.stdout


def make_world(folder, world, methods, seeds=(0,), **more):
    """Runs of methods (rewards by name, each seed 1 above the last) in a generated world."""
    for name, rewards in methods.items():
        for seed in seeds:
            own = agent(name, seed=seed, **{"data.seed": world})
            values = [value + seed for value in rewards]
            make_session_run(folder / f"{name}-{world}-{seed}", values, own, checksum=f"sha256:{world}", **more)


@pytest.fixture
def worlds(tmp_path):
    """Three worlds of two sessions: DDPG is 4, 3 and 9 above HRL, which has two seeds in world 7."""
    make_world(tmp_path, 3, {"ddpg": [10, 14], "hrl": [7, 9]}, baselines={"popularity": [6, 6]})
    make_world(tmp_path, 5, {"ddpg": [5, 7], "hrl": [2, 4]}, baselines={"popularity": [8, 8]})
    make_world(tmp_path, 7, {"ddpg": [20, 20]}, baselines={"popularity": [10, 10]})
    make_world(tmp_path, 7, {"hrl": [10, 11]}, seeds=(0, 1), baselines={"popularity": [10, 10]})
    return tmp_path


def test_runs_of_several_worlds_are_refused_unless_worlds_are_the_units(worlds):
    with pytest.raises(
        UserError, match=r"3 generated worlds \(data.seed=3 in .*data.seed=5 in .*\n.*several_worlds=true"
    ):
        figure8(worlds)
    for make in (report_figure7, report_alpha, report_goals):
        kind, more = (WorldsConfig, {}) if make is report_figure7 else (SensitivityConfig, {"agent": "hrl"})
        with pytest.raises(UserError, match="several_worlds=true"):
            report(make, worlds, kind, "figure7", **more)
    with pytest.raises(UserError, match="several_worlds=true"):
        figure6(worlds)


def test_a_world_is_the_unit_of_intervals_and_tests(worlds):
    text = figure8(worlds, several_worlds=True)
    assert "3 worlds (data.seed=3, 5, 7)" in text
    # Means of the worlds: DDPG 12, 6, 20, HRL 8, 3, 11 (its two seeds have 10.5 and 11.5), popularity 6, 8, 10.
    means = {"DDPG": np.array([12, 6, 20.0]), "HRL": np.array([8, 3, 11.0]), "Popularity": np.array([6, 8, 10.0])}
    rows = table_rows(text, "## Long sessions (300 recommendations), users: learned from the log")
    for row, (label, below) in zip(rows, [("DDPG", "Popularity"), ("Popularity", "HRL"), ("HRL", None)], strict=True):
        low, high = scipy.stats.t.interval(0.95, 2, np.mean(means[label]), scipy.stats.sem(means[label]))
        assert row[:2] == [label, f"{np.mean(means[label]):.3f} ± {(high - low) / 2:.3f}"]
        assert row[4] == "3"
        if below:
            p_value = scipy.stats.ttest_rel(means[label], means[below]).pvalue
            assert row[6:] == [f"{np.mean(means[label] - means[below]):+.3f}", p_text(p_value)]
    ratios = table_rows(text, "### reward / popularity's, by world")
    assert ratios == [
        ["DDPG", "2.000", "0.750", "2.000", "0.750", "2 of 3"],
        ["HRL", "1.333", "0.375", "1.100", "0.375", "2 of 3"],
    ]
    (row,) = [row for row in csv_rows(worlds, "figure8") if (row["rank"], row["metric"]) == ("1", "long_reward")]
    assert (row["worlds"], row["seeds"], row["sessions"], row["low_over_sessions"]) == ("3 5 7", "0", "6", "")
    assert float(row["paired_p_over_worlds"]) == pytest.approx(
        scipy.stats.ttest_rel(means["DDPG"], means["Popularity"]).pvalue
    )
    assert row["checksum"] == "sha256:3 sha256:5 sha256:7"
    # DDPG, HRL and the others of the experiment, one seed in each world.
    commands = [line for line in text.splitlines() if line.startswith("python")]
    assert len(commands) == 3
    assert all("data.seed=" in line and " seed=0" in line and "agent=random," in line for line in commands)
    offline = report(report_figure7, worlds, name="figure7", several_worlds=True)
    assert "95 % interval over worlds" in offline


def test_methods_of_different_worlds_are_not_paired(worlds):
    make_world(worlds, 9, {"ddpg": [30, 30]})
    text = figure8(worlds, several_worlds=True)
    rows = table_rows(text, "## Long sessions (300 recommendations), users: learned from the log")
    assert [row[0] for row in rows] == ["DDPG", "HRL", "Popularity"]
    assert [row[4] for row in rows] == ["4", "3", "4"]  # popularity was tested beside all
    assert [row[7] for row in rows] == ["", "", ""]


def test_worlds_that_differ_in_more_than_their_seed_are_refused(worlds):
    own = agent("ddpg", **{"data.seed": 8, "data.shop": "blind"})
    make_session_run(worlds / "blind", [1, 2], own, checksum="sha256:8")
    with pytest.raises(UserError, match=r"data\.shop is blind in .* and seen in"):
        figure8(worlds, several_worlds=True)


def test_two_logs_of_one_world_are_refused(worlds):
    make_session_run(worlds / "older", [1, 2], agent("dnn", **{"data.seed": 7}), checksum="sha256:older")
    with pytest.raises(UserError, match="checksum"):
        figure8(worlds, several_worlds=True)


def test_a_real_log_is_no_world(tmp_path):
    make_session_run(tmp_path / "a", [1, 2], agent("ddpg", **{"data.reader": "kuairand"}), name="kuairand")
    with pytest.raises(UserError, match="several_worlds=true counts generated worlds, and kuairand is one log"):
        figure8(tmp_path, several_worlds=True)


def test_training_curves_and_sensitivity_over_worlds(tmp_path):
    for world, step in ((1, 0), (2, 4)):
        for name, values in (("hrl", [1, 2]), ("hrl_mg", [5, 6])):
            for seed in (0, 1):
                own = agent(name, seed=seed, **{"data.seed": world})
                rows = rows_of([value + step + seed for value in values])
                folder = tmp_path / f"{name}-{world}-{seed}"
                make_session_run(
                    folder, [values[1] + step + seed], own, rows, checksum=f"sha256:{world}", checkpoint=20
                )
    text = figure6(tmp_path, several_worlds=True)
    # Worlds have 2.5 and 6.5 (HRL), 6.5 and 10.5, times ten.
    rows = table_rows(text, "## After 20 training steps: reward, held-out users")
    assert [row[:3] for row in rows] == [["HRL-MG", "85.000 ± 254.124", "2"], ["HRL", "45.000 ± 254.124", "2"]]
    assert rows[0][4] == "+40.000"
    goals = alpha_of(tmp_path, report_goals, "goals", several_worlds=True)
    rows = table_rows(goals, "## Users: learned from the log")
    assert [[*row[:3], *row[-2:]] for row in rows] == [
        ["1", "45.000", "4.500 ± 25.412", "2", "2"],
        ["2", "85.000 \\*", "8.500 ± 25.412", "2", "2"],
    ]
    assert "(paired worlds)" in goals
    commands = [line for line in goals.splitlines() if line.startswith("python")]
    assert len(commands) == 6  # M = 3, 4 and 5 in two worlds
    assert all(line.endswith("seed=0") for line in commands)
