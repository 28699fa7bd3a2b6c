"""Times as text, as people and programs write them, as seconds since 1970."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_CLOCK = r"(?<clock>[0-9]{2}:[0-9]{2})(?:(?<second>:[0-9]{2})(?:\.[0-9]+)?)?"
_OFFSET = r"(?: ?(?:UTC|Z|(?<sign>[+-])(?<hours>[0-9]{2}):?(?<minutes>[0-9]{2})))?"
_ISO = rf"^(?<date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})(?:[ T]{_CLOCK}{_OFFSET})?$"
_HALF_DAYS = (
    r"^(?<month>[0-9]{1,2})/(?<day>[0-9]{1,2})/(?<year>[0-9]{4}) "
    r"(?<hour>0?[0-9]|1[0-2]):(?<minute>[0-9]{2})(?::(?<second>[0-9]{2}))? ?(?<half>[AP]M)$"
)
_DIGITS = (
    r"^((?:19|20)[0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])"  # 20160131
    r"(?:T?([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9])(Z?))?$"  # and 20160131235902
)
YEAR_LAST = r"[0-9]{1,2}[/.-][0-9]{1,2}[/.-][0-9]{2,4}\b"
"""Dates that are not read."""
_SPELLINGS = (
    (r"^([0-9]{4})[/.]([0-9]{1,2})[/.]([0-9]{1,2})", "${1}-${2}-${3}"),
    (r"^([0-9]{4}-)([0-9]-)", "${1}0${2}"),
    (r"^([0-9]{4}-[0-9]{2}-)([0-9])([ T]|$)", "${1}0${2}${3}"),
    (r"^([0-9-]{10}[ T])([0-9]:)", "${1}0${2}"),
    (r"(:[0-9]{2}),([0-9]+)", "${1}.${2}"),
    (r" ?GMT$", "Z"),
    (r"(:[0-9]{2}(?:\.[0-9]+)? ?[+-][0-9]{2})$", "${1}00"),
)
"""Other ways to write what `_ISO` describes."""


def seconds_of(texts: pl.Series) -> pl.Series:
    """Returns times such as 2016-01-31, 2016-01-31 23:59, 2016-01-31T23:59:02.5Z or +01:00 (without one: UTC).

    Or 2016/1/31, 20160131, 20160131235902; or 1/31/2016 11:59:02 PM: before AM or PM, months come first.

    Args:
        texts: Strings.

    Returns:
        Int64 seconds since 1970, null where a text is no such time.
    """
    import polars as pl

    parts = texts.str.extract_groups(_ISO).struct.unnest()
    if parts["date"].null_count():
        parts = _with_iso_times(texts).str.extract_groups(_ISO).struct.unnest()
    clock = parts["clock"].fill_null("00:00") + parts["second"].fill_null(":00")
    moments = (parts["date"] + " " + clock).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="ms")
    hours, minutes = (parts[name].cast(pl.Int64).fill_null(0) for name in ("hours", "minutes"))
    east = (hours * 60 + minutes) * 60
    seconds = moments.dt.epoch("s") - east.zip_with((parts["sign"] == "+").fill_null(True), -east)
    return seconds.set((hours > 23) | (minutes > 59), None)


def are_dates(texts: pl.Series, median: float) -> bool:
    """Returns whether numbers with some median are dates such as 20160131, or moments such as 20160131235902."""
    return any(19 <= median / 10**digits < 21 for digits in (6, 12)) and bool(
        ((texts == "") | texts.str.contains(_DIGITS)).all()
    )


def _with_iso_times(texts: pl.Series) -> pl.Series:
    """Returns times in other spellings as 2016-01-31 23:59:02."""
    import polars as pl

    texts = texts.str.to_uppercase()
    for pattern, spelling in _SPELLINGS:
        texts = texts.str.replace(pattern, spelling)
    # Digits alone.
    parts = texts.str.extract_groups(_DIGITS).struct.unnest()
    date, clock = ([parts[str(number)] for number in numbers] for numbers in ((1, 2, 3), (4, 5, 6)))
    joined = pl.concat_str(date, separator="-") + pl.concat_str(
        pl.lit(" ") + pl.concat_str(clock, separator=":"), parts["7"]
    ).fill_null("")
    texts = pl.select(joined).to_series().zip_with(parts["1"].is_not_null(), texts)
    # AM and PM.
    parts = texts.str.extract_groups(_HALF_DAYS).struct.unnest()
    if parts["half"].null_count() == len(texts):
        return texts
    hour = parts["hour"].cast(pl.Int64) % 12 + 12 * (parts["half"] == "PM").cast(pl.Int64)
    date = [parts[name].str.zfill(width) for name, width in (("year", 4), ("month", 2), ("day", 2))]
    clock = [hour.cast(pl.String).str.zfill(2), parts["minute"], parts["second"].fill_null("00")]
    iso = pl.select(pl.concat_str(date, separator="-") + " " + pl.concat_str(clock, separator=":")).to_series()
    return texts.zip_with(parts["half"].is_null(), iso)
