"""A trained run as a recommender: lists for known and new users, and sessions that go on with their answers."""

from __future__ import annotations

import pathlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from harness.errors import UserError
from harness.serving.episodes import barred_items, padded, power_of_two, width_for
from sim.envs.policy import Path, Ranking
from sim.recommend.ask import Asked, best_items, next_items
from sim.recommend.lists import Recommendations
from sim.recommend.requests import Reader, Request, Unknown
from sim.recommend.system import System
from sim.tables.items import ItemTable, read_item_table

AT_A_TIME = 256
"""Requests that are answered at once: few enough that their histories are of similar length."""
_AT_WORK = 3  # parts that are computed at the same time
_EXAMPLES = 3
_FEWEST_RANKED = 16  # but for the decision alone


class _Lists(NamedTuple):
    """[n, k] items and scores."""

    items: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Recommender:
    """What a run recommends. `tpgr_jax.load` and `hrlmg_jax.load` make it from a run folder.

    Attributes:
        system: The run.
        titles: [J] text, titles of all items.
        source: The run folder, for messages.
        step: Training steps of the checkpoint.
        table: What the run knows of its items; None for nothing.
    """

    system: System
    titles: np.ndarray
    source: str
    step: int = 0
    table: ItemTable | None = None

    @cached_property
    def reader(self) -> Reader:
        """Looks up ids."""
        return Reader(self.system, self.source, self.table)

    def recommend(
        self,
        histories: Any,
        k: int = 10,
        allowed: Sequence[Any] | None = None,
        exclude_seen: bool = True,
        exclude: Sequence[Any] | None = None,
        *,
        sessions: Sequence[Sequence[tuple[Any, Any]]] | None = None,
        at: Any = None,
        unknown: Unknown = "error",
        plan: bool = False,
        paths: bool = False,
    ) -> Recommendations:
        """Returns what the policy would recommend to each user now: k items, best first.

        The first is what the policy decides for, the others follow in the order of its scores. A history is replayed
        through the policy's own update of its state; of one that is longer than an episode the last T - 1 answers
        make the state, and all of them are excluded.

        Args:
            histories: A list with a user per entry: the id of a user of the data, or a list of (item, answer) in order
                of time. A single id is a list of one.
            k: Items for each, at least 1.
            allowed: Ids of the items that may be recommended; None: all. Or such a list for each entry.
            exclude_seen: Whether items of the history are excluded.
            exclude: Ids of items that are excluded, too. Or such a list for each entry.
            sessions: For each entry what the user answered since the present session began, (item, answer) in order.
                Where a method knows no sessions this is the end of the history.
            at: Only items that can be recommended at this moment by the dates of the run's item table: a datetime,
                a date as text (UTC), or seconds since 1970. None: whatever the dates.
            unknown: What becomes of ids that the run does not know: an error; or they are left out and named in the
                notes, an unknown user having an empty list ("skip") or the list of one without a history ("cold").
            plan: The k next steps instead of k items now, each assuming the most likely answer to the one before.
            paths: Whether to return the paths through the tree.

        Raises:
            UserError: Unknown ids, an answer that is none, no allowed item, or k is too small or too large.
        """
        if unknown not in get_args(Unknown):
            raise UserError(f"unknown={unknown!r}", do="Use error, skip or cold.")
        # Users and what may be recommended to them, as indices.
        notes: list[str] = []
        if isinstance(histories, (str, int, np.integer)):
            histories = [histories]
        self._check(k, plan)
        requests = self.reader.requests(list(histories), sessions, unknown, notes)
        answered = np.flatnonzero([request.history is not None for request in requests])
        shape = len(requests), k
        lists = _Lists(np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32))
        parts: list[tuple[np.ndarray, Path]] = []

        # Requests with the same allowed items are answered together; while one part is computed the next is prepared.
        waiting: deque[tuple[np.ndarray, Ranking, Path | None]] = deque()

        def collect() -> None:
            rows, ranking, path = waiting.popleft()
            found = [part[: len(rows), :k] for part in jax.device_get((ranking.items, ranking.scores))]
            lists.items[rows], lists.scores[rows] = found
            if path is not None:
                parts.append((rows, Path(*(part[: len(rows), :k] for part in jax.device_get(path)))))

        for chosen, filters in self.reader.filters(answered, len(requests), allowed, exclude, at, notes):
            for part in self._in_parts([requests[i] for i in chosen]):
                rows = chosen[part]
                excluded = [filters.excluded[i] for i in part]
                together = [requests[i] for i in rows]
                asked = self._ask(together, excluded, filters.available, k, not exclude_seen, plan, paths)
                waiting.append((rows, *asked))
                if len(waiting) == _AT_WORK:
                    collect()
        while waiting:
            collect()
        return self._described(requests, lists, parts, notes, plan)

    def session(self, history: Any = (), **filters: Any) -> Session:
        """Returns a session with one user, who gets items one after another and answers them.

        Args:
            history: The id of a user of the data, or (item, answer) of a new one; nothing for somebody unknown.
            filters: `allowed`, `exclude`, `exclude_seen` and `at`; see `recommend`.
        """
        return Session(self, history, filters)

    def _check(self, k: int, plan: bool) -> None:
        length = self.system.env.episode_length
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise UserError(f"k is {k}", do="Ask for at least one item.")
        if plan and k > length:
            raise UserError(
                f"k is {k}, but an episode of this run has {length} steps", do=f"Plan at most {length} steps."
            )

    def _in_parts(self, requests: list[Request]) -> Iterator[np.ndarray]:
        """Yields indices of requests that are answered at once: such with histories of similar length."""
        if len(requests) <= AT_A_TIME:
            yield np.arange(len(requests))
            return
        length = np.array([len(request.history.items) for request in requests if request.history is not None])
        order = np.argsort(length, kind="stable")
        # The few with the longest histories, for whom a program reads the longest lists, are on their own.
        width = np.array([width_for(number) for number in length[order]])
        begin = 0
        while begin < len(order):
            end = min(begin + AT_A_TIME, len(order))
            narrower = begin + int(np.searchsorted(width[begin:end], width[end - 1]))
            end = narrower if narrower - begin >= AT_A_TIME // 2 else end
            yield order[begin:end]
            begin = end

    def _ask(
        self,
        requests: list[Request],
        excluded: list[np.ndarray],
        available: np.ndarray,
        k: int,
        again: bool,
        plan: bool,
        paths: bool,
    ) -> tuple[Ranking, Path | None]:
        """Begins to answer requests at once, their number and k rounded up so that programs are reused."""
        system = self.system
        # What was done, and as many requests without a history as make their number a power of two.
        size = power_of_two(len(requests))
        nothing = self.reader.read((), [])
        histories = [request.history or nothing for request in requests] + [nothing] * (size - len(requests))
        sessions = [request.session for request in requests] + [nothing] * (size - len(requests))
        room = k if plan else 1
        replay, rest = system.replay(histories, sessions, max(system.env.episode_length - room, 0))

        # What else is excluded: seen earlier, or by the caller. What the session showed never comes again.
        out, repeatable = [], np.zeros(size, np.int32)
        for i, request in enumerate(requests):
            replayed, shown = replay.items[i, : replay.length[i]], request.session.items
            barred, repeatable[i] = barred_items(replayed, shown, rest[i], excluded[i], again, self.remembers)
            out.append(barred[barred < system.num_items])
        barred_of_each = padded(out, size, width_for(max(map(len, out), default=0)))
        asked = Asked(replay, jnp.asarray(barred_of_each), jnp.asarray(repeatable), jnp.asarray(available))

        # A plan's steps cannot be rounded up: the replay has left room for them.
        if plan:
            return next_items(system.env, system.policy, k, system.likely_answer, system.likely_params, asked), None
        return best_items(system.env, system.policy, ranked_for(k), paths, asked)

    @cached_property
    def remembers(self) -> bool:
        """Whether observations carry what was recommended; not where items may be recommended again."""
        replay, _ = self.system.replay([self.reader.read((), [])], [self.reader.read((), [])], 0)
        observation, _ = jax.eval_shape(self.system.env.reset_at, jnp.int32(0), replay.env_params)
        return bool(observation.recommended.shape[-1])

    def _described(
        self,
        requests: list[Request],
        lists: _Lists,
        parts: list[tuple[np.ndarray, Path]],
        notes: list[str],
        plan: bool,
    ) -> Recommendations:
        """Puts ids and titles to the items."""
        labels = np.array([request.label for request in requests])
        items = lists.items
        exists, index = items >= 0, np.maximum(items, 0)
        ids = np.asarray(self.system.item_ids)
        nothing = ids.dtype.type() if ids.dtype.kind == "U" else ids.dtype.type(-1)
        ranks = np.where(exists, np.arange(1, items.shape[1] + 1), 0).astype(np.int32)
        short = exists.sum(1) < items.shape[1]
        for label, number in zip(labels[short][:_EXAMPLES], exists.sum(1)[short], strict=False):
            notes.append(f"{label}: only {number} of {items.shape[1]} items, no others may be recommended")
        if short.sum() > _EXAMPLES:
            notes.append(f"{int(short.sum()) - _EXAMPLES:,} other lists are shorter than {items.shape[1]}, too")
        policy = self.system.policy
        return Recommendations(
            requests=labels,
            ids=np.where(exists, ids[index], nothing),
            titles=np.where(exists, self.titles[index], ""),
            scores=lists.scores,
            ranks=ranks,
            score=policy.score,
            notes=tuple(dict.fromkeys(notes)),
            paths=self._path_table(labels, items, parts) if parts else None,
            path_score=policy.path_score,
        )

    def _path_table(self, labels: np.ndarray, items: np.ndarray, parts: list[tuple[np.ndarray, Path]]) -> pl.DataFrame:
        """Returns a row per level of each item's path: the child taken there, and what is below it."""
        ids, rows = self.system.item_ids, []
        for requests, path in parts:
            for place in np.argwhere(path.child >= 0):
                row, rank, level = place.tolist()
                child = int(path.child[row, rank, level])
                below = self.system.items_below(level, child)[:_EXAMPLES]
                score, number = float(path.score[row, rank, level]), int(path.items[row, rank, level])
                request = requests[row]
                examples = "; ".join(self.titles[below])
                key = (labels[request].item(), rank + 1, ids[items[request, rank]].item())
                rows.append((*key, level, child, score, number, examples))
        columns = ["request", "rank", "item", "level", "node", "score", "items", "such_as"]
        return pl.DataFrame(rows, columns, orient="row").sort("request", "rank", "level", maintain_order=True)


