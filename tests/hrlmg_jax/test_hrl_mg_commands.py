"""The commands of HRL-MG through their real command lines."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_lines import (
    assert_one_message,
    assert_same_metrics,
    killed_after_a_checkpoint,
    metrics_without_times,
    parameters,
    trained_run,
)
from impression_logs import kuairand_files, write_files
from quick_compilation import compiled

import hrlmg_jax
from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from sim.datasets.events import load_log
from sim.datasets.log_settings import LogConfig
from sim.evaluation.ranking_metrics import average_precision, ndcg
from sim.tables.events import EventLog

UNTRIED = "simulator.trial_sessions=0"
SMALL_SIMULATOR = [
    UNTRIED,
    "simulator=paper",
    "simulator.network.hidden_size=4",
    "simulator.network.state_size=4",
    "simulator.network.width=8",
    "simulator.batch_size=64",
    "simulator.train.steps=20",
    "simulator.train.log_every=10",
    "simulator.train.evaluate_every=10",
    "simulator.train.checkpoint_every=10",
    "simulator.root=simulators",
]
SMALL = [
    "data.size=tiny",
    "env.episode_length=12",
    "evaluation.long=12",
    "evaluation.short=6",
    "evaluation.sessions=24",
    "evaluation.validation_sessions=8",
    "evaluation.offline_sessions=16",
    *SMALL_SIMULATOR,
    "agent.network.hidden_size=4",
    "agent.network.state_size=4",
    "agent.network.critic_width=8",
    "agent.goals.period=5",
    "agent.learner.sessions=8",
    "agent.learner.batch_size=8",
    "agent.learner.high_batch_size=8",
    "agent.learner.warm_up_steps=2",
    "agent.learner.replay_capacity=64",
    "agent.learner.high_replay_capacity=16",
    "train.steps=6",
    "train.log_every=2",
    "train.evaluate_every=2",
    "train.checkpoint_every=2",
]
TRAIN, EVALUATE, FIT = "hrlmg_jax.train", "hrlmg_jax.evaluate", "hrlmg_jax.fit_simulator"
RESULTS = [f"{name}.{ending}" for name in ("online", "online_truth", "offline") for ending in ("json", "npz")]


@pytest.fixture(scope="module")
def log(tables) -> EventLog:
    """The generated log of most commands here, put into their cache: making it computes more than it compiles."""
    values = composed_values("train_hrl_mg", ["data.size=tiny", f"data.cache={tables}"])
    with compiled(optimised=True):
        return load_log(read_settings(LogConfig, values["data"], "data"))


@pytest.fixture(scope="module")
def finished_run(command_environment, log, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A run and the folder it was started in, which also holds the simulator."""
    tried = [word for word in SMALL if word != UNTRIED]
    return trained_run(tmp_path_factory.mktemp("finished"), command_environment, TRAIN, *tried)


@pytest.fixture
def simulators(finished_run, tmp_path) -> Path:
    """The folder of the test, with the simulator of the finished run in it."""
    shutil.copytree(finished_run[0].parent / "simulators", tmp_path / "simulators")
    return tmp_path


def test_train_leaves_everything_in_the_run_folder(finished_run):
    folder, finished = finished_run
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events.")}
    expected = {"checkpoints", "config.yaml", "ids.npz", "learning_curve.png", "metrics.jsonl", "run.json"}
    assert names == expected | {"simulator.json", "simulator.npz", *RESULTS}
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    for name in ("hrl_mg", "random", "popularity", "best_rate"):
        # Online and with true users, the lists of both, offline, off-policy.
        assert finished.stdout.count(f"\n{name} ") == 6
    assert "fitting the user-feedback simulator" in finished.stderr
    assert "Warning" not in finished.stderr
    rows = metrics_without_times(folder)
    assert [row["step"] for row in rows] == [2, 4, 6]
    shown = {"reward", "clicks", "orders", "distinct_items", "intrinsic_reward", "validation_reward"}
    levels = {
        f"{level}_{name}" for level in ("low", "high") for name in ("q", "critic_loss", "actor_loss", "saturation")
    }
    assert shown | levels <= rows[-1].keys()


