"""How commands start, fail and end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from harness.commands.command import describe_error, run_command
from harness.commands.start import Stopped, raised_signals
from harness.errors import UserError


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("is wrong", where="x", do="Do y."), 2, "error: x: is wrong\n  Do y.\n"),
        (PermissionError(13, "Permission denied", "/data/x"), 2, "choose another folder: hydra.run.dir=FOLDER"),
        (OSError(28, "No space left on device", "/data/x"), 2, "free space"),
        (FileNotFoundError(2, "No such file", "/data/x"), 2, "error: /data/x: No such file\n"),
        (MemoryError("3 GiB"), 2, "not enough memory: 3 GiB"),
    ],
)
def test_mistakes_are_one_message(error, code, said, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(raising(error))
    assert ended.value.code == code
    assert said in capsys.readouterr().err


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError("bug")))


@pytest.fixture
def usual_signals():
    """SIGINT as in a terminal: shells let their background jobs ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
@pytest.mark.parametrize("swallowed", [False, True])
def test_signals_end_a_command_in_one_line(number, word, swallowed, capsys):
    cleaned = []

    def main():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except (KeyboardInterrupt, Stopped):
            if swallowed:  # as a library may that calls back into Python
                raise RuntimeError("a callback failed") from None
            raise
        finally:
            cleaned.append(True)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == f"{word}\n"
    assert cleaned
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_ignored_signals_stay_ignored():
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as nohup does with SIGHUP
    try:
        with raised_signals():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)


SLOW_IMPORT = "import tpgr_jax, time; print('ready', flush=True); time.sleep(20)"


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_signals_during_imports_end_in_one_line(number, word):
    code = f"from harness.commands.start import begin_command; begin_command(); {SLOW_IMPORT}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (128 + number, f"{word}\n")


def test_results_of_ascii_terminals_are_escaped():
    code = "from harness.commands.command import run_command; run_command(lambda: print('0.5 ± 0.1', 'é'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "0.5 \\xb1 0.1 \\xe9\n"), done.stderr


@pytest.mark.parametrize(
    ("target", "message"), [("/dev/full", "error: standard output: No space left on device\n"), ("|", "")]
)
def test_work_goes_on_where_nobody_reads(tmp_path, target, message):
    if target != "|" and not os.path.exists(target):
        pytest.skip("needs /dev/full")
    code = "\n".join(
        [
            "import sys",
            "from harness.commands.command import run_command",
            "def main():",
            "    for number in range(20000): print(number)",
            f"    open({str(tmp_path / 'done')!r}, 'w').close()",
            "run_command(main)",
        ]
    )
    if target == "|":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(target, os.O_WRONLY)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (tmp_path / "done").exists()
    assert (done.returncode, done.stderr) == (1, message)


def test_a_device_that_is_not_there_is_named(monkeypatch):
    class Jax:
        @staticmethod
        def devices():
            raise RuntimeError("Unable to initialize backend 'tpu': no libtpu (set JAX_PLATFORMS='' to choose)")

    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setitem(sys.modules, "jax", Jax)
    message, code = describe_error(AssertionError())
    assert code == 2
    assert message.startswith(
        "JAX_PLATFORMS=tpu: JAX finds no such device here (Unable to initialize backend 'tpu': no libtpu)\n"
    )
    monkeypatch.delenv("JAX_PLATFORMS")
    assert describe_error(AssertionError()) is None
