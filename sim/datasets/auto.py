"""Looks at a file and tells the settings with which it would be read: `python -m sim.data data=auto data.path=FILE`.

It only looks: what it finds is printed, parsed by the reader that training uses, and taken by nobody else. Where the
file does not tell, it says what is missing.
"""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import io
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from harness.commands.command import CONFIGURATION
from harness.commands.command_words import override_value
from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import Positive, read_settings
from sim.datasets.auto_values import (
    Packed,
    answers_in,
    column_of_events,
    columns_of_ratings,
    packed_items,
    placeholders_in,
    thresholds,
)
from sim.datasets.column_names import ANSWERS, ROLES, plain
from sim.datasets.log_settings import LogConfig
from sim.datasets.presets import NOT_LISTED
from sim.datasets.rating_settings import DataConfig
from sim.files.event_readers import read_events
from sim.files.locate import check_text_format, named_sources, text_format
from sim.files.rating_readers import read_ratings
from sim.files.sniff import Head, is_number, read_head
from sim.formats.sources import SizeLimits, Source, shorten
from sim.tables.events import FEEDBACK_NAMES

_MOST_OTHERS = 20
_MOST_SCALE = 11
_SHOWN = 3


@dataclass(frozen=True)
class AutoConfig:
    """What to look at, and what the file does not tell (`conf/data/auto.yaml`)."""

    kind: Literal["auto"]
    path: str | None
    member: str | None
    user_column: str | None
    item_column: str | None
    rating_column: str | None
    time_column: str | None
    feedback_column: str | None
    session_column: str | None
    separator: str | None
    column_names: list[str]
    encoding: str | None
    comment: str | None
    max_unpacked_gib: Positive


@dataclass
class Guess:
    """What a file seems to be.

    Attributes:
        overrides: The settings, as on a command line.
        notes: What was seen, and what to check.
        table: Some rows as they are read, below their head.
    """

    overrides: list[str]
    notes: list[str] = field(default_factory=list)
    table: list[tuple[str, ...]] = field(default_factory=list)

    def describe(self) -> str:
        """Formats everything for people."""
        widths = [max(len(row[column]) for row in self.table) for column in range(len(self.table[0]))]
        rows = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in self.table]
        settings = [f"  {_for_shell(override)}" for override in self.overrides]
        lines = [*self.notes, "", "settings:", *settings, "", f"first {_SHOWN} rows as they are read:"]
        return "\n".join([*lines, *(f"  {row}".rstrip() for row in rows)])


def look_at(config: AutoConfig) -> Guess:
    """Returns what a file seems to be, with the first rows as its reader reads them.

    Raises:
        UserError: The file cannot be read, or does not tell what it holds; the message says what to set.
    """
    if not config.path:
        raise UserError("is not set", where="data.path", do="Name the file to look at, as in data.path=ratings.csv.")
    text = text_format(config.separator, config.column_names, config.encoding, config.comment)
    check_text_format(text, "data")
    source = named_sources(config.path, config.member)[0]
    limits = SizeLimits(max_bytes=int(config.max_unpacked_gib * 2**30))
    head = read_head(source, text, limits, lambda names: _worth_reading(config, names))
    place = [f"data.path={override_value(config.path)}"]
    place += [f"data.member={override_value(source.member)}"] if source.member else []
    # What readers say of a sample in a temporary folder is of no use.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        sample = source
        if head.lines:
            sample = Source(Path(folder, source.name))
            sample.path.write_bytes(head.lines)
        guess = _preset(head, source, sample, place)
        if guess is None:
            guess = _columns(config, head, source)
            guess.overrides[1:1] = place
            try:
                guess.table = _read(guess.overrides, sample, limits)
            except UserError as error:
                where = error.where.replace(str(sample.path), str(source.path))
                raise UserError(error.what, where=where, do=error.do) from None
    return guess


# Presets


