"""Which replicas to make, place, start, drain, stop and forget, to bring a cluster to what is wanted.

    create -> place -> start -> (ready) -> drain -> router says OUT -> stop -> process gone -> forget

Safety, in this order:
1. A replica that was ready in its present run is stopped only when a route report made after its
   drain began says OUT, or no longer knows it. No report, no stop: with the router down it waits. Only
   a replica of a removed service stops waiting, after a generous deadline.
2. An old revision's replica drains only as far as the new one's are ready and in rotation.
3. A replica that is ready is not let go while that leaves fewer ready ones than are wanted.
4. Nothing is started twice: a run begins only when nothing is left of the one before.

The plan is made anew each cycle from what is there, so a kill between any two actions costs nothing.
Every action moves one replica one step. PURE: no clock, no file, no process.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deployments.agent.record import PACE, Pace, Process, Record, Room, Sighting, Wanted
from deployments.types import Cause, Phase, RouteReport, RouteState


@dataclass(frozen=True, slots=True)
class Create:
    """Make a new replica of a version; it waits for a place."""

    wanted: Wanted
    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """There is room: give it its sockets' place and make its working copy."""

    replica: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """There is no room: say so and leave it waiting."""

    replica: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a run."""

    replica: str
    reason: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Take it out of use; the router sees that and lets it run empty."""

    replica: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing is inside any more: end its process."""

    replica: str
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Its process is gone for good: keep only its log."""

    replica: str
    reason: str


Action = Create | Place | Refuse | Start | Drain | Stop | Forget


def plan(
    wanted: Sequence[Wanted],
    records: Sequence[Record],
    sightings: Mapping[str, Sighting],
    report: RouteReport | None,
    room: Room,
    now: float,
    pace: Pace = PACE,
) -> list[Action]:
    """The next actions; empty when the cluster is as wanted, or waits for something."""
    actions: list[Action] = []
    versions = {(item.service, item.version) for item in wanted}
    services = {item.service for item in wanted}
    for item in wanted:
        own = [
            record
            for record in records
            if (record.service, record.version) == (item.service, item.version)
        ]
        actions += _version(item, own, report)
    for record in records:
        if (record.service, record.version) not in versions and not record.leaving:
            what = "version" if record.service in services else "service"
            actions.append(Drain(record.id, f"its {what} was removed"))
    draining = {action.replica for action in actions if isinstance(action, Drain)}
    actions += _start(records, sightings, room, now, draining)
    for record in records:
        if record.leaving:
            seen = sightings.get(record.id, Sighting())
            actions += _leave(record, seen, report, record.service in services, now, pace)
    return actions


def surge(count: int) -> int:
    """How many more than wanted may exist while a new revision rolls in."""
    return max(1, math.ceil(count / 4))


def in_rotation(record: Record, report: RouteReport | None) -> bool:
    """The router sends requests to this very run."""
    if record.phase is not Phase.READY or record.ready_at is None or report is None:
        return False
    return report.at >= record.ready_at and any(
        route.replica == record.id and route.state is RouteState.IN_ROTATION
        for route in report.routes
    )


def _version(item: Wanted, own: Sequence[Record], report: RouteReport | None) -> list[Action]:
    current = [record for record in own if record.key == item.key and not record.leaving]
    old = [record for record in own if record.key != item.key and not record.leaving]
    missing = item.count - len(current)
    if old:
        missing = min(missing, item.count + surge(item.count) - len(current) - len(old))
    actions: list[Action] = []
    if missing > 0:
        reason = f"{len(current)} of {item.count} wanted exist"
        actions += [Create(item, reason)] * missing
    serving = sum(in_rotation(record, report) for record in current)
    keep = max(0, item.count - serving)
    if len(old) > keep:
        reason = f"revision {item.revision.number} has {serving} in rotation"
        leave = sorted(old, key=_least_useful)[: len(old) - keep]
        actions += [Drain(record.id, reason) for record in leave]
    if len(current) > item.count:
        reason = f"{len(current)} exist, {item.count} are wanted"
        actions += [Drain(record.id, reason) for record in _victims(item, current)]
    return actions


def _least_useful(record: Record) -> tuple[bool, float]:
    """Not ready first, then newest."""
    return (record.phase is Phase.READY, -record.created_at)


