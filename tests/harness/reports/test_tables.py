"""Text from data sets stays text, in Markdown and in CSV."""

import csv
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.reports.tables import csv_text, markdown_list, markdown_table, markdown_text, printable


def test_a_table_by_hand():
    assert markdown_table(["a", "b"], [["1", "|x|"]]) == ["| a | b |", "| --- | --- |", r"| 1 | \|x\| |"]
    assert markdown_text("p < 1e-300") == "p < 1e-300"  # no tag begins with a space
    assert markdown_list(["<b>", "two\nlines"]) == [r"* \<b\>", "* two lines"]
    assert csv_text(["a", "b"], [["=cmd()", -1.5], ["x,y", None]]) == 'a,b\n\'=cmd(),-1.5\n"x,y",\n'


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", " =1"])
def test_no_text_is_a_formula(text):
    (_, (cell,)) = csv.reader(io.StringIO(csv_text(["head"], [[text]])))
    assert cell.endswith("1") or cell.endswith("x")
    assert cell[0] not in "=+-@\t\r"


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4))
def test_any_text_keeps_the_shape_of_the_tables(rows):
    for line in markdown_table(["a", "b"], rows):
        assert len(line.splitlines()) == 1
        bars = re.findall(r"(?<!\\)(?:\\\\)*\|", line)
        assert len(bars) == 3
    read = list(csv.reader(io.StringIO(csv_text(["a", "b"], rows))))
    assert [len(row) for row in read] == [2] * (len(rows) + 1)
    for written, found in zip(rows, read[1:], strict=True):
        for text, cell in zip(written, found, strict=True):
            assert cell in (printable(text), f"'{printable(text)}")


@given(st.text())
def test_markdown_escapes_can_be_undone(text):
    assert re.sub(r"\\(.)", r"\1", markdown_text(text)) == printable(text)
