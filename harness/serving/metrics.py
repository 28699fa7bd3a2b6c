"""Counters of a server in Prometheus' text format."""

from __future__ import annotations

import bisect
from collections import defaultdict
from typing import Any

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts of values by upper bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begins without values."""
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Counts a value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        """Returns the histogram as Prometheus reads it: counts up to each bound."""
        lines, below = [], 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            below += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {below}')
        return [*lines, f"{name}_sum {self.total:.6f}", f"{name}_count {below}"]


class Metrics:
    """What a server has done since it started."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self.requests: dict[tuple[str, int], int] = defaultdict(int)
        self.seconds, self.batches = Histogram(_SECONDS), Histogram(_SIZES)
        self.logged: dict[str, int] = defaultdict(int)
        self.reloads = self.log_errors = self.log_removed = 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request to one of the server's own paths."""
        self.requests[path, status] += 1
        self.seconds.add(seconds)

    def text(self, waiting: int, models: dict[str, str]) -> str:
        """Returns all of it, with the questions that wait and the models by policy."""
        lines: list[Any] = ["# TYPE serving_requests_total counter"]
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'serving_requests_total{{path="{path}",status="{status}"}} {count}')
        lines += ["# TYPE serving_request_seconds histogram", *self.seconds.lines("serving_request_seconds")]
        lines += ["# TYPE serving_batch_size histogram", *self.batches.lines("serving_batch_size")]
        lines.append("# TYPE serving_logged_total counter")
        lines += [f'serving_logged_total{{kind="{kind}"}} {count}' for kind, count in sorted(self.logged.items())]
        lines += ["# TYPE serving_log_errors_total counter", f"serving_log_errors_total {self.log_errors}"]
        lines += [
            "# TYPE serving_log_files_removed_total counter",
            f"serving_log_files_removed_total {self.log_removed}",
        ]
        lines += ["# TYPE serving_reloads_total counter", f"serving_reloads_total {self.reloads}"]
        lines += ["# TYPE serving_waiting_questions gauge", f"serving_waiting_questions {waiting}"]
        lines.append("# TYPE serving_model_info gauge")
        lines += [f'serving_model_info{{policy="{name}",model="{model}"}} 1' for name, model in models.items()]
        return "\n".join(lines) + "\n"
