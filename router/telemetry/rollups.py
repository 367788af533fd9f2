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

from router.telemetry import bulk
from router.telemetry.columns import COLUMNS, Bucket
from router.telemetry.models import (
    Decision,
    Hour,
    Minute,
    RollupMark,
    SampleRow,
    Second,
    TenSeconds,
)

logger = logging.getLogger(__name__)

DAY = 86_400
_SETTLE_SECONDS = 5  # a bucket is closed this long after its end
_BUCKETS_AT_ONCE = 30  # bounds a transaction when there is much to catch up with
_FORGOTTEN_AT_ONCE = 20  # buckets of every series


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
                bulk.write(level.model, COLUMNS, merged, replace=True)
                written += len(merged)
            claimed = RollupMark.objects.filter(step=level.step, until=mark.until)
            if claimed.update(until=end) != 1:
                # Moved back by late samples, or forward by another: the rows written are right
                # for what was there, and whoever has the mark goes on from it.
                logger.info("rollup of %s s: the mark moved meanwhile", level.step)
                return written


def until(step: int) -> int:
    """The buckets of this resolution before here are made; 0 is none."""
    found = RollupMark.objects.filter(step=step).values_list("until", flat=True).first()
    return found or 0


def prune(now: float) -> int:
    """Forget what is older than its resolution is kept, once it is in the next one. A stretch of time at
    once, so that nobody waits long for the table."""
    gone = 0
    marks = dict(RollupMark.objects.values_list("step", "until"))
    for index, level in enumerate(LEVELS):
        cutoff = int(now) - level.keep
        if index + 1 < len(LEVELS):
            cutoff = min(cutoff, marks.get(LEVELS[index + 1].step, 0))
        gone += _forget(level, cutoff)
    gone += Decision.objects.filter(at__lt=now - _KEEP_DECISIONS).delete()[0]
    return gone


def _forget(level: Level, cutoff: int) -> int:
    rows, gone = level.model._default_manager, 0
    while True:
        oldest = rows.filter(at__lt=cutoff).aggregate(oldest=Min("at"))["oldest"]
        if oldest is None:
            return gone
        end = min(oldest + level.step * _FORGOTTEN_AT_ONCE, cutoff)
        gone += rows.filter(at__lt=end).delete()[0]


def maintain(now: float) -> None:
    """What the controller calls as often as it likes: rolls up, and prunes once a minute."""
    if roll_up(now)[60]:
        prune(now)
