"""What the configuration of a command offers: groups, choices, keys; and whose they are.

Both systems share the folder `conf`. A choice whose header says `# @system NAME` belongs to that system alone, and so
does whatever starts from it; other choices belong to both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

CONFIGURATION = str(Path(__file__).resolve().parents[2] / "conf")
"""The folder of configuration files, found by its place: by name, a user's own folder `conf` would hide it."""
ADDED_GROUPS = ("experiment", "ablation")
"""Groups from which nothing is chosen unless a command line adds a choice: `+experiment=NAME`."""

_HEADER = "# @system "
FOLLOWS = {"items": "data"}
"""Groups whose choice follows from the choice of the same name of another group."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C ten times faster: a command reads a hundred files


@dataclass(frozen=True)
class Configuration:
    """The configuration of a command, as its files say without being composed.

    Attributes:
        name: Of `conf/NAME.yaml`.
        folders: Where choices are looked for: ours, and those that a command line adds.
    """

    name: str
    folders: tuple[str, ...] = (CONFIGURATION,)

    @property
    def system(self) -> str | None:
        """The system whose command this is; None: of both."""
        package = self.command.partition(".")[0]
        return package if package in systems() else None

    @property
    def command(self) -> str:
        """The module of the command."""
        return _module_of(self.name)

    @property
    def groups(self) -> list[str]:
        """Groups of which a choice is always taken, then those whose choices can be added."""
        always = _groups_of(self.name, self.system)
        added = [group for group in ADDED_GROUPS if self.choices(group)] if "train" in always else []
        return [*dict.fromkeys(always), *added]

    @property
    def top_keys(self) -> set[str]:
        """Keys of the file itself and of those it starts from, without groups."""
        return {key for file in _chain(Path(CONFIGURATION, f"{self.name}.yaml")) for key in _raw(file)}

    def choices(self, group: str) -> list[str]:
        """Returns the choices of a group that this command takes."""
        files = {path.stem: path for folder in self.folders for path in Path(folder, group).glob("*.yaml")}
        if group in FOLLOWS:
            leading = self.choices(FOLLOWS[group])
            files = {name: path for name, path in files.items() if name in leading}
        own = [name for name, path in files.items() if owner_of(path) in (None, self.system) or self.system is None]
        return sorted(name for name in own if not _is_base(name))

    def composed(self, overrides: Sequence[str] = ()) -> DictConfig:
        """Composes the configuration, Hydra's own part included.

        Raises:
            HydraException: An override is invalid.
        """
        added = [folder for folder in self.folders if folder != CONFIGURATION]
        where = [f"hydra.searchpath=[{','.join(map(_quoted, added))}]"] if added else []
        in_command = GlobalHydra.instance().is_initialized()
        with nullcontext() if in_command else initialize_config_dir(CONFIGURATION, version_base="1.3"):
            return compose(self.name, overrides=[*where, *overrides], return_hydra_config=True)

    def all_keys(self, choices: Sequence[str] = ()) -> list[str]:
        """Returns all keys, in dots, that the configuration has with some choices; groups of keys too."""
        try:
            composed = self.composed(choices)
        except HydraException:
            composed = self.composed()
        values = OmegaConf.to_container(without_hydra(composed), resolve=False)
        return list(_all_keys(cast(dict[str, Any], values)))


def without_hydra(composed: DictConfig) -> DictConfig:
    """Returns a composed configuration without Hydra's own part."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def owner_of(file: Path) -> str | None:
    """Returns the system that a file belongs to; None: both."""
    owners = (owner for one in _chain(file) if (owner := _marked(one)) is not None)
    return next(owners, None)


def commands_of(system: str) -> dict[str, str]:
    """Returns the configurations of a system's commands by the last word of their module."""
    modules = {path.stem: _module_of(path.stem).partition(".") for path in Path(CONFIGURATION).glob("*.yaml")}
    return {last: name for name, (package, _, last) in modules.items() if package == system}


