"""The script that measures others beside ours: its table, its rounds, and what becomes of a peer that fails."""

import importlib
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "peers"
PIP_FAILS = """  error: subprocess-exited-with-error

  \N{MULTIPLICATION SIGN} Getting requirements to build wheel did not run successfully.
  \N{BOX DRAWINGS LIGHT VERTICAL} exit code: 1
  > [15 lines of output]
      The 'sklearn' PyPI package is deprecated, use 'scikit-learn'
      rather than 'sklearn' for pip commands.
      [end of output]
"""
TRACEBACK = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
ModuleNotFoundError: No module named 'gym'
"""


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("measure")


@pytest.fixture
def peers(measure, monkeypatch):
    """Two peers of one task, in place of the real ones."""
    first = measure.Peer("First", "environment", "first.py", ("first==1.0",), "it has one environment")
    second = measure.Peer("Second", "environment", "second.py", ("second==2.0",))
    monkeypatch.setattr(measure, "PEERS", (first, second))
    monkeypatch.setattr(measure, "TASKS", {"environment": "steps"})
    return first, second


def test_table_has_rates_ratios_and_reasons(measure, peers):
    first, second = peers
    rows = [
        measure.Row(first, "1.0", {"single": 200.0, "slates": 40.0}),
        measure.Row(second, reason="needs Python 2"),
    ]
    lines = measure.table(rows, {"environment": {"one": 50.0, "many": 4_000.0}}).splitlines()
    assert lines[2:] == [
        "| steps | First 1.0, single | 200 | 50 (one), 4,000 (many) | 0.25 (one), 20 (many) | it has one environment |",
        "| steps | First 1.0, slates | 40 | 50 (one), 4,000 (many) | 1.2 (one), 100 (many) | it has one environment |",
        "| steps | Second | | | not measured | needs Python 2 |",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PIP_FAILS, "The 'sklearn' PyPI package is deprecated, use 'scikit-learn'"),
        (TRACEBACK, "ModuleNotFoundError: No module named 'gym'"),
        ("WARNING: slow\nERROR: No matching distribution found for x\n", "ERROR: No matching distribution found for x"),
        ("", "no message"),
    ],
)  # fmt: skip
def test_reason_is_the_line_that_says_why(measure, text, reason):
    assert measure.reason_in(text) == reason


def test_rounds_alternate_and_failures_become_rows(measure, peers, monkeypatch, tmp_path, capsys):
    rates = {"ours.py": iter([10.0, 30.0, 20.0]), "first.py": iter([2.0, 1.0, 4.0])}
    called = []

    def command(words):
        words = [str(word) for word in words]
        if "second==2.0" in words:
            raise measure.CommandFailed("ERROR: No matching distribution found")
        if "venv" in words:
            (Path(words[-1]) / "bin").mkdir(parents=True)
        script = next((Path(word).name for word in words if word.endswith(".py")), "".join(words[2:3]))
        called.append(script)
        return json.dumps({"version": "1.0", "rates": {"": next(rates[script])}}) if script in rates else ""

    monkeypatch.setattr(measure, "command", command)
    monkeypatch.setattr(measure.os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(measure.os, "environ", {})
    measure.main(["--folder", str(tmp_path / "env"), "--out", str(tmp_path / "out"), "--rounds", "3"])

    # Everything is installed first; then ours and the peer take turns.
    assert called == ["venv", "pip", "venv", *["ours.py", "first.py"] * 3]
    text = (tmp_path / "out" / "peers.md").read_text()
    assert "| steps | First 1.0 | 2 | 20 | 10 | it has one environment |" in text
    assert "| steps | Second | | | not measured | ERROR: No matching distribution found |" in text
    assert text in capsys.readouterr().out
    raw = json.loads((tmp_path / "out" / "peers.json").read_text())
    assert raw["ours"] == {"environment": [{"": 10.0}, {"": 30.0}, {"": 20.0}]}
    assert [row["rates"] for row in raw["peers"]["First"]] == [{"": 2.0}, {"": 1.0}, {"": 4.0}]


def test_sources_must_be_given_and_a_command_that_fails_says_why(measure, tmp_path):
    peer = measure.Peer("Old", "environment", "old.py", source="example.org/old")
    with pytest.raises(measure.CommandFailed, match=r"give a folder with example.org/old by --source \"Old=FOLDER\""):
        measure.script_of(peer, tmp_path, {})
    row = measure.measured_peer(peer, ["sh", "-c", "echo too old >&2; exit 1"])
    assert (row.rates, row.reason) == (None, "too old")
    with pytest.raises(measure.CommandFailed, match="no such thing"):
        measure.command(["sh", "-c", "echo no such thing >&2; exit 3"])


def test_real_peers_are_pinned_and_have_scripts(measure):
    for peer in measure.PEERS:
        assert peer.task in measure.TASKS
        assert bool(peer.missing) != bool(peer.script)
        assert all(requirement.count("==") == 1 for requirement in peer.requirements)
        if peer.script:
            compile((FOLDER / peer.script).read_text(), peer.script, "exec")
