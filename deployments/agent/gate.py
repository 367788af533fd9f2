"""A replica's gate: keeps its listening socket, refuses what no worker can take, and answers for its health.

Standard library only; runs inside the shim, on the shim's own turns (`waiting`, `turn`). The workers take
connections from the socket themselves, so a request costs nothing here. Each of them says in a cell of
shared memory what it does (`gunicorn_conf.py`).

The router hands a replica as many requests at a time as it has workers. It can still send one too many: when
a client left or a timeout struck, it takes the place for free while the worker is still at work; the same
when a worker died and is being started again, and when the router's HAProxy was reloaded. Such a request
waits in the socket. When it has done so for GRACE, with no worker free or turning to another request, the
gate takes it out, and then the first of these happens:

    a worker is free                            -> it is handed to that worker
    it waited as long as it may                 -> 503, for good (and before the router gives up on it: 504)
    the router kept a copy (x-slipway-retry)    -> 425: the router takes it to another replica. A request that
                                                   comes back finds a longer hold each time

Nothing of a request has begun before a worker has it. What the router cannot send again (a body larger
than its buffer) waits for a worker of this replica.

When the workers are gone, what still waits is handed, as an open connection, to the gate of another replica
of the same revision: the router had no reason to keep a copy of it.

`GET /` on the health socket is answered at once: 503 before all workers were loaded, else 200 with
`x-slipway-silent`, the seconds for which a worker has been in one request or gone, or a connection was not
taken by one that is free; 503 when that is longer than the replica may be silent.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

LISTEN, HEALTH = "listen.sock", "health.sock"
DOOR = (
    "door.sock"  # for connections from gates whose workers are gone; there once all are loaded here
)
LOADING, IDLE = 0, 1  # of a cell; anything else is since when, monotonic microseconds

GRACE = (
    0.02  # seconds for which a connection may wait: a hand-over between two requests is far shorter
)
_FIRST_HOLD = 0.02  # of a request that was refused before; doubled each time
_TICK = 0.025  # between looks at the cells while requests come
_TICK_HOLDING = 0.005
_AWAKE = 1.0  # after the last request; then a turn comes only with the next one
_MOST_READ = 96 * 1024  # of a request that waits: more than the router's buffer holds
_LINGER = 1.0  # for the router to read a refusal
_PATIENCE = 5.0  # for a request's head, once connected
_MOST_HEALTH = 64
_REMEMBERED = 1000
_BACKLOG = 2048
_MOST_HANDED = 256 * 1024  # of a request, with its connection

_READ = select.POLLIN | select.POLLHUP | select.POLLERR
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

    def close(self) -> None:
        self.sock.close()
        if self.worker is not None:
            self.worker.close()


class Gate:
    """One run's gate. Made in the replica's folder, which is the current one from then on.

    `told` is `run.json`'s "gate": {"workers", "refuse", "wait", "hold", "silence"}, the last three in
    seconds: how long a request may wait before it is begun, how long of that here, and the replica's silence;
    and where replicas do not see each other's folders, "doors": {"folder", "name"}, a folder that the
    replicas of a revision share.
    """

    def __init__(
        self,
        folder: Path,
        told: dict[str, Any],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        os.chdir(folder)  # so that the sockets' names are short
        self.workers: int = told["workers"]
        self.refuse: bool = told["refuse"]
        self.wait: float = told["wait"]
        self.hold: float = told["hold"]
        self.silence: float = told["silence"]
        here = Path.cwd()
        shared = told.get("doors")
        self.door_name = f"{shared['folder']}/{shared['name']}" if shared else DOOR
        self.other_doors = (
            (Path(shared["folder"]), "*.sock")
            if shared
            else (here.parent, f"{here.name.rpartition('-')[0]}-*/{DOOR}")
        )
        self.clock, self.wall = clock, wall
        self.memory = os.memfd_create("slipway-cells", 0)
        os.truncate(self.memory, 8 * (self.workers + 1))
        self.cells = memoryview(mmap.mmap(self.memory, 8 * (self.workers + 1))).cast("Q")
        self.listener = _listen(LISTEN)
        self.health = _listen(HEALTH)
        self.door: socket.socket | None = None
        self.guests: list[Guest] = []
        self.asking: dict[socket.socket, float] = {}
        self.refusals: OrderedDict[bytes, int] = OrderedDict()
        self._awake_until = 0.0
        self._seen: list[int] = []
        self._same = False  # no worker took up or finished anything since the last turn
        self._waiting_since: float | None = None  # a connection waits, and no worker is free
        self._missed_since: float | None = None  # a connection waits, and a worker is free
        self._gone_since: dict[int, float] = {}
        self._handed_at = 0.0
        self._handed: list[int] | None = None

    # ---- what the shim's turns are made of ----------------------------------------------------

    def waiting(self) -> dict[int, int]:
        """Descriptor -> poll mask."""
        wanted = {self.health.fileno(): select.POLLIN}
        if self.door is not None:
            wanted[self.door.fileno()] = select.POLLIN
        if self._watches():
            wanted[self.listener.fileno()] = select.POLLIN
        for asking in self.asking:
            wanted[asking.fileno()] = select.POLLIN
        for guest in self.guests:
            wanted.update(_mask(guest))
        return wanted

    def timeout(self) -> float | None:
        """Seconds until the next turn at the latest; None is whenever something comes."""
        if self.guests:
            return _TICK_HOLDING
        if self._waiting_since is not None:
            return GRACE
        if not self._watches():
            return _TICK
        return _PATIENCE if self.asking else None

    def turn(self, ready: dict[int, int]) -> None:
        """Do what is due. `ready` is what poll said."""
        now = self.clock()
        cells = list(self.cells[: self.workers])
        self._same = cells == self._seen
        self._seen = cells
        if not self._same or self.listener.fileno() in ready:
            self._awake_until = now + _AWAKE
        for number, cell in enumerate(cells):
            if cell != LOADING:
                self._gone_since.pop(number, None)
            else:
                self._gone_since.setdefault(number, now)
        self._answer_health(ready, now)
        self._let_in(ready, now)
        self._look_at_the_socket(now)
        self._serve_guests(ready, now)

    def end(self) -> None:
        """The workers are gone: nobody new gets in, and what had not begun goes elsewhere."""
        for name in (LISTEN, HEALTH, self.door_name):
            with contextlib.suppress(OSError):
                Path(name).unlink()
        now = self.clock()
        if self.door is not None:
            self._let_in({self.door.fileno(): select.POLLIN}, now)
            self.door.close()
        with contextlib.suppress(OSError):
            self._take(now)
        self.listener.close()
        self.health.close()
        self._drop_handed()
        self._pass_on()
        until = now + 0.2
        while self.guests and (now := self.clock()) < until:
            for guest in list(self.guests):
                if guest.refused_at is None and guest.whole:
                    self._refuse(guest, now, again=guest.copied)
            poller = select.poll()
            for guest in self.guests:
                poller.register(guest.sock, _READ)
            ready = dict(poller.poll(1000 * (until - now)))
            for guest in list(self.guests):
                if guest.fileno() in ready and not guest.read(self.wall()):
                    self._drop(guest)
        for guest in list(self.guests):
            self._drop(guest)

    def _pass_on(self) -> None:
        """Give what waits to the gates of other replicas of this revision, in turn."""
        folder, pattern = self.other_doors
        own = Path(self.door_name).absolute()
        doors = [door for door in sorted(folder.glob(pattern)) if door != own]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for guest in [item for item in self.guests if item.refused_at is None]:
                for _ in range(len(doors)):
                    doors.append(doors.pop(0))
                    try:
                        sender.connect(os.path.relpath(doors[-1]))
                        # the byte in front is there for a request of which nothing was read yet
                        socket.send_fds(sender, [b".", guest.data], [guest.fileno()])
                    except OSError:
                        continue  # that one is going as well, or is full
                    self._drop(guest)
                    break

    def _let_in(self, ready: dict[int, int], now: float) -> None:
        """Take what another gate passes on."""
        if self.door is None:
            if self.cells[self.workers]:
                self.door = _bind(self.door_name, socket.SOCK_DGRAM)
            return
        while self.door.fileno() in ready:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.door, _MOST_HANDED, 1)
            except OSError:
                return
            for descriptor in descriptors:
                sock = socket.socket(fileno=descriptor)
                sock.setblocking(False)
                guest = Guest(sock, now)
                guest.data += data[1:]
                guest.parse(self.wall())
                self.guests.append(guest)

    def _drop_handed(self) -> None:
        for guest in list(self.guests):
            if guest.worker is not None:
                self._drop(guest)

    # ---- the socket ---------------------------------------------------------------------------

    def _any_idle(self) -> bool:
        return IDLE in self._seen

    def _watches(self) -> bool:
        """Whether to be woken by a connection: when all have been busy for a while, so that it is one
        too many, and when nothing has happened for long, so that the cells are looked at again."""
        if self._waiting_since is not None:
            return False
        if self._any_idle():
            return self.clock() >= self._awake_until
        return self._same

    def _look_at_the_socket(self, now: float) -> None:
        comes = _readable(self.listener)
        if not comes:
            self._waiting_since = self._missed_since = None
        elif self._any_idle():
            self._waiting_since = None
            if self._missed_since is None:
                self._missed_since = now
        elif not self._same or self._waiting_since is None:
            self._waiting_since, self._missed_since = now, None
        elif now - self._waiting_since >= GRACE and self.refuse:
            self._waiting_since = None
            self._take(now)

    def _take(self, now: float) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            self.guests.append(Guest(sock, now))

    # ---- requests that were taken out ---------------------------------------------------------

    def _serve_guests(self, ready: dict[int, int], now: float) -> None:
        for guest in list(self.guests):
            if guest.worker is not None:
                if not _relay(guest, ready):
                    self._drop(guest)
            elif (guest.fileno() in ready or not guest.data) and not guest.read(self.wall()):
                self._drop(guest)
        for guest in list(self.guests):
            if guest.worker is None:
                self._decide(guest, now)

    def _decide(self, guest: Guest, now: float) -> None:
        held = now - guest.taken_at
        if guest.refused_at is not None:
            if now - guest.refused_at > _LINGER:
                self._drop(guest)
            return
        if not guest.data:
            if held > _PATIENCE:
                self._drop(guest)
            return
        if self._hands_over(now):
            self._hand_over(guest, now)
        elif guest.waited_before + held >= self.wait:
            self._refuse(guest, now, again=False)
        elif guest.copied and guest.whole:
            before = self.refusals.get(guest.id, 0)
            if not before or held >= min(_FIRST_HOLD * 2 ** (before - 1), self.hold):
                self._refuse(guest, now, again=True)
        elif held >= self.hold:
            self._refuse(guest, now, again=False)

    def _hands_over(self, now: float) -> bool:
        """Whether a worker is free for a guest: one at a time, until the cells show that it was taken."""
        if not self._any_idle() or _readable(self.listener):
            return False
        return self._handed != self._seen or now - self._handed_at > GRACE

    def _hand_over(self, guest: Guest, now: float) -> None:
        worker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        worker.setblocking(False)
        try:
            worker.connect(LISTEN)
        except OSError:
            worker.close()
            return
        guest.worker = worker
        self._handed, self._handed_at = list(self._seen), now

    def _refuse(self, guest: Guest, now: float, *, again: bool) -> None:
        if again:
            self.refusals[guest.id] = self.refusals.pop(guest.id, 0) + 1
            while len(self.refusals) > _REMEMBERED:
                self.refusals.popitem(last=False)
            said = _REFUSAL % (b"425 Too Early", b"elsewhere")
        else:
            said = _REFUSAL % (b"503 Service Unavailable", b"full")
        guest.refused_at = now
        try:
            guest.sock.send(said)
            guest.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(guest)

    def _drop(self, guest: Guest) -> None:
        guest.close()
        self.guests.remove(guest)

    # ---- health -------------------------------------------------------------------------------

    def _answer_health(self, ready: dict[int, int], now: float) -> None:
        for asking, since in list(self.asking.items()):
            late = now - since > _PATIENCE
            if late or (asking.fileno() in ready and self._hear(asking, now)):
                del self.asking[asking]
                asking.close()
        while self.health.fileno() in ready:
            try:
                asking, _ = self.health.accept()
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
                self._tell_health(asking, now)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _tell_health(self, asking: socket.socket, now: float) -> None:
        good, silent, words = self.state(now)
        status = "200 OK" if good else "503 Service Unavailable"
        asking.send(
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(words)}\r\n"
            f"x-slipway-silent: {silent:.3f}\r\nConnection: close\r\n\r\n{words}".encode()
        )

    def state(self, now: float) -> tuple[bool, float, str]:
        """Whether it is well, for how long it has been silent (seconds), and that in words."""
        if not self.cells[self.workers]:
            return False, 0.0, "not all workers are ready"
        silent = 0.0 if self._missed_since is None else now - self._missed_since
        for number, cell in enumerate(self._seen):
            if cell == LOADING:
                silent = max(silent, now - self._gone_since.get(number, now))
            elif cell != IDLE:
                silent = max(silent, now - cell / 1e6)
        if silent > self.silence:
            return False, silent, f"no sign of life for {silent:.0f} s"
        return True, silent, "Healthy"


def _listen(name: str) -> socket.socket:
    made = _bind(name, socket.SOCK_STREAM)
    made.listen(_BACKLOG)
    return made


def _bind(name: str, kind: socket.SocketKind) -> socket.socket:
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


def _readable(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _mask(guest: Guest) -> dict[int, int]:
    """What to wait for of a guest, and of the worker that has it."""
    if guest.worker is None:
        full = guest.refused_at is None and len(guest.data) >= _MOST_READ
        return {guest.fileno(): select.POLLHUP if full else select.POLLIN}
    up = select.POLLOUT if guest.answer else 0
    if len(guest.data) < _MOST_READ:
        up |= select.POLLIN
    down = select.POLLOUT if guest.data else 0
    if len(guest.answer) < _MOST_READ and not guest.answered:
        down |= select.POLLIN
    return {guest.fileno(): up, guest.worker.fileno(): down}


def _relay(guest: Guest, ready: dict[int, int]) -> bool:
    """Carry bytes between the router and the worker; False when that is over."""
    worker = guest.worker
    if worker is None:
        return False
    try:
        if ready.get(guest.fileno(), 0) & _READ and len(guest.data) < _MOST_READ:
            data = guest.sock.recv(65536)
            if not data:
                return False
            guest.data += data
        if guest.data:
            with contextlib.suppress(BlockingIOError):
                del guest.data[: worker.send(guest.data)]
        if ready.get(worker.fileno(), 0) & _READ and len(guest.answer) < _MOST_READ:
            data = worker.recv(65536)
            guest.answered = not data
            guest.answer += data
        if guest.answer:
            with contextlib.suppress(BlockingIOError):
                del guest.answer[: guest.sock.send(guest.answer)]
    except BlockingIOError:
        return True
    except OSError:
        return False
    return bool(guest.answer) or not guest.answered
