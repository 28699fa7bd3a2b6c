"""Several processes of one run, as real processes: they refuse together, soon, and say why."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.compute.processes import check_same_settings, meet

TRAIN = ["-m", "tpgr_jax.train", "data.size=tiny", "devices.count=0", "devices.processes=2"]
# Process 0 waits in a computation that process 1 never joins; process 1 refuses.
COMPUTES = """
import sys, time
from harness.commands.command import run_command
from harness.compute.devices import DevicesConfig
from harness.errors import UserError
from harness.compute.processes import agreed, join_processes, meet

def main():
    address, process = sys.argv[1:]
    join_processes(DevicesConfig(0, address, 2, int(process)))
    meet()
    if process == "0":
        agreed(3)
    time.sleep(1)
    raise UserError("the disk is full")

run_command(main)
"""


def slurm(address: str, process: int) -> dict[str, str]:
    """What Slurm tells one of two processes of a job whose number decides on the address."""
    port = int(address.rpartition(":")[2])
    names = {"JOB_ID": port - 61_440, "STEP_NODELIST": "localhost", "NTASKS": 2, "PROCID": process, "LOCALID": 0}
    return {f"SLURM_{name}": str(value) for name, value in names.items()}


@pytest.fixture
def address() -> str:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def run_two(
    folder: Path, environment: dict[str, str] | list[dict[str, str]], commands: list[list[str]]
) -> tuple[list[str], float]:
    """Starts two processes that have to end with exit code 2; returns their stderr and the seconds between the ends."""
    environments = environment if isinstance(environment, list) else [environment] * 2
    processes = [
        subprocess.Popen([sys.executable, *command], cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
        for command, env in zip(commands, environments, strict=True)
    ]
    ends: list[float] = []
    while len(ends) < 2:
        ends += [time.monotonic()] * (sum(process.poll() is not None for process in processes) - len(ends))
        time.sleep(0.05)
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], errors
    assert not any(word in text for word in ("Traceback", "Fatal", "coordination service") for text in errors), errors
    return errors, ends[1] - ends[0]


@pytest.mark.parametrize(
    ("different", "said"),
    [
        (["seed=5"], "seed is 0 in process 0, 5 in process 1; tree.seed is"),
        # Known before it has joined the other one:
        pytest.param(["env.alfa=1"], "unknown key env.alfa", marks=pytest.mark.long),
    ],
)
def test_processes_that_disagree_end_before_they_train(different, said, command_environment, tmp_path, address):
    shared = [*TRAIN, f"devices.coordinator={address}"]
    commands = [[*shared, f"devices.process={process}", f"hydra.run.dir=run{process}"] for process in (0, 1)]
    commands[1] += different
    errors, seconds = run_two(tmp_path, command_environment, commands)
    assert seconds < 10
    assert "".join(errors).count("error: ") == 1
    for process, text in enumerate(errors):
        assert said in text
        if "env" not in said or process == 0:
            assert text.startswith(f"process {process} of 2: waiting for the others at {address}\n")
    assert list(tmp_path.iterdir()) == []


def test_processes_of_a_scheduler_hear_of_one_that_refuses_before_it_joins(command_environment, tmp_path):
    with socket.socket() as probe:
        address = next(f"localhost:{port}" for port in range(64_000, 65_535) if probe.connect_ex(("localhost", port)))
    shared = ["-m", "tpgr_jax.train", "data.size=tiny", "devices.count=0", "devices.coordinator=auto"]
    commands = [[*shared, f"hydra.run.dir=run{process}", *["env.alfa=1"] * process] for process in (0, 1)]
    environments = [command_environment | slurm(address, process) for process in (0, 1)]
    errors, seconds = run_two(tmp_path, environments, commands)
    assert seconds < 10
    assert "process 0 ends, since process 1 does: unknown key env.alfa" in errors[0]


def test_a_process_in_a_computation_ends_when_another_refuses(command_environment, tmp_path, address):
    commands = [["-c", COMPUTES, address, process] for process in ("0", "1")]
    errors, seconds = run_two(tmp_path, command_environment, commands)
    assert seconds < 10
    assert "process 0 ends, since process 1 does: the disk is full" in errors[0]
    assert errors[1].endswith("error: the disk is full\n")


def test_a_process_that_waits_in_vain_gives_up_with_one_message(command_environment, tmp_path, address):
    impatient = COMPUTES.replace(
        "run_command(main)", "import harness.compute.processes\nharness.compute.processes._JOIN_SECONDS = 1\n"
    ) + ("run_command(main)")
    finished = subprocess.run(
        [sys.executable, "-c", impatient, address, "0"], env=command_environment, capture_output=True, text=True
    )
    waiting, *said = finished.stderr.splitlines()
    assert (finished.returncode, waiting) == (2, f"process 0 of 2: waiting for the others at {address}")
    assert (
        said[0] == f"error: devices.coordinator={address}: the processes cannot be joined (not all are there after 1 s)"
    )


def test_a_single_process_agrees_with_itself():
    check_same_settings({"seed": 0})
    meet()
