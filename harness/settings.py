"""From a composed configuration to checked, typed settings."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.errors import UserError

Settings = TypeVar("Settings")
_CONTAINERS: dict[Any, tuple[type, str]] = {
    list: (ListConfig, "Write a list like [32,16], or [] for an empty one."),
    dict: (DictConfig, "Write pairs like {view: click, buy: order}, or {} for none."),
}


@dataclass(frozen=True)
class Between:
    """A range of finite numbers, for the annotation of a field."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def allows(self, value: float) -> bool:
        """Says whether a number is in the range."""
        return math.isfinite(value) and self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        """The range in words."""
        if self.above == 0 and self.most == self.below == math.inf:
            return "a positive number"
        bounds = (
            ("at least", self.least),
            ("more than", self.above),
            ("at most", self.most),
            ("less than", self.below),
        )
        words = [f"{name} {bound:,.15g}" for name, bound in bounds if math.isfinite(bound)]
        return " and ".join(words) or "a finite number"


class OneOf:
    """The names that a field may have as value, for its annotation."""

    def __init__(self, *names: str) -> None:
        """Takes the names."""
        self.names = names

    def allows(self, value: str) -> bool:
        """Says whether a value is one of the names."""
        return value in self.names

    def __str__(self) -> str:
        """The names in words."""
        return " or ".join(filter(None, [", ".join(self.names[:-1]), self.names[-1]]))


class ByName:
    """Which dataclass a group of keys is, told by its key `name`; for the annotation of a field."""

    def __init__(self, kinds: Mapping[str, type], otherwise: type | None = None) -> None:
        """Takes the dataclasses by name, and that of all other names, if these are allowed."""
        self.kinds = dict(kinds)
        self.otherwise = otherwise

    def kind(self, config: Any, where: str) -> type:
        """Returns the dataclass for a group of keys.

        Raises:
            UserError: The group has no name, or an unknown one.
        """
        name = config.get("name") if isinstance(config, Mapping) else None
        if name in self.kinds:
            return self.kinds[name]
        if self.otherwise is None:
            raise UserError(f"{where}.name is {name!r}", do=f"Give {OneOf(*self.kinds)}.")
        return self.otherwise


Count = Annotated[int, Between(least=1)]
CountOrZero = Annotated[int, Between(least=0)]
Seed = Annotated[int, Between(least=0, below=2**32)]
Finite = Annotated[float, Between()]
Positive = Annotated[float, Between(above=0)]
NotNegative = Annotated[float, Between(least=0)]
Share = Annotated[float, Between(least=0, most=1)]
ProperShare = Annotated[float, Between(above=0, below=1)]


def read_settings(schema: type[Settings], config: Any, where: str = "") -> Settings:
    """Checks a configuration against a dataclass (fields may be dataclasses again, chosen by `ByName`) and builds it.

    Args:
        schema: Says which keys there are, of which types and, by annotations (`Count`, `Annotated[str, OneOf(...)]`),
            in which ranges; `__post_init__` checks values against each other. A field with a default may be absent.
            One whose metadata has "otherwise" (advice) must have its default as value, which is checked before all
            else: it tells a group of keys from another that would be mistaken for it.
        config: A mapping or OmegaConf node with these keys and no others; interpolations are resolved.
        where: Key of this node in the whole configuration, for messages.

    Raises:
        UserError: Unknown or missing key, wrong type, impossible value; the message names the key.
    """
    assert dataclasses.is_dataclass(schema)
    advice = "See --cfg job for all keys and their values."
    if not isinstance(config, Mapping):
        raise UserError(f"is {config!r} where a group of keys belongs", where=where or "configuration", do=advice)
    config = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    types = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        do = field.metadata.get("otherwise")
        if do and (found := config.get(field.name, field.default)) != field.default:
            raise UserError(f"is {found} where {field.default} belongs", where=_path(where, field.name), do=do)
    if unknown := [str(key) for key in config if key not in types]:
        raise UserError(f"unknown key {_path(where, unknown[0])}", where="configuration", do=advice)
    hints = typing.get_type_hints(schema, include_extras=True)
    nested: dict[str, Any] = {key: kind for key, kind in types.items() if dataclasses.is_dataclass(kind)}
    for key, hint in hints.items():
        for rule in getattr(hint, "__metadata__", ()):
            if isinstance(rule, ByName):
                nested[key] = rule.kind(config.get(key), _path(where, key))
    required = [field.name for field in dataclasses.fields(schema) if not _has_default(field)]
    present = [key for key in types if key in config or key in required]
    # OmegaConf knows how to check plain fields; frozen dataclasses inside others it cannot fill.
    plain = dataclasses.make_dataclass(schema.__name__, [(key, types[key]) for key in present if key not in nested])
    try:
        missing = [key for key in present if key not in config or OmegaConf.is_missing(config, key)]
        if missing:
            raise UserError(f"{_path(where, missing[0])} has no value", where="configuration", do=advice)
        values = {key: config[key] for key in present if key not in nested}
        for key, value in values.items():
            kind, do = _CONTAINERS.get(typing.get_origin(types[key]), (object, ""))
            if not isinstance(value, kind):
                raise UserError(f"cannot be {value!r}", where=_path(where, key), do=do)
        checked = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(plain), values), resolve=True)
    except OmegaConfBaseException as error:
        key = _path(where, str(getattr(error, "full_key", "") or ""))
        raise UserError(str(error).splitlines()[0], where=key, do=advice) from None
    assert isinstance(checked, dict)
    for name, value in checked.items():
        for place, bad, allowed in _out_of_range(hints[str(name)], value, _path(where, str(name))):
            raise UserError(f"{place} is {bad!r}", do=f"Give {allowed}.")
    parts: dict[str, Any] = {
        key: read_settings(kind, config[key], _path(where, key)) for key, kind in nested.items() if key in present
    }
    built = schema(**{str(key): value for key, value in checked.items()}, **parts)
    assert isinstance(built, schema)
    return built


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _out_of_range(hint: Any, value: Any, key: str) -> Iterator[tuple[str, Any, Between | OneOf]]:
    """Yields each value that breaks a rule in the annotation of its type, with key and rule; None breaks none."""
    if value is None:
        return
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        yield from ((key, value, rule) for rule in hint.__metadata__ if not rule.allows(value))
    elif isinstance(value, list):
        for entry in value:
            yield from _out_of_range(arguments[0], entry, key)
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield from _out_of_range(arguments[1], entry, _path(key, str(name)))
    else:
        for arm in arguments:
            yield from _out_of_range(arm, value, key)


def _path(where: str, key: str) -> str:
    return ".".join(part for part in (where, key) if part)
