"""Training and evaluation on a tree that the user made, as real command lines."""

from pathlib import Path

import numpy as np
import pytest
from command_lines import assert_one_message, metrics_without_times, run_module, trained_run

SMALL = [
    "data.size=tiny",
    "env.episode_length=8",
    "train.episodes_per_step=32",
    "train.steps=4",
    "train.log_every=2",
    "train.evaluate_every=4",
    "train.checkpoint_every=2",
]
TPGR = ["agent.policy.hidden=[8]", "agent.policy.embedding_epochs=1", "agent.learner.episodes_per_user=8"]
UNRATED = 10**6


def write_genres(path: Path) -> None:
    """A tree over the 100 generated items: one alone, genres of 9, 30 and 60, two divided, and one nobody rated."""
    from sim.generators.ratings import generate

    ids = generate("tiny", 0).item_ids.tolist()
    nodes, first_leaf = 7, 7
    children = np.full((nodes, 60), -1)
    children[0, :4] = [1, first_leaf, 2, 3]
    children[2, :2], children[3, :2] = [4, 5], [6, first_leaf + 100]
    for node, items in {1: range(1, 10), 4: range(10, 25), 5: range(25, 40), 6: range(40, 100)}.items():
        children[node, : len(items)] = [first_leaf + item for item in items]
    np.savez(path, children=children, leaf_ids=[*ids, UNRATED])


@pytest.fixture(scope="module")
def run(command_environment, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own_tree")
    write_genres(folder / "genres.npz")
    return trained_run(folder, command_environment, "tpgr_jax.train", *SMALL, *TPGR, "tree.path=genres.npz")[0]


def test_the_run_keeps_the_tree_in_level_order(run):
    with np.load(run / "tree.npz") as tree:
        assert tree["children"].shape == (7, 60)
        np.testing.assert_array_equal(tree["sizes"][0, :4], [9, 1, 30, 60])
        assert tree["depth"] == 3
        assert (tree["item_nodes"][0] >= 7).sum() == 2  # the item alone is reached at once
        assert sorted(tree["leaf_items"]) == list(range(100))
    assert [row["step"] for row in metrics_without_times(run)] == [2, 4]
    assert {"entropy_0", "entropy_1", "entropy_2"} <= metrics_without_times(run)[-1].keys()


def test_it_is_evaluated_without_the_file_to_the_same_numbers(run, command_environment):
    trained = (run / "eval.json").read_text()
    (run.parent / "genres.npz").rename(run.parent / "elsewhere.npz")
    finished = run_module(run.parent, command_environment, "tpgr_jax.evaluate", "run=run")
    assert finished.returncode == 0, finished.stderr
    assert (run / "eval.json").read_text() == trained
    with np.load(run / "eval.npz") as arrays:
        assert all(len(set(row)) == 8 for row in arrays["items"])


@pytest.mark.long
def test_the_value_tree_reads_it_padded(run_command_line, tmp_path):
    write_genres(tmp_path / "genres.npz")
    plus = ["agent=tpgr_plus", "agent.policy.factors=3", "train.steps=1", "hydra.run.dir=run"]
    finished = run_command_line("tpgr_jax.train", *SMALL, *plus, "tree.path=genres.npz")
    assert finished.returncode == 0, finished.stderr
    with np.load(tmp_path / "run" / "tree.npz") as tree:
        assert tree["children"].shape == (7, 60)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("none.npz", ["none.npz", "there is no such file", "tree.path"]),
        ("part.npz", ["part.npz", "is no tree over the items", "has 0 leaves"]),
    ],
)
def test_a_tree_that_does_not_fit_gets_one_message(run_command_line, tmp_path, path, parts):
    np.savez(tmp_path / "part.npz", children=[[1, 2]], leaf_ids=[1, 2])
    assert_one_message(run_command_line("tpgr_jax.train", *SMALL, *TPGR, f"tree.path={path}"), *parts)
