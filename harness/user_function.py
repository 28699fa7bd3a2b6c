"""User code: a function in a Python file that a setting names as FILE.py:FUNCTION."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
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
        function: What is called.
        sha256: Of the bytes of the file that were run.
    """

    file: Path
    name: str
    function: Callable[..., Any]
    sha256: str

    def __str__(self) -> str:
        """Returns function and file."""
        return f"{self.name} in {self.file}"

    @property
    def record(self) -> dict[str, str]:
        """Where it is and what the file held, for the files of a run."""
        return {"file": str(self.file), "function": self.name, "sha256": self.sha256}

    def call(self, argument: Any, when: str, read: Callable[[Any], Any] = lambda returned: returned) -> Any:
        """Returns what the function returns for an argument.

        Args:
            argument: Its only one.
            when: Which call it was, for messages.
            read: Applied to what it returns, which may be a generator and run the user's code only then.

        Raises:
            UserError: It has raised something.
        """
        try:
            return read(self.function(argument))
        except (Exception, SystemExit) as error:
            raise UserError(f"{_described(error)} {when}", where=str(self), do=_line(error, self.file)) from error


@dataclass(frozen=True)
class UserFile:
    """A Python file as it was read, of which a function is to be used: nothing of it has run yet.

    Attributes:
        file: Where it is.
        name: Of the function.
        key: The setting that names them, for messages.
        content: Its bytes; they are what runs, whatever the file or a `.pyc` holds by then.
    """

    file: Path
    name: str
    key: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()

    def __str__(self) -> str:
        """Returns function and file."""
        return f"{self.name} in {self.file}"

    def run(self) -> UserFunction:
        """Runs the content as a module and returns the function (or another callable).

        The file's folder is first on the path meanwhile, so that it can import its neighbours.

        Raises:
            UserError: It fails, or does not define the function.
        """
        where, sha256 = f"{self.key}: {self.file}", self.sha256
        module_name = f"_user_{self.file.stem}_{sha256[:12]}"
        loader = _ContentLoader(module_name, str(self.file), self.content)
        spec = importlib.util.spec_from_file_location(module_name, self.file, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up
        sys.path.insert(0, str(self.file.parent))
        try:
            loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            raise UserError(f"{_described(error)} when it was run", where=where, do=_line(error, self.file)) from error
        finally:
            sys.path.remove(str(self.file.parent))
        function = getattr(module, self.name, None)
        if not callable(function):
            raise UserError(f"defines no function {self.name}", where=where, do=_EXAMPLE)
        return UserFunction(self.file, self.name, function, sha256)


class _ContentLoader(SourceFileLoader):
    """Compiles the bytes that it was given: neither the file is read again nor a `.pyc` of it."""

    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self._content = content

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._content, self.path)


def read_file(path: str | None, key: str, do: str = _EXAMPLE) -> UserFile:
    """Reads a Python file once, without running it.

    Args:
        path: FILE.py:FUNCTION.
        key: The setting, for messages.
        do: What to do where there is no such file.

    Raises:
        UserError: There is no such file, or it cannot be read.
    """
    text, name = split_path(path, key)
    file = Path(text).expanduser().absolute()
    if not file.is_file():
        raise UserError("no such file", where=f"{key}: {file}", do=do)
    try:
        return UserFile(file, name, key, file.read_bytes())
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=f"{key}: {file}", do=do) from None


def load_function(path: str | None, key: str) -> UserFunction:
    """Reads a Python file and runs it; see `read_file` and `UserFile.run`."""
    return read_file(path, key).run()


def _described(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"raised {type(error).__name__}{f': {text}' if text else ''}"


def _line(error: BaseException, file: Path) -> str:
    """Returns the last line of the user's file that the error came through."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"See line {error.lineno}."
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"See line {lines[-1]}." if lines else "It takes one argument; see docs/environments.md."
