"""Tables in JSON: whatever they are written like, the same rows; whatever is wrong, one message with its line."""

import gzip
import json
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import polars as pl
import pytest
import zstandard

from harness.errors import UserError
from sim.files.event_readers import EventColumns, EventLayout, read_events
from sim.files.rating_readers import read_ratings
from sim.files.rows import TableLayout
from sim.formats import json_records
from sim.formats.chunks import read_chunks
from sim.formats.json_table import JsonLines
from sim.formats.nested_fields import Plan
from sim.formats.sources import SizeLimits, Source
from sim.formats.text_table import TextFormat

RATINGS = [
    {"user": "a", "item": 9007199254740993, "rating": 4.5},
    {"item": 7, "user": "b", "rating": 3, "text": 'said "user": 1'},
    {"user": "Zoë", "item": 8.0, "rating": "2"},
]
ROWS = [("a", 9007199254740993, 4.5), ("b", 7, 3.0), ("Zoë", 8, 2.0)]
SESSIONS = [
    {
        "session": 11,
        "events": [{"aid": 5, "ts": 1661724000278, "type": "clicks"}, {"aid": 6, "ts": 1661724060278, "type": "carts"}],
    },
    {"session": 12, "events": []},
    {"session": 13, "events": [{"aid": 5, "ts": 1661724001278, "type": "orders"}]},
]
EVENTS = [(11, 5, 1661724000, 1), (11, 6, 1661724060, 0), (13, 5, 1661724001, 2)]


def lines(records: list) -> str:
    return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)


def store(folder: Path, text: str | bytes, name: str = "data.txt") -> Source:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Source(path)


def ratings(source: Source, **changes) -> list[tuple]:
    text = TextFormat(**changes.pop("text", {}))
    columns = read_ratings("table", [source], layout=TableLayout(**changes, text=text))
    return list(zip(columns.users.tolist(), columns.items.tolist(), columns.ratings.tolist(), strict=True))


def sessions(*sources: Source, **changes) -> EventColumns:
    kinds = {"clicks": "click", "carts": "skip", "orders": "order"}
    named = {"user_column": "session", "item_column": "aid", "time_column": "ts", "feedback_column": "type"}
    text = TextFormat(**changes.pop("text", {}))
    layout = EventLayout(**{**named, "time_format": "auto", "feedback_of_event": kinds, **changes}, text=text)
    return read_events("events_table", sources, layout, SizeLimits())


def as_rows(columns: EventColumns) -> list[tuple]:
    users, items = columns.user_ids[columns.users], columns.item_ids[columns.items]
    arrays = (users, items, columns.times, columns.feedback)
    return list(zip(*(array.tolist() for array in arrays), strict=True))


def message(read, *arguments, **changes) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments, **changes)
    assert caught.value.do
    assert caught.value.__cause__ is None
    return str(caught.value)


