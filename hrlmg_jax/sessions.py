"""What commands and files say about a run's log, and which runs' logs were built otherwise."""

from __future__ import annotations

import sys
from typing import Any

from harness.errors import UserError
from harness.reports.tables import kind_of
from harness.runs.run_folder import RunFolder, read_json
from sim.datasets.sessions import SessionData
from sim.tables.events import EventLog
from sim.tables.plausibility import log_warnings
from sim.tables.summary import aligned, log_summary, summary_rows


def say_what_was_understood(data: SessionData) -> None:
    """Prints what was read, and what about it is unlikely, on stderr: before anything long begins."""
    log = data.log
    name = f"{log.name}{kind_of(describe_log(data))}"
    print(aligned([("data set", name), *summary_rows(log_summary(log))]), file=sys.stderr)
    for warning in log_warnings(log):
        print(f"warning: {warning}", file=sys.stderr)


BUILT_OTHERWISE = (
    "its log was built otherwise (sampled skips and histories knew the future), so only commit 5e63f8e can evaluate it"
)
"""Of runs that did not record the hash of their table."""


def refuse_old_log(folder: RunFolder) -> None:
    """Refuses a run whose log was built before the hash of the table was recorded.

    Raises:
        UserError: It is one.
    """
    record = read_json(folder.provenance) if folder.provenance.exists() else {}
    data = record.get("data") if isinstance(record, dict) else None
    if isinstance(data, dict) and data and "table" not in data:
        raise UserError(BUILT_OTHERWISE, where=str(folder.path), do="Use that commit, or train again.")


def describe_log(data: SessionData) -> dict[str, Any]:
    """Returns the log's name, checksum, hash and sizes, whether it or its skips are synthetic, and what orders are."""
    log = data.log
    return {
        "name": log.name,
        "synthetic": log.synthetic,
        "synthetic_skips": log.synthetic_skips,
        "order_proxy": log.order_proxy,
        "feedback_proxy": log.feedback_proxy,
        "checksum": log.checksum,
        "table": log.table_hash,
        "users": log.num_users,
        "items": log.num_items,
        "catalogue": data.num_items,
        "events": log.num_events,
        "sessions": log.num_sessions,
        "test_sessions": int(log.is_test.sum()),
    }


def row_labels(log: EventLog) -> dict[str, Any]:
    """Returns what every row of metrics.jsonl says about the log."""
    return {
        "data": log.name,
        "synthetic": log.synthetic,
        "synthetic_skips": log.synthetic_skips,
        "order_proxy": log.order_proxy,
        "feedback_proxy": log.feedback_proxy,
    }