def test_everything_made_from_a_generated_log_says_so(finished_run):
    folder, finished = finished_run
    assert finished.stdout.count("SYNTHETIC") == 3
    for name in ("online.json", "offline.json", "run.json", "simulator.json"):
        assert json.loads((folder / name).read_text())["data"]["synthetic"] is True
    assert all(np.load(folder / f"{name}.npz")["synthetic"] for name in ("online", "offline"))
    assert all(row["synthetic"] for row in metrics_without_times(folder))


def test_a_run_recommends_what_it_was_tested_with(finished_run, tables, monkeypatch):
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tables))
    folder, _ = finished_run
    recommender = hrlmg_jax.load(folder)
    online = np.load(folder / "online.npz", allow_pickle=False)
    system: Any = recommender.system
    before = [system.history_before(row) for row in online["row"]]
    sessions: list[list[Any]] = [[] for _ in before]
    for items, answers in zip(online["items"].T, online["feedback"].T, strict=True):
        lists = recommender.recommend(before, 1, exclude_seen=False, sessions=sessions)
        np.testing.assert_array_equal(lists.ids[:, 0], items)
        for session, item, answer in zip(sessions, items, answers, strict=True):
            session.append((item, answer))

    # A user of the log, and a new one with the same history.
    log, user = system.problem.data.log, system.problem.data.log.user[0]
    rows = np.flatnonzero(log.user == user)
    rows = rows[np.argsort(log.shown_at[rows], kind="stable")]
    pairs = list(zip(log.item_ids[log.item[rows]], log.feedback[rows], strict=True))
    known = recommender.recommend([log.user_ids[user]], 5)
    assert not set(known.ids[0]) & {item for item, _ in pairs}
    assert np.all(np.diff(known.scores) <= 0)
    if np.all((log.clicked_at[rows] == -1) | (log.clicked_at[rows] == log.shown_at[rows])):
        np.testing.assert_array_equal(known.ids, recommender.recommend([pairs], 5).ids)

    # A session goes on; what the learned user would answer is a plan's assumption.
    session = recommender.session(log.user_ids[user], exclude_seen=False)
    first = session.next().ids[0, 0]
    assert recommender.recommend([log.user_ids[user]], 3, plan=True, exclude_seen=False).ids[0, 0] == first
    session.answer(first, "click")
    assert first not in session.next(20).ids
    with pytest.raises(UserError, match="skip, click or order"):
        session.answer(first, "five stars")


def test_the_command_recommends(finished_run, run_command_line):
    folder, _ = finished_run
    asked = run_command_line("hrlmg_jax.recommend", f"run={folder}", "user=3", "k=2")
    assert asked.returncode == 0, asked.stderr
    assert "cosine" in asked.stdout
    assert_one_message(run_command_line("hrlmg_jax.recommend", f"run={folder}", "user=nobody"), "unknown user: nobody")


def test_online_results_can_be_recomputed_from_the_run_folder_alone(finished_run):
    folder, _ = finished_run
    for name in ("online", "online_truth"):
        summary = json.loads((folder / f"{name}.json").read_text())
        arrays = np.load(folder / f"{name}.npz", allow_pickle=False)
        for prefix, policy in (("", "hrl_mg"), ("random_", "random"), ("popularity_", "popularity")):
            items, feedback = arrays[f"{prefix}items"], arrays[f"{prefix}feedback"]
            assert items.shape == feedback.shape == (24, 12)
            assert all(len(set(row)) == 12 for row in items.tolist())
            found = summary["policies"][policy]
            for length, steps in (("short", 6), ("long", 12)):
                reward = np.array([0, 1, 5])[feedback[:, :steps]].sum(1)
                np.testing.assert_array_equal(arrays[f"{prefix}{length}_reward"], reward)
                np.testing.assert_allclose(found[f"{length}_reward"], reward.mean())
                np.testing.assert_allclose(found[f"{length}_clicks"], (feedback[:, :steps] >= 1).sum(1).mean())
                np.testing.assert_allclose(found[f"{length}_orders"], (feedback[:, :steps] == 2).sum(1).mean())
                low, high = found[f"{length}_reward_ci95"]
                assert low <= found[f"{length}_reward"] <= high
            assert found["sessions"] == 24
        assert all((row == arrays["popularity_items"][0]).all() for row in arrays["popularity_items"])


