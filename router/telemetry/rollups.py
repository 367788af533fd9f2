"""Second -> ten seconds -> minute -> hour, in bulk, and forgetting what is too old.

Each resolution is made from the one below it. `RollupMark.until` says how far that is done; late
samples move it back (`reopen`), and the buckets are made anew from their parts, so running twice,
or being killed half-way, changes nothing. Counts are added, means are weighted by measured seconds,
histograms are merged: a quantile of an hour is of all its requests.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Min

from router.samples import BUCKETS
from router.telemetry.models import (
    Decision,
    Hour,
    Minute,
    RollupMark,
    SampleRow,
    Second,
    TenSeconds,
    add_histogram,
    pack_histogram,
)

logger = logging.getLogger(__name__)

DAY = 86_400
_SETTLE_SECONDS = 5  # a bucket is closed this long after its end
_BUCKETS_AT_ONCE = 30  # bounds a transaction when there is much to catch up with


@dataclass(frozen=True, slots=True)
class Level:
    """A resolution: its table, its bucket and how long it is kept, in seconds."""

    model: type[SampleRow]
    step: int
    keep: int


LEVELS = (
    Level(Second, 1, 7_200),
    Level(TenSeconds, 10, 2 * DAY),
    Level(Minute, 60, 30 * DAY),
    Level(Hour, 3_600, 400 * DAY),
)
_KEEP_DECISIONS = 400 * DAY

SUMS = ("arrivals", "ok", "client_errors", "rejected", "unready", "timeouts", "failures")
MEANS = ("busy", "queued", "ready", "starting", "draining", "desired")
PEAKS = ("busy_peak", "queued_peak")
HISTOGRAMS = ("histogram", "queue_histogram", "service_histogram")
COLUMNS = ("series_id", "at", "seconds", *SUMS, *MEANS, *PEAKS, *HISTOGRAMS)
_UPDATED = ["seconds", *SUMS, *MEANS, *PEAKS, *HISTOGRAMS]
_FIRST_SUM, _FIRST_MEAN = 3, 3 + len(SUMS)
_FIRST_PEAK = _FIRST_MEAN + len(MEANS)
_FIRST_HISTOGRAM = _FIRST_PEAK + len(PEAKS)


class Bucket:
    """Adds up rows (tuples of `COLUMNS`) of one series, or of one service's versions."""

    __slots__ = ("histograms", "means", "peaks", "seconds", "sums")

    def __init__(self) -> None:
        self.seconds = 0
        self.sums = [0] * len(SUMS)
        self.means = [0.0] * len(MEANS)  # weighted by seconds until `values`
        self.peaks = [0] * len(PEAKS)
        self.histograms = [[0] * BUCKETS for _ in HISTOGRAMS]

    def add(self, row: tuple) -> None:
        seconds = row[2]
        self.seconds += seconds
        for index in range(len(SUMS)):
            self.sums[index] += row[_FIRST_SUM + index]
        for index in range(len(MEANS)):
            self.means[index] += row[_FIRST_MEAN + index] * seconds
        for index in range(len(PEAKS)):
            self.peaks[index] = max(self.peaks[index], row[_FIRST_PEAK + index])
        for index, histogram in enumerate(self.histograms):
            if packed := row[_FIRST_HISTOGRAM + index]:
                add_histogram(packed, histogram)

    def values(self, series: int, at: int) -> tuple:
        """A row of `COLUMNS` again."""
        means = (value / self.seconds for value in self.means)
        packed = map(pack_histogram, self.histograms)
        return (series, at, self.seconds, *self.sums, *means, *self.peaks, *packed)


def merge(rows: Iterable[tuple], step: int) -> list[tuple]:
    """Rows of `COLUMNS` in buckets of `step` seconds, by series and in order of time."""
    buckets: dict[tuple[int, int], Bucket] = {}
    for row in rows:
        key = (row[1] - row[1] % step, row[0])
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = Bucket()
        bucket.add(row)
    return [bucket.values(key[1], key[0]) for key, bucket in sorted(buckets.items())]


def reopen(oldest: int) -> None:
    """Samples as old as this came in: what was made without them is made again."""
    for level in LEVELS[1:]:
        begin = oldest - oldest % level.step
        RollupMark.objects.filter(step=level.step, until__gt=begin).update(until=begin)


def roll_up(now: float) -> dict[int, int]:
    """Make every closed bucket that is not made yet. Returns rows written, by step."""
    return {
        level.step: _roll(finer, level, now)
        for finer, level in zip(LEVELS, LEVELS[1:], strict=False)
    }


def _roll(finer: Level, level: Level, now: float) -> int:
    closed = int(now) - _SETTLE_SECONDS
    if finer.step > 1:  # no further than the parts are made
        closed = min(closed, until(finer.step))
    closed -= closed % level.step
    written = 0
    while True:
        mark, _ = RollupMark.objects.get_or_create(step=level.step)
        if mark.until >= closed:
            return written
        rows = finer.model._default_manager.filter(at__gte=mark.until, at__lt=closed)
        first = rows.aggregate(first=Min("at"))["first"]
        if first is None:
            end = closed
        else:
            first -= first % level.step
            end = min(first + level.step * _BUCKETS_AT_ONCE, closed)
        with transaction.atomic():
            if first is not None:
                parts = rows.filter(at__gte=first, at__lt=end).values_list(*COLUMNS)
                merged = merge(parts.iterator(chunk_size=5000), level.step)
                _write(level.model, merged)
                written += len(merged)
            claimed = RollupMark.objects.filter(step=level.step, until=mark.until)
            if claimed.update(until=end) != 1:
                # Moved back by late samples, or forward by another: the rows written are right
                # for what was there, and whoever has the mark goes on from it.
                logger.info("rollup of %s s: the mark moved meanwhile", level.step)
                return written


def _write(model: type[SampleRow], rows: list[tuple]) -> None:
    model._default_manager.bulk_create(
        [model(**dict(zip(COLUMNS, row, strict=True))) for row in rows],
        update_conflicts=True,
        unique_fields=["series", "at"],
        update_fields=_UPDATED,
        batch_size=1000,
    )


def until(step: int) -> int:
    """The buckets of this resolution before here are made; 0 is none."""
    found = RollupMark.objects.filter(step=step).values_list("until", flat=True).first()
    return found or 0


def prune(now: float) -> int:
    """Forget what is older than its resolution is kept, once it is in the next one."""
    gone = 0
    marks = dict(RollupMark.objects.values_list("step", "until"))
    for index, level in enumerate(LEVELS):
        cutoff = int(now) - level.keep
        if index + 1 < len(LEVELS):
            cutoff = min(cutoff, marks.get(LEVELS[index + 1].step, 0))
        gone += level.model._default_manager.filter(at__lt=cutoff).delete()[0]
    gone += Decision.objects.filter(at__lt=now - _KEEP_DECISIONS).delete()[0]
    return gone


def maintain(now: float) -> None:
    """What the controller calls as often as it likes: rolls up, and prunes once a minute."""
    if roll_up(now)[60]:
        prune(now)