WRITTEN = {
    "lines": lines,
    "array": json.dumps,
    "indented array": lambda records: json.dumps(records, indent=2),
    "indented objects": lambda records: "\n".join(json.dumps(record, indent=1) for record in records),
    "a list in an object": lambda records: json.dumps({"count": 3, "rows": records}),
    "a list in an indented object": lambda records: json.dumps({"count": 3, "rows": records}, indent=1),
}
PACKED = {
    "plain": str.encode,
    "gzip": lambda text: gzip.compress(text.encode()),
    "zstd": lambda text: zstandard.compress(text.encode()),
    "utf-16": lambda text: text.encode("utf-16"),
    "with a mark": lambda text: text.encode("utf-8-sig"),
    "without an end": lambda text: text.rstrip("\n").encode(),
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("written", WRITTEN)
def test_ratings_read_back_however_they_are_written(tmp_path, written, packing):
    assert ratings(store(tmp_path, PACKED[packing](WRITTEN[written](RATINGS)))) == ROWS


@pytest.mark.parametrize("written", ["lines", "array", "indented array", "indented objects"])
def test_sessions_become_their_events(tmp_path, written):
    source = store(tmp_path, WRITTEN[written](SESSIONS))
    assert as_rows(sessions(source)) == EVENTS
    assert as_rows(sessions(source, item_column="events.aid", text={"nested": "events"})) == EVENTS


def test_parquet_has_lists_and_objects_too(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.files.tables.try_parquet", lambda *_: None)  # in another process
    pl.read_ndjson(lines(SESSIONS).encode()).write_parquet(tmp_path / "sessions.parquet")
    assert as_rows(sessions(Source(tmp_path / "sessions.parquet"))) == EVENTS
    pl.DataFrame({"user": [{"id": 3}], "item": [4], "rating": [5]}).write_parquet(tmp_path / "objects.parquet")
    assert ratings(Source(tmp_path / "objects.parquet"), user_column="user.id") == [(3, 4, 5.0)]
    pl.read_ndjson(
        lines([*SESSIONS, {"session": 4, "events": [{"aid": 5, "ts": -1, "type": "orders"}]}]).encode()
    ).write_parquet(tmp_path / "sessions.parquet")
    assert "row 4: ts '-1' is not a time" in message(sessions, Source(tmp_path / "sessions.parquet"))


def test_names_with_dots_lead_into_objects(tmp_path):
    text = lines([{"user": {"id": 1, "name": {"x.y": "z"}}, "item": 2, "rating": 3, "user.age": 4}])
    source = store(tmp_path, text)
    assert ratings(source, user_column="user.id") == [(1, 2, 3.0)]
    assert ratings(source, user_column="user.name.x.y") == [("z", 2, 3.0)]
    assert ratings(source, user_column="user.age") == [(4, 2, 3.0)]
    assert "'user' is an object, not a value" in message(ratings, source)
    problem = message(ratings, source, user_column="user.no")
    assert (
        "has no column 'user.no'; its columns are 'user.id', 'user.name.x.y', 'item', 'rating', 'user.age'" in problem
    )


def test_the_list_whose_objects_are_the_rows_must_be_clear(tmp_path):
    two = [{**record, "others": record["events"][:1]} for record in SESSIONS]
    source = store(tmp_path, lines(two))
    assert "'events' and 'others' both hold 'aid', 'ts', 'type'" in message(sessions, source)
    assert as_rows(sessions(source, text={"nested": "others"})) == [EVENTS[0], EVENTS[2]]
    problem = message(sessions, source, text={"nested": "event"})
    assert "'event' is no list of objects in the first rows; lists of objects there: 'events', 'others'" in problem
    # What the row has itself comes first.
    text = lines([{"id": 1, "rows": [{"id": 2, "item": 3, "rating": 4}]}])
    assert ratings(store(tmp_path, text), user_column="id") == [(1, 3, 4.0)]
    assert ratings(store(tmp_path, text), user_column="rows.id") == [(2, 3, 4.0)]


GOOD = '{"user":1,"item":2,"rating":3}'
WRONG = [
    ('{"user":1,"item":3,"rating":3', "line 2: not JSON (Expecting ',' delimiter at character 30)"),
    ('{"user":1,"item":3,,"rating":3}', "line 2: not JSON"),
    (GOOD + GOOD, "line 2: not JSON (Extra data at character 31)"),
    ("[1,3,3]", "line 2: a row is no object"),
    ("", "line 2: the line is blank"),
    ('{"user":1,"item":3,"rating":3,"user":2}', "line 2: the key 'user' occurs twice"),
    (r'{"user":1,"item":3,"rating":3,"\u0075ser":2}', "line 2: the key 'user' occurs twice"),
    ('{"user":[1],"item":3,"rating":3}', "line 2: 'user' is a list, not a value"),
    ('{"user":{"a":1},"item":3,"rating":3}', "line 2: 'user' is an object, not a value"),
    ('{"user":null,"item":3,"rating":3}', "line 2: user '' is empty"),
    ('{"item":3,"rating":3}', "line 2: user '' is empty"),
    ('{"user":1,"item":3,"rating":NaN}', "line 2: rating '' is empty"),
    ('{"user":1,"item":3,"rating":-Infinity}', "line 2: 'rating' is an infinite number, not a value"),
    ('{"user":1,"item":3,"rating":"three"}', "line 2: rating 'three' is not a number"),
    ('{"user":1e18,"item":3,"rating":3}', "line 2: user '1e+18' is in scientific notation"),
    ('{"user":1e5,"item":3,"rating":3}', "line 2: user '1e+5' is in scientific notation"),
    ('{"user":1.25E2,"item":3,"rating":3}', "line 2: user '1.25e+2' is in scientific notation"),
    ('{"user":"1e5","item":3,"rating":3}', "line 2: user '1e5' is in scientific notation"),
    ('{"user":9007199254740993.0,"item":3,"rating":3}', "line 2: user '9007199254740993.0' is beyond 2^53"),
    (r'{"user":"\ud800","item":3,"rating":3}', "line 2: 'user' holds half a character"),
    (r'{"user":"\u0000","item":3,"rating":3}', "line 2: user '\\x00' contains a NUL character"),
    ('{"user":1,"item":3,"rating":3,"x":' + "[" * 5000 + "]" * 5000 + "}", "line 2: not JSON that can be read"),
]


@pytest.mark.parametrize(("line", "problem"), WRONG)
def test_a_wrong_line_is_named(tmp_path, line, problem):
    source = store(tmp_path, f"{GOOD}\n{line}\n{GOOD}\n")
    assert f"{source}: {problem}" in message(ratings, source)
    if line:
        # The same in an array, unless the line is not a whole value.
        source = store(tmp_path, f"[{GOOD},\n{line},\n{GOOD}]")
        assert f"{source}: line {2 if line != WRONG[0][0] else 3}: " in message(ratings, source)


def test_a_wrong_first_line_is_named(tmp_path):
    source = store(tmp_path, f'{{"user":1,"item":2\n{GOOD}\n')
    assert f"{source}: line 1: not JSON" in message(ratings, source)


def test_what_is_missing_may_be_left_out(tmp_path):
    source = store(tmp_path, f'{GOOD}\n{{"user":1,"item":3,"rating":NaN}}\n{{"user":null,"item":3,"rating":1}}\n')
    assert ratings(source, missing_values=[""]) == [(1, 2, 3.0)]


WRONG_ENTRIES = [
    ('"events":[{"aid":1,"ts":1661724000278,"type":"clicks"},7]', "entry 2 of 'events' is no object"),
    ('"events":[null]', "entry 1 of 'events' is no object"),
    ('"events":{"aid":1}', "'events' is no list of objects"),
    ('"others":[]', "there is no list 'events'"),
    ('"events":[],"events":[]', "there is no list 'events', or there are two"),
    ('"events":[{"aid":1,"ts":1661724000278,"aid":3,"type":"clicks"}]', "the key 'aid' occurs twice"),
    ('"events":[{"aid":1,"ts":"noon","type":"clicks"}]', "ts 'noon' is not a time"),
    ('"events":[{"aid":1,"ts":1661724000278}]', "type '' is not one of"),
]


@pytest.mark.parametrize(("entry", "problem"), WRONG_ENTRIES)
def test_a_wrong_event_is_named_by_the_line_of_its_session(tmp_path, entry, problem):
    source = store(tmp_path, f'{lines(SESSIONS)}{{"session":14,{entry}}}\n')
    assert f"{source}: line 4: {problem}" in message(sessions, source)


def test_rows_of_an_array_on_one_line_are_counted(tmp_path):
    source = store(tmp_path, f"[{GOOD},{GOOD.replace('3', 'x')}]")
    assert "line 1: not JSON" in message(ratings, source)
    source = store(tmp_path, f"[{GOOD},{GOOD.replace('3', chr(34) + 'x' + chr(34))}]")
    assert "row 2: rating 'x' is not a number" in message(ratings, source)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "holds no rows"),
        (f"[{GOOD}", "line 1: the array is not closed"),
        (f"[{GOOD},\n{GOOD[:9]}", "line 2: not JSON"),
        (f"[{GOOD}\n{GOOD}]", "line 2: not JSON (expected ',' or ']')"),
        (f"[{GOOD}]\n{GOOD}", "line 2: not JSON (something follows the array)"),
        (f"[{GOOD},]", "line 1: not JSON"),
        ("[[1,2],[3,4]]", "line 1: a row is no object"),
        (f"[\n{GOOD},\n".encode() + b'{"user":"\xff"}]', "line 3: byte b'\\xff' is not valid UTF-8"),
        (json.dumps({"user": {"0": 1}, "item": {"0": 2}, "rating": {"0": 3}}), "line 1: 'user' is an object"),
        (f"{GOOD}\n".encode() + b'{"user":"\xff"}\n', "line 2: byte 10 is not valid UTF-8"),
    ],
)
def test_damaged_texts(tmp_path, text, problem):
    assert problem in message(ratings, store(tmp_path, text))


