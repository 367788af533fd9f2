"""Stands between a replica's sockets and a container that serves by itself: a person's own image.

Run under the same shim and gate as a scoring server of a process cluster, by this machine's Python; standard
library only. As many requests are inside at a time as the revision's concurrency says, each told to the
gate in a cell of shared memory (`gunicorn_conf.py` tells the same for ours), so the router is exact here too.

    front.py HOST PORT SCORING_PATH LIVENESS_PATH READINESS_PATH -b fd://N

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
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException

LOADING, IDLE = 0, 1
_LONGEST_HEAD = 128 * 1024
_CONNECT = 5.0
_ASK_EVERY, _ASK_DEADLINE, _FAILURES = 5.0, 5.0, 3
_READY_EVERY = 0.25
_PIECE = 65536


class Front:
    def __init__(self, target: tuple[str, int], paths: tuple[str, str, str], listener: int) -> None:
        self.target = target
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
        failures = 0
        while failures < _FAILURES:
            time.sleep(_ASK_EVERY)
            failures = 0 if self.answers(self.liveness) else failures + 1
        say(f"{self.liveness} failed {_FAILURES} times in a row")

    def answers(self, path: str) -> bool:
        connection = HTTPConnection(*self.target, timeout=_ASK_DEADLINE)
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
            try:
                with client:
                    self.carry(client)
            except OSError:
                pass  # one side went away: the router tells its client
            finally:
                self.cells[number] = IDLE

    def carry(self, client: socket.socket) -> None:
        """One request there, and its answer back."""
        client.settimeout(30.0)
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(_PIECE)
            if not piece or len(data) > _LONGEST_HEAD:
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        with socket.create_connection(self.target, timeout=_CONNECT) as replica:
            replica.sendall(self.rewritten(head) + body)
            client.settimeout(None)
            replica.settimeout(None)
            self.relay(client, replica)

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

    def relay(self, client: socket.socket, replica: socket.socket) -> None:
        """Until the container has said all; a client that leaves ends it."""
        poller = select.poll()
        poller.register(client, select.POLLIN)
        poller.register(replica, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == client.fileno():
                    piece = client.recv(_PIECE)
                    if not piece:
                        return
                    replica.sendall(piece)
                else:
                    piece = replica.recv(_PIECE)
                    if not piece:
                        return
                    client.sendall(piece)


def say(text: str) -> None:
    print(f"slipway: {text}", file=sys.stderr, flush=True)  # noqa: T201  its shim writes it down


def main(arguments: list[str]) -> None:
    host, port, scoring, liveness, readiness, _, listener = arguments
    descriptor = int(listener.removeprefix("fd://"))
    with contextlib.suppress(KeyboardInterrupt):
        Front((host, int(port)), (scoring, liveness, readiness), descriptor).main()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
