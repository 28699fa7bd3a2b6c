"""Columns of ids that arrive chunk by chunk and are held as numbers, whatever their spelling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import UserError
from sim.files.rows import LOST_DIGITS, Rows, integers_if_plain
from sim.formats.text_table import compact
from sim.tables.numbering import numbered
from sim.tables.placeholders import stand_for_nothing

if TYPE_CHECKING:
    import polars as pl

_WHOLE = r"^(0|-?[1-9][0-9]*)$"
_AS_FLOAT = r"^[+-]?(0|[1-9][0-9]*)\.0*$"
_SIGNED = r"^(\+(0|[1-9][0-9]*)|-0)$"
_NUMBER = r"^[+-]?[0-9]+(\.[0-9]*)?$"
_EXPONENT = r"^[+-]?[0-9]+[eE][0-9]+$"
_BATCH = 1 << 21


class IdColumn:
    """A growing column of ids: integers if all are whole numbers, else strings.

    Whole numbers that one file writes as "7" and another as "7.0", "7." or "+7" (a column with missing values, promoted
    to floats) are the same id. Texts are kept once each; a row takes 4 bytes (8 if it is an integer of more than 32
    bits).
    """

    def __init__(self, what: str, where: str) -> None:
        """Begins an empty column.

        Args:
            what: What the ids are of, for messages.
            where: The files, for messages.
        """
        import polars as pl

        self.what, self.where = what, where
        self._parts: list[np.ndarray] = []  # integers, or codes of texts
        self._are_texts: list[bool] = []
        self._texts = pl.DataFrame(schema={"text": pl.String, "code": pl.Int32})
        self._waiting: list[tuple[int, pl.Series]] = []  # number of the part, its texts
        self._num_waiting = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return not self._parts

    def add(self, part: pl.Series) -> None:
        """Appends ids: strings or Int64."""
        import polars as pl

        part = integers_if_plain(part)
        self._are_texts.append(part.dtype != pl.Int64)
        self._parts.append(np.empty(0, np.int32) if self._are_texts[-1] else compact(part.to_numpy()))
        if self._are_texts[-1]:
            self._wait(len(self._parts) - 1, part)

    def finish(self) -> tuple[np.ndarray, pl.Series]:
        """Returns the index of every id in the distinct ids (int32), and these ids, ascending (Int64 or String).

        Raises:
            NotationError: Some of the numbers are in scientific notation.
            UserError: "7" and "7.0" both occur among ids that are not numbers.
        """
        import polars as pl

        if not any(self._are_texts):
            integers, index = numbered(self._parts)
            return index, pl.Series(integers.astype(np.int64))
        # Integers are texts if not all ids are integers.
        for number, is_text in enumerate(self._are_texts):
            if not is_text:
                self._wait(number, pl.Series(self._parts[number]).cast(pl.String))
        self._encode()
        # The ids as they count, their ranks, and then those of the rows.
        ids = self._normalised(self._texts["text"])
        distinct = ids.unique().sort()
        ranks = pl.Series(np.arange(len(distinct), dtype=np.int32))
        rank_of_code = ids.replace_strict(distinct, ranks, return_dtype=pl.Int32).to_numpy()
        self._texts = self._texts.clear()
        for number, codes in enumerate(self._parts):
            self._parts[number] = rank_of_code[codes]
        return np.concatenate(self._parts), distinct

    def _wait(self, number: int, texts: pl.Series) -> None:
        """Keeps the texts of a part until there are as many as are known, so that looking them up costs little."""
        self._waiting.append((number, texts))
        self._num_waiting += len(texts)
        if self._num_waiting >= max(_BATCH, self._texts.height // 2):
            self._encode()

    def _encode(self) -> None:
        """Replaces the waiting texts by codes; new ones are numbered in the order in which they occur."""
        import polars as pl

        if not self._waiting:
            return
        texts = pl.concat([texts.alias("text") for _, texts in self._waiting]).to_frame()
        new = texts.unique(maintain_order=True).join(self._texts, on="text", how="anti", maintain_order="left")
        new_codes = pl.Series("code", np.arange(self._texts.height, self._texts.height + new.height, dtype=np.int32))
        # The addition copies: otherwise a few texts would keep the memory of all the others that they were read with.
        copied = new.select(pl.col("text") + "")
        self._texts = pl.concat([self._texts, copied.with_columns(new_codes)])
        codes = texts.join(self._texts, on="text", how="left", maintain_order="left")["code"].to_numpy()
        end = 0
        for number, part in self._waiting:
            begin, end = end, end + len(part)
            self._parts[number] = codes[begin:end].copy()
        self._waiting, self._num_waiting = [], 0

    def _normalised(self, distinct: pl.Series) -> pl.Series:
        """Returns what each of the distinct texts counts as."""
        self._refuse_exponents(distinct)
        is_float, is_signed = distinct.str.contains(_AS_FLOAT), distinct.str.contains(_SIGNED)
        odd = is_float | is_signed
        if not odd.any():
            return distinct
        plain = distinct.str.replace(r"\.0*$", "").str.replace(r"^\+", "").str.replace("^-0$", "0")
        plain = plain.zip_with(odd, distinct)
        are_numbers = bool((odd | distinct.str.contains(_WHOLE)).all())
        # All with a plus sign, such as telephone numbers, are what they are.
        if are_numbers and (is_float.any() or plain.n_unique() < len(plain)):
            return integers_if_plain(plain)
        twins = (plain.is_duplicated() & odd).arg_true()
        if not twins.is_empty():
            text = distinct[int(twins[0])]
            other = distinct.filter((plain == plain[int(twins[0])]) & (distinct != text))[0]
            raise UserError(
                f"{self.what} ids {other!r} and {text!r} both occur, among ids that are not numbers",
                where=self.where,
                do="If they are the same, write them the same way in all files.",
            )
        return distinct

    def _refuse_exponents(self, distinct: pl.Series) -> None:
        """Raises NotationError for texts such as 1e5 among numbers; among names they are names."""
        exponents = distinct.str.contains(_EXPONENT)
        if not exponents.any():
            return
        others = distinct.filter(~exponents)
        if (others.str.contains(_NUMBER) | stand_for_nothing(others)).all():
            raise NotationError(self.what, distinct.filter(exponents)[0], self.where)


class NotationError(UserError):
    """Ids in scientific notation, of which only one is known."""

    def __init__(self, what: str, text: str, where: str, place: str = "") -> None:
        """Names an id, and where it stands if that is known."""
        problem = f"{what} {text!r} is in scientific notation, and all other {what} ids are numbers"
        do = f"{LOST_DIGITS} If it is a name, write a letter before all of them."
        super().__init__(f"{place}: {problem}" if place else problem, where=where, do=do)
        self.of, self.text = what, text

    def found_in(self, column: str, tables: Iterable[Rows]) -> UserError:
        """Returns the error with the line on which the id first stands.

        Args:
            column: The column of the ids.
            tables: The rows of all files, from the beginning.
        """
        for rows in tables:
            found = rows.texts(column) == self.text
            if found.any():
                return NotationError(column, self.text, str(rows.source), rows.place(int(found.arg_max() or 0)))
        return self  # it stands in a field with others


def id_array(column: pl.Series) -> np.ndarray:
    """Returns ids as integers (int32 if they fit) or strings."""
    import polars as pl

    return compact(column.to_numpy()) if column.dtype == pl.Int64 else column.to_numpy().astype(str)
