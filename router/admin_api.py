"""The router's small HTTP API: on a unix socket that only its own user may open, in a pod on a port too.

    GET /telemetry?after=N[&epoch=E]   samples and decisions after number N, as JSON
    GET /size?after=N[&epoch=E]        the router's own figures and size after number N, as JSON
    GET /requests?after=N[&epoch=E]    lines of the request log after number N, as JSON
    GET /metrics                       Prometheus' text form
    GET /healthz                       200 while the loop turns, sees the cluster and reads HAProxy
    GET /routes                        where each replica stands (`RouteReport`)
    GET /setup                         how far the router follows its settings (`setup.Status`)
    POST /check                        whether HAProxy would take a person's lines (`CustomLines`):
                                       {"ok": bool, "message": str, "remarks": [Remark]}

Of a pod of the router:
    GET /ready                         200 once HAProxy routes what the cluster shows, until the pod is to go
    GET /live                          200 while the loop turns; it may be without its cluster for long
    GET /peer?after=N                  what this pod counted after second N, for the other pods alone
    POST /try                          a scoring request to this pod's own HAProxy (`router.trying`)

It reads what the loop keeps in memory and changes nothing; `check` has HAProxy look at a copy.
"""

import asyncio
import contextlib
import hmac
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn

from deployments.codec import from_json, to_json
from deployments.errors import SlipwayError
from deployments.types import CustomLines
from router import metrics, request_log, samples, size_wire, trying
from router.loop import RouterLoop
from router.peering import TOKEN_HEADER
from router.unix_socket import listen

