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
taken by one that is free; 503 when that is longer than the replica may be silent. `GET /live` is 503 for
that last reason alone.

Where requests come by TCP (a pod, an Engine elsewhere), the gate can be asked from inside to leave: `GET /`
is 503 with `x-slipway-draining` from then on, requests are served as before, and it has left when everybody
had LEAVE_FIRST seconds to see that and nothing is inside. There is no gate of another replica to hand a
connection to: what still waits when the workers are gone, or comes before the router has seen that, goes back
to the router.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__:
    from deployments.agent.gate_guest import READ, Guest
    from deployments.agent.gate_sockets import (
        HEALTH,
        LEAVE,
        PATIENCE,
        Doors,
        Health,
        Leaving,
        State,
        connect_to,
        listen,
        listen_tcp,
        readable,
    )
else:  # run by its path: nothing else of the checkout can be imported
    from gate_guest import READ, Guest  # type: ignore[import-not-found, no-redef]
    from gate_sockets import (  # type: ignore[import-not-found, no-redef]
        HEALTH,
        LEAVE,
        PATIENCE,
        Doors,
        Health,
        Leaving,
        State,
        connect_to,
        listen,
        listen_tcp,
        readable,
    )

LISTEN = "listen.sock"
LOADING, IDLE = 0, 1  # of a cell; anything else is since when, monotonic microseconds

# seconds for which a connection may wait: a hand-over between two requests is far shorter
GRACE = 0.02
_FIRST_HOLD = 0.02  # of a request that was refused before; doubled each time
_TICK = 0.025  # between looks at the cells while requests come
_TICK_HOLDING = 0.005
_AWAKE = 1.0  # after the last request; then a turn comes only with the next one
_LINGER = 1.0  # for the router to read a refusal
_REMEMBERED = 1000
LEAVE_FIRST = 2.0  # for the router to see that it leaves
_TICK_LEAVING = 0.1
TURN_AWAY = 1.2  # the router asks each half second


