"""Lists of many users in a file; what was interrupted goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from harness.errors import UserError
from harness.runs.run_folder import make_folder, write_atomically, write_json
from sim.recommend.lists import Recommendations

USERS_PER_PART = 8192
_WRITE: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".parquet": pl.DataFrame.write_parquet,
    ".csv": pl.DataFrame.write_csv,
    ".jsonl": pl.DataFrame.write_ndjson,
}


def check_ending(out: str) -> None:
    """Raises UserError if lists cannot be written to a file of this name."""
    if Path(out).suffix not in _WRITE:
        raise UserError(f"out is {out!r}", do=f"Name a file that ends with {', '.join(_WRITE)}.")


def write_lists(
    recommend: Callable[[Sequence[Any]], Recommendations], users: Sequence[Any], out: str, question: dict[str, Any]
) -> list[str]:
    """Writes the lists of many users, part by part, and puts the parts together at the end.

    Until then they are in the folder `OUT.parts`; a second call with the same question goes on there.

    Args:
        recommend: Returns the lists of some of them.
        users: Their ids.
        out: File: user, rank, item, title, score.
        question: Everything that decides the lists, as JSON values.

    Returns:
        What the parts note, each once; for parts of an earlier call nothing.

    Raises:
        UserError: The file cannot be written.
    """
    check_ending(out)
    target = Path(out).expanduser()
    parts, key = target.with_name(f"{target.name}.parts"), parts_key(users, question)
    _begin(parts, key)
    # The parts that are missing.
    notes: list[str] = []
    first = range(0, len(users), USERS_PER_PART)
    with tqdm(total=len(users), unit="user", disable=not sys.stderr.isatty(), leave=False) as bar:
        for start in first:
            some, part = users[start : start + USERS_PER_PART], parts / f"{start}.parquet"
            if not part.exists():
                lists = recommend(some)
                notes += lists.notes
                table = lists.frame().rename({"request": "user"})
                write_atomically(part, table.write_parquet)
            bar.update(len(some))
    # All of them in one file.
    table = pl.concat([pl.read_parquet(parts / f"{start}.parquet") for start in first])
    write_atomically(target, lambda path: _WRITE[target.suffix](table, path))
    shutil.rmtree(parts)
    return list(dict.fromkeys(notes))


def parts_key(users: Sequence[Any], question: dict[str, Any]) -> str:
    """Returns a hash of what decides the lists."""
    text = json.dumps([[str(user) for user in users], USERS_PER_PART, question], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _begin(parts: Path, key: str) -> None:
    """Makes the folder of parts; parts of another question are removed."""
    record = parts / "question.json"
    try:
        same = json.loads(record.read_text()) == key
    except (OSError, ValueError):
        same = False
    if same:
        print(f"going on with the parts in {parts}", file=sys.stderr)
        return
    if record.exists():
        shutil.rmtree(parts)
    make_folder(parts)
    write_json(record, key)
