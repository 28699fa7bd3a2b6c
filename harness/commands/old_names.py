"""Names that earlier versions wrote into run folders, and what they are called now: whatever is read is translated."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

SETTINGS = {"agent.goals.internal_weight": "agent.goals.intrinsic_weight"}
"""Keys of config.yaml, in dots."""

ADDED = {
    "env.counts_by": ("env.reward_scale", "sign"),
    "agent.policy.value_rank": ("agent.policy.streak", None),
}
"""Keys that earlier versions did not write: beside which key they belong, and the value those versions ran with."""

METRICS = {"internal_reward": "intrinsic_reward"}
"""Keys of the rows of metrics.jsonl."""

FIELDS = {
    "internal": "intrinsic_reward",
    "last": "truncated",
    "following_goal": "next_goal",
    "following_clicked": "next_clicked",
    "following_ordered": "next_ordered",
}
"""Fields of dataclasses in checkpoints. One is translated only where a checkpoint has the old name and not the new."""

_OLD_FIELDS = {new: old for old, new in FIELDS.items()}


def current_settings(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Returns a configuration with the keys of now; old and new names lie in the same group of keys."""
    renamed = {}
    for key, value in values.items():
        path = f"{above}{key}"
        name = SETTINGS.get(path, path).removeprefix(above)
        renamed[name] = current_settings(value, f"{path}.") if isinstance(value, Mapping) else value
    for path, (beside, value) in ADDED.items():
        if beside.startswith(above) and beside.removeprefix(above) in renamed:
            renamed.setdefault(path.removeprefix(above), value)
    return renamed


def current_metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row of metrics with the names of now."""
    return {METRICS.get(name, name): value for name, value in row.items()}


def advice(text: str) -> str | None:
    """Returns what an old key in a message is called now; None if there is none in it."""
    for old, new in SETTINGS.items():
        if old in text:
            return f"{old} is called {new} now."
    return None


def as_stored(node: Any, stored: Any) -> Any:
    """Returns a pytree with the names of a checkpoint: a dataclass with other fields there becomes a dictionary.

    Names may be old ones; a field that is None, as one that came later and holds nothing, may be absent.

    Args:
        node: A pytree; dataclasses that other dataclasses hold are translated too.
        stored: Nested dictionaries with the names of the checkpoint.
    """
    if not dataclasses.is_dataclass(node) or isinstance(node, type) or not isinstance(stored, Mapping):
        return node
    fields = _fields(node)
    names = {field: _stored_name(field, stored) for field in fields}
    names = {field: name for field, name in names.items() if name in stored or getattr(node, field) is not None}
    children = {field: as_stored(getattr(node, field), stored.get(name)) for field, name in names.items()}
    if names == {field: field for field in fields}:
        return dataclasses.replace(node, **children)
    return {name: children[field] for field, name in names.items()}


def as_now(node: Any, like: Any) -> Any:
    """Returns what was restored into `as_stored(like, ...)` as a pytree of the classes of `like`."""
    if not dataclasses.is_dataclass(like) or isinstance(like, type):
        return node
    children = {
        field: as_now(
            node[_stored_name(field, node)] if isinstance(node, Mapping) else getattr(node, field), getattr(like, field)
        )
        for field in _fields(like)
        if getattr(like, field) is not None
    }
    return dataclasses.replace(like, **children)


def _fields(node: Any) -> list[str]:
    """Returns the names of a dataclass's fields that hold arrays."""
    return [field.name for field in dataclasses.fields(node) if field.metadata.get("pytree_node", True)]


def _stored_name(field: str, stored: Mapping[str, Any]) -> str:
    old = _OLD_FIELDS.get(field, field)
    return old if field not in stored and old in stored else field
