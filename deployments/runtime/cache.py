"""A node's cache of revisions' files: `python -m deployments.runtime.cache`, in each pod of `slipway-files`.

    GET /<sha256>    the content, for who shows its key (`cache_keys`); one range. Where it is not here it is
                     brought, once however many ask for it, and read while it comes
    HEAD /<sha256>   whether it is here
    POST /peers      what caches tell each other (`cache_peers`)
    GET /ready       for the kubelet

**How an asker reaches the cache of its own node.** There is one Service for all of them; whichever pod it
leads to sends the asker on (307) to the pod of the asker's node, which the asker names. That works on every
Kubernetes from 1.20 on, without hostPath, hostPort, a name server or a right to ask the API server. A
Service with `internalTrafficPolicy: Local` would save the one step from 1.22 on, but then a node whose cache
is away has none, instead of a neighbour's; and there would be two ways to test instead of one. Pods know each
other by what they tell each other through that same Service.

Standard library alone, a thread for each that asks: what it does is disk and network. Files have a folder of
the pod's own, which goes with the pod: its use, and its limit, are ephemeral storage of the pod.
"""

import argparse
import http.client
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from deployments.runtime import cache_bring
from deployments.runtime.cache_keys import FROM, HERE, KEY, NODE, WRONG, good, key
from deployments.runtime.cache_peers import Peers
from deployments.runtime.cache_store import SHA256, Claim, NotHere, Store

PORT = 8092
PEERS_PATH = "/peers"
_WAIT_SECONDS = 25.0  # for the first byte, and for each further one; askers wait 30
_MOST_AT_ONCE = 256
_MOST_TOLD = 4 << 20
_STOP_SECONDS = 20.0  # for what is being read when the pod goes
_LEAVE_SECONDS = 2.0  # for which it still answers then: nobody may know of it yet
_ANY = random.SystemRandom()


