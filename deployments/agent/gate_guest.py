"""A request that a gate took out of its replica's socket: read, held, refused, or carried to a worker.

Standard library only; imports nothing else of Slipway (`gate.py` says where it runs).
"""

from __future__ import annotations

import contextlib
import select
import socket

MOST_READ = 96 * 1024  # of a request that waits: more than the router's buffer holds
READ = select.POLLIN | select.POLLHUP | select.POLLERR
_REFUSAL = b"HTTP/1.1 %s\r\nx-slipway-gate: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Guest:
    """A request that was taken out of the socket. It is read, held, and refused or handed on."""

    def __init__(self, sock: socket.socket, now: float) -> None:
        self.sock, self.taken_at = sock, now
        self.data = bytearray()
        self.whole = False  # all of it is here
        self.id = b""
        self.copied = False  # the router can send it again
        self.waited_before = 0.0  # seconds, in the router
        self.refused_at: float | None = None
        self.worker: socket.socket | None = None
        self.answer = bytearray()
        self.answered = False  # the worker closed

    def fileno(self) -> int:
        return self.sock.fileno()

    def read(self, wall: float) -> bool:
        """Take what came; False when the router has gone."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        if self.refused_at is None:
            self.data += data
            if self.worker is None:
                self.parse(wall)
        return True

    def parse(self, wall: float) -> None:
        """What its head says, once all of that is here."""
        head, end, body = bytes(self.data).partition(b"\r\n\r\n")
        if not end:
            return
        fields = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            fields[name.strip().lower()] = value.strip()
        self.id = fields.get(b"x-request-id", b"")
        since = fields.get(b"x-slipway-retry", b"")
        if since.isdigit():
            self.copied = True
            self.waited_before = max(0.0, wall - int(since) / 1e6)
        if b"transfer-encoding" in fields:
            self.whole = body.endswith(b"0\r\n\r\n")
        else:
            length = fields.get(b"content-length", b"0")
            self.whole = length.isdigit() and len(body) >= int(length)

    def mask(self) -> dict[int, int]:
        """Descriptor -> poll mask: what to wait for of it, and of the worker that has it."""
        if self.worker is None:
            full = self.refused_at is None and len(self.data) >= MOST_READ
            return {self.fileno(): select.POLLHUP if full else select.POLLIN}
        up = select.POLLOUT if self.answer else 0
        if len(self.data) < MOST_READ:
            up |= select.POLLIN
        down = select.POLLOUT if self.data else 0
        if len(self.answer) < MOST_READ and not self.answered:
            down |= select.POLLIN
        return {self.fileno(): up, self.worker.fileno(): down}

    def relay(self, ready: dict[int, int]) -> bool:
        """Carry bytes between the router and the worker; False when that is over."""
        worker = self.worker
        if worker is None:
            return False
        try:
            if ready.get(self.fileno(), 0) & READ and len(self.data) < MOST_READ:
                data = self.sock.recv(65536)
                if not data:
                    return False
                self.data += data
            if self.data:
                with contextlib.suppress(BlockingIOError):
                    del self.data[: worker.send(self.data)]
            if ready.get(worker.fileno(), 0) & READ and len(self.answer) < MOST_READ:
                data = worker.recv(65536)
                self.answered = not data
                self.answer += data
            if self.answer:
                with contextlib.suppress(BlockingIOError):
                    del self.answer[: self.sock.send(self.answer)]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(self.answer) or not self.answered

    def refuse(self, now: float, *, again: bool) -> bool:
        """Have the router take it elsewhere (`again`), or give it up; False when the router has gone."""
        words = (b"425 Too Early", b"elsewhere") if again else (b"503 Service Unavailable", b"full")
        self.refused_at = now
        try:
            self.sock.send(_REFUSAL % words)
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.sock.close()
        if self.worker is not None:
            self.worker.close()
