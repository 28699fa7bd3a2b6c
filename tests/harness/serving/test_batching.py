"""Questions that share a call, and those with so many excluded items that they are asked alone."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bandit_problem import NUM_ITEMS
from rating_exports import recommender_of

from harness.serving import batching
from harness.serving.batching import Batcher
from harness.serving.exported import ExportedModel, NotAsked, Question
from sim.recommend.export import write_export


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("batching") / "export"
    write_export(recommender_of("popularity"), str(folder), 5, True)
    return folder


def answers(export: Path, monkeypatch: Any, questions: list[Question], widest: int) -> tuple[list[Any], list[Any]]:
    """Returns the lists, and batch and shapes of each call of the model."""
    model, calls = ExportedModel(export), []
    monkeypatch.setattr(batching, "MOST_EXCLUDED", widest)
    with ThreadPoolExecutor(1) as thread:
        batcher = Batcher(model, thread, lambda _: None)
        batcher.warm_up()
        recommend = model.recommend
        monkeypatch.setattr(
            model, "recommend", lambda some, shapes: calls.append((len(some), shapes)) or recommend(some, shapes)
        )

        async def ask() -> list[Any]:
            return await asyncio.gather(*map(batcher.ask, questions))

        return [found.items.tolist() for found in asyncio.run(ask())], calls


def test_many_excluded_items_are_asked_alone_in_a_shape_that_is_compiled(export, monkeypatch):
    model = ExportedModel(export)
    deny = model.items_of(list(range(10)))
    questions = [Question(deny=deny), Question(deny=deny[:2]), Question()]
    found, calls = answers(export, monkeypatch, questions, widest=4)
    assert found == [model.recommend([question]).items[0].tolist() for question in questions]
    assert (1, ((1, 16),)) in calls
    assert sum(number for number, _ in calls) == 3


def test_what_may_come_again_and_what_the_policy_knows_are_not_counted(export, monkeypatch):
    model = ExportedModel(export)
    past = model.past_of([(item, 5) for item in range(NUM_ITEMS)])
    assert model.num_excluded(Question(past, again=True)) == 0
    known = model.num_excluded(Question(past))
    assert known == (NUM_ITEMS - model._replayed if model.facts["remembers"] else NUM_ITEMS)
    _, calls = answers(export, monkeypatch, [Question(past, again=True)], widest=4)
    assert [shapes for _, shapes in calls] != [((1, 16),)]  # in a batch, like others


def test_more_than_any_program_takes_is_refused(export, monkeypatch):
    monkeypatch.setattr(batching, "MOST_EXCLUDED_ALONE", 8)
    model = ExportedModel(export)
    deny = model.items_of(list(range(10)))
    with pytest.raises(NotAsked, match="10 items are excluded, at most 8 can be"):
        answers(export, monkeypatch, [Question(deny=deny)], widest=4)
