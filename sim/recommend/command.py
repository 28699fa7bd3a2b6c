"""What `python -m tpgr_jax.recommend` and `python -m hrlmg_jax.recommend` do."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from harness.errors import UserError
from harness.settings import Count
from harness.training.stored_run import StoredRunConfig
from sim.recommend.batch import check_ending, write_lists
from sim.recommend.files import read_history, read_ids
from sim.recommend.lists import Recommendations
from sim.recommend.recommender import Recommender

_ALL = "all"


@dataclass(frozen=True, kw_only=True)
class RecommendConfig(StoredRunConfig):
    """What is asked of which run (`conf/recommend.yaml` explains each)."""

    user: str | None
    history: str | None
    users: str | None
    out: str | None
    k: Count
    plan: bool
    paths: bool
    allowed: str | None
    exclude: str | None
    exclude_seen: bool
    at: str | None
    unknown: Literal["error", "skip", "cold"]

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        asked = [key for key in ("user", "history", "users") if getattr(self, key) is not None]
        if len(asked) != 1:
            raise UserError(
                f"{' and '.join(asked) or 'neither user, history nor users'} given",
                do="Give one of user=ID, history=FILE and users=FILE (or users=all).",
            )
        if self.users is None and self.out is not None:
            raise UserError("out is given without users", do="Give users=FILE or users=all.")
        if self.users is not None:
            if self.out is None:
                raise UserError("users is given without out", do="Name a file: out=lists.parquet, .csv or .jsonl.")
            if self.paths:
                raise UserError("paths are printed for one user", do="Give user=ID or history=FILE.")
            check_ending(self.out)


def answer(settings: RecommendConfig, recommender: Recommender) -> None:
    """Prints the list of one user, or writes those of many.

    Raises:
        UserError: Unknown ids, files that cannot be read or written, nothing that is allowed.
    """
    reader = recommender.reader
    items = {
        key: None if path is None else read_ids(path, "item", lambda item: reader.items.find([item])[0] >= 0)
        for key, path in (("allowed", settings.allowed), ("exclude", settings.exclude))
    }
    filters: dict[str, Any] = {
        **items,
        "exclude_seen": settings.exclude_seen,
        "at": settings.at,
        "unknown": settings.unknown,
        "plan": settings.plan,
    }

    if settings.users is None:
        history = settings.user if settings.history is None else _history(settings.history, recommender)
        lists = recommender.recommend([history], settings.k, paths=settings.paths, **filters)
        _note(lists.notes)
        print(_table(recommender, lists, settings.plan))
        return

    # Many users: unknown ones are refused, or named, before the first list.
    assert settings.out is not None
    users = (
        list(recommender.system.user_ids)
        if settings.users == _ALL
        else read_ids(settings.users, "user", lambda user: reader.users.find([user])[0] >= 0)
    )
    known = reader.users.find(users) >= 0
    strangers = [user for user, is_known in zip(users, known.tolist(), strict=True) if not is_known]
    if strangers and settings.unknown == "error":
        raise reader.users.refuse(strangers)
    question = {"run": recommender.source, "checkpoint": recommender.step, "k": settings.k, **filters}
    notes = write_lists(lambda some: recommender.recommend(some, settings.k, **filters), users, settings.out, question)
    _note(notes)
    empty = len(strangers) if settings.unknown == "skip" else 0
    print(f"written: {settings.out}, lists of {len(users) - empty:,} users; score: {recommender.system.policy.score}")


def _history(path: str, recommender: Recommender) -> list[tuple[Any, Any]]:
    system = recommender.system

    def is_answer(value: Any) -> bool:
        try:
            system.read_answers([value])
        except UserError:
            return _is_number(value)
        return True

    return read_history(path, is_answer, system.answer_kind)


def _is_number(value: Any) -> bool:
    """Returns whether a value would be an answer on another scale: then it is a wrong one, and not a name."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _note(notes: Any) -> None:
    for note in notes:
        print(note, file=sys.stderr)


def _table(recommender: Recommender, lists: Recommendations, plan: bool) -> str:
    """Returns a list for people."""
    columns = {"step" if plan else "rank": lists.ranks, "item": lists.ids, "title": lists.titles, "score": lists.scores}
    listed = lists.ranks[0] > 0
    rows = [list(columns), *zip(*(column[0][listed].tolist() for column in columns.values()), strict=True)]
    if np.array_equal(lists.titles[listed[None]], lists.ids[listed[None]].astype(str)):  # no titles are known
        rows = [[row[0], row[1], row[3]] for row in rows]
    text = [_aligned(rows), f"{recommender.system.name}; score: {lists.score}"]
    if lists.paths is not None:
        with pl.Config(
            tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=60, tbl_hide_dataframe_shape=True, tbl_width_chars=120
        ):
            text += [str(lists.paths.drop("request")), f"score of a path's child: {lists.path_score}"]
    return "\n".join(text)


def _aligned(rows: list[Any]) -> str:
    texts = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in texts) for place in range(len(texts[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts
    )
