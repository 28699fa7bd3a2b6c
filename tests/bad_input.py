"""Feeds damaged files to every reader and impossible values to every setting, and counts what comes of it.

`PYTHONPATH=. python tests/bad_input.py [--cases 400]` runs so many cases for each layout of files. A file has to be
refused with one message that names it, or be read as an independent parser of plain Python reads it, row for row;
nothing else. The tests run the same with fewer cases.
"""

import argparse
import codecs
import copy
import dataclasses
import datetime
import functools
import gzip
import io
import itertools
import json
import math
import re
import tempfile
import typing
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import numpy as np
import plain_json

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.runs.index import flattened
from harness.settings import read_settings
from hrlmg_jax import settings as hrlmg_settings
from sim.files.event_layout import EventLayout
from sim.files.event_readers import read_events
from sim.files.rating_readers import read_ratings
from sim.files.rows import TableLayout
from sim.formats.sources import SizeLimits, Source
from sim.formats.text_table import TextFormat
from sim.tables.ratings import build_rating_data
from tpgr_jax import settings as tpgr_settings

Row = tuple[Any, ...]
Files = dict[str, bytes]

_INT64 = 2**63
_MAX_ID = 256
_EPOCH = datetime.date(1970, 1, 1)
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_NOTHING = {"", "na", "nan", "null", "none", "-", "--", "?", "unknown"}
"""Words that mean that there is no value, in lower case, as far as they are drawn."""
_CODES = {"skip": 0, "click": 1, "order": 2}
_EVENTS = {"view": "skip", "tap": "click", "buy": "order", "login": "ignore"}


class Layout(NamedTuple):
    """A kind of input: how to draw a sound one, how the program reads it, and how plain Python does.

    Attributes:
        sound: Draws files by name.
        read: What the program makes of them, as rows.
        parse: The independent parser; raises ValueError for what has to be refused.
        separator: Between the fields of a line.
        more_damage: Ways to damage the files of this layout alone.
    """

    sound: Callable[[st.DrawFn], Files]
    read: Callable[[list[Source]], list[Row]]
    parse: Callable[[Files], list[Row]]
    separator: str
    more_damage: tuple[Callable[[st.DrawFn, bytes, str], bytes], ...] = ()


# The independent parser


def _text(data: bytes) -> str:
    mark, encoding = next(
        (pair for pair in _MARKS.items() if data.startswith(pair[0])),
        (b"", "utf-8"),
    )
    text = data.removeprefix(mark).decode(encoding)
    text += "\n" if text.endswith("\r") else ""  # cut between the two characters of a line end, nothing is lost
    return text.replace("\r\n", "\n").rstrip("\n")


def _lines(data: bytes) -> list[str]:
    lines = _text(data).split("\n")
    if any(not line or "\r" in line or "\0" in line for line in lines):
        raise ValueError("blank line, NUL or stray carriage return")
    return lines


def _records(data: bytes, separator: str) -> list[list[str]]:
    """Returns the fields of every record: a line, or several if a quoted field goes over them."""
    text = _text(data) + "\n"
    if "\r" in text or "\0" in text:
        raise ValueError("NUL or stray carriage return")
    records: list[list[str]] = []
    fields: list[str] = []
    at = 0
    while at < len(text):
        if not fields and text[at] == "\n":
            raise ValueError("blank line")
        field = ""
        if text[at] == '"':
            at += 1
            while True:
                if at >= len(text) - 1:
                    raise ValueError("open quote")
                if text[at] == '"' and text[at + 1] != '"':
                    break
                at += 2 if text[at] == '"' else 1
                field += text[at - 1]
            at += 1
        else:
            while text[at] not in (separator, "\n"):
                field += text[at]
                at += 1
        if text[at] not in (separator, "\n"):
            raise ValueError("text behind a quote")
        fields.append(field)
        if text[at] == "\n":
            records.append(fields)
            fields = []
        elif text[at + 1] == "\n":  # the last field is empty
            at += 1
            records.append([*fields, ""])
            fields = []
        at += 1
    return records


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,30}", text, re.ASCII) or not -_INT64 <= int(text) < _INT64:
        raise ValueError(f"{text} is no integer")
    return int(text)


def _decimal(text: str) -> float:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text, re.ASCII):
        raise ValueError(f"{text} is no number")
    if abs(float(text)) == float("inf"):
        raise ValueError(f"{text} is too large")
    return float(text)


def _name(text: str, size: int) -> str:
    if not 0 < size <= _MAX_ID:
        raise ValueError("no id")
    return text


def _ids(texts: list[str]) -> list[str]:
    """Returns the ids of a column: 7.0, 7. and +7 are 7 where all are whole numbers; 1e5 among numbers is an error."""
    for text in texts:
        beyond = re.fullmatch(r"-?([0-9]{16,})\.0+", text, re.ASCII)
        if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?[eE]\+[0-9]+", text, re.ASCII) or (beyond and int(beyond[1]) > 2**53):
            raise ValueError("digits of an id are lost")
    exponents = {text for text in texts if re.fullmatch("[+-]?[0-9]+[eE][0-9]+", text, re.ASCII)}
    if exponents and all(
        re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", text, re.ASCII) or text.strip().lower() in _NOTHING
        for text in set(texts) - exponents
    ):
        raise ValueError("scientific notation")
    # What whole numbers that are written otherwise stand for, by text.
    odd = {}
    for text in texts:
        if match := re.fullmatch(r"([+-]?)(0|[1-9][0-9]*)(\.0*)?", text, re.ASCII):
            sign, digits, point = match.groups()
            if sign == "+" or point or text == "-0":
                odd[text] = ("-" if sign == "-" and digits != "0" else "") + digits
    meant = [odd.get(text, text) for text in texts]
    distinct = {odd.get(text, text) for text in set(texts)}
    if all(re.fullmatch(r"(0|-?[1-9][0-9]*)", text, re.ASCII) for text in meant):
        return meant if any("." in text for text in odd) or len(distinct) < len(set(texts)) else texts
    if len(distinct) < len(set(texts)):
        raise ValueError("7 and 7.0 among words")
    return texts