class Gate:
    """One run's gate. Made in the replica's folder, which is the current one from then on.

    `told` is `run.json`'s "gate": {"workers", "refuse", "wait", "hold", "silence"}, the last three in
    seconds: how long a request may wait before it is begun, how long of that here, and the replica's silence;
    and where replicas do not see each other's folders, "doors": {"folder", "name"}, a folder that the
    replicas of a revision share. "tcp": {"listen": "host:port", "health": "host:port"} has both on TCP
    instead of the folder.
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
        self.clock, self.wall = clock, wall
        self.memory = os.memfd_create("slipway-cells", 0)
        os.truncate(self.memory, 8 * (self.workers + 1))
        self.cells = memoryview(mmap.mmap(self.memory, 8 * (self.workers + 1))).cast("Q")
        tcp: dict[str, str] | None = told.get("tcp")
        self.listener = listen_tcp(tcp["listen"]) if tcp else listen(LISTEN)
        self.health = Health(
            listen_tcp(tcp["health"]) if tcp else listen(HEALTH), self.state, self.alive
        )
        self.leaving = Leaving() if tcp else None
        self.doors = Doors(told.get("doors"), alone=tcp is not None)
        self.guests: list[Guest] = []
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
        wanted = {**self.health.mask(), **self.doors.mask()}
        if self.leaving is not None:
            wanted.update(self.leaving.mask())
        if self._watches():
            wanted[self.listener.fileno()] = select.POLLIN
        for guest in self.guests:
            wanted.update(guest.mask())
        return wanted

    def timeout(self) -> float | None:
        """Seconds until the next turn at the latest; None is whenever something comes."""
        if self.guests:
            return _TICK_HOLDING
        if self._waiting_since is not None:
            return GRACE
        if not self._watches():
            return _TICK
        if self._leaves():
            return _TICK_LEAVING
        return PATIENCE if self.health.asking else None

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
        self.health.turn(ready, now)
        self._let_in(ready, now)
        self._look_at_the_socket(now)
        self._serve_guests(ready, now)
        if self.leaving is not None:
            self.leaving.turn(ready, now)
            if self._has_left(now):
                self.leaving.tell_left()
                self.health.tell_left()

    def end(self) -> None:
        """The workers are gone: nobody new gets in, and what had not begun goes elsewhere."""
        if self.leaving is not None and self.cells[self.workers] and not self._leaves():
            self._turn_away()
        for name in (LISTEN, HEALTH, LEAVE, self.doors.name):
            with contextlib.suppress(OSError):
                Path(name).unlink()
        now = self.clock()
        self.guests += self.doors.take(now, self.wall())
        self.doors.close()
        with contextlib.suppress(OSError):
            self._take(now)
        self.listener.close()
        self.health.tell_left()
        self.health.close()
        if self.leaving is not None:
            self.leaving.close()
        self._drop_handed()
        for guest in self.doors.pass_on([item for item in self.guests if item.refused_at is None]):
            self._drop(guest)
        until = now + 0.2
        while self.guests and (now := self.clock()) < until:
            for guest in list(self.guests):
                if guest.refused_at is None and guest.whole:
                    self._refuse(guest, now, again=guest.copied)
            poller = select.poll()
            for guest in self.guests:
                poller.register(guest.sock, READ)
            ready = dict(poller.poll(1000 * (until - now)))
            for guest in list(self.guests):
                if guest.fileno() in ready and not guest.read(self.wall()):
                    self._drop(guest)
        for guest in list(self.guests):
            self._drop(guest)

    def _turn_away(self) -> None:
        """By TCP nobody can be kept from connecting, and who did is lost when the socket closes: so whoever
        comes is sent on until the router has seen that nobody answers for its health any more."""
        self.health.tell_left()
        self.health.close()
        for number in range(self.workers + 1):
            self.cells[number] = LOADING
        self._seen = [LOADING] * self.workers
        self._drop_handed()
        until = self.clock() + TURN_AWAY
        while (now := self.clock()) < until:
            self._take(now)
            poller = select.poll()
            poller.register(self.listener, select.POLLIN)
            for guest in self.guests:
                for descriptor, mask in guest.mask().items():
                    poller.register(descriptor, mask)
            ready = dict(poller.poll(1000 * _TICK_HOLDING))
            self._serve_guests(ready, self.clock())

    def _let_in(self, ready: dict[int, int], now: float) -> None:
        """Take what another gate passes on."""
        if self.cells[self.workers]:
            self.doors.open()
        if self.doors.mask().keys() & ready.keys():
            self.guests += self.doors.take(now, self.wall())

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
        comes = readable(self.listener)
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
                if not guest.relay(ready):
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
            if held > PATIENCE:
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
        if not self._any_idle() or readable(self.listener):
            return False
        return self._handed != self._seen or now - self._handed_at > GRACE

    def _hand_over(self, guest: Guest, now: float) -> None:
        try:
            guest.worker = connect_to(self.listener)
        except OSError:
            return
        self._handed, self._handed_at = list(self._seen), now

    def _refuse(self, guest: Guest, now: float, *, again: bool) -> None:
        if again:
            self.refusals[guest.id] = self.refusals.pop(guest.id, 0) + 1
            while len(self.refusals) > _REMEMBERED:
                self.refusals.popitem(last=False)
        if not guest.refuse(now, again=again):
            self._drop(guest)

    def _drop(self, guest: Guest) -> None:
        guest.close()
        self.guests.remove(guest)

    # ---- leaving ------------------------------------------------------------------------------

    def _leaves(self) -> bool:
        return self.leaving is not None and self.leaving.since is not None

    def _has_left(self, now: float) -> bool:
        """Whether it was asked to, everybody could see it, and nothing is inside."""
        if self.leaving is None or self.leaving.since is None:
            return False
        if not self.cells[self.workers]:
            return True  # nobody was ever let in
        if now - self.leaving.since < LEAVE_FIRST or self.guests or readable(self.listener):
            return False
        return all(cell in (LOADING, IDLE) for cell in self.cells[: self.workers])

    # ---- health -------------------------------------------------------------------------------

    def state(self, now: float) -> State:
        """Whether requests may come."""
        if not self.cells[self.workers]:
            return State(False, 0.0, "not all workers are ready", self._leaves())
        found = self.alive(now)
        if found.good and self._leaves():
            return State(False, found.silent, "draining", True)
        return found

    def alive(self, now: float) -> State:
        """Whether it may go on: no worker has been silent for too long. One that loads may take its time."""
        if not self.cells[self.workers]:
            return State(True, 0.0, "not all workers are ready", self._leaves())
        silent = 0.0 if self._missed_since is None else now - self._missed_since
        for number, cell in enumerate(self._seen):
            if cell == LOADING:
                silent = max(silent, now - self._gone_since.get(number, now))
            elif cell != IDLE:
                silent = max(silent, now - cell / 1e6)
        if silent > self.silence:
            return State(False, silent, f"no sign of life for {silent:.0f} s", self._leaves())
        return State(True, silent, "Healthy", self._leaves())
