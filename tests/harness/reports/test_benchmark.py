"""The benchmarks' table, and both commands through their real command lines at their smallest sizes."""

import dataclasses
import json
import math

import pytest

from harness.errors import UserError
from harness.reports import benchmark
from harness.reports.benchmark import Line, fitted_exponent, format_table, matrix_product_rate


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (Line("a", 3.0, "s"), ""),
        (Line("a", 3.0, "s", 3.0), "pass"),
        (Line("a", 3.1, "s", 3.0), "short"),
        (Line("a", 3.0, "x", 3.0, at_most=False), "pass"),
        (Line("a", 2.9, "x", 3.0, at_most=False), "short"),
        (Line("a", math.nan, "s", 3.0), "not measured"),
    ],
)
def test_verdicts(line, verdict):
    assert line.verdict == verdict


def test_exponent_of_a_power_law():
    assert fitted_exponent([10, 100, 1000], [2 * n**0.5 for n in (10, 100, 1000)]) == pytest.approx(0.5)


def test_a_matrix_product_takes_time():
    assert 1e6 < matrix_product_rate(64) < 1e18


def test_table():
    record = {
        "date": "2026-11-22",
        "device": "1 x cpu (cpu)",
        "cores": 2,
        "python": "3.11",
        "versions": {"jax": "0.10", "jaxlib": "0.10"},
        "smoke": True,
        "stolen": {"step": 0.123, "start": None},
    }
    lines = [Line("speed", 1234.5, "1/s", 1000, at_most=False, note="fast"), Line("gpu", math.nan, "1/s", 5)]
    table = format_table(record, {"step": lines}).splitlines()
    assert "SMOKE" in table[0]
    assert table[1] == "Processor time that other virtual machines took: step 12%"
    assert table[-2] == "| step | speed | 1,234 1/s | >= 1,000 1/s | pass | fast |"
    assert table[-1] == "| step | gpu |  | <= 5 1/s | not measured |  |"


@pytest.mark.parametrize(
    ("module", "sections"),
    [
        pytest.param("tpgr_jax.bench", ["--only", "decisions"], marks=pytest.mark.long),
        ("hrlmg_jax.bench", ["--only", "retrieval"]),
        pytest.param("tpgr_jax.bench", [], marks=pytest.mark.long),
        pytest.param("hrlmg_jax.bench", [], marks=pytest.mark.long),
    ],
)
def test_every_section_runs(module, sections, run_command_line, tmp_path):
    finished = run_command_line(module, "--smoke", *sections, "--out", "out")
    assert finished.returncode == 0, finished.stderr
    record = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert (tmp_path / "out" / "bench.md").read_text().strip() == finished.stdout.strip()
    assert record["smoke"]
    assert not (tmp_path / "outputs").exists()  # a second run would find it there, and measure less
    for lines in record["sections"].values():
        assert lines
        for line in lines:
            if line["target"] == 0:  # a count of faults
                assert line["value"] == 0, line
            else:
                either_sign = any(word in line["name"] for word in ("exponent", "grown"))
                assert line["value"] > 0 or math.isnan(line["value"]) or either_sign, line


def test_a_section_that_fails_does_not_stop_the_others(monkeypatch, capsys):
    def measure(module, arguments):
        if "broken" in arguments:
            raise UserError("out of memory")
        return [dataclasses.asdict(Line("speed", 2.0, "1/s"))]

    monkeypatch.setattr(benchmark, "in_own_process", measure)
    with pytest.raises(SystemExit) as stopped:
        benchmark.run_benchmark("module", dict.fromkeys(("broken", "whole"), lambda smoke: []), (), [])
    assert stopped.value.code == 1
    written = capsys.readouterr()
    assert "error: out of memory" in written.err
    assert "| broken | section broken failed |" in written.out
    assert "| whole | speed | 2 1/s |" in written.out


def test_the_end_of_what_a_failed_process_wrote_is_shown():
    with pytest.raises(UserError, match="no_such_module"):
        benchmark.in_own_process("no_such_module", [])


def test_unknown_sections_are_refused(run_command_line):
    finished = run_command_line("tpgr_jax.bench", "--only", "speed")
    assert finished.returncode == 2
    assert "invalid choice: 'speed'" in finished.stderr
    assert "Traceback" not in finished.stderr
