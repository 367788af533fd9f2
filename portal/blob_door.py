"""Where nodes fetch stored contents: `/blobs/<sha256>?expires=..&signature=..` (`registry.addresses`).

A middleware and no page: who asks has no session and no cookie, and may reach the portal by an address that
is in nobody's list of host names; the signature alone says what may be read. GET and HEAD, one range. What is
there is never listed, and what is not there looks like what may not be read until the signature is right.
Never a row is read, and nothing is read on the event loop.
"""

import re
import time
from collections.abc import Callable
from typing import IO, BinaryIO, cast

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from deployments.errors import NotFound, SlipwayError
from deployments.registry import addresses
from deployments.registry.blobs import open_blob
from portal.downloads import in_thread, read_chunks

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?")


class BlobMiddleware:
    """Answers what is below `/blobs/`, and passes on everything else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(addresses.PATH):
            return self.get_response(request)
        answer = serve(request)
        answer.headers["Cache-Control"] = "private, no-store"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer


def serve(request: HttpRequest) -> HttpResponseBase:
    if request.method not in ("GET", "HEAD"):
        return _said("only GET and HEAD", 405, Allow="GET, HEAD")
    sha256 = request.path_info.removeprefix(addresses.PATH)
    expires, signature = (request.GET.get(name, "") for name in ("expires", "signature"))
    if refused := addresses.refusal(sha256, expires, signature, now=time.time()):
        return _said(refused, 403)
    try:
        source = open_blob(sha256)
    except NotFound:
        return _said("its content is not in the store", 404)
    except SlipwayError as error:
        return _said(error.message, 503)
    size = source.seek(0, 2)
    begin, end = _asked(request.headers.get("Range", ""), size)
    if size and begin > end:
        source.close()
        return _said("there is no such range", 416, **{"Content-Range": f"bytes */{size}"})
    source.seek(begin)
    partial = end - begin + 1 < size
    answer = _streamed(request, source, end - begin + 1)
    answer.status_code = 206 if partial else 200
    if partial:
        answer.headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
    answer.headers["Content-Length"] = str(end - begin + 1)
    answer.headers["Accept-Ranges"] = "bytes"
    answer.headers["ETag"] = f'"{sha256}"'
    return answer


def _asked(ranges: str, size: int) -> tuple[int, int]:
    """First and last byte; (1, 0) is nowhere. What is no plain range is all of it."""
    found = _RANGE.fullmatch(ranges)
    if found is None:
        return 0, max(size - 1, -1)
    begin = int(found[1])
    end = min(int(found[2]) if found[2] else size - 1, size - 1)
    return (begin, end) if begin < size and begin <= end else (1, 0)


def _streamed(request: HttpRequest, source: BinaryIO, length: int) -> HttpResponseBase:
    if request.method == "HEAD" or not length:
        source.close()
        return HttpResponse(content_type="application/octet-stream")
    chunks = read_chunks(cast(IO[bytes], _Part(source, length)))
    content = in_thread(chunks) if isinstance(request, ASGIRequest) else chunks
    return StreamingHttpResponse(content, content_type="application/octet-stream")


class _Part:
    """So much of a file, and no more."""

    def __init__(self, source: BinaryIO, length: int) -> None:
        self._source, self._left = source, length

    def read(self, most: int) -> bytes:
        data = self._source.read(min(most, self._left))
        self._left -= len(data)
        return data

    def __enter__(self) -> "_Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()


def _said(text: str, status: int, **headers: str) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain", headers=headers)