def _with_ids(rows: list[Row]) -> list[Row]:
    """Returns rows that begin with a user and an item, with their ids."""
    users, items, *others = map(list, zip(*rows, strict=True))
    return list(zip(_ids(users), _ids(items), *others, strict=True))


def _columns(data: bytes, separator: str, names: list[str]) -> list[list[str]]:
    """Returns the wanted fields of every record below the header."""
    header, *rows = _records(data, separator)
    kinds = [name.rpartition(":") for name in header]
    if all(name and "\n" not in name and re.fullmatch("(token|float)(_seq)?", kind) for name, _, kind in kinds):
        if any(name in names and kind.endswith("_seq") for name, _, kind in kinds):
            raise ValueError("a column of sequences")
        header = [name for name, _, _ in kinds]
    if not rows or any(header.count(name) != 1 for name in names) or any(len(row) != len(header) for row in rows):
        raise ValueError("header, or number of fields")
    return [[row[header.index(name)] for name in names] for row in rows]


def _day(text: str) -> int:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
        raise ValueError(f"{text} is no date")
    return (datetime.date.fromisoformat(text) - _EPOCH).days * 86_400


def _parse_movielens(files: Files, separator: str, header: str | None) -> list[Row]:
    (data,) = files.values()
    lines = _lines(data)
    if header is not None and lines.pop(0) != header:
        raise ValueError("header")
    rows = [line.split(separator) for line in lines]
    if not rows or any(len(row) != 4 for row in rows):
        raise ValueError("number of fields")
    return [(_whole(user), _whole(item), _decimal(rating), _whole(time)) for user, item, rating, time in rows]


def _parse_netflix(files: Files) -> list[Row]:
    (data,) = files.values()
    movie, rows = None, []
    for line in _lines(data):
        if line.endswith(":"):
            movie = _whole(line[:-1])
            continue
        user, rating, date = line.split(",")
        if movie is None or not 0 <= _whole(rating) <= 255:
            raise ValueError("no movie, or rating")
        rows.append((_whole(user), movie, _whole(rating), _day(date)))
    if not rows:
        raise ValueError("no ratings")
    return rows


def _parse_table(files: Files, separator: str, names: list[str]) -> list[Row]:
    (data,) = files.values()
    rows: list[Row] = []
    for user, item, rating, *time in _columns(data, separator, names):
        ids = (_name(user, len(user.encode())), _name(item, len(item.encode())))
        rows.append((*ids, _decimal(rating), *map(_seconds, time)))
        if not all(0 <= seconds < 253_402_300_800 for seconds in rows[-1][3:]):
            raise ValueError("time")
    return _with_ids(rows)


def _parse_json_ratings(files: Files) -> list[Row]:
    (data,) = files.values()
    found = plain_json.records(_text(data))
    rows: list[Row] = []
    for record in found:
        user, item, rating = (plain_json.field(record, name, found) for name in ("who.id", "what", "stars"))
        rows.append((_name(user, len(user.encode())), _name(item, len(item.encode())), _decimal(rating)))
    if any("\0" in text for row in rows for text in row[:2]):
        raise ValueError("NUL")
    return _with_ids(rows)


def _parse_sessions(files: Files) -> list[Row]:
    (data,) = files.values()
    found = plain_json.records(_text(data))
    names = ["session", "aid", "ts", "type"]
    outer = [name for name in names if any(key == name for one in found for key, _ in one)]
    for record in found:  # also those without events
        _ = [plain_json.field(record, name, []) for name in outer]
    records = []
    for record, entry in plain_json.entries(found, names):
        records.append([plain_json.field(record if name in outer else entry, name, []) for name in names])
    return _events(records, _milliseconds)


def _parse_events(files: Files, time_of: Callable[[str], int]) -> list[Row]:
    columns = [_columns(data, ",", ["user", "item", "time", "event"]) for data in files.values()]
    return _events(itertools.chain.from_iterable(columns), time_of)


def _events(records: Iterable[list[str]], time_of: Callable[[str], int]) -> list[Row]:
    rows = []
    for user, item, time, event in records:
        if "\0" in user + item:
            raise ValueError("NUL")
        row = (_name(user, len(user.encode())), _name(item, len(item.encode())), time_of(time), _EVENTS.get(event))
        if not 0 <= row[2] < 253_402_300_800 or row[3] is None:
            raise ValueError("time or event")
        if row[3] != "ignore":
            rows.append((*row[:3], _CODES[row[3]]))
    if not rows:
        raise ValueError("no events")
    return _with_ids(rows)


