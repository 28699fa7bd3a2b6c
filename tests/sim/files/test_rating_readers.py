"""Readers: what is written reads back the same in every layout and packing, and every bad file gives one message."""

import bz2
import csv
import datetime
import gzip
import io
import lzma
import os
import re
import tarfile
import zipfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
import zstandard

from harness.commands.command_words import override_value
from harness.errors import UserError
from harness.runs.composition import composed_values
from sim.files import rating_readers as readers
from sim.files.rating_readers import read_ratings
from sim.files.rows import TableLayout
from sim.formats import packing, sources
from sim.formats.chunks import read_chunks
from sim.formats.delimited import TextTable
from sim.formats.sources import SizeLimits, Source
from sim.formats.text_table import BLANKS, Columns, TextFormat

HEADER = "userId,movieId,rating,timestamp\n"
LINES = {
    "movielens_dat": "1::10::5::978300760\n2::20::3.5::978302109\n",
    "movielens_data": "1\t10\t5\t978300760\n2\t20\t3.5\t978302109\n",
    "movielens_csv": f"{HEADER}1,10,5,978300760\n2,20,3.5,978302109\n",
    "netflix": "10:\n1,5,2005-09-06\n20:\n2,3,2004-02-29\n",
    "table": "user,item,rating\n1,10,5\n2,20,3.5\n",
}
few = hypothesis.settings(
    max_examples=40, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)


def store(folder: Path, text: str | bytes, packing: str = "plain", name: str = "ratings.csv") -> Source:
    """Writes a text plain, packed, or as a member of an archive."""
    data = text if isinstance(text, bytes) else text.encode()
    path = folder / name
    if packing in ("bz2", "xz", "zst"):
        pack = {
            "bz2": bz2.compress,
            "xz": lzma.compress,
            "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
        }[packing]
        path = folder / f"{name}.{packing}"
        path.write_bytes(pack(data))
        return Source(path)
    if packing == "tar.gz":
        path = folder / f"{name}.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            entry = tarfile.TarInfo(f"set/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        return Source(path, f"set/{name}")
    if packing == "gzip in a zip":
        return store(folder, gzip.compress(data), "zip", f"{name}.gz")
    if packing == "zip":
        path = folder / f"{name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"set/{name}", data)
        return Source(path, f"set/{name}")
    if packing == "gzip":
        path = folder / f"{name}.gz"
        path.write_bytes(gzip.compress(data))
        return Source(path)
    path.write_bytes(data)
    return Source(path)


def message(reader: str, *source: Source, **options) -> str:
    """Returns the message of the UserError that reading must raise, checked to name the file and not to be chained."""
    with pytest.raises(UserError) as caught:
        read_ratings(reader, list(source), **options)
    assert str(caught.value).count(str(source[0].path)) == 1
    assert caught.value.__cause__ is None
    return str(caught.value)


def as_rows(columns: Columns) -> list[tuple]:
    """Returns the columns as a list of rows of Python values."""
    arrays = [columns.users, columns.items, columns.ratings]
    arrays += [] if columns.timestamps is None else [columns.timestamps]
    return list(zip(*(array.tolist() for array in arrays), strict=True))


integers = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3000)
numbers = st.sampled_from([0.5, 1.0, 3.5, 5.0]) | st.floats(allow_nan=False, allow_infinity=False, width=32)
packings = st.sampled_from(["plain", "gzip", "zip", "bz2", "xz", "zst", "tar.gz", "gzip in a zip"])
line_ends = st.sampled_from(["\n", "\r\n"])
movielens = st.sampled_from(["movielens_dat", "movielens_data", "movielens_csv"])


@few
@hypothesis.given(
    rows=st.lists(st.tuples(integers, integers, numbers, integers), min_size=1, max_size=30),
    reader=movielens,
    packing=packings,
    line_end=line_ends,
    blank_lines=st.integers(0, 3),
    mark=st.booleans(),
)
def test_movielens_layouts_read_back_what_was_written(tmp_path, rows, reader, packing, line_end, blank_lines, mark):
    separator = {"movielens_dat": "::", "movielens_data": "\t", "movielens_csv": ","}[reader]
    lines = [HEADER.strip()] if reader == "movielens_csv" else []
    lines += [separator.join(map(str, row)) for row in rows]
    text = ("\ufeff" if mark else "") + "".join(line + line_end for line in lines) + blank_lines * line_end
    assert as_rows(read_ratings(reader, [store(tmp_path, text, packing)])) == rows


