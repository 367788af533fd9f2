"""The router's small HTTP API on a unix socket that only its own user may open.

    GET /telemetry?after=N[&epoch=E]   samples and decisions after number N, as JSON
    GET /metrics                       Prometheus' text form
    GET /healthz                       200 while the loop turns, sees the cluster and reads HAProxy

It reads what the loop keeps in memory and changes nothing.
"""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn

from deployments.codec import to_json
from router import metrics
from router.loop import RouterLoop

_FRESH = 5.0  # seconds; older than this, the loop is not well

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def application(loop: RouterLoop, clock: Callable[[], float] = time.time) -> App:
    """The ASGI application."""
    registry = metrics.registry(loop)

    def telemetry(query: str) -> tuple[int, str, bytes]:
        asked = parse_qs(query)
        try:
            after = int(asked.get("after", ["0"])[0])
        except ValueError:
            return 400, "application/json", b'{"error": "after takes a whole number"}'
        if asked.get("epoch", [loop.ring.epoch])[0] != loop.ring.epoch:
            after = 0
        page = json.dumps(to_json(loop.ring.page(after)), separators=(",", ":"))
        return 200, "application/json", page.encode()

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

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            status, kind, body = 405, "text/plain", b"GET only\n"
        elif path == "/telemetry":
            status, kind, body = telemetry(scope["query_string"].decode("latin-1"))
        elif path == "/metrics":
            kind = "text/plain; version=0.0.4; charset=utf-8"
            status, body = 200, metrics.text(registry)
        elif path == "/healthz":
            status, kind, body = health()
        else:
            status, kind, body = 404, "text/plain", b"not here\n"
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def listen(path: Path) -> socket.socket:
    """The socket, mode 600. One that a dead loop left is replaced."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    finally:
        os.umask(before)
    made.listen(64)
    made.setblocking(False)
    return made


class _Server(uvicorn.Server):
    """uvicorn without hands on the process' signals: the loop's command has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: App, path: Path, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    made = listen(path)
    task = asyncio.create_task(server.serve(sockets=[made]))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopped.cancel()
        await task
        made.close()
        path.unlink(missing_ok=True)
