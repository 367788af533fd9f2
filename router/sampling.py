"""From readings four times a second to one sample a second.

PURE. A sample needs counters from both ends of its second, about a second apart, of every worker that
counted meanwhile; where that is not so there is no sample. A gap is honest, a spike or a zero would not
be.

After a reload two workers count: the new one, from zero, and the old one, which still finishes what it
had. Both are added up for as long as the old one can be read. What it counts between its last reading
and its end is known to nobody: that second has no sample.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deployments.types import Capacity, Phase, Resources
from router.haproxy.pool import Key
from router.haproxy.stats import NOTHING, BackendFigures, Counters, added, delta
from router.samples import Sample

_LONGEST = 1.8  # seconds between the two ends; more is not "one second" any more
_SHORTEST = 0.4

STARTING = frozenset({Phase.SCHEDULING, Phase.PULLING, Phase.STARTING, Phase.LOADING})

Counted = Mapping[int, Mapping[str, Counters]]  # worker's pid -> backend -> its counters


@dataclass(frozen=True, slots=True)
class Mark:
    """What every worker had counted at one moment, and which backend was whose."""

    at: float
    worker: int  # the one that takes new connections
    counted: Counted
    backends: Mapping[Key, str]


@dataclass(frozen=True, slots=True)
class Change:
    """What was counted between two marks. `whole` is False where some of it cannot be known."""

    seconds: float = 0.0
    whole: bool = False
    by_version: Mapping[Key, Counters] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Count:
    """How a version's replicas stand."""

    ready: int = 0
    starting: int = 0
    draining: int = 0
    desired: int = 0


_ZERO = Counters()


def change(before: Mark | None, after: Mark) -> Change:
    """What each version's requests added. A version that is new, or stands elsewhere, is not in it."""
    if before is None:
        return Change()
    whole = before.counted.keys() <= after.counted.keys()
    whole = whole and all(pid in before.counted or pid == after.worker for pid in after.counted)
    found: dict[Key, Counters] = {}
    for key, backend in after.backends.items():
        if before.backends.get(key) != backend:
            continue
        total: Counters | None = None
        for pid, counted in after.counted.items():
            end = counted.get(backend)
            if end is None:
                continue
            started = before.counted.get(pid)
            if started is None and pid != after.worker:
                continue
            begin = _ZERO if started is None else started.get(backend)
            part = None if begin is None else delta(begin, end)
            if part is None:
                total = None
                break
            total = part if total is None else added(total, part)
        if total is not None:
            found[key] = total
    return Change(after.at - before.at, whole, found)


def samples(
    second: int,
    readings: Sequence[Mapping[Key, BackendFigures]],
    changed: Change,
    counts: Mapping[Key, Count],
) -> tuple[Sample, ...]:
    """One sample for each version that was measured over the whole second."""
    if not changed.whole or not _SHORTEST <= changed.seconds <= _LONGEST:
        return ()
    found = []
    for key, part in changed.by_version.items():
        figures = [reading[key] for reading in readings if key in reading]
        if not figures or key not in counts:
            continue
        count = counts[key]
        if part is NOTHING and not any(item.busy or item.queued for item in figures):
            found.append(_idle(second, key, count))
            continue
        found.append(
            Sample(
                at=second,
                service=key.service,
                version=key.version,
                arrivals=part.arrivals,
                ok=part.ok,
                client_errors=part.client_errors,
                rejected=part.rejected,
                unready=part.unready,
                timeouts=part.timeouts,
                failures=part.failures,
                busy=round(sum(item.busy for item in figures) / len(figures), 3),
                busy_peak=max(item.busy for item in figures),
                queued=round(sum(item.queued for item in figures) / len(figures), 3),
                queued_peak=max(item.queued for item in figures),
                ready=count.ready,
                starting=count.starting,
                draining=count.draining,
                desired=count.desired,
                histogram=part.histogram,
                queue_histogram=part.queue_histogram,
                service_histogram=part.service_histogram,
            )
        )
    return tuple(found)


def _idle(second: int, key: Key, count: Count) -> Sample:
    """Of a version that nobody asked for: most of a large cluster's."""
    return Sample(
        second,
        key.service,
        key.version,
        ready=count.ready,
        starting=count.starting,
        draining=count.draining,
        desired=count.desired,
    )


def placeable(capacity: Capacity | None, resources: Resources) -> int | None:
    """How many more replicas the cluster has room for; None when that is not known."""
    if capacity is None:
        return None
    room = 0
    for node in capacity.nodes:
        fits = [math.floor(node.cpu_free / resources.cpu + 1e-6)]
        fits.append(math.floor(node.memory_gb_free / resources.memory_gb + 1e-6))
        if resources.gpu:
            fits.append(node.gpu_free // resources.gpu)
        room += max(min(fits), 0)
    return room
