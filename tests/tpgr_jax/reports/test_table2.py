"""Table 2 from run folders made by hand."""

import csv
import os

import numpy as np
import pytest
import scipy.stats
from run_folders import make_run

from harness.errors import UserError
from harness.reports.method_results import EPISODES, SEEDS, SPLITS
from harness.reports.system_results import Rerun
from harness.runs.index import find_runs
from tpgr_jax.reports.curves import _references
from tpgr_jax.reports.results import METHODS, SYSTEM, comparable_runs, ratio
from tpgr_jax.reports.table2 import Table2Config, collect, missing_runs, report_table2, star

DDPG_KNN = {"agent.name": "ddpg_knn"}


def agent(name, **settings):
    return {"agent.name": name, **settings}


def found_in(folder):
    return find_runs([str(folder)], "eval.json").runs


def results_in(folder):
    return collect(found_in(folder)).results


def report(folder, data_name=None):
    report_table2(Table2Config("table2", [str(folder)], data_name, str(folder / "out")))
    return (folder / "out" / "table2.md").read_text()


def test_means_and_intervals_by_hand(tmp_path):
    make_run(tmp_path / "a", [1, 2, 3, 4], {"seed": 0})
    make_run(tmp_path / "b", [2, 3, 4, 9], {"seed": 1})
    (result,) = results_in(tmp_path)
    # Users have 1.5, 2.5, 3.5 and 6.5: s = 2.160247, standard error 1.080123, t(0.975, 3) = 3.182446.
    assert result.estimate("reward", EPISODES) == pytest.approx((3.5, 3.5 - 3.437434, 3.5 + 3.437434), abs=1e-5)
    # Seeds have means 2.5 and 4.5: standard error 1, t(0.975, 1) = 12.706205.
    assert result.estimate("reward", SEEDS) == pytest.approx((3.5, 3.5 - 12.706205, 3.5 + 12.706205), abs=1e-5)
    assert result.estimate("f1", SEEDS) == pytest.approx((0.0035, 0.0035 - 0.0127062, 0.0035 + 0.0127062), abs=1e-6)
    assert (result.label, result.seeds, ratio(result)) == ("TPGR", [0, 1], 1.75)