_FLAG = dict.fromkeys(("0", "0.0", "no", "n", "false", "f"), False) | dict.fromkeys(
    ("1", "1.0", "yes", "y", "true", "t"), True
)


def _parse_flags(files: Files) -> list[Row]:
    (data,) = files.values()
    rows: list[Row] = []
    for user, item, time, click, order, chance in _columns(data, ",", ["user", "item", "time", "tap", "buy", "p"]):
        ids = (_name(user, len(user.encode())), _name(item, len(item.encode())))
        flags = _FLAG.get(click.lower()), _FLAG.get(order.lower())
        if None in flags or not 0 <= _seconds(time) < 253_402_300_800 or not 0 < _decimal(chance) <= 1:
            raise ValueError("flag, time or propensity")
        rows.append((*ids, _seconds(time), 2 if flags[1] else int(bool(flags[0])), _decimal(chance)))
    return _with_ids(rows)


def _with_header(files: Files, header: str) -> Files:
    """Returns files without a first line of names with one, which names all fields of their first record."""
    (name, data), *others = files.items()
    text = _text(data)
    names = header.split("\t")
    more = len(_records(data, "\t")[0]) - len(names)
    if more < 0:
        raise ValueError("too few fields")
    line = "\t".join([*names, *(f"\1{number}" for number in range(more))])
    return {name: f"{line}\n{text}\n".encode(), **dict(others)}


def _parse_packed(files: Files) -> list[Row]:
    (data,) = files.values()
    rows: list[Row] = []
    for user, time, shown in _columns(data, "\t", ["user", "time", "shown"]):
        for packed in filter(None, shown.split(" ")):
            item, separator, answer = packed.rpartition("-")
            if not separator or answer not in ("0", "1", "0.0", "1.0"):
                raise ValueError("answer")
            ids = (_name(user, len(user.encode())), _name(item, len(item.encode())))
            if not 0 <= _seconds(time) < 253_402_300_800:
                raise ValueError("time")
            rows.append((*ids, _seconds(time), int(answer[0])))
    if not rows:
        raise ValueError("no events")
    return _with_ids(rows)


def _seconds(text: str) -> int:
    return int(_decimal(text) // 1)


def _milliseconds(text: str) -> int:
    return _seconds(text) // 1000


def _moment(text: str) -> int:
    form = r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(?:(:\d\d)(\.\d+)?)?(?: ?(?:UTC|Z|([+-])(\d\d):?(\d\d)))?)?"
    if (parts := re.fullmatch(form, text, re.ASCII)) is None:
        raise ValueError("time")
    date, clock, second, _, sign, hours, minutes = parts.groups()
    moment = datetime.datetime.fromisoformat(f"{date} {clock or '00:00'}{second or ''}").replace(tzinfo=datetime.UTC)
    offset = datetime.timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if offset.seconds // 60 != int(hours or 0) * 60 + int(minutes or 0) or int(minutes or 0) > 59:
        raise ValueError("offset")
    return round((moment - (-offset if sign == "-" else offset)).timestamp())


def _parse_diginetica(files: Files) -> list[Row]:
    def parsed(name: str, columns: list[str]) -> list[list[str]]:
        return _columns(files[name], ";", columns)

    def key(text: str) -> str:
        return _name(text, len(text.encode()))

    def in_time(seconds: int) -> int:
        if not 0 <= seconds < 253_402_300_800:
            raise ValueError("time")
        return seconds

    def offset(text: str) -> int:
        return in_time(_milliseconds(text))

    clicks = [
        (key(query), offset(after), key(item))
        for query, after, item in parsed("train-clicks.csv", ["queryId", "timeframe", "itemId"])
    ]
    orders = [
        (key(session), in_time(_moment(date)) + offset(after), key(item))
        for session, after, date, item in parsed(
            "train-purchases.csv", ["sessionId", "timeframe", "eventdate", "itemId"]
        )
    ]
    shown = []
    wanted = ["queryId", "sessionId", "userId", "timeframe", "eventdate", "items", "is.test"]
    for query, session, user, after, date, items, is_test in parsed("train-queries.csv", wanted):
        day, since = in_time(_moment(date)), offset(after)
        if is_test not in ("TRUE", "FALSE"):
            raise ValueError("is.test")
        person = f"session {key(session)}" if user in ("NA", "") else user
        key(query)
        for item in filter(None, items.split(",") if is_test == "FALSE" else []):
            shown.append((key(query), person, item, day, since, session))
    rows = [(person, item, day + since, 0, session) for _, person, item, day, since, session in shown]
    for query, person, item, day, since, session in shown:
        answers = [after for clicked, after, what in clicks if (clicked, what) == (query, item)]
        rows += [(person, item, day + max(since, after), 1, session) for after in answers]
    for session, time, item in orders:
        earlier = [row for row in rows if row[3] == 0 and (row[4], row[1]) == (session, item) and row[2] <= time]
        if earlier:
            rows.append((min(earlier, key=lambda row: row[2])[0], item, time, 2, session))
    if not rows:
        raise ValueError("no events")
    return _with_ids(rows)


_ORDER_FLAGS = ("is_like", "is_follow")


