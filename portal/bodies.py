"""How request bodies are received: on disk, within limits, and not from strangers.

Django's ASGI handler takes a whole body before any view runs, into the system's temporary folder,
however large and whoever sends it. This one spools it to `FILE_UPLOAD_TEMP_DIR` (on many systems /tmp
is memory), writes off the event loop, and refuses with 413 what is larger than the largest upload, or,
from somebody who is not signed in, larger than a form without files.
The spool has no name on disk, so a killed process leaves nothing.
"""

import asyncio
import tempfile
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import IO, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.http import HttpResponse

from portal.templatetags.slipway import filesize
from portal.uploads import max_bytes

_IN_MEMORY = 256 * 1024  # bytes; a larger body is on disk
_WRITE_AT_ONCE = 2**20
_ENVELOPE = 64 * 2**20  # what field names, boundaries and text fields may add to the files


class BodyTooLarge(Exception):
    """More than the limit was sent, or announced."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class BodyHandler(ASGIHandler):
    """Django's handler with bodies received as the module says."""

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        limit = await self._limit(scope)
        try:
            announced = _announced(scope)
            if announced > limit:
                raise BodyTooLarge(limit)
            await super().handle(scope, _counted(receive, limit), send)
        except BodyTooLarge as error:
            response = HttpResponse(
                f"The request is larger than {filesize(error.limit)}, which is the most this "
                "portal takes here. Sign in first, send less, or raise SLIPWAY_MAX_UPLOAD_GB.\n",
                status=413,
                content_type="text/plain; charset=utf-8",
                headers={"Connection": "close"},
            )
            await self.send_response(response, send)

    async def read_body(self, receive: Callable[[], Any]) -> IO[bytes]:
        body = tempfile.SpooledTemporaryFile(  # noqa: SIM115  closed by `handle`
            max_size=_IN_MEMORY, mode="w+b", dir=str(settings.FILE_UPLOAD_TEMP_DIR)
        )
        waiting: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestAborted
                if chunk := message.get("body", b""):
                    waiting.append(chunk)
                    size += len(chunk)
                more = message.get("more_body", False)
                if size >= _WRITE_AT_ONCE or (not more and size > _IN_MEMORY):
                    await asyncio.to_thread(body.writelines, waiting)
                    waiting, size = [], 0
                if not more:
                    body.writelines(waiting)
                    break
        except BaseException:
            body.close()
            raise
        body.seek(0)
        return body

    async def _limit(self, scope: Any) -> int:
        small = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if _announced(scope, default=0) <= small and not _is_chunked(scope):
            return small  # no need to look up who it is
        return max_bytes() + _ENVELOPE if await _has_session(scope) else small


def _header(scope: Any, name: bytes) -> bytes:
    for key, value in scope.get("headers", ()):
        if key.lower() == name:
            return bytes(value)
    return b""


def _announced(scope: Any, default: int = 0) -> int:
    try:
        return int(_header(scope, b"content-length"))
    except ValueError:
        return default


def _is_chunked(scope: Any) -> bool:
    return bool(_header(scope, b"transfer-encoding"))


async def _has_session(scope: Any) -> bool:
    """Whether the request carries the cookie of a session that exists. Views still ask for the role."""
    try:
        cookies = SimpleCookie(_header(scope, b"cookie").decode("latin1"))
    except CookieError:
        return False
    morsel = cookies.get(settings.SESSION_COOKIE_NAME)
    if morsel is None:
        return False
    return await sync_to_async(_session_exists, thread_sensitive=False)(morsel.value)


def _session_exists(key: str) -> bool:
    try:
        return bool(import_module(settings.SESSION_ENGINE).SessionStore().exists(key))
    finally:
        connections.close_all()  # this thread's own; no request's end would close them


def _counted(receive: Callable[[], Any], limit: int) -> Callable[[], Any]:
    """`receive` that raises BodyTooLarge past the limit: an announced length may be a lie."""
    received = 0

    async def counting() -> Any:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise BodyTooLarge(limit)
        return message

    return counting
