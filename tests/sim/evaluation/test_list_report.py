"""What reports say about lists, from run folders made by hand."""

from run_folders import list_facts, make_run, make_session_run

from hrlmg_jax.reports.figures7_8 import report_figure8
from hrlmg_jax.reports.worlds import WorldsConfig
from tpgr_jax.reports.table2 import Table2Config, report_table2


def rows_after(text, head):
    lines = text.split(head, 1)[1].splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("|"))
    table = lines[first : lines.index("", first)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def table2(folder):
    report_table2(Table2Config("table2", [str(folder)], None, str(folder / "out")))
    return (folder / "out" / "table2.md").read_text()


def test_means_over_runs_beside_the_fixed_lists(tmp_path):
    for seed in (0, 1):
        lists = {"tpgr": list_facts(0.1 + 0.1 * seed), "random": list_facts(0.4), "best_fixed_list": list_facts(0.02)}
        lists["tpgr"]["intra_list_distance"] = None if seed else 0.3  # lists of one item have none
        make_run(tmp_path / f"own{seed}", [1, 2, 3], {"seed": seed}, lists=lists)
    make_run(tmp_path / "old", [1, 2, 2], {"agent.name": "dqn_r"})
    text = table2(tmp_path)
    head, _, *rows = rows_after(text, "### What the lists are like")
    assert head == ["method", "coverage", "Gini", "novelty, bits", "distance within", "distinct per 100"]
    assert rows == [
        ["TPGR", "0.1500", "0.3000", "0.4500", "0.3000", "0.7500"],
        ["best fixed list", "0.0200", "0.0400", "0.0600", "0.0800", "0.1000"],
        ["random", "0.4000", "0.8000", "1.2000", "1.6000", "2.0000"],
    ]
    _, _, own, *_ = rows_after(text, "### Reward by activity and popularity")
    assert own == ["TPGR", "0.1500", "0.3000", "0.4500", "0.1500 (50%)", "0.3000 (50%)", "(0%)"]
    assert "* 1 run does not describe lists (of an earlier version): python -m tpgr_jax.evaluate run=FOLDER" in text


def test_runs_of_earlier_versions_alone_only_say_so(tmp_path):
    make_run(tmp_path / "a", [1, 2, 3])
    text = table2(tmp_path)
    assert "* 1 run does not describe lists" in text
    assert "### Reward by activity" not in text


def test_sessions_of_both_kinds_of_users(tmp_path):
    lists = {"hrl_mg": list_facts(0.1), "popularity": list_facts(0.2)}
    make_session_run(tmp_path / "a", [1, 2], truth=[1, 2], lists=lists)
    report_figure8(WorldsConfig(report="figure8", runs=[str(tmp_path)], data_name=None, out=str(tmp_path / "out")))
    _, *parts = (tmp_path / "out" / "figure8.md").read_text().split("\n## ")
    described = [part.split(" ", 1)[0] for part in parts if "### What the lists are like" in part]
    assert described == ["Long", "Long"]
    _, _, *rows = rows_after(parts[0], "### What the lists are like")
    assert [row[:2] for row in rows] == [["HRL-MG", "0.1000"], ["Popularity", "0.2000"]]
