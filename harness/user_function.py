"""User code: a function in a Python file that a setting names as FILE.py:FUNCTION."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError

_EXAMPLE = "Give a file and a function in it, as in my.py:policy."


def split_path(path: str | None, key: str) -> tuple[str, str]:
    """Returns file and function of FILE.py:FUNCTION.

    Raises:
        UserError: It is nothing of the kind; `key` is the setting.
    """
    file, _, name = (path or "").rpartition(":")
    if not file or not name.isidentifier():
        raise UserError("is not set" if path is None else f"is {path!r}", where=key, do=_EXAMPLE)
    return file, name


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's, whose errors are told as one message.

    Attributes:
        file: Where it is.
        name: Of the function.
        function: It.
        sha256: Of the file when it was loaded.
    """

    file: Path
    name: str
    function: Callable[..., Any]
    sha256: str

    def __str__(self) -> str:
        """Returns function and file."""
        return f"{self.name} in {self.file}"

    def call(self, argument: Any, when: str) -> Any:
        """Returns what the function returns for an argument; `when` says in a message which call it was.

        Raises:
            UserError: It has raised something.
        """
        try:
            return self.function(argument)
        except (Exception, SystemExit) as error:
            raise UserError(f"{_described(error)} {when}", where=str(self), do=_line(error, self.file)) from error


def load_function(path: str | None, key: str) -> UserFunction:
    """Runs a Python file as a module and returns one of its functions (or other callables).

    The file's folder is first on the path while the file runs, so that it can import its neighbours.

    Args:
        path: FILE.py:FUNCTION.
        key: The setting, for messages.

    Raises:
        UserError: There is no such file, it fails, or it does not define the function.
    """
    text, name = split_path(path, key)
    file = Path(text).expanduser().absolute()
    if not file.is_file():
        raise UserError("no such file", where=f"{key}: {file}", do=_EXAMPLE)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    module_name = f"_user_{file.stem}_{sha256[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise UserError("is no Python file", where=f"{key}: {file}", do=_EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise UserError(
            f"{_described(error)} when it was run", where=f"{key}: {file}", do=_line(error, file)
        ) from error
    finally:
        sys.path.remove(str(file.parent))
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"defines no function {name}", where=f"{key}: {file}", do=_EXAMPLE)
    return UserFunction(file, name, function, sha256)


def _described(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"raised {type(error).__name__}{f': {text}' if text else ''}"


def _line(error: BaseException, file: Path) -> str:
    """Returns the last line of the user's file that the error came through."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"See line {error.lineno}."
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"See line {lines[-1]}." if lines else "It takes one argument; see docs/extending.md."
