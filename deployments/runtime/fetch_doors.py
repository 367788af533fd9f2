"""The two doors that a revision's files come through: the cache of the node, and the portal.

The cache is asked first where `files.json` names one. Whatever is wrong with it, the portal is asked as if
there were none: a cache makes nothing worse. One that cannot be reached is not asked again for a while, and
one that gave wrong bytes twice is asked for that file no more.
"""

import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Protocol
from urllib.parse import urlsplit

from deployments.runtime import trust
from deployments.runtime.cache_keys import FROM, KEY, NODE, WRONG

CONNECT_SECONDS = 3.0
AWAY_SECONDS = 20.0
_WRONGS = 2


class NotCached(Exception):
    """The cache does not have it, or is not there; why."""


class Asked(Protocol):
    """A file as a door is asked for it."""

    @property
    def sha256(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def cache(self) -> str: ...
    @property
    def key(self) -> str: ...


@dataclass
class Doors:
    """What is known of them; all files share it. `node` is the one we are on, `ca` PEM certificates that the
    portal may be known by besides the system's."""

    node: str = ""
    ca: str = ""
    _away_until: float = float("-inf")
    _wrong: dict[str, int] = field(default_factory=dict)
    _context: ssl.SSLContext | None = None

    def may_have(self, item: Asked) -> bool:
        """Whether the cache is to be asked."""
        return (
            bool(item.cache)
            and self._wrong.get(item.sha256, 0) < _WRONGS
            and time.monotonic() >= self._away_until
        )

    def was_wrong(self, item: Asked) -> None:
        """The cache gave wrong bytes; it is told so when it is asked again."""
        self._wrong[item.sha256] = self._wrong.get(item.sha256, 0) + 1

    def cached(self, item: Asked, begin: int, silence: float) -> HTTPResponse:
        """From there on, or all of it (status 200). Raises NotCached."""
        headers = {KEY: item.key, FROM: item.url}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        if self._wrong.get(item.sha256):
            headers[WRONG] = "1"
        asked = headers | ({NODE: self.node} if self.node else {})
        try:
            answer = _get(item.cache, asked, silence)
            if answer.status == 307:
                answer.close()
                try:
                    answer = _get(answer.headers["Location"] or "", headers, silence)
                except (OSError, HTTPException, ValueError):
                    # gone since: then by the one that knew of it
                    answer = _get(item.cache, headers, silence)
        except (OSError, HTTPException, ValueError) as error:
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise NotCached(f"it cannot be reached: {error or type(error).__name__}") from error
        if answer.status not in (200, 206):
            with answer:
                words = answer.read(200).decode(errors="replace").strip()
            raise NotCached(f"{words or 'it does not have it'} ({answer.status})")
        return answer

    def portal(self, item: Asked, begin: int, silence: float) -> HTTPResponse:
        """Raises OSError (HTTPError among them), HTTPException."""
        asked = urllib.request.Request(item.url, headers={"Accept-Encoding": "identity"})  # noqa: S310
        if begin:
            asked.add_header("Range", f"bytes={begin}-")
        answer: HTTPResponse = urllib.request.urlopen(  # noqa: S310  only http(s), see `fetch.read`
            asked, timeout=silence, context=self._tls() if item.url.startswith("https:") else None
        )
        return answer

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = trust.context(self.ca)
        return self._context


def why(item: Asked, error: Exception) -> str:
    """Why a door could not be reached, without what is secret of its address."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, socket.gaierror):
        return f"the name {urlsplit(item.url).hostname} is not known here"
    return str(reason) or type(reason).__name__


def _get(url: str, headers: dict[str, str], silence: float) -> HTTPResponse:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("its address is no http address")
    connection = HTTPConnection(parts.hostname, parts.port, timeout=CONNECT_SECONDS)
    try:
        connection.connect()
        connection.sock.settimeout(silence)
        connection.request("GET", parts.path, headers=headers)
        answer = connection.getresponse()
    except BaseException:
        connection.close()
        raise
    return answer
