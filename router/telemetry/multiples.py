"""Small charts of many services at once: replicas against demand, and what was rejected.

One query for all of them, of the table that has about as many rows as a small chart has points. All share
one grid of time; a bucket in which a service was not measured is None there, never zero. Only complete
buckets are told, so that a page can append what comes later. Only reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import F, FloatField, Sum
from django.db.models.functions import Mod

from router.telemetry.models import Hour, Minute, RollupMark, SampleRow, TenSeconds

COLUMNS = ("demand", "ready", "desired", "rejected")


@dataclass(frozen=True, slots=True)
class Span:
    """A span a person may look at; `step` is its bucket, a multiple of its table's own. Seconds."""

    key: str
    label: str
    seconds: int
    step: int
    table: type[SampleRow]
    own: int


SPANS = (
    Span("15m", "15 min", 900, 10, TenSeconds, 10),
    Span("2h", "2 h", 7_200, 60, Minute, 60),
    Span("24h", "24 h", 86_400, 900, Minute, 60),
    Span("7d", "7 d", 604_800, 7_200, Hour, 3_600),
)
BY_KEY = {item.key: item for item in SPANS}


@dataclass(frozen=True, slots=True)
class Multiples:
    """`at` is where each bucket begins, epoch seconds; each service has its columns (`COLUMNS`: requests
    inside or waiting, replicas, replicas wanted, 503s a second) on that grid. One that was not measured
    at all is not in it."""

    span: Span
    end: int  # where the last bucket ends
    at: list[int]
    services: dict[str, dict[str, list[float | None]]]


def multiples(names: Sequence[str], span: Span, now: float, after: int | None = None) -> Multiples:
    """What is known of these services; with `after`, only the buckets that begin later."""
    mark = RollupMark.objects.filter(step=span.own).values_list("until", flat=True).first() or 0
    end = min(mark, int(now))
    end -= end % span.step
    start = int(now) - span.seconds
    start -= start % span.step
    if after is not None:
        start = max(start, after - after % span.step + span.step)
    at = list(range(start, end, span.step))
    found: dict[str, dict[str, list[float | None]]] = {}
    if not at:
        return Multiples(span, end, at, found)
    weighted = {
        name: Sum(F(name) * F("seconds"), output_field=FloatField())
        for name in ("busy", "queued", "ready", "desired")
    }
    rows = (
        span.table._default_manager.filter(
            series__service__in=list(names), at__gte=start, at__lt=end
        )
        .order_by()
        .annotate(bucket=F("at") - Mod(F("at"), span.step))
        .values_list("series__service", "series_id", "bucket")
        .annotate(
            measured=Sum("seconds"),
            lost=Sum("rejected"),
            **{f"sum_{name}": value for name, value in weighted.items()},
        )
    )
    for service, _, bucket, measured, lost, busy, queued, ready, desired in rows:
        columns = found.setdefault(service, {name: [None] * len(at) for name in COLUMNS})
        index = (int(bucket) - start) // span.step
        values = (busy + queued, ready, desired, lost)
        for name, value in zip(COLUMNS, values, strict=True):
            # a service's versions are added up
            columns[name][index] = round((columns[name][index] or 0.0) + value / measured, 3)
    return Multiples(span, end, at, found)