def systems() -> list[str]:
    """Returns the names of the systems: the packages that train."""
    modules = [_module_of(path.stem).partition(".") for path in sorted(Path(CONFIGURATION).glob("*.yaml"))]
    return [package for package, _, last in modules if last == "train"]


def system_of_run(values: Mapping[str, Any]) -> str | None:
    """Returns the system that a run's configuration is of, by the groups that no other system has; None: unknown."""
    groups = {system: set(Configuration(commands_of(system)["train"]).groups) for system in systems()}
    for system, its in groups.items():
        others = set().union(*(groups[other] for other in groups if other != system))
        if (its - others) & set(values):
            return system
    return None


def keys_of_choices(configuration: Configuration, group: str) -> dict[str, set[str]]:
    """Returns the keys, in dots below the group, of each of its choices."""
    found = {}
    for name in configuration.choices(group):
        files = _chain(Path(CONFIGURATION, group, f"{name}.yaml"))
        found[name] = {key for file in files if file.parent.name == group for key in _all_keys(_raw(file))}
    return found


def _all_keys(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _all_keys(value, f"{above}{key}.")


def _is_base(name: str) -> bool:
    """Returns whether a file is only there for others to start from."""
    return name.endswith("base") or name.startswith("of_")


@functools.cache
def _text(file: Path) -> str:
    return file.read_text("utf-8") if file.is_file() else ""


def _marked(file: Path) -> str | None:
    """Returns the system that a file's own header names."""
    for line in _text(file).splitlines():
        if line.startswith(_HEADER):
            return line.removeprefix(_HEADER).strip()
        if line and not line.startswith("# @"):
            return None
    return None


@functools.cache
def _content(file: Path) -> Mapping[str, Any]:
    """Returns what a file says; nothing if it is no mapping: Hydra will say so."""
    try:
        content = _LOADER(_text(file)).get_single_data()
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, Mapping) else {}


def _raw(file: Path) -> dict[str, Any]:
    """Returns the settings in a file."""
    return {str(key): value for key, value in _content(file).items() if key not in ("defaults", "hydra")}


def _module_of(name: str) -> str:
    """Returns the module of the command whose configuration is `conf/NAME.yaml`; its name, if it is of no command."""
    hydra = _content(Path(CONFIGURATION, f"{name}.yaml")).get("hydra", {})
    return str(hydra.get("help", {}).get("app_name", name)).removeprefix("python -m ")


def _chain(file: Path) -> list[Path]:
    """Returns a file and those that it starts from, nearest first."""
    files = [file]
    for one in files:
        for group, name in _defaults(one):
            if group is not None and one.parent == Path(CONFIGURATION):
                continue  # a choice of a command, not what it starts from
            own, ours = one.parent / f"{name}.yaml", Path(CONFIGURATION, group or one.parent.name, f"{name}.yaml")
            started_from = own if group is None and own.is_file() else ours
            if started_from.is_file() and started_from not in files:
                files.append(started_from)
    return files


def _groups_of(name: str, system: str | None) -> list[str]:
    """Returns the groups in a command's list of defaults, also of the files it starts from."""
    files = _chain(Path(CONFIGURATION, f"{name}.yaml"))
    if any(group == "report" for file in files for group, _ in _defaults(file)):  # reports have groups of their own
        reports = sorted(Path(CONFIGURATION, "report").glob("*.yaml"))
        files += [one for file in reports if owner_of(file) in (None, system) for one in _chain(file)]
    hidden = ("schedule", "space", "tune")  # follow the agent
    found = [group for file in files for group, _ in _defaults(file) if group is not None]
    return [group for group in found if not group.startswith("hydra") and group not in hidden]


def _defaults(file: Path) -> Iterator[tuple[str | None, str]]:
    """Yields group (None: the file's own folder) and name of each entry of a defaults list."""
    for entry in _content(file).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            yield None, entry.partition("@")[0]
        elif isinstance(entry, Mapping):
            for group, name in entry.items():
                yield group.split()[-1].lstrip("/").partition("@")[0], str(name)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', r"\"") + '"'
