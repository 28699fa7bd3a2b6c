"""Exports of small models, and the questions that tests ask them and the recommender alike."""

from pathlib import Path
from typing import Any

import numpy as np

from harness.serving.exported import ExportedModel, Question
from sim.recommend.recommender import Recommender


def questions_of(recommender: Recommender, answers: list[Any], seed: int = 0) -> list[dict[str, Any]]:
    """Keyword arguments of `Recommender.recommend` for a user each: short and long histories, sessions, deny lists."""
    generator = np.random.default_rng(seed)
    ids, number = recommender.system.item_ids, recommender.system.num_items
    length = recommender.system.env.episode_length

    def pairs(count: int, again: bool = False) -> list[tuple[Any, Any]]:
        items = generator.choice(number, count, replace=again)
        return [(ids[item].item(), answers[generator.integers(len(answers))]) for item in items]

    few = min(3, number // 3)
    asked = [
        {"history": []},
        {"history": pairs(few)},
        {"history": pairs(min(length + 2, number - 2))},
        {"history": pairs(few), "session": pairs(few)},
        {"history": pairs(few, True), "session": pairs(length + 3, True)},
        {"history": pairs(1), "exclude": ids[generator.choice(number, few, replace=False)].tolist()},
    ]
    return [{"session": [], "exclude": []} | question for question in asked]


def recommended(recommender: Recommender, asked: list[dict[str, Any]], k: int, **options: Any) -> Any:
    """What the recommender answers to all questions at once."""
    return recommender.recommend(
        [question["history"] for question in asked],
        k,
        sessions=[question["session"] for question in asked],
        exclude=[question["exclude"] for question in asked],
        **options,
    )


def exported_questions(model: ExportedModel, asked: list[dict[str, Any]], **options: Any) -> list[Question]:
    """The same questions in the model's indices."""
    return [
        Question(
            model.past_of(question["history"]),
            model.past_of(question["session"]),
            model.items_of(question["exclude"]),
            **options,
        )
        for question in asked
    ]


def assert_same_lists(recommender: Recommender, folder: Path, answers: list[Any]) -> ExportedModel:
    """An export gives the recommender's items and scores, bit for bit: histories, sessions, deny and allow lists."""
    model = ExportedModel(folder)
    asked = questions_of(recommender, answers)
    k = model.k

    def assert_same(lists: Any, found: Any) -> None:
        items = np.where(found.items >= 0, model.item_ids[np.maximum(found.items, 0)], lists.ids.dtype.type(-1))
        exists = lists.ranks > 0
        np.testing.assert_array_equal(found.items >= 0, exists)
        np.testing.assert_array_equal(items[exists], lists.ids[exists])
        np.testing.assert_array_equal(found.scores, lists.scores)

    assert_same(recommended(recommender, asked, k), model.recommend(exported_questions(model, asked)))
    again = exported_questions(model, asked, again=True)
    assert_same(recommended(recommender, asked, k, exclude_seen=False), model.recommend(again))
    some = recommender.system.item_ids[: recommender.system.num_items // 2]
    allowed = model.allowed(model.items_of(some.tolist()))
    lists = recommended(recommender, asked[:5], k, allowed=some)
    assert_same(lists, model.recommend(exported_questions(model, asked[:5], allow=allowed)))
    return model
