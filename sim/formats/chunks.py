"""The text of a source as checked chunks of whole lines, in UTF-8 whatever it is stored in."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.errors import UserError
from sim.formats.packing import read_blocks
from sim.formats.sources import DAMAGED, SizeLimits, Source

CHUNK_BYTES = 1 << 25
MAX_LINE_BYTES = 1 << 20
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins as UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass(frozen=True)
class Chunk:
    r"""Whole lines of a text file.

    Attributes:
        data: The lines, each terminated by `\n` (CRLF normalised, byte order mark and final blank lines removed).
        first_line: Number of the first line in the file, from 1.
        unterminated: Whether this is the end of the file and its last line is not terminated.
        last: Whether this is known to be the end of the file.
        numbers: Number in the file of the first line of each record, if some records are not one line.
    """

    data: bytes
    first_line: int
    unterminated: bool = False
    last: bool = False
    numbers: Sequence[int] | None = None


def read_text(
    source: Source, limits: SizeLimits, encoding: str | None = None, block_bytes: int = CHUNK_BYTES
) -> Iterator[bytes]:
    """Yields the text of a source in UTF-8, without a byte order mark.

    Text in UTF-8 passes as it is, so that a wrong byte is reported with its line.

    Raises:
        UserError: See `read_blocks`; or the text is not in this encoding.
    """
    return _in_utf8(read_blocks(source, limits, block_bytes), encoding, str(source))


def read_chunks(
    source: Source,
    limits: SizeLimits,
    chunk_bytes: int = CHUNK_BYTES,
    encoding: str | None = None,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Iterator[Chunk]:
    """Yields the text of a source in order, as chunks of whole lines; memory is bounded by the chunk size.

    Args:
        source: The file.
        limits: Limits on the size of unpacked files.
        chunk_bytes: Approximate bytes per chunk.
        encoding: Of the text; None: UTF-8, or UTF-16 if the file begins with its mark.
        max_line_bytes: Maximum length of a line.

    Raises:
        UserError: The file is missing, empty, a directory, unreadable, damaged, unsafe (see `read_blocks`), not in
            this encoding, or has a longer line.
    """
    line, carry, seen = 1, b"", False
    for block in read_text(source, limits, encoding, chunk_bytes):
        text = carry + block
        cut = _end_of_last_text_line(text)
        carry, text = text[cut:], text[:cut]
        if len(carry) > max_line_bytes:
            number = line + text.count(b"\n")
            what = f"line {number:,} goes on for more than {max_line_bytes >> 20} MiB"
            raise UserError(what, where=str(source), do=DAMAGED)
        if text:
            chunk = Chunk(_normalise(text), line)
            yield chunk
            line, seen = line + chunk.data.count(b"\n"), True
    if carry.strip(b"\r\n"):
        yield Chunk(_normalise(carry + b"\n"), line, unterminated=True)
    elif not seen:
        raise UserError("the file is empty", where=str(source), do=DAMAGED)


def _normalise(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text


def _end_of_last_text_line(text: bytes) -> int:
    """Returns the end of the last terminated line that is not blank; final blank lines remain for the next chunk."""
    end = text.rfind(b"\n") + 1
    while True:
        blank = 2 if text.endswith(b"\n\r\n", 0, end) else 1 if text.endswith(b"\n\n", 0, end) else 0
        if not blank:
            return end if text[:end].strip(b"\r\n") else 0
        end -= blank


def _in_utf8(blocks: Iterator[bytes], encoding: str | None, where: str) -> Iterator[bytes]:
    first = next(blocks, b"")
    mark = next((mark for mark in _MARKS if first.startswith(mark)), b"")
    found = _MARKS.get(mark) or encoding or "utf-8"
    if codecs.lookup(found).name == "utf-8":
        yield first.removeprefix(mark)
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(found)()
    try:
        yield decoder.decode(first.removeprefix(mark)).encode()
        for block in blocks:
            yield decoder.decode(block).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise UserError(
            f"is not text in {found} ({error})", where=where, do="Set data.encoding to what the file is written in."
        ) from None
