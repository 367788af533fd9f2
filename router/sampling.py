"""From readings four times a second to one sample a second.

PURE. A sample needs counters from both ends of its second, of the same worker, about a second apart;
where that is not so there is no sample. A gap is honest, a spike or a zero would not be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.types import Capacity, Phase, Replica, Resources
from router.haproxy.pool import Key
from router.haproxy.stats import BackendFigures, Counters, delta
from router.samples import Sample

_LONGEST = 1.8  # seconds between the two ends; more is not "one second" any more
_SHORTEST = 0.4

STARTING = frozenset({Phase.SCHEDULING, Phase.PULLING, Phase.STARTING, Phase.LOADING})


@dataclass(frozen=True, slots=True)
class Mark:
    """Every version's counters at one moment, and the worker that counted."""

    at: float
    worker: int
    counters: Mapping[Key, Counters]


@dataclass(frozen=True, slots=True)
class Count:
    """How a version's replicas stand."""

    ready: int = 0
    starting: int = 0
    draining: int = 0
    desired: int = 0


def samples(
    second: int,
    readings: Sequence[Mapping[Key, BackendFigures]],
    before: Mark | None,
    after: Mark,
    counts: Mapping[Key, Count],
) -> tuple[Sample, ...]:
    """One sample for each version that was measured over the whole second."""
    if before is None or before.worker != after.worker:
        return ()
    if not _SHORTEST <= after.at - before.at <= _LONGEST:
        return ()
    found = []
    for key, end in after.counters.items():
        begin = before.counters.get(key)
        change = None if begin is None else delta(begin, end)
        figures = [reading[key] for reading in readings if key in reading]
        if change is None or not figures or key not in counts:
            continue
        count = counts[key]
        found.append(
            Sample(
                at=second,
                service=key.service,
                version=key.version,
                arrivals=change.arrivals,
                ok=change.ok,
                client_errors=change.client_errors,
                rejected=change.rejected,
                unready=change.unready,
                timeouts=change.timeouts,
                failures=change.failures,
                busy=round(sum(item.busy for item in figures) / len(figures), 3),
                busy_peak=max(item.busy for item in figures),
                queued=round(sum(item.queued for item in figures) / len(figures), 3),
                queued_peak=max(item.queued for item in figures),
                ready=count.ready,
                starting=count.starting,
                draining=count.draining,
                desired=count.desired,
                histogram=change.histogram,
            )
        )
    return tuple(found)


def retry_after(replicas: Sequence[Replica], start_seconds: float | None, now: float) -> int:
    """Whole seconds until the next starting replica should be ready; 1 when nobody knows."""
    since = [replica.created_at for replica in replicas if replica.phase in STARTING]
    if not since or start_seconds is None:
        return 1
    return min(max(math.ceil(min(since) + start_seconds - now), 1), 300)


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
