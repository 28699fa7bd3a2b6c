"""The search space: which settings a study varies, and within which bounds (`conf/tune/AGENT.yaml`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.commands.command_words import override_value
from harness.errors import UserError
from harness.runs.index import flattened
from harness.settings import Finite, Integer, read_settings

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass(frozen=True)
class Bounds:
    """What one setting may be: an interval, ends included (of integers if both ends are), or one of some values."""

    low: Integer | Finite | None = None
    high: Integer | Finite | None = None
    log: bool = False
    choices: list[Any] | None = None

    def __post_init__(self) -> None:
        """Checks values against each other; raises UserError."""
        interval = self.low is not None and self.high is not None
        if interval == bool(self.choices) or (self.low is None) != (self.high is None):
            raise UserError(
                "a setting of the search space has either low and high, or choices",
                do="Write {low: 0.001, high: 0.1, log: true} or {choices: [8, 16]}.",
            )
        ordered = self.low is None or self.high is None or self.low <= self.high
        if not ordered or (self.log and self.low is not None and self.low <= 0):
            raise UserError(
                f"a setting of the search space has low {self.low} and high {self.high}",
                do="low is at most high, and above 0 with log: true.",
            )


@dataclass(frozen=True)
class Dimension:
    """One setting that a study varies.

    Attributes:
        key: Dotted key of the setting.
        bounds: What it may be.
        default: Its value in the configuration at hand: trial 0 has it.
    """

    key: str
    bounds: Bounds
    default: Any

    def suggest(self, trial: Trial) -> Any:
        """Returns the value that a trial is given."""
        low, high = self.bounds.low, self.bounds.high
        if low is None or high is None:
            return self.of_stored(trial.suggest_categorical(self.key, list(self._written)))
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(self.key, low, high, log=self.bounds.log)
        return trial.suggest_float(self.key, low, high, log=self.bounds.log)

    def of_stored(self, value: Any) -> Any:
        """Returns the setting for a value that Optuna has stored."""
        return value if self.bounds.choices is None else self._written[value]

    @property
    def _written(self) -> dict[str, Any]:
        """The choices as they are written on the command line; Optuna stores numbers and text, and no lists."""
        return {override_value(choice): choice for choice in self.bounds.choices or []}

    @property
    def stored_default(self) -> Any:
        """The default as Optuna stores it."""
        return override_value(self.default) if self.bounds.choices is not None else self.default

    def check_default(self) -> None:
        """Raises UserError if the default, which is the first trial, is outside of the bounds."""
        low, high, choices = self.bounds.low, self.bounds.high, self.bounds.choices
        if choices is not None:
            allowed = override_value(self.default) in map(override_value, choices)
        else:
            number = isinstance(self.default, int | float) and not isinstance(self.default, bool)
            allowed = number and low is not None and high is not None and low <= self.default <= high
        if not allowed:
            limits = f"{low} to {high}" if choices is None else ", ".join(map(override_value, choices))
            raise UserError(
                f"{self.key} is {override_value(self.default)}, the search space has {limits}",
                where=f"space.{self.key}",
                do=f"Trial 0 has the configuration's own value: widen the space, or leave the setting out with "
                f"'~space.{self.key}'.",
            )


def read_space(space: Mapping[str, Any] | None, values: Mapping[str, Any]) -> list[Dimension]:
    """Returns the settings that a search space varies.

    Args:
        space: Bounds, nested as the settings are.
        values: The configuration; trial 0 takes its values.

    Raises:
        UserError: No settings, one that the configuration lacks, or impossible bounds.
    """
    if not space:
        raise UserError(
            "there is nothing to tune: no search space",
            where="space",
            do="Add settings, as in '+space.agent.learner.learning_rate={low: 0.001, high: 0.1, log: true}', or write "
            "conf/tune/AGENT.yaml.",
        )
    known = dict(flattened(values))
    dimensions = []
    for key, bounds in _bounds(space, ""):
        if key not in known:
            raise UserError(f"the configuration has no {key}", where=f"space.{key}", do="See --cfg job for all keys.")
        dimension = Dimension(key, read_settings(Bounds, bounds, f"space.{key}"), known[key])
        dimension.check_default()
        dimensions.append(dimension)
    return dimensions


def _bounds(node: Any, above: str) -> Iterator[tuple[str, Any]]:
    """Yields the bounds of nested settings with their dotted keys."""
    if not isinstance(node, Mapping) or node.keys() & {"low", "high", "choices"}:
        yield above, node
        return
    for key, value in node.items():
        yield from _bounds(value, f"{above}.{key}" if above else str(key))
