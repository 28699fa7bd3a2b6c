"""The commands through their real command lines."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_lines import (
    assert_one_message,
    assert_same_metrics,
    checkpoint_steps,
    killed_after_a_checkpoint,
    metrics_without_times,
    parameters,
    run_module,
    trained_run,
)

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from tpgr_jax.settings import RunConfig

SMALL = [
    "data.size=tiny",
    "env.episode_length=8",
    "agent.policy.hidden=[8]",
    "agent.policy.embedding_epochs=1",
    "agent.learner.episodes_per_user=8",
    "train.episodes_per_step=32",
    "train.steps=6",
    "train.log_every=2",
    "train.evaluate_every=2",
    "train.checkpoint_every=2",
]
TRAIN, EVALUATE = "tpgr_jax.train", "tpgr_jax.evaluate"


@pytest.fixture(scope="module")
def finished_run(command_environment, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    return trained_run(tmp_path_factory.mktemp("finished"), command_environment, TRAIN, *SMALL)


def test_train_leaves_everything_in_the_run_folder(finished_run):
    folder, finished = finished_run
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events.")}
    assert names == {
        "checkpoints",
        "config.yaml",
        "eval.json",
        "eval.npz",
        "ids.npz",
        "learning_curve.png",
        "metrics.jsonl",
        "run.json",
        "tree.npz",
    }
    assert any(path.name.startswith("events.") for path in folder.iterdir())
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    for name in ("tpgr", "tpgr_sampled", "random", "popularity", "best_fixed_list"):
        assert f"\n{name} " in finished.stdout
    assert "Warning" not in finished.stderr
    rows = metrics_without_times(folder)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"reward", "precision", "loss", "entropy_0", "entropy_1", "test_reward", "test_f1"} <= rows[-1].keys()


def test_everything_made_from_generated_ratings_says_so(finished_run):
    folder, finished = finished_run
    assert "SYNTHETIC" in finished.stdout
    for name in ("eval.json", "run.json"):
        assert json.loads((folder / name).read_text())["data"]["synthetic"] is True
    for name in ("eval.npz", "ids.npz"):
        assert np.load(folder / name, allow_pickle=False)["synthetic"]
    assert all(row["synthetic"] for row in metrics_without_times(folder))
    assert "reader: synthetic" in (folder / "config.yaml").read_text()
    assert b"synthetic" in next(folder.glob("events.*")).read_bytes()


def test_results_can_be_recomputed_from_the_run_folder_alone(finished_run):
    from sim.generators.ratings import generate

    folder, _ = finished_run
    summary = json.loads((folder / "eval.json").read_text())
    arrays = np.load(folder / "eval.npz", allow_pickle=False)
    data = generate("tiny", 0)
    ratings = data.matrix(np.nan_to_num(data.rating_values)).toarray()
    users = np.searchsorted(data.user_ids, arrays["user"])
    assert not set(arrays["user"]) & set(arrays["train_users"])
    assert len(arrays["user"]) + len(arrays["train_users"]) == data.num_users
    for prefix, name in (("", "tpgr"), ("best_fixed_list_", "best_fixed_list")):
        items = np.searchsorted(data.item_ids, arrays[f"{prefix}items"])
        assert all(len(set(row)) == 8 for row in items)
        reward = np.zeros(len(users))
        positive, negative = np.zeros(len(users)), np.zeros(len(users))
        for t in range(8):
            rated = ratings[users, items[:, t]]
            empirical = np.where(rated > 0, 2 * rated / 5 - 1, 0)
            reward += empirical + summary["protocol"]["alpha"] * (positive - negative)
            positive = np.where(empirical > 0, positive + 1, 0)
            negative = np.where(empirical < 0, negative + 1, 0)
        np.testing.assert_allclose(arrays[f"{prefix}reward"], reward / 8, atol=1e-6)
        hits = (ratings[users[:, None], items] > 3).sum(1)
        np.testing.assert_allclose(arrays[f"{prefix}precision"], hits / 8)
        relevant = (ratings[users] > 3).sum(1)
        np.testing.assert_allclose(arrays[f"{prefix}recall"], hits / np.maximum(relevant, 1))
        found = summary["policies"][name]
        np.testing.assert_allclose(found["reward"], arrays[f"{prefix}reward"].mean())
        assert found["reward_ci95"][0] <= found["reward"] <= found["reward_ci95"][1]
        assert found["users"] == len(users)


def test_saved_tree_and_ids_are_complete(finished_run):
    folder, _ = finished_run
    tree = np.load(folder / "tree.npz", allow_pickle=False)
    ids = np.load(folder / "ids.npz", allow_pickle=False)
    assert len(tree["item_paths"]) == len(tree["item_nodes"]) == len(ids["item_ids"]) == 100
    assert tree["children"].shape == tree["sizes"].shape


def test_evaluate_repeats_the_numbers_exactly(finished_run, run_command_line, tmp_path):
    folder, trained = finished_run
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = json.loads((copy / "eval.json").read_text())
    for name in ("eval.json", "eval.npz"):
        (copy / name).unlink()
    finished = run_command_line(EVALUATE, f"run={copy}")
    assert finished.returncode == 0, finished.stderr
    assert json.loads((copy / "eval.json").read_text()) == before
    assert before["policies"]["tpgr"]["reward"] == metrics_without_times(copy)[-1]["test_reward"]
    table = [line for line in trained.stdout.splitlines() if " ± " in line]
    assert table == [line for line in finished.stdout.splitlines() if " ± " in line]
    earlier = run_command_line(EVALUATE, f"run={copy}", "checkpoint=4", "users_per_batch=7")
    assert earlier.returncode == 0, earlier.stderr
    row = next(row for row in metrics_without_times(copy) if row["step"] == 4)
    older = json.loads((copy / "eval_step_4.json").read_text())
    np.testing.assert_allclose(older["policies"]["tpgr"]["reward"], row["test_reward"], rtol=1e-6)
    assert json.loads((copy / "eval.json").read_text()) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_killed_run_resumes_to_the_same_end(command_environment, run_command_line, tmp_path, number):
    killed = tmp_path / "killed"
    arguments = (*SMALL, "train.steps=100000", "hydra.run.dir=killed")
    code, errors = killed_after_a_checkpoint(tmp_path, command_environment, killed, number, TRAIN, *arguments)
    if number == signal.SIGTERM:
        assert code == 128 + number
        assert "SIGTERM" in errors
        assert "resume=" in errors
    target = max(checkpoint_steps(killed)) + 2
    finished = run_command_line(TRAIN, "resume=killed", f"train.steps={target}")
    assert finished.returncode == 0, finished.stderr
    whole = run_command_line(TRAIN, *SMALL, f"train.steps={target}", "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    assert [row["step"] for row in metrics_without_times(killed)] == list(range(2, target + 1, 2))
    assert metrics_without_times(killed) == metrics_without_times(tmp_path / "whole")
    for one, other in zip(parameters(killed, target), parameters(tmp_path / "whole", target), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("written", [["config.yaml"], ["config.yaml", "ids.npz", "run.json"]])
def test_run_killed_before_training_can_be_resumed(finished_run, run_command_line, tmp_path, written):
    folder, _ = finished_run
    started = tmp_path / "started"
    started.mkdir()
    for name in written:
        shutil.copy(folder / name, started)
    assert_one_message(run_command_line(EVALUATE, "run=started"), "before training began", "resume=started")
    finished = run_command_line(TRAIN, "resume=started")
    assert finished.returncode == 0, finished.stderr
    assert metrics_without_times(started) == metrics_without_times(folder)
    assert {path.name for path in started.iterdir() if "events" not in path.name} >= {"ids.npz", "run.json", "tree.npz"}


@pytest.mark.long
def test_own_ratings_can_move(run_command_line, tmp_path):
    generator = np.random.default_rng(0)
    lines = [f"u{user};i{item};{generator.integers(1, 11)}" for user in range(40) for item in range(user % 3, 30, 2)]
    (tmp_path / "own.csv").write_text("user;item;stars\n" + "\n".join(lines))
    columns = ["data.user_column=user", "data.item_column=item", "data.rating_column=stars", 'data.separator=";"']
    arguments = [*SMALL[1:], "train.steps=2", "data=ratings_file", "data.timestamp_column=null"]
    finished = run_command_line(
        TRAIN, *arguments, *columns, "data.path=own.csv", "data.relevant_above=7", "hydra.run.dir=run"
    )
    assert finished.returncode == 0, finished.stderr
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own.csv").rename(tmp_path / "elsewhere" / "own.csv")
    assert_one_message(run_command_line(EVALUATE, "run=run"), "own.csv")
    moved = run_command_line(EVALUATE, "run=run", "data_path=elsewhere/own.csv")
    assert moved.returncode == 0, moved.stderr
    nothing = run_command_line(TRAIN, *arguments, *columns, "data.path=elsewhere/own.csv", "data.relevant_above=10")
    assert_one_message(nothing, "data.relevant_above=10")
    wrong = run_command_line(TRAIN, *arguments, *columns[:3], "data.path=elsewhere/own.csv")
    assert_one_message(wrong, "own.csv", "line 1", "data.separator")


@pytest.mark.long
def test_methods_of_every_kind_train_evaluate_and_enter_the_table(run_command_line, tmp_path):
    learning = ["dqn_r", "ddpg_knn_all", "tpgr_plus"]
    fitted = ["popularity", "hlinear_ucb", "gaussian_posterior"]
    schedule = [f"train.{key}=2" for key in ("steps", "log_every", "evaluate_every", "checkpoint_every")]
    finished = run_command_line(
        TRAIN,
        "-m",
        f"agent={','.join([*learning, *fitted])}",
        "data.size=tiny",
        "env.episode_length=6",
        "train.episodes_per_step=8",
        *schedule,
        "hydra.sweep.dir=sweep",
    )
    assert finished.returncode == 0, finished.stderr
    for number, name in enumerate([*learning, *fitted]):
        folder = tmp_path / "sweep" / str(number)
        result = json.loads((folder / "eval.json").read_text())
        own = next(iter(result["policies"]))
        assert name.startswith(own)
        assert {"random", "popularity", "best_fixed_list"} <= result["policies"].keys()
        np.testing.assert_allclose(
            result["policies"][own]["reward"], np.load(folder / "eval.npz", allow_pickle=False)["reward"].mean()
        )
        assert (checkpoint_steps(folder) == [2]) == (name in learning)
    for number in (2, 4):  # with a checkpoint and without
        folder = tmp_path / "sweep" / str(number)
        before = (folder / "eval.json").read_text()
        evaluated = run_command_line(EVALUATE, f"run={folder}")
        assert evaluated.returncode == 0, evaluated.stderr
        assert (folder / "eval.json").read_text() == before
    table = run_command_line("tpgr_jax.report", "table2", "sweep", "out=tables")
    assert table.returncode == 0, table.stderr
    for label in ("DQN-R", "DDPG-KNN (k = N)", "HLinearUCB", "GaussianPosterior", "TPGR+"):
        assert f"| {label} " in table.stdout
    assert ",ddpg_r,tpgr " in table.stdout  # what is missing, with its command


@pytest.mark.long
def test_multirun_over_seeds_in_processes_of_joblib(run_command_line, tmp_path):
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    finished = run_command_line(TRAIN, "-m", *SMALL, "train.steps=2", "seed=0,1", "hydra.sweep.dir=sweep", *launcher)
    assert finished.returncode == 0, finished.stderr
    first, second = (metrics_without_times(tmp_path / "sweep" / number) for number in ("0", "1"))
    assert first[-1]["reward"] != second[-1]["reward"]


@pytest.mark.long
def test_seeds_that_train_together_equal_single_runs(finished_run, command_environment, run_command_line, tmp_path):
    members = [tmp_path / "group" / f"seed_{seed}" for seed in (0, 1)]
    arguments = (*SMALL, "num_seeds=2", "hydra.run.dir=group")
    killed_after_a_checkpoint(tmp_path, command_environment, members[0], signal.SIGKILL, TRAIN, *arguments)
    assert not (members[1] / "eval.json").exists()
    finished = run_command_line(TRAIN, "resume=group")
    assert finished.returncode == 0, finished.stderr
    single = run_command_line(TRAIN, *SMALL, "seed=1", "hydra.run.dir=single")
    assert single.returncode == 0, single.stderr
    for member, alone in zip(members, [finished_run[0], tmp_path / "single"], strict=True):
        assert_same_metrics(member, alone, 1e-5)
        assert (member / "config.yaml").read_text() == (alone / "config.yaml").read_text()
        assert {path.name for path in alone.iterdir() if "events" not in path.name} == {
            path.name for path in member.iterdir() if "events" not in path.name
        }
        for one, other in zip(parameters(member, 6), parameters(alone, 6), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert {path.name for path in (tmp_path / "group").iterdir()} == {"config.yaml", "seed_0", "seed_1"}
    assert "num_seeds: 2" in (tmp_path / "group" / "config.yaml").read_text()
    result = (members[1] / "eval.json").read_text()
    (members[1] / "eval.json").unlink()
    evaluated = run_command_line(EVALUATE, "run=group/seed_1")
    assert evaluated.returncode == 0, evaluated.stderr
    assert (members[1] / "eval.json").read_text() == result


@pytest.mark.long
def test_two_processes_train_what_one_does_and_one_goes_on_alone(
    finished_run, command_environment, run_command_line, tmp_path
):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    together = [
        *SMALL,
        "train.steps=100000",
        "devices.count=0",
        f"devices.coordinator={address}",
        "devices.processes=2",
    ]
    first = subprocess.Popen(
        [sys.executable, "-m", TRAIN, *together, "devices.process=0", "hydra.run.dir=run"],
        cwd=tmp_path,
        env=command_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    # The second has another name for the folder, as clocks might give it; it is asked to stop, and tells the first.
    arguments = (*together, "devices.process=1", "hydra.run.dir=other")
    code, errors = killed_after_a_checkpoint(
        tmp_path, command_environment, tmp_path / "run", signal.SIGTERM, TRAIN, *arguments
    )
    assert code == 128 + signal.SIGTERM, errors
    _, first_errors = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGTERM, first_errors
    assert "stopped by SIGTERM after step" in first_errors
    assert "stopped by" not in errors
    assert not (tmp_path / "other").exists()
    done = metrics_without_times(tmp_path / "run")[-1]["step"]
    assert "processes: 2" in (tmp_path / "run" / "config.yaml").read_text()
    resumed = run_command_line(TRAIN, "resume=run", f"train.steps={done + 2}")
    assert resumed.returncode == 0, resumed.stderr
    rows = metrics_without_times(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(2, done + 3, 2))
    for row, expected in zip(rows, metrics_without_times(finished_run[0]), strict=False):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        assert row["reward"] == pytest.approx(expected["reward"], rel=1e-3)


@pytest.mark.long
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_cores_share_the_episodes_by_themselves_and_evaluation_repeats_the_numbers(run_command_line, tmp_path):
    # 256 episodes keep two cores busy; on one the run is the same but for rounding.
    many = [*SMALL, "train.episodes_per_step=256", "train.steps=2"]
    finished = run_command_line(TRAIN, *many, "hydra.run.dir=cores")
    assert finished.returncode == 0, finished.stderr
    assert "; device: 2 x cpu;" in finished.stderr
    result = (tmp_path / "cores" / "eval.json").read_text()
    (tmp_path / "cores" / "eval.json").unlink()
    evaluated = run_command_line(EVALUATE, "run=cores")
    assert evaluated.returncode == 0, evaluated.stderr
    assert (tmp_path / "cores" / "eval.json").read_text() == result
    alone = run_command_line(TRAIN, *many, "hydra.run.dir=alone", "devices.count=1")
    assert alone.returncode == 0, alone.stderr
    rows, expected = (metrics_without_times(tmp_path / name) for name in ("cores", "alone"))
    for name in ("reward", "loss", "test_reward"):
        assert rows[0][name] == pytest.approx(expected[0][name], rel=1e-3)


@pytest.mark.long
def test_every_switch_trains(run_command_line):
    finished = run_command_line(
        TRAIN,
        *SMALL,
        "train.steps=2",
        "env.reward_scale=symmetric",
        "env.cold_start=random",
        "env.rating_layout=csr",
        "tree=kmeans",
        "tree.vectors=mf",
        "tree.vector_epochs=1",
        "tree.depth=3",
        "agent.policy.hidden=[]",
        "agent.policy.embedding=random",
        "agent.policy.train_embedding=false",
        "agent.policy.status_in_rnn=false",
        "agent.policy.count_prior=false",
        "agent.policy.encoder_pretrain_steps=2",
        "agent.learner.baseline=per_step",
        "agent.learner.update=per_timestep",
        "agent.learner.entropy=distance_to_uniform",
        "agent.learner.l2_weight=0.001",
    )
    assert finished.returncode == 0, finished.stderr
    assert "depth 3" in finished.stderr


@pytest.mark.long
def test_every_switch_of_the_value_tree_trains(run_command_line):
    finished = run_command_line(
        TRAIN,
        *(setting for setting in SMALL if "embedding" not in setting and "per_user" not in setting),
        "agent=tpgr_plus",
        "train.steps=2",
        "tree.depth=3",
        "env.cold_start=random",
        "env.allow_repeats=true",
        "agent.policy.factors=4",
        "agent.policy.channels=reward",
        "agent.policy.streak=false",
        "agent.policy.beam=1",
        "agent.learner.fit_to=episodes",
        "agent.learner.fit_episodes=2",
        "agent.learner.random_paths=0",
    )
    assert finished.returncode == 0, finished.stderr
    assert "depth 3" in finished.stderr


@pytest.mark.long
def test_flat_policy_trains(run_command_line):
    finished = run_command_line(TRAIN, *SMALL, "train.steps=2", "tree=random", "tree.depth=1")
    assert finished.returncode == 0, finished.stderr
    assert "depth 1, 100 children" in finished.stderr


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("env.alpha=-1", ["env.alpha"]),
        ("env.reward_scale=odd", ["env.reward_scale", "half_open"]),
        ("tree.depth=0", ["tree.depth"]),
        ("tree.clustering=spectral", ["tree.clustering", "kmeans"]),
        ("agent.policy.hidden=[0]", ["agent.policy.hidden"]),
        ("agent.policy.hidden=32", ["agent.policy.hidden", "list"]),
        ("agent.learner.discount=2", ["agent.learner.discount"]),
        ("train.checkpoint_every=3", ["train.checkpoint_every", "train.log_every"]),
        ("data.test_fraction=1.5", ["data.test_fraction"]),
        ("seed=-1", ["seed"]),
    ],
)
def test_settings_out_of_range_name_key_and_range(argument, parts):
    with pytest.raises(UserError) as caught:
        read_settings(RunConfig, composed_values("train", [argument]))
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["env.alpha=much"], ["env.alpha"]),
        (["env.episode_length=500"], ["100 items", "env.episode_length"]),
        (["train.episodes_per_step=33"], ["train.episodes_per_step", "episodes_per_user"]),
        (["data.num_ratings=10"], ["data.num_ratings"]),
        (["+agent.learner.momentum=0.9"], ["agent.learner.momentum"]),
        (["data=ratings_file"], ["data.path"]),
        (["data=ratings_file", "data.path=missing.csv"], ["missing.csv"]),
        (["data=netflix", "data.root=.", "data.offline_fallback=false"], ["netflix", "cannot be downloaded"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and "=" in value[0] else "",
)
def test_mistakes_get_one_message_and_leave_nothing_behind(run_command_line, tmp_path, arguments, parts):
    chosen = [] if arguments[0].startswith("data=") else SMALL
    changed = {argument.split("=")[0] for argument in arguments}
    chosen = [argument for argument in chosen if argument.split("=")[0] not in changed]
    assert_one_message(run_command_line(TRAIN, *chosen, *arguments, "hydra.run.dir=run"), *parts)
    assert list(tmp_path.iterdir()) == []


def test_unknown_key_is_refused_without_a_traceback(run_command_line, tmp_path):
    finished = run_command_line(TRAIN, "env.alfa=0.1", "hydra.run.dir=run")
    assert finished.returncode != 0
    assert "env.alfa" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_one_message(run_command_line):
    assert_one_message(run_command_line(TRAIN, *SMALL, "hydra.run.dir=/dev/null/run"), "/dev/null/run")
    assert_one_message(run_command_line(TRAIN, *SMALL, "seed=${nowhere}", "hydra.run.dir=run"), "nowhere")


@pytest.mark.long
def test_one_bad_job_does_not_stop_the_others(run_command_line, tmp_path):
    finished = run_command_line(
        TRAIN,
        "-m",
        *SMALL,
        "train.steps=2",
        "env.alpha=-1,0.1",
        "hydra.sweep.dir=sweep",
        "hydra.sweep.subdir=r${hydra.job.num}",
    )
    assert_one_message(finished, "env.alpha is -1")
    assert not (tmp_path / "sweep" / "r0").exists()
    assert (tmp_path / "sweep" / "r1" / "eval.json").exists()


def test_a_used_run_folder_is_not_overwritten(finished_run, run_command_line, tmp_path):
    folder, _ = finished_run
    shutil.copytree(folder, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert_one_message(run_command_line(TRAIN, *SMALL, "hydra.run.dir=run"), "already holds a run", "resume=")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


@pytest.mark.long
def test_evaluate_explains_what_is_missing(finished_run, run_command_line, tmp_path):
    folder, _ = finished_run
    assert_one_message(run_command_line(EVALUATE), "run=RUN_FOLDER")
    (tmp_path / "empty").mkdir()
    assert_one_message(run_command_line(EVALUATE, "run=empty"), "not a run folder")
    shutil.copytree(folder, tmp_path / "run")
    assert_one_message(run_command_line(EVALUATE, "run=run", "checkpoint=3"), "no checkpoint of step 3", "4")
    for name, content in (("run.json", "{}"), ("run.json", ""), ("ids.npz", "nonsense"), ("tree.npz", "")):
        whole = (tmp_path / "run" / name).read_bytes()
        (tmp_path / "run" / name).write_text(content)
        assert_one_message(run_command_line(EVALUATE, "run=run"), name)
        (tmp_path / "run" / name).write_bytes(whole)
    ids = dict(np.load(tmp_path / "run" / "ids.npz", allow_pickle=False))
    np.savez(tmp_path / "run" / "ids.npz", **(ids | {"test_users": ids["test_users"] + 1}))
    assert_one_message(run_command_line(EVALUATE, "run=run"), "test users are not those of this split")
    np.savez(tmp_path / "run" / "ids.npz", **ids)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert_one_message(run_command_line(EVALUATE, "run=run"), "no checkpoint")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("size: tiny", "size: small"))
    assert_one_message(run_command_line(EVALUATE, "run=run"), "was trained on", "100 items", "600 items")


def test_resume_of_no_run_leaves_nothing_behind(run_command_line, tmp_path):
    assert_one_message(run_command_line(TRAIN, "resume=nowhere"), "nowhere", "no such folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_resume_keeps_a_new_number_of_steps(finished_run, run_command_line, tmp_path):
    shutil.copytree(finished_run[0], tmp_path / "0")  # as in a multirun folder
    finished = run_command_line(TRAIN, "resume=0", "train.steps=8")
    assert finished.returncode == 0, finished.stderr
    assert "steps: 8" in (tmp_path / "0" / "config.yaml").read_text()
    assert len(json.loads((tmp_path / "0" / "run.json").read_text())["resumed"]) == 1
    again = run_command_line(TRAIN, "resume=0")
    assert "after step 8 of 8" in again.stderr
    assert_one_message(run_command_line(TRAIN, "resume=0", "train.steps=2"), "train.steps is 2", "8")
    assert "steps: 8" in (tmp_path / "0" / "config.yaml").read_text()


def test_resume_refuses_another_configuration(finished_run, run_command_line, tmp_path):
    shutil.copytree(finished_run[0], tmp_path / "run")
    assert_one_message(run_command_line(TRAIN, "resume=run", "env.alpha=0.2"), "env.alpha=0.2", "train.steps")


@pytest.mark.long
def test_movielens_without_files_and_network_trains_on_generated_ratings(run_command_line, tmp_path):
    (tmp_path / "nothing").mkdir()
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    arguments = ["+experiment=movielens", *SMALL[1:], "train.steps=2", "data.root=nothing", "data.fallback_size=tiny"]
    finished = run_command_line(TRAIN, *arguments, "hydra.run.dir=run", environment=offline)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("WARNING") == 1
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["data"]["name"] == "synthetic_tiny"
    # The run stays what it is when the real files appear, and can be continued.
    (tmp_path / "nothing" / "ml-1m").mkdir()
    (tmp_path / "nothing" / "ml-1m" / "ratings.dat").write_text("1::1::5::0\n")
    again = run_command_line(EVALUATE, "run=run")
    assert again.returncode == 0, again.stderr
    assert "WARNING" not in again.stderr
    assert_one_message(
        run_command_line(TRAIN, *arguments, "data.offline_fallback=false", environment=offline), "movielens_1m"
    )


def test_help_and_configuration_print(run_command_line):
    for module in (TRAIN, EVALUATE):
        shown = run_command_line(module, "--help")
        assert shown.returncode == 0
        assert f"python -m {module}" in shown.stdout
    job = run_command_line(TRAIN, "--cfg", "job", "+experiment=movielens")
    assert job.returncode == 0, job.stderr
    assert "name: movielens_1m" in job.stdout


@pytest.mark.long
def test_built_wheel_finds_its_configurations_in_an_empty_folder(repository, command_environment, tmp_path):
    source = tmp_path / "source"
    names = ["pyproject.toml", "README.md", "LICENSE", "conf", "sim", "harness", "tpgr_jax", "hrlmg_jax"]
    source.mkdir()
    for name in names:
        path = repository / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, source / name)
    installed = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(source)],
        check=True,
        timeout=300,
    )
    shutil.rmtree(source)
    empty = tmp_path / "empty"
    empty.mkdir()
    # Compiled as for users, which other tests of commands are not.
    environment = command_environment | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", "XLA_FLAGS": ""}
    where = subprocess.run(
        [sys.executable, "-c", "import tpgr_jax, conf; print(tpgr_jax.__file__, conf.__file__)"],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.count(str(installed)) == 2
    finished = run_module(empty, environment, TRAIN, *SMALL, "train.steps=2", fresh=True)
    assert finished.returncode == 0, finished.stderr
    assert os.listdir(empty) == ["outputs"]
