"""Prints the statistics of a data set (the papers' Table 1), or which there are, or how a file would be read.

`python -m sim.data data=movielens_1m`, `python -m sim.data list`, `python -m sim.data data=auto data.path=FILE`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.commands.command import hydra_command, run_command
from harness.settings import read_settings
from sim.datasets.events import load_log, log_statistics
from sim.datasets.items import ItemsConfig, load_items
from sim.datasets.log_settings import LogConfig
from sim.datasets.presets import describe_presets, presets
from sim.datasets.rating_settings import DataConfig
from sim.datasets.ratings import AnyDataConfig, load_dataset, statistics
from sim.files.cache import notice
from sim.tables.items import ItemTable
from sim.tables.plausibility import log_warnings, rating_warnings
from sim.tables.summary import aligned, log_summary, rating_summary, summary_rows, time_span

AUTO, LIST = "auto", "list"


@dataclass(frozen=True)
class StatisticsConfig:
    """What to print of ratings (`conf/data_statistics.yaml`)."""

    data: AnyDataConfig
    json: bool
    items: ItemsConfig


def main() -> None:
    """Prints what presets there are (`list`), or what is known of the configured data."""
    if sys.argv[1:2] == [LIST]:
        found = presets()
        print(json.dumps(found, indent=2) if "json=true" in sys.argv[2:] else describe_presets(found))
    else:
        _show()


@hydra_command("data_statistics")
def _show(config: Any) -> None:
    """Prints the statistics of the configured data set, as text or (json=true) as JSON; of data=auto, its settings."""
    if config.data.get("kind") == AUTO:
        from sim.datasets.auto import AutoConfig, look_at  # it composes configurations, which takes long to import

        print(look_at(read_settings(AutoConfig, config.data, "data")).describe())
        return
    settings: LogConfig | DataConfig
    if config.data.get("kind") == LogConfig.kind:
        settings = read_settings(LogConfig, config.data, "data")
        log = load_log(settings)
        result = {**log_statistics(log), "summary": log_summary(log)}
        text, warnings = describe_log(result), log_warnings(log)
        ids, counts, synthetic = log.item_ids, np.bincount(log.item, minlength=log.num_items), log.synthetic
    else:
        settings = read_settings(StatisticsConfig, config).data
        data = load_dataset(settings)
        result = {**statistics(data), "summary": rating_summary(data, settings.hits_above)}
        text, warnings = describe_ratings(result), rating_warnings(data, settings.hits_above)
        ids, counts, synthetic = data.item_ids, np.bincount(data.items, minlength=data.num_items), data.synthetic
    items = load_items(read_settings(ItemsConfig, config["items"], "items"), settings, ids, synthetic)
    if items is not None:
        result["item_table"] = {"source": items.source, **items.counts()}
        text += "\n" + describe_items(items, counts)
    for warning in warnings:
        notice(f"warning: {warning}")
    print(json.dumps(result, indent=2) if config.json else text)


def describe_ratings(result: dict[str, Any]) -> str:
    """Formats the result of `sim.datasets.ratings.statistics` as aligned lines."""
    rows = [
        ("data set", result["name"] + (" (SYNTHETIC, not real data)" if result["synthetic"] else "")),
        *summary_rows(result["summary"]),
        ("density", f"{result['density']:.4%}"),
        ("ratings per user", _spread(result["ratings_per_user"])),
        ("ratings per item", _spread(result["ratings_per_item"])),
        ("mean rating", f"{result['rating_mean']:.4f}"),
        *_distribution(result),
        ("source", result["source"]),
        ("checksum", result["checksum"]),
    ]
    return aligned(rows)


def describe_log(result: dict[str, Any]) -> str:
    """Formats the result of `sim.datasets.events.log_statistics` as aligned lines, training next to test."""
    parts = list(result["parts"].values())
    warning = " (SYNTHETIC, not real data)" if result["synthetic"] else ""
    if result["synthetic_skips"]:
        warning += " (its SKIPS are SAMPLED, not recorded: click and order rates are settings, not facts)"
    if result["order_proxy"]:
        warning += f" (its ORDERS are a PROXY: {result['order_proxy']})"
    if result["feedback_proxy"]:
        warning += f" (its answers are RATINGS: {result['feedback_proxy']})"
    counts = ("samples", "items", "users", "sessions", "clicks", "orders")
    rows = [
        ("data set", result["name"] + warning),
        *summary_rows(result["summary"]),
        ("", _side_by_side(list(result["parts"]))),
        *((f"  {name}", _side_by_side([f"{part[name]:,}" for part in parts])) for name in counts),
        ("  click rate", _side_by_side([f"{part['click_rate']:.3%}" for part in parts])),
        ("  order rate", _side_by_side([f"{part['order_rate']:.3%}" for part in parts])),
        ("  events per session", _side_by_side([_spread(part["events_per_session"]) for part in parts])),
        ("  time span", _side_by_side([time_span(part["timestamps"]) for part in parts])),
        ("source", result["source"]),
        ("checksum", result["checksum"]),
    ]
    return aligned(rows)


def describe_items(table: ItemTable, counts: np.ndarray, most: int = 5) -> str:
    """Formats an item table as aligned lines: what of it was used, and the items with most rows (`counts`, [I])."""
    top = np.argsort(-counts, kind="stable")[:most]
    rows = [("item table", table.describe())]
    for item in top:
        known = filter(None, (table.titles[item], ", ".join(table.categories_of(item)), f"{counts[item]:,} rows"))
        rows.append((f"  item {table.item_ids[item]}", "; ".join(known)))
    return aligned(rows)


def _side_by_side(values: list[str]) -> str:
    return "".join(f"{value:<40}" for value in values)


def _spread(spread: dict[str, float]) -> str:
    return f"mean {spread['mean']:,.1f}, median {spread['median']:,g}, {spread['min']:,} to {spread['max']:,}"


def _distribution(result: dict[str, Any], most: int = 20) -> list[tuple[str, str]]:
    counts = list(result["rating_distribution"].items())
    rows = [(f"  rated {value}", f"{count:,} ({count / result['ratings']:.1%})") for value, count in counts[:most]]
    return rows if len(counts) <= most else [*rows, ("  ...", f"{len(counts) - most:,} more values")]


if __name__ == "__main__":
    run_command(main)
