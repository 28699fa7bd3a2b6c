"""Serving exports until SIGTERM or Ctrl-C: settings, the socket, the loop."""

from __future__ import annotations

import gc
import importlib.util
import ipaddress
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from harness.compute.compilation_cache import keep_compiled_programs
from harness.errors import UserError

TOKEN = "TPGR_JAX_TOKEN"
_DRAIN_SECONDS = 20
_BACKLOG = 2048
_GARBAGE_THRESHOLDS = 20_000, 20, 20


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Where a server listens and what it keeps (`conf/serve.yaml` explains each)."""

    host: str = "127.0.0.1"
    port: int = 8080
    log: str | None = None
    log_mb: int = 4096
    explore: float = 0.0

    def __post_init__(self) -> None:
        """Checks values; raises UserError naming the key."""
        if not 0 <= self.port <= 65535:
            raise UserError(f"port is {self.port}", do="Give a number from 1 to 65535, or 0 for any that is free.")
        if not 0 <= self.explore <= 1:
            raise UserError(f"explore is {self.explore}", do="Give a share of lists, from 0 to 1.")
        if self.log_mb < 1:
            raise UserError(f"log_mb is {self.log_mb}", do="Give the log at least 1 MiB.")
        if not self.token and not self.is_local:
            raise UserError(
                f"host is {self.host}: others than this machine could ask, and no token is set",
                do=f"Set the environment variable {TOKEN} to a long random text, or leave host=127.0.0.1.",
            )

    @property
    def token(self) -> str | None:
        """What requests must carry."""
        return os.environ.get(TOKEN) or None

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def serve(settings: ServeSettings, sources: Sequence[object], listening: socket.socket | None = None) -> None:
    """Serves exports; returns after SIGTERM or Ctrl-C, when the open requests have been answered.

    Args:
        settings: Where, and what is kept.
        sources: A `Source` for each policy.
        listening: Of `listen`, where it has been called before.

    Raises:
        UserError: An export is damaged, the address is taken, or the extra `serve` is not installed.
    """
    listening = listening or listen(settings)
    try:
        _serve(settings, sources, listening)
    finally:
        listening.close()


def _serve(settings: ServeSettings, sources: Sequence[object], listening: socket.socket) -> None:
    import uvicorn

    from harness.serving.app import make_app
    from harness.serving.decision_log import DecisionLog
    from harness.serving.http_protocol import PatientProtocol
    from harness.serving.service import Service

    with suppress(ModuleNotFoundError):  # where only JAX and the server are installed, JAX's own variable names a cache
        keep_compiled_programs()
    log = None if settings.log is None else DecisionLog(settings.log, folder_mb=settings.log_mb)
    service = Service(sources, log, settings.explore)  # type: ignore[arg-type]
    config = uvicorn.Config(
        make_app(service, settings.token),
        http=PatientProtocol,
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=2048,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    # What has been loaded stays: looking for garbage among it, or often, holds up requests for a tenth of a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    listening.listen(_BACKLOG)  # who reads the line below may ask at once
    host, port = listening.getsockname()[:2]
    models = ", ".join(f"{name} ({version})" for name, version in service.models.items())
    print(f"serving {models} on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        service.close()


def listen(settings: ServeSettings) -> socket.socket:
    """Binds the address before models are exported or loaded: who cannot serve need not wait for the message.

    Raises:
        UserError: The address is taken, or the extra `serve` is not installed.
    """
    for package in ("fastapi", "uvicorn", "httptools"):
        if importlib.util.find_spec(package) is None:
            do = "Install the extra: pip install 'tpgr-jax[serve]' (fastapi, uvicorn and httptools)."
            raise UserError(f"{package} is not installed", do=do)
    listening: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[
            0
        ]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise UserError(
            f"cannot listen there ({error.strerror or error})",
            where=f"{settings.host}:{settings.port}",
            do="Choose another: host=ADDRESS port=NUMBER",
        ) from None
    return listening
