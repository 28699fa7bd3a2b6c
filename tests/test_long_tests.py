"""Which of the long tests are due."""

import subprocess
import sys

import pytest
from damage import CASES
from long_tests import Part, part
from test_damage import IN_CI


@pytest.mark.parametrize("count", [1, 3, 13, 80])
def test_every_test_is_in_one_part(count):
    tests = [f"test_{number}" for number in range(56)]
    parts = [Part(number, count).of(tests) for number in range(1, count + 1)]
    assert sorted(test for tests_due in parts for test in tests_due) == sorted(tests)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "3", "0/13", "14/13", "-1/13", "1/0", "1/2/3", "a/b"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(ValueError, match="K from 1 to N"):
        part(text)


def test_a_part_of_the_long_tests_can_join_the_others(repository):
    def collected(*arguments: str) -> set[str]:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "tests/test_damage.py",
            "--collect-only",
            "-q",
            "-n",
            "0",
            *arguments,
        ]
        lines = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.splitlines()
        return {line.partition("[")[2] for line in lines if "::" in line}

    names = [case.name for case in CASES]
    quick = [name for name in names if name in IN_CI]
    due = part("1/2").of([name for name in names if name not in IN_CI])
    found = collected("-m", "not long or due", "--long-part=1/2")
    assert {f"{name.replace(' ', '_')}]" for name in quick} < found
    assert len(found) == len(quick) + len(due)
