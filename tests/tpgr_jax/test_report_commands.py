"""The report command through its real command line."""

import pytest
from command_lines import assert_one_message
from run_folders import make_run

from harness.errors import UserError
from harness.reports import command
from tpgr_jax.report import MODULE, REPORTS

REPORT = "tpgr_jax.report"
ROWS = [{"step": step, "episodes": 8 * step, "seconds": 1.0 * step, "test_reward": step / 10} for step in (2, 4)]
RATINGS = "user,item,rating,time\n" + "\n".join(
    # In order of time: 5, 4, 2, 1 of user a and 4, 4 of user b.
    ["a,1,2,30", "a,2,4,20", "a,3,5,10", "a,4,1,40", "b,1,4,2", "b,2,4,1", ""]
)


def test_words_and_folders_become_overrides():
    def hydra_arguments(arguments):
        return command.hydra_arguments(MODULE, REPORTS, arguments)

    assert hydra_arguments(["table2"]) == ["report=table2"]
    assert hydra_arguments(["curves", "runs=a,b c", "out=x"]) == ["report=curves", 'runs=[a,"b c"]', "out=x"]
    assert hydra_arguments(["runs", "a", "b,c", "--cfg", "job"]) == ["report=runs", 'runs=[a,"b,c"]', "--cfg", "job"]
    assert hydra_arguments(["runs", "runs=[a,b]"]) == ["report=runs", "runs=[a,b]"]
    assert hydra_arguments(["runs", "runs=null", "+x=runs"]) == ["report=runs", "runs=null", "+x=runs"]
    assert hydra_arguments(["--help"]) == ["--help"]
    for wrong in ([], ["tables"], ["out=x"]):
        with pytest.raises(UserError, match=r"Name one: .* table2"):
            hydra_arguments(wrong)


def test_table2_of_groups_and_single_runs(run_command_line, tmp_path):
    group = make_run(tmp_path / "outputs" / "group", settings={"num_seeds": 2})
    for seed in (0, 1):
        make_run(group / f"seed_{seed}", [1 + seed, 2 + seed], {"seed": seed})
    make_run(tmp_path / "multirun" / "day" / "0", [1, 3], {"agent.name": "dqn_r"})
    finished = run_command_line(REPORT, "table2", "out=tables")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "| TPGR | 2.0000 ± 6.3531 |" in finished.stdout
    assert "| DQN-R | 2.0000 ± 12.7062 |" in finished.stdout
    assert finished.stdout.endswith("written to tables: table2.md, table2.csv, table2.png\n")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"table2.md", "table2.csv", "table2.png"}
    assert (tmp_path / "tables" / "table2.md").read_text().strip() in finished.stdout


def test_reports_on_single_runs(run_command_line, tmp_path):
    make_run(tmp_path / "a run", [1, 2], rows=ROWS, checkpoint=4, synthetic=True)
    make_run(tmp_path / "b", rows=ROWS[:1], settings={"seed": 1}, checkpoint=2, synthetic=True)
    listed = run_command_line(REPORT, "runs", "a run", "b")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split()[-7:] for line in listed.stdout.splitlines()[1:]] == [
        ["finished", "4/1000", "0.4000", "0.4000", "(4)", "4", "1.5000"],
        ["interrupted", "2/1000", "0.2000", "0.2000", "(2)", "2", "-"],
    ]
    curves = run_command_line(REPORT, "curves", "runs=a run,b", "over=seconds")
    assert (curves.returncode, curves.stderr) == (0, "")
    assert "| TPGR | 0 1 | 4 | 0.4000 | 4 | 0.4000 |" in curves.stdout
    assert "(SYNTHETIC)" in curves.stdout
    text = (tmp_path / "outputs" / "report" / "curves.csv").read_text()
    assert "movielens_1m,True,sha256:aa,TPGR,test_reward,2,16,2.0,0.2,0.2,0.2,2\n" in text
    figure = run_command_line(REPORT, "figure4", "a run", "out=.")
    assert (figure.returncode, figure.stderr) == (0, "")
    assert "tree=kmeans_vae" in figure.stdout
    assert (tmp_path / "figure4_depth.png").exists()


def test_figure3_of_a_file(run_command_line, tmp_path):
    (tmp_path / "ratings.csv").write_text(RATINGS)
    chosen = ["figure3", "data=ratings_file", "data.path=ratings.csv", "out=."]
    finished = run_command_line(REPORT, *chosen, "data.timestamp_column=time", "max_count=2")
    assert (finished.returncode, finished.stderr) == (0, "")
    rows = [
        line.split(" | ")
        for line in (tmp_path / "figure3.md").read_text().splitlines()
        if line[:3] in ("| 0", "| 1", "| 2")
    ]
    assert [(row[0][2:], row[1].split()[0], row[2], row[3]) for row in rows] == [
        ("0 positive", "3.3333", "3", "2 |"),
        ("1 positive", "4.0000", "2", "2 |"),
        ("2 positive", "2.0000", "1", "1 |"),
        ("0 negative", "3.8000", "5", "2 |"),
        ("1 negative", "1.0000", "1", "1 |"),
    ]
    assert (tmp_path / "figure3.png").read_bytes().startswith(b"\x89PNG")
    assert "ratings_file,False,sha256:" in (tmp_path / "figure3.csv").read_text()
    assert_one_message(run_command_line(REPORT, *chosen), "has no timestamps", "data.timestamp_column")


def test_help_names_reports_and_keys(run_command_line):
    shown = run_command_line(REPORT, "figure3", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "python -m tpgr_jax.report table2" in shown.stdout
    assert "max_count: 10" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["table3"], ["there is no report 'table3'", "table2|figure3"]),
        (["table2", "alpha=0.1"], ["alpha"]),
        (["runs", "nowhere"], ["nowhere", "no such folder"]),
        (["curves"], ["no runs below outputs or multirun", "+experiment=table2"]),
        (["figure4", "alpha=-1"], ["alpha is -1"]),
        (["figure3", "data=jdata"], ["data=jdata is no choice", "hrlmg_jax.train"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_message_and_leave_nothing_behind(run_command_line, tmp_path, arguments, parts):
    assert_one_message(run_command_line(REPORT, *arguments), *parts)
    assert list(tmp_path.iterdir()) == []


def test_mixed_splits_are_one_message(run_command_line, tmp_path):
    make_run(tmp_path / "outputs" / "a", [1, 2])
    make_run(tmp_path / "outputs" / "b", [1, 2], {"data.split_seed": 1})
    assert_one_message(run_command_line(REPORT, "table2"), "data.split_seed is 0", "outputs/b", "runs=FOLDER")
    assert run_command_line(REPORT, "runs").stdout.count("finished") == 2