def test_a_column_of_intervals_has_one_unit(tmp_path):
    for seed in (0, 1, 2):
        make_run(tmp_path / f"list{seed}", [1, 2, 3, 4], agent("popularity", seed=seed))
        make_run(tmp_path / f"own{seed}", [1 + seed, 2, 3, 4], {"seed": seed})
    make_run(tmp_path / "one", [1, 2, 3, 4], agent("dqn_r", seed=5))
    text = report(tmp_path)
    assert "95 % t-intervals over what the head of the column names" in text
    head, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")
    ][:5]
    assert (head[1], head[-1]) == ("reward ± over users", "reward ± over seeds")
    shown = {row[0]: (row[1], row[6], row[7]) for row in rows}
    # One seed and equal seeds have nothing to say about seeds.
    assert shown["Popularity"] == ("2.5000 ± 2.0543", "3 (equal)", "")
    assert shown["DQN-R"] == ("2.5000 ± 2.0543", "1", "")
    # Users have 2, 2, 3, 4: s = 0.957427; seeds 2.5, 2.75, 3: standard error 0.144338, t(0.975, 2) = 4.302653.
    assert shown["TPGR"] == ("2.7500 ± 1.5235", "3", "2.7500 ± 0.6210")
    with (tmp_path / "out" / "table2.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert "interval_over" not in rows["TPGR"]
    assert float(rows["TPGR"]["reward_high_over_users"]) == pytest.approx(2.75 + 1.5235, abs=1e-4)
    assert float(rows["TPGR"]["reward_high_over_seeds"]) == pytest.approx(2.75 + 0.6210, abs=1e-4)
    assert rows["DQN-R"]["reward_high_over_seeds"] == rows["Popularity"]["reward_high_over_seeds"] == ""


def test_star_against_the_best_other_method_on_the_same_users(tmp_path):
    rng = np.random.default_rng(0)
    taste = rng.normal(0.0, 2.0, 50)  # users differ far more than methods do
    own = [taste + rng.normal(0.5, 0.3, 50), taste + rng.normal(0.5, 0.3, 50)]
    better, worse = taste + rng.normal(0.0, 0.3, 50), taste + rng.normal(-1.0, 0.3, 50)
    for seed, rewards in enumerate(own):
        make_run(tmp_path / f"own{seed}", list(rewards), {"seed": seed})
    make_run(tmp_path / "better", list(better), agent("dqn_r"))
    make_run(tmp_path / "worse", list(worse), agent("linear_ucb"))
    make_run(tmp_path / "elsewhere", list(own[0] + 9), agent("dqn_r", **{"env.alpha": 0.2}))
    results = results_in(tmp_path)
    (tpgr,) = [result for result in results if result.name == "tpgr"]
    wanted = scipy.stats.ttest_rel(np.mean(own, axis=0), better).pvalue
    found = star(tpgr, results, "reward")
    assert found.baseline == "DQN-R"
    assert found.p_value == pytest.approx(wanted, rel=1e-9)
    assert found.significant
    assert scipy.stats.ttest_ind(np.concatenate(own), better, equal_var=False).pvalue > 1e-6
    assert all(star(result, results, "reward") is None for result in results if result.name != "tpgr")
    assert star(tpgr, [tpgr], "reward") is None
    # Pooled and by seed.
    (row,) = [line for line in report(tmp_path).splitlines() if line.startswith("| TPGR - DQN-R | +0.")]
    of_seeds = [scipy.stats.ttest_rel(rewards, better).pvalue for rewards in own]
    assert row.strip("| ").split(" | ")[2:] == [f"p = {p_value:.2g}" for p_value in (wanted, *of_seeds)]


def test_the_method_beyond_the_paper_is_compared_too_but_is_nobodys_baseline(tmp_path):
    rng = np.random.default_rng(0)
    rewards = {"tpgr": 2.0, "tpgr_plus": 4.0, "gaussian_posterior": 3.0}
    for name, mean in rewards.items():
        make_run(tmp_path / name, list(rng.normal(mean, 0.5, 100)), agent(name))
    results = results_in(tmp_path)
    compared = {result.label: star(result, results, "reward") for result in results}
    assert compared["TPGR+"].baseline == compared["TPGR"].baseline == "GaussianPosterior"
    assert compared["TPGR+"].significant
    assert not compared["TPGR"].significant
    text = report(tmp_path)
    assert "| TPGR+ - TPGR | +" in text


@pytest.mark.parametrize(("shift", "starred"), [(1.0, True), (0.0, False), (-1.0, False)])
def test_no_star_for_a_worse_or_equal_method(tmp_path, shift, starred):
    noise = np.random.default_rng(1).normal(0, 0.1, 100)
    make_run(tmp_path / "own", list(shift + noise))
    make_run(tmp_path / "other", list(noise), agent("gaussian_posterior"))
    text = report(tmp_path)
    row = next(line for line in text.splitlines() if line.startswith("| TPGR"))
    assert (row.count(r" \* |") == 4) is starred
    assert (row.count(r"\*") == 0) is not starred


def test_methods_are_told_apart(tmp_path):
    cases = {
        "Popularity": agent("popularity", **{"agent.policy.by": "average"}),
        "Popularity (count)": agent("popularity", **{"agent.policy.by": "count"}),
        "DDPG-KNN (k = 1)": DDPG_KNN | {"agent.policy.k": 1, "agent.policy.k_fraction": None},
        "DDPG-KNN (k = 0.1N)": DDPG_KNN | {"agent.policy.k": None, "agent.policy.k_fraction": 0.1},
        "DDPG-KNN (k = N)": DDPG_KNN | {"agent.policy.k": None, "agent.policy.k_fraction": 1.0},
        "HLinearUCB": agent("hlinear_ucb"),
        "TPGR": {},
        "mine": agent("mine"),
    }
    for number, settings in enumerate(cases.values()):
        make_run(tmp_path / str(number), [1, 2], settings)
    assert [SYSTEM.label(run) for run in found_in(tmp_path)] == list(cases)
    order = [result.label for result in results_in(tmp_path)]
    assert order == [
        *("Popularity", "HLinearUCB", "DDPG-KNN (k = 1)", "DDPG-KNN (k = 0.1N)", "DDPG-KNN (k = N)", "TPGR"),
        *("Popularity (count)", "mine"),
    ]


def test_runs_that_differ_in_more_than_their_seed_are_not_averaged(tmp_path):
    make_run(tmp_path / "a", [1, 2], {"seed": 0})
    make_run(tmp_path / "b", [3, 4], {"seed": 1, "tree.seed": 1, "train.log_every": 50})
    make_run(tmp_path / "c", [9, 9], {"seed": 2, "train.steps": 20, "tree.clustering": "kmeans"})
    make_run(tmp_path / "d", [1, 1], agent("dqn_r", **{"tree.clustering": "kmeans"}))  # has no tree
    make_run(tmp_path / "e", [1, 3], agent("dqn_r", seed=1))
    results = {result.label: result for result in results_in(tmp_path)}
    assert {label: result.seeds for label, result in results.items()} == {
        "DQN-R": [0, 1],
        "TPGR": [0, 1],
        "TPGR with train.steps=20, tree.clustering=kmeans": [2],
    }


def test_a_repeated_seed_counts_once_and_is_named(tmp_path):
    for number in range(3):
        make_run(tmp_path / f"run{number}", [number, number + 1])
        os.utime(tmp_path / f"run{number}" / "eval.json", (number, number))
    collected = collect(found_in(tmp_path))
    assert collected.left_out == [f"{tmp_path / f'run{number}'}: an older repetition of seed 0" for number in (0, 1)]
    assert collected.results[0].mean("reward") == 2.5
    assert f"* {tmp_path / 'run0'}" in report(tmp_path)


def test_missing_runs_are_those_of_the_alphas_data_and_settings_at_hand(tmp_path):
    make_run(tmp_path / "a", [1, 2], {"env.alpha": 0, "train.steps": 20, "env.episode_length": 8})
    make_run(tmp_path / "b", [1, 2], agent("ddpg_r", **{"env.alpha": 0.2, "env.episode_length": 8, "seed": 1}))
    settings = agent("dqn_r", **{"env.alpha": 0, "env.episode_length": 8})
    make_run(tmp_path / "c", None, settings, checkpoint=4)  # unfinished: it only has to be continued
    commands = SYSTEM.rerun_commands(missing_runs(found_in(tmp_path)))
    start = "python -m tpgr_jax.train -m +experiment=movielens"
    of_dqn_r = "agent.learner.learning_rate=0.01"
    others = ",".join(name for name in METHODS if name not in ("tpgr", "ddpg_r", "dqn_r"))
    assert commands == [
        f"{start} agent={others} env.episode_length=8 env.alpha=0,0.2 seed=0,1",
        f"{start} agent=ddpg_r env.episode_length=8 train.episodes_per_step=1024 env.alpha=0 seed=0,1",
        f"{start} agent=dqn_r env.episode_length=8 {of_dqn_r} train.episodes_per_step=1024 env.alpha=0.2 seed=0,1",
        f"{start} agent=tpgr env.episode_length=8 train.steps=20 env.alpha=0.2 seed=0,1",
    ]
    text = report(tmp_path)
    assert all(command in text for command in commands)
    assert f"{tmp_path / 'c'} (DQN-R, alpha 0, seed 0): interrupted; continue with: python -m tpgr_jax.train" in text


def test_commands_for_other_data(tmp_path):
    def command(run, agent="popularity"):
        (line,) = SYSTEM.rerun_commands([Rerun(agent, run, [], ["env.alpha=0.2", "seed=0"])])
        return line

    generated = {"data.reader": "synthetic", "data.size": "tiny", "data.rating_min": None, "data.rating_max": None}
    make_run(tmp_path / "a", [1, 2], generated, name="synthetic_tiny", synthetic=True)
    own = {"data.reader": "table", "data.path": "/x/my ratings.csv", "data.user_column": "u", "data.files": []}
    make_run(tmp_path / "b", [1, 2], own, name="=mine|")
    make_run(tmp_path / "c", [1, 2], name="movielens_10m")
    a, b, c = found_in(tmp_path)
    start = "python -m tpgr_jax.train"
    assert command(None, "dqn_r") == f"{start} +experiment=movielens agent=dqn_r env.alpha=0.2 seed=0"
    assert command(a).startswith(f"{start} data=synthetic agent=popularity data.name=synthetic_tiny ")
    assert command(a).endswith("data.size=tiny env.alpha=0.2 seed=0")
    assert "url" not in command(a)
    assert command(b).startswith(f"{start} data=ratings_file agent=popularity 'data.name=\"=mine|\"' ")
    assert "'data.path=\"/x/my ratings.csv\"'" in command(b)
    assert " data.user_column=u " in command(b)
    assert command(c).startswith(f"{start} +experiment=movielens data=movielens_10m agent=popularity ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.split_seed", 1),
        ("data.test_fraction", 0.5),
        ("data.relevant_above", 4.0),
        ("env.episode_length", 8),
        ("env.reward_scale", "symmetric"),
        ("env.cold_start", "random"),
        ("env.allow_repeats", True),
    ],
)
def test_runs_about_different_things_are_not_mixed(tmp_path, key, value):
    make_run(tmp_path / "a", [1, 2])
    make_run(tmp_path / "b", None, {key: value})  # unfinished ones, too, would be named in one table
    with pytest.raises(UserError, match=f"{key} is .* in .*a and {value} in .*b"):
        report(tmp_path)