field_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda text: "\ufeff" not in text
)


@few
@hypothesis.given(
    rows=st.lists(st.tuples(field_text, st.integers(0, 99).map(str), numbers, field_text), min_size=1, max_size=20),
    packing=packings,
    separator=st.sampled_from(",\t;|"),
)
def test_tables_keep_string_ids_exactly(tmp_path, rows, packing, separator):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, lineterminator="\n")
    writer.writerow(["who", "what", "stars", "comment"])
    writer.writerows([user, item, repr(value), comment] for user, item, value, comment in rows)
    source = store(tmp_path, buffer.getvalue(), packing)
    found = read_ratings("table", [source], layout=TableLayout("who", "what", "stars", None, TextFormat(separator)))
    assert [str(user) for user in found.users.tolist()] == [row[0] for row in rows]
    assert found.items.tolist() == [int(row[1]) for row in rows]
    assert found.ratings.tolist() == [row[2] for row in rows]
    assert found.timestamps is None


@few
@hypothesis.given(
    blocks=st.lists(
        st.tuples(
            st.integers(1, 40_000),
            st.lists(
                st.tuples(st.integers(0, 10**9 + 5), st.integers(1, 5), st.dates(datetime.date(1969, 1, 1))),
                max_size=6,
            ),
        ),
        min_size=1,
        max_size=6,
    ),
    packing=packings,
    one_file=st.booleans(),
)
def test_netflix_layouts_read_back_what_was_written(tmp_path, blocks, packing, one_file):
    hypothesis.assume(any(ratings for _, ratings in blocks))
    texts = ["".join([f"{movie}:\n", *(f"{u},{r},{d.isoformat()}\n" for u, r, d in rows)]) for movie, rows in blocks]
    texts = ["".join(texts)] if one_file else texts
    files = [store(tmp_path, text, packing, f"mv_{place}.txt") for place, text in enumerate(texts)]
    epoch = datetime.date(1970, 1, 1)
    expected = [(u, movie, r, (d - epoch).days * 86_400) for movie, rows in blocks for u, r, d in rows]
    assert as_rows(read_ratings("netflix", files)) == expected


@few
@hypothesis.given(
    text=st.text("0159.-:\n", min_size=1, max_size=40) | st.text('01 ,\t"+eE\n\r', min_size=1, max_size=30),
    reader=st.sampled_from(["movielens_dat", "movielens_data", "table"]),
)
def test_the_fast_path_is_never_more_lenient_than_the_careful_one(tmp_path, text, reader):
    layout = TableLayout("a", "b", "c", "d", TextFormat(","))
    good = {"movielens_dat": "1::2::3::4\n", "movielens_data": "1\t2\t3\t4\n", "table": "a,b,c,d\n1,2,3,4\n"}[reader]
    source = store(tmp_path, good + text)

    def outcome():
        try:
            return as_rows(read_ratings(reader, [source], layout=layout))
        except UserError as error:
            return str(error)

    both = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers._Delimited, "parse_chunk", lambda self, data: None)
        patch.setattr(TextTable, "parse_chunk", lambda self, data: None)
        assert outcome() == both


@pytest.mark.parametrize("user", ["7", "007", "-0", "1234567890123456789", "9223372036854775808"])
def test_quotes_do_not_change_what_an_id_is(tmp_path, user):
    plain, quoted = (f"user,item,rating\n{text},5,3\n1,5,4\n".encode() for text in (user, f'"{user}"'))
    expected = read_ratings("table", [store(tmp_path, plain)]).users
    found = read_ratings("table", [store(tmp_path, quoted)]).users
    assert (found.dtype.kind, found.tolist()) == (expected.dtype.kind, expected.tolist())


@pytest.mark.parametrize("reader", list(LINES))
def test_the_fast_path_is_taken(tmp_path, reader, monkeypatch):
    def refuse(*_):
        raise AssertionError("careful path taken")

    for module in ("sim.formats.text_table", "sim.files.netflix"):
        monkeypatch.setattr(f"{module}.CarefulRecords", refuse)
    found = read_ratings(reader, [store(tmp_path, LINES[reader])])
    assert found.users.tolist() == [1, 2]
    assert found.items.tolist() == [10, 20]


