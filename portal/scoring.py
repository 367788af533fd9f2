"""One scoring request from the portal to a service, through its cluster's router, with a deadline.

The address is the service's scoring URI and nothing else: no redirect is followed and no proxy of the
surroundings is used, so a request cannot be turned elsewhere. Reads no rows. The key given here leaves
only in the request's header.
"""

import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO
from urllib.parse import urlsplit

import httpx

from portal.json_text import pretty
from portal.router_door import Door

_SHOWN = 512 * 1024  # bytes of an answer that a page can bear
_CHUNK = 256 * 1024
CONNECT = 5.0  # seconds
_HIDDEN_HEADERS = {"set-cookie"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came back. `status` None means that no answer came; `error` then says why.

    Times are seconds; None where the router did not say.
    """

    status: int | None = None
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    body_size: int = 0
    is_json: bool = False
    cut: bool = False
    total: float = 0.0
    queue: float | None = None
    service: float | None = None
    request_id: str = ""
    error: str = ""
    meaning: str = ""
    unreached: bool = False  # no connection came about: nothing was sent
    way: str = ""  # which way it went, in words

    @property
    def status_class(self) -> int:
        """2 for 2xx, and so on; 0 when no answer came."""
        return (self.status or 0) // 100


# What a status of the router means, and what to do (AZUREML.md, Router).
MEANINGS: dict[int, str] = {
    401: "The key was refused. A key that was regenerated a moment ago takes a second to be known.",
    404: "The router knows no service of this name; it is not applied yet, or it was deleted.",
    413: "The request is larger than the router lets through (100 MB).",
    502: "run() raised an exception, or the replica died. Its traceback is in the Logs.",
    503: "No replica is ready, or all were busy for longer than the longest wait in the queue.",
    504: "run() did not answer within the scoring timeout.",
}


async def _read(file: IO[bytes]) -> AsyncIterator[bytes]:
    file.seek(0)
    while chunk := file.read(_CHUNK):
        yield chunk


async def score(
    uri: str,
    *,
    body: bytes | IO[bytes],
    size: int,
    content_type: str,
    key: str,
    version: str,
    deadline: float,
    door: Door | None = None,
    connect: float = CONNECT,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Attempt:
    """POST `body` (`size` bytes) to `uri`; never raises for what the network does.

    `door` is another way to the same router. `key` and `version` are left out of the request where
    empty. `deadline` is in seconds and covers the whole of it, from connecting to the last byte;
    connecting alone may take `connect` of them.
    """
    headers = {"content-type": content_type, "content-length": str(size)}
    target, extensions = uri, {}
    if door is not None:
        target, extensions = door.url(uri), {"sni_hostname": door.name}
        headers["host"] = urlsplit(uri).netloc
    if key:
        headers["authorization"] = f"Bearer {key}"
    if version:
        headers["azureml-model-deployment"] = version
    content = body if isinstance(body, bytes) else _read(body)
    began = time.monotonic()
    timeout = httpx.Timeout(deadline, connect=min(connect, deadline))
    try:
        async with httpx.AsyncClient(
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
            transport=transport,
            verify=door.context() if door is not None else True,
        ) as client:
            began = time.monotonic()  # reading the certificates is not the router's time
            request = client.build_request(
                "POST", target, content=content, headers=headers, extensions=extensions
            )
            answer = await client.send(request, stream=True)
            try:
                raw, cut = await _first_bytes(answer, began, deadline)
            finally:
                await answer.aclose()
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        return Attempt(
            total=time.monotonic() - began,
            error=f"The router at {uri} could not be asked: {_why(error)}. "
            "Look at the cluster's checks.",
            unreached=True,
        )
    except httpx.TimeoutException:
        return Attempt(
            total=time.monotonic() - began,
            error=f"No answer came within {deadline:.0f} s, so the portal gave up.",
        )
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        return Attempt(
            total=time.monotonic() - began,
            error=f"The router at {uri} could not be asked: {_why(error)}. "
            "Look at the cluster's checks.",
        )
    return attempt(answer, raw, cut, time.monotonic() - began)


def _why(error: Exception) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return "nobody answered there"
    return str(error) or type(error).__name__


async def _first_bytes(answer: httpx.Response, began: float, deadline: float) -> tuple[bytes, bool]:
    raw = b""
    async for chunk in answer.aiter_bytes():
        raw += chunk
        if len(raw) > _SHOWN:
            return raw[:_SHOWN], True
        if time.monotonic() - began > deadline:
            return raw, True
    return raw, False


def attempt(answer: httpx.Response, raw: bytes, cut: bool, total: float) -> Attempt:
    """What is shown of an answer; `raw` are the first bytes of its body."""
    text = raw.decode("utf-8", errors="replace")
    is_json = False
    if not cut:
        try:
            text = pretty(json.loads(text))
            is_json = True
        except ValueError:
            pass
    headers = answer.headers
    timings = server_timing(headers.get("server-timing", ""))
    return Attempt(
        status=answer.status_code,
        reason=answer.reason_phrase,
        headers=tuple(
            (name, value)
            for name, value in headers.multi_items()
            if name.lower() not in _HIDDEN_HEADERS
        ),
        body=text,
        body_size=len(raw),
        is_json=is_json,
        cut=cut,
        total=total,
        queue=timings.get("queue"),
        service=timings.get("replica"),
        request_id=headers.get("x-request-id", ""),
        meaning=MEANINGS.get(answer.status_code, ""),
    )


def server_timing(text: str) -> dict[str, float]:
    """Seconds by name out of the router's `queue;dur=12,replica;dur=30` (milliseconds).

    What is not a figure, or is -1 (HAProxy's "did not come to that"), is left out: not known.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition(";dur=")
        try:
            milliseconds = float(value)
        except ValueError:
            continue
        if name and milliseconds >= 0:
            found[name] = milliseconds / 1000
    return found
