"""What a server does, without HTTP: lists, answers, a new model; no state but models, counters and the log."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.serving.batching import Batcher
from harness.serving.decision_log import DecisionLog
from harness.serving.exported import ExportedModel, NotAsked, Question
from harness.serving.metrics import Metrics
from harness.serving.requests import AnswerBody, RecommendBody, SimulatedBody


class Unknown(NotAsked):
    """There is no such user or policy: 404."""


class Reloading(Exception):
    """The models are being read already: 409."""


@dataclass(frozen=True)
class Source:
    """Where a policy's export is found: a folder, and what brings it up to date before it is read (None: nothing)."""

    folder: Path
    refresh: Callable[[], Any] | None = None


class Service:
    """Policies by name, the first being the one that is asked where none is named."""

    def __init__(self, sources: Sequence[Source], log: DecisionLog | None = None, explore: float = 0.0) -> None:
        """Reads and compiles the models.

        Args:
            sources: Of the models.
            log: Of decisions and answers; None: nothing is kept.
            explore: Share of lists that are put into random order, so that the log says what other orders earn.

        Raises:
            UserError: An export is missing or damaged.
        """
        self.metrics, self.log, self.explore = Metrics(), log, explore
        self._sources = list(sources)
        self._thread = ThreadPoolExecutor(1, "model")
        self._reloading = asyncio.Lock()
        if log is not None:
            self.metrics.log_removed = log.removed
        self.batchers = self._loaded()

    def _loaded(self) -> dict[str, Batcher]:
        batchers: dict[str, Batcher] = {}
        for source in self._sources:
            model = ExportedModel(source.folder)
            name, number = model.facts["method"], 2
            while name in batchers:
                name, number = f"{model.facts['method']}_{number}", number + 1
            batchers[name] = batcher = Batcher(model, self._thread, self.metrics.batches.add)
            said = f"compiling {batcher.programs} programs of {name}: a minute or two, the next start finds them"
            print(said, file=sys.stderr, flush=True)
            batcher.warm_up()
        return batchers

    async def reload(self) -> dict[str, Any]:
        """Reads the models anew; until that is done, and where it fails, the old ones answer.

        Returns:
            models: Versions by policy; notices: what an earlier model knew and its successor does not.

        Raises:
            UserError: An export is missing or damaged.
            Reloading: They are being read already.
        """
        if self._reloading.locked():
            raise Reloading
        async with self._reloading:
            loop = asyncio.get_running_loop()
            for source in self._sources:
                if source.refresh is not None:
                    await loop.run_in_executor(None, source.refresh)
            before, self.batchers = self.batchers, await loop.run_in_executor(None, self._loaded)
            self.metrics.reloads += 1
        notices = [
            notice
            for name, batcher in self.batchers.items()
            if name in before
            for notice in _forgotten(name, before[name].model, batcher.model)
        ]
        for notice in notices:
            print(f"notice: {notice}", file=sys.stderr, flush=True)
        return {"models": self.models, "notices": notices}

    @property
    def models(self) -> dict[str, str]:
        """Versions by policy."""
        return {name: batcher.model.version for name, batcher in self.batchers.items()}

    @property
    def waiting(self) -> int:
        """Questions that wait for any model."""
        return sum(batcher.waiting for batcher in self.batchers.values())

    def batcher(self, policy: str | None) -> tuple[str, Batcher]:
        """Returns the policy that is asked and its name.

        Raises:
            Unknown: There is none of this name.
        """
        name = next(iter(self.batchers)) if policy is None else policy
        if name not in self.batchers:
            raise Unknown(f"unknown policy: {name[:100]}; there are {', '.join(self.batchers)}")
        return name, self.batchers[name]

    def describe(self) -> list[dict[str, Any]]:
        """Returns what each policy is, for clients."""
        kept = ("method", "model", "k", "items", "episode_length", "score", "path_score", "answers", "users", "metrics")
        return [
            {"policy": name, "paths": batcher.model.has_paths} | {key: batcher.model.facts[key] for key in kept}
            for name, batcher in self.batchers.items()
        ]

    async def recommend(self, body: RecommendBody) -> dict[str, Any]:
        """Returns a list; see `RecommendResult`.

        Raises:
            NotAsked: Unknown ids or impossible filters.
            Overloaded: Too many questions wait.
        """
        name, batcher = self.batcher(body.policy)
        model = batcher.model
        if body.k > model.k:
            raise NotAsked(f"k is {body.k}, but lists have at most {model.k} items")
        question = self._question(body, model)

        # The list, in random order now and then.
        steps = None
        if body.paths and model.has_paths:
            found, *steps = await batcher.paths(question)
            scores = (await batcher.ask(question)).scores
        else:
            found, scores = await batcher.ask(question)
        number = int(np.count_nonzero(found[: body.k] >= 0))
        order, chances = _explored(number, self.explore)
        chosen = found[order].tolist()
        ids, values = model.item_ids[chosen].tolist(), [float(scores[place]) for place in order]

        decision = secrets.token_hex(8)
        if self.log is not None:
            parts = (part[: body.shown] for part in (ids, values, chances))
            self._count("decision", self.log.decision(decision, model.version, name, body.user, *parts))
        items = []
        for place, (index, item) in enumerate(zip(chosen, ids, strict=True)):
            one = {"item": item, "title": str(model.titles[index]), "categories": str(model.categories[index])}
            one |= {"score": values[place], "probability": chances[place]}
            if steps is not None:
                one["path"] = _path(model, order[place], steps)
            items.append(one)
        return {"decision": decision, "policy": name, "model": model.version, "items": items}

    def _question(self, body: RecommendBody, model: ExportedModel) -> Question:
        if body.history is None and body.user is None:
            raise NotAsked("neither user nor history is given: history=[] is somebody new")
        if body.history is None:
            try:
                history = model.history_of(body.user)
            except NotAsked as error:
                raise Unknown(str(error)) from None
        else:
            history = model.past_of(body.history)
        allow = None if body.allow is None else model.allowed(model.items_of(body.allow))
        deny = model.items_of(body.deny, all_known=False)  # what is unknown is never recommended
        return Question(history, model.past_of(body.session), deny, allow, not body.exclude_seen)

    def answer(self, body: AnswerBody) -> dict[str, Any]:
        """Keeps an answer and says what it earns (without the part of a streak).

        Raises:
            NotAsked: An unknown item, or no answer of this data.
        """
        model = self.batcher(body.policy)[1].model
        item = model.item_ids[model.items_of([body.item])[0]].item()
        answers = model.facts["answers"]
        code = model.code_of(body.answer)
        kept = self.log is not None and self.log.answer(body.decision, item, answers["values"][code], body.user)
        self._count("answer", kept)
        return {"logged": kept, "reward": round(answers["rewards"][code], 6)}

    def _count(self, kind: str, kept: bool) -> None:
        self.metrics.logged[kind] += kept
        if self.log is not None:
            self.metrics.log_errors, self.metrics.log_removed = self.log.errors, self.log.removed

    def simulated(self, body: SimulatedBody) -> dict[str, Any]:
        """Returns what a user of the data answered to an item; what she never answered counts as none.

        Raises:
            NotAsked: Unknown ids.
        """
        model = self.batcher(body.policy)[1].model
        try:
            past = model.history_of(body.user)
        except NotAsked as error:
            raise Unknown(str(error)) from None
        answers = model.facts["answers"]
        places = np.flatnonzero(past.items == model.items_of([body.item])[0])
        code = int(past.answers[places[-1]]) if len(places) else 0
        reward = round(answers["rewards"][code], 6)
        return {"answer": answers["values"][code], "reward": reward, "known": bool(len(places))}

    def close(self) -> None:
        """Writes what is still in memory."""
        if self.log is not None:
            self.log.close()
        self._thread.shutdown(wait=False)