def test_offline_results_are_those_of_the_logged_sessions(finished_run, log):
    folder, _ = finished_run
    summary = json.loads((folder / "offline.json").read_text())
    arrays = np.load(folder / "offline.npz", allow_pickle=False)
    rows = (column.tolist() for column in (log.user, log.item, log.time, log.feedback))
    logged = {}
    for user, item, time_shown, answer in zip(*rows, strict=True):
        logged.setdefault((user, time_shown // 86_400), {})[int(log.item_ids[item])] = int(answer)
    last_day = max(day for _, day in logged)
    for prefix, policy in (("", "hrl_mg"), ("random_", "random"), ("best_rate_", "best_rate")):
        items, feedback = arrays[f"{prefix}items"], arrays[f"{prefix}feedback"]
        for user, length, row, answers in zip(arrays["user"], arrays["length"], items, feedback, strict=True):
            assert len(set(row[:length].tolist())) == length
            shown = logged[int(user), last_day]
            assert all(int(item) in shown for item in row[:length])
            assert (answers[:length] >= 1).any()
            assert (answers[length:] == -1).all()
            assert (row[length:] == -1).all()
        np.testing.assert_allclose(summary["policies"][policy]["map"], average_precision(feedback >= 1).mean())
        gain = np.array([0.0, 1.0, 5.0, 0.0])[feedback]  # the last: padding
        np.testing.assert_allclose(summary["policies"][policy]["ndcg20"], ndcg(gain, 20).mean())
    estimated = summary["off_policy"]
    assert estimated["propensities"] == "logged"
    assert set(estimated["policies"]) == set(summary["policies"])
    assert estimated["longest"] == 6  # evaluation.short
    assert set(estimated["policies"]["hrl_mg"]["first"]) == {"1", "5"}
    sorted_rows = [sorted(zip(row, answers, strict=True)) for row, answers in zip(items, feedback, strict=True)]
    own = [sorted(zip(*pair, strict=True)) for pair in zip(arrays["items"], arrays["feedback"], strict=True)]
    assert own == sorted_rows  # every policy ranks the same items with the same answers


@pytest.mark.long
def test_evaluate_repeats_the_numbers_exactly(finished_run, run_command_line, tmp_path):
    folder, _ = finished_run
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)  # without the folder of simulators: the run holds its own
    before = {name: (copy / name).read_bytes() for name in RESULTS}
    for name in RESULTS:
        (copy / name).unlink()
    finished = run_command_line(EVALUATE, f"run={copy}")
    assert finished.returncode == 0, finished.stderr
    assert {name: (copy / name).read_bytes() for name in RESULTS} == before
    last = run_command_line(EVALUATE, f"run={copy}", "checkpoint=4", "actors=last")
    assert last.returncode == 0, last.stderr
    assert json.loads((copy / "online_step_4_last.json").read_text())["step"] == 4
    assert {name: (copy / name).read_bytes() for name in RESULTS} == before


def test_the_best_actors_are_those_of_the_best_validation(finished_run):
    folder, _ = finished_run
    rows = metrics_without_times(folder)
    best = max(rows, key=lambda row: (row["validation_reward"], -row["step"]))
    result = json.loads((folder / "online.json").read_text())
    assert (result["step"], result["newest_checkpoint"]) == (best["step"], 6)


def test_a_run_says_what_tells_of_mistakes_of_the_learned_users(finished_run, run_command_line, tmp_path):
    folder, _ = finished_run
    result = json.loads((folder / "online.json").read_text())
    (of,) = result["signals"].values()
    assert list(result["signals"]) == ["hrl_mg"]
    assert of["live_over_unmoved"] > 0
    assert "signals" not in json.loads((folder / "online_truth.json").read_text())
    # Over a threshold, and in a report.
    copy = tmp_path / "runs" / "copy"
    shutil.copytree(folder, copy)
    of["live_over_unmoved"] = 9.0
    (copy / "online.json").write_text(json.dumps(result))
    fit = json.loads((folder / "simulator.json").read_text())
    assert list(fit["signals"]) == ["random", "popularity", "best_rate", "last_click", "rate_and_clicks"]
    assert all(signals["live_over_unmoved"] > 0 for signals in fit["signals"].values())
    fit["signals"]["last_click"]["live_over_unmoved"] = 8.0
    (copy / "simulator.json").write_text(json.dumps(fit))
    drawn = run_command_line("hrlmg_jax.report", "figure8", str(copy.parent), "out=x")
    assert "copy: hrl_mg may live on the mistakes of the learned users: they pay 9.0 times" in drawn.stdout
    assert "learned users (runs: 1): the fixed policy last_click may live on the mistakes" in drawn.stdout


def test_reports_take_a_run_and_leave_its_simulator_out(finished_run, run_command_line):
    folder, _ = finished_run
    listed = run_command_line("hrlmg_jax.report", "runs", str(folder.parent))
    assert listed.returncode == 0, listed.stderr
    (line,) = listed.stdout.splitlines()[1:]
    assert line.split()[1:9] == ["HRL-MG", "synthetic_funnel", "(SYNTHETIC)", "0.5", "2", "0", "finished", "6/6"]
    drawn = run_command_line("hrlmg_jax.report", "figure8", str(folder.parent), "out=x")
    assert drawn.returncode == 0, drawn.stderr
    shown = json.loads((folder / "online_truth.json").read_text())["policies"]
    _, truth = drawn.stdout.split("## Short sessions (6 recommendations), users: the generator's truth\n")
    for label, name in (("HRL-MG", "hrl_mg"), ("Best rate", "best_rate"), ("Random", "random")):
        assert f"| {label} | {shown[name]['short_reward']:.3f} " in truth


@pytest.mark.long
def test_killed_run_resumes_to_the_same_end(finished_run, command_environment, run_command_line, simulators):
    killed = simulators / "killed"
    arguments = (*SMALL, "hydra.run.dir=killed")
    killed_after_a_checkpoint(simulators, command_environment, killed, signal.SIGKILL, TRAIN, *arguments)
    assert not (killed / "offline.json").exists()
    finished = run_command_line(TRAIN, "resume=killed")
    assert finished.returncode == 0, finished.stderr
    assert "resuming after step" in finished.stderr
    assert "fitting" not in finished.stderr
    whole = finished_run[0]
    assert metrics_without_times(killed) == metrics_without_times(whole)
    for one, other in zip(parameters(killed, 6), parameters(whole, 6), strict=True):
        np.testing.assert_array_equal(one, other)
    assert {name: (killed / name).read_bytes() for name in RESULTS} == {
        name: (whole / name).read_bytes() for name in RESULTS
    }


POLICIES = Path(__file__).resolve().parents[1] / "python_policies.py"
UNTRAINED = [argument for argument in SMALL if not argument.startswith("agent.")]


def results(folder: Path, name: str) -> tuple[dict, dict]:
    arrays = np.load(folder / f"{name}.npz", allow_pickle=False)
    return json.loads((folder / f"{name}.json").read_text()), {key: arrays[key] for key in arrays.files}


@pytest.mark.parametrize(
    ("overrides", "name", "files"),
    [
        pytest.param(["agent=random"], "random", 3, marks=pytest.mark.long),
        pytest.param(["agent=popularity"], "popularity", 3, marks=pytest.mark.long),
        pytest.param(["agent=popularity", "agent.policy.by=average"], "best_rate", 3, marks=pytest.mark.long),
        pytest.param(["agent=greedy_oracle"], "greedy_oracle", 2, marks=pytest.mark.long),
        pytest.param(["agent=planner", "env.users=truth"], "planner", 1, marks=pytest.mark.long),
        pytest.param(["agent=python", f"agent.path={POLICIES}:smallest_new_id"], "python", 2, marks=pytest.mark.long),
    ],
)
def test_agents_without_training_are_tested_like_all_others(
    finished_run, run_command_line, simulators, overrides, name, files
):
    finished = run_command_line(TRAIN, *UNTRAINED, *overrides, "hydra.run.dir=run")
    assert finished.returncode == 0, finished.stderr
    run = simulators / "run"
    names = ["online", "online_truth", "offline"][: max(files, 1)] if files != 2 else ["online", "online_truth"]
    assert sorted(path.stem for path in run.glob("o*.npz")) == sorted(names)
    assert not (run / "checkpoints").exists()
    for test in names:
        summary, arrays = results(run, test)
        assert next(iter(summary["policies"])) == name
        assert summary["step"] == 0
        # Fixed users and keys: what is tested beside every agent has the same answers in every run.
        other = results(finished_run[0], "online_truth" if "env.users=truth" in overrides else test)[1]
        same = name if name in ("random", "popularity", "best_rate") else "popularity"
        own = "" if same == name else "popularity_"
        for array in ("feedback", "items"):
            np.testing.assert_array_equal(arrays[f"{own}{array}"], other[f"{same}_{array}"])
    before = {path.name: path.read_bytes() for path in run.glob("o*.*")}
    again = run_command_line(EVALUATE, "run=run")
    assert again.returncode == 0, again.stderr
    assert {path.name: path.read_bytes() for path in run.glob("o*.*")} == before


@pytest.mark.long
def test_dnn_trains_with_the_users_who_wrote_the_log(run_command_line, simulators):
    finished = run_command_line(TRAIN, *SMALL, "agent=dnn", "env.users=truth", "hydra.run.dir=run")
    assert finished.returncode == 0, finished.stderr
    assert "the true users answer" in finished.stderr
    run = simulators / "run"
    assert sorted(path.stem for path in run.glob("o*.npz")) == ["offline", "online"]
    assert results(run, "online")[0]["protocol"]["users"] == "the generator's truth"
    row = metrics_without_times(run)[-1]
    assert "low_critic_loss" in row
    assert not {"low_actor_loss", "high_q", "intrinsic_reward"} & row.keys()
    assert {"validation_items_used", "validation_items_used_at_a_step"} <= row.keys()


@pytest.mark.long
@pytest.mark.parametrize("agent", ["ddpg_memory", "hrl_mg_memory"])
def test_agents_with_a_memory_train_and_take_both_tests(agent, run_command_line, simulators):
    finished = run_command_line(TRAIN, *SMALL, f"agent={agent}", "hydra.run.dir=run")
    assert finished.returncode == 0, finished.stderr
    run = simulators / "run"
    for test in ("online", "online_truth", "offline"):
        assert agent in json.loads((run / f"{test}.json").read_text())["policies"]
    weights = [key for key in metrics_without_times(run)[-1] if key.startswith("high_goal_")]
    assert len(weights) == (10 if agent == "hrl_mg_memory" else 0)


@pytest.mark.long
def test_every_switch_trains(run_command_line, simulators):
    finished = run_command_line(
        TRAIN,
        *SMALL,
        "train.steps=4",
        "agent=hrl_paper",
        "agent.goals.conditioned=true",
        "agent.goals.memory=5",
        "agent.goals.hindsight=true",
        "agent.goals.discount=gamma_pow_c",
        "agent.goals.store_partial_window=false",
        "agent.learner.terminal=zero",
        "agent.retrieval.backend=recall",
        "hydra.run.dir=run",
    )
    assert finished.returncode == 0, finished.stderr
    assert "hrl_paper" in json.loads((simulators / "run" / "online.json").read_text())["policies"]


@pytest.mark.long
@pytest.mark.parametrize("backend", ["hash", "approx"])
def test_a_run_finds_items_by_each_backend(backend, run_command_line, simulators):
    codes = ["agent.retrieval.scanned=64", "agent.retrieval.shortlist=16"]
    arguments = [*SMALL, "train.steps=4", f"retrieval={backend}", *codes, f"hydra.run.dir={backend}"]
    finished = run_command_line(TRAIN, *arguments)
    assert finished.returncode == 0, finished.stderr
    played = np.load(simulators / backend / "online.npz")["items"]
    assert all(len(set(items.tolist())) == 12 for items in played)
    assert (
        yaml.safe_load((simulators / backend / "config.yaml").read_text())["agent"]["retrieval"]["backend"] == backend
    )


@pytest.mark.long
def test_multirun_over_seeds_shares_the_simulator(run_command_line, simulators):
    finished = run_command_line(TRAIN, "-m", *SMALL, "agent=ddpg", "train.steps=4", "seed=0,1", "hydra.sweep.dir=sweep")
    assert finished.returncode == 0, finished.stderr
    assert "fitting" not in finished.stderr
    first, second = (simulators / "sweep" / number for number in ("0", "1"))
    assert (first / "simulator.npz").read_bytes() == (second / "simulator.npz").read_bytes()
    rows = [metrics_without_times(folder)[-1] for folder in (first, second)]
    assert rows[0]["low_critic_loss"] != rows[1]["low_critic_loss"]
    assert "high_q" not in rows[0]


@pytest.mark.long
def test_seeds_that_train_together_equal_single_runs(finished_run, run_command_line, simulators):
    finished = run_command_line(TRAIN, *SMALL, "num_seeds=2", "hydra.run.dir=group")
    assert finished.returncode == 0, finished.stderr
    assert "fitting" not in finished.stderr
    alone, (first, second) = finished_run[0], (simulators / "group" / f"seed_{seed}" for seed in (0, 1))
    assert_same_metrics(first, alone, 1e-5)
    for member in (first, second):
        assert {path.name for path in alone.iterdir() if "events" not in path.name} == {
            path.name for path in member.iterdir() if "events" not in path.name
        }
    assert metrics_without_times(second)[-1]["low_critic_loss"] != metrics_without_times(first)[-1]["low_critic_loss"]
    assert json.loads((second / "online.json").read_text())["protocol"]["seed"] == 1
    assert (first / "simulator.npz").read_bytes() == (second / "simulator.npz").read_bytes()


def test_fit_simulator_reports_and_is_done_once(finished_run, run_command_line, simulators):
    before = next((simulators / "simulators").iterdir()) / "simulator.npz"
    stamp = before.stat().st_mtime_ns
    arguments = ["data.size=tiny", "env.episode_length=12", *SMALL_SIMULATOR]
    found = run_command_line(FIT, *arguments)
    assert found.returncode == 0, found.stderr
    assert "fitting" not in found.stderr
    for line in ("log-loss", "of the base rate", "of the truth", "gap closed", "click: AUC", "order: AUC"):
        assert line in found.stdout
    assert before.stat().st_mtime_ns == stamp


@pytest.mark.long
def test_own_log_with_sampled_skips(run_command_line, tmp_path):
    generator = np.random.default_rng(0)
    lines = ["user,item,time,event"]
    for user in range(60):
        liked = generator.integers(0, 3)
        for session in range(3):
            for item in generator.choice(40, 6, replace=False):
                event = "order" if item % 3 == liked and generator.random() < 0.3 else "view"
                lines.append(f"u{user},i{item},{session * 100_000 + int(generator.integers(0, 900))},{event}")
    (tmp_path / "own.csv").write_text("\n".join(lines))
    arguments = [*SMALL[1:], "train.steps=3", "data=events_csv", "data.path=own.csv", "hydra.run.dir=run"]
    finished = run_command_line(TRAIN, *arguments)
    assert finished.returncode == 0, finished.stderr
    assert "SAMPLED SKIPS" in finished.stdout
    assert not (tmp_path / "run" / "online_truth.json").exists()
    assert_one_message(run_command_line(TRAIN, *arguments, "env.users=truth"), "env.users=truth", "not generated")
    assert json.loads((tmp_path / "run" / "online.json").read_text())["data"]["synthetic_skips"] is True
    (tmp_path / "own.csv").rename(tmp_path / "moved.csv")
    assert_one_message(run_command_line(EVALUATE, "run=run"), "own.csv")


@pytest.mark.long
def test_ratings_stand_in_for_answers_and_a_small_catalogue_shortens_sessions(run_command_line, tmp_path):
    generator = np.random.default_rng(0)
    lines = ["user,item,rating,timestamp"]
    for user in range(60):
        for session in range(3):
            for place, item in enumerate(generator.choice(40, 8, replace=False)):
                lines.append(f"{user},{item},{generator.integers(1, 6)},{session * 100_000 + 60 * place + user}")
    (tmp_path / "ratings.csv").write_text("\n".join(lines))
    lengths = ("data.size", "env.episode_length", "evaluation.long", "evaluation.short")
    arguments = [argument for argument in SMALL if not argument.startswith(lengths)]
    source = ["data=ratings_as_events", "data.path=ratings.csv", "hydra.run.dir=run"]
    finished = run_command_line(TRAIN, *arguments, *source)
    assert finished.returncode == 0, finished.stderr
    assert "notice: env.episode_length=20, evaluation.short=20, evaluation.long=20, half of the 40" in finished.stderr
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["env"]["episode_length"] == 20
    # What was understood comes before the learned users are fitted.
    summary, _, later = finished.stderr.partition("fitting the user-feedback simulator")
    assert "answers           skip" in summary
    assert later
    proxy = "skip below 4, click from 4, order from 5"
    assert finished.stdout.count(f"(RATINGS STAND IN FOR ANSWERS: {proxy})") == 2  # online, offline
    for name in ("online.json", "offline.json", "run.json"):
        assert json.loads((tmp_path / "run" / name).read_text())["data"]["feedback_proxy"] == proxy
    assert all(row["feedback_proxy"] == proxy for row in metrics_without_times(tmp_path / "run"))


@pytest.mark.long
def test_everything_made_from_kuairand_says_that_its_orders_are_a_proxy(run_command_line, tmp_path):
    write_files(tmp_path / "KuaiRand-1K" / "data", kuairand_files(0, "1k", users=40))
    finished = run_command_line(TRAIN, *SMALL, "data=kuairand", f"data.root={tmp_path}", "hydra.run.dir=run")
    assert finished.returncode == 0, finished.stderr
    said = "kuairand (ORDERS ARE A PROXY: is_like or is_follow or is_comment or is_forward)"
    assert finished.stdout.count(said) == 2  # online, offline
    assert said in finished.stderr
    proxy = "is_like or is_follow or is_comment or is_forward"
    for name in ("online.json", "offline.json", "run.json", "simulator.json"):
        assert json.loads((tmp_path / "run" / name).read_text())["data"]["order_proxy"] == proxy
    assert all(np.load(tmp_path / "run" / f"{name}.npz")["order_proxy"] == proxy for name in ("online", "offline"))
    assert all(row["order_proxy"] == proxy for row in metrics_without_times(tmp_path / "run"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["agent.goals.count=6"], ["agent.goals.period", "agent.goals.count"]),
        (["data=movielens_1m"], ["data=movielens_1m is no choice", "tpgr_jax.train"]),
        (["agent.decides=critic"], ["agent.decides", "agent.goals.enabled=false", "agent=dnn"]),
        (["agent=hrl_mg_memory", "agent.goals.enabled=false"], ["agent.goals.conditioned", "agent.goals.enabled=true"]),
        (["agent=dnn", "agent.goals.memory=5"], ["agent.decides", "agent.goals.memory=0"]),
        (["agent.name=best_rate"], ["agent.name"]),
        (["env.users=everyone"], ["env.users", "truth"]),
        (["env.episode_length=100000"], ["items to recommend", "env.episode_length"]),
        (["data=events_csv", "data.path=nowhere.csv"], ["nowhere.csv"]),
    ],
)
def test_mistakes_get_one_message(run_command_line, tmp_path, arguments, parts):
    assert_one_message(run_command_line(TRAIN, *SMALL, *arguments), *parts)
    assert not (tmp_path / "outputs").exists()