@pytest.mark.parametrize("reader", list(LINES))
def test_chunks_join_without_loss_and_lines_keep_their_numbers(tmp_path, reader, monkeypatch):
    body = LINES[reader].splitlines(keepends=True)
    head = body[:1] if reader in ("movielens_csv", "table") else []
    text = "".join(head + body[len(head) :] * 50)
    for module in ("sim.formats.text_table", "sim.files.netflix"):
        monkeypatch.setattr(f"{module}.read_chunks", lambda *source, **_: read_chunks(*source[:2], 37))
    assert len(read_ratings(reader, [store(tmp_path, text)]).users) == 100
    bad = store(tmp_path, text + "oops\n")
    assert f"line {text.count(chr(10)) + 1}: " in message(reader, bad)


def test_ids_that_are_not_plain_integers_stay_text(tmp_path):
    source = store(tmp_path, 'user,item,rating\n007,1.5,4\n7," 2",3\n')
    found = read_ratings("table", [source])
    assert found.users.tolist() == ["007", "7"]
    assert found.items.tolist() == ["1.5", " 2"]


def test_whole_numbers_written_as_floats_are_ids_and_times_may_be_text(tmp_path):
    text = "user,item,rating,t\n7,1.0,4,2001-01-01 00:00:05+00:00\n7.0,2.0,3,2001-01-01\n"
    found = read_ratings("table", [store(tmp_path, text)], layout=TableLayout(timestamp_column="t"))
    assert as_rows(found) == [(7, 1, 4.0, 978_307_205), (7, 2, 3.0, 978_307_200)]


def test_a_table_without_header(tmp_path):
    layout = TableLayout(text=TextFormat(" ", ("user", "item", "rating")))
    assert as_rows(read_ratings("table", [store(tmp_path, "1 5 4\n2 5 3 9\n"[:6])], layout=layout)) == [(1, 5, 4.0)]


