"""Puts a server under load: connections that ask again as soon as they are answered, and broken requests."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Load:
    """What came of a load test.

    Attributes:
        seconds: How long it took.
        latencies: Seconds of each answered request.
        statuses: Answers by status; 0 counts connections that broke.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    @property
    def errors(self) -> int:
        """Requests that were not answered with a list."""
        return sum(count for status, count in self.statuses.items() if status != 200)

    def quantile(self, share: float) -> float:
        """Returns the seconds within which a share of the requests was answered."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes, seconds: float = 30.0
) -> tuple[int, bytes]:
    """Sends a request as it is and returns status and body of the answer, which must have a Content-Length."""
    async with asyncio.timeout(seconds):
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        return int(head[9:12]), await reader.readexactly(length)


def post(path: str, body: Any, host: str = "localhost") -> bytes:
    """Returns a request with a JSON body (or with bytes as they are)."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def put_under_load(
    port: int, requests: Sequence[bytes], seconds: float, connections: int = 32, most: int | None = None
) -> Load:
    """Asks as often as the server answers.

    Args:
        port: Of the server on this machine.
        requests: Which are sent in turn.
        seconds: How long.
        connections: At the same time.
        most: Requests after which it ends earlier; None: no limit.
    """
    load, started, sent = Load(), time.perf_counter(), 0

    async def ask() -> None:
        nonlocal sent
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - started < seconds and (most is None or sent < most):
            body = requests[sent % len(requests)]
            sent += 1
            begun = time.perf_counter()
            try:
                status, _ = await request(reader, writer, body)
            except (OSError, EOFError, TimeoutError):
                status = 0
            load.latencies.append(time.perf_counter() - begun)
            load.statuses[status] = load.statuses.get(status, 0) + 1
            if not status:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    load.seconds = time.perf_counter() - started
    return load


def broken_requests(valid: dict[str, Any], number: int, seed: int = 0) -> list[bytes]:
    """Returns requests that must be refused: damaged HTTP and JSON, wrong types, sizes, ids, paths and methods."""
    # Values of a wrong type or size.
    generator = random.Random(seed)
    wrong: list[Any] = [
        None,
        True,
        -1,
        0,
        1.5,
        10**30,
        "",
        "x" * 300,
        "\ud800",
        [],
        {},
        [[]],
        [[1]],
        [[1, 2, 3]],
        {"a": 1},
    ]

    # Kinds of requests: no JSON, a wrong value, what does not exist, no HTTP; in turn.
    def not_json() -> bytes:
        text = json.dumps(valid).encode()
        cut = text[: generator.randrange(len(text))]
        return post(
            "/recommend", generator.choice([cut, b"\xff\xfe" + text, b"[" * 5000, b"\x00", text + b"}", b"nul"])
        )

    def wrong_value() -> bytes:
        key = generator.choice(["user", "history", "session", "k", "allow", "deny", "exclude_seen", "policy", "paths"])
        allowed: dict[str, list[Any]] = {
            "user": [None, -1, 0, 10**30, "", "\ud800"],
            "history": [None, []],
            "session": [[]],
            "k": [],
            "allow": [None],
            "deny": [[]],
            "exclude_seen": [True],
            "policy": [None],
            "paths": [True],
        }
        values = [value for value in wrong if not any(value is one or value == one for one in allowed[key])]
        return post("/recommend", valid | {key: generator.choice(values)})

    def unknown() -> bytes:
        return post(
            "/recommend",
            generator.choice(
                [
                    valid | {"surplus": 1},
                    {"user": f"nobody-{generator.random()}"},
                    {"history": [["no such item", None]]},
                    valid | {"policy": "no such policy"},
                    {"history": [], "k": 10**6},
                    {"k": 3},
                ]
            ),
        )

    def wrong_path() -> bytes:
        line = generator.choice(
            ["GET /recommend", "DELETE /items", "PUT /answer", "GET /../../etc/passwd", "POST /nothing"]
        )
        return f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()

    def wrong_http() -> bytes:
        return generator.choice(
            [
                b"HELLO\r\n\r\n",
                b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
                b"GET / HTTP/9.9\r\n\r\n",
                bytes(generator.randrange(256) for _ in range(64)) + b"\r\n\r\n",
                b"GET /health HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n",
            ]
        )

    def too_large() -> bytes:
        return (
            post("/recommend", b" " * (2**20 + 1))
            if generator.random() < 0.2
            else post("/recommend", {"history": [[1, 1]] * 10_001})
        )

    kinds: list[Callable[[], bytes]] = [not_json, wrong_value, unknown, wrong_path, wrong_http, too_large]
    return [kinds[place % len(kinds)]() for place in range(number)]


async def refusals(port: int, requests: Sequence[bytes]) -> dict[int, int]:
    """Sends each request on a connection of its own and counts the statuses; 0: it was closed without an answer."""
    statuses: dict[int, int] = {}
    for sent in requests:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            status, _ = await request(reader, writer, sent, 10.0)
        except (OSError, EOFError):
            status = 0
        except TimeoutError:
            status = -1
        statuses[status] = statuses.get(status, 0) + 1
        writer.close()
    return statuses
