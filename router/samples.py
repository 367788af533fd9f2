"""What the router measures and decides, as frozen values: the wire between router and portal.

PURE. A sample is one second of one version's figures. Unknown is never zero: a second that could not
be read has no sample at all, and whoever draws or decides sees the gap.
"""

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

# Upper bounds of the latency histogram's buckets in microseconds; a last bucket holds all above.
# HAProxy counts into them itself (`router.haproxy.render`), so that quantiles are of every request.
BUCKET_BOUNDS_US: tuple[int, ...] = (
    1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 50_000, 75_000, 100_000,
    150_000, 200_000, 300_000, 500_000, 750_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
    30_000_000, 60_000_000,
)  # fmt: skip
BUCKETS = len(BUCKET_BOUNDS_US) + 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of one version of a service."""

    at: int  # the second it covers begins here, epoch seconds
    service: str
    version: str
    arrivals: int = 0  # requests that passed authorisation
    ok: int = 0  # answered 2xx or 3xx
    client_errors: int = 0  # answered 4xx, by a replica or by the router
    rejected: int = 0  # 503: queue wait over, or no ready replica
    timeouts: int = 0  # 504
    failures: int = 0  # 502
    busy: float = 0.0  # requests inside replicas, mean of the second's readings
    busy_peak: int = 0
    queued: float = 0.0  # requests waiting in the router, mean
    queued_peak: int = 0
    ready: int = 0  # replicas in rotation
    starting: int = 0  # wanted and not ready yet
    draining: int = 0
    desired: int = 0
    histogram: tuple[int, ...] = (0,) * BUCKETS  # of 2xx answers' total time in the router
    unready: int = 0  # of `rejected`: no replica was ready when the router answered
    queue_histogram: tuple[int, ...] = (0,) * BUCKETS  # of the same answers' wait in the queue
    service_histogram: tuple[int, ...] = (0,) * BUCKETS  # and of their time at the replica


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """An autoscaler verdict that changed something, or was prevented from it."""

    at: float
    service: str
    version: str
    before: int  # replicas wanted before
    after: int  # and after; equal when it was prevented
    code: str  # `router.autoscaler.policy.Code`, or `router.hindrances.NOT_APPLIED`
    reason: str  # a sentence with its figures
    applied: bool
    inputs: dict[str, Any] = field(default_factory=dict)
    # Of a hindrance: the last moment it was so, and whether that was its end. None: not a hindrance.
    # The same row (service, version, at) is told again with later values.
    until: float | None = None
    over: bool = False


@dataclass(frozen=True, slots=True)
class TelemetryPage:
    """Answer of the router's `/telemetry?after=N`: everything after sequence number N.

    `epoch` names the router loop's run: a new one starts counting anew, so the reader asks from 0.
    `next` is what to ask with next time.
    """

    epoch: str
    next: int
    samples: tuple[Sample, ...] = ()
    decisions: tuple[DecisionRecord, ...] = ()


_SAMPLE = tuple(item.name for item in fields(Sample))
_DECISION = tuple(item.name for item in fields(DecisionRecord))
_HISTOGRAMS = ("histogram", "queue_histogram", "service_histogram")
_PLAIN = tuple(name for name in _SAMPLE if name not in _HISTOGRAMS)
_EMPTY = (0,) * BUCKETS
_plain = attrgetter(*_PLAIN)


def to_wire(page: TelemetryPage) -> dict[str, Any]:
    """The page as plain JSON values. A sample is a list, its histograms only their filled buckets
    ([index, count, ...]): a large cluster has a thousand a second, and most of them are idle."""
    return {
        "epoch": page.epoch,
        "next": page.next,
        "sample_fields": (*_PLAIN, *_HISTOGRAMS),
        "samples": [
            [*_plain(item), *(_sparse(getattr(item, name)) for name in _HISTOGRAMS)]
            for item in page.samples
        ],
        "decisions": [{name: getattr(item, name) for name in _DECISION} for item in page.decisions],
    }


def from_wire(data: Any) -> TelemetryPage:
    """The inverse; names that this version does not know are passed over. Raises ValueError."""
    try:
        names = data["sample_fields"]
        known = [(index, name) for index, name in enumerate(names) if name in _SAMPLE]
        samples = []
        for row in data["samples"]:
            values = {name: row[index] for index, name in known}
            for name in _HISTOGRAMS:
                if name in values:
                    values[name] = _dense(values[name])
            samples.append(Sample(**values))
        decisions = tuple(
            DecisionRecord(**{name: item[name] for name in _DECISION if name in item})
            for item in data["decisions"]
        )
        return TelemetryPage(str(data["epoch"]), int(data["next"]), tuple(samples), decisions)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not a page of telemetry: {error!r}") from error


def _sparse(counts: tuple[int, ...]) -> list[int]:
    if counts is _EMPTY or counts == _EMPTY:
        return []
    return [part for pair in enumerate(counts) if pair[1] for part in pair]


def _dense(pairs: list[int]) -> tuple[int, ...]:
    if not pairs:
        return _EMPTY
    counts = [0] * BUCKETS
    for index, count in zip(pairs[::2], pairs[1::2], strict=True):
        counts[index] = count
    return tuple(counts)


def quantile_us(histogram: tuple[int, ...], q: float) -> float | None:
    """The q-quantile in microseconds, linear inside its bucket; None when nothing was counted."""
    total = sum(histogram)
    if total == 0:
        return None
    rank = q * total
    seen = 0
    for index, count in enumerate(histogram):
        if count and seen + count >= rank:
            low = BUCKET_BOUNDS_US[index - 1] if index else 0
            high = BUCKET_BOUNDS_US[index] if index < len(BUCKET_BOUNDS_US) else low
            return low + (high - low) * (rank - seen) / count
        seen += count
    return float(BUCKET_BOUNDS_US[-1])
