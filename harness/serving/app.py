"""The HTTP side: paths, errors of one sentence, a token, limits; thin over `Service`."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from importlib import resources
from typing import Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import Request

from harness.errors import UserError
from harness.serving.batching import Overloaded
from harness.serving.exported import NotAsked
from harness.serving.requests import (
    AnswerBody,
    RecommendBody,
    RecommendResult,
    Refused,
    SimulatedBody,
    mistake_in_words,
)
from harness.serving.service import Reloading, Service, Unknown

MOST_BYTES = 2**20
_MOST_DROPPED = 2**24
BODY_SECONDS = 10.0
_LOCAL = {"localhost", "127.0.0.1", "[::1]"}
_ASSET_PATH = "/assets/"
_OPEN = ("/", "/docs", "/health")
_PAGES = {"/": "page.html", "/docs": "docs.html"}
_ASSETS = {
    "page.js": "text/javascript",
    "page.css": "text/css",
    "play.js": "text/javascript",
    "docs.js": "text/javascript",
}
_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


class Json(Response):
    """JSON in ASCII, so that no text of a client, lone surrogates included, fails to be written."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Returns the text."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def make_app(service: Service, token: str | None = None) -> FastAPI:
    """Returns the application.

    Args:
        service: Answers.
        token: That requests must carry (`Authorization: Bearer TOKEN`); None: only this machine asks, and by a local
            name, so that no web page reaches the server by a name of its own.
    """
    app = FastAPI(
        title="Recommendations",
        description="Lists of items from trained policies. The state is in the request: history and session.",
        docs_url=None,
        redoc_url=None,
        responses={status: {"model": Refused} for status in (400, 401, 403, 404, 408, 413, 422, 500, 503)},
    )
    _add_errors(app)
    _add_questions(app, service)
    _add_facts(app, service)
    _add_pages(app)
    app.add_middleware(Guard, service=service, token=token)
    return app


