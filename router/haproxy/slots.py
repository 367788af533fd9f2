"""Which replica stands in which slot, and the commands that bring HAProxy there.

PURE: bookkeeping only, no socket, no clock.

    FREE ──join──> JOINED ──leave──> DRAINING ──idle, seen later──> SETTLING ──idle, seen later──> FREE
                     ^                  │
                     └──wanted again────┘

Safety rule: a slot's replica is out, and the slot is for somebody else, only after a reading that was
begun *after* HAProxy took `state maint` showed nothing inside. "Later" is by the reading's own time,
never by counting ticks, and a slot that was not read changes nothing.

The order of a join is exact on every version: the address, the limit while nothing can enter, drain,
ready, and the limit once more, which makes the slot take waiting requests at once. The limit comes
before `ready` because a slot's last replica may have had a higher one.

A slot whose replica listens on a unix socket has a fixed path of its own, which HAProxy cannot change: a
link there says whose it is. The plan's `links` are made before its commands are sent, while the slot
is in maintenance in every worker, old ones of a reload included: `Server.maintenance` says so.

A plan's slots count as soon as it is made, before its commands are sent, and the commands are idempotent:
whatever did not get through is seen in the next reading and said again. So a slot may be held for
longer than needed, never be called free too early.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from router.haproxy.stats import Server

# of a pod's gate: where it takes requests, and where it answers checks
GATE_PORT, GATE_HEALTH_PORT = 5001, 5002


class State(StrEnum):
    FREE = "free"
    JOINED = "joined"
    DRAINING = "draining"
    SETTLING = "settling"


@dataclass(frozen=True, slots=True)
class Slot:
    """One server line of a backend. `since` is the time of the command that brought it here."""

    backend: str
    name: str
    state: State = State.FREE
    replica: str = ""  # "" in a slot that is not free: whose it was is not known any more
    address: str = ""
    concurrency: int = 1
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A replica that should take requests."""

    replica: str
    address: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The slots as they should be after `links` and then `commands`. `unplaced` found no free slot."""

    slots: tuple[Slot, ...]
    commands: tuple[str, ...]
    unplaced: tuple[Wanted, ...] = ()
    links: tuple[Slot, ...] = ()  # slots whose path is to lead to their replica's socket


def socket_of(address: str) -> str | None:
    """The path of a replica's unix socket, or None where it has a host and a port."""
    return address.removeprefix("unix:") if address.startswith("unix:") else None


def check_port(address: str) -> int:
    """Where a replica at "host:port" answers checks: a pod's gate on a port of its own, which answers
    while the replica scores; anything else where it takes requests."""
    port = int(address.rpartition(":")[2])
    return GATE_HEALTH_PORT if port == GATE_PORT else port


def plan(
    slots: Sequence[Slot],
    wanted: Iterable[Wanted],
    seen: Mapping[str, Server],
    read_at: float,
    now: float,
) -> Plan:
    """One backend's next step.

    `seen` is by slot name, from a reading begun at `read_at`; `now` is later than that and earlier
    than the moment the commands are sent. All three on the same clock.
    """
    waiting = {item.replica: item for item in wanted}
    after: list[Slot] = []
    commands: list[str] = []
    links: list[Slot] = []
    for slot in slots:
        server = seen.get(slot.name)
        if server is None:
            waiting.pop(slot.replica, None)
            after.append(slot)
            continue
        item = waiting.get(slot.replica)
        stays = item is not None and item.address == slot.address
        if stays and slot.state in (State.JOINED, State.DRAINING):
            del waiting[slot.replica]
        step, said = _step(slot, stays, server, read_at > slot.since, now)
        after.append(step)
        commands += said
    for index, slot in enumerate(after):
        if not waiting:
            break
        server = seen.get(slot.name)
        if slot.state is not State.FREE or server is None or read_at <= slot.since:
            continue
        if not server.maintenance or server.used:
            continue
        item = waiting.pop(next(iter(waiting)))
        after[index] = replace(
            slot,
            state=State.JOINED,
            replica=item.replica,
            address=item.address,
            concurrency=item.concurrency,
            since=now,
        )
        commands += _join(after[index])
        if socket_of(item.address) is not None:
            links.append(after[index])
    return Plan(tuple(after), tuple(commands), tuple(waiting.values()), tuple(links))


