import pytest
from omegaconf import OmegaConf

from harness.errors import UserError
from harness.runs.run_folder import RunFolder
from harness.runs.seeds import Run, SeedsConfig, check_alike, group_of, new_runs, read_single_run, runs_in
from harness.settings import read_settings


def composed(**changes):
    values = {"seed": 5, "num_seeds": 3, "tree": {"seed": "${seed}", "depth": 2}, "resume": None}
    return OmegaConf.create(values | changes)


def started(path, **changes):
    """The runs of `composed`, written as a new group."""
    runs = new_runs(composed(**changes), RunFolder(path))
    group = group_of(runs)
    for run in [*runs, group] if group else runs:
        run.folder.start(run.values)
    return runs


def test_each_seed_gets_a_folder_and_a_configuration_of_its_own(tmp_path):
    runs = new_runs(composed(), RunFolder(tmp_path / "group"))
    assert [run.folder.path for run in runs] == [tmp_path / "group" / f"seed_{seed}" for seed in (5, 6, 7)]
    assert [run.values for run in runs] == [
        {"seed": seed, "num_seeds": 1, "tree": {"seed": seed, "depth": 2}} for seed in (5, 6, 7)
    ]
    assert group_of(runs) == Run({**runs[0].values, "num_seeds": 3}, RunFolder(tmp_path / "group"))


def test_one_seed_is_an_ordinary_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    runs = started(tmp_path / "run", num_seeds=1)
    assert runs == [Run({"seed": 5, "num_seeds": 1, "tree": {"seed": 5, "depth": 2}}, folder)]
    assert group_of(runs) is None
    assert runs_in(folder) == runs
    assert read_single_run(folder) == runs[0].values


def test_runs_from_before_there_were_several_seeds(tmp_path):
    RunFolder(tmp_path).start({"seed": 1})
    assert runs_in(RunFolder(tmp_path)) == [Run({"seed": 1}, RunFolder(tmp_path))]


def test_a_group_is_found_again_and_is_no_single_run(tmp_path):
    runs = started(tmp_path / "group")
    assert runs_in(RunFolder(tmp_path / "group")) == runs
    assert runs_in(runs[1].folder) == [runs[1]]
    assert read_single_run(runs[1].folder) == runs[1].values
    with pytest.raises(UserError, match=r"group: holds the runs of 3 seeds\n.*seed_5, .*seed_6, .*seed_7"):
        read_single_run(RunFolder(tmp_path / "group"))


@pytest.mark.parametrize("damaged", [["run"], ["group"], ["group", "seed_6"]])
def test_a_configuration_that_was_cut_before_its_seed_is_named(tmp_path, damaged):
    started(tmp_path / "run", num_seeds=1)
    started(tmp_path / "group")
    config = tmp_path.joinpath(*damaged, "config.yaml")
    tree, seeds = "tree:\n  depth: 2\n", config.read_text().partition("tree:")[0]
    assert seeds.startswith("seed: ")
    for length in range(len(tree + "seed:") + 1):  # in a real configuration, too, `seed` comes after what may be lost
        config.write_text((tree + seeds)[:length])
        with pytest.raises(UserError, match=f"^{config}: "):
            runs_in(RunFolder(tmp_path / damaged[0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2**32 - 1, "num_seeds": 2}, r"num_seeds=2 seeds from seed=4294967295 is 4294967296"),
        ({"num_seeds": 0}, "num_seeds is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_seeds_name_their_key(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        new_runs(composed(**changes), RunFolder(tmp_path))
    assert read_settings(SeedsConfig, {"seed": 2**32 - 1, "num_seeds": 1}).seeds == range(2**32 - 1, 2**32)


def test_what_else_depends_on_the_seed_is_refused(tmp_path):
    runs = new_runs(composed(data={"seed": "${seed}"}), RunFolder(tmp_path))
    with pytest.raises(UserError, match=r"data\.seed differs between seed 5 and seed 6"):
        check_alike(runs, ["tree.seed"])
    check_alike(runs, ["tree.seed", "data.seed"])
    check_alike(runs[:1], [])
