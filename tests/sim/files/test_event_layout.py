"""What tells the answers of a log: names of any kind, flags, ratings, items packed with their answers."""

from pathlib import Path

import polars as pl
import pytest
from event_files import as_rows, message, read, store

from sim.formats.sources import Source
from sim.formats.text_table import TextFormat, read_csv

NAMES = {"page.view": "click", "Add to cart": "click", "購入": "order", "1": "skip", "No": "ignore", "a=b": "click"}


def log(*events: str) -> str:
    return "user,item,time,event\n" + "".join(f"u,{row},{row},{event}\n" for row, event in enumerate(events))


def test_names_of_any_kind(tmp_path):
    columns = read(store(tmp_path, log(*NAMES, "1.0")), feedback_of_event=NAMES)
    assert columns.feedback.tolist() == [1, 1, 2, 0, 1, 0]


def test_unknown_names_are_listed_with_their_counts_and_what_to_say(tmp_path):
    first = store(tmp_path, log("view", "page.view", "view", "page.view"))
    second = store(tmp_path, log("It's", "view", "page.view", '"odd ""name"""'), "second.csv")
    said = message(first, second, feedback_of_event={"view": "click"})
    assert "log.csv: line 3: event 'page.view' is not one of 'view'" in said
    assert "unknown: 'page.view' (3, like 'view'), \"It's\" (1), 'odd \"name\"' (1)" in said
    assert r"""'data.events=["page.view=ignore","It'"'"'s=ignore","odd \"name\"=ignore"]'""" in said
    # What data.events already says stays.
    own = {"It's": "click"}
    said = message(first, second, feedback_of_event={"view": "click", **own}, own_events=own)
    assert r"""'data.events=["It'"'"'s=click","page.view=ignore",""" in said
    # A file that is damaged further down does not hide the names.
    (tmp_path / "second.csv").write_text(log("wish") + "cut")
    assert "unknown: 'page.view' (2, like 'view'), 'wish' (1)" in message(
        first, second, feedback_of_event={"view": "click"}
    )


FLAGS = "user,item,time,is_click,is_order,is_bot\nu,1,1,1,0,0\nu,2,2,No,YES,false\nu,3,3,0.0,n,f\nu,4,4,1,1,y\n"
FLAGGED = {"feedback_column": None, "flag_columns": {"is_click": "click", "is_order": "order", "is_bot": "ignore"}}


def test_the_strongest_flag_counts(tmp_path):
    assert as_rows(read(store(tmp_path, FLAGS), **FLAGGED)) == [("u", 1, 1, 1), ("u", 2, 2, 2), ("u", 3, 3, 0)]
    table = {"user": ["u", "u"], "item": [1, 2], "time": [1, 2], "is_click": [True, False], "is_order": [1.0, 0.0]}
    pl.DataFrame(table).write_parquet(tmp_path / "log.parquet")
    flags = {"feedback_column": None, "flag_columns": {"is_click": "click", "is_order": "order"}}
    assert read(Source(tmp_path / "log.parquet"), **flags).feedback.tolist() == [2, 0]


@pytest.mark.parametrize("value", ["2", "", "maybe", "-1"])
def test_flags_are_yes_or_no(tmp_path, value):
    said = message(store(tmp_path, FLAGS + f"u,5,5,1,{value},0\n"), **FLAGGED)
    assert f"line 6: is_order '{value}' is not one of '0', '0.0', 'no'" in said


def test_ratings_stand_in_for_answers(tmp_path):
    text = "user,item,time,event\nu,1,1,3.5\nu,2,2,4\nu,3,3,4.5\nu,4,4,5.0\nu,5,5,99\n"
    changes = {"least_rating": {"order": 5.0, "click": 4.0}, "missing_values": ["99"], "feedback_of_event": {}}
    assert read(store(tmp_path, text), **changes).feedback.tolist() == [0, 1, 1, 2]
    assert read(store(tmp_path, text), **{**changes, "least_rating": {"order": 4.5}}).feedback.tolist() == [0, 0, 2, 2]
    assert "line 7: event 'good' is not a number" in message(store(tmp_path, text + "u,6,6,good\n"), **changes)


def test_ratings_that_stand_apart_are_no_orders(tmp_path):
    text = "user,item,time,event\n" + "".join(f"u,{n},{n},{n % 5 + 1}\n" for n in range(20)) + "u,30,30,99\n"
    changes = {"least_rating": {"order": 5.0, "click": 4.0}, "feedback_of_event": {}}
    [note] = read(store(tmp_path, text), **changes).notes
    assert note.startswith("the rating 99 (4.8% of all, first on line 22) stands apart from the others")
    assert """'data.missing_values=["99"]'""" in note
    assert read(store(tmp_path, text), **changes, missing_values=["99.0"]).left_out == {"data.missing_values": 1}