def _preset(head: Head, source: Source, sample: Source, place: list[str]) -> Guess | None:
    """Returns the preset whose files are called so and whose reader reads the head; None if none or several are."""
    fitting: dict[str, Guess] = {}
    for path in sorted(Path(CONFIGURATION, "data").glob("*.yaml")):
        entries = [] if path.stem in NOT_LISTED else OmegaConf.select(OmegaConf.load(path), "files") or []
        named = [entry for entry in entries if fnmatch.fnmatchcase(source.name, Path(entry).name)]
        if not named:
            continue
        found = Guess([f"data={path.stem}", *place], [f"It has the name and the layout of {path.stem}."])
        try:
            found.table = _read(found.overrides, sample, SizeLimits())
        except UserError:
            continue
        whole = source.path.absolute()
        for entry in named:
            if fnmatch.fnmatchcase(_tail(whole, entry), entry):
                root = whole.parents[entry.count("/")]
                return replace(found, overrides=[f"data={path.stem}", f"data.root={override_value(str(root))}"])
        fitting[path.stem] = found
    return next(iter(fitting.values())) if len(fitting) == 1 else None


def _tail(path: Path, entry: str) -> str:
    """Returns as many of a path's last parts as an entry of `data.files` has, without the ending of a gzip."""
    return "/".join(path.parts[-entry.count("/") - 1 :]).removesuffix(".gz")


# Any table


def _columns(config: AutoConfig, head: Head, source: Source) -> Guess:
    """Returns the settings of a table by the names of its columns and what is in them."""
    roles = _roles(config, head.names)
    if not head.has_names and not config.column_names:
        head = head.renamed(_names_by_order(head, source))
        roles = {name: name for name in head.names}
    if "user" not in roles and "session" in roles:
        roles["user"] = roles["session"]
    # What the values tell.
    packed = packed_items(head, [name for role, name in roles.items() if role != "item"])
    if packed is not None and config.item_column in (None, packed.column):
        roles["item"] = packed.column
    answers = answers_in(head, roles["feedback"]) if "feedback" in roles else None
    if answers is None and packed is None and config.feedback_column is None:
        found = column_of_events(head, [name for role, name in roles.items() if role != "feedback"])
        if found is not None:
            roles["feedback"], answers = found, answers_in(head, found)
    guessed = []
    if answers is None and packed is None and "rating" not in roles:
        guessed = columns_of_ratings(head, list(roles.values()))
        if len(guessed) == 1:
            roles["rating"] = guessed[0]
    missing = [role for role in ("user", "item") if role not in roles]
    if missing:
        raise UserError(
            f"none of its columns is known to hold {' or '.join(f'{role}s' for role in missing)}: "
            f"{', '.join(map(repr, head.names[:20]))}",
            where=str(source),
            do=f"Name it, as in data.{missing[0]}_column={override_value(head.names[0])}.",
        )
    nobody = _nobody(head, roles)
    head = replace(head, rows=head.rows.known([roles[role] for role in nobody], _texts_of(nobody)))
    is_log = "time" in roles and (answers is not None or packed is not None or "rating" not in roles)
    guess = _log(head, roles, answers, packed) if is_log else _ratings(head, roles, answers)
    _leave_out(guess, nobody)
    if len(guessed) == 1:
        guess.notes.append(f"{guessed[0]!r} holds few numbers: check that they are ratings.")
    elif guessed:
        said = " or ".join(map(repr, guessed))
        guess.notes.append(f"{said} may be ratings: name the column, as in data.rating_column={guessed[0]}.")
    guess.overrides += _text_overrides(head, config)
    guess.notes.insert(0, _written(head))
    return guess


def _nobody(head: Head, roles: dict[str, str]) -> dict[str, dict[str, int]]:
    """Returns of each role the values that mean that it is not known, and how often they occur."""
    wanted = [role for role in ("user", "item", "rating", "time") if role in roles]
    found: dict[str, dict[str, int]] = {role: placeholders_in(head, roles[role]) for role in wanted}
    for role in found.keys() - {"user", "item"}:
        found[role].pop("-1", None)  # a number like others
    return found


def _texts_of(nobody: dict[str, dict[str, int]]) -> list[str]:
    return list(dict.fromkeys(name for counts in nobody.values() for name in counts))