def test_other_encodings_and_comments(tmp_path):
    assert ratings(store(tmp_path, lines(RATINGS).encode("latin-1")), text={"encoding": "latin-1"}) == ROWS
    text = f"{GOOD}\n# twice\n{GOOD}\n"
    assert len(ratings(store(tmp_path, text), text={"comment": "#"})) == 2


def test_text_that_begins_with_brackets_is_not_json(tmp_path):
    layout = TextFormat(",", ["user", "item", "rating"])
    columns = read_ratings("table", [store(tmp_path, "{a},b,3\n[1],c,4\n")], layout=TableLayout(text=layout))
    assert columns.users.tolist() == ["{a}", "[1]"]


@pytest.mark.parametrize("size", [40, 1 << 20])
@pytest.mark.parametrize("written", WRITTEN)
def test_blocks_join_without_loss(tmp_path, monkeypatch, written, size):
    monkeypatch.setattr("sim.files.tables._BLOCK_BYTES", size)
    monkeypatch.setattr("sim.formats.text_table.read_chunks", lambda *source, **_: read_chunks(*source[:2], size))
    source = store(tmp_path, WRITTEN[written](RATINGS * 5))
    columns = read_ratings("table", [source], layout=TableLayout())
    assert list(zip(columns.users.tolist(), columns.items.tolist(), columns.ratings.tolist(), strict=True)) == ROWS * 5
    starts = {
        "lines": range(1, 16),
        "array": range(1, 16),
        "indented objects": (1, 6, 12, 17, 22),
        "indented array": (2, 7, 13),
    }
    assert columns.lines[: len(starts.get(written, ()))].tolist() == list(starts.get(written, ()))


