"""Sweeps through real command lines, and the callback by hand where a job has a bug."""

import csv
import json
import shlex

import numpy as np
import pytest
import yaml
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from harness.commands.configuration import CONFIGURATION
from harness.training.sweep import SweepReport

TRAIN = "tpgr_jax.train"


def write_ratings(path):
    """400 ratings of 40 users and 60 items."""
    rng = np.random.default_rng(0)
    pairs = rng.choice(40 * 60, 400, replace=False)
    rows = [f"{pair // 60},{pair % 60},{rating}" for pair, rating in zip(pairs, rng.integers(1, 6, 400), strict=True)]
    path.write_text("\n".join(["user,item,rating", *rows]) + "\n")


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param([], id="basic"),
        pytest.param(["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], id="joblib", marks=pytest.mark.long),
    ],
)
def test_failures_are_printed_at_once_and_the_sweep_ends_with_a_table_of_all_jobs(run_command_line, tmp_path, launcher):
    write_ratings(tmp_path / "r.csv")
    common = ["data=ratings_file", "data.path=r.csv", "agent=popularity", "env.episode_length=8"]
    swept = "data.test_fraction=0.001,0.2,0.999"
    finished = run_command_line(TRAIN, "-m", *common, swept, "hydra.sweep.dir=sweep", *launcher)
    assert finished.returncode == 2, finished.stderr
    assert "Traceback" not in finished.stderr
    # Each job when it starts, each failure when it happens.
    lines = finished.stderr.splitlines()
    for number, fraction in ((1, "0.001"), (2, "0.2"), (3, "0.999")):
        assert f"job {number} of 3: data.test_fraction={fraction}" in lines
    failures = [
        f"error: job {job} of 3 failed: data.test_fraction: 0.{share} of 40" for job, share in ((1, "001"), (3, "999"))
    ]
    places = [next(n for n, line in enumerate(lines) if line.startswith(failure)) for failure in failures]
    if not launcher:
        assert places[0] < lines.index("job 2 of 3: data.test_fraction=0.2") < places[1]
    # The table, printed and kept, with the commands that come next.
    kept = (tmp_path / "sweep" / "sweep.md").read_text()
    assert kept in finished.stdout
    assert kept.startswith("# Sweep: 1 of 3 jobs finished\n")
    for part in ("| 1 | data.test_fraction=0.001 | failed |", "* job 3: data.test_fraction: 0.999 of 40 users"):
        assert part in kept
    assert f"python -m {TRAIN} {' '.join(common)} data.test_fraction=0.001 hydra.run.dir=sweep/0\n" in kept
    assert not (tmp_path / "sweep" / "0").exists() or not any((tmp_path / "sweep" / "0").iterdir())
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["status"], row["run folder"]) for row in rows] == [
        *(("1", "failed", ""), ("2", "finished", "sweep/1"), ("3", "failed", ""))
    ]
    reward = np.load(tmp_path / "sweep" / "1" / "eval.npz", allow_pickle=False)["reward"].mean()
    assert float(rows[1]["reward"]) == pytest.approx(reward)
    command = next(line for line in kept.splitlines() if line.startswith("python -m tpgr_jax.report"))
    assert shlex.split(command)[2:] == ["tpgr_jax.report", "runs", "sweep"]  # other splits are no table


def test_a_sweep_of_the_other_system_in_which_every_job_fails(run_command_line, tmp_path):
    finished = run_command_line("hrlmg_jax.train", "-m", "train.steps=-1,-2", "hydra.sweep.dir=sweep")
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.count("error: job ") == 2
    assert "# Sweep: 0 of 2 jobs finished" in finished.stdout
    assert "## Report" not in finished.stdout
    rows = [json.loads(line) for line in (tmp_path / "sweep" / "sweep.jsonl").read_text().splitlines()]
    assert [(row["swept"], row["status"]) for row in rows] == [
        (["train.steps=-1"], "failed"),
        (["train.steps=-2"], "failed"),
    ]


