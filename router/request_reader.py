"""Takes in the request log: HAProxy connects to a unix socket and writes lines.

On the event loop, never blocking it: what has come is split and kept in memory. When the loop is away
HAProxy holds lines in its ring and connects again; when the ring is full its oldest go. Nothing here ever
keeps a request waiting. The socket is the router's own user's alone.
"""

import asyncio
import contextlib
import logging
import time
from pathlib import Path

from router.dataplane import DataPlane
from router.haproxy.slots import State
from router.request_log import Requests, Splitter
from router.unix_socket import listen

log = logging.getLogger(__name__)

_AT_ONCE = 256 * 1024  # bytes
_HANG_UP_SECONDS = 1.0


class RequestReader:
    """`serve` until stopped; any number of HAProxy's workers may be connected."""

    def __init__(self, requests: Requests, plane: DataPlane) -> None:
        self.requests = requests
        self._plane = plane
        self._versions: dict[str, str] = {}
        self._backends: object = None
        self._reading: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, path: Path, stopping: asyncio.Event) -> None:
        made = listen(path)
        server = await asyncio.start_unix_server(self._read, sock=made)
        try:
            await stopping.wait()
        finally:
            server.close()
            path.unlink(missing_ok=True)
            await self._hang_up()

    async def _hang_up(self) -> None:
        """What is connected still ends its reading by itself; cut off, each would be told as an error."""
        for writer in self._reading.values():
            writer.close()
        if self._reading:
            await asyncio.wait(self._reading, timeout=_HANG_UP_SECONDS)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        splitter = Splitter()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  for the type checker: a callback of a server is one
        self._reading[task] = writer
        task.add_done_callback(self._reading.pop)
        try:
            while data := await reader.read(_AT_ONCE):
                self.requests.add(splitter.lines(data), self.names, time.time())
        except OSError as error:
            log.info("a connection of the request log broke: %s", error)
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    def names(self, backend: str, slot: str) -> tuple[str, str] | None:
        """A backend's version and who stands in the slot now; "" for nobody, or a slot of none."""
        plane = self._plane
        if self._backends is not plane.backends:
            self._backends = plane.backends
            self._versions = {name: key.version for key, name in plane.backends.items()}
        version = self._versions.get(backend)
        if version is None:
            return None
        name, _, server = slot.partition("/")
        if name != backend:
            return version, ""
        for item in plane.slots.get(backend, ()):
            if item.name == server and item.state is not State.FREE:
                return version, item.replica
        return version, ""
