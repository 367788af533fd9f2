"""Bring one content to a node's cache: from the portal, and where that does not work from the other nodes.

Asked is the portal's address that the asker hands along, if it is one of this cluster's portal and of this
very content, and else nothing but the caches that are known by their signature: who has a content's key
cannot have the cache ask anybody else. Redirects are not followed, proxies not used. An address is a secret
and in no log and no answer.

What broke off goes on where it was, from whoever is next: it is the same content everywhere, and kept only if
its SHA-256 is right.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

from deployments.runtime import trust
from deployments.runtime.cache_keys import HERE, KEY
from deployments.runtime.cache_store import Coming, NotHere, Store

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 20.0
SIBLING_SECONDS = 2.0
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Source:
    """Where a content may be had."""

    name: str  # for people
    url: str = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    connect: float = CONNECT_SECONDS
    ca: str = ""  # certificates to trust besides the system's, PEM


def of_portal(portal: str, sha256: str, given: str, ca: str = "") -> Source | None:
    """The portal by an address that somebody gave us; None where it is none of this portal's, or of another
    content. `portal` is "https://portal:8000", "" where nobody said."""
    begin = f"{portal.rstrip('/')}/blobs/{sha256}?"
    if not portal or not given.startswith(begin):
        return None
    if not given.isascii() or not given.isprintable() or " " in given:
        return None
    return Source("the portal", given, ca=ca)


def of_siblings(addresses: Iterable[str], sha256: str, key: str) -> Iterator[Source]:
    headers = {KEY: key, HERE: "1"}
    for address in addresses:
        yield Source(
            f"the cache at {address}", f"http://{address}/{sha256}", headers, SIBLING_SECONDS
        )


def bring(
    store: Store,
    sha256: str,
    coming: Coming,
    sources: Iterable[Source],
    say: Callable[[str], None],
) -> NotHere | None:
    """All of it from the first that has it; why not, where it cannot be had."""
    failed: NotHere | None = NotHere(404, "it is not here, and nobody was named who has it")
    found, ended = "", False
    try:
        for source in sources:
            try:
                _take(store, coming, source)
                failed, found = None, source.name
                break
            except NotHere as error:
                failed = error
                if error.status == 507:
                    break
            except (OSError, HTTPException, ValueError) as error:
                failed = NotHere(502, f"{source.name} cannot be reached: {_words(error)}")
            say(f"{sha256[:12]}: {failed.words}")
        ended = True
    finally:
        # whoever waits for it must hear of it, whatever happened
        failed = store.ends(
            sha256, coming, failed if ended else NotHere(500, "the cache itself failed")
        )
    if failed is None:
        say(f"{sha256[:12]}: {coming.came / 2**20:,.1f} MiB from {found}")
    else:
        say(f"{sha256[:12]} did not come: {failed.words}")
    return failed


def _take(store: Store, coming: Coming, source: Source) -> None:
    """What is missing of it. Raises NotHere, OSError, HTTPException, ValueError."""
    with _asked(source, coming.came) as answer:
        begin = coming.came if answer.status == 206 else 0
        length = int(answer.headers["Content-Length"] or "-1")
        if length < 0:
            raise NotHere(502, f"{source.name} does not say how much it sends")
        if coming.size is None:
            store.begins(coming, begin + length)
        elif coming.size != begin + length:
            raise NotHere(502, f"{source.name} has another size of it")
        while begin < (coming.size or 0):
            chunk = answer.read1(_CHUNK)
            if not chunk:
                raise NotHere(502, f"{source.name} broke off")
            skipped = max(0, coming.came - begin)  # it sends again what is here
            begin += len(chunk)
            if skipped < len(chunk):
                try:
                    coming.add(chunk[skipped:])
                except OSError as error:
                    words = f"the store cannot be written: {error.strerror}"
                    raise NotHere(507, words) from error


@contextmanager
def _asked(source: Source, begin: int) -> Iterator[HTTPResponse]:
    parts = urlsplit(source.url)
    host, port = parts.hostname or "", parts.port
    connection: HTTPConnection
    if parts.scheme == "https":
        connection = HTTPSConnection(
            host, port, timeout=source.connect, context=trust.context(source.ca)
        )
    else:
        connection = HTTPConnection(host, port, timeout=source.connect)
    headers = {"Accept-Encoding": "identity", **source.headers}
    if begin:
        headers["Range"] = f"bytes={begin}-"
    try:
        connection.connect()
        connection.sock.settimeout(SILENT_SECONDS)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request("GET", target, headers=headers)
        with connection.getresponse() as answer:
            if answer.status not in (200, 206):
                status = 404 if answer.status == 404 else 502
                raise NotHere(status, f"{source.name} answered {answer.status}")
            yield answer
    finally:
        connection.close()


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error or type(error).__name__)