def configuration(folder, number=0, **params):
    return OmegaConf.create(
        {
            "hydra": {
                "sweep": {"dir": str(folder), "subdir": str(number)},
                "sweeper": {"params": params},
                "overrides": {"task": ["seed=0,1"] if number is None else [f"seed={number}"]},
                "job": {"num": number},
            }
        }
    )


def test_a_bug_is_shown_with_its_traceback_and_a_lost_job_is_named(tmp_path, capsys):
    sweep = SweepReport("mine.train", "mine.report table", "eval.json", "reward")
    sweep.on_multirun_start(configuration(tmp_path, None, alpha="0.1,0.2"))
    assert sweep.jobs == 4
    sweep.on_job_start(configuration(tmp_path, 1))
    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = ZeroDivisionError("a bug")
    sweep.on_job_end(configuration(tmp_path, 1), failed)
    assert failed.return_value is None  # Hydra goes on
    assert "ZeroDivisionError: a bug" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        sweep.on_multirun_end(configuration(tmp_path, None))
    assert stopped.value.code == 1
    text = (tmp_path / "sweep.md").read_text()
    assert "* job 2: ZeroDivisionError: a bug\n" in text
    assert "| 3 |  | not finished |" in text


def test_the_mean_over_seeds_that_train_together(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / f"seed_{seed}"
        folder.mkdir()
        (folder / "eval.json").write_text(
            json.dumps({"policies": {"own": {"reward": 1.0 + seed}, "random": {"reward": 9.0}}})
        )
    sweep = SweepReport("mine.train", "mine.report table", "eval.json", "reward")
    assert sweep._result_in(tmp_path) == 1.5


def test_outside_a_sweep_nothing_is_said(tmp_path, capsys):
    sweep = SweepReport("mine.train", "mine.report table", "eval.json", "reward")
    sweep.on_job_start(configuration(tmp_path))
    sweep.on_job_end(configuration(tmp_path), JobReturn(status=JobStatus.COMPLETED))
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def reported(sweep, folder):
    (folder / "sweep.jsonl").unlink(missing_ok=True)
    sweep.on_job_start(configuration(folder, 0))
    sweep.on_job_end(configuration(folder, 0), JobReturn(status=JobStatus.COMPLETED))
    sweep.on_multirun_end(configuration(folder, None))
    lines = (folder / "sweep.md").read_text().splitlines()
    return next(line for line in lines if line.startswith("python -m"))


@pytest.mark.parametrize(
    ("swept", "report"),
    [({"agent": "a,b", "seed": "0,1"}, "table2"), ({"seed": "0,1"}, "table2"), ({"train.steps": "1,2"}, "runs")],
)
def test_the_report_fits_what_was_swept(tmp_path, capsys, swept, report):
    with open(f"{CONFIGURATION}/train.yaml", encoding="utf-8") as file:
        settings = yaml.safe_load(file)["hydra"]["callbacks"]["sweep"]
    sweep = SweepReport(**settings)
    one = configuration(tmp_path, None, **swept)
    one.hydra.overrides.task = []
    sweep.on_multirun_start(one)
    sweep.jobs = 1
    assert reported(sweep, tmp_path) == f"python -m tpgr_jax.report {report} {tmp_path}"


def test_a_failed_job_runs_again_in_its_folder(tmp_path):
    row = {"overrides": ["seed=1", "agent=x"], "folder": str(tmp_path / "a b")}
    sweep = SweepReport("mine.train", "mine.report table", "eval.json", "reward")
    assert sweep._again(row) == ["seed=1", "agent=x", f'hydra.run.dir="{tmp_path}/a b"']
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "config.yaml").touch()  # it had begun to train
    assert sweep._again(row) == [f'resume="{tmp_path}/a b"']
    study = SweepReport("mine.tune", "mine.report table", "eval.json", "reward", again="study")
    assert study._again(row) == ["seed=1", "agent=x", f'study="{tmp_path}/a b"']
