"""From a composed configuration to checked, typed settings."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import (
    CoreSchema,
    ErrorDetails,
    InitErrorDetails,
    PydanticCustomError,
    PydanticKnownError,
    core_schema,
)

from harness.commands import old_names
from harness.commands.nearest import meant, nearest
from harness.errors import UserError

Settings = TypeVar("Settings")
_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
_ALL_KEYS = "See --cfg job for all keys and their values."
_UNKNOWN = "unexpected_keyword_argument"  # pydantic's name of the mistake
_ADVICE = {
    "list_type": "Write a list like [32,16], or [] for an empty one.",
    "dict_type": 'Write pairs like {view: click, buy: order}, or ["page.view=click","buy=order"] for any names.',
    "dataclass_type": _ALL_KEYS,
}


def _integer(value: Any) -> Any:
    """Refuses what pydantic would round or count as an integer: 3.0 and true."""
    if isinstance(value, bool | float):
        raise PydanticKnownError("int_type")
    return value


def _real(value: Any) -> Any:
    """Refuses true and false, which pydantic would count as 1.0 and 0.0."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def _pairs(value: Any) -> Any:
    """Returns the mapping that a list of texts NAME=VALUE stands for; None is the empty one."""
    if isinstance(value, dict) and any(name is None or isinstance(name, bool) or name != name for name in value):
        words = "true, false, null or not a number"
        raise PydanticCustomError("unquoted", f"YAML reads a name as {words}: write Yes, No, NaN, ... in quotes.")
    if not isinstance(value, list):
        return {} if value is None else value
    if not all(isinstance(text, str) and "=" in text for text in value):
        raise PydanticKnownError("dict_type")
    return {name: kind for name, _, kind in (text.rpartition("=") for text in value)}


PAIRS = BeforeValidator(_pairs)
"""For the annotation of a mapping whose names may be any text: Hydra's override grammar takes only plain words as keys,
and dots as groups, but any text in a list."""
Integer = Annotated[int, BeforeValidator(_integer)]
Finite = Annotated[float, BeforeValidator(_real)]  # no infinity and no NaN, as in all settings
Count = Annotated[Integer, Field(ge=1)]
CountOrZero = Annotated[Integer, Field(ge=0)]
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
Positive = Annotated[Finite, Field(gt=0)]
NotNegative = Annotated[Finite, Field(ge=0)]
Share = Annotated[Finite, Field(ge=0, le=1)]
ProperShare = Annotated[Finite, Field(gt=0, lt=1)]
ShareBelowOne = Annotated[Finite, Field(ge=0, lt=1)]


class SettingError(UserError, ValueError):
    """A mistake in settings that know their own keys but not their place, as `ScheduleConfig` is `train` and elsewhere.

    Raised by `__post_init__` with keys that begin with a dot, as in ".period is 1, less than .count". `read_settings`
    puts the place before them. (As a ValueError it reaches pydantic, which knows the place.)
    """

    def at(self, place: str) -> UserError:
        """Returns the same mistake with whole keys."""
        below = f"{place}." if place else ""
        return UserError(_RELATIVE.sub(below, self.what), do=_RELATIVE.sub(below, self.do))


_RELATIVE = re.compile(r"(?<![\w.*/])\.(?=[a-z_*])")


@dataclass(frozen=True, eq=False)  # by identity, so that annotations with `| None` can be hashed
class ByName:
    """For the annotation of a field: which dataclass a group of keys is, told by its key `name`.

    Attributes:
        kinds: Dataclasses by name; looked up when settings are read, so that names may be added until then.
        otherwise: The dataclass of all other names; None: there are no others.
    """

    kinds: Mapping[str, type]
    otherwise: type | None = None

    def kind(self, value: Mapping[str, Any]) -> type | None:
        """Returns the dataclass of a group of keys; None: its name is not allowed."""
        name = value.get("name")
        return self.kinds.get(name, self.otherwise) if isinstance(name, str) else self.otherwise

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tells pydantic how to validate the field."""
        return core_schema.no_info_plain_validator_function(self._validate)

    def _validate(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise PydanticKnownError("dataclass_type", {"class_name": "dataclass"})
        kind = self.kind(value)
        if kind is not None:
            return _adapter(kind).validate_python(value)
        *others, last = map(repr, self.kinds)
        names = " or ".join(filter(None, [", ".join(others), last]))
        mistake = InitErrorDetails(
            type="literal_error", loc=("name",), input=value.get("name"), ctx={"expected": names}
        )
        raise ValidationError.from_exception_data("settings", [mistake])


@dataclass(frozen=True)
class Otherwise:
    """For the annotation of a field with one allowed value, which tells a group of keys from those of another kind.

    Another value is reported before all other mistakes, most of which it explains.

    Attributes:
        advice: What to do about another value.
        special: What to do about some values in particular.
    """

    advice: str
    special: Mapping[str, str] = field(default_factory=dict)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tells pydantic how to validate the field."""

        def check(value: Any, validate: core_schema.ValidatorFunctionWrapHandler) -> Any:
            try:
                return validate(value)
            except ValidationError:
                advice = self.special.get(value, self.advice) if isinstance(value, str) else self.advice
                raise PydanticCustomError("wrong_kind", "{advice}", {"advice": advice}) from None

        return core_schema.no_info_wrap_validator_function(check, handler(source))


