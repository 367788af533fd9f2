"""A gate's sockets beside the one for requests: where its health is asked, and the doors between gates.

Standard library only (`gate.py` says where it runs).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

if __package__:
    from deployments.agent.gate_guest import Guest
else:  # run by its path: nothing else of the checkout can be imported
    from gate_guest import Guest  # type: ignore[import-not-found, no-redef]

HEALTH = "health.sock"
# for connections from gates whose workers are gone; there once all are loaded here
DOOR = "door.sock"

PATIENCE = 5.0  # for a request's head, once connected
_MOST_HEALTH = 64
_BACKLOG = 2048
_MOST_HANDED = 256 * 1024  # of a request, with its connection


class Health:
    """Answers `GET /` with `state(now)`: whether it is well, for how long it has been silent, in words."""

    def __init__(self, state: Callable[[float], tuple[bool, float, str]]) -> None:
        self.sock = listen(HEALTH)
        self.asking: dict[socket.socket, float] = {}
        self._state = state

    def mask(self) -> dict[int, int]:
        """Descriptor -> poll mask."""
        return {sock.fileno(): select.POLLIN for sock in (self.sock, *self.asking)}

    def turn(self, ready: dict[int, int], now: float) -> None:
        for asking, since in list(self.asking.items()):
            late = now - since > PATIENCE
            if late or (asking.fileno() in ready and self._hear(asking, now)):
                del self.asking[asking]
                asking.close()
        while self.sock.fileno() in ready:
            try:
                asking, _ = self.sock.accept()
            except OSError:
                return
            asking.setblocking(False)
            if self._hear(asking, now) or len(self.asking) >= _MOST_HEALTH:
                asking.close()
            else:
                self.asking[asking] = now

    def _hear(self, asking: socket.socket, now: float) -> bool:
        """Answer what was asked; True when that is done, or nobody is there any more."""
        try:
            if asking.recv(4096):
                self._tell(asking, now)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _tell(self, asking: socket.socket, now: float) -> None:
        good, silent, words = self._state(now)
        status = "200 OK" if good else "503 Service Unavailable"
        asking.send(
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(words)}\r\n"
            f"x-slipway-silent: {silent:.3f}\r\nConnection: close\r\n\r\n{words}".encode()
        )


class Doors:
    """What gates of one revision's replicas pass to each other: requests that lost their workers.

    `shared` is `run.json`'s "doors", where replicas do not see each other's folders.
    """

    def __init__(self, shared: dict[str, str] | None) -> None:
        here = Path.cwd()
        self.name = f"{shared['folder']}/{shared['name']}" if shared else DOOR
        self._others = (
            (Path(shared["folder"]), "*.sock")
            if shared
            else (here.parent, f"{here.name.rpartition('-')[0]}-*/{DOOR}")
        )
        self.sock: socket.socket | None = None

    def mask(self) -> dict[int, int]:
        """Descriptor -> poll mask."""
        return {} if self.sock is None else {self.sock.fileno(): select.POLLIN}

    def open(self) -> None:
        """Once, when all workers are loaded."""
        if self.sock is None:
            self.sock = bind(self.name, socket.SOCK_DGRAM)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()

    def take(self, now: float, wall: float) -> list[Guest]:
        """What other gates have passed on."""
        found: list[Guest] = []
        while self.sock is not None:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.sock, _MOST_HANDED, 1)
            except OSError:
                break
            for descriptor in descriptors:
                sock = socket.socket(fileno=descriptor)
                sock.setblocking(False)
                guest = Guest(sock, now)
                guest.data += data[1:]
                guest.parse(wall)
                found.append(guest)
        return found

    def pass_on(self, guests: Iterable[Guest]) -> list[Guest]:
        """Give them to the gates of other replicas, in turn; those that one of them took."""
        folder, pattern = self._others
        own = Path(self.name).absolute()
        doors = [door for door in sorted(folder.glob(pattern)) if door != own]
        taken: list[Guest] = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for guest in guests:
                for _ in range(len(doors)):
                    doors.append(doors.pop(0))
                    try:
                        sender.connect(os.path.relpath(doors[-1]))
                        # the byte in front is there for a request of which nothing was read yet
                        socket.send_fds(sender, [b".", guest.data], [guest.fileno()])
                    except OSError:
                        continue  # that one is going as well, or is full
                    taken.append(guest)
                    break
        return taken


def listen(name: str) -> socket.socket:
    made = bind(name, socket.SOCK_STREAM)
    made.listen(_BACKLOG)
    return made


def bind(name: str, kind: socket.SocketKind) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        Path(name).unlink()
    made = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        made.bind(name)
    finally:
        os.umask(before)
    made.setblocking(False)
    return made


def readable(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))
