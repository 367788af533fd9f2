"""Questions about a router's own figures and its size. Only reads; unknown is None, never zero."""

import math
from dataclasses import dataclass

from django.db.models import QuerySet

from router.telemetry.queries import Range
from router.telemetry.router_rollups import COLUMNS, LEVELS, merge
from router.telemetry.router_rows import RouterDecision, RouterFigures, RouterSecond

CHART_COLUMNS = (
    "routing_ms", "routing_peak_ms", "cpu", "cpu_peak", "idle", "threads", "pods", "cores",
    "connections", "connections_peak", "requests",
)  # fmt: skip
MARKS_AT_MOST = 200


@dataclass(frozen=True, slots=True)
class RouterChart:
    """Columns of equal length; `at` is where each bucket begins, epoch seconds. A row of None stands in
    each gap, so that a line breaks there."""

    range: Range
    start: int
    end: int
    at: list[int]
    columns: dict[str, list[float | None]]


def chart(cluster: str, span: Range, now: float, after: int | None = None) -> RouterChart:
    """What is known of a router over `span` up to now. With `after`, only the complete buckets that
    begin later: what a page that shows the rest already has to append."""
    step = span.step
    start = math.ceil(now - span.seconds)
    start -= start % step
    end = int(now) + 1
    if step > 1 and (after is not None or step == 10):
        end = (int(now) - 2) // step * step  # a bucket that still grows cannot be taken back
    previous: int | None = None
    if after is not None:
        start = max(start, after + step)
        previous = after if start == after + step else None
    at: list[int] = []
    columns: dict[str, list[float | None]] = {name: [] for name in CHART_COLUMNS}
    for row in merge(_rows(cluster, start, end, step), step):
        if previous is not None and row["at"] > previous + step:
            at.append(previous + step)
            for values in columns.values():
                values.append(None)
        at.append(row["at"])
        for name, values in columns.items():
            value = row[name]
            values.append(None if value is None else round(value, 3))
        previous = row["at"]
    return RouterChart(span, start, int(now), at, columns)


def _rows(cluster: str, start: int, end: int, step: int) -> list[dict]:
    """Rows of the table of this step, then of finer ones where it ends."""
    found: list[dict] = []
    for level in reversed(LEVELS):
        if level.step > step or start >= end:
            continue
        rows = level.model._default_manager.filter(cluster=cluster, at__gte=start, at__lt=end)
        part = list(rows.order_by("at").values(*COLUMNS))
        found += part
        if part:
            start = part[-1]["at"] + level.step
    return found


def latest(cluster: str, now: float, seconds: int = 10) -> RouterFigures | None:
    """The newest second, if there is one that is not old."""
    rows = RouterSecond.objects.filter(cluster=cluster, at__gte=int(now) - seconds)
    return rows.order_by("-at").first()


def decisions(cluster: str, before: int | None = None) -> QuerySet[RouterDecision]:
    """Newest first; with `before`, those older than that row."""
    rows = RouterDecision.objects.filter(cluster=cluster)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return rows


def marks(cluster: str, since: float, after: int = 0) -> list[RouterDecision]:
    """To draw on a chart, oldest first; with `after`, only those with a later id."""
    rows = decisions(cluster).filter(at__gte=since, pk__gt=after)[:MARKS_AT_MOST]
    return list(reversed(rows))


def state(cluster: str) -> str:
    """A word that is another one when there are new rows or something became of one."""
    row = decisions(cluster).values_list("pk", "done_at", "until", "over").first()
    return "" if row is None else "-".join(str(item) for item in row)
