"""Questions about what was measured: charts and small figures. Only reads.

A chart picks the resolution by its range. What the coarser table does not hold yet (its newest,
open bucket) is added up from the finer ones, so every range can end at now. Unknown is None, never
zero: a bucket with nothing measured is a gap.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from router.telemetry.aggregate import added_up
from router.telemetry.columns import (
    COLUMNS,
    FIRST_HISTOGRAM,
    FIRST_MEAN,
    FIRST_PEAK,
    FIRST_SUM,
    MEANS,
    SUMS,
    Bucket,
)
from router.telemetry.models import (
    RollupMark,
    Second,
    Series,
    TenSeconds,
    packed_quantiles_us,
)
from router.telemetry.rollups import LEVELS, Level

_SECONDS = COLUMNS.index("seconds")
_REJECTED, _UNREADY = SUMS.index("rejected"), SUMS.index("unready")


@dataclass(frozen=True, slots=True)
class Range:
    """A span a person may look at, in seconds, and the bucket it is drawn with."""

    key: str
    label: str
    seconds: int
    step: int


RANGES = (
    Range("5m", "5 min", 300, 1),
    Range("15m", "15 min", 900, 1),
    Range("30m", "30 min", 1_800, 10),
    Range("1h", "1 h", 3_600, 10),
    Range("2h", "2 h", 7_200, 10),
    Range("6h", "6 h", 21_600, 60),
    Range("24h", "24 h", 86_400, 60),
    Range("7d", "7 d", 604_800, 600),
    Range("30d", "30 d", 2_592_000, 3_600),
    Range("400d", "400 d", 34_560_000, 43_200),
)
BY_KEY = {item.key: item for item in RANGES}
# Which range to look at a moment with: the finest that is kept for all of it.
_AROUND = (("5m", 7_200), ("1h", 172_800), ("6h", 2_592_000))
_QUANTILES = (0.5, 0.95, 0.99)
_RATES = ("ok", "client_errors", "rejected", "timeouts", "failures")
# What a quantile is of: total time, wait in the queue, time at the replica; by its columns' prefix.
TIMES = (("", "histogram"), ("queue_", "queue_histogram"), ("service_", "service_histogram"))
_QUANTILE_NAMES = tuple(
    tuple(f"{prefix}p{round(100 * q)}" for q in _QUANTILES) for prefix, _ in TIMES
)
# Columns of a chart, in the order of its CSV. Rates are per second, latencies milliseconds.
CHART_COLUMNS = (
    "ready", "starting", "draining", "desired", "busy", "busy_peak",
    "arrivals", "ok", "client_errors", "overloaded", "unready", "timeouts", "failures",
    "p50", "p95", "p99", "queue_p50", "queue_p95", "queue_p99",
    "service_p50", "service_p95", "service_p99", "queued", "queued_peak",
)  # fmt: skip


def around(at: float, now: float) -> Range:
    """The range to show a moment in, by how fine what was measured then is still kept."""
    for key, kept in _AROUND:
        if now - at < kept - BY_KEY[key].seconds:
            return BY_KEY[key]
    return BY_KEY["30d"]


@dataclass(frozen=True, slots=True)
class Chart:
    """Columns of equal length; `at` is where each bucket begins, epoch seconds.

    A row of None stands in each gap, so that a line breaks there.
    """

    range: Range
    start: int
    end: int
    at: list[int]
    columns: dict[str, list[float | None]]

    @property
    def empty(self) -> bool:
        return not self.at


def chart(
    service: str, span: Range, now: float, after: int | None = None, *, version: str = ""
) -> Chart:
    """What is known of a service from `now - span` on: of one version, or of all together for "".

    With `after`, only the buckets that begin later and are complete: what a page that shows the
    rest already has to append.
    """
    step = span.step
    start = math.ceil(now - span.seconds)
    start -= start % step
    # Seconds arrive whole. A longer bucket that still grows is shown on a page's first reading and
    # left out of what is appended, because it cannot be taken back.
    end = int(now) + 1
    fine = step <= 10
    if fine and step > 1:
        end = (int(now) - 2) // step * step
    previous: int | None = None
    if after is not None:
        start = max(start, after + step)
        previous = after if start == after + step else None
    ids = list(Series.objects.filter(**_named(service, version)).values_list("pk", flat=True))
    buckets: dict[int, list[tuple]] = {}
    if ids and start < end:
        for (at, _), row in merged(ids, start, end, step).items():
            buckets.setdefault(at, []).append(row)
    at_column: list[int] = []
    columns: dict[str, list[float | None]] = {name: [] for name in CHART_COLUMNS}
    for at in sorted(buckets):
        if previous is not None and at > previous + step:
            at_column.append(previous + step)
            for values in columns.values():
                values.append(None)
        at_column.append(at)
        point = _point(buckets[at])
        for name, values in columns.items():
            values.append(point[name])
        previous = at
    return Chart(span, start, int(now), at_column, columns)


def _named(service: str, version: str) -> dict[str, str]:
    """The filter of Series for a service, or for one version of it."""
    named = {"service": service}
    return named | {"version": version} if version else named


def merged(
    ids: Sequence[int], start: int, end: int, step: int
) -> dict[tuple[int, int], tuple[Any, ...]]:
    """Rows of `COLUMNS` in buckets of a step, by (at, series): from the table of this step, or of the
    next finer one that the step is made of, then from finer ones where that ends."""
    marks = dict(RollupMark.objects.values_list("step", "until"))
    found: dict[tuple[int, int], tuple[Any, ...]] = {}
    open_: dict[tuple[int, int], Bucket] = {}  # what lies on both sides of a table's end
    begin = start
    for level in reversed(LEVELS):
        if level.step > step:
            continue
        until = end if level.step == 1 else min(marks.get(level.step, 0), end)
        if begin >= until:
            continue
        for row in _rows(level, ids, begin, until, step):
            key = (row[1], row[0])
            before = found.get(key)
            if before is None:
                found[key] = row
                continue
            bucket = open_.get(key)
            if bucket is None:
                bucket = open_[key] = Bucket()
                bucket.add(before)
            bucket.add(row)
        begin = until
    for (at, series), bucket in open_.items():
        found[at, series] = bucket.values(series, at)
    return found


def _rows(
    level: Level, ids: Sequence[int], start: int, end: int, step: int
) -> Iterable[tuple[Any, ...]]:
    """A table's rows in buckets of a step; added up by the database where the step is longer."""
    rows = level.model._default_manager.filter(series_id__in=ids, at__gte=start, at__lt=end)
    if level.step == step:
        return rows.values_list(*COLUMNS)
    return added_up(rows, step)