def test_data_sets_are_chosen_by_name(tmp_path):
    make_run(tmp_path / "a", [1, 2])
    make_run(tmp_path / "b", [5, 6], name="other", checksum="sha256:bb")
    with pytest.raises(UserError, match="checksum"):
        report(tmp_path)
    config = Table2Config("table2", [str(tmp_path)], "other", str(tmp_path / "out"))
    assert [run.folder.path.name for run in comparable_runs(config).runs] == ["b"]
    assert "# Table 2: other\n" in report(tmp_path, "other")
    with pytest.raises(UserError, match=r"no runs on third below .*\n.*experiment=table2"):
        report(tmp_path, "third")


def test_evaluations_of_other_users_are_refused(tmp_path):
    make_run(tmp_path / "a", [1, 2])
    make_run(tmp_path / "b", [1, 2, 3], {"seed": 1})
    with pytest.raises(UserError, match=r"b/eval\.npz: has other test users than .*a"):
        results_in(tmp_path)


def test_folds_are_pooled_and_counted_once(tmp_path):
    fold = {"data.fold": 0}, {"data.fold": 1}
    make_run(tmp_path / "a", [1, 2, 3], fold[0], best_list=[2, 2, 2])
    make_run(tmp_path / "b", [4, 6], fold[1], best_list=[4, 4], first_user=3)
    make_run(tmp_path / "c", [5, 6], {**fold[1], "seed": 1}, best_list=[4, 4], first_user=3)
    make_run(tmp_path / "d", [0, 0, 0], agent("dqn_r", **fold[0]), first_user=0)
    make_run(tmp_path / "e", [0, 3], agent("dqn_r", **fold[1]), first_user=3)
    make_run(tmp_path / "f", [9, 9, 9], agent("ddpg_r", **fold[0]))  # the other fold is missing
    results = {result.name: result for result in results_in(tmp_path)}
    tpgr, dqn_r = results["tpgr"], results["dqn_r"]
    users = np.array([1, 2, 3, 4.5, 6])  # the fourth had two seeds
    np.testing.assert_array_equal(tpgr.values_of("reward", EPISODES), users)
    np.testing.assert_array_equal(tpgr.values_of("reward", SPLITS), [2, 5.25])
    assert ratio(tpgr) == pytest.approx(users.mean() / 2.8)
    assert tpgr.estimate("reward", SEEDS).low == tpgr.mean("reward")  # no two seeds played with the same users
    assert (tpgr.seeds_text, dqn_r.seeds_text) == ("1.5", "1")
    wanted = scipy.stats.ttest_rel(users, [0, 0, 0, 0, 3]).pvalue
    assert star(tpgr, [tpgr, dqn_r], "reward").p_value == pytest.approx(wanted)
    text = report(tmp_path)
    assert "| reward ± over folds |" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| TPGR - DQN-R | +")]
    of_folds = [scipy.stats.ttest_rel(*pair).pvalue for pair in (([1, 2, 3], [0, 0, 0]), ([4.5, 6], [0, 3]))]
    over_folds = scipy.stats.ttest_rel([2, 5.25], [0, 1.5]).pvalue
    shown = [f"p = {p_value:.2g}" for p_value in (wanted, over_folds, *of_folds)]
    assert row.strip("| ").split(" | ")[2:6] == shown
    assert "over users | over 2 folds | fold 0, over users | fold 1, over users" in text
    assert "not whether training again would lead to the same" in text
    assert "split seed 0, folds 0, 1 of 5: 5 test users" in text
    assert "was tested on other folds than" in text


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"data.split_seed": 1}, r"data\.split_seed is 0 in .*\n.*overlap.*data\.fold=0 to 4"),
        ({"data.fold": 0}, r"b/eval\.npz: shares 2 test users with .*a, so their results are not independent"),
    ],
)
def test_overlapping_splits_are_refused(tmp_path, settings, problem):
    make_run(tmp_path / "a", [1, 2, 3])
    make_run(tmp_path / "b", [4, 5, 6], settings, first_user=1)
    with pytest.raises(UserError, match=problem):
        report(tmp_path)


