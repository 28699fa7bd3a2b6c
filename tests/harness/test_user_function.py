"""Functions of the user's in a Python file: what is run, and what is said where it fails."""

import hashlib
import os
import py_compile
import re
import sys

import pytest

from harness.errors import UserError
from harness.user_function import load_function, read_file, split_path

KEY = "agent.path"


def test_a_function_its_neighbours_and_other_callables(tmp_path):
    (tmp_path / "beside_it.py").write_text("FACTOR = 3\n")
    (tmp_path / "my.py").write_text(
        "from dataclasses import dataclass\n"
        "from beside_it import FACTOR\n"
        "def times(number):\n"
        "    return FACTOR * number\n"
        "@dataclass\n"
        "class Plus:\n"
        "    more: int\n"
        "    def __call__(self, number):\n"
        "        return number + self.more\n"
        "plus = Plus(2)\n"
    )
    times = load_function(f"{tmp_path}/my.py:times", KEY)
    assert times.call(5, "now") == 15
    assert str(times) == f"times in {tmp_path}/my.py"
    assert re.fullmatch("[0-9a-f]{64}", times.sha256)
    assert load_function(f"{tmp_path}/my.py:plus", KEY).call(5, "now") == 7


def test_each_call_runs_the_file_as_it_is_now(tmp_path):
    for number in (1, 2):
        (tmp_path / "my.py").write_text(f"def one(x):\n    return {number}\n")
        assert load_function(f"{tmp_path}/my.py:one", KEY).call(None, "") == number


def test_what_runs_is_what_was_hashed(tmp_path, monkeypatch):
    """Python's own loader would take a `.pyc` whose record of size and second fits, whatever code is in it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file, told, other = tmp_path / "my.py", "def one(x):\n    return 1\n", "def one(x):\n    return 2\n"
    file.write_text(other)
    py_compile.compile(str(file), doraise=True)  # where Python looks for it
    when = file.stat().st_mtime
    file.write_text(told)
    os.utime(file, (when, when))
    first = load_function(f"{file}:one", KEY)
    assert (first.call(None, ""), first.sha256) == (1, hashlib.sha256(told.encode()).hexdigest())
    # Read once: what is written later does not run.
    read = read_file(f"{file}:one", KEY)
    file.write_text(other)
    assert (read.run().call(None, ""), read.sha256) == (1, first.sha256)
    os.utime(file, (when, when))
    assert load_function(f"{file}:one", KEY).call(None, "") == 2


@pytest.mark.parametrize("path", [None, "my.py", "my.py:", ":policy", "my.py:a.b", "my.py:1"])
def test_what_is_no_path(path):
    with pytest.raises(UserError, match=r"agent\.path.*\n.*my\.py:policy"):
        split_path(path, KEY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import there_is_none\n",
            r"ModuleNotFoundError: .* 'there_is_none' when it was run\n  See line 1",
        ),
        ("x = 1\n\ndef policy(:\n", r"raised SyntaxError: .*\n  See line 3"),
        ("import sys\nsys.exit('bye')\n", r"raised SystemExit: bye .*\n  See line 2"),
        ("policy = 3\n", "defines no function policy"),
        ("", "defines no function policy"),
    ],
)
def test_files_that_cannot_be_used(text, message, tmp_path):
    (tmp_path / "my.py").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_function(f"{tmp_path}/my.py:policy", KEY)
    assert f"{tmp_path}/my.py" in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_function(f"{tmp_path}/my.py:policy", KEY)


def test_errors_name_the_call_and_the_last_line_of_the_users_file(tmp_path):
    (tmp_path / "my.py").write_text(
        "import json\ndef inner(x):\n    return json.loads(x)\ndef policy(x):\n    return inner(x)\n"
    )
    function = load_function(f"{tmp_path}/my.py:policy", KEY)
    with pytest.raises(UserError) as caught:
        function.call("{", "for user 7 at step 3")
    assert re.match(
        rf"policy in {tmp_path}/my\.py: raised JSONDecodeError: .* for user 7 at step 3\n  See line 3\.$",
        str(caught.value),
    )
    (tmp_path / "my.py").write_text("def policy():\n    return 1\n")
    with pytest.raises(UserError, match=r"raised TypeError: .* takes 0 positional arguments"):
        load_function(f"{tmp_path}/my.py:policy", KEY).call([], "")
