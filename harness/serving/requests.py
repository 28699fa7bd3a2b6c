"""What clients send: the bodies of requests, checked for types and sizes before anything is looked up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

MOST_LISTED = 10_000
_IDS_AND_ANSWERS = ("user", "item", "answer", "history", "session", "allow", "deny")

# Tables of users and items hold 64 bits; what goes to the log must be readable again.
Id = Annotated[StrictStr, Field(max_length=200)] | Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Answer = Annotated[StrictStr, Field(max_length=40)] | StrictInt | StrictFloat | None
Pair = tuple[Id, Answer]
# The first mistake is told: thousands of them in one request would hold up all others.
Pairs = Annotated[list[Pair], Field(max_length=MOST_LISTED, fail_fast=True)]
Ids = Annotated[list[Id], Field(max_length=MOST_LISTED, fail_fast=True)]


class Body(BaseModel):
    """No other keys than those that are named."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def no_other_keys(cls, body: Any) -> Any:
        """Names the first key that is none, instead of all of them."""
        if isinstance(body, dict):
            for key in body:
                if key not in cls.model_fields:
                    keys = ", ".join(cls.model_fields)
                    raise PydanticCustomError(
                        "no_key", "{key} is no key, keys are {keys}", {"key": str(key)[:100], "keys": keys}
                    )
        return body


class RecommendBody(Body):
    """Who gets a list, and what may be in it."""

    user: Id | None = Field(None, description="A user of the data; with a history any name, for the log.")
    history: Pairs | None = Field(None, description="Item and answer, in order of time; [] for somebody new.")
    session: Pairs = Field([], description="Items and answers since the present session began.")
    k: StrictInt = Field(10, ge=1, description="Items in the list; at most the k of the export.")
    allow: Ids | None = Field(None, description="Only these items (what is in stock).")
    deny: Ids = Field([], description="None of these items.")
    shown: StrictInt | None = Field(
        None, ge=0, description="How many of them the user sees: the log keeps these; null: all."
    )
    exclude_seen: StrictBool = Field(True, description="Whether items of the history are left out.")
    policy: Annotated[StrictStr, Field(max_length=200)] | None = Field(None, description="One of /policies.")
    paths: StrictBool = Field(False, description="Also how a policy on a tree reaches each item.")

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"history": [["1", 5], ["2", 3]], "k": 5, "deny": ["3"]}}
    )


class AnswerBody(Body):
    """What a user answered to an item."""

    item: Id
    answer: Answer = None
    decision: Annotated[StrictStr, Field(pattern="^[0-9a-f]{16}$")] | None = Field(None, description="Of /recommend.")
    user: Id | None = None
    policy: Annotated[StrictStr, Field(max_length=200)] | None = None


def mistake_in_words(mistake: Mapping[str, Any]) -> str:
    """Returns a mistake in a request, as pydantic describes it, in one sentence.

    Args:
        mistake: One of `ValidationError.errors()`, of a request.
    """
    # Names of the types of a union follow the key, and are none of the client's business.
    where = [part for part in mistake["loc"][1:] if isinstance(part, int) or part.isidentifier()]
    place, listed = (
        ".".join(str(part) for part in where)[:200] or "the body",
        bool(where) and isinstance(where[-1], int),
    )
    if mistake["type"] in ("tuple_type", "missing", "too_long") and listed and where[0] in ("history", "session"):
        return f"{place}: each entry is [item, answer]"
    if mistake["type"] in ("string_type", "int_type", "float_type") and where and where[0] in _IDS_AND_ANSWERS:
        return f"{place}: is neither a text nor a number{' nor null' if where[0] == 'answer' else ''}"
    if mistake["type"] == "string_pattern_mismatch":
        return f"{place}: is no decision of /recommend"
    return f"{place}: {mistake['msg']}"


class SimulatedBody(Body):
    """An item that a user of the data is shown."""

    user: Id
    item: Id
    policy: Annotated[StrictStr, Field(max_length=200)] | None = None


class Step(BaseModel):
    """A child that a tree policy takes."""

    level: int
    node: int
    score: float
    items: int
    such_as: list[str]


class Item(BaseModel):
    """An item of a list."""

    item: Any
    title: str
    categories: str
    score: float
    probability: float = Field(description="That the item came to this place of the list; for estimates from the log.")
    path: list[Step] | None = None


class RecommendResult(BaseModel):
    """A list, best first."""

    decision: str
    policy: str
    model: str
    items: list[Item]


class Refused(BaseModel):
    """Why a request was not answered."""

    error: str
