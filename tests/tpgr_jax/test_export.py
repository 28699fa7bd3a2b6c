"""Exports of runs on ratings: every agent gives the recommender's lists, without our packages."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import pytest
from bandit_methods import METHODS
from exports import assert_same_lists
from rating_exports import recommender_of

import tpgr_jax
from harness.errors import UserError
from harness.serving.exported import ExportedModel, NotAsked, Question, content_of
from sim.recommend import export
from sim.recommend.export import write_export
from sim.recommend.recommender import Recommender

OLD_RUNS = Path(__file__).parents[1] / "old_runs" / "5e63f8e"
QUICK = ("popularity", "linear_ucb", "dqn_r")
RATINGS = [1, 2, "3", None]


@pytest.fixture(scope="module", autouse=True)
def _few_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "BATCHES", (1, 8))
        yield


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in METHODS]
)
def test_an_agent_is_exported(name, tmp_path):
    recommender = recommender_of(name)
    facts = write_export(recommender, str(tmp_path / "export"), 5, True)
    blocks = "dqn" in name or "ddpg" in name  # what these compute at a time depends on the batch
    assert list(facts["programs"]["recommend"]) == (["1", "8"] if blocks else ["any"])
    model = assert_same_lists(recommender, tmp_path / "export", RATINGS)
    known, given = recommender.recommend([3], model.k), model.recommend([Question(model.history_of("3"))])
    np.testing.assert_array_equal(known.scores, given.scores)


@pytest.fixture(scope="module", params=["tpgr", pytest.param("tpgr_plus", marks=pytest.mark.long)])
def tree(request, tmp_path_factory, tables) -> tuple[Recommender, Path]:
    folder = shutil.copytree(OLD_RUNS / request.param / "run", tmp_path_factory.mktemp(request.param) / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TPGR_JAX_CACHE", str(tables))
        recommender = tpgr_jax.load(folder)
    write_export(recommender, str(folder.parent / "export"), 5, True)
    return recommender, folder.parent / "export"


def test_a_tree_is_exported_with_its_paths(tree):
    recommender, folder = tree
    model = assert_same_lists(recommender, folder, RATINGS)
    lists = recommender.recommend([[]], 3, paths=True)
    found = model.recommend([Question()], paths=True)
    np.testing.assert_array_equal(model.item_ids[found.items[0, :3]], lists.ids[0])
    path = lists.paths.filter(lists.paths["rank"] == 2)
    steps = found.path_child[0, 1] >= 0
    np.testing.assert_array_equal(found.path_child[0, 1][steps], path["node"].to_numpy())
    np.testing.assert_allclose(found.path_score[0, 1][steps], path["score"].to_numpy(), rtol=1e-6)
    below = model.titles[model.nodes["level_0"][path["node"][0]]]
    assert path["such_as"][0] == "; ".join(below)


def test_an_export_of_a_run_on_many_devices_is_for_one(tmp_path):
    recommender = recommender_of("linear_ucb")
    devices = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
    spread = jax.device_put(
        recommender.system.params, jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec())
    )
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(spread)} == {8}
    many = dataclasses.replace(recommender, system=dataclasses.replace(recommender.system, params=spread))
    facts = write_export(many, str(tmp_path / "export"), 5, True)
    content = (tmp_path / "export" / facts["programs"]["recommend"]["any"]).read_bytes()
    assert jax.export.deserialize(bytearray(content)).nr_devices == 1
    lists = recommender.recommend([[]], 5)
    found = ExportedModel(tmp_path / "export").recommend([Question()])
    np.testing.assert_array_equal(found.items[0, :5], lists.ids[0])


FIVE_LINES = """
import importlib.abc, json, os, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

