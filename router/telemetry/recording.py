"""A past range of one version out of the store: what was, and what the simulator needs to run it again.

Only reads. The finest resolution that is still kept for all of the range is taken, and it says which. A gap
is no figure: seconds that were not measured have no requests, and are told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from router.autoscaler.replay import Block
from router.samples import BUCKETS, quantile_us
from router.telemetry import queries
from router.telemetry.columns import COLUMNS
from router.telemetry.ledger import CHANGES
from router.telemetry.models import Decision, Series, unpack_histogram
from router.telemetry.rollups import LEVELS, Level

_AT, _SECONDS = COLUMNS.index("at"), COLUMNS.index("seconds")
_INDEX = {name: index for index, name in enumerate(COLUMNS)}


@dataclass(frozen=True, slots=True)
class Recording:
    """Rows of `COLUMNS` by time, merged over what the version had; `since` and `until` epoch seconds."""

    step: int
    since: int
    until: int
    rows: tuple[tuple, ...]

    @property
    def measured(self) -> int:
        """Seconds of the range that were measured."""
        return sum(row[_SECONDS] for row in self.rows)

    def total(self, column: str) -> int:
        """A count over the whole range."""
        index = _INDEX[column]
        return sum(row[index] for row in self.rows)


@dataclass(frozen=True, slots=True)
class Figures:
    """How it went, as measured. Waits are seconds of answered requests, None where there were none."""

    requests: int
    rejected: int
    overloaded: int  # of the rejected: replicas were ready, and full
    timeouts: int
    wait_p95: float | None
    replica_hours: float  # ready, starting and draining, over the measured seconds
    actions: int
    peak: int  # most replicas at a time

    @property
    def rejected_share(self) -> float:
        return self.rejected / self.requests if self.requests else 0.0


def level_for(since: int, now: float) -> Level | None:
    """The finest resolution that is kept for everything since then; None: nothing is."""
    for level in LEVELS:
        # the last minute before it is forgotten is too short to read it in
        if since >= now - level.keep + min(60, level.step * 6):
            return level
    return None


def series(cluster: str, service: str, version: str) -> list[int]:
    rows = Series.objects.filter(cluster=cluster, service=service, version=version)
    return list(rows.values_list("pk", flat=True))


def read(ids: Sequence[int], since: int, until: int, level: Level) -> Recording:
    """The range, widened to whole buckets of the resolution."""
    step = level.step
    since, until = since - since % step, until + -until % step
    found = queries.merged(ids, since, until, step) if ids else {}
    rows = tuple(found[key] for key in sorted(found))
    return Recording(step, since, until, rows)


def blocks(recording: Recording) -> list[Block]:
    """For `replay.requests`."""
    return [
        Block(
            at=row[_AT] - recording.since,
            seconds=recording.step,
            arrivals=row[_INDEX["arrivals"]],
            refused=row[_INDEX["rejected"]],
            timeouts=row[_INDEX["timeouts"]],
            busy_seconds=row[_INDEX["busy"]] * row[_SECONDS],
            histogram=unpack_histogram(row[_INDEX["service_histogram"]]),
        )
        for row in recording.rows
    ]


def replicas(row: tuple) -> float:
    """All that there were of a row's bucket, on average."""
    return float(sum(row[_INDEX[name]] for name in ("ready", "starting", "draining")))


def figures(recording: Recording, ids: Sequence[int]) -> Figures:
    waits = [0] * BUCKETS
    for row in recording.rows:
        for index, count in enumerate(unpack_histogram(row[_INDEX["queue_histogram"]])):
            waits[index] += count
    wait = quantile_us(tuple(waits), 0.95)
    rejected, unready = recording.total("rejected"), recording.total("unready")
    changed = Decision.objects.filter(
        series__in=ids,
        kind__in=CHANGES,
        at__gte=recording.since,
        at__lt=recording.until,
    )
    return Figures(
        requests=recording.total("arrivals"),
        rejected=rejected,
        overloaded=rejected - unready,
        timeouts=recording.total("timeouts"),
        wait_p95=None if wait is None else wait / 1e6,
        replica_hours=sum(replicas(row) * row[_SECONDS] for row in recording.rows) / 3600,
        actions=changed.count(),
        peak=max((math.ceil(replicas(row)) for row in recording.rows), default=0),
    )


def initial(recording: Recording) -> int:
    """Replicas that were there, or on their way, as the range begins; 0 where nobody measured."""
    if not recording.rows:
        return 0
    return round(sum(recording.rows[0][_INDEX[name]] for name in ("ready", "starting")))