def recommender_of(system: System, folder: pathlib.Path, step: int) -> Recommender:
    """Returns the recommender of a run, with the titles of its item table; without one ids are titles.

    Raises:
        UserError: The item table is damaged.
    """
    table = read_item_table(folder)
    ids = system.item_ids
    titles = ids.astype(str) if table is None else np.array([table.label(item) for item in range(len(ids))], dtype=str)
    return Recommender(system, titles, str(folder), step, table)


@dataclass
class Session:
    """One user who gets items and answers them; `Recommender.session` begins it."""

    recommender: Recommender
    history: Any
    filters: dict[str, Any]
    answers: list[tuple[Any, Any]] = field(default_factory=list)

    def next(self, k: int = 1, **options: Any) -> Recommendations:
        """Returns what the policy recommends now; see `Recommender.recommend`."""
        return self.recommender.recommend([self.history], k, sessions=[self.answers], **self.filters, **options)

    def answer(self, item: Any, answer: Any) -> None:
        """Tells what the user answered to an item, which need not have been recommended.

        Raises:
            UserError: The item is unknown, or the answer is none.
        """
        left_out: list[Any] = []
        self.recommender.reader.read([(item, answer)], left_out)
        if left_out:
            raise self.recommender.reader.items.refuse(left_out)
        self.answers.append((item, answer))


def ranked_for(k: int) -> int:
    """Returns how many items are ranked for a list of k: so few numbers that few programs compile."""
    return 1 if k == 1 else max(_FEWEST_RANKED, power_of_two(k))
