"""User code: modules outside these packages that a configuration names by their dotted path."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from harness.errors import UserError
from harness.settings import ByName

SETTINGS = "Settings"
"""Name of the settings dataclass in every such module."""


def load_module(path: str, key: str, names: Sequence[str]) -> Any:
    """Imports a module that a setting names.

    Args:
        path: Dotted path, as in an import statement.
        key: The setting, for messages.
        names: Names that the module must define.

    Raises:
        UserError: The module cannot be imported, or lacks a name.
    """
    if not (isinstance(path, str) and all(part.isidentifier() for part in path.split("."))):
        raise UserError(f"{key} is {path!r}", do="Give a module's dotted path, as in my_package.my_module.")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise UserError(
            f"{path} cannot be imported ({error})",
            where=key,
            do="Install its package, start in the folder that holds it, or add that folder to PYTHONPATH.",
        ) from None
    except (ValueError, AssertionError) as error:  # pydantic would take these for what is wrong with the setting
        raise RuntimeError(f"the module {path}, which {key} names, raised {error!r} while it was imported") from error
    if missing := [name for name in names if not hasattr(module, name)]:
        raise UserError(
            f"{path} does not define {' and '.join(missing)}",
            where=key,
            do=f"A module named by {key} defines {' and '.join(names)}; docs/extending.md shows one.",
        )
    return module


class ByModule(ByName):
    """For the annotation of a field: the dataclass of a group of keys is `Settings` of a module.

    The key `module` names a user's module; without it, the key `name` chooses one of ours.
    """

    def __init__(
        self,
        group: str,
        base: type,
        names: Sequence[str],
        modules: Mapping[str, str] | None = None,
        default: str | None = None,
    ) -> None:
        """Describes the modules to choose from.

        Args:
            group: The group of keys, for messages.
            base: Base class of every `Settings`.
            names: Names that a user's module must define besides `Settings`.
            modules: Dotted paths of our modules by name; imported only when chosen.
            default: Dotted path of our module for all other names; None: other names are refused.
        """
        modules = dict(modules or {})
        super().__init__(dict.fromkeys(modules, base), None if default is None else base)
        self._group, self._base, self._names, self._modules, self._default = group, base, names, modules, default

    def kind(self, value: Mapping[str, Any]) -> type | None:
        """Returns the dataclass of a group of keys; None: its name is not allowed.

        Raises:
            UserError: The module cannot be used.
        """
        key, path = f"{self._group}.module", value.get("module")
        if path is not None:
            settings = load_module(path, key, (SETTINGS, *self._names)).Settings
        elif super().kind(value) is None:
            return None
        else:
            path = self._of_ours(value.get("name"))
            settings = load_module(path, key, (SETTINGS,)).Settings
        if not (isinstance(settings, type) and issubclass(settings, self._base) and is_dataclass(settings)):
            raise UserError(
                f"{path}.{SETTINGS} is not a dataclass that inherits from "
                f"{self._base.__module__}.{self._base.__name__}",
                where=key,
                do="docs/extending.md shows one.",
            )
        return settings

    def module_of(self, settings: Any) -> Any:
        """Returns the module that settings of this group belong to.

        Raises:
            UserError: The module cannot be used.
        """
        path = settings.module or self._of_ours(getattr(settings, "name", None))
        return load_module(path, f"{self._group}.module", (SETTINGS, *self._names))

    def _of_ours(self, name: Any) -> str:
        return self._modules.get(str(name)) or str(self._default)
