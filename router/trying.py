"""One scoring request from inside the router's own pod, for a portal that cannot reach the router's address.

The portal's request comes through the API server's proxy, which takes away `Authorization` and has answers
of its own for 401, 403, 404 and 503. So both ways are one line of JSON with the body behind it: the router's
answer comes whole, with its code and headers, and is told from the API server's. The request passes the same
rules as every other: the service's key or token has to be right. No rows; the key is in no log, no address.
"""

import json
import ssl
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from router.dataplane import DataPlane

LARGEST = 8 * 2**20  # bytes of a request's body: it is in memory here and at the API server
SHOWN = 512 * 1024  # bytes of an answer
AT_ONCE = 2
_HEAD = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """What to send. `key` and `version` are left out where they are empty; `seconds` is for all of it."""

    service: str
    content_type: str
    key: str
    version: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back in `seconds`; `status` None is that no answer came, and `error` says why."""

    status: int | None
    seconds: float
    headers: Sequence[tuple[str, str]] = ()
    cut: bool = False  # the body is longer than what is here
    error: str = ""


def to_wire(head: Asked | Answered, body: bytes) -> bytes:
    """One line, then the body as it is."""
    return json.dumps(asdict(head)).encode() + b"\n" + body


def asked_of(data: bytes) -> tuple[Asked, bytes]:
    """Raises ValueError for what `to_wire` did not make."""
    head, body = _parted(data)
    try:
        found = Asked(**head)
        if not all(
            isinstance(text, str)
            for text in (found.service, found.content_type, found.key, found.version)
        ):
            raise ValueError("these are no texts")
        return Asked(**{**head, "seconds": float(found.seconds)}), body
    except TypeError as error:
        raise ValueError(str(error)) from error


def answered_of(data: bytes) -> tuple[Answered, bytes]:
    """Raises ValueError for what `to_wire` did not make."""
    head, body = _parted(data)
    try:
        pairs = tuple((str(name), str(value)) for name, value in head.pop("headers", ()))
        return Answered(**head, headers=pairs), body
    except TypeError as error:
        raise ValueError(str(error)) from error


def _parted(data: bytes) -> tuple[dict[str, Any], bytes]:
    line, found, body = data.partition(b"\n")
    if not found or len(line) > _HEAD:
        raise ValueError("the first line is missing")
    head = json.loads(line)
    if not isinstance(head, dict):
        raise ValueError("the first line is no object")
    return head, body


class Tries:
    """The door for them: no more than AT_ONCE, as each holds its body in memory."""

    def __init__(self, plane: DataPlane, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._plane = plane
        self._transport = transport
        self._inside = 0

    async def answer(self, data: bytes) -> tuple[int, str, bytes]:
        """Status, content type and body of the admin API's answer."""
        try:
            asked, body = asked_of(data)
        except ValueError as error:
            return 400, "text/plain", f"This is no request to try: {error}.\n".encode()
        if self._inside >= AT_ONCE:
            return 429, "text/plain", b"Requests are tried already; wait for their answers.\n"
        self._inside += 1
        try:
            head, raw = await self._ask(asked, body)
        finally:
            self._inside -= 1
        return 200, "application/octet-stream", to_wire(head, raw)

    def _door(self) -> tuple[str, ssl.SSLContext]:
        """HAProxy's own on this pod's loopback, and what is trusted there: the certificate it was given."""
        settings, tls = self._plane.settings, self._plane.following.spec.tls
        host = "[::1]" if ":" in settings.bind else "127.0.0.1"
        if tls is None or tls.plain_http:
            # nothing is trusted, and no authorities are read for it: that would take 0.2 s
            return f"http://{host}:{settings.port}", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context = ssl.create_default_context(cadata=tls.chain)
        context.check_hostname = False  # it is asked by an address
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return f"https://{host}:{settings.tls_port}", context

    async def _ask(self, asked: Asked, body: bytes) -> tuple[Answered, bytes]:
        headers = {"content-type": asked.content_type}
        if asked.key:
            headers["authorization"] = f"Bearer {asked.key}"
        if asked.version:
            headers["azureml-model-deployment"] = asked.version
        began = time.monotonic()
        try:
            address, trusted = self._door()
            async with (
                httpx.AsyncClient(
                    timeout=asked.seconds,
                    trust_env=False,
                    verify=trusted,
                    transport=self._transport,
                ) as client,
                client.stream(
                    "POST",
                    f"{address}/api/v1/service/{asked.service}/score",
                    content=body,
                    headers=headers,
                ) as answer,
            ):
                raw, cut = await _first_bytes(answer, began + asked.seconds)
        except httpx.TimeoutException:
            said = f"No answer came within {asked.seconds:.0f} s, so it was given up."
            return Answered(None, time.monotonic() - began, error=said), b""
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, ValueError) as error:
            said = f"The router's pod could not ask its HAProxy: {error or type(error).__name__}."
            return Answered(None, time.monotonic() - began, error=said), b""
        pairs = tuple(answer.headers.multi_items())
        return Answered(answer.status_code, time.monotonic() - began, pairs, cut), raw


async def _first_bytes(answer: httpx.Response, until: float) -> tuple[bytes, bool]:
    raw = b""
    async for chunk in answer.aiter_bytes():
        raw += chunk
        if len(raw) > SHOWN:
            return raw[:SHOWN], True
        if time.monotonic() > until:
            return raw, True
    return raw, False
