"""What several pods of one router agree on, each by itself: whose a version is, who leads, what all counted.

PURE. The pods share nothing but what the cluster shows them of each other.

    share    each version is one pod's (rendezvous of their names, so a pod that comes or goes moves only its
             own part): there is its queue, and there its replicas are counted. A pod that is not ready, is
             about to go or cannot be connected to is nobody's owner.
    lead     one pod scales: the one whose name stands in the Lease. It renews every RENEW_SECONDS and stops
             to lead before anybody else may begin: KEEP_SECONDS < TAKE_SECONDS.
    add up   figures of all pods together are the router's. What one pod could not tell is told by nobody:
             a second without all of them is no second.

Views may differ for a moment: two pods may then serve one version, and its replicas' gates hold the limit.
No clock is compared between machines: a Lease is old when it has not changed for so long by the own clock.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from router.haproxy.pool import Key
from router.samples import Sample
from router.size_wire import RouterSample

RENEW_SECONDS = 2.0
KEEP_SECONDS = 5.0
TAKE_SECONDS = 6.0
SETTLED_SECONDS = 2.0  # so long a version is served by whoever is asked, until all pods know of it


@dataclass(frozen=True, slots=True)
class Member:
    """A pod of the router as the cluster shows it. `address` is its IP."""

    name: str
    address: str
    ready: bool
    leaving: bool = False


# ---- whose a version is ---------------------------------------------------------------------------


def owner(key: Key, names: Collection[str]) -> str | None:
    """The one of these pods that serves this version."""
    return max(names, key=lambda name: (_weight(name, key), name), default=None)


def _weight(name: str, key: Key) -> bytes:
    return hashlib.blake2b(f"{name}\n{key}".encode(), digest_size=8).digest()


def handed_on(
    backends: Mapping[Key, str], slots: Mapping[str, str], me: str | None, settled: Collection[Key]
) -> dict[str, str]:
    """Backend -> the slot of the pod that serves it; those that this pod serves are not in it.

    `slots` is by the name of each other pod that takes requests; `me` None: this pod is about to go.
    """
    names = [*slots] if me is None else [me, *slots]
    found = {}
    for key, backend in backends.items():
        if key in settled and (whose := owner(key, names)) is not None and whose != me:
            found[backend] = slots[whose]
    return found


# ---- who leads ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """As read: `turn` is another one with each change, `holder` "" when nobody has it."""

    holder: str
    turn: str


class Step(StrEnum):
    """What to do about the Lease now."""

    RENEW = "renew"
    TAKE = "take"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Leadership:
    """What one pod knows of it. Times are its own, monotonic."""

    lease: Lease | None = None
    changed_at: float = 0.0  # when the lease was first seen as it is
    renewed_at: float | None = None  # when the last successful renewal of ours was begun

    def leads(self, now: float) -> bool:
        return self.renewed_at is not None and now - self.renewed_at < KEEP_SECONDS


def seen(state: Leadership, lease: Lease, me: str, now: float) -> tuple[Leadership, Step]:
    """The lease was read. The step is to be carried out by compare-and-set, and told with `renewed`."""
    if state.lease != lease:
        state = replace(state, lease=lease, changed_at=now)
    if lease.holder == me:
        return state, Step.RENEW
    state = replace(state, renewed_at=None)
    if not lease.holder or now - state.changed_at >= TAKE_SECONDS:
        return state, Step.TAKE
    return state, Step.WAIT


def renewed(state: Leadership, lease: Lease, begun: float, now: float) -> Leadership:
    """Our name stands in it since a write that was begun then."""
    return replace(state, lease=lease, changed_at=now, renewed_at=begun)


# ---- what all counted -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """One second of one pod. `quiet` are the versions in which nothing happened; None in the place of
    samples is a second that was not measured."""

    at: int
    samples: tuple[Sample, ...] | None
    quiet: frozenset[Key] = frozenset()


_ADDED = ("arrivals", "ok", "client_errors", "rejected", "unready", "timeouts", "failures", "busy",
          "busy_peak", "queued", "queued_peak")  # fmt: skip
_HISTOGRAMS = ("histogram", "queue_histogram", "service_histogram")


def summed(own: Told, others: Sequence[Told]) -> tuple[Sample, ...]:
    """The router's samples of a second; how replicas stand is this pod's word. A version that one of
    them did not measure has none."""
    if own.samples is None or any(told.samples is None for told in others):
        return ()
    parts = [
        ({Key(item.service, item.version): item for item in told.samples or ()}, told.quiet)
        for told in others
    ]
    found = []
    for sample in own.samples:
        key, total = Key(sample.service, sample.version), sample
        for loud, quiet in parts:
            if (part := loud.get(key)) is not None:
                total = _plus(total, part)
            elif key not in quiet:
                break
        else:
            found.append(total)
    return tuple(found)


def _plus(one: Sample, other: Sample) -> Sample:
    total: dict[str, Any] = {name: getattr(one, name) + getattr(other, name) for name in _ADDED}
    lists: dict[str, Any] = {
        name: tuple(map(int.__add__, getattr(one, name), getattr(other, name)))
        for name in _HISTOGRAMS
    }
    return replace(one, **total, **lists)


def together(own: RouterSample, others: Iterable[RouterSample]) -> RouterSample:
    """The router's own figures: what it used is added up, how slow it is is the slowest pod's word."""
    for other in others:
        answers = [item for item in (own.routing_ms, other.routing_ms) if item is not None]
        own = replace(
            own,
            routing_ms=max(answers, default=None),
            idle=min(own.idle, other.idle),
            cpu=round(own.cpu + other.cpu, 4),
            connections=own.connections + other.connections,
            requests=round(own.requests + other.requests, 2),
        )
    return own