def _step(
    slot: Slot, stays: bool, server: Server, later: bool, now: float
) -> tuple[Slot, list[str]]:
    """A slot that holds somebody, or should hold nobody: its next state and the commands for it."""
    if slot.state is State.JOINED:
        if not stays:
            return replace(slot, state=State.DRAINING, since=now), [_set(slot, "state drain")]
        if later and _moved(slot, server):  # its link leads elsewhere: let it go, it joins anew
            return replace(slot, state=State.DRAINING, since=now), [_set(slot, "state drain")]
        right = server.address == slot.address and not (server.maintenance or server.draining)
        if later and not right:  # HAProxy lost it
            return replace(slot, since=now), _join(slot)
    elif slot.state is State.DRAINING:
        if stays and server.address == slot.address:
            return replace(slot, state=State.JOINED, since=now), _join(slot)
        if later and not (server.draining or server.maintenance):
            return replace(slot, since=now), [_set(slot, "state drain")]
        if later and server.used == 0:
            return replace(slot, state=State.SETTLING, since=now), [_set(slot, "state maint")]
    elif slot.state is State.SETTLING:
        if later and not server.maintenance:
            return replace(slot, since=now), [_set(slot, "state maint")]
        if later and server.used == 0:
            return Slot(slot.backend, slot.name, since=slot.since), []
    elif later and not server.maintenance:
        # somebody put a server here that is not ours to keep: let it go gently
        stray = replace(slot, state=State.DRAINING, address=server.address, since=now)
        return stray, [_set(stray, "state drain")]
    return slot, []


def adopt(
    servers: Iterable[Server],
    limits: Mapping[tuple[str, str], int],
    remembered: Iterable[Slot],
    wanted: Iterable[Wanted],
    now: float,
) -> tuple[Slot, ...]:
    """The slots of one backend as a loop finds them that has just started.

    Whose a slot is comes from what was remembered (when the address still agrees), else from the
    address of a replica of this backend's version; a slot of nobody is let go by the next plan.
    """
    by_slot = {slot.name: slot for slot in remembered if slot.replica}
    by_address = {item.address: item for item in wanted}
    found = []
    for server in servers:
        known = by_slot.get(server.name)
        if known is not None and known.address == server.address:
            replica = known.replica
        elif server.address in by_address:
            replica = by_address[server.address].replica
        else:
            replica = ""
        if server.maintenance:
            state = State.SETTLING if server.used else State.FREE
        else:
            state = State.DRAINING if server.draining else State.JOINED
        slot = Slot(server.backend, server.name, since=now)
        if state is not State.FREE:
            slot = replace(
                slot,
                state=state,
                replica=replica,
                address=server.address,
                concurrency=limits.get((server.backend, server.name), 1),
            )
        found.append(slot)
    return tuple(found)


def _moved(slot: Slot, server: Server) -> bool:
    unix = socket_of(slot.address) is not None or server.address.startswith("unix")
    return unix and server.address != slot.address


def _join(slot: Slot) -> list[str]:
    limit = f"set maxconn server {slot.backend}/{slot.name} {slot.concurrency}"
    where = []
    if socket_of(slot.address) is None:
        host, _, port = slot.address.rpartition(":")
        where = [
            _set(slot, f"addr {host.strip('[]')} port {port}"),
            _set(slot, f"check-port {check_port(slot.address)}"),
        ]
    return [
        *where,
        limit,
        _set(slot, "state drain"),
        _set(slot, "state ready"),
        limit,
    ]


def _set(slot: Slot, what: str) -> str:
    return f"set server {slot.backend}/{slot.name} {what}"
