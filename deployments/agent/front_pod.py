"""Stands before a person's own image in a pod, in a container of its own beside it (`front.py` says how).

The kubelet starts that container again, not this one: so this closes while nobody answers there, and opens
again. A request that the container never had goes back to the router, to be taken elsewhere.

    closed -> (readiness answers 200) -> open -> (liveness failed three times, or nobody listens) -> closed

    front_pod.py HOST PORT SCORING_PATH LIVENESS_PATH READINESS_PATH -b fd://N

Run by its path, by the router image's Python; standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from pathlib import Path

if __package__:
    from deployments.agent.front import IDLE, LOADING, Front, say
else:  # run by its path: nothing else of the checkout can be imported
    sys.path.append(str(Path(__file__).parent))
    from front import IDLE, LOADING, Front, say  # type: ignore[import-not-found, no-redef]

_ASK_EVERY, _FAILURES = 5.0, 3
_READY_EVERY = 0.25
_LONGEST_HEAD = 128 * 1024
_CONNECT = 5.0
_HEAD_SECONDS = 30.0
_PIECE = 65536
_LINGER = 1.0  # for the router to read a refusal
_REFUSAL = b"HTTP/1.1 %s\r\nx-slipway-gate: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class PodFront(Front):  # type: ignore[misc, unused-ignore]
    """Never ends by itself."""

    def __init__(self, target: tuple[str, int], paths: tuple[str, str, str], listener: int) -> None:
        super().__init__(target, paths, listener)
        self.open = threading.Event()
        self.lost = threading.Event()  # nobody listens there

    def main(self) -> None:
        for number in range(self.workers):
            threading.Thread(target=self.take, args=(number,), daemon=True).start()
        while True:
            self.turn()

    def turn(self) -> None:
        """From closed to open and back to closed."""
        while not self.answers(self.readiness):
            time.sleep(_READY_EVERY)
        self.lost.clear()
        for number in range(self.workers):
            if self.cells[number] == LOADING:
                self.cells[number] = IDLE
        self.open.set()
        self.cells[self.workers] = 1
        say(f"closed until {self.readiness} answers: {self.watch()}")
        self.open.clear()
        self.cells[self.workers] = 0
        for number in range(self.workers):
            if self.cells[number] == IDLE:
                self.cells[number] = LOADING

    def watch(self) -> str:
        """Until it is not well any more; why."""
        failures = 0
        while failures < _FAILURES:
            if self.lost.wait(_ASK_EVERY):
                return "nobody listens"
            failures = 0 if self.answers(self.liveness) else failures + 1
        return f"{self.liveness} failed {_FAILURES} times in a row"

    def take(self, number: int) -> None:
        """Requests, one after the other, while it is open; what waits meanwhile is the gate's."""
        poller = select.poll()
        poller.register(self.listener, select.POLLIN)
        while True:
            self.open.wait()
            if not poller.poll(1000) or not self.open.is_set():
                continue
            try:
                client, _ = self.listener.accept()
            except OSError:
                continue  # another one took it, or its client left
            self.cells[number] = time.monotonic_ns() // 1000
            try:
                with client:
                    self.bring(client)
            except OSError:
                pass  # one side went away: the router tells its client
            finally:
                self.cells[number] = IDLE if self.open.is_set() else LOADING

    def bring(self, client: socket.socket) -> None:
        """One request there and its answer back, or the request back to the router."""
        client.settimeout(_HEAD_SECONDS)
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(_PIECE)
            if not piece or len(data) > _LONGEST_HEAD:
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        try:
            replica = socket.create_connection(self.target, timeout=_CONNECT)
        except OSError:
            self.lost.set()
            refuse(client, head)
            return
        with replica:
            replica.sendall(self.rewritten(head) + body)
            client.settimeout(None)
            replica.settimeout(None)
            self.relay(client, replica)


def refuse(client: socket.socket, head: bytes) -> None:
    """Nothing of it has begun: the router takes it elsewhere, if it kept a copy."""
    words = (b"503 Service Unavailable", b"full")
    if b"\r\nx-slipway-retry:" in head.lower():
        words = (b"425 Too Early", b"elsewhere")
    client.sendall(_REFUSAL % words)
    client.shutdown(socket.SHUT_WR)
    client.settimeout(_LINGER)
    while client.recv(_PIECE):  # closed with something unread, the answer could be lost
        pass


def main(arguments: list[str]) -> None:
    host, port, scoring, liveness, readiness, _, listener = arguments
    descriptor = int(listener.removeprefix("fd://"))
    with contextlib.suppress(KeyboardInterrupt):
        PodFront((host, int(port)), (scoring, liveness, readiness), descriptor).main()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
