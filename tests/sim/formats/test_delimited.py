"""Tables with separators: separators of several characters, and first lines that hold no names, or other ones."""

import pytest

from harness.errors import UserError
from sim.files.rating_readers import read_ratings
from sim.files.rows import TableLayout
from sim.formats.sources import Source
from sim.formats.text_table import TextFormat

TEXT = "user,item,rating\na,1,3\nb,20,5\n"


def rows(path, text, **written):
    path.write_text(text, "utf-8")
    columns = read_ratings("table", [Source(path)], layout=TableLayout(text=TextFormat(**written)))
    return list(zip(columns.users.tolist(), columns.items.tolist(), columns.ratings.tolist(), strict=True))


@pytest.mark.parametrize("separator", ["||", "<SEP>", ", ", "¬", "\t|\t"])
def test_separators_of_several_characters(tmp_path, separator):
    text = TEXT.replace(",", separator)
    assert rows(tmp_path / "r.txt", text, separator=separator) == [("a", 1, 3.0), ("b", 20, 5.0)]
    with pytest.raises(UserError, match="line 4: 2 fields instead of 3"):
        rows(tmp_path / "r.txt", f"{text}c{separator}1\n", separator=separator)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1,2,3\n", r"data\.column_names=\[user,item,rating\]"),
        ("# a table\n" + TEXT, "data.comment='#' leaves out"),
        (TEXT.replace(",", ", "), """set 'data.separator=", "'"""),
        ("{'user': 1, 'item': 1, 'rating': 2}\n", "written in Python"),
        ("User,Item,Rating\n1,2,3\n", "set data.user_column, data.item_column, data.rating_column"),
        ("user:item:rating\n1:2:3\n", "data.separator"),
    ],
)
def test_a_first_line_that_is_not_understood_says_what_to_set(tmp_path, text, hint):
    with pytest.raises(UserError, match=f"line 1: .*{hint}"):
        rows(tmp_path / "r.csv", text)


def test_a_line_of_names_is_no_row_although_names_are_given(tmp_path):
    with pytest.raises(UserError, match="line 1: the first line holds the names of the columns"):
        rows(tmp_path / "r.csv", TEXT, header=["user", "item", "rating"])
    assert rows(tmp_path / "r.csv", "item,1,3\n", header=["user", "item", "rating"]) == [("item", 1, 3.0)]


def test_names_of_events_that_are_digits_may_have_become_floats(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("user,item,rating\na,1,1.0\nb,2,5\n")
    layout = TableLayout(rating_of_event={"1": 2.0, "5": 4.0})
    assert read_ratings("table", [Source(path)], layout=layout).ratings.tolist() == [2.0, 4.0]