def test_an_alpha_of_fewer_folds_says_so(tmp_path):
    for fold in (0, 1, 2):
        for alpha in (0.1, 0.2) if fold else (0.1,):
            settings = {"data.fold": fold, "env.alpha": alpha}
            own, others = ([1, 2], [4, 7], [5, 6])[fold], ([0, 0], [2, 3], [1, 4])[fold]
            make_run(tmp_path / f"own{fold}{alpha}", own, settings, first_user=2 * fold)
            make_run(tmp_path / f"other{fold}{alpha}", others, agent("dqn_r", **settings), first_user=2 * fold)
    all_folds, two_folds = report(tmp_path).split("## alpha = 0.2")
    assert "folds 0, 1, 2 of 5: 6 test users" in all_folds
    assert "over users | over 3 folds | fold 0, over users | fold 1, over users | fold 2, over users |" in all_folds
    assert "Here folds 1, 2 of 5: 4 test users." in two_folds
    assert "over users | over 2 folds | fold 1, over users | fold 2, over users |" in two_folds
    pairs = ([4, 7, 5, 6], [2, 3, 1, 4]), ([4, 7], [2, 3]), ([5, 6], [1, 4])
    shown = [f"p = {scipy.stats.ttest_rel(*pair).pvalue:.2g}" for pair in pairs]
    row = next(line for line in two_folds.splitlines() if line.startswith("| TPGR - DQN-R"))
    cells = [cell.strip() for cell in row.split("|")[3:-1]]
    assert [cells[0], *cells[2:]] == shown