MIND = "1\tU1\t100\tN9 N8\tN1-1 N2-0 B-07-2\n2\tU2\t200\t\tN1-0\n3\tU2\t300\tN1\t\n"
PACKED = {
    "text": TextFormat("\t", ["number", "user", "time", "history", "shown"]),
    "item_column": "shown",
    "feedback_column": None,
    "item_separator": " ",
    "answer_separator": "-",
    "feedback_of_event": {"0": "skip", "1": "click", "2": "order"},
}


def test_packed_items_with_their_answers(tmp_path):
    rows = [("U1", "N1", 100, 1), ("U1", "N2", 100, 0), ("U1", "B-07", 100, 2), ("U2", "N1", 200, 0)]
    assert as_rows(read(store(tmp_path, MIND, "behaviors.tsv"), **PACKED)) == rows
    baskets = "user,time,event,item\nu,5,buy,1|3|2|\nu,6,view,3\n"
    changes = {"item_separator": "|", "feedback_of_event": {"buy": "order", "view": "click"}}
    expected = [("u", 1, 5, 2), ("u", 3, 5, 2), ("u", 2, 5, 2), ("u", 3, 6, 1)]
    assert as_rows(read(store(tmp_path, baskets), **changes)) == expected


@pytest.mark.parametrize(
    ("packed", "problem"),
    [
        ("N1-1 N2", "line 4: shown 'N2' has no answer behind '-'"),
        ("N1-1 N2-7", "line 4: answer in shown '7' is not one of '0', '1', '2'; unknown: '7' (1)"),
        ("N1-1 -1", "line 4: shown '' is empty"),
    ],
)
def test_packed_items_that_cannot_be(tmp_path, packed, problem):
    sound = MIND.splitlines(keepends=True)[0] * 3
    assert problem in message(store(tmp_path, f"{sound}4\tU3\t400\t\t{packed}\n"), **PACKED)


def test_propensities_are_kept(tmp_path: Path):
    text = "user,item,time,event,p\nb,1,2,view,0.5\na,2,1,buy,1\n"
    columns = read(store(tmp_path, text), propensity_column="p")
    assert columns.shown_probability.tolist() == [0.5, 1.0]
    for value in ("0", "1.5", "-0.5"):
        said = message(store(tmp_path, text + f"a,3,3,view,{value}\n"), propensity_column="p")
        assert f"line 4: p '{value}' is not a probability above 0 and up to 1" in said
    assert read(store(tmp_path, text)).shown_probability is None


def test_packed_items_have_packed_propensities(tmp_path):
    head = "number\tuser\ttime\tshown\tp\n"
    text = f"{head}1\tU1\t100\tN1-1  N2-0\t0.5 0.25\n2\tU2\t200\t\t\n3\tU2\t300\tN3-0\t1\n"
    changes = {**PACKED, "text": TextFormat("\t"), "propensity_column": "p"}
    columns = read(store(tmp_path, text), **changes)
    assert [row[1] for row in as_rows(columns)] == ["N1", "N2", "N3"]
    assert columns.shown_probability.tolist() == [0.5, 0.25, 1.0]
    for bad, problem in (
        ("0.5", "line 5: p '0.5' holds 1 values for 2 items"),
        ("0.5 0.5 0.5", "line 5: p '0.5 0.5 0.5' holds 3 values for 2 items"),
        ("0.5 x", "line 5: p 'x' is not a number"),
        ("0.5 2", "line 5: p '2' is not a probability"),
    ):
        assert problem in message(store(tmp_path, f"{text}4\tU3\t400\tN1-1 N2-0\t{bad}\n"), **changes)


@pytest.mark.parametrize("last", ["x", ""])
def test_of_a_wide_table_the_same_rows_are_read_as_of_a_narrow_one(tmp_path, monkeypatch, last):
    read_in_part = []

    def spy(data, separator, schema, columns=None):
        read_in_part.append(columns)
        return read_csv(data, separator, schema, columns)

    monkeypatch.setattr("sim.formats.delimited.read_csv", spy)
    names = [*(f"a{number}" for number in range(30)), "user", "item", "time", "event", *(f"z{n}" for n in range(30))]
    filled = {"user": "u", "event": "view", "z29": last}

    def line(row: int) -> str:
        return ",".join({**filled, "item": str(row), "time": str(row)}.get(name, "v") for name in names)

    lines = [",".join(names), *map(line, range(5))]
    assert as_rows(read(store(tmp_path, "\n".join(lines) + "\n"))) == [("u", row, row, 1) for row in range(5)]
    assert read_in_part == [[30, 31, 32, 33, 63]]
    # One field too few in a line, one too many in another: the fields add up, the lines do not.
    uneven = [*lines[:2], lines[2].removesuffix(f",{last}"), lines[3] + ",w", *lines[4:]]
    assert "line 3: 63 fields instead of 64" in message(store(tmp_path, "\n".join(uneven) + "\n"))
