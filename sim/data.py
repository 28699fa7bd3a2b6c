"""Prints the statistics of a data set (the papers' Table 1): `python -m sim.data data=movielens_1m`."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any

import hydra

from harness.command import CONFIGURATION, run_command, task
from harness.settings import read_settings
from sim.datasets.events import LogConfig, load_log, log_statistics, test_sessions
from sim.datasets.ratings import AnyDataConfig, load_dataset, statistics


@dataclass(frozen=True)
class StatisticsConfig:
    """What to print of ratings (`conf/data_statistics.yaml`)."""

    data: AnyDataConfig
    json: bool


@hydra.main(version_base="1.3", config_path=CONFIGURATION, config_name="data_statistics")
@task
def main(config: Any) -> None:
    """Loads the configured data set and prints its statistics, for people or (json=true) for programs."""
    if config.data.get("kind") == LogConfig.kind:
        log_config = read_settings(LogConfig, config.data, "data")
        log = load_log(log_config)
        found = log_statistics(log, test_sessions(log, log_config))
        text = describe_log(found)
    else:
        found = statistics(load_dataset(read_settings(StatisticsConfig, config).data))
        text = describe_ratings(found)
    print(json.dumps(found, indent=2) if config.json else text)


def describe_ratings(found: dict[str, Any]) -> str:
    """Returns what `sim.datasets.ratings.statistics` found as aligned lines."""
    rows = [
        ("data set", found["name"] + (" (GENERATED, not real data)" if found["synthetic"] else "")),
        ("users", f"{found['users']:,}"),
        ("items", f"{found['items']:,}"),
        ("ratings", f"{found['ratings']:,}"),
        ("density", f"{found['density']:.4%}"),
        ("ratings per user", _spread(found["ratings_per_user"])),
        ("ratings per item", _spread(found["ratings_per_item"])),
        ("rating scale", "{:g} to {:g}".format(*found["rating_scale"])),
        ("mean rating", f"{found['rating_mean']:.4f}"),
        *_distribution(found),
        ("time span", _time_span(found["timestamps"])),
        ("source", found["source"]),
        ("checksum", found["checksum"]),
    ]
    return _aligned(rows)


def describe_log(found: dict[str, Any]) -> str:
    """Returns what `sim.datasets.events.log_statistics` found as aligned lines, training beside test."""
    parts = list(found["parts"].values())
    warning = " (GENERATED, not real data)" if found["synthetic"] else ""
    if found["synthetic_skips"]:
        warning += " (its SKIPS are SAMPLED, not recorded: click and order rates are settings, not facts)"
    if found["order_proxy"]:
        warning += f" (its ORDERS are a PROXY: {found['order_proxy']})"
    counts = ("samples", "items", "users", "sessions", "clicks", "orders")
    rows = [
        ("data set", found["name"] + warning),
        ("users", f"{found['users']:,}"),
        ("items", f"{found['items']:,}"),
        ("", _side_by_side(list(found["parts"]))),
        *((f"  {name}", _side_by_side([f"{part[name]:,}" for part in parts])) for name in counts),
        ("  click rate", _side_by_side([f"{part['click_rate']:.3%}" for part in parts])),
        ("  order rate", _side_by_side([f"{part['order_rate']:.3%}" for part in parts])),
        ("  events per session", _side_by_side([_spread(part["events_per_session"]) for part in parts])),
        ("  time span", _side_by_side([_time_span(part["timestamps"]) for part in parts])),
        ("source", found["source"]),
        ("checksum", found["checksum"]),
    ]
    return _aligned(rows)


def _aligned(rows: list[tuple[str, str]]) -> str:
    width = max(18, 2 + max(len(label) for label, _ in rows))
    return "\n".join(f"{label:<{width}}{value}".rstrip() for label, value in rows)


def _side_by_side(values: list[str]) -> str:
    return "".join(f"{value:<40}" for value in values)


def _spread(spread: dict[str, float]) -> str:
    return f"mean {spread['mean']:,.1f}, median {spread['median']:,g}, {spread['min']:,} to {spread['max']:,}"


def _distribution(found: dict[str, Any], most: int = 20) -> list[tuple[str, str]]:
    counts = list(found["rating_distribution"].items())
    rows = [(f"  rated {value}", f"{count:,} ({count / found['ratings']:.1%})") for value, count in counts[:most]]
    return rows if len(counts) <= most else [*rows, ("  ...", f"{len(counts) - most:,} more values")]


def _time_span(seconds: list[int] | None) -> str:
    if seconds is None:
        return "no timestamps"
    try:
        first, last = (datetime.datetime.fromtimestamp(second, datetime.UTC).date() for second in seconds)
    except (OverflowError, ValueError, OSError):  # milliseconds or another epoch
        return "{:,} to {:,} (not seconds since 1970)".format(*seconds)
    return f"{first} to {last}"


if __name__ == "__main__":
    run_command(main)