def test_runs_of_before_there_were_folds_still_count(tmp_path):
    make_run(tmp_path / "a", [1, 2])
    make_run(tmp_path / "b", [3, 4], {"seed": 1})
    older = tmp_path / "a" / "config.yaml"
    lines = older.read_text().splitlines(keepends=True)
    older.write_text("".join(line for line in lines if not line.startswith(("  fold:", "  folds:"))))
    assert len(older.read_text().splitlines()) == len(lines) - 2
    assert "| TPGR | 2.5000" in report(tmp_path)


def test_users_are_matched_by_their_ids(tmp_path):
    make_run(tmp_path / "a", [1, 2, 4])
    make_run(tmp_path / "b", [1, 3, 2], agent("dqn_r"))
    path = tmp_path / "b" / "eval.npz"
    with np.load(path) as stored:
        np.savez(path, **{key: values[::-1] for key, values in stored.items()})
    results = results_in(tmp_path)
    np.testing.assert_array_equal(results[0].values_of("reward", EPISODES), [1, 3, 2])
    assert star(results[1], results, "reward").p_value == pytest.approx(
        scipy.stats.ttest_rel([1, 2, 4], [1, 3, 2]).pvalue
    )


def test_names_of_data_sets_stay_text(tmp_path):
    name = "=cmd()|x|$\\frac$\n# head"
    make_run(tmp_path / "runs", [1, 2], name=name, synthetic=True)
    text = report(tmp_path)
    assert text.startswith("# Table 2: =cmd()\\|x\\|$\\\\frac$ \\# head (SYNTHETIC)\n")
    assert {line.count("|") for line in text.splitlines() if line.startswith("| ")} == {8, 4}
    assert (tmp_path / "out" / "table2.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "out" / "table2.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["data"] == "'=cmd()|x|$\\frac$ # head"
    assert row["synthetic"] == "True"
    assert (float(row["reward"]), float(row["ratio_to_best_list"])) == (1.5, 0.75)


def test_the_table_of_unfinished_runs_is_a_list_of_what_to_do(tmp_path):
    make_run(tmp_path / "a")
    text = report(tmp_path)
    assert "no checkpoint yet; continue with: python -m tpgr_jax.train resume=" in text
    (missing,) = [line for line in text.splitlines() if "agent=" in line]
    assert f" agent={','.join(name for name in METHODS if name != 'tpgr')} env.alpha=0.1 seed=0" in missing
    assert not (tmp_path / "out" / "table2.png").exists()


def test_curves_show_what_lists_get_at_each_alpha(tmp_path):
    for alpha, best in ((0.0, 2.0), (0.1, 3.0)):
        make_run(tmp_path / str(alpha), [1, 2], {"env.alpha": alpha}, best_list=[best, best])
    runs = found_in(tmp_path)
    shown = _references(runs)
    assert shown["best fixed list, alpha 0"] == 2.0
    assert shown["best fixed list, alpha 0.1"] == 3.0
    assert list(_references(runs[:1])) == ["best fixed list", "random"]
    assert _references([]) == {}


def test_no_star_for_a_method_that_is_below_in_a_fold(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 60))
    for fold, above in enumerate((3.0, -0.1)):
        settings = {"data.fold": fold}
        make_run(tmp_path / f"own{fold}", list(above + noise[fold]), settings, first_user=60 * fold)
        make_run(tmp_path / f"other{fold}", [0.0] * 60, agent("dqn_r", **settings), first_user=60 * fold)
    results = {result.name: result for result in results_in(tmp_path)}
    found = star(results["tpgr"], [*results.values()], "reward")
    assert found.p_value < 1e-6
    assert not found.significant