def test_integer_chunks_become_text_if_a_later_chunk_holds_text(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.formats.text_table.read_chunks", lambda *source, **_: read_chunks(*source, 20))
    found = read_ratings("table", [store(tmp_path, "user,item,rating\n1,1,4\n22,1,4\n333,1,4\nx,1,4\n")])
    assert found.users.tolist() == ["1", "22", "333", "x"]


def test_parquet_reads_back_what_was_written(tmp_path):
    path = tmp_path / "r.parquet"
    when = [datetime.datetime(2001, 1, 1), datetime.datetime(2002, 1, 1, 0, 0, 5)]
    table = pl.DataFrame({"user": ["b", "007"], "item": [2**40, 3], "rating": [4, 5], "t": when})
    table.write_parquet(path)
    found = read_ratings("table", [Source(path)], layout=TableLayout(timestamp_column="t"))
    assert as_rows(found) == [("b", 2**40, 4.0, 978_307_200), ("007", 3, 5.0, 1_009_843_205)]


BAD_LINES = [
    ("movielens_dat", "1::10::4\n", "3 fields instead of 4"),
    ("movielens_dat", "1::10::4::9::9\n", "5 fields instead of 4"),
    ("movielens_dat", "1:10:4:9\n", "1 field instead of 4"),
    ("movielens_dat", "1::10::::9\n", "rating '' is not a number"),
    ("movielens_dat", "1::10::four::9\n", "rating 'four' is not a number"),
    ("movielens_dat", "1::10::nan::9\n", "rating 'nan' is not a finite number"),
    ("movielens_dat", "1::10::-inf::9\n", "rating '-inf' is not a finite number"),
    ("movielens_dat", "1::10::1e999::9\n", "not a finite number"),
    ("movielens_dat", "1.0::10::4::9\n", "user id '1.0' is not an integer"),
    ("movielens_dat", " 1::10::4::9\n", "user id ' 1' is not an integer"),
    ("movielens_dat", '"1"::10::4::9\n', "is not an integer"),
    ("movielens_dat", "1::99999999999999999999::4::9\n", "does not fit in 64 bits"),
    ("movielens_dat", "\n1::10::4::9\n", "the line is blank"),
    ("movielens_dat", b"1::\xff::4::9\n", "byte 4 is not valid UTF-8"),
    ("movielens_dat", b"1::2::4::9\r\r\n", "stray carriage return"),
    ("movielens_data", "1\t10\t4\n", "3 fields instead of 4"),
    ("movielens_data", "1 10 4 9\n", "1 field instead of 4"),
    ("movielens_csv", "1,10,4\n", "3 fields instead of 4"),
    ("netflix", "1,5\n", "2 fields instead of 3"),
    ("netflix", "1,5,2005-02-29\n", "'2005-02-29' is not a date"),
    ("netflix", "1,5,2005-2-9\n", "'2005-2-9' is not a date"),
    ("netflix", "1,x,2005-02-09\n", "rating 'x' is not an integer"),
    ("netflix", "1,4.5,2005-02-09\n", "rating '4.5' is not an integer"),
    ("netflix", "x:\n", "movie id 'x' is not an integer"),
    ("netflix", ":\n", "movie id '' is not an integer"),
    ("netflix", "1:2:\n", "movie id '1:2' is not an integer"),
    ("netflix", "1:,,\n", "user id '1:' is not an integer"),
    ("netflix", "1:5,2005-02-09\n", "2 fields instead of 3"),
    ("netflix", "1:5\n", "1 field instead of 3"),
    ("netflix", "1,,\n", "rating '' is not an integer"),
    ("netflix", "1,,2005-02-09\n", "rating '' is not an integer"),
    ("netflix", "1,5,\n", "'' is not a date"),
    ("netflix", "1,256,2005-02-09\n", "rating 256 is out of range"),
    ("netflix", "1,5,0000-02-09\n", "'0000-02-09' is not a date"),
    ("netflix", "1,5,-005-02-09\n", "'-005-02-09' is not a date"),
    ("netflix", "1,5,2005-02-09,1\n3:4\n", "4 fields instead of 3"),
    ("table", "1,10\n", "2 fields instead of 3"),
    ("table", ",10,5\n", "user '' is empty"),
    ("table", "1,10,\n", "rating '' is empty"),
    ("table", "1,10,NaN\n", "rating 'NaN' is not a finite number"),
    ("table", '1,"10,4\n', "wrongly quoted"),
    ("table", b"1,a\0b,4\n", "NUL character"),
    ("table", b"1,\xe9t\xe9,4\n", "byte 3 is not valid UTF-8"),
    ("table", f"1,{'x' * 300},4\n", "is too long"),
]


@pytest.mark.parametrize("packing", ["plain", "gzip", "zip"])
@pytest.mark.parametrize(("reader", "line", "problem"), BAD_LINES)
def test_a_malformed_line_is_named(tmp_path, reader, line, problem, packing):
    data = line if isinstance(line, bytes) else line.encode()
    source = store(tmp_path, LINES[reader].encode() + data + b"ignored\n", packing)
    said = message(reader, source)
    assert f"line {LINES[reader].count(chr(10)) + 1}: " in said
    assert problem in said
    assert "Expected " in said
    assert len(said.splitlines()) == 2
    assert len(said) < 600


def test_a_line_cut_short_at_the_end_is_explained(tmp_path):
    said = message("movielens_dat", store(tmp_path, "1::10::5::978300760\n2::20::3"))
    assert "line 2: 3 fields instead of 4: '2::20::3'" in said
    assert "may be cut short" in said
    said = message("movielens_dat", store(tmp_path, "1::10::5::978300760\n2::20::3::97830"))
    assert "timestamp 97830 and without a line end" in said


def test_a_complete_last_line_without_line_end_is_fine(tmp_path):
    found = read_ratings("movielens_dat", [store(tmp_path, LINES["movielens_dat"].rstrip("\n"))])
    assert found.timestamps.tolist() == [978300760, 978302109]


@pytest.mark.parametrize(
    ("reader", "text", "problem"),
    [
        ("movielens_csv", "userId,movieId,timestamp,rating\n1,2,3,4\n", "the header is not userId,movieId,rating"),
        ("movielens_csv", HEADER, "holds a header but no rows"),
        ("table", "user,movie,rating\n1,2,3\n", "the header has no column 'item'"),
        ("table", "user,item,item,rating\n1,2,3,4\n", "the header has more than one column 'item'"),
        ("netflix", "1,5,2005-01-01\n", "line 1: a rating before the first movie line"),
        ("netflix", "1:\n2:\n", "no ratings found"),
        ("movielens_dat", b"\xff\xfe1\0:\0\0", "is not text in utf-16-le"),
        ("movielens_dat", b"\xffe1:", "not valid UTF-8"),
        ("table", b"PK\3\4...", "is an archive"),
        ("table", b"\x89HDF\r\n", "is an HDF5 file"),
        ("movielens_dat", "x" * (3 << 20), "goes on for more than 1 MiB"),
        *((reader, "", "the file is empty") for reader in LINES),
        *((reader, "\n\n", "the file is empty") for reader in LINES),
    ],
)
def test_a_file_of_another_layout_is_refused(tmp_path, reader, text, problem):
    assert problem in message(reader, store(tmp_path, text))


def test_files_that_cannot_be_opened(tmp_path, monkeypatch):
    assert "no such file" in message("movielens_dat", Source(tmp_path / "none.dat"))
    assert "is a directory" in message("movielens_dat", Source(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in message("movielens_dat", Source(tmp_path / "pipe"))
    source = store(tmp_path, LINES["movielens_dat"])

    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert "permission denied" in message("movielens_dat", source)


def test_damaged_gzip_files(tmp_path):
    text = "".join(f"{user}::1::5::978300760\n" for user in range(5000))
    source = store(tmp_path, text, "gzip")
    whole = source.path.read_bytes()
    source.path.write_bytes(whole[:-30])
    assert "the compressed data ends too early" in message("movielens_dat", source)
    source.path.write_bytes(whole[:-6] + b"abcdef")
    assert "not a sound compressed file" in message("movielens_dat", source)
    source.path.write_bytes(b"\x1f\x00" + whole[2:])
    assert "is damaged, or something else follows" in message("movielens_dat", source)


def test_damaged_zip_files(tmp_path):
    text = "".join(f"{user}::1::5::978300760\n" for user in range(5000))
    source = store(tmp_path, text, "zip")
    whole = source.path.read_bytes()
    source.path.write_bytes(whole[:2000] + bytes(50) + whole[2050:])
    assert "not a sound compressed file" in message("movielens_dat", source)
    source.path.write_bytes(whole[: len(whole) // 2])
    assert "not a sound compressed file" in message("movielens_dat", source)
    source.path.write_bytes(whole)
    assert "no such member" in message("movielens_dat", Source(source.path, "other"))


@pytest.mark.parametrize("name", ["/abs/r.dat", "../r.dat", "set/../../r.dat", "C:/r.dat", "..\\r.dat"])
def test_members_with_unsafe_paths_are_refused(tmp_path, name):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), LINES["movielens_dat"])
    assert "leaves the archive" in message("movielens_dat", Source(path, name))


def test_links_and_repeated_members_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("r.dat")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "link or special file" in message("movielens_dat", Source(path, "r.dat"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("r.dat", "1::1::1::1\n")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("r.dat", "2::2::2::2\n")
    assert "2 times" in message("movielens_dat", Source(path, "r.dat"))


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [pytest.param(6, 1, "password", id="encrypted"), pytest.param(8, 99, "compression", id="unknown compression")],
)
def test_members_that_zipfile_cannot_unpack_get_one_message(tmp_path, place, value, reason):
    """A flag, or the method, changed in the member's own header and in the directory, where it is two bytes further."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("r.dat", "1::1::1::1\n")
    packed = bytearray(path.read_bytes())
    packed[place] = packed[packed.index(b"PK\1\2") + place + 2] = value
    path.write_bytes(packed)
    found = message("movielens_dat", Source(path, "r.dat"))
    assert "cannot be unpacked" in found
    assert reason in found
    assert "Unpack the archive yourself" in found


@pytest.mark.parametrize("packing", ["gzip", "zip"])
def test_decompression_bombs_are_refused(tmp_path, packing):
    bomb = store(tmp_path, b"1::1::1::1\n" * (3 << 20), packing)
    assert "decompression bomb" in message("movielens_dat", bomb)
    limits = SizeLimits(max_bytes=1 << 20, max_ratio=1e9)
    assert "more than the allowed" in message("movielens_dat", bomb, limits=limits)


def parquet(folder: Path, **columns) -> Source:
    """Writes a Parquet file."""
    pl.DataFrame(columns, strict=False).write_parquet(folder / "r.parquet")
    return Source(folder / "r.parquet")


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"user": [1], "item": [1]}, "has no column 'rating'"),
        ({"user": [1, None], "item": [1, 2], "rating": [1, 2]}, "row 2: user '' is empty"),
        ({"user": [1.0, None], "item": [1, 2], "rating": [1, 2]}, "row 2: user '' is empty"),
        ({"user": [1], "item": [1], "rating": ["five"]}, "row 1: rating 'five' is not a number"),
        ({"user": [1, 2], "item": [1, 2], "rating": [1.0, float("nan")]}, "row 2: rating 'nan' is not a finite number"),
        ({"user": [1, 2], "item": [1, 2], "rating": [1, None]}, "row 2: rating '' is empty"),
        ({"user": ["a", ""], "item": [1, 2], "rating": [1, 2]}, "row 2: user '' is empty"),
    ],
)
def test_bad_parquet_columns_are_named(tmp_path, columns, problem):
    assert problem in message("table", parquet(tmp_path, **columns))


def test_damaged_parquet_files(tmp_path):
    source = parquet(tmp_path, user=list(range(999)), item=[1] * 999, rating=[1] * 999)
    whole = source.path.read_bytes()
    for damaged in (whole[:100], whole[:-4]):
        source.path.write_bytes(damaged)
        assert "is not a sound Parquet file" in message("table", source)
    source.path.write_bytes(b"")
    assert "empty" in message("table", source)


@pytest.mark.parametrize("end", ["import os; os.abort()", "raise BaseException('panic: range end')"])
def test_a_parquet_file_that_ends_its_reader_gives_a_message(tmp_path, monkeypatch, end):
    source = parquet(tmp_path, user=[1], item=[1], rating=[1])
    monkeypatch.setattr("sim.formats.parquet._PARQUET_TRIAL", end)
    assert "not a sound Parquet file (the library that reads it gave up)" in message("table", source)


@pytest.mark.parametrize("packing", ["gzip", "bz2", "xz", "zst", "tar.gz"])
def test_what_a_file_is_packed_in_is_told_by_its_first_bytes(tmp_path, packing):
    source = store(tmp_path, LINES["table"], packing)
    renamed = Source(source.path.rename(tmp_path / "ratings.csv"), source.member)
    assert read_ratings("table", [renamed]).users.tolist() == [1, 2]


@pytest.mark.parametrize("packing", ["bz2", "xz", "zst", "tar.gz"])
def test_damage_to_packed_files(tmp_path, packing):
    generator = np.random.default_rng(0)
    text = "".join(f"{user}::1::5::{generator.integers(10**9)}\n" for user in range(5000))
    source = store(tmp_path, text, packing)
    whole = source.path.read_bytes()
    source.path.write_bytes(whole[: len(whole) // 2])
    assert re.search("too early|not a sound|no such member|cut short", message("movielens_dat", source))
    source.path.write_bytes(whole[:2000] + bytes(200) + whole[2200:])
    assert re.search("too early|not a sound", message("movielens_dat", source))


def test_parquet_under_another_name_and_text_under_its_name(tmp_path):
    source = parquet(tmp_path, user=[1], item=[2], rating=[3])
    assert as_rows(read_ratings("table", [Source(source.path.rename(tmp_path / "r.csv"))])) == [(1, 2, 3.0)]
    assert read_ratings("table", [store(tmp_path, LINES["table"], name="r.parquet")]).users.tolist() == [1, 2]


@pytest.mark.parametrize("name", ["data [1].csv", "*.csv"])
def test_a_member_named_exactly_comes_before_the_pattern(tmp_path, name):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member in (name, "data 1.csv", "__MACOSX/._data 1.csv", ".DS_Store"):
            archive.writestr(member, LINES["table"])
    assert packing.find_members(path, name) == [name]
    assert packing.find_members(path, "data 1*") == ["data 1.csv"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("[Content_Types].xml", "")
    with pytest.raises(UserError, match="is an Excel workbook"):
        packing.find_members(path, "*")


def test_unsafe_members_of_a_tar_are_refused(tmp_path):
    path = tmp_path / "a.tar"
    for name, link, problem in (("../r.csv", False, "leaves the archive"), ("r.csv", True, "link or special file")):
        with tarfile.open(path, "w") as tar:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = (tarfile.SYMTYPE, "/etc/passwd") if link else (tarfile.REGTYPE, "")
            tar.addfile(entry, io.BytesIO(b""))
        assert problem in message("table", Source(path, name))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1", "cp1252"])
def test_encodings(tmp_path, encoding):
    source = store(tmp_path, "user,item,rating\nZoé,1,5\nAnna,1,4\n".encode(encoding))
    marked = encoding.startswith("utf")
    layout = TableLayout(text=TextFormat(encoding=None if marked else encoding))
    assert read_ratings("table", [source], layout=layout).users.tolist() == ["Zoé", "Anna"]
    if not marked:
        assert "line 2: byte 3 is not valid UTF-8; if the file is written in another encoding" in message(
            "table", source
        )


@pytest.mark.parametrize(
    ("separator", "ending"), [(";", "csv"), ("\t", "txt"), ("|", "csv"), ("::", "dat"), (" ", "txt")]
)
def test_the_names_of_the_columns_tell_the_separator(tmp_path, separator, ending):
    source = store(tmp_path, LINES["table"].replace(",", separator), name=f"ratings.{ending}")
    assert as_rows(read_ratings("table", [source])) == [(1, 10, 5.0), (2, 20, 3.5)]


def test_columns_separated_by_runs_of_blanks(tmp_path):
    text = "user  item\trating\n  1 10   5\n2   20 \t3.5  \n"
    layout = TableLayout(text=TextFormat(BLANKS))
    assert as_rows(read_ratings("table", [store(tmp_path, text)], layout=layout)) == [(1, 10, 5.0), (2, 20, 3.5)]
    odd = store(tmp_path, "user item rating\n1 a\u00a0b 5\n2 'q\" 4\n")
    assert as_rows(read_ratings("table", [odd], layout=layout)) == [(1, "a\u00a0b", 5.0), (2, "'q\"", 4.0)]
    text += "3 10\n"
    assert "line 4: 2 fields instead of 3" in message("table", store(tmp_path, text), layout=layout)


QUOTED = [
    ('1,10,5,"good, solid\n\nread it ""twice"""\n2,20,3.5,"a\nb"\n', "doubled quotes, line breaks and a blank line"),
    ('1,10,5,"she said \\"no\\"\nand left"\n2,20,3.5,plain\n', "quotes behind backslashes"),
    ('1,10,5,5" wide\n2,20,3.5,it\'s "fine"\n', "quotes within unquoted values"),
]


@pytest.mark.parametrize("chunk", [30, 1 << 20])
@pytest.mark.parametrize("body", [body for body, _ in QUOTED], ids=[name for _, name in QUOTED])
def test_quoted_values_may_go_over_lines(tmp_path, monkeypatch, body, chunk):
    monkeypatch.setattr("sim.formats.text_table.read_chunks", lambda *source, **_: read_chunks(*source[:2], chunk))
    text = f"user,item,rating,text\n{body}"
    assert as_rows(read_ratings("table", [store(tmp_path, text)])) == [(1, 10, 5.0), (2, 20, 3.5)]
    said = message("table", store(tmp_path, f"{text}x,y,z,w\n"))
    assert f"line {text.count(chr(10)) + 1}: rating 'z'" in said
    assert "wrongly quoted (a quote is opened and not closed)" in message(
        "table", store(tmp_path, f'{text}3,10,4,"open\n')
    )


def test_ratings_and_ids_that_mean_missing_are_left_out_and_counted(tmp_path):
    source = store(tmp_path, "user,item,rating\n1,10,5\nNA,10,4\n2,10,99\n3,,4\n3,11,nan\n3,12,2\n")
    layout = TableLayout(missing_ratings=[99.0], missing_values=["NA", "", "nan"])
    found = read_ratings("table", [source], layout=layout)
    assert as_rows(found) == [(1, 10, 5.0), (3, 12, 2.0)]
    assert found.lines.tolist() == [2, 7]
    assert found.left_out == {"data.missing_values": 3, "data.missing_ratings": 1}
    bad = store(tmp_path, "user,item,rating\nNA,10,4\n2,10,x\n")
    assert "line 3: rating 'x'" in message("table", bad, layout=layout)


def test_interactions_without_ratings_and_names_of_events(tmp_path):
    source = store(tmp_path, "user,item,what\n1,10,view\n1,11,buy\n2,10,view\n")
    plain = TableLayout(rating_column=None, implicit_rating=2.0)
    assert as_rows(read_ratings("table", [source], layout=plain)) == [(1, 10, 2.0), (1, 11, 2.0), (2, 10, 2.0)]
    named = TableLayout(rating_column="what", rating_of_event={"view": 1.0, "buy": 5.0})
    assert as_rows(read_ratings("table", [source], layout=named)) == [(1, 10, 1.0), (1, 11, 5.0), (2, 10, 1.0)]
    ignored = TableLayout(rating_column="what", rating_of_event={"view": 1.0, "buy": None})
    found = read_ratings("table", [source], layout=ignored)
    assert (as_rows(found), found.lines.tolist()) == ([(1, 10, 1.0), (2, 10, 1.0)], [2, 4])
    assert found.left_out == {"data.rating_of_event": 1}


def test_unknown_names_are_listed_with_their_counts_and_how_to_ignore_them(tmp_path):
    rows = "1,10,view\n1,11,cart\n2,10,View\n2,11,cart\nNA,10,NA\n"
    source = store(tmp_path, f"user,item,what\n{rows}")
    layout = TableLayout(
        rating_column="what", rating_of_event={"view": 1.0, "buy": 5.0, "x": None}, missing_values=["NA"]
    )
    said = message("table", source, layout=layout)
    assert "line 3: what 'cart' is not one of 'view', 'buy', 'x'; unknown: 'cart' (2), 'View' (1, like 'view')" in said
    assert """'data.rating_of_event=["view=1","buy=5","x=ignore","cart=ignore","View=ignore"]'""" in said


def test_decimal_commas_are_named(tmp_path):
    source = store(tmp_path, "user;item;rating\n1;10;3,5\n")
    assert "line 2: rating '3,5' is not a number" in message("table", source)
    assert "decimal commas" in message("table", source)


def test_comments_are_left_out_and_counted(tmp_path):
    text = "# made in 2024\n#\nuser,item,rating\n1,10,5\n# half time\n2,20,3.5\n"
    layout = TableLayout(text=TextFormat(comment="#"))
    assert as_rows(read_ratings("table", [store(tmp_path, text)], layout=layout)) == [(1, 10, 5.0), (2, 20, 3.5)]
    assert "line 7: rating 'x'" in message("table", store(tmp_path, text + "1,2,x\n"), layout=layout)


def test_an_unknown_ending_needs_a_separator(tmp_path):
    source = store(tmp_path, LINES["table"].replace(",", "/"), name="ratings.txt")
    assert "data.separator" in message("table", source)
    assert len(read_ratings("table", [source], layout=TableLayout(text=TextFormat("/"))).users) == 2


def test_netflix_columns_are_compact(tmp_path):
    found = read_ratings("netflix", [store(tmp_path, LINES["netflix"])])
    assert [found.users.dtype, found.items.dtype, found.ratings.dtype] == [np.int32, np.int16, np.uint8]


def test_natural_order_and_shortening():
    names = ["mv_10.txt", "mv_2.txt", "mv_1.txt"]
    assert sorted(names, key=sources.natural_order) == ["mv_1.txt", "mv_2.txt", "mv_10.txt"]
    assert len(sources.shorten("x" * 1000)) < 100


def test_the_separator_that_excel_writes_above_a_table(tmp_path):
    for first in ("sep=;\n", '"sep=;"\n'):
        source = store(tmp_path, f"{first}user;item;rating\n1;10;5\n2;20;3.5\n")
        found = read_ratings("table", [source])
        assert (as_rows(found), found.lines.tolist()) == ([(1, 10, 5.0), (2, 20, 3.5)], [3, 4])
    # Not of a table that is named so.
    source = store(tmp_path, "sep=,user,item,rating\n1,1,10,5\n")
    assert as_rows(read_ratings("table", [source])) == [(1, 10, 5.0)]


@pytest.mark.parametrize("text", ["NULL", "na", "-"])
def test_a_rating_that_means_nothing_may_be_left_out(tmp_path, text):
    source = store(tmp_path, f"user,item,rating\n1,10,5\n2,20,{text}\n")
    setting = override_value(["", text])
    assert f"'data.missing_values={setting}'" in message("table", source, layout=TableLayout(missing_values=[""]))
    values = composed_values("train", ["data=ratings_file", f"data.missing_values={setting}"])
    assert values["data"]["missing_values"] == ["", text]


def test_what_follows_a_gzip_file_is_named_and_text_may_be_called_so(tmp_path):
    path = tmp_path / "r.csv.gz"
    path.write_bytes(gzip.compress(LINES["table"].encode()) + b"junk")
    assert "something else follows its compressed data" in message("table", Source(path))
    path.write_text(LINES["table"])
    assert as_rows(read_ratings("table", [Source(path)])) == [(1, 10, 5.0), (2, 20, 3.5)]


def test_dates_with_the_year_last_are_refused_with_the_reason(tmp_path):
    source = store(tmp_path, "user,item,rating,t\n1,10,5,31/01/2016\n")
    said = message("table", source, layout=TableLayout(timestamp_column="t"))
    assert "line 2: t '31/01/2016' is not read, since some write the day first and others the month" in said
