"""A gate's sockets: for requests, for its health, for those who wait for it to leave, and the doors
between gates.

On this machine they are unix sockets in the replica's folder; in a pod, and on an Engine elsewhere, requests
and health come by TCP. Standard library only (`gate.py` says where it runs).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

if __package__:
    from deployments.agent.gate_guest import Guest
else:  # run by its path: nothing else of the checkout can be imported
    from gate_guest import Guest  # type: ignore[import-not-found, no-redef]

HEALTH = "health.sock"
# where a pod's preStop says that the pod goes, and waits until it may
LEAVE = "leave.sock"
# for connections from gates whose workers are gone; there once all are loaded here
DOOR = "door.sock"

PATIENCE = 5.0  # for a request's head, once connected
_MOST_HEALTH = 64
_BACKLOG = 2048
_MOST_HANDED = 256 * 1024  # of a request, with its connection
_SAYS_NOTHING = 5  # seconds for which the kernel keeps a TCP connection of which nothing has come


class State(NamedTuple):
    """Whether it is well, for how long it has been silent (seconds), that in words, and whether it leaves."""

    good: bool
    silent: float
    words: str
    leaving: bool = False


class Health:
    """Answers `GET /` with `ready(now)`: whether requests may come; `GET /live` with `alive(now)`: whether
    it may go on at all; and `GET /left` once it has left, so whoever asks that waits."""

    def __init__(
        self,
        sock: socket.socket,
        ready: Callable[[float], State],
        alive: Callable[[float], State],
    ) -> None:
        self.sock = sock
        self.asking: dict[socket.socket, float] = {}
        self.awaiting: list[socket.socket] = []
        self._ready, self._alive = ready, alive

    def mask(self) -> dict[int, int]:
        """Descriptor -> poll mask."""
        waited_for = (self.sock, *self.asking, *self.awaiting)
        return {sock.fileno(): select.POLLIN for sock in waited_for}

    def tell_left(self) -> None:
        """It has left: those who waited for that may go on."""
        for sock in self.awaiting:
            with contextlib.suppress(OSError):
                _tell(sock, State(True, 0.0, "left", leaving=True))
            sock.close()
        self.awaiting = []

    def close(self) -> None:
        for sock in (self.sock, *self.asking, *self.awaiting):
            sock.close()

    def turn(self, ready: dict[int, int], now: float) -> None:
        for asking, since in list(self.asking.items()):
            late = now - since > PATIENCE
            if late or (asking.fileno() in ready and self._hear(asking, now)):
                del self.asking[asking]
                if asking not in self.awaiting:
                    asking.close()
        for asking in list(self.awaiting):
            if asking.fileno() in ready:  # it left before we did
                self.awaiting.remove(asking)
                asking.close()
        while self.sock.fileno() in ready:
            try:
                asking, _ = self.sock.accept()
            except OSError:
                return
            asking.setblocking(False)
            if len(self.asking) + len(self.awaiting) >= _MOST_HEALTH:
                asking.close()
            elif not self._hear(asking, now):
                self.asking[asking] = now
            elif asking not in self.awaiting:
                asking.close()

    def _hear(self, asking: socket.socket, now: float) -> bool:
        """Answer what was asked; True when that is done, or nobody is there any more."""
        try:
            if asked := asking.recv(4096):
                path = (asked.split(b"\r\n", 1)[0].split(b" ") + [b"", b""])[1]
                if path == b"/left":
                    self.awaiting.append(asking)
                else:
                    _tell(asking, (self._alive if path == b"/live" else self._ready)(now))
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


def _tell(asking: socket.socket, state: State) -> None:
    status = "200 OK" if state.good else "503 Service Unavailable"
    leaving = "x-slipway-draining: 1\r\n" if state.leaving else ""
    asking.send(
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(state.words)}\r\n"
        f"x-slipway-silent: {state.silent:.3f}\r\n{leaving}Connection: close\r\n\r\n"
        f"{state.words}".encode()
    )


class Leaving:
    """Who asked that it leaves, and waits to hear that it did; from inside of the container only."""

    def __init__(self) -> None:
        self.sock = listen(LEAVE)
        self.since: float | None = None
        self.waiting: list[socket.socket] = []

    def mask(self) -> dict[int, int]:
        """Descriptor -> poll mask."""
        return {self.sock.fileno(): select.POLLIN}

    def turn(self, ready: dict[int, int], now: float) -> None:
        while self.sock.fileno() in ready:
            try:
                asking, _ = self.sock.accept()
            except OSError:
                return
            self.waiting.append(asking)
            if self.since is None:
                self.since = now

    def tell_left(self) -> None:
        for sock in self.waiting:
            with contextlib.suppress(OSError):
                sock.send(b"left\n")
            sock.close()
        self.waiting = []

    def close(self) -> None:
        self.tell_left()
        self.sock.close()


class Doors:
    """What gates of one revision's replicas pass to each other: requests that lost their workers.

    `shared` is `run.json`'s "doors", where replicas do not see each other's folders. Where they share none
    (`alone`: connections by TCP, other replicas on other machines), nothing is passed on.
    """

    def __init__(self, shared: dict[str, str] | None, *, alone: bool = False) -> None:
        here = Path.cwd()
        self._alone = alone and shared is None
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
        if self.sock is None and not self._alone:
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
        if self._alone:
            return []
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


def listen_tcp(address: str) -> socket.socket:
    """Of "host:port", "[v6 address]:port" too. A connection of which nothing has come yet is the kernel's to
    keep: it would sit on a worker."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # of what is accepted, too
    with contextlib.suppress(OSError):  # some sandboxes do not know it
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _SAYS_NOTHING)
    made.bind((host, int(port)))
    made.setblocking(False)
    made.listen(_BACKLOG)
    return made


def connect_to(listener: socket.socket) -> socket.socket:
    """A connection to one's own listener; it may still be on its way. Raises OSError."""
    made = socket.socket(listener.family, socket.SOCK_STREAM)
    made.setblocking(False)
    where = listener.getsockname()
    if listener.family != socket.AF_UNIX:
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  what it listens on is told
        where = (everywhere.get(where[0], where[0]), where[1])
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        made.connect(where)
    except BlockingIOError:
        if listener.family == socket.AF_UNIX:
            made.close()
            raise  # its queue is full
    except OSError:
        made.close()
        raise
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