def _leave_out(guess: Guess, nobody: dict[str, dict[str, int]]) -> None:
    """Adds the setting that leaves out rows with a value that means that there is none."""
    if not (names := _texts_of(nobody)):
        return
    guess.overrides.append(f"data.missing_values={override_value(names)}")
    said = ", ".join(f"{role} {name!r} ({n:,} rows)" for role, counts in nobody.items() for name, n in counts.items())
    guess.notes.append(f"Check these, which seem to mean that it is not known; their rows are left out: {said}.")


def _worth_reading(config: AutoConfig, names: list[str]) -> list[str]:
    """Returns the columns of known roles and, if none of these is known to hold answers, some others."""
    roles = _roles(config, names)
    return list(dict.fromkeys([*roles.values(), *([] if "feedback" in roles else names[:_MOST_OTHERS])]))


def _roles(config: AutoConfig, names_of_file: Sequence[str]) -> dict[str, str]:
    """Returns the column of each role: as configured, else by its name."""
    columns = {plain(name): name for name in reversed(names_of_file)}
    roles: dict[str, str] = {}
    for role, names in ROLES.items():
        usual = [columns[name] for name in names if name in columns]
        known = getattr(config, f"{role}_column") or (usual[0] if usual else None)
        if known is not None and known not in roles.values():
            roles[role] = known
    return roles


def _names_by_order(head: Head, source: Source) -> list[str]:
    """Returns names for a table without names that is laid out as most are: user, item, rating and maybe time.

    Raises:
        UserError: It is not.
    """
    values = [[str(text) for text in head.rows.frame[name]] for name in head.names]
    scale = set(values[2]) if len(values) in (3, 4) else set()
    numeric = all(is_number(text) for text in scale) and 1 < len(scale) <= _MOST_SCALE
    timed = len(values) == 3 or all(is_number(text) and float(text) > 10**8 for text in values[-1])
    if not numeric or not timed:
        raise UserError(
            f"its first line holds no names of columns: {shorten(' '.join(str(column[0]) for column in values))}",
            where=str(source),
            do="Say what the columns are, as in 'data.column_names=[user,item,rating,time]'.",
        )
    return ["user", "item", "rating", "time"][: len(values)]


def _log(head: Head, roles: dict[str, str], answers: dict[str, str] | None, packed: Packed | None) -> Guess:
    """Returns the settings of a log of events."""
    time_format = head.rows.time_format(roles["time"])
    keys = {name: roles[name] for name in ("user", "item", "time")}
    overrides = ["data=events_csv", *(f"data.{key}_column={override_value(name)}" for key, name in keys.items())]
    overrides.append(f"data.time_format={time_format}")
    notes = ["It seems to be a log of events."]
    if packed is not None:
        overrides += ["data.feedback_column=null", f"data.item_separator={override_value(packed.item_separator)}"]
        overrides.append(f"data.answer_separator={override_value(packed.answer_separator)}")
        notes.append(f"{packed.column!r} packs several items with their answers: 0 counts as a skip, 1 as a click.")
    elif answers is None:
        overrides += ["data.feedback_column=null"]
        notes.append("No column names events: every row counts as a click.")
    else:
        overrides.append(f"data.feedback_column={override_value(roles['feedback'])}")
        overrides.append(f"data.events={override_value([f'{name}={answer}' for name, answer in answers.items()])}")
        if strange := [name for name in answers if plain(name) not in ANSWERS]:
            notes.append(f"Check what these mean; they are ignored: {', '.join(strange)}.")
    if "session" in roles:
        overrides.append(f"data.session_column={override_value(roles['session'])}")
    if roles["user"] == roles.get("session"):
        notes.append("It names no users: every session counts as one.")
    return Guess(overrides, notes)


