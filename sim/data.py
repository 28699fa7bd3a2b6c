"""Prints the statistics of a data set (the paper's Table 1): `python -m sim.data data=movielens_1m`."""

from __future__ import annotations

import datetime
import json
from typing import Any

import hydra

from sim.command import run_command, task
from sim.datasets import DataConfig, load_dataset, statistics
from sim.settings import read_settings


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="data_statistics")
@task
def main(config: Any) -> None:
    """Loads the configured data set and prints its statistics, for people or (json=true) for programs."""
    found = statistics(load_dataset(read_settings(DataConfig, config.data, "data")))
    print(json.dumps(found, indent=2) if config.json else describe(found))


def describe(found: dict[str, Any]) -> str:
    """Returns what `sim.datasets.statistics` found as aligned lines."""
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
    return "\n".join(f"{label:<18}{value}" for label, value in rows)


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
