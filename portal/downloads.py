"""Stored content on its way to a browser, a chunk at a time.

Under ASGI Django collects a plain iterator into a list before it sends it, so a download would be held
in memory whole: there an async iterator is handed over, which reads in a thread. Nothing here decides
who may download.
"""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import IO, BinaryIO, cast

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: its path there, its size in bytes, and how it is opened."""

    path: str
    size: int
    open: Callable[[], BinaryIO]


def file_response(
    request: HttpRequest, source: BinaryIO, *, name: str, size: int, etag: str = ""
) -> StreamingHttpResponse:
    """One file as a download of that name; closes `source` at the end."""
    response = _streamed(request, read_chunks(source), name, "application/octet-stream")
    response["Content-Length"] = str(size)
    if etag:
        response["ETag"] = f'"{etag}"'
    return response


def zip_response(
    request: HttpRequest, members: Sequence[Member], *, name: str, at: datetime
) -> StreamingHttpResponse:
    """The members as one zip of that name, made while it is sent. `at` is the files' time."""
    return _streamed(request, zip_chunks(members, at), name, "application/zip")


def _streamed(
    request: HttpRequest, chunks: Generator[bytes, None, None], name: str, content_type: str
) -> StreamingHttpResponse:
    content = in_thread(chunks) if isinstance(request, ASGIRequest) else chunks
    disposition = content_disposition_header(True, name) or "attachment"
    return StreamingHttpResponse(
        content,
        content_type=content_type,
        headers={"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"},
    )


async def in_thread(chunks: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
    """The chunks, each made in a thread; what an ASGI response may be streamed from."""
    try:
        while True:
            reading = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
            try:
                chunk = await asyncio.shield(reading)
            except asyncio.CancelledError:
                # the browser has gone; the thread is still inside the generator, so wait for it
                await asyncio.wait([reading])
                raise
            if chunk is None:
                return
            yield chunk
    finally:
        chunks.close()


def read_chunks(source: IO[bytes]) -> Generator[bytes, None, None]:
    """The rest of a file, a chunk at a time; closes it at the end."""
    with source:
        while chunk := source.read(_CHUNK):
            yield chunk


class _Outbox:
    """A file to write to that cannot seek, as zipfile needs it; what was written is taken away."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        """Nothing to flush: it is in memory until it is taken."""

    def take(self) -> bytes:
        data = bytes(self._written)
        self._written.clear()
        return data


def zip_chunks(members: Sequence[Member], at: datetime) -> Generator[bytes, None, None]:
    """The bytes of a zip, uncompressed: models hardly compress, and the time would be the reader's."""
    outbox = _Outbox()
    with zipfile.ZipFile(cast(IO[bytes], outbox), "w", zipfile.ZIP_STORED) as archive:
        for member in members:
            entry = zipfile.ZipInfo(member.path, at.timetuple()[:6])
            entry.external_attr = 0o644 << 16
            entry.file_size = member.size  # decides whether the entry needs 64 bits
            with member.open() as source, archive.open(entry, "w") as packed:
                while chunk := source.read(_CHUNK):
                    packed.write(chunk)
                    if data := outbox.take():
                        yield data
    yield outbox.take()