def _ratings(head: Head, roles: dict[str, str], answers: dict[str, str] | None) -> Guess:
    """Returns the settings of a table of ratings, or of interactions if it has none."""
    overrides = ["data=ratings_file", *(f"data.{key}_column={override_value(roles[key])}" for key in ("user", "item"))]
    notes = ["It seems to be a table of ratings."]
    # What a row counts.
    if "rating" in roles:
        overrides.append(f"data.rating_column={override_value(roles['rating'])}")
        ratings = head.rows.numbers(roles["rating"]).to_numpy()
        missing, above, remark = thresholds(ratings)
        overrides += [f"data.missing_ratings=[{missing:g}]"] if missing is not None else []
        overrides.append(f"data.relevant_above={above:g}")
        notes.append(remark)
    elif answers is not None:
        counts = {name: {"click": 1, "order": 2}.get(answer, 0) for name, answer in answers.items()}
        overrides.append(f"data.rating_column={override_value(roles['feedback'])}")
        overrides.append(f"data.rating_of_event={override_value([f'{name}={n}' for name, n in counts.items()])}")
        overrides += ["data.relevant_above=0", "data.duplicates=max"]
        notes = ["It seems to be a log of events without times: a click counts 1, an order 2, anything else 0."]
    else:
        overrides.append("data.rating_column=null")
        notes = ["It seems to be a table of interactions without ratings: every row counts as 1."]
    # When it was, and which of several counts.
    if "time" in roles:
        overrides.append(f"data.timestamp_column={override_value(roles['time'])}")
        overrides.append(f"data.time_format={head.rows.time_format(roles['time'])}")
    pairs = head.rows.frame.select(list(dict.fromkeys((roles["user"], roles["item"]))))
    if pairs.n_unique() < pairs.height and "rating" in roles:
        overrides.append("data.duplicates=last")
        notes.append("Some users rate an item more than once: the last rating counts.")
    return Guess(overrides, notes)


# How it is written


def _text_overrides(head: Head, config: AutoConfig) -> list[str]:
    """Returns the settings that say how a text file is written, as far as readers would not tell themselves."""
    if not head.text.separator:
        return []
    named = {"\t": "tab", "\x01": r"\x01"}.get(head.text.separator or "", head.text.separator)
    settings: dict[str, Any] = {"separator": named, "encoding": head.text.encoding, "comment": config.comment}
    if not head.has_names:
        settings["column_names"] = head.names
    return [f"data.{key}={override_value(value)}" for key, value in settings.items() if value is not None]


def _written(head: Head) -> str:
    kind = f"Text, separated by {head.text.separator!r}" if head.text.separator else "JSON or Parquet"
    encoding = f", in {head.text.encoding}" if head.text.encoding else ""
    names = "" if head.has_names else ", without a line of names"
    return f"{kind}{encoding}{names}: {len(head.names)} columns; looked at the first {head.rows.frame.height:,} rows."


def _for_shell(override: str) -> str:
    return override if re.fullmatch(r"[A-Za-z0-9_./=+:-]+", override) else "'" + override.replace("'", "'\\''") + "'"


# As training reads it


def _read(overrides: Sequence[str], sample: Source, limits: SizeLimits) -> list[tuple[str, ...]]:
    """Returns the first rows as the reader of these settings reads them, below the names of the columns.

    Raises:
        UserError: It refuses the sample.
    """
    here = [
        override for override in overrides if not override.startswith(("data.path=", "data.encoding=", "data.member="))
    ]
    values = composed_values("data_statistics", [*here, f"data.path={override_value(str(sample.path))}"])["data"]
    if values["kind"] == LogConfig.kind:
        log = read_settings(LogConfig, values, "data")
        events = read_events(log.reader, [sample], log.event_layout(), limits, log.order_proxy)
        rows = [
            (events.user_ids[user], events.item_ids[item], FEEDBACK_NAMES[answer], _moment(time))
            for user, item, answer, time in zip(
                *(column[:_SHOWN] for column in (events.users, events.items, events.feedback, events.times)),
                strict=True,
            )
        ]
        return [("user", "item", "answer", "time (UTC)"), *(tuple(map(str, row)) for row in rows)]
    config = read_settings(DataConfig, values, "data")
    layout = config.table_layout() if config.reader == "table" else None
    columns = read_ratings(config.reader, [sample], layout=layout, limits=limits)
    users, items, ratings = (column[:_SHOWN] for column in (columns.users, columns.items, columns.ratings))
    times = [""] * len(users) if columns.timestamps is None else map(_moment, columns.timestamps[:_SHOWN])
    rated = zip(users, items, (f"{rating:g}" for rating in ratings), times, strict=True)
    return [("user", "item", "rating", "time (UTC)"), *(tuple(map(str, row)) for row in rated)]


def _moment(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
