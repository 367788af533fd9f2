"""When a client that was refused should come again: the Retry-After of each version's 503.

PURE. A version whose replicas all stand and in which nobody waits has none of its own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deployments.types import Phase, Replica
from router.haproxy.pool import Key
from router.haproxy.stats import BackendFigures
from router.versions import Version

_LONGEST_WAIT = 300


@dataclass(frozen=True, slots=True)
class Coming:
    """What may become ready: when each replica on its way began, when each one in a crash loop fell,
    how many are wanted and not made yet, and how long a start usually takes (None: not known)."""

    since: Sequence[float] = ()
    fallen: Sequence[float] = ()
    unmade: int = 0
    start_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits in the router now, how many requests replicas take at a time, how long one takes."""

    queued: int = 0
    places: int = 0
    service_seconds: float | None = None


def of_each(
    versions: Mapping[Key, Version],
    figures: Mapping[Key, BackendFigures],
    ready: Callable[[Key], int],
    now: float,
) -> dict[Key, int]:
    """Seconds by version; calm ones that nobody waits for are left out. `ready` says how many replicas
    of a version take requests."""
    waits = {}
    for key, version in versions.items():
        figure = figures.get(key)
        queued = 0 if figure is None else figure.queued
        if version.calm and not queued:
            continue
        waits[key] = retry_after(
            Coming(
                version.standing.starting_since,
                fell_at(version.replicas),
                max(version.desired - len(version.replicas), 0),
                _usual_start(key, versions),
            ),
            Queue(
                queued,
                ready(key) * version.spec.revision.concurrency,
                version.scaling.service_seconds,
            ),
            now,
        )
    return waits


def retry_after(coming: Coming, queue: Queue, now: float) -> int:
    """Whole seconds, 1 to 300, until a client that was refused should come again.

    Until the next replica should be ready, where one is on its way or wanted. One that takes longer
    than usual, or of which no start is known, is given as long again as it is late. Where none will
    come: until what waits now is worked off.
    """
    usual = coming.start_seconds or 0.0
    waits = [
        left if (left := since + usual - now) > 0 else now - since - usual for since in coming.since
    ]
    if coming.unmade and coming.start_seconds is not None:
        waits.append(coming.start_seconds)
    if not waits and not queue.places:
        waits = [now - at for at in coming.fallen]
    if not waits and queue.places and queue.service_seconds is not None:
        waits = [queue.queued * queue.service_seconds / queue.places]
    return min(max(math.ceil(min(waits, default=0.0)), 1), _LONGEST_WAIT)


def fell_at(replicas: Sequence[Replica]) -> tuple[float, ...]:
    """When each replica that crashed, and is not on its way again, did."""
    return tuple(
        replica.last_exit.at
        for replica in replicas
        if replica.phase is Phase.CRASHED and replica.last_exit is not None
    )


def _usual_start(key: Key, versions: Mapping[Key, Version]) -> float | None:
    """How long a replica of it takes to start: as learnt, else as another version's does."""
    own = versions[key].scaling.start_seconds
    if own is not None:
        return own
    siblings = (Key(key.service, item.name) for item in versions[key].service.versions)
    others = (versions[other].scaling.start_seconds for other in siblings if other in versions)
    return max((item for item in others if item is not None), default=None)
