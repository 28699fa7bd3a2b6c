"""The command that prints a data set's statistics, as people call it."""

import json
import subprocess

import pytest
from command_lines import run_module
from impression_logs import kuairand_events, kuairand_files, sessions_of, write_files

from sim.data import describe_log


@pytest.fixture
def run(tmp_path, command_environment):
    """Runs the command in an empty folder and checks that it leaves that folder empty."""

    def call(*arguments: str) -> subprocess.CompletedProcess:
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        environment = command_environment | {"TPGR_JAX_DATA": str(tmp_path / "data")}
        done = run_module(folder, environment, "sim.data", *arguments)
        assert list(folder.iterdir()) == []
        return done

    return call


def test_statistics_for_people(run):
    done = run("data.size=tiny")
    assert (done.returncode, done.stderr) == (0, "")
    assert "users             200" in done.stdout
    assert "ratings           4,000" in done.stdout
    assert "SYNTHETIC" in done.stdout


def test_statistics_for_programs(run, tmp_path):
    (tmp_path / "r.csv").write_text("u,i,r\na,1,2\nb,1,4\n")
    columns = ["data.user_column=u", "data.item_column=i", "data.rating_column=r"]
    done = run("data=ratings_file", f"data.path={tmp_path / 'r.csv'}", *columns, "json=true")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["users"], found["items"], found["ratings"], found["rating_mean"]) == (2, 1, 2, 3.0)


OLD = "warning: times begin in 1970-01-01, before 1990: check data.time_format\n"
LOG = """\
user,item,time,event
a,1,0,click
a,2,10,order
a,3,20,skip
b,1,90000,skip
b,2,90010,skip
"""


def test_a_log_for_people(run, tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    done = run("data=events_csv", f"data.path={tmp_path / 'log.csv'}", "data.split=day")
    assert (done.returncode, done.stderr) == (0, OLD)
    lines = [line.split() for line in done.stdout.splitlines()]
    for line in (["data", "set", "events_csv"], ["train", "test"], ["samples", "3", "2"], ["orders", "1", "0"]):
        assert line in lines
    assert ["click", "rate", "66.667%", "0.000%"] in lines
    assert ["time", "span", "1970-01-01", "to", "1970-01-01", "1970-01-02", "to", "1970-01-02"] in lines
    assert "SAMPLED" not in done.stdout


def test_a_log_for_programs(run, tmp_path):
    (tmp_path / "log.csv").write_text(LOG.replace("skip", "page.view").replace("order", "Bought it!"))
    named = 'data.events=["page.view=click","Bought it!=order"]'
    done = run("data=events_csv", f"data.path={tmp_path / 'log.csv'}", "data.split=day", "json=true", named)
    assert (done.returncode, done.stderr) == (0, OLD)
    found = json.loads(done.stdout)
    assert (found["users"], found["items"], found["synthetic"], found["synthetic_skips"]) == (2, 3, False, True)
    assert (found["parts"]["train"]["clicks"], found["parts"]["train"]["orders"]) == (3, 1)
    assert (found["summary"]["users"], found["summary"]["timestamps"]) == (2, [0, 90010])
    assert found["parts"]["test"]["samples"] == 3  # b can be shown one more item


def test_kuairand_says_that_its_orders_are_none(run, tmp_path):
    texts = kuairand_files(3, "27k", users=8)
    write_files(tmp_path / "logs" / "KuaiRand-27K" / "data", texts, packed=texts)
    standard = [text for name, text in texts.items() if "standard" in name]
    arguments = ["data=kuairand", f"data.root={tmp_path / 'logs'}", "data.min_item_events=1"]
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kuairand (its ORDERS are a PROXY: is_like or is_follow or is_comment or is_forward)" in done.stdout
    assert "SAMPLED" not in done.stdout
    found = json.loads(run(*arguments, "json=true", "data.order_proxy=[is_like,is_follow]").stdout)
    rows = sessions_of(kuairand_events(standard, ["is_like", "is_follow"]), 1800)
    parts = found["parts"].values()
    counted = [sum(part[name] for part in parts) for name in ("samples", "sessions", "clicks", "orders")]
    sessions = 1 + max(row[1] for row in rows)
    assert counted == [len(rows), sessions, *(sum(row[4] >= least for row in rows) for least in (1, 2))]
    assert found["users"] == 8
    assert found["order_proxy"] == "is_like or is_follow"


def test_sampled_skips_generated_logs_and_proxies_are_said_loudly():
    parts = {part: dict.fromkeys(["samples", "items", "users", "sessions", "clicks", "orders"], 1) for part in "ab"}
    for part in parts.values():
        part |= {"click_rate": 0.1, "order_rate": 0.1, "timestamps": [0, 1]}
        part["events_per_session"] = {"mean": 1.0, "median": 1.0, "min": 1, "max": 1}
    summary = {"users": 1, "items": 1, "events": 2, "sessions": 2, "share_test": 0.5, "median_session": 1}
    summary |= {"shares": {"skip": 1.0}, "repeats": 0.0, "left_out": {}, "timestamps": [0, 1]}
    found = {"name": "log", "users": 1, "items": 1, "parts": parts, "checksum": "", "source": "", "summary": summary}
    proxies = {"order_proxy": "is_like", "feedback_proxy": "skip below 4, click from 4"}
    said = describe_log({**found, "synthetic": True, "synthetic_skips": True, **proxies})
    assert "SYNTHETIC" in said
    assert "SKIPS are SAMPLED" in said
    assert "ORDERS are a PROXY: is_like" in said
    assert "its answers are RATINGS: skip below 4, click from 4" in said
    none = {"order_proxy": "", "feedback_proxy": ""}
    said = describe_log({**found, "synthetic": False, "synthetic_skips": False, **none})
    assert "SYNTHETIC" not in said
    assert "SAMPLED" not in said
    assert "PROXY" not in said
    assert "RATINGS" not in said


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["data=events_csv"], "error: data.path: is not set"),
        (["data=events_csv", "data.path=none.csv"], "error: none.csv: no such file"),
        (
            ["data=jdata", "data.session_gap=-1"],
            "error: data.session_gap is -1\n  It should be greater than or equal to 0.",
        ),
        (["data=retailrocket"], "error: retailrocket: no files of this data set"),
        (["data=kuairand"], "error: kuairand: no files of this data set"),
        (
            ["data=kuairand", "data.order_proxy=[is_hate]"],
            "error: data.order_proxy.0 is 'is_hate'\n  It should be 'is_like', 'is_",
        ),
        (["data=jdata", "data.order_proxy=[is_like]"], "error: data.order_proxy: is set, but the reader events_table"),
        (["data=ratings_file"], "error: data.path: is not set"),
        (["data=ratings_file", "data.path=none.csv"], "error: none.csv: no such file"),
        (["data.test_fraction=2"], "error: data.test_fraction is 2\n  It should be less than 1."),
        (["data=netflix", "data.offline_fallback=false"], "error: netflix: no files of this data set"),
    ],
)
def test_mistakes_give_one_message_and_code_2(run, arguments, problem):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(problem)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2
