"""A server in a thread of the test process, and what asks it."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from harness.serving.app import make_app
from harness.serving.http_protocol import PatientProtocol
from harness.serving.service import Service


class Client:
    """Asks a server on this machine."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.port, self.token = port, token

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Returns status and JSON (or text) of an answer; bodies that are no bytes are sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        connection.request(method, path, content, sent)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(text) if is_json else text

    def lists(self, **body: Any) -> dict[str, Any]:
        """Returns what `/recommend` answers."""
        status, answer = self("POST", "/recommend", body)
        assert status == 200, answer
        return answer


@contextlib.contextmanager
def running(service: Service, token: str | None = None) -> Iterator[Client]:
    """Serves until the block ends."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(service, token), http=PatientProtocol, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        yield Client(listening.getsockname()[1], token)
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