def _point(versions: Sequence[tuple[Any, ...]]) -> dict[str, float | None]:
    """One bucket of a service: its versions' rows of `COLUMNS`, added up."""
    one = versions[0]
    seconds = one[_SECONDS]
    means: Sequence[float] = one[FIRST_MEAN:FIRST_PEAK]
    rates: Sequence[float] = [count / seconds for count in one[FIRST_SUM:FIRST_MEAN]]
    peaks: Sequence[int] = one[FIRST_PEAK:FIRST_HISTOGRAM]
    histograms: Sequence[bytes] = one[FIRST_HISTOGRAM:]
    for row in versions[1:]:
        seconds = row[_SECONDS]
        means = [a + b for a, b in zip(means, row[FIRST_MEAN:FIRST_PEAK], strict=True)]
        counts = zip(rates, row[FIRST_SUM:FIRST_MEAN], strict=True)
        rates = [rate + count / seconds for rate, count in counts]
        peaks = [a + b for a, b in zip(peaks, row[FIRST_PEAK:FIRST_HISTOGRAM], strict=True)]
        both = zip(histograms, row[FIRST_HISTOGRAM:], strict=True)
        histograms = [bytes(a) + bytes(b) for a, b in both]
    point: dict[str, float | None] = {
        name: round(value, 3) for name, value in zip(MEANS, means, strict=True)
    }
    for name, value in zip(SUMS, rates, strict=True):
        point[name] = round(value, 3)
    # 503 because the queue's patience was over, although replicas were ready
    point["overloaded"] = round(rates[_REJECTED] - rates[_UNREADY], 3)
    for names, packed in zip(_QUANTILE_NAMES, histograms, strict=True):
        for name, us in zip(names, packed_quantiles_us(packed, _QUANTILES), strict=True):
            point[name] = None if us is None else round(us / 1000, 2)
    point["busy_peak"], point["queued_peak"] = peaks
    return point