class Cache:
    """What the pod knows. `secret` and `ca` are read each time: kubelets bring new ones."""

    def __init__(
        self,
        store: Store,
        peers: Peers,
        *,
        portal: str,
        secret: Callable[[], str],
        ca: Callable[[], str] = lambda: "",
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.store, self.peers, self.portal = store, peers, portal
        self.secret, self.ca, self.say = secret, ca, say

    def find(self, sha256: str, given: str) -> Claim:
        """What is here or comes. Raises NotHere."""
        claim, mine = self.store.claim_or_begin(sha256)
        if mine is not None:
            sources = self._sources(sha256, given)
            # apart from who asked: others wait for it too
            arguments = (self.store, sha256, mine, sources, self.say)
            bringer = threading.Thread(target=cache_bring.bring, args=arguments, daemon=True)
            try:
                bringer.start()
            except RuntimeError as error:
                self.store.ends(sha256, mine, NotHere(503, str(error)))
        return claim

    def _sources(self, sha256: str, given: str) -> list[cache_bring.Source]:
        portal = cache_bring.of_portal(self.portal, sha256, given, self.ca())
        others = self.peers.others()
        _ANY.shuffle(others)
        # twice: what broke off once goes on
        first = [portal, portal] if portal is not None else []
        return [*first, *cache_bring.of_siblings(others, sha256, key(self.secret(), sha256))]


class Server(ThreadingHTTPServer):
    """Of one cache, at one address."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, cache: Cache) -> None:
        self.cache = cache
        self.ready = True
        self.busy = 0
        self._slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self._counting = threading.Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)  # it goes to the portal by itself
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._counting:
            self.busy += 1
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._counting:
                self.busy -= 1
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who goes away while it is answered is no news."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.cache.say(f"a request failed: {type(error).__name__}: {error}")


class _Handler(BaseHTTPRequestHandler):
    timeout = 30  # seconds for each read and write
    server_version, sys_version = "slipway-files", ""

    def do_GET(self) -> None:
        if self.path == "/ready":
            ready = cast(Server, self.server).ready
            self._say(200 if ready else 503, "ready" if ready else "it goes")
            return
        self._content()

    def do_HEAD(self) -> None:
        self._content()

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if self.path != PEERS_PATH or not size.isdecimal() or int(size) > _MOST_TOLD:
            self._say(404, "there is nothing here")
            return
        cache = cast(Server, self.server).cache
        cache.peers.hear(self.rfile.read(int(size)))
        self._answer(200, cache.peers.message())

    def _content(self) -> None:
        cache, sha256 = cast(Server, self.server).cache, self.path.removeprefix("/")
        if not SHA256.fullmatch(sha256):
            self._say(404, "there is nothing here")
            return
        if not good(cache.secret(), sha256, self.headers.get(KEY, "")):
            self._say(403, "this is not its key")
            return
        node = self.headers.get(NODE, "")
        if node and node != cache.peers.node and (address := cache.peers.of(node)):
            self._say(307, "of your node", Location=f"http://{address}/{sha256}")
            return
        if self.headers.get(WRONG) and cache.store.doubt(sha256):
            cache.say(f"{sha256[:12]}: what was here was wrong, and is removed")
        try:
            if self.command == "HEAD" or self.headers.get(HERE):
                claim = cache.store.claim(sha256)
                if claim is None:
                    raise NotHere(404, "it is not here")
            else:
                claim = cache.find(sha256, self.headers.get(FROM, ""))
            with claim:
                self._send(claim, sha256)
        except NotHere as error:
            self._say(error.status, error.words)

    def _send(self, claim: Claim, sha256: str) -> None:
        """Raises NotHere before anything was sent."""
        size = claim.size(_WAIT_SECONDS)
        begin = _begin(self.headers.get("Range", ""))
        if begin and begin >= size:
            self._say(416, "there is no such range", **{"Content-Range": f"bytes */{size}"})
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(size - begin))
        self.send_header("ETag", f'"{sha256}"')
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if claim.coming is None:
            self.connection.sendfile(claim.file, begin)
            return
        try:
            for chunk in claim.chunks(begin, _WAIT_SECONDS):
                self.wfile.write(chunk)
        except NotHere:
            self.close_connection = True  # less came than was said: its reader sees that

    def _say(self, status: int, words: str, **headers: str) -> None:
        self._answer(status, f"{words}\n".encode(), **headers)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """What is asked for stands in the askers' logs."""


def tell(peers: Peers, address: str) -> None:
    """One exchange with whoever answers there. Raises OSError, HTTPException."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(
        host.strip("[]"), int(port), timeout=cache_bring.SIBLING_SECONDS
    )
    try:
        connection.request("POST", PEERS_PATH, body=peers.message())
        with connection.getresponse() as answer:
            peers.hear(answer.read(_MOST_TOLD))
    finally:
        connection.close()


def keep_telling(peers: Peers, service: str, stop: threading.Event) -> None:
    """Until `stop`: one that the Service chooses, and one that is known."""
    wait = 0.0
    while not stop.wait(wait):
        others = peers.others()
        for address in (service, _ANY.choice(others) if others else ""):
            if not address:
                continue
            try:
                tell(peers, address)
            except (OSError, http.client.HTTPException, ValueError):
                continue  # the next round asks another
        wait = peers.round_seconds() * _ANY.uniform(0.8, 1.2)


def _begin(ranges: str) -> int:
    """Of "bytes=<begin>-"; anything else is all of it."""
    first = ranges.removeprefix("bytes=").removesuffix("-")
    return int(first) if ranges.startswith("bytes=") and first.isdecimal() else 0


def _file(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _say(text: str) -> None:
    print(f"slipway: {text}\n", end="", flush=True)  # noqa: T201  the output, a line in one piece


def _service() -> str:
    """Of `slipway-files`, as Kubernetes tells each pod of its namespace."""
    host = os.environ.get("SLIPWAY_FILES_SERVICE_HOST", "")
    return f"{_bracketed(host)}:{PORT}" if host else ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def main() -> int:
    """Until SIGTERM; then for what is being read."""
    told = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    told.add_argument("--portal", required=True, help="where the portal is; nobody else is asked")
    told.add_argument("--bytes", type=int, required=True, help="the most that is kept")
    told.add_argument("--store", type=Path, required=True)
    told.add_argument("--secrets", type=Path, required=True, help="a folder with key, ca.pem")
    given = told.parse_args()
    node, ip = os.environ["NODE"], os.environ["POD_IP"]

    def secret() -> str:
        return _file(given.secrets / "key")

    spare = float(os.environ.get("SLIPWAY_CACHE_SPARE", "0.15"))
    store = Store(given.store, given.bytes, spare=spare)
    peers = Peers(node, f"{_bracketed(ip)}:{PORT}", secret)
    cache = Cache(
        store,
        peers,
        portal=given.portal,
        secret=secret,
        ca=lambda: _file(given.secrets / "ca.pem"),
        say=_say,
    )
    server = Server("::" if ":" in ip else "0.0.0.0", PORT, cache)  # noqa: S104  a pod's own
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=keep_telling, args=(peers, _service(), stop), daemon=True).start()
    _say(f"the cache of {node}: {store.used() / 2**20:,.1f} of {given.bytes / 2**20:,.0f} MiB")
    stop.wait()
    server.ready = False
    until = time.monotonic() + _STOP_SECONDS
    time.sleep(_LEAVE_SECONDS)
    while server.busy and time.monotonic() < until:
        time.sleep(0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