def _victims(item: Wanted, current: Sequence[Record]) -> list[Record]:
    """Whom to let go: those the router would miss least, then not ready, then newest."""
    preferred = {name: place for place, name in enumerate(item.prefer_removing)}
    order = sorted(
        current,
        key=lambda record: (
            record.id not in preferred,
            preferred.get(record.id, 0),
            *_least_useful(record),
        ),
    )
    too_many = len(current) - item.count
    ready_may_go = max(0, sum(r.phase is Phase.READY for r in current) - item.count)
    chosen: list[Record] = []
    for record in order:
        if len(chosen) == too_many:
            break
        if record.phase is Phase.READY:
            if not ready_may_go:
                continue
            ready_may_go -= 1
        chosen.append(record)
    return chosen


def _start(
    records: Iterable[Record],
    sightings: Mapping[str, Sighting],
    room: Room,
    now: float,
    draining: set[str],
) -> list[Action]:
    """Runs to begin: oldest first, as far as there is room."""
    cpu = room.cpu - sum(r.revision.resources.cpu for r in records if r.placed)
    memory = room.memory_gb - sum(r.revision.resources.memory_gb for r in records if r.placed)
    gpus = room.gpu - sum(r.revision.resources.gpu for r in records if r.placed)
    actions: list[Action] = []
    for record in sorted(records, key=lambda record: (record.created_at, record.id)):
        if record.id in draining:
            continue
        seen = sightings.get(record.id, Sighting())
        if record.phase is Phase.SCHEDULING:
            asked = record.revision.resources
            lacks = asked.cpu > cpu + 1e-9 or asked.memory_gb > memory + 1e-9
            if lacks or asked.gpu > max(gpus, 0):
                cause = _no_room(record, cpu, memory, gpus)
                if record.cause != cause:
                    actions.append(Refuse(record.id, cause))
                continue
            cpu -= asked.cpu
            memory -= asked.memory_gb
            gpus -= asked.gpu
            actions.append(Place(record.id, "there is room"))
        elif record.phase is Phase.PULLING and seen.prepared:
            actions.append(Start(record.id, "its files are in place"))
        elif (
            record.phase is Phase.CRASHED
            and now >= record.next_start_at
            and seen.process is not Process.RUNNING
        ):
            actions.append(Place(record.id, f"back-off after crash {record.crashes} is over"))
    return actions


def _no_room(record: Record, cpu: float, memory: float, gpus: int) -> Cause:
    asked = record.revision.resources
    wants_gpu = f" and {asked.gpu} GPU" if asked.gpu else ""
    has_gpu = f" and {max(gpus, 0)} GPU" if asked.gpu else ""
    return Cause(
        "PodUnschedulable",
        f"A replica of {record.service} asks for {asked.cpu:g} cores and {asked.memory_gb:g} GiB"
        f"{wants_gpu}; "
        f"this machine has {max(cpu, 0):.2f} cores and {max(memory, 0):.2f} GiB{has_gpu} left. "
        "Ask for less, run fewer replicas, or remove another service.",
    )


def _leave(
    record: Record,
    seen: Sighting,
    report: RouteReport | None,
    service_wanted: bool,
    now: float,
    pace: Pace,
) -> list[Action]:
    begun = record.started_at if record.run else None
    if seen.process is Process.NONE and begun is not None and now - begun <= pace.silent_start:
        return []  # its shim may be about to speak: forgotten now, nobody would know that process
    if seen.process is not Process.RUNNING:
        return [Forget(record.id, "its process is gone")]
    if record.term_at is not None:
        return []
    reason = _may_stop(record, report, service_wanted, now, pace)
    return [Stop(record.id, reason)] if reason else []


def _may_stop(
    record: Record, report: RouteReport | None, service_wanted: bool, now: float, pace: Pace
) -> str:
    """Why its process may be ended now, or "" while it may not."""
    begun = now if record.drain_at is None else record.drain_at
    if record.ready_at is None:
        return "it was never ready"
    if report is not None and report.at > begun:
        routes = [route for route in report.routes if route.replica == record.id]
        if all(route.state is RouteState.OUT for route in routes):
            return "the router has nothing inside it"
    if not service_wanted and now - begun > pace.removed_deadline:
        return f"its service was removed {now - begun:.0f} s ago and the router says nothing"
    return ""