def read_settings(schema: type[Settings], config: Any, where: str = "") -> Settings:
    """Validates a configuration against a dataclass and builds it.

    Args:
        schema: A dataclass as pydantic reads it; its fields may be dataclasses again (chosen by `ByName`), and those
            with defaults may be absent. `__post_init__` checks values against each other and may raise UserError.
        config: A mapping or OmegaConf node with the dataclass's keys and no others; interpolations are resolved.
        where: Key of this node in the whole configuration, for messages.

    Raises:
        UserError: Unknown or missing key, wrong type, impossible value; the message names key, value and what is
            allowed.
    """
    if not isinstance(config, Mapping):
        raise UserError(f"{where or 'configuration'} is {config!r}, not a group of keys", do=_ALL_KEYS)
    try:
        node = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
        values = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", "") or "")
        inside = isinstance(config, DictConfig) and config._get_parent() is not None  # then the key is a whole one
        raise UserError(str(error).splitlines()[0], where=key if inside else _path(where, key), do=_ALL_KEYS) from None
    try:
        settings = _adapter(schema).validate_python(_without_missing(values))  # type: ignore[arg-type] # hashable
    except ValidationError as error:
        raise _user_error(error, where, values) from None
    assert isinstance(settings, schema)
    return settings


@functools.cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    # `| None`, since pydantic refuses a configuration for a bare dataclass, which might have its own.
    return TypeAdapter(schema | None, config=_CONFIG)


def _without_missing(node: Any) -> Any:
    """Returns plain containers without the keys that OmegaConf calls missing."""
    if isinstance(node, dict):
        return {key: _without_missing(value) for key, value in node.items() if value != "???"}
    return node


def _user_error(error: ValidationError, where: str, values: Any) -> UserError:
    """Returns the mistake that explains the others best: a group of another kind, an unknown key, else the first."""
    priority = ["wrong_kind", _UNKNOWN]
    mistakes = error.errors(include_url=False)
    first = min(mistakes, key=lambda mistake: (*(mistake["type"] != kind for kind in priority),))
    key = _path(where, *first["loc"])
    if isinstance(relative := first.get("ctx", {}).get("error"), SettingError):
        return relative.at(key)
    do = old_names.advice(key) or _advice(first)
    if first["type"] == _UNKNOWN:
        unknown = {_path(where, *mistake["loc"]) for mistake in mistakes if mistake["type"] == _UNKNOWN}
        do = meant(nearest(key, [one for one in _keys(values, where) if one not in unknown])) + do
    return UserError(_problem(first, key), do=do)


def _keys(values: Any, above: str) -> Iterator[str]:
    """Yields the keys of nested settings, in dots."""
    for key, value in values.items() if isinstance(values, Mapping) else ():
        yield _path(above, key)
        yield from _keys(value, _path(above, key))


def _problem(mistake: ErrorDetails, key: str) -> str:
    if mistake["type"] == _UNKNOWN:
        return f"unknown key {key}"
    if mistake["type"] == "missing":
        return f"{key} has no value"
    if mistake["type"] == "dataclass_type":
        return f"{key} is {mistake['input']!r}, not a group of keys"
    return f"{key} is {mistake['input']!r}"


def _advice(mistake: ErrorDetails) -> str:
    if mistake["type"] in (_UNKNOWN, "missing"):
        return _ALL_KEYS
    return _ADVICE.get(mistake["type"]) or mistake["msg"].replace("Input should be", "It should be").rstrip(".") + "."


def _path(*keys: str | int) -> str:
    return ".".join(str(key) for key in keys if key != "")
