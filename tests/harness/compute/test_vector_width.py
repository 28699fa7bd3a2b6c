"""The width of XLA's vectors: the processor's, the user's, or the one that a run began with."""

import json
import subprocess
import sys

import pytest

from harness.compute import vector_width
from harness.compute.vector_width import choose_vector_width
from harness.runs.run_folder import RunFolder

OTHER = "--xla_cpu_use_fusion_emitters=false"


@pytest.fixture
def began_with(tmp_path, monkeypatch):
    """Returns a function that makes a run with a record, on a processor with AVX-512, before anything is computed."""
    monkeypatch.setenv("XLA_FLAGS", OTHER)
    monkeypatch.setattr(vector_width, "backends_are_initialized", lambda: False)
    monkeypatch.setattr(vector_width, "_has_avx512", lambda: True)

    def run(record: dict | None) -> RunFolder:
        folder = RunFolder(tmp_path / "run")
        folder.path.mkdir()
        folder.config.write_text("seed: 0\n")
        if record is not None:
            folder.provenance.write_text(json.dumps(record))
        return folder

    return run


def _flags() -> str:
    return vector_width.os.environ["XLA_FLAGS"]


def test_a_new_run_has_the_widest_vectors_of_the_processor(began_with, monkeypatch):
    monkeypatch.setattr(vector_width, "_has_avx512", lambda: False)
    choose_vector_width()
    assert _flags() == OTHER
    assert vector_width.vector_width() == 256
    monkeypatch.setattr(vector_width, "_has_avx512", lambda: True)
    choose_vector_width()
    assert _flags() == f"{OTHER} --xla_cpu_prefer_vector_width=512"
    assert vector_width.vector_width() == 512


@pytest.mark.parametrize(
    ("record", "width"),
    [({"vector_width": 128}, 128), ({"versions": {}}, 256), ({"vector_width": None}, 512), (None, 512)],
)
def test_a_run_keeps_the_width_that_it_began_with(began_with, record, width, capsys):
    choose_vector_width(began_with(record))
    assert vector_width.vector_width() == width
    assert capsys.readouterr().err == ""


def test_the_users_width_stays_and_differs_in_a_line(began_with, monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256")
    choose_vector_width()
    assert capsys.readouterr().err == ""
    choose_vector_width(began_with({"vector_width": 512}))
    assert _flags() == "--xla_cpu_prefer_vector_width=256"
    assert "began with vectors of 512 bits, this process computes with 256" in capsys.readouterr().err


def test_a_process_that_computes_already_does_not_claim_another_width(began_with, monkeypatch, capsys):
    monkeypatch.setattr(vector_width, "backends_are_initialized", lambda: True)
    choose_vector_width(began_with({"vector_width": 512}))
    assert vector_width.vector_width() == 256
    assert "began with vectors of 512 bits" in capsys.readouterr().err


def test_xla_knows_the_flag_and_hears_it_before_it_computes():
    code = """if True:
        from harness.compute import vector_width
        vector_width._has_avx512 = lambda: True
        vector_width.choose_vector_width()
        import jax
        jax.jit(lambda x: x + 1)(1.0)
        print(vector_width.vector_width(), vector_width.backends_are_initialized())
    """
    environment = {name: value for name, value in vector_width.os.environ.items() if name != "XLA_FLAGS"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.split() == ["512", "True"]