_FRESH = 5.0  # seconds; older than this, the loop is not well
_LARGEST_BODY = 2**20  # bytes
_STUCK = 60.0  # seconds without the end of a turn

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def application(loop: RouterLoop, clock: Callable[[], float] = time.time) -> App:
    """The ASGI application."""
    figures, tries = metrics.Metrics(loop), trying.Tries(loop.plane)

    def pages(query: str, epoch: str, page: Callable[[int], Any]) -> tuple[int, str, bytes]:
        asked = parse_qs(query)
        try:
            after = int(asked.get("after", ["0"])[0])
        except ValueError:
            return 400, "application/json", b'{"error": "after takes a whole number"}'
        if asked.get("epoch", [epoch])[0] != epoch:
            after = 0
        return 200, "application/json", json.dumps(page(after), separators=(",", ":")).encode()

    def telemetry(query: str) -> tuple[int, str, bytes]:
        ring = loop.ring
        return pages(query, ring.epoch, lambda after: samples.to_wire(ring.page(after)))

    def requested(query: str) -> tuple[int, str, bytes]:
        log = loop.requests
        return pages(query, log.epoch, lambda after: request_log.to_wire(log.page(after)))

    def sized(query: str) -> tuple[int, str, bytes]:
        sizing = loop.sizing
        return pages(query, sizing.epoch, lambda after: size_wire.to_wire(sizing.page(after)))

    def health() -> tuple[int, str, bytes]:
        status, now = loop.status, clock()
        well = (
            status.observed_at is not None
            and status.read_at is not None
            and now - status.observed_at < _FRESH
            and now - status.read_at < _FRESH
        )
        body = {
            "healthy": well and not status.trouble,
            "trouble": status.trouble,
            "observed_at": status.observed_at,
            "read_at": status.read_at,
            "cycle_seconds": round(status.cycle_seconds, 4),
        }
        return 200 if body["healthy"] else 503, "application/json", json.dumps(body).encode()

    def ready() -> tuple[int, str, bytes]:
        """A cluster that cannot be seen for a while keeps nobody from being served."""
        read_at, leaving = loop.status.read_at, loop.peering is not None and loop.peering.leaving
        fresh = read_at is not None and clock() - read_at < _FRESH
        if loop.routed and fresh and not leaving:
            return 200, "text/plain", b"ready\n"
        return 503, "text/plain", b"leaving\n" if leaving else b"not yet\n"

    def live() -> tuple[int, str, bytes]:
        if clock() - loop.turned_at < _STUCK:
            return 200, "text/plain", b"alive\n"
        return 503, "text/plain", b"the loop does not turn\n"

    def peer(scope: Scope) -> tuple[int, str, bytes]:
        peering = loop.peering
        if peering is None:
            return 404, "text/plain", b"not here\n"
        given = dict(scope["headers"]).get(TOKEN_HEADER.encode(), b"")
        if not hmac.compare_digest(given, peering.token.encode()):
            return 403, "text/plain", b"for other pods of this router only\n"
        return pages(scope["query_string"].decode("latin-1"), peering.epoch, peering.page)

    async def check(receive: Receive) -> tuple[int, str, bytes]:
        try:
            lines = from_json(CustomLines, json.loads(await _body(receive)))
        except ValueError:
            return 400, "application/json", b'{"error": "these are no lines by section"}'
        try:
            ok, remarks = await loop.plane.check(lines)
        except SlipwayError as error:
            return 503, "application/json", json.dumps({"error": error.message}).encode()
        found = {
            "ok": ok,
            "message": remarks[0].message if remarks else "",
            "remarks": to_json(remarks),
        }
        return 200, "application/json", json.dumps(found).encode()

    async def tried(receive: Receive) -> tuple[int, str, bytes]:
        try:
            asked = await _body(receive, trying.LARGEST + _LARGEST_BODY)
        except ValueError as error:
            return 413, "text/plain", f"{error}\n".encode()
        return await tries.answer(asked)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == "/check" and scope["method"] == "POST":
            status, kind, body = await check(receive)
        elif path == "/try" and scope["method"] == "POST" and loop.peering is not None:
            status, kind, body = await tried(receive)
        elif scope["method"] not in ("GET", "HEAD"):
            status, kind, body = 405, "text/plain", b"GET only\n"
        elif path == "/telemetry":
            status, kind, body = telemetry(scope["query_string"].decode("latin-1"))
        elif path == "/size":
            status, kind, body = sized(scope["query_string"].decode("latin-1"))
        elif path == "/requests":
            status, kind, body = requested(scope["query_string"].decode("latin-1"))
        elif path == "/metrics":
            kind = metrics.CONTENT_TYPE
            status, body = 200, figures.text()
        elif path == "/healthz":
            status, kind, body = health()
        elif path == "/ready":
            status, kind, body = ready()
        elif path == "/live":
            status, kind, body = live()
        elif path == "/peer":
            status, kind, body = peer(scope)
        elif path == "/routes":
            status, kind = 200, "application/json"
            body = json.dumps(to_json(loop.routes()), separators=(",", ":")).encode()
        elif path == "/setup":
            body = json.dumps(to_json(loop.plane.following.status())).encode()
            status, kind = 200, "application/json"
        else:
            status, kind, body = 404, "text/plain", b"not here\n"
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def _body(receive: Receive, largest: int = _LARGEST_BODY) -> bytes:
    """A request's body. Raises ValueError when it is too large or was cut off."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ValueError("the request was cut off")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > largest:
            raise ValueError("the body is too large")
        more = message.get("more_body", False)
    return b"".join(parts)


class _Server(uvicorn.Server):
    """uvicorn without hands on the process' signals: the loop's command has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: App, path: Path, stopping: asyncio.Event, tcp: tuple[str, int] | None = None
) -> None:
    """Serve until `stopping` is set. `tcp` is an address and a port, for a router in a pod."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    made = [listen(path)]
    if tcp is not None:
        made.append(_listen_on(*tcp))
    task = asyncio.create_task(server.serve(sockets=made))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopped.cancel()
        await task
        for item in made:
            item.close()
        path.unlink(missing_ok=True)


def _listen_on(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    made.listen(64)
    made.setblocking(False)
    return made