def _parse_kuairand(files: Files) -> list[Row]:
    rows = []
    for data in files.values():
        for user, item, time, *flags in _columns(
            data, ",", ["user_id", "video_id", "time_ms", "is_click", *_ORDER_FLAGS]
        ):
            ids = (_name(user, len(user.encode())), _name(item, len(item.encode())))
            if not 0 <= _seconds(time) < 253_402_300_800_000 or not {*flags} <= {"0", "1"}:
                raise ValueError("time or flag")
            rows.append((*ids, _seconds(time), 2 if "1" in flags[1:] else int(flags[0])))
    return _with_ids([(*ids, time // 1000, code) for *ids, time, code in sorted(rows, key=lambda row: row[2])])


# What the program reads


def _ratings(reader: str, layout: TableLayout | None = None) -> Callable[[list[Source]], list[Row]]:
    def read(sources: list[Source]) -> list[Row]:
        columns = read_ratings(reader, sources, layout=layout)
        arrays = [columns.users, columns.items, columns.ratings]
        arrays += [] if columns.timestamps is None else [columns.timestamps]
        rows = list(zip(*(array.tolist() for array in arrays), strict=True))
        _check_rating_table(columns, rows, sources[0])
        return [(str(row[0]), str(row[1]), *row[2:]) for row in rows] if reader == "table" else rows

    return read


def _check_rating_table(columns: Any, rows: list[Row], source: Source) -> None:
    """The table that everything else consumes holds the same ratings, or these are refused."""
    data = build_rating_data(
        name="damaged",
        users=columns.users,
        items=columns.items,
        ratings=columns.ratings,
        timestamps=columns.timestamps,
        rating_min=0.5,
        rating_max=5.0,
        checksum="sha256:0",
        source=str(source),
        synthetic=False,
    )
    users = np.repeat(data.user_ids, np.diff(data.indptr)).tolist()
    table = zip(users, data.item_ids[data.items].tolist(), data.rating_values[data.codes].tolist(), strict=True)
    assert sorted(table) == sorted((user, item, float(rating)) for user, item, rating, *_ in rows)


def _log(reader: str, time_format: str = "seconds", **changes: Any) -> Callable[[list[Source]], list[Row]]:
    told: dict[str, Any] = {"feedback_column": "event", "feedback_of_event": _EVENTS, "text": TextFormat(",")}
    layout = EventLayout(**{"user_column": "user", "item_column": "item", "time_column": "time", **told, **changes})
    layout = dataclasses.replace(layout, time_format=time_format)

    def read(sources: list[Source]) -> list[Row]:
        columns = read_events(reader, sources, layout, SizeLimits(), _ORDER_FLAGS)
        ids = (columns.user_ids[columns.users], columns.item_ids[columns.items])
        rows: list[Any] = [map(str, array.tolist()) for array in ids]
        rows += [columns.times.tolist(), columns.feedback.tolist()]
        rows += [] if columns.shown_probability is None else [columns.shown_probability.tolist()]
        return list(zip(*rows, strict=True))

    return read


# Sound files

_small = st.integers(1, 30)
_stars = st.sampled_from(["1", "2", "3", "4", "5", "3.5", "0.5"])
_clock = st.integers(0, 2_000_000_000)
_dates = st.dates(datetime.date(1999, 1, 1), datetime.date(2020, 12, 31)).map(datetime.date.isoformat)
_words = st.sampled_from(["u1", "7", "007", "Zoë", "a b", "12"])


def _file(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _movielens(separator: str, header: str | None = None) -> Callable[[st.DrawFn], Files]:
    def sound(draw: st.DrawFn) -> Files:
        rows = draw(
            st.lists(st.tuples(_small, _small, _stars, _clock), min_size=1, max_size=8, unique_by=lambda r: r[:2])
        )
        return {"ratings.dat": _file([*([header] if header else []), *(separator.join(map(str, row)) for row in rows)])}

    return sound


def _netflix(draw: st.DrawFn) -> Files:
    movies = draw(st.lists(_small, min_size=1, max_size=3, unique=True))
    lines: list[str] = []
    for movie in movies:
        rows = draw(
            st.lists(st.tuples(_small, st.integers(1, 5), _dates), min_size=1, max_size=4, unique_by=lambda r: r[0])
        )
        lines += [f"{movie}:", *(",".join(map(str, row)) for row in rows)]
    return {"combined.txt": _file(lines)}


def _table(separator: str, header: list[str]) -> Callable[[st.DrawFn], Files]:
    def sound(draw: st.DrawFn) -> Files:
        column = {"who": _words, "what": _words, "stars": _stars, "when": _clock.map(str), "note": _words}
        row = st.tuples(*(column[name.partition(":")[0]] for name in header))
        rows = draw(st.lists(row, min_size=1, max_size=8, unique_by=lambda r: (r[0], r[1])))
        return {"table.csv": _file([separator.join(header), *(separator.join(row) for row in rows)])}

    return sound


def _event_table(times: st.SearchStrategy[str]) -> Callable[[st.DrawFn], Files]:
    def sound(draw: st.DrawFn) -> Files:
        rows = draw(st.lists(st.tuples(times, _words, st.sampled_from([*_EVENTS]), _words), min_size=1, max_size=8))
        return {"log.csv": _file(["time,user,event,item", *map(",".join, rows)])}

    return sound


def _flags(draw: st.DrawFn) -> Files:
    flag = st.sampled_from(["0", "1", "Yes", "no", "TRUE", "1.0"])
    row = st.tuples(_clock.map(str), _words, flag, _words, flag, st.sampled_from(["0.5", "1", "1e-3"]))
    return {"log.csv": _file(["time,user,tap,item,buy,p", *map(",".join, draw(st.lists(row, min_size=1, max_size=8)))])}


def _packed(draw: st.DrawFn) -> Files:
    shown = st.lists(st.sampled_from(["N1-0", "N2-1", "a-b-1", "7-0"]), max_size=4).map(" ".join)
    row = st.tuples(_small.map(str), _words, _clock.map(str), shown, st.just("N1-1"))
    rows = [*draw(st.lists(row, max_size=6)), ("9", "u1", "5", "N1-0 7-1", "")]
    return {"behaviors.tsv": _file(["\t".join(row) for row in rows])}


def _json_ratings(draw: st.DrawFn) -> Files:
    value = st.one_of(_words, _small, st.sampled_from([2**53 + 1, 2**70, 7.0]))
    stars = st.one_of(_stars, _stars.map(float), _small.map(lambda number: number % 5 + 1))
    row = st.tuples(value, value, stars, st.sampled_from([{}, {"text": 'a "who": 1'}, {"what.not": [{"id": 1}]}]))
    rows = draw(st.lists(row, min_size=1, max_size=6, unique_by=lambda r: (str(r[0]), str(r[1]))))
    return _written(draw, [{"who": {"id": who}, "what": what, "stars": n, **more} for who, what, n, more in rows])


def _sessions(draw: st.DrawFn) -> Files:
    event = st.tuples(_small, _clock.map(lambda time: time * 1000), st.sampled_from([*_EVENTS]))
    sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    records = []
    for number, size in enumerate(sizes):
        events = [dict(zip(("aid", "ts", "type"), draw(event), strict=True)) for _ in range(size)]
        records.append({"session": draw(st.one_of(_words, st.just(number))), "events": events})
    return _written(draw, records)


def _written(draw: st.DrawFn, records: list[dict[str, Any]]) -> Files:
    """Writes objects as lines (mostly), an array, or one behind another."""
    form = draw(st.sampled_from(["lines", "lines", "array", "indented array", "indented"]))
    indent = 1 if "indented" in form else None
    if "array" in form:
        return {"data.txt": json.dumps(records, indent=indent, ensure_ascii=False).encode()}
    return {"data.txt": _file([json.dumps(record, indent=indent, ensure_ascii=False) for record in records])}


def _two_tables(draw: st.DrawFn) -> Files:
    first, second = (_event_table(_clock.map(str))(draw) for _ in range(2))
    (swapped,) = second.values()
    return {**first, "log2.csv": swapped.replace(b"user,event,item", b"item,event,user")}


def _diginetica(draw: st.DrawFn) -> Files:
    number = st.integers(1, 5).map(str)
    shown = st.lists(number, min_size=1, max_size=4, unique=True).map(",".join)
    flags = st.sampled_from(["FALSE", "FALSE", "TRUE"])
    user = st.sampled_from(["NA", "", "8", "9"])
    offset = st.integers(0, 10**6).map(str)
    query = st.tuples(number, number, user, offset, _dates, shown, flags)
    queries = draw(st.lists(query, min_size=1, max_size=5))
    clicks = draw(st.lists(st.tuples(number, offset, number), min_size=1, max_size=4))
    order = st.tuples(number, user, offset, _dates, number, number)
    orders = draw(st.lists(order, min_size=1, max_size=4))
    return {
        "train-queries.csv": _file(
            ["queryId;sessionId;userId;timeframe;eventdate;items;is.test", *map(";".join, queries)]
        ),
        "train-clicks.csv": _file(["queryId;timeframe;itemId", *map(";".join, clicks)]),
        "train-purchases.csv": _file(
            ["sessionId;userId;timeframe;eventdate;ordernumber;itemId", *map(";".join, orders)]
        ),
    }


def _kuairand(draw: st.DrawFn) -> Files:
    flag = st.sampled_from("01")
    number, time_ms = _small.map(str), _clock.map(lambda time: f"{time // 10**5}00")
    row = st.tuples(_words, _words, number, number, time_ms, *[flag] * 5, number, number)
    header = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_rand,play_time_ms,tab"
    parts = [draw(st.lists(row, min_size=1, max_size=5)) for _ in range(2)]
    return {
        f"log_part{number}.csv": _file([header, *map(",".join, rows)]) for number, rows in enumerate(parts, start=1)
    }


_HEADER = "userId,movieId,rating,timestamp"
_TABLE = ["note", "what", "who", "stars", "when"]
LAYOUTS = {
    "movielens_dat": Layout(
        _movielens("::"), _ratings("movielens_dat"), lambda files: _parse_movielens(files, "::", None), "::"
    ),
    "movielens_data": Layout(
        _movielens("\t"), _ratings("movielens_data"), lambda files: _parse_movielens(files, "\t", None), "\t"
    ),
    "movielens_csv": Layout(
        _movielens(",", _HEADER), _ratings("movielens_csv"), lambda files: _parse_movielens(files, ",", _HEADER), ","
    ),
    "netflix": Layout(_netflix, _ratings("netflix"), _parse_netflix, ","),
    "table, comma, time": Layout(
        _table(",", _TABLE),
        _ratings("table", TableLayout("who", "what", "stars", "when", TextFormat(","), "seconds")),
        lambda files: _parse_table(files, ",", ["who", "what", "stars", "when"]),
        ",",
    ),
    "table, semicolon": Layout(
        _table(";", ["who", "what", "stars"]),
        _ratings("table", TableLayout("who", "what", "stars", None, TextFormat(";"))),
        lambda files: _parse_table(files, ";", ["who", "what", "stars"]),
        ";",
    ),
    "table, typed names": Layout(
        _table("\t", ["who:token", "what:token", "stars:float", "when:float", "note:token_seq"]),
        _ratings("table", TableLayout("who", "what", "stars", "when", TextFormat("\t"), "seconds")),
        lambda files: _parse_table(files, "\t", ["who", "what", "stars", "when"]),
        "\t",
    ),
    "table, json": Layout(
        _json_ratings,
        _ratings("table", TableLayout("who.id", "what", "stars")),
        _parse_json_ratings,
        ",",
        (plain_json.change_value,) * 6,
    ),
    "events, json of sessions": Layout(
        _sessions,
        _log(
            "events_table",
            "milliseconds",
            user_column="session",
            item_column="aid",
            time_column="ts",
            feedback_column="type",
        ),
        _parse_sessions,
        ",",
        (plain_json.change_value,) * 6,
    ),
    "events, two files": Layout(_two_tables, _log("events_table"), lambda files: _parse_events(files, _seconds), ","),
    "events, seconds": Layout(
        _event_table(_clock.map(str)), _log("events_table"), lambda files: _parse_events(files, _seconds), ","
    ),
    "events, milliseconds": Layout(
        _event_table(_clock.map(lambda time: f"{time}000")),
        _log("events_table", "milliseconds"),
        lambda files: _parse_events(files, _milliseconds),
        ",",
    ),
    "events, text": Layout(
        _event_table(
            _dates | st.sampled_from(["2016-01-31 23:59:02", "2016-01-31T23:59:02.999Z", "2016-01-31 23:59+05:30"])
        ),
        _log("events_table", "text"),
        lambda files: _parse_events(files, _moment),
        ",",
    ),
    "events, flags and propensities": Layout(
        _flags,
        _log(
            "events_table", feedback_column=None, flag_columns={"tap": "click", "buy": "order"}, propensity_column="p"
        ),
        _parse_flags,
        ",",
    ),
    "events, packed": Layout(
        _packed,
        _log(
            "events_table",
            text=TextFormat("\t", ["number", "user", "time", "shown"]),
            item_column="shown",
            feedback_column=None,
            feedback_of_event={"0": "skip", "1": "click"},
            item_separator=" ",
            answer_separator="-",
        ),
        lambda files: _parse_packed(_with_header(files, "number\tuser\ttime\tshown")),
        "\t",
    ),
    "diginetica": Layout(
        _diginetica, _log("diginetica"), lambda files: [row[:4] for row in _parse_diginetica(files)], ";"
    ),
    "kuairand": Layout(_kuairand, _log("kuairand"), _parse_kuairand, ","),
}


# Damage

_ODD = (
    *("", " ", "nan", "-1", "0", "+3", " 4", "4 ", "1e3", "1e999", "0x10", "1_000", "٣", "NULL", "3,5", "-0", "inf"),
    *("99999999999999999999", "9223372036854775807", "2016-02-30", "2016-1-1", "=1+1", "'", '"', '"a', '"a""b"'),
    *(
        "0001-01-01",
        "9999-12-31",
        "2016-01-31 25:00:00",
        "7.0",
        "7.",
        "+7",
        "1E18",
        "1.5E+18",
        "9007199254740993.0",
        "2016-01-31 23:59-25:00",
        "5.0",
        "5.",
        ".5",
        "x" * 300,
        "ß" * 200,
        "\ufeff3",
        "\u2028",
    ),
)
_BYTES = (
    b"\0",
    b"\r",
    b"\n",
    b"\xff",
    b"\xc3",
    b" ",
    b'"',
    b",",
    b";",
    b":",
    b"\t",
    b"-",
    b"9",
    b"\xef\xbb\xbf",
    b"\x1f",
)


def _change_byte(draw: st.DrawFn, data: bytes, separator: str) -> bytes:
    place = draw(st.integers(0, max(0, len(data) - 1)))
    kept = place + draw(st.sampled_from([0, 1]))
    return data[:place] + draw(st.sampled_from([*_BYTES, b""])) + data[kept:]


def _cut(draw: st.DrawFn, data: bytes, separator: str) -> bytes:
    return data[: draw(st.integers(0, len(data)))]


def _change_field(draw: st.DrawFn, data: bytes, separator: str) -> bytes:
    lines = data.split(b"\n")
    number = draw(st.integers(0, len(lines) - 1))
    fields = lines[number].split(separator.encode())
    place = draw(st.integers(0, len(fields) - 1))
    odd = draw(st.sampled_from(_ODD)).encode()
    change = draw(st.sampled_from(["replace", "drop", "repeat", "quote", "insert"]))
    quoted = b'"' + fields[place] + b'"'
    fields[place : place + 1] = {
        "replace": [odd],
        "drop": [],
        "repeat": [fields[place], fields[place]],
        "quote": [quoted],
        "insert": [odd, fields[place]],
    }[change]
    lines[number] = separator.encode().join(fields)
    return b"\n".join(lines)


def _change_lines(draw: st.DrawFn, data: bytes, separator: str) -> bytes:
    lines = data.split(b"\n")
    number = draw(st.integers(0, len(lines) - 1))
    change = draw(st.sampled_from(["drop", "repeat", "blank", "join", "first again", "carriage return", "move"]))
    if change == "join":
        return data.replace(b"\n", b"", number)
    if change == "carriage return":
        return data.replace(b"\n", b"\r\n", number)
    line = lines[number]
    lines[number : number + 1] = {
        "drop": [],
        "repeat": [line, line],
        "blank": [line, b""],
        "first again": [line, lines[0]],
        "move": [],
    }[change]
    return b"\n".join([line, *lines] if change == "move" else lines)


def _change_whole(draw: st.DrawFn, data: bytes, separator: str) -> bytes:
    change = draw(st.sampled_from(["separator", "utf-16", "mark", "twice", "blank lines", "old mac", "html", "digits"]))
    if change == "separator":
        return data.replace(separator.encode(), draw(st.sampled_from([b",", b";", b"\t", b"|", b":", b"  "])))
    if change == "utf-16":
        return data.decode("utf-8", "replace").encode("utf-16")
    return {
        "mark": b"\xef\xbb\xbf" * draw(st.integers(1, 2)) + data,
        "twice": data + data,
        "blank lines": data + b"\n" * draw(st.integers(1, 3)),
        "old mac": data.replace(b"\n", b"\r"),
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" + data,
        "digits": data.replace(b"1", "\uff11".encode()),
    }[change]


_DAMAGE = (_change_byte, _cut, _change_field, _change_field, _change_lines, _change_whole)


@st.composite
def damaged(draw: st.DrawFn, layout: Layout) -> tuple[Files, str, Any]:
    """Draws files of a layout, damages one in one or two ways, and packs it; perhaps damages the packed file too.

    Returns:
        What the files hold, how the damaged one is packed, and where its packed bytes are changed (None: nowhere).
    """
    files = dict(layout.sound(draw))
    name = draw(st.sampled_from(sorted(files)))
    packing = draw(st.sampled_from(["plain", "plain", "plain", "gzip", "zip"]))
    in_package = packing != "plain" and draw(st.booleans())
    for _ in range(0 if in_package else draw(st.integers(1, 2))):
        files[name] = draw(st.sampled_from(_DAMAGE + layout.more_damage))(draw, files[name], layout.separator)
    where = (draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(-1, 255))) if in_package else None
    return {name: files.pop(name), **files}, packing, where


def store(folder: Path, files: Files, packing: str, where: tuple[float, int] | None) -> list[Source]:
    """Writes files; the first is packed, and at a place (a share of its length) gets another byte, or is cut (-1)."""
    sources = []
    for number, (name, data) in enumerate(files.items()):
        path = folder / name
        source = Source(path)
        if number == 0 and packing == "gzip":
            path = folder / f"{name}.gz"
            data, source = gzip.compress(data, mtime=0), Source(path)
        elif number == 0 and packing == "zip":
            path = folder / "archive.zip"
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(zipfile.ZipInfo(name), data)
            data, source = buffer.getvalue(), Source(path, name)
        if number == 0 and where is not None:
            place = int(where[0] * len(data))
            data = data[:place] if where[1] < 0 else data[:place] + bytes([where[1]]) + data[place + 1 :]
        path.write_bytes(data)
        sources.append(source)
    return sources


def outcome(layout: Layout, files: Files, packing: str, where: tuple[float, int] | None) -> str:
    """Reads the files and says what came of it; raises AssertionError if that is not what the parser of Python says."""
    try:
        expected: list[Row] | None = layout.parse(files)
    except ValueError:  # UnicodeDecodeError is a ValueError
        expected = None
    with tempfile.TemporaryDirectory() as folder:
        sources = store(Path(folder), files, packing, where)
        try:
            rows = layout.read(sources)
        except UserError as error:
            refusal: UserError | None = error
        else:
            refusal = None
    if refusal is not None:
        _check_message(refusal, folder)
        if expected is None or where is not None:
            return "refused"
        assert _BEYOND_THE_LAYOUT.search(str(refusal)), f"refused, but it is sound: {refusal}"
        return "refused for what it says"
    assert expected is not None, f"read, but it is malformed: {rows}"
    assert rows == expected
    return "read"


def _check_message(error: UserError, named: str) -> None:
    assert named in str(error), f"does not name {named}: {error}"
    assert error.do, f"does not say what to do: {error}"
    assert len(str(error)) < 2000, f"too long: {error}"
    assert error.__cause__ is None, f"chained to {error.__cause__!r}: {error}"


# Sound text whose ratings cannot be used, or that ends so that it must have been cut.
_BEYOND_THE_LAYOUT = re.compile(r"outside the scale|more than once|looks cut short")


def campaign(name: str, cases: int) -> Counter[str]:
    """Runs so many damaged inputs of a layout and counts the outcomes.

    Raises:
        AssertionError: One is neither refused properly nor read as it is.
    """
    layout = LAYOUTS[name]
    outcomes: Counter[str] = Counter()

    @hypothesis.settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(damaged(layout))
    def run(case: tuple[Files, str, Any]) -> None:
        outcomes[outcome(layout, *case)] += 1

    run()
    return outcomes


# Settings

_AGENTS = (
    "tpgr",
    "tpgr_plus",
    "dqn_r",
    "ddpg_knn",
    "ddpg_r",
    "greedy_svd",
    "linear_ucb",
    "hlinear_ucb",
    "gaussian_posterior",
)
_GROUP = {"no": "group"}
_WRONG: dict[type, list[Any]] = {
    bool: ["spam", 7.5, [1], _GROUP, None],
    int: ["spam", "", 1.5, math.nan, math.inf, -(10**30), [1], _GROUP, None],
    float: ["spam", "", math.nan, math.inf, -1e300, [1.0], _GROUP, None],
    str: [[1], _GROUP, None, "spam"],
    list: ["spam", 5, ["spam", -3], _GROUP, None],
    dict: ["spam", 5, [1], None],
    type(None): [[1], _GROUP],
}
# Words that mean something to whoever chose them, places, and numbers that may be any.
_FREE = re.compile(
    r"(data|items)\.(name|path|root|cache|files|obtain|archive|member|missing_values|.*_column|column_names|beside)"
    r"|items\.((category_)?separator|category_flags)|simulator\.root"
)
_FREE_NUMBERS = ("data.relevant_above", "data.implicit_rating", "data.rating_min", "data.rating_max")


class Settings(NamedTuple):
    """A composed configuration and the settings that it becomes."""

    schema: type
    values: dict[str, Any]


def _settings(schema: type, name: str, *overrides: str) -> Settings:
    return Settings(schema, composed_values(name, overrides))


CONFIGURATIONS: dict[str, Callable[[], Settings]] = {
    **{
        f"train, {agent}": functools.partial(
            _settings, tpgr_settings.RunConfig, "train", f"agent={agent}", "data=movielens_1m"
        )
        for agent in _AGENTS
    },
    "fit_simulator": functools.partial(_settings, hrlmg_settings.FitConfig, "fit_simulator"),
    "train_hrl_mg": functools.partial(_settings, hrlmg_settings.RunConfig, "train_hrl_mg"),
    "train_hrl_mg, events": functools.partial(
        _settings, hrlmg_settings.RunConfig, "train_hrl_mg", "data=rees46", "agent=ddpg"
    ),
}
"""The configurations whose settings are tried, by name: composing one takes long."""


def mistakes(values: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields configurations with one mistake each: its kind, its key in dots, and the values."""
    groups = {key.rpartition(".")[0] for key, _ in flattened(values)}
    for group in sorted(groups):
        yield "unknown key", f"{group}.nonsense".lstrip("."), _with(values, f"{group}.nonsense".lstrip("."), 1)
        if group:
            yield "no group", group, _with(values, group, 5)
    for key, value in flattened(values):
        for wrong in _WRONG[type(value)]:
            if wrong != value and not (type(wrong) is type(value) is str and _FREE.fullmatch(key)):
                yield "value", key, _with(values, key, wrong)


def try_settings(settings: Settings, every: int = 1) -> Counter[str]:
    """Reads the settings with each mistake; returns how many were refused, and how many harmless ones accepted.

    Args:
        settings: Sound ones.
        every: Of so many mistakes one is tried.

    Raises:
        AssertionError: Something else than one message that names the key, or a value that its key cannot have.
    """
    read_settings(settings.schema, settings.values)
    outcomes: Counter[str] = Counter()
    for kind, key, values in itertools.islice(mistakes(settings.values), None, None, every):
        wrong = dict(flattened(values)).get(key)
        try:
            built = read_settings(settings.schema, values)
        except UserError as error:
            _check_message(error, key.rpartition(".")[2] if kind == "value" else key)
            outcomes[f"{kind}: refused"] += 1
        else:
            possible = kind == "value" and _possible(built, key, wrong)
            assert possible, f"{kind} {key} = {wrong!r} was accepted"
            outcomes["harmless value: accepted"] += 1
    return outcomes


def _with(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    *groups, last = key.split(".")
    functools.reduce(lambda group, name: group[name], groups, changed)[last] = value
    return changed


def _possible(built: Any, key: str, wrong: Any) -> bool:
    """Says whether a setting may have a value that looks wrong: null where its type allows it, words, free numbers."""
    *groups, last = key.split(".")
    owner = functools.reduce(
        lambda group, name: group[name] if isinstance(group, dict) else getattr(group, name), groups, built
    )
    if isinstance(owner, dict):  # names that users choose, such as those of events
        return True
    hint = typing.get_type_hints(type(owner))[last]
    kinds = typing.get_args(hint) or (hint,)
    if wrong is None:
        return type(None) in kinds or getattr(owner, last) == {}  # no pairs
    if isinstance(wrong, str):
        return last == "name" and str in kinds
    if isinstance(wrong, float | int):
        return key in _FREE_NUMBERS or (wrong == 1.5 and float in kinds)
    return bool(_FREE.fullmatch(key))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=400, help="for each layout of files")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    for name in LAYOUTS:
        found = campaign(name, options.cases)
        total += found
        print(f"{name}: {dict(found)}", flush=True)
    print(f"all files: {total.total()} cases, {dict(total)}")
    total.clear()
    for name, compose in CONFIGURATIONS.items():
        found = try_settings(compose())
        total += found
        print(f"{name}: {dict(found)}", flush=True)
    print(f"all settings: {total.total()} cases, {dict(total)}")


if __name__ == "__main__":
    main()
