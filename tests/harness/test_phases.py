"""Wall time by phase."""

import pytest

from harness import phases as module
from harness.phases import Phases


@pytest.fixture
def clock(monkeypatch):
    times = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: times[0])
    return times


def test_a_phase_within_another_counts_for_itself(clock):
    phases = Phases()
    clock[0] += 1
    with phases.phase("data"):
        clock[0] += 2
    with phases.phase("training"):
        clock[0] += 4
        with phases.phase("evaluation"):
            clock[0] += 8
        clock[0] += 16
    with phases.phase("data"):
        clock[0] += 32
    assert phases.seconds() == {"data": 34, "training": 20, "evaluation": 8, "other": 1, "total": 63}


def test_time_counts_until_it_is_asked_for_and_after_errors(clock):
    phases = Phases()

    def fail():
        with phases.phase("data"):
            clock[0] += 2
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        fail()
    clock[0] += 1
    with phases.phase("training"):
        clock[0] += 4
        assert phases.seconds() == {"data": 2, "training": 4, "other": 1, "total": 7}
        clock[0] += 1
    assert phases.seconds()["training"] == 5