def test_the_planner_wants_users_with_trust(run_command_line, tmp_path):
    assert_one_message(run_command_line(TRAIN, *UNTRAINED, "agent=planner"), "agent.trust_weight", "env.users=truth")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.long
def test_evaluate_wants_a_run_of_this_system(finished_run, run_command_line, tmp_path):
    assert_one_message(run_command_line(EVALUATE), "no run given")
    folder, _ = finished_run
    started = tmp_path / "started"
    started.mkdir()
    shutil.copy(folder / "config.yaml", started)
    assert_one_message(run_command_line(EVALUATE, "run=started"), "before training began", "resume=started")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "simulator.npz").write_bytes((copy / "simulator.npz").read_bytes()[:200])
    assert_one_message(run_command_line(EVALUATE, "run=copy"), "simulator.npz", "damaged")


@pytest.mark.skipif(
    not (Path(os.environ.get("TPGR_JAX_DATA", "")) / "jdata-sample").is_dir(),
    reason="set TPGR_JAX_DATA to a folder with jdata-sample/JData_Action_*.csv.gz",
)
@pytest.mark.long
def test_the_jdata_experiment_runs_to_the_end(run_command_line, tmp_path):
    data = {"TPGR_JAX_DATA": os.environ["TPGR_JAX_DATA"]}
    arguments = ["+experiment=jdata", *SMALL[1:], "train.steps=3", "hydra.run.dir=run"]
    finished = run_command_line(TRAIN, *arguments, environment=data)
    assert finished.returncode == 0, finished.stderr
    assert "SAMPLED SKIPS" in finished.stdout
    assert (tmp_path / "run" / "online.json").exists()
    assert (tmp_path / "run" / "offline.json").exists()


