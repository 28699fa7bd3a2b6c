"""What files are, by their first bytes: what is no table is called what it is."""

import gzip
import io
import tarfile

import pytest
import zstandard

from harness.errors import UserError
from sim.formats.packing import find_members, read_blocks
from sim.formats.sources import SizeLimits, Source

TEXT = b"user,item,rating\n1,2,3\n"


def unpacked(path, data):
    path.write_bytes(data)
    return b"".join(read_blocks(Source(path), SizeLimits(), 1 << 16))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x05\x95abc", "is a Python pickle"),
        (b"<!DOCTYPE html><html>", r"is a web page(?s:.*)Get the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"is a pointer of Git LFS(?s:.*)git lfs pull"),
        (b"\x04\x22\x4d\x18abc", r"is an LZ4 file(?s:.*)Unpack it"),
        (b"RDX3\nX\n", "is an R data file"),
    ],
)
def test_what_is_no_table(tmp_path, data, said):
    with pytest.raises(UserError, match=said):
        unpacked(tmp_path / "r.csv", data)


def test_packed_twice(tmp_path):
    assert unpacked(tmp_path / "r.csv.gz", gzip.compress(gzip.compress(TEXT))) == TEXT


def test_what_must_be_unpacked_first(tmp_path):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo("r.csv")
        entry.size = len(TEXT)
        archive.addfile(entry, io.BytesIO(TEXT))
    with pytest.raises(UserError, match=r"is a tar archive(?s:.*)Unpack it yourself"):
        unpacked(tmp_path / "r.tar.zst", zstandard.compress(tar.getvalue()))


def test_office_documents_are_no_archives_of_tables(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "r.ods", "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("content.xml", "<a/>")
    with pytest.raises(UserError, match="Save the sheet as CSV"):
        find_members(tmp_path / "r.ods", "*")