def test_an_object_may_not_go_on_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "MAX_OBJECT_BYTES", 1000)
    monkeypatch.setattr("sim.files.tables._BLOCK_BYTES", 100)
    assert "line 1: not JSON" in message(ratings, store(tmp_path, '[{"user": "' + "x" * 100_000 + '"}]'))


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["", "a", "007", "7.0", "Zoë", "\ud800", "\0", "[1]", "{", '"', "1e5", "null"]),
    st.just([1]),
    st.just({"user": 1}),
)
_row = st.fixed_dictionaries({}, optional={"user": _scalars, "item": _scalars, "x": _scalars})
_text = st.lists(_row, min_size=1, max_size=4).map(lambda rows: "".join(f"{json.dumps(row)}\n" for row in rows))
_pieces = st.sampled_from(
    ['"user": 1', '"\\u0075ser": 2', ", ", "{", "}", "\n", "\r", "1e400", "12345678901234567.0", "0.10"]
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(_text, st.lists(st.tuples(st.floats(0, 1), _pieces), max_size=2))
@hypothesis.example('{"user": 1, "user": null}\n{"item": 2}\n', [])
def test_polars_is_never_more_lenient_than_the_careful_path(text, inserted):
    for place, piece in inserted:
        at = int(place * len(text))
        text = text[:at] + piece + text[at:]
    parser = JsonLines(Plan({"user": ("user",), "item": ("item",)}, {}), None)
    part = parser.parse_chunk(text.encode())
    if part is not None:
        expected = parser.collect([parser.parse_line(line) for line in text.removesuffix("\n").split("\n")])
        assert part.frame.equals(expected.frame)


@pytest.mark.parametrize("records", [RATINGS[:2], SESSIONS])
def test_the_fast_path_is_taken(tmp_path, monkeypatch, records):
    monkeypatch.setattr("sim.formats.json_table.rows_of", None)
    source = store(tmp_path, lines(records))
    assert len(ratings(source) if records is not SESSIONS else as_rows(sessions(source))) > 1
