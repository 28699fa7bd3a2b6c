"""Bodies of requests: the first mistake is told, however many there are."""

from typing import Any

import pytest
from pydantic import ValidationError

from harness.serving.requests import AnswerBody, RecommendBody, SimulatedBody


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ({"history": [[{}, {}]] * 10_000}, r"history\.0"),
        ({"history": [], "session": [["a", 1]] * 9_000 + [[1]] * 1_000}, r"session\.9000"),
        ({"history": [], "deny": [None] * 10_000}, r"deny\.0"),
        ({"history": []} | {f"key_{number}": 1 for number in range(95_000)}, "key_0 is no key"),
    ],
)
def test_the_first_of_many_mistakes_is_told(body, match):
    with pytest.raises(ValidationError, match=match) as found:
        RecommendBody.model_validate(body)
    assert found.value.error_count() <= 6  # of one pair: item and answer may each be of several kinds


def test_keys_are_those_of_the_body():
    bodies: list[tuple[Any, dict[str, Any]]] = [(AnswerBody, {"item": 1}), (SimulatedBody, {"user": 1, "item": "a"})]
    for kind, body in bodies:
        kind.model_validate(body)
        with pytest.raises(ValidationError, match=r"k is no key, keys are .*item"):
            kind.model_validate(body | {"k": 1})
