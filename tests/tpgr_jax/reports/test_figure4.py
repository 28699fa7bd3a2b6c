"""Figure 4 from run folders made by hand."""

import pytest
from run_folders import make_run

from harness.runs.index import find_runs
from tpgr_jax.reports.figure4 import (
    CLUSTERING_ARMS,
    DEPTH_ARMS,
    Arm,
    Compared,
    Figure4Config,
    compare,
    missing_runs,
    report_figure4,
    seconds_per_step,
)
from tpgr_jax.reports.results import SYSTEM

ROWS = [
    {"step": 10, "seconds": 50.0},
    {"step": 20, "seconds": 54.0},
    {"step": 25, "seconds": 56.5},
    {"step": 35, "seconds": 76.5},
]


def found_in(folder):
    return find_runs([str(folder)], "eval.json").runs


def tree(clustering="pca", vectors="rating", depth=2, **more):
    return {"tree.clustering": clustering, "tree.vectors": vectors, "tree.depth": depth, **more}


def test_seconds_per_step_leave_out_the_first_log_point(tmp_path):
    make_run(tmp_path / "a", [1, 2], rows=ROWS)
    make_run(tmp_path / "b", [1, 2], rows=ROWS[:1])
    make_run(tmp_path / "c", [1, 2])
    group = make_run(tmp_path / "group", settings={"num_seeds": 2})
    make_run(group / "seed_0", [1, 2], rows=ROWS)
    # 4/10, 2.5/5 and 20/10 seconds: the median is 0.5.
    assert [seconds_per_step(run) for run in found_in(tmp_path)] == [pytest.approx(0.5), None, None, None]


def test_trees_are_compared_over_seeds(tmp_path):
    make_run(tmp_path / "pca0", [1, 2], tree(seed=0), ROWS)
    make_run(tmp_path / "pca1", [2, 3], tree(seed=1), [ROWS[0], {"step": 20, "seconds": 57.0}])
    make_run(tmp_path / "kmeans", [1, 1], tree("kmeans", "mf"))
    make_run(tmp_path / "random", [1, 0], tree("random", "rating"))
    make_run(tmp_path / "random_mf", [0, 1], tree("random", "mf", seed=1))  # the vectors do not matter
    make_run(tmp_path / "deep", [3, 3], tree(depth=3))
    make_run(tmp_path / "alpha", [9, 9], tree() | {"env.alpha": 0.2})
    make_run(tmp_path / "short", [9, 9], tree() | {"train.steps": 20})
    make_run(tmp_path / "other", [9, 9], {"agent.name": "dqn_r"})
    compared = compare(found_in(tmp_path), 0.1)
    rewards = {arm: arm_result.result.mean("reward") for arm, arm_result in compared.arms.items()}
    assert rewards == {
        Arm("pca", "rating", 2): 2.0,
        Arm("kmeans", "mf", 2): 1.0,
        Arm("random", None, 2): 0.5,
        Arm("pca", "rating", 3): 3.0,
    }
    assert compared.arms[Arm("pca", "rating", 2)].result.seeds == [0, 1]
    assert compared.arms[Arm("pca", "rating", 2)].seconds.mean == pytest.approx((0.5 + 0.7) / 2)
    assert compared.arms[Arm("random", None, 2)].result.seeds == [0, 1]
    assert compared.arms[Arm("kmeans", "mf", 2)].seconds is None
    assert compared.left_out == [f"{tmp_path / 'short'}: differs from most runs: train.steps=20"]


def test_variants_of_one_tree_are_not_averaged(tmp_path):
    make_run(tmp_path / "a", [1, 2], tree(vectors="mf", seed=0))
    make_run(tmp_path / "b", [3, 4], tree(vectors="mf", seed=1))
    make_run(tmp_path / "c", [9, 9], tree(vectors="mf", seed=2) | {"tree.vector_size": 8})
    make_run(tmp_path / "d", [5, 6], tree(seed=0) | {"tree.vector_size": 8})
    make_run(tmp_path / "e", [5, 7], tree(seed=1))  # columns of ratings have the size they have
    compared = compare(found_in(tmp_path), 0.1)
    assert {arm.label: found.result.seeds for arm, found in compared.arms.items()} == {
        "PCA, MF vectors": [0, 1],
        "PCA, rating vectors": [0, 1],
    }
    assert compared.left_out == [f"{tmp_path / 'c'}: differs from most runs: tree.vector_size=8"]


def test_missing_trees_are_named_with_commands_that_make_them(tmp_path):
    make_run(tmp_path / "a", [1, 2], tree() | {"train.steps": 20, "agent.policy.hidden": []})
    make_run(tmp_path / "b", [1, 2], tree("kmeans", "vae") | {"train.steps": 20, "agent.policy.hidden": []})
    commands = SYSTEM.rerun_commands(missing_runs(compare(found_in(tmp_path), 0.1), 0.1))
    same = "agent.policy.hidden=[] train.steps=20 env.alpha=0.1 seed=0"
    start = "python -m tpgr_jax.train +experiment=movielens agent=tpgr"
    assert [command.replace("'", "") for command in commands] == [
        f"{start} {choice} {same}"
        for choice in (
            *("tree=pca_vae", "tree=pca_mf", "tree=kmeans", "tree=kmeans_mf", "tree=random"),
            *("tree=pca tree.depth=1", "tree=pca tree.depth=3", "tree=pca tree.depth=4"),
        )
    ]
    nothing = missing_runs(Compared({}, [], []), 0.1)
    assert len(SYSTEM.rerun_commands(nothing)) == len(set(CLUSTERING_ARMS) | set(DEPTH_ARMS)) == 10


def test_the_report(tmp_path):
    make_run(tmp_path / "runs" / "a", [1, 2], tree(), ROWS, synthetic=True)
    make_run(tmp_path / "runs" / "b", [2, 2], tree("random"), synthetic=True)
    report_figure4(Figure4Config("figure4", [str(tmp_path / "runs")], None, str(tmp_path), alpha=0.1))
    text = (tmp_path / "figure4.md").read_text()
    assert text.startswith("# Figure 4: movielens_1m (SYNTHETIC), alpha 0.1\n")
    rows = [line for line in text.splitlines() if line.startswith(("| PCA", "| random"))]
    assert [row.split(" | ")[1:] for row in rows] == [
        ["2", "1.5000 ± 6.3531", "0.750", "0.5000", "1 |"],
        ["2", "2.0000", "1.000", "", "1 |"],
        ["2", "1.5000 ± 6.3531", "0.750", "0.5000", "1 |"],
    ]
    for name in ("clustering", "depth"):
        assert (tmp_path / f"figure4_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "movielens_1m,True,sha256:aa,0.1,pca,rating,2,0,1.5," in (tmp_path / "figure4.csv").read_text()
    report_figure4(Figure4Config("figure4", [str(tmp_path / "runs")], None, str(tmp_path), alpha=0.3))
    assert "# Figure 4, alpha 0.3\n\n## Missing" in (tmp_path / "figure4.md").read_text()
