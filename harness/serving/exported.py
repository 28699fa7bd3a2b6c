"""An export as a policy: needs JAX and NumPy alone (and flatbuffers, which `jax.export` itself asks for)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from harness.errors import UserError
from harness.serving.episodes import (
    KINDS,
    barred_items,
    last_of_each,
    padded,
    padded_in_front,
    power_of_two,
    width_for,
)

FORMAT = 1
MODEL_FILE = "model.json"
PROGRAM, PATHS = "recommend", "paths"
ANY_BATCH = "any"
"""Programs of an export, and the one that takes batches of any size."""
FILE_OF_EXPORT = re.compile(rf"(arrays|items|users|nodes)\.npz|({PROGRAM}|{PATHS})_\w+\.stablehlo")
"""Names of its files besides `MODEL_FILE`."""
_FACTS = {
    *("model", "method", "step", "k", "items", "episode_length", "history_width", "remembers", "score", "path_score"),
    *("answers", "programs", "users", "metrics"),
}
_LARGEST_BATCH = 1024
_NONE = np.zeros(0, np.int32)


class NotAsked(UserError):
    """A question that cannot be answered: unknown ids, no answers, too many items. One sentence."""


@dataclass(frozen=True)
class Past:
    """What a user did: items and answers in order of time, and items by kind where a policy sees them."""

    items: np.ndarray = field(default_factory=lambda: _NONE)
    answers: np.ndarray = field(default_factory=lambda: _NONE)
    kinds: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Question:
    """What one user asks, in indices.

    Attributes:
        history: What the user did before.
        session: What the user answered since the present session began.
        deny: [m] items that are not recommended.
        allow: The only items that are recommended, ascending; None: all. Questions with the same ones run together.
        again: Whether items of the history may come again.
    """

    history: Past = field(default_factory=Past)
    session: Past = field(default_factory=Past)
    deny: np.ndarray = field(default_factory=lambda: _NONE)
    allow: tuple[int, ...] | None = None
    again: bool = False


class Lists(NamedTuple):
    """[n, K] items, best first, -1 where there is none, and their scores; of paths [n, K, D] each, if asked for."""

    items: np.ndarray
    scores: np.ndarray
    path_score: np.ndarray | None = None
    path_child: np.ndarray | None = None
    path_items: np.ndarray | None = None


class ExportedModel:
    """An export that was read: looks up ids, prepares questions, calls the program."""

    def __init__(self, folder: str | Path) -> None:
        """Reads an export; programs are compiled when they are called.

        Raises:
            UserError: No export, a damaged one, or one of another format.
        """
        self.folder = Path(folder).expanduser()
        self.facts = _read_facts(self.folder)
        try:
            if content_of(self.folder) != self.version:
                raise ValueError("its files are not those that model.json tells of")
            self.k: int = self.facts["k"]
            self.num_items: int = self.facts["items"]
            self._replayed = max(self.facts["episode_length"] - 1, 0)
            self._width: int = self.facts["history_width"]
            items = _read_arrays(self.folder / "items.npz")
            self.item_ids, self.titles, self.categories = items["ids"], items["titles"], items["categories"]
            self._users = _read_arrays(self.folder / "users.npz") if self.facts["users"] else {}
            self.nodes = _read_arrays(self.folder / "nodes.npz") if self.has_paths else {}
            arrays = _read_arrays(self.folder / "arrays.npz")
            self._arrays = {name: jax.numpy.asarray(array) for name, array in arrays.items()}
            # All of it at once: the folder may be replaced by another model.
            self._programs = {
                file: jax.jit(jax.export.deserialize(bytearray((self.folder / file).read_bytes())).call)
                for files in self.facts["programs"].values()
                for file in files.values()
            }
        except Exception as error:  # deserialising damaged programs raises many kinds
            raise UserError(
                f"the export is damaged ({error or type(error).__name__})",
                where=str(self.folder),
                do="Export it again.",
            ) from None

    @property
    def version(self) -> str:
        """Which model this is, by its content."""
        return str(self.facts["model"])

    @property
    def user_ids(self) -> np.ndarray:
        """Ids of the users whose histories the export has."""
        return self._users["ids"] if self._users else np.zeros(0, np.int64)

    @cached_property
    def folded_titles(self) -> list[str]:
        """Titles as they are searched, in which case does not count."""
        return [title.casefold() for title in self.titles.tolist()]

    @cached_property
    def _item_index(self) -> dict[str, int]:
        return {str(item): place for place, item in enumerate(self.item_ids.tolist())}

    @cached_property
    def _user_index(self) -> dict[str, int]:
        return {str(user): place for place, user in enumerate(self._users["ids"].tolist())} if self._users else {}

    @cached_property
    def _codes(self) -> dict[Any, int]:
        """Codes of answers by number and by text."""
        codes: dict[Any, int] = {}
        for code, value in enumerate(self.facts["answers"]["values"]):
            if isinstance(value, str):
                codes |= {value: code, str(code): code, float(code): code}
            elif value is None:
                codes |= {None: code, "": code}
            else:
                codes |= {float(value): code, f"{value:g}": code, str(value): code}
        return codes

    def history_of(self, user: Any) -> Past:
        """Returns what a user of the data did.

        Raises:
            NotAsked: The user is unknown.
        """
        place = self._user_index.get(str(user))
        if place is None:
            raise NotAsked(f"unknown user: {str(user)[:100]}")
        begin, end = self._users["begin"][place : place + 2]
        kinds = []
        for kind in KINDS if self._width else ():
            first, last = self._users[f"{kind}_begin"][place : place + 2]
            kinds.append(self._users[f"{kind}_items"][first:last])
        return Past(self._users["items"][begin:end], self._users["answers"][begin:end], tuple(kinds))

    def past_of(self, pairs: Sequence[tuple[Any, Any]]) -> Past:
        """Looks up a history that is given as (item, answer) in order of time.

        Raises:
            NotAsked: An item is unknown, or an answer is none.
        """
        items = self.items_of([item for item, _ in pairs])
        codes = np.array([self.code_of(answer) for _, answer in pairs], np.int32)
        return Past(items, codes, _kinds(items, codes) if self._width else ())

    def items_of(self, ids: Sequence[Any], all_known: bool = True) -> np.ndarray:
        """Returns [n] int32 indices of items; those that are unknown are left out if they may be."""
        index = self._item_index
        places = [index.get(str(item), -1) for item in ids]
        if all_known and -1 in places:
            unknown = [str(item)[:100] for item, place in zip(ids, places, strict=True) if place < 0]
            raise NotAsked(f"unknown item{'s' * (len(unknown) > 1)}: {', '.join(unknown[:5])}")
        return np.array([place for place in places if place >= 0], np.int32)

    def code_of(self, answer: Any) -> int:
        """Returns the code of an answer, a number or text."""
        key = answer.strip().lower() if isinstance(answer, str) else answer
        code = None if isinstance(key, bool | list | dict) else self._codes.get(key)
        if code is None:
            raise NotAsked(
                f"the answer {str(answer)[:100]!r} is no answer: an answer is {self.facts['answers']['kind']}"
            )
        return code

    def allowed(self, items: np.ndarray) -> tuple[int, ...]:
        """Returns the items of an allow list that can be recommended."""
        allow = np.unique(items[items < self.num_items])
        if not len(allow):
            raise NotAsked("none of the allowed items is one that can be recommended")
        return tuple(allow.tolist())

    def recommend(
        self, questions: Sequence[Question], shapes: Sequence[tuple[int, int]] = (), paths: bool = False
    ) -> Lists:
        """Answers questions, those with the same allowed items in one call of the program.

        Args:
            questions: At least one.
            shapes: Batches and numbers of excluded items that may be compiled, of which the first that has room is
                taken; empty, or where none has: a power of two, and 16 times a power of four.
            paths: Whether paths are wanted; of models with a tree.
        """
        found: list[tuple[list[int], list[np.ndarray]]] = []
        groups: dict[tuple[int, ...] | None, list[int]] = {}
        for place, question in enumerate(questions):
            groups.setdefault(question.allow, []).append(place)
        most = 1 if paths else max((size for size, _ in shapes), default=self._largest_batch)
        for allow, places in groups.items():
            available = np.ones(self.num_items, bool)
            if allow is not None:
                available[:] = False
                available[list(allow)] = True
            for first in range(0, len(places), most):
                part = places[first : first + most]
                arrays = self._prepared([questions[i] for i in part], shapes) | {"available": available}
                found.append((part, [np.asarray(array) for array in self._call(PATHS if paths else PROGRAM, arrays)]))
        # Back in the order of the questions.
        results = [np.zeros((len(questions), *array.shape[1:]), array.dtype) for array in found[0][1]]
        for part, arrays_of_part in found:
            for result, array in zip(results, arrays_of_part, strict=True):
                result[part] = array[: len(part)]
        return Lists(*results)

    @property
    def has_paths(self) -> bool:
        """Whether the model has a tree."""
        return PATHS in self.facts["programs"]

    @property
    def _largest_batch(self) -> int:
        files = self.facts["programs"][PROGRAM]
        return _LARGEST_BATCH if ANY_BATCH in files else max(map(int, files))

    def _prepared(self, questions: list[Question], shapes: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Returns the inputs of the program: episodes, and what else is excluded."""
        # Of each question: the episode, and what must not come.
        items, answers, out, kinds, again = [], [], [], [], []
        for question in questions:
            replayed, codes, seen, before = self._episode(question)
            barred, repeatable_items = self._barred(question, replayed, seen)
            items.append(replayed)
            answers.append(codes)
            out.append(barred)
            kinds.append(before)
            again.append(repeatable_items)
        # Together, padded to a shape that is compiled.
        number, longest = len(questions), max(map(len, out))
        fitting = (shape for shape in shapes if shape[0] >= number and shape[1] >= longest)
        size, width = next(fitting, (power_of_two(number), width_for(longest)))
        length, repeatable = np.zeros((2, size), np.int32)
        length[:number], repeatable[:number] = [len(some) for some in items], again
        prepared = {
            "items": padded(items, size, self._replayed),
            "answers": np.maximum(padded(answers, size, self._replayed), 0),
            "length": length,
            "excluded": padded(out, size, width),
            "repeatable": repeatable,
        }
        if self._width:
            for place, kind in enumerate(KINDS):
                prepared[kind] = padded_in_front([before[place] for before in kinds], size, self._width)
        return prepared

    def num_excluded(self, question: Question) -> int:
        """Returns how many items a program must be told not to recommend: not those that its policy knows of."""
        replayed, _, seen, _ = self._episode(question)
        return len(self._barred(question, replayed, seen)[0])

    def _barred(self, question: Question, replayed: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, int]:
        """Returns the excluded items, and how many of the replayed ones may come again."""
        barred, repeatable = barred_items(
            replayed, question.session.items, seen, question.deny, question.again, self.facts["remembers"]
        )
        return barred[barred < self.num_items], repeatable

    def _episode(self, question: Question) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        """Returns items and answers that are replayed, other seen items, and items by kind of what was before."""
        history, session = question.history, question.session
        if not self._width:
            # The history goes on in the session.
            items = np.concatenate([history.items, session.items])
            codes = np.concatenate([history.answers, session.answers])
            kept = last_of_each(items)
            first = max(len(kept) - self._replayed, 0)
            return items[kept[first:]], codes[kept[first:]], items[kept[:first]], ()
        # The session begins behind the history; what does not fit into it is history.
        kept = last_of_each(session.items)
        kept = kept[max(len(kept) - self._replayed, 0) :]
        earlier = np.setdiff1d(np.arange(len(session.items)), kept)
        later = _kinds(session.items[earlier], session.answers[earlier])
        before = tuple(map(np.concatenate, zip(history.kinds or (_NONE,) * len(KINDS), later, strict=True)))
        items = session.items[kept]
        seen = np.setdiff1d(np.concatenate([history.items, session.items[earlier]]), items).astype(np.int32)
        return items, session.answers[kept], seen, before

    def _call(self, name: str, question: Mapping[str, Any]) -> Any:
        files = self.facts["programs"][name]
        file = files.get(ANY_BATCH) or files[str(len(question["length"]))]
        return self._programs[file](self._arrays, dict(question))


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / MODEL_FILE).read_text())
    except FileNotFoundError:
        raise UserError(
            "no export", where=str(folder), do="Make one: python -m tpgr_jax.export run=RUN out=FOLDER"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({error})", where=str(folder / MODEL_FILE), do="Export it again.") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise UserError(f"not an export of format {FORMAT}", where=str(folder), do="Export it again.")
    if missing := sorted(_FACTS - facts.keys()):
        raise UserError(f"lacks {', '.join(missing)}", where=str(folder / MODEL_FILE), do="Export it again.")
    return facts


def content_of(folder: Path) -> str:
    """Returns what tells the model of an export from others: 16 digits, of names and contents of its files."""
    content = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if FILE_OF_EXPORT.fullmatch(file.name):
            with file.open("rb") as opened:
                content.update(file.name.encode() + hashlib.file_digest(opened, "sha256").digest())
    return content.hexdigest()[:16]


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays}


def _kinds(items: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns all items, those clicked or ordered, and those ordered; codes are 0, 1 and 2."""
    return items, items[codes >= 1], items[codes >= 2]
