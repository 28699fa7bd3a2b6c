"""From a composed configuration to checked, typed settings."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sim.errors import UserError

Settings = TypeVar("Settings")


def read_settings(schema: type[Settings], config: Any, where: str = "") -> Settings:
    """Checks a configuration against a dataclass (fields may be dataclasses again) and builds it.

    Args:
        schema: Says which keys there are and of which types; checks ranges itself in `__post_init__`. A field with
            a default may be absent. One whose metadata has "otherwise" (advice) must have its default as value, which
            is checked before all else: it tells a group of keys from another that would be mistaken for it.
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
    nested: dict[str, Any] = {key: kind for key, kind in types.items() if dataclasses.is_dataclass(kind)}
    required = [field.name for field in dataclasses.fields(schema) if field.default is dataclasses.MISSING]
    present = [key for key in types if key in config or key in required]
    # OmegaConf knows how to check plain fields; frozen dataclasses inside others it cannot fill.
    plain = dataclasses.make_dataclass(schema.__name__, [(key, types[key]) for key in present if key not in nested])
    try:
        missing = [key for key in present if key not in config or OmegaConf.is_missing(config, key)]
        if missing:
            raise UserError(f"{_path(where, missing[0])} has no value", where="configuration", do=advice)
        values = {key: config[key] for key in present if key not in nested}
        checked = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(plain), values), resolve=True)
    except OmegaConfBaseException as error:
        key = _path(where, str(getattr(error, "full_key", "") or ""))
        problem = str(error).splitlines()[0]
        if "is not a ListConfig" in problem:
            problem = "is no list; write one like [32,16], or []"
        raise UserError(problem, where=key, do=advice) from None
    assert isinstance(checked, dict)
    parts: dict[str, Any] = {key: read_settings(kind, config[key], _path(where, key)) for key, kind in nested.items()}
    built = schema(**{str(key): value for key, value in checked.items()}, **parts)
    assert isinstance(built, schema)
    return built


def _path(where: str, key: str) -> str:
    return ".".join(part for part in (where, key) if part)