@dataclass(frozen=True, slots=True)
class Figures:
    """How a service did over some seconds. Latencies are seconds, None where nothing was answered."""

    at: int  # where its newest measured second begins
    requests_per_second: float
    bad_percent: float  # of the answers, those that are 502, 503 or 504
    p50: float | None
    p95: float | None
    p99: float | None
    busy: float
    queued: float
    ready: int
    starting: int
    desired: int


def latest(names: Iterable[str], now: float, seconds: int = 10) -> dict[str, Figures]:
    """Figures of the last seconds, by service; one that was not measured is not in it. One query."""
    rows = (
        Second.objects.filter(series__service__in=list(names), at__gte=int(now) - seconds)
        .order_by("at")
        .values_list(*COLUMNS, "series__service")
    )
    return _by_last_column(rows)


def latest_of_versions(service: str, now: float, seconds: int = 10) -> dict[str, Figures]:
    """Figures of a service's last seconds, by version; one not measured is not in it. One query."""
    rows = (
        Second.objects.filter(series__service=service, at__gte=int(now) - seconds)
        .order_by("at")
        .values_list(*COLUMNS, "series__version")
    )
    return _by_last_column(rows)


def _by_last_column(rows: Iterable[tuple]) -> dict[str, Figures]:
    found: dict[str, dict[int, tuple[Bucket, tuple]]] = {}
    for row in rows:
        versions = found.setdefault(row[-1], {})
        bucket = versions[row[0]][0] if row[0] in versions else Bucket()
        bucket.add(row)
        versions[row[0]] = (bucket, row)
    return {name: _figures(versions) for name, versions in found.items()}


def _figures(versions: dict[int, tuple[Bucket, tuple]]) -> Figures:
    point = _point([bucket.values(pk, 0) for pk, (bucket, _) in versions.items()])
    answered = sum(point[name] or 0.0 for name in _RATES)
    bad = sum(point[name] or 0.0 for name in ("rejected", "timeouts", "failures"))

    def newest(column: str) -> int:
        index = COLUMNS.index(column)
        return round(sum(row[index] for _, row in versions.values()))

    def seconds(name: str) -> float | None:
        value = point[name]
        return None if value is None else value / 1000

    return Figures(
        at=max(row[1] for _, row in versions.values()),
        requests_per_second=answered,
        bad_percent=100 * bad / answered if answered else 0.0,
        p50=seconds("p50"),
        p95=seconds("p95"),
        p99=seconds("p99"),
        busy=point["busy"] or 0.0,
        queued=point["queued"] or 0.0,
        ready=newest("ready"),
        starting=newest("starting"),
        desired=newest("desired"),
    )


def spark(
    names: Iterable[str], seconds: int, now: float, points: int = 60
) -> dict[str, list[float | None]]:
    """Answers a second over the last seconds, by service, in `points` buckets; None is a gap.

    A service that was not measured is not in it. One query; up to 10 minutes from single seconds,
    up to 2 days from ten seconds.
    """
    model = Second if seconds <= 600 else TenSeconds
    size = max(seconds / points, 1.0 if model is Second else 10.0)
    count = math.ceil(seconds / size)
    start = int(now) - math.ceil(count * size)
    rows = model._default_manager.filter(
        series__service__in=list(names), at__gte=start, at__lt=int(now)
    ).values_list("series__service", "series_id", "at", "seconds", *_RATES)
    totals: dict[tuple[str, int, int], tuple[int, int]] = {}
    for service, series, at, measured, *counts in rows:
        key = (service, min(int((at - start) / size), count - 1), series)
        answered, covered = totals.get(key, (0, 0))
        totals[key] = (answered + sum(counts), covered + measured)
    lines: dict[str, list[float | None]] = {}
    for (service, index, _), (answered, covered) in totals.items():
        line = lines.setdefault(service, [None] * count)
        line[index] = round((line[index] or 0.0) + answered / covered, 3)
    return lines
