"""Files of histories and ids."""

import polars as pl
import pytest

from harness.errors import UserError
from sim.recommend.files import read_history, read_ids


def is_rating(value):
    try:
        float(value)
    except (TypeError, ValueError):
        return value == ""
    return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7,4\n9,2.5\n", [("7", "4"), ("9", "2.5")]),
        ("item,rating\n7,4\n9,\n", [("7", "4"), ("9", "")]),
        ("7,4,200\n9,2,100\n8,1,100\n", [("9", "2"), ("8", "1"), ("7", "4")]),
        ("time\tstars\tmovie_id\n2024-05-02\t4\t7\n2024-05-01 08:00:00\t2\t9\n", [("9", "2"), ("7", "4")]),
        ("\ufeffitem;answer\r\na b;4\r\n\r\n'c';1\r\n", [("a b", "4"), ("'c'", "1")]),
        ('item,answer\n"a, the first",4\n', [("a, the first", "4")]),
    ],
)
def test_a_history_in_any_usual_layout(text, expected, tmp_path):
    path = tmp_path / "history.csv"
    path.write_bytes(text.encode())
    assert read_history(str(path), is_rating, "a rating") == expected


def test_a_history_in_parquet(tmp_path):
    path = tmp_path / "history.parquet"
    pl.DataFrame({"rating": [4.0, 2.0], "item": [7, 9], "timestamp": [2, 1]}).write_parquet(path)
    assert read_history(str(path), is_rating, "a rating") == [(9, 2.0), (7, 4.0)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"item,rating\n", "holds no rows"),
        (b"7\n9\n", "one column"),
        (b"first,second\n7,4\n", "first, second: an answer is a rating"),
        (b"7,4,soon\n9,2,later\n", "the time 'soon' is neither"),
        (b"PAR1 and nothing else", "cannot be read as a table"),
        (b"\xff\xfe\xfa,4\n", "cannot be read as a table"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_history_is_one_message(content, problem, tmp_path):
    path = tmp_path / "history.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=problem) as raised:
        read_history(str(path), is_rating, "a rating")
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("text", ["3\n5\n3\n", "user_id\n3\n5\n", "User ID,name\n3,x\n5,y\n".replace(" ", "_")])
def test_ids_each_once_without_a_name(text, tmp_path):
    path = tmp_path / "users.txt"
    path.write_text(text)
    assert read_ids(str(path), "user", lambda user: user in ("3", "5")) == ["3", "5"]


def test_a_known_id_is_no_name(tmp_path):
    path = tmp_path / "users.txt"
    path.write_text("user\nme\n")
    assert read_ids(str(path), "user", lambda user: user == "user") == ["user", "me"]
    path.write_text("user\n")
    with pytest.raises(UserError, match="holds no users"):
        read_ids(str(path), "user", lambda user: False)
