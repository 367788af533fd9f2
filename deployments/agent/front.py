"""Stands between a replica's sockets and a container that serves by itself: a person's own image.

Run under the same shim and gate as a scoring server of a process cluster, by this machine's Python; standard
library only. As many requests are inside at a time as the revision's concurrency says, each told to the
gate in a cell of shared memory (`gunicorn_conf.py` tells the same for ours), so the router is exact here too.

    front.py HOST PORT SCORING_PATH LIVENESS_PATH READINESS_PATH KEYS -b fd://N

KEYS is a folder with two files, for a container of ours on another machine (`container_far`), or empty. Such
a container is reached over TLS, and each side shows the key that the other expects. A request there goes on
when its client left, so its place stays taken until it has ended; a place whose request broke off is free
again once a worker answers. There is no liveness path to ask, all workers may be busy: while the machine
cannot be connected to, the replica counts as not ready, and is back by itself.

It opens once the readiness path has answered 200, and ends when the liveness path has failed three times in
a row: the agent then starts the replica anew. A request is carried byte for byte but for its path, and for
`Connection: close`; what a replica had begun is never sent a second time.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import ssl
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

LOADING, IDLE = 0, 1
PAIR, AUTHORITY = "own.pem", "replica.pem"  # in KEYS
_LONGEST_HEAD = 128 * 1024
_CONNECT = 5.0
_ASK_EVERY, _ASK_DEADLINE, _FAILURES = 5.0, 5.0, 3
_READY_EVERY = 0.25
_REACH_EVERY = 2.0
_PIECE = 65536


class Front:
    def __init__(
        self,
        target: tuple[str, int],
        paths: tuple[str, str, str],
        listener: int,
        keys: Path | None = None,
    ) -> None:
        self.target = target
        self.tls = None if keys is None else context_of(keys)
        self.scoring, self.liveness, self.readiness = paths
        self.listener = socket.socket(fileno=listener)
        self.workers = int(os.environ["WORKER_COUNT"])
        memory = int(os.environ["SLIPWAY_CELLS"])
        self.cells = memoryview(mmap.mmap(memory, 8 * (self.workers + 1))).cast("Q")

    def main(self) -> None:
        while not self.answers(self.readiness):
            time.sleep(_READY_EVERY)
        for number in range(self.workers):
            self.cells[number] = IDLE
            threading.Thread(target=self.work, args=(number,), daemon=True).start()
        self.cells[self.workers] = 1
        while self.tls is not None:
            time.sleep(_REACH_EVERY)
            self.cells[self.workers] = int(self.reaches())
        failures = 0
        while failures < _FAILURES:
            time.sleep(_ASK_EVERY)
            failures = 0 if self.answers(self.liveness) else failures + 1
        say(f"{self.liveness} failed {_FAILURES} times in a row")

    def reaches(self) -> bool:
        """Whether its machine takes a connection; no more, since all workers may be busy: the kernel there
        keeps one that says nothing away from them."""
        try:
            socket.create_connection(self.target, timeout=_CONNECT).close()
        except OSError:
            return False
        return True

    def answers(self, path: str) -> bool:
        connection = (
            HTTPConnection(*self.target, timeout=_ASK_DEADLINE)
            if self.tls is None
            else HTTPSConnection(*self.target, timeout=_ASK_DEADLINE, context=self.tls)
        )
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def work(self, number: int) -> None:
        poller = select.poll()
        poller.register(self.listener, select.POLLIN)
        while True:
            poller.poll()
            try:
                client, _ = self.listener.accept()
            except OSError:
                continue  # another worker took it, or its client left
            self.cells[number] = time.monotonic_ns() // 1000
            answered = False
            try:
                with client:
                    answered = self.carry(client)
            except OSError:
                pass  # one side went away: the router tells its client
            finally:
                while not answered and self.tls is not None and not self.answers(self.readiness):
                    time.sleep(_READY_EVERY)
                self.cells[number] = IDLE

    def carry(self, client: socket.socket) -> bool:
        """One request there, and its answer back; False where none came, or it may go on."""
        client.settimeout(30.0)
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(_PIECE)
            if not piece or len(data) > _LONGEST_HEAD:
                return True  # nothing has begun
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        with self.connect() as replica:
            replica.sendall(self.rewritten(head) + body)
            client.settimeout(None)
            replica.settimeout(None)
            return self.relay(client, replica)

    def connect(self) -> socket.socket:
        made = socket.create_connection(self.target, timeout=_CONNECT)
        if self.tls is None:
            return made
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return self.tls.wrap_socket(made, server_hostname=self.target[0])
        except OSError:
            made.close()
            raise

    def rewritten(self, head: bytes) -> bytes:
        """The request's head as the container should see it."""
        lines = head.split(b"\r\n")
        method, target, version = lines[0].split(b" ", 2)
        path, mark, query = target.partition(b"?")
        if path == b"/score":
            path = self.scoring.encode()
        elif path == b"/" and self.scoring != "/":  # then the router has sent it there
            path = self.liveness.encode()
        kept = [
            line
            for line in lines[1:]
            if line.partition(b":")[0].strip().lower()
            not in (b"connection", b"keep-alive", b"x-slipway-retry")
        ]
        first = b" ".join((method, path + mark + query, version))
        return b"\r\n".join((first, *kept, b"Connection: close", b"", b""))

    def relay(self, client: socket.socket, replica: socket.socket) -> bool:
        """Until the container has said all, False when that was nothing. A client that leaves ends it, or
        is no longer listened to."""
        poller = select.poll()
        poller.register(client, select.POLLIN)
        poller.register(replica, select.POLLIN)
        answered, there = False, True
        while True:
            ready = {descriptor for descriptor, _ in poller.poll()}
            if client.fileno() in ready:
                piece = received(client)
                there = bool(piece)
                replica.sendall(piece)
            if replica.fileno() in ready:
                piece = replica.recv(_PIECE)
                while isinstance(replica, ssl.SSLSocket) and replica.pending():
                    piece += replica.recv(_PIECE)  # poll knows nothing of it
                if not piece:
                    return answered
                answered = True
                there = there and sent(client, piece)
            if not there:
                if self.tls is None:
                    return True
                with contextlib.suppress(KeyError):
                    poller.unregister(client)


def received(client: socket.socket) -> bytes:
    """Nothing when it has gone."""
    try:
        return client.recv(_PIECE)
    except OSError:
        return b""


def sent(client: socket.socket, piece: bytes) -> bool:
    try:
        client.sendall(piece)
    except OSError:
        return False
    return True


def context_of(keys: Path) -> ssl.SSLContext:
    """Trusts one certificate, whatever name it has, and shows one."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(keys / AUTHORITY)
    made.load_cert_chain(keys / PAIR)
    return made


def say(text: str) -> None:
    print(f"slipway: {text}", file=sys.stderr, flush=True)  # noqa: T201  its shim writes it down


def main(arguments: list[str]) -> None:
    host, port, scoring, liveness, readiness, keys, _, listener = arguments
    descriptor = int(listener.removeprefix("fd://"))
    with contextlib.suppress(KeyboardInterrupt):
        paths = (scoring, liveness, readiness)
        Front((host, int(port)), paths, descriptor, Path(keys) if keys else None).main()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
