"""Prints the statistics of a data set (the papers' Table 1): `python -m sim.data data=movielens_1m`."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any

from harness.command import hydra_command, run_command
from harness.settings import read_settings
from sim.datasets.events import LogConfig, load_log, log_statistics
from sim.datasets.ratings import AnyDataConfig, load_dataset, statistics
from sim.files.cache import notice
from sim.tables.plausibility import log_warnings, rating_warnings


@dataclass(frozen=True)
class StatisticsConfig:
    """What to print of ratings (`conf/data_statistics.yaml`)."""

    data: AnyDataConfig
    json: bool


@hydra_command("data_statistics")
def main(config: Any) -> None:
    """Loads the configured data set and prints its statistics as text or (json=true) as JSON."""
    if config.data.get("kind") == LogConfig.kind:
        log = load_log(read_settings(LogConfig, config.data, "data"))
        result = log_statistics(log)
        text, warnings = describe_log(result), log_warnings(log)
    else:
        settings = read_settings(StatisticsConfig, config).data
        data = load_dataset(settings)
        result = statistics(data)
        text, warnings = describe_ratings(result), rating_warnings(data, settings.relevant_above)
    for warning in warnings:
        notice(f"warning: {warning}")
    print(json.dumps(result, indent=2) if config.json else text)


def describe_ratings(result: dict[str, Any]) -> str:
    """Formats the result of `sim.datasets.ratings.statistics` as aligned lines."""
    rows = [
        ("data set", result["name"] + (" (SYNTHETIC, not real data)" if result["synthetic"] else "")),
        ("users", f"{result['users']:,}"),
        ("items", f"{result['items']:,}"),
        ("ratings", f"{result['ratings']:,}"),
        ("density", f"{result['density']:.4%}"),
        ("ratings per user", _spread(result["ratings_per_user"])),
        ("ratings per item", _spread(result["ratings_per_item"])),
        ("rating scale", "{:g} to {:g}".format(*result["rating_scale"])),
        ("mean rating", f"{result['rating_mean']:.4f}"),
        *_distribution(result),
        ("time span", _time_span(result["timestamps"])),
        ("source", result["source"]),
        ("checksum", result["checksum"]),
    ]
    return _aligned(rows)


def describe_log(result: dict[str, Any]) -> str:
    """Formats the result of `sim.datasets.events.log_statistics` as aligned lines, training next to test."""
    parts = list(result["parts"].values())
    warning = " (SYNTHETIC, not real data)" if result["synthetic"] else ""
    if result["synthetic_skips"]:
        warning += " (its SKIPS are SAMPLED, not recorded: click and order rates are settings, not facts)"
    if result["order_proxy"]:
        warning += f" (its ORDERS are a PROXY: {result['order_proxy']})"
    counts = ("samples", "items", "users", "sessions", "clicks", "orders")
    rows = [
        ("data set", result["name"] + warning),
        ("users", f"{result['users']:,}"),
        ("items", f"{result['items']:,}"),
        ("", _side_by_side(list(result["parts"]))),
        *((f"  {name}", _side_by_side([f"{part[name]:,}" for part in parts])) for name in counts),
        ("  click rate", _side_by_side([f"{part['click_rate']:.3%}" for part in parts])),
        ("  order rate", _side_by_side([f"{part['order_rate']:.3%}" for part in parts])),
        ("  events per session", _side_by_side([_spread(part["events_per_session"]) for part in parts])),
        ("  time span", _side_by_side([_time_span(part["timestamps"]) for part in parts])),
        ("source", result["source"]),
        ("checksum", result["checksum"]),
    ]
    return _aligned(rows)


def _aligned(rows: list[tuple[str, str]]) -> str:
    width = max(18, 2 + max(len(label) for label, _ in rows))
    return "\n".join(f"{label:<{width}}{value}".rstrip() for label, value in rows)


def _side_by_side(values: list[str]) -> str:
    return "".join(f"{value:<40}" for value in values)


def _spread(spread: dict[str, float]) -> str:
    return f"mean {spread['mean']:,.1f}, median {spread['median']:,g}, {spread['min']:,} to {spread['max']:,}"


def _distribution(result: dict[str, Any], most: int = 20) -> list[tuple[str, str]]:
    counts = list(result["rating_distribution"].items())
    rows = [(f"  rated {value}", f"{count:,} ({count / result['ratings']:.1%})") for value, count in counts[:most]]
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
