"""A JSON parser of plain Python, written for comparison: what a text holds, and the rows that it stands for.

A number is its text, an object a list of pairs, so that nothing is lost before it is looked at.
"""

import decimal
import re
from typing import Any

import hypothesis.strategies as st

_BLANK = " \t\n\r"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "NaN": float("nan"), "Infinity": float("inf")}
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Number(str):
    """A number as it is written."""


class Pairs(list[tuple[str, Any]]):
    """An object."""


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _string(text: str, at: int) -> tuple[str, int]:
    found = ""
    while text[at] != '"':
        if text[at] < " ":
            raise ValueError("control character")
        if text[at] == "\\":
            at += 1
            if text[at] == "u":
                if not re.fullmatch("[0-9a-fA-F]{4}", text[at + 1 : at + 5]):
                    raise ValueError("escape")
                found += chr(int(text[at + 1 : at + 5], 16))
                at += 5
            else:
                found += _ESCAPES[text[at]]
                at += 1
        else:
            found += text[at]
            at += 1
    return found.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"), at + 1


def _value(text: str, at: int) -> tuple[Any, int]:
    at = _skip(text, at)
    if text[at] == '"':
        return _string(text, at + 1)
    if text[at] in "[{":
        return _members(text, at)
    if text.startswith("-Infinity", at):
        return float("-inf"), at + 9
    if number := _NUMBER.match(text, at):
        return Number(number[0]), number.end()
    word = next(word for word in _WORDS if text.startswith(word, at))
    return _WORDS[word], at + len(word)


def _members(text: str, at: int) -> tuple[Any, int]:
    is_object = text[at] == "{"
    end = "}" if is_object else "]"
    found: Any = Pairs() if is_object else []
    at = _skip(text, at + 1)
    if text[at] == end:
        return found, at + 1
    while True:
        at = _skip(text, at)
        if is_object:
            if text[at] != '"':
                raise ValueError("no key")
            key, at = _string(text, at + 1)
            at = _skip(text, at)
            if text[at] != ":":
                raise ValueError("no colon")
            value, at = _value(text, at + 1)
            found.append((key, value))
        else:
            value, at = _value(text, at)
            found.append(value)
        at = _skip(text, at)
        if text[at] == end:
            return found, at + 1
        if text[at] != ",":
            raise ValueError("no comma")
        at += 1


def _whole(text: str) -> Any:
    """Returns the only value of a text."""
    try:
        value, at = _value(text, 0)
    except (IndexError, KeyError, StopIteration) as error:
        raise ValueError("no JSON") from error
    if _skip(text, at) < len(text):
        raise ValueError("more than one value")
    return value


def _is_object(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(_whole(line), Pairs)
    except ValueError:
        return False


def records(text: str) -> list[Pairs]:
    """Returns the objects of a text: a line each if the first or the second line is one, else an array, or in a row.

    Raises:
        ValueError: It holds something else.
    """
    if text.startswith("{") and any(map(_is_object, text.split("\n", 2)[:2])):
        lines = text.split("\n")
        if any("\r" in line or "\0" in line for line in lines):
            raise ValueError("NUL or stray carriage return")
        found = [_whole(line) for line in lines]
    elif re.match(r"\s*\[\s*[\[\]{]", text, re.ASCII):
        found = _whole(text)
    elif re.match(r'\s*\{\s*["}]', text, re.ASCII):
        # An array of them, but for the commas.
        found, at = [], 0
        try:
            while (at := _skip(text, at)) < len(text):
                value, at = _value(text, at)
                found.append(value)
        except (IndexError, KeyError, StopIteration) as error:
            raise ValueError("no JSON") from error
    else:
        raise ValueError("no JSON")
    if not found or not all(isinstance(record, Pairs) for record in found):
        raise ValueError("no objects")
    return found


def _once(pairs: Pairs, key: str) -> Any:
    values = [value for name, value in pairs if name == key]
    if len(values) > 1:
        raise ValueError("twice")
    return values[0] if values else None


def _text(value: Any) -> str:
    """Returns a value as text."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Number):
        if re.fullmatch("-?[0-9]+", value):
            return "0" if value == "-0" else str(value)
        if abs(float(value)) >= 2**53 or re.search("[eE][+]?[0-9]", value):
            return re.sub("[eE]([0-9])", r"e+\1", value).replace("E+", "e+")
        positional = format(decimal.Decimal(repr(float(value))), "f")
        return re.sub(r"\.?0+$", "", positional) if "." in positional else positional
    if not isinstance(value, str):
        raise ValueError("no value")
    value.encode()  # half a character is a ValueError
    return value


def field(record: Pairs, name: str, found: list[Pairs]) -> str:
    """Returns a value as text; a name with dots leads into an object, unless some record has the name itself."""
    head, _, rest = name.partition(".")
    if rest and not any(key == name for one in found for key, _ in one):
        inside = _once(record, head)
        if inside is not None and not isinstance(inside, Pairs):
            raise ValueError("no object")
        return field(inside or Pairs(), rest, [])
    return _text(_once(record, name))


def entries(found: list[Pairs], names: list[str]) -> list[tuple[Pairs, Pairs]]:
    """Returns each object of the lists that hold what the records do not, with its record."""
    wanted = [name for name in names if not any(key == name for record in found for key, _ in record)]
    if not wanted:
        return [(record, Pairs()) for record in found]
    lists: dict[str, set[str]] = {}
    for record in found:
        for key, value in dict(record).items():
            if isinstance(value, list) and not isinstance(value, Pairs) and all(isinstance(e, Pairs) for e in value):
                lists.setdefault(key, set()).update(name for entry in value for name, _ in entry)
    holding = [key for key, inside in lists.items() if inside.issuperset(wanted)]
    if len(holding) != 1:
        raise ValueError("no list, or several")
    (key,) = holding
    pairs = []
    for record in found:
        inside = _once(record, key)
        if (
            not any(name == key for name, _ in record)
            or isinstance(inside, Pairs)
            or not isinstance(inside, list | None)
        ):
            raise ValueError("no list")
        for entry in inside or []:
            if not isinstance(entry, Pairs):
                raise ValueError("no object")
            pairs.append((record, entry))
    return pairs


# Damage

_ODD_VALUES = (
    *("null", "NaN", "-Infinity", "true", "[]", "{}", '""', '"x"', "1e18", "1E400", "-0", "0.10", "1e2", "-1.5E+1"),
    *("9007199254740993", "9007199254740993.0", "12345678901234567890123", '"\\ud800"', '"\\u0031"', '"7.0"', "7.0"),
    *('[{"aid": 1}]', '{"id": 3}', "'x'", "nan", "1_0", "01", "+1", ".5", "5."),
)


def change_value(draw: st.DrawFn, data: bytes, separator: str) -> bytes:
    """Replaces a value, or adds one of its keys again."""
    text = data.decode("utf-8", "surrogateescape")
    places = list(re.finditer(r'("\w+")\s*:\s*("[^"]*"|[^\s,{}\[\]]+)', text))
    if not places:
        return data
    place = draw(st.sampled_from(places))
    odd = draw(st.sampled_from(_ODD_VALUES))
    key = draw(st.sampled_from([place[1], re.sub("[a-z]", lambda m: f"\\u{ord(m[0]):04x}", place[1], count=1)]))
    change = draw(st.sampled_from([f"{key}: {odd}", f"{key}: {odd}", f"{place[0]}, {key}: {odd}", f'"no": {odd}']))
    return (text[: place.start()] + change + text[place.end() :]).encode("utf-8", "surrogateescape")
