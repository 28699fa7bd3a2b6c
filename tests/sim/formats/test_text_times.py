"""Times as text: the same second in any spelling, and none that could be another one."""

import polars as pl
import pytest

from sim.formats.text_times import are_dates, seconds_of

SECOND = 1454284742  # 2016-01-31 23:59:02


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("2016-01-31 23:59:02", SECOND),
        ("2016-01-31T23:59:02.5Z", SECOND),
        ("2016-01-31t23:59:02z", SECOND),
        ("2016-01-31 23:59:02,123", SECOND),
        ("2016-01-31 23:59:02 GMT", SECOND),
        ("2016-01-31 23:59:02+00", SECOND),
        ("2016-02-01T05:29:02+05:30", SECOND),
        ("2016/01/31 23:59:02", SECOND),
        ("2016/1/31 23:59", SECOND - 2),
        ("2016-1-2 3:04", 1451703840),
        ("2016.01.31", 1454198400),
        ("20160131", 1454198400),
        ("20160131235902", SECOND),
        ("20160131T235902Z", SECOND),
        ("1/31/2016 11:59:02 PM", SECOND),
        ("01/31/2016 11:59 pm", SECOND - 2),
        ("31/01/2016 23:59", None),  # or the month first
        ("01.02.2016", None),
        ("2016-02-30", None),
        ("2016-01-31 24:00:00", None),
        ("2016-01-31 23", None),
        ("2016-01-31 23:59:02 EST", None),
        ("1454284742", None),
        ("", None),
    ],
)
def test_spellings(text, second):
    assert seconds_of(pl.Series([text])).to_list() == [second]


def test_spellings_in_one_column():
    assert seconds_of(pl.Series(["2016-01-31 23:59:02", "20160131235902", "soon"])).to_list() == [SECOND, SECOND, None]


@pytest.mark.parametrize(
    ("texts", "are"),
    [
        (["20160131", "", "20170228"], True),
        (["20160131235902", "20170228000000"], True),
        (["20160131", "20161331"], False),
        (["1454284742", "1454284743"], False),
    ],
)
def test_numbers_that_are_dates(texts, are):
    assert are_dates(pl.Series(texts), float(max(texts))) == are
