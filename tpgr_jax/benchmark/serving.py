"""A server under load: how fast it answers, what it refuses, whether it grows, and what comes of kills."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.reports.benchmark import Line
from harness.serving.exported import ExportedModel
from harness.serving.load_test import broken_requests, post, put_under_load, refusals, request
from harness.serving.server_process import ServerProcess, serving
from sim.recommend.export import write_export
from sim.recommend.recommender import Recommender

CONNECTIONS = 32
_QUESTIONS = 500
_K = 10


def measure_serving(recommender: Recommender, smoke: bool) -> list[Line]:
    """Returns requests per second, latencies, refusals, memory and answers after kills."""
    seconds, broken, many, kills = (1.0, 30, 200, 0) if smoke else (60.0, 2_000, 100_000, 20)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "export"
        write_export(recommender, str(folder), _K, True)
        model = ExportedModel(folder)
        questions = _questions(model)
        with serving(folder, f"log={place}/served") as server:
            asyncio.run(put_under_load(server.port, questions, min(seconds, 5.0), CONNECTIONS))  # warm
            lines = _load_lines(server, questions, seconds)
            lines += _refusal_lines(server, broken)
            lines += _memory_lines(server, questions, many)
        lines += _kill_lines(folder, questions, kills) if kills else []
    return lines


def _questions(model: ExportedModel) -> list[bytes]:
    """Returns requests: known users by id, and new ones with up to 30 answers, half each."""
    generator = random.Random(0)
    users, items = model.user_ids.tolist(), model.item_ids.tolist()
    answers = model.facts["answers"]["values"]
    questions = []
    for number in range(_QUESTIONS):
        pairs = [(item, generator.choice(answers)) for item in generator.sample(items, min(30, len(items) // 2))]
        one: dict[str, Any] = {"user": generator.choice(users)}
        if number % 2:
            one = {"history": pairs[: generator.randint(0, len(pairs))]}
        questions.append(post("/recommend", one | {"k": min(_K, model.k)}))
    return questions


def _load_lines(server: ServerProcess, questions: Sequence[bytes], seconds: float) -> list[Line]:
    load = asyncio.run(put_under_load(server.port, questions, seconds, CONNECTIONS))
    note = (
        f"{load.seconds:.0f} s, {CONNECTIONS} connections, {len(load.latencies):,} requests; client on the same cores"
    )
    return [
        Line("requests per second", load.per_second, "1/s", 500, at_most=False, note=note),
        Line("latency, p50", 1e3 * load.quantile(0.5), "ms"),
        Line("latency, p99", 1e3 * load.quantile(0.99), "ms", 100),
        Line("requests without a list", load.errors, "", 0),
    ]


def _refusal_lines(server: ServerProcess, number: int) -> list[Line]:
    statuses = asyncio.run(refusals(server.port, broken_requests({"history": [], "k": 5}, number)))
    others = sum(count for status, count in statuses.items() if not 400 <= status < 500)
    counts = ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))
    alive = server.process.poll() is None
    return [Line(f"of {number:,} broken requests not refused by 4xx", others if alive else number, "", 0, note=counts)]


def _memory_lines(server: ServerProcess, questions: Sequence[bytes], number: int) -> list[Line]:
    before = server.resident_mib()
    load = asyncio.run(put_under_load(server.port, questions, 1_200, CONNECTIONS, number))
    grown = server.resident_mib() - before
    note = f"{before:.0f} MiB before; {len(load.latencies):,} requests"
    return [Line(f"resident memory grown over {number:,} requests", grown, "MiB", 20, note=note)]


def _kill_lines(folder: Path, questions: Sequence[bytes], number: int) -> list[Line]:
    """Kills servers under load and asks the next one: its answers must be the first one's."""
    asked, wrong, want = questions[:8], 0, None
    for kill in range(number + 1):
        server = ServerProcess(folder)
        found = [asyncio.run(_items(server.port, question)) for question in asked]
        want = found if want is None else want
        wrong += sum(one != other for one, other in zip(found, want, strict=True))
        if kill < number:
            asyncio.run(_killed_under_load(server, questions))
        else:
            server.end(signal.SIGTERM)
    return [
        Line(f"wrong answers after {number} kills and restarts", wrong, "", 0, note=f"{len(asked)} questions each time")
    ]


async def _killed_under_load(server: ServerProcess, questions: Sequence[bytes]) -> None:
    load = asyncio.gather(put_under_load(server.port, questions, 0.5, 4), return_exceptions=True)
    await asyncio.sleep(0.2)
    server.end(signal.SIGKILL)
    await load


async def _items(port: int, question: bytes) -> list[Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, body = await request(reader, writer, question)
    writer.close()
    return [(item["item"], round(item["score"], 4)) for item in json.loads(body)["items"]]