TOY = """
from dataclasses import dataclass

from hrlmg_jax.evaluation.policies import fixed_list
from hrlmg_jax.methods import AgentSettings, untrained


@dataclass(frozen=True, kw_only=True)
class Settings(AgentSettings):
    ranking: str


def build(problem, settings):
    return untrained(settings.name, fixed_list(problem, settings.ranking))
"""


def test_a_users_own_agent_is_tested_through_the_command(simulators, tmp_path, run_command_line):
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "conf" / "agent").mkdir(parents=True)
    settings = {"name": "toy", "module": "toy", "ranking": "count"}
    (tmp_path / "conf" / "agent" / "toy.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["--config-dir", "conf", "agent=toy", "hydra.run.dir=run"]
    arguments += [argument for argument in SMALL if not argument.startswith("agent.")]
    finished = run_command_line(TRAIN, *arguments)
    assert finished.returncode == 0, finished.stderr
    assert "toy: nothing to train" in finished.stderr
    policies = json.loads((tmp_path / "run" / "online.json").read_text())["policies"]
    assert {"toy", "random", "popularity", "best_rate"} <= policies.keys()


@pytest.mark.long
def test_whole_log_can_be_learned_from_and_nothing_is_tested(run_command_line, simulators, tmp_path):
    learned = run_command_line(TRAIN, *SMALL, "data.split=none", "hydra.run.dir=run")
    assert learned.returncode == 0, learned.stderr
    assert "learned from the whole log" in learned.stdout
    folder = tmp_path / "run"
    assert not [*folder.glob("online*"), *folder.glob("offline*")]
    assert json.loads((folder / "run.json").read_text())["data"]["test_sessions"] == 0
    assert_one_message(run_command_line(EVALUATE, "run=run"), "learned from the whole log", "data.split")
    listed = run_command_line("hrlmg_jax.report", "runs", "runs=[run]")
    assert "learned from everything" in listed.stdout
