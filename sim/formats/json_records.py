"""Records of JSON texts, with numbers as exact as they are written: an array, objects one behind another, or lines.

A text is read piece by piece: an array may be of any length, an object of up to 64 Mi characters.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from harness.errors import UserError
from sim.formats.sources import DAMAGED, Source, shorten
from sim.formats.text_table import BadLineError

MAX_OBJECT_BYTES = 1 << 26
TWICE = object()
"""Stands for the value of a key that occurs twice."""
_ARRAY = re.compile(rb"\s*\[\s*[\[\]{]")
_OBJECT = re.compile(rb'\s*\{\s*["}]')
_BLANKS = " \t\n\r"
_EXACT = 2.0**53
_EXPONENT = re.compile("[eE][+]?(?=[0-9])")


def is_json(beginning: bytes) -> bool:
    """Returns whether a text that begins so is JSON: an object, or an array of objects."""
    return bool(_ARRAY.match(beginning) or _OBJECT.match(beginning))


def has_lines(beginning: bytes) -> bool:
    """Returns whether the first line or, if that one is damaged, the second is an object of its own."""
    lines = beginning.split(b"\n", 2)[:2] if beginning.startswith(b"{") else []
    for line in lines:
        try:
            if line.startswith(b"{") and isinstance(decode(line.decode()), dict):
                return True
        except (BadLineError, UnicodeDecodeError):
            continue
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        fields.update({name: TWICE for name in fields if names.count(name) > 1})
    return fields


def _float(text: str) -> str:
    """Returns the text of a number that is no integer: its shortest form, if a float can hold it exactly.

    A positive exponent stays, so that it is recognised among ids.
    """
    number = float(text)
    if abs(number) < _EXACT and not _EXPONENT.search(text):
        short = str(int(number)) if number.is_integer() else repr(number)
        return np.format_float_positional(number, trim="-") if "e" in short or short == "0" else short
    return _EXPONENT.sub("e+", text)


def _integer(text: str) -> str:
    return "0" if text == "-0" else text


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_integer)


def decode(text: str) -> Any:
    """Returns the value of a JSON text; numbers as texts, except NaN and the infinities.

    Raises:
        BadLineError: It is no JSON.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadLineError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except RecursionError:
        raise BadLineError("not JSON that can be read (objects in objects, too deep)") from None


def scan(blocks: Iterator[bytes], source: Source) -> Iterator[tuple[int, Any]]:
    """Yields the values of an array, or those one behind another, each with the number of its first line.

    Raises:
        UserError: The text is no JSON, or ends too early.
    """
    text = _Text(blocks, source)
    in_array = text.next() == "["
    if in_array:
        text.at += 1
    first = True
    # Between two values there is a comma in arrays, and nothing otherwise.
    while (mark := text.next()) and not (in_array and mark == "]"):
        if in_array and not first:
            if mark != ",":
                raise text.error("not JSON (expected ',' or ']')")
            text.at += 1
            text.next()
        yield text.line, text.value()
        first = False
    if in_array:
        if not mark:
            raise text.error("the array is not closed")
        text.at += 1
        if text.next():
            raise text.error("not JSON (something follows the array)")


class _Text:
    """A text of which a part is in memory.

    Attributes:
        at: Place of the next character in that part.
        line: Number of its line.
    """

    def __init__(self, blocks: Iterator[bytes], source: Source) -> None:
        self.at, self.line = 0, 1
        self._blocks, self._source, self._part = blocks, source, ""
        self._counted = 0  # up to here, line ends are counted
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ended = False

    def next(self) -> str:
        """Goes to the next character that is not blank and returns it; "" at the end."""
        while True:
            part = self._part
            while self.at < len(part) and part[self.at] in _BLANKS:
                self.at += 1
            if self.at < len(part):
                self._count()
                return part[self.at]
            if not self._more():
                return ""

    def value(self) -> Any:
        """Returns the value that begins at the place, and goes behind it."""
        while True:
            try:
                value, self.at = _DECODER.raw_decode(self._part, self.at)
                return value
            except json.JSONDecodeError as error:
                line = self.line + self._part.count("\n", self.at, error.pos)
                # It may go on in the next block.
                if len(self._part) - self.at < MAX_OBJECT_BYTES and self._more():
                    continue
                raise self.error(f"not JSON ({error.msg})", line) from None
            except RecursionError:
                raise self.error("not JSON that can be read (objects in objects, too deep)") from None

    def error(self, problem: str, line: int | None = None) -> UserError:
        """Returns an error that shows the text at the place."""
        shown = shorten(self._part[self.at :])
        return UserError(f"line {line or self.line:,}: {problem}: {shown}", where=str(self._source), do=DAMAGED)

    def _count(self) -> None:
        self.line += self._part.count("\n", self._counted, self.at)
        self._counted = self.at

    def _more(self) -> bool:
        """Replaces the part by what is left of it and as many characters more, or a block; returns whether it grew."""
        self._count()
        self._part, self.at, self._counted = self._part[self.at :], 0, 0
        before = len(self._part)
        while not self._ended and len(self._part) <= 2 * before:
            block = next(self._blocks, b"")
            self._ended = not block
            try:
                self._part += self._decoder.decode(block, final=self._ended)
            except UnicodeDecodeError as error:
                line = self.line + self._part.count("\n") + block.count(b"\n", 0, error.start)
                what = f"line {line:,}: byte {block[error.start : error.start + 1]!r} is not valid UTF-8"
                do = "If the file is written in another encoding, set it, as in data.encoding=latin-1."
                raise UserError(what, where=str(self._source), do=do) from None
        return len(self._part) > before
