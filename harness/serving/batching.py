"""Questions that come at the same time are answered by one call of the program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from harness.serving.episodes import width_for
from harness.serving.exported import ExportedModel, NotAsked, Question

LARGEST_BATCH = 32
MOST_EXCLUDED = 4096
"""Of each question of a batch; with more it is answered alone."""
MOST_EXCLUDED_ALONE = 65_536
MOST_WAITING = 1024
_COMPILED_AT_ONCE = 2


class Overloaded(Exception):
    """More questions wait than the server takes."""


class Answered(NamedTuple):
    """[K] items, -1 where there is none, and their scores."""

    items: np.ndarray
    scores: np.ndarray


class Batcher:
    """One model and the questions that wait for it. While a batch is computed, the next one gathers."""

    def __init__(self, model: ExportedModel, thread: ThreadPoolExecutor, count: Callable[[float], None]) -> None:
        """Begins without questions.

        Args:
            model: Answers.
            thread: In which it computes; one for all models.
            count: Is told the size of each batch.
        """
        self.model, self._thread, self._count = model, thread, count
        self.most_excluded = min(MOST_EXCLUDED_ALONE, width_for(model.num_items))
        self._widest = widest = min(MOST_EXCLUDED, self.most_excluded)
        widths = sorted({width for width in (16, 256, widest) if width <= widest})
        # Few shapes, so that few programs are compiled before the server begins.
        self._shapes = ((1, widths[0]), *((LARGEST_BATCH, width) for width in widths))
        self._wide_shapes = ((1, self.most_excluded),)
        self._waiting: list[tuple[Question, asyncio.Future[Answered]]] = []
        self._running: asyncio.Task[None] | None = None

    def warm_up(self) -> None:
        """Compiles every shape, some at the same time."""

        def compile_for(shape: tuple[int, int], paths: bool) -> None:
            size, width = shape
            deny = np.arange(min(width, self.model.num_items), dtype=np.int32)
            self.model.recommend([Question(deny=deny)] * size, (shape,), paths)

        with ThreadPoolExecutor(_COMPILED_AT_ONCE) as pool:
            list(pool.map(compile_for, *zip(*self._calls, strict=True)))

    @property
    def _calls(self) -> list[tuple[tuple[int, int], bool]]:
        """Shapes that are compiled, and whether with paths."""
        calls = [(shape, False) for shape in dict.fromkeys((*self._shapes, *self._wide_shapes))]
        return calls + [(shape, True) for shape in self._wide_shapes if self.model.has_paths]

    @property
    def programs(self) -> int:
        """How many programs are compiled before the first question."""
        return len(self._calls)

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    async def ask(self, question: Question) -> Answered:
        """Returns the answer to a question, which waits for the batch before it.

        Raises:
            NotAsked: It excludes more items than any program that is compiled.
            Overloaded: Too many are waiting.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise Overloaded
        if self.excludes(question) > self._widest:
            call = lambda: self.model.recommend([question], self._wide_shapes)  # noqa: E731
            lists = await asyncio.get_running_loop().run_in_executor(self._thread, call)
            self._count(1)
            return Answered(lists.items[0], lists.scores[0])
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    def excludes(self, question: Question) -> int:
        """Returns how many items a question excludes, or a number that is not below and small enough for a batch.

        Raises:
            NotAsked: They are too many.
        """
        number = len(question.history.items) + len(question.session.items) + len(question.deny)
        if number > self._widest:
            number = self.model.num_excluded(question)
        if number > self.most_excluded:
            raise NotAsked(f"{number:,} items are excluded, at most {self.most_excluded:,} can be")
        return number

    async def paths(self, question: Question) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns the items [K] and their paths [K, D] through the tree: score, child, items below; see `ask`."""
        self.excludes(question)
        call = lambda: self.model.recommend([question], self._wide_shapes, paths=True)  # noqa: E731
        lists = await asyncio.get_running_loop().run_in_executor(self._thread, call)
        assert lists.path_score is not None
        assert lists.path_child is not None
        assert lists.path_items is not None
        return lists.items[0], lists.path_score[0], lists.path_child[0], lists.path_items[0]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
            questions = [question for question, _ in batch]
            try:
                lists = await loop.run_in_executor(self._thread, self.model.recommend, questions, self._shapes)
            except Exception as error:  # each of those who wait is told
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._count(len(batch))
            for (_, future), items, scores in zip(batch, lists.items, lists.scores, strict=True):
                if not future.done():  # the client may have gone
                    future.set_result(Answered(items, scores))
        self._running = None