BLOCKED = set(sys.argv[2].split(","))
sys.meta_path.insert(0, Blocked())
os.chdir(sys.argv[1])
"""
FOREIGN = "flax,hydra,omegaconf,polars,orbax,optax,chex,sim,tpgr_jax,hrlmg_jax,pydantic,sklearn"


def in_a_process_without(packages: str, folder: Path, code: str) -> Any:
    """Runs code in the folder of an export, in an environment that lacks packages; returns the JSON that it prints."""
    command = [sys.executable, "-c", FIVE_LINES + code, str(folder), packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("tree", ["tpgr", pytest.param("tpgr_plus", marks=pytest.mark.long)], indirect=True)
def test_an_export_needs_jax_and_numpy_alone(tree):
    recommender, folder = tree
    history = [(recommender.system.item_ids[place].item(), 3) for place in (4, 2, 7)]
    want = recommender.recommend([history], 5, exclude=[recommender.system.item_ids[0]])
    scores = want.scores[0].astype(float).tolist()
    facts = json.loads((folder / "model.json").read_text())
    # The lines in model.json, without any package of ours.
    rows = "\n".join(line for line in facts["how_to_call"])
    ask = (
        "facts = json.load(open('model.json'))\n"
        "import numpy as np\n"
        "fill = {'items': -1, 'excluded': -1, 'available': True}\n"
        "question = {name: np.full([{'b': 1, 'e': 16}.get(size) or int(size) for size in one['shape']],"
        " fill.get(name, 0), one['dtype']) for name, one in facts['inputs'].items()}\n"
        "question['items'][0, :3] = 4, 2, 7\n"
        "question['answers'][0, :3] = facts['answers']['values'].index(3)\n"
        "question['length'][0], question['excluded'][0, 0] = 3, 0\n"
    )
    tell = "\nprint(json.dumps([np.asarray(items)[0, :5].tolist(), np.asarray(scores)[0, :5].astype(float).tolist()]))"
    items, found = in_a_process_without(FOREIGN + ",harness", folder, _compiled_as_here() + ask + rows + tell)
    assert recommender.system.item_ids[items].tolist() == want.ids[0].tolist()
    assert found == scores

    # Our own reader, without what trains.
    code = (
        "from harness.serving.exported import ExportedModel, Question\n"
        "model = ExportedModel('.')\n"
        f"deny = model.items_of({[recommender.system.item_ids[0].item()]})\n"
        f"question = Question(model.past_of({history}), deny=deny)\n"
        "lists = model.recommend([question])\n"
        "print(json.dumps([lists.items[0, :5].tolist(), lists.scores[0, :5].astype(float).tolist()]))"
    )
    assert in_a_process_without(FOREIGN, folder, _compiled_as_here() + code) == [items, scores]


def _compiled_as_here() -> str:
    """How tests compile (tests/conftest.py); the flags are inherited."""
    return "import jax\njax.config.update('jax_disable_most_optimizations', True)\n"


def test_what_an_export_says_of_itself(tree):
    recommender, folder = tree
    facts = json.loads((folder / "model.json").read_text())
    assert facts["k"] == 16
    assert facts["platforms"] == ["cpu", "cuda", "tpu"]
    assert facts["answers"]["values"][0] is None
    assert facts["data"]["checksum"].startswith("sha256:")
    assert set(facts["metrics"]["eval.json"]) > {"random"}
    assert facts["made_with"]["versions"]["jax"]
    assert "xla_cpu" in facts["xla_flags"]
    assert facts["inputs"]["items"]["shape"] == ["b", str(recommender.system.env.episode_length - 1)]


def test_an_export_replaces_only_an_export(tmp_path):
    recommender = recommender_of("popularity")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match="is no export"):
        write_export(recommender, str(tmp_path / "other"), 5, True)
    assert [file.name for file in tmp_path.iterdir()] == ["other"]
    first = write_export(recommender, str(tmp_path / "export"), 5, True)
    second = write_export(recommender, str(tmp_path / "export"), 40, False)
    assert first["model"] != second["model"]
    assert ExportedModel(tmp_path / "export").k == 64
    assert {file.name for file in tmp_path.iterdir()} == {"other", "export"}


@pytest.mark.parametrize(
    ("facts", "others"),
    [
        ('{"format": "layers-model", "weightsManifest": []}', []),  # TensorFlow.js
        ('{"format": 1}', []),
        ("[]", []),
        ("no JSON", []),
        ('{"format": 1, "model": "0123"}', ["thesis.txt"]),
        ('{"format": 1, "model": "0123"}', ["folder/arrays.npz"]),
    ],
)
def test_the_models_of_other_programs_are_not_replaced(facts, others, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.json").write_text(facts)
    for other in others:
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).touch()
    with pytest.raises(UserError, match="is no export"):
        write_export(recommender_of("popularity"), str(folder), 5, True)
    assert (folder / "model.json").read_text() == facts
    assert all((folder / other).exists() for other in others)


def test_questions_that_cannot_be_answered(tmp_path):
    write_export(recommender_of("popularity"), str(tmp_path / "export"), 5, True)
    model = ExportedModel(tmp_path / "export")
    with pytest.raises(NotAsked, match="unknown user: nobody"):
        model.history_of("nobody")
    with pytest.raises(NotAsked, match="unknown items: 99, x"):
        model.past_of([(99, 1), ("x", 1)])
    for answer in (7, "good", True, [1], {"a": 1}, float("nan")):
        with pytest.raises(NotAsked, match="is no answer: an answer is a rating"):
            model.past_of([(1, answer)])
    with pytest.raises(NotAsked, match="none of the allowed"):
        model.allowed(model.items_of([]))


@pytest.mark.parametrize("file", ["items.npz", "arrays.npz", "recommend_any.stablehlo", "users.npz"])
def test_a_damaged_export_is_refused(file, tmp_path):
    write_export(recommender_of("popularity"), str(tmp_path / "export"), 5, True)
    place = tmp_path / "export" / file
    place.write_bytes(place.read_bytes()[:50])
    with pytest.raises(UserError, match="damaged"):
        ExportedModel(tmp_path / "export")
    (tmp_path / "export" / "model.json").write_text('{"format": 1, "k": 16}')
    with pytest.raises(UserError, match=r"model\.json: lacks answers, .*users"):
        ExportedModel(tmp_path / "export")
    (tmp_path / "export" / "model.json").write_text("{}")
    with pytest.raises(UserError, match="not an export of format 1"):
        ExportedModel(tmp_path / "export")
    with pytest.raises(UserError, match="no export"):
        ExportedModel(tmp_path)


def test_files_of_two_exports_are_not_mixed(tmp_path):
    for name in ("popularity", "linear_ucb"):
        write_export(recommender_of(name), str(tmp_path / name), 5, True)
    assert ExportedModel(tmp_path / "popularity").version == content_of(tmp_path / "popularity")
    (tmp_path / "popularity" / "README.md").touch()  # what is no part of it does not count
    ExportedModel(tmp_path / "popularity")
    (tmp_path / "popularity" / "items.npz").write_bytes((tmp_path / "linear_ucb" / "users.npz").read_bytes())
    with pytest.raises(UserError, match=r"damaged \(its files are not those that model\.json tells of"):
        ExportedModel(tmp_path / "popularity")


def test_evaluations_that_hold_no_numbers_stop_no_export(tmp_path):
    recommender = dataclasses.replace(recommender_of("popularity"), source=str(tmp_path))
    (tmp_path / "run.json").write_text("[]")
    (tmp_path / "eval.json").write_text('{"policies": {"random": {"reward": NaN}}}')
    (tmp_path / "online.json").write_text("[1]")
    facts = write_export(recommender, str(tmp_path / "export"), 5, True)
    assert facts["data"] == {}
    assert facts["metrics"] == {"eval.json": {"random": {"reward": None}}}