def _forgotten(policy: str, before: ExportedModel, after: ExportedModel) -> list[str]:
    """Returns how many items and users of a model its successor does not know, in a sentence each."""
    notices = []
    for kind, old, new in (("items", before.item_ids, after.item_ids), ("users", before.user_ids, after.user_ids)):
        gone = np.setdiff1d(old.astype(str), new.astype(str)).size
        if gone:
            notices.append(f"{policy}: {gone:,} of {len(old):,} {kind} are no longer known")
    return notices


def _explored(number: int, explore: float) -> tuple[list[int], list[float]]:
    """Returns the order of a list, random with probability `explore`, and each item's probability at its place."""
    order = list(range(number))
    if explore and number > 1:
        if random.random() < explore:
            random.shuffle(order)
        by_chance = explore / number
        return order, [by_chance + (1 - explore) * (item == place) for place, item in enumerate(order)]
    return order, [1.0] * number


def _path(model: ExportedModel, place: int, steps: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Returns the steps from the root of the tree to an item, with the most frequent items below each."""
    path = []
    for level, (score, child, below) in enumerate(zip(*(part[place].tolist() for part in steps), strict=True)):
        if child < 0:
            break
        nodes = model.nodes.get(f"level_{level}")
        shown = [] if nodes is None or child >= len(nodes) else [item for item in nodes[child].tolist() if item >= 0]
        finite = score if math.isfinite(score) else 0.0
        such_as = model.titles[shown].tolist()
        path.append({"level": level, "node": child, "score": finite, "items": below, "such_as": such_as})
    return path