def _add_errors(app: FastAPI) -> None:
    """Turns every error into one sentence."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return Json({"error": "the body is not JSON"}, 400)
        if first["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
            return Json({"error": "the body is not read as JSON: send the header Content-Type: application/json"}, 422)
        return Json({"error": mistake_in_words(first)}, 422)

    @app.exception_handler(Unknown)
    async def unknown(_: Any, error: Unknown) -> Response:
        return Json({"error": str(error)}, 404)

    @app.exception_handler(NotAsked)
    async def refused(_: Any, error: NotAsked) -> Response:
        return Json({"error": str(error)}, 422)

    @app.exception_handler(Overloaded)
    async def overloaded(_: Any, error: Overloaded) -> Response:
        return Json({"error": "too many questions wait: try again"}, 503, {"Retry-After": "1"})

    @app.exception_handler(HTTPException)
    async def other(_: Any, error: HTTPException) -> Response:
        text = {404: "no such path", 405: "this path takes another method"}.get(error.status_code, str(error.detail))
        return Json({"error": text}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Any, error: Exception) -> Response:  # the server writes where it happened to its own output
        return Json({"error": f"the server failed ({type(error).__name__})"}, 500)


def _add_questions(app: FastAPI, service: Service) -> None:
    @app.post("/recommend", responses={200: {"model": RecommendResult}})
    async def recommend(body: RecommendBody) -> Response:
        """A list for a user of the data, or for a history."""
        return Json(await service.recommend(body))

    @app.post("/answer")
    async def answer(body: AnswerBody) -> Response:
        """Keeps what a user answered, for the next training."""
        return Json(service.answer(body))

    @app.post("/simulated_answer")
    async def simulated(body: SimulatedBody) -> Response:
        """What a user of the data answered to an item."""
        return Json(service.simulated(body))

    @app.post("/reload")
    async def reload() -> Response:
        """Reads the models anew; requests go on meanwhile."""
        try:
            return Json(await service.reload())
        except UserError as error:
            return Json({"error": f"the models in use stay: {error}"}, 503)
        except Reloading:
            return Json({"error": "the models are being read already"}, 409)


def _add_facts(app: FastAPI, service: Service) -> None:
    # What there is to ask about.
    @app.get("/items")
    async def items(
        offset: int = Query(0, ge=0, le=10**9),
        limit: int = Query(100, ge=1, le=1000),
        search: str = Query("", max_length=100),
        policy: str | None = Query(None, max_length=200),
    ) -> Response:
        """Ids, titles and categories, all of them or those whose title has a text."""
        model = service.batcher(policy)[1].model
        wanted = search.casefold()
        places: Sequence[int] = range(len(model.titles))
        if wanted:
            places = [place for place, title in enumerate(model.folded_titles) if wanted in title]
        rows = [
            {"item": model.item_ids[i].item(), "title": str(model.titles[i]), "categories": str(model.categories[i])}
            for i in places[offset : offset + limit]
        ]
        return Json({"total": len(places), "items": rows})

    @app.get("/users")
    async def users(
        limit: int = Query(20, ge=1, le=1000), policy: str | None = Query(None, max_length=200)
    ) -> Response:
        """Ids of users of the data whose answers can be simulated."""
        return Json({"users": service.batcher(policy)[1].model.user_ids[:limit].tolist()})

    @app.get("/policies")
    async def policies() -> Response:
        """The policies, the answers that they take and what their evaluation found."""
        return Json({"policies": service.describe()})

    # For balancers and monitors.
    @app.get("/health")
    async def health() -> Response:
        """Whether the server answers, and with which models."""
        return Json({"status": "ok", "models": service.models})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(service.metrics.text(service.waiting, service.models), media_type="text/plain; version=0.0.4")


def _add_pages(app: FastAPI) -> None:
    files = resources.files("harness.serving") / "pages"

    def page(name: str) -> Callable[[], Awaitable[Response]]:
        content = (files / name).read_bytes()

        async def send() -> Response:
            return Response(content, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

        return send

    for path, name in _PAGES.items():
        app.get(path, include_in_schema=False)(page(name))
    assets = {name: (files / name).read_bytes() for name in _ASSETS}

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in assets:
            raise HTTPException(404)
        return Response(assets[name], media_type=_ASSETS[name], headers={"X-Content-Type-Options": "nosniff"})


class Guard:
    """Before the application: whose request it is, how large and how slow its body; counts all of them."""

    def __init__(self, app: Any, service: Service, token: str | None) -> None:
        """Stands before an application."""
        self.app, self.metrics = app, service.metrics
        self._token = None if token is None else f"Bearer {token}".encode()
        self._paths = {"/recommend", "/answer", "/simulated_answer", "/reload", "/items", "/users", "/policies"}
        self._paths |= {"/health", "/metrics", "/openapi.json", *_PAGES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on with its whole body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def counted(message: Scope) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None and scope["method"] not in ("GET", "HEAD"):
                body = await _whole_body(receive)
                if isinstance(body, Json):
                    refusal = body
                else:
                    receive = _replayed(body, receive)
            await (self.app if refusal is None else refusal)(scope, receive, counted)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self.metrics.request(path, status, time.perf_counter() - started)

    def _is_foreign(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a browser says that another site's page sends the request; forms reach any server."""
        if headers.get(b"sec-fetch-site") == b"cross-site":
            return True
        origin = headers.get(b"origin")
        if origin is None or self._token is not None:  # a token is in no browser's keeping
            return False
        return not _is_local(origin.decode("latin-1").partition("://")[2])

    def _refusal(self, scope: Scope) -> Json | None:
        headers = dict(scope["headers"])
        if scope["method"] not in ("GET", "HEAD") and self._is_foreign(headers):
            return Json({"error": "pages of other sites may not ask this server"}, 403)
        if self._token is None:
            if not _is_local(headers.get(b"host", b"").decode("latin-1")):
                return Json({"error": "without a token the server answers to localhost only"}, 400)
            return None
        is_open = scope["path"].startswith(_ASSET_PATH) or scope["path"] in _OPEN
        if not is_open and not hmac.compare_digest(headers.get(b"authorization", b""), self._token):
            return Json({"error": "the token is missing or wrong"}, 401, {"WWW-Authenticate": "Bearer"})
        return None


def _is_local(host: str) -> bool:
    """Whether a host, with or without a port, is a name or an address that only this machine has."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name in _LOCAL:
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


async def _whole_body(receive: Receive) -> bytes | Json:
    """Returns the body, or the answer to one that is too large or too slow.

    Of one that is too large some is read and dropped: most clients listen only when they have sent everything.
    """
    body, length = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more and length <= _MOST_DROPPED:
                message = await receive()
                more = message["type"] != "http.disconnect" and bool(message.get("more_body"))
                part = message.get("body", b"")
                length += len(part)
                if length <= MOST_BYTES:
                    body += part
    except TimeoutError:
        return Json({"error": "the body took too long"}, 408, {"Connection": "close"})
    if length > MOST_BYTES:
        return Json({"error": f"the body has more than {MOST_BYTES:,} bytes"}, 413, {"Connection": "close"})
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Returns what hands out a body that has been received, then what comes next."""
    handed = False

    async def replay() -> Scope:
        nonlocal handed
        if handed:
            return await receive()
        handed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
