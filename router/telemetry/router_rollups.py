"""Second -> ten seconds -> minute -> hour of the routers' own figures, and forgetting what is too old.

A router has one row a second, so each pass makes the newest bucket of a resolution again and those that
have closed since: whatever came late is in it, and running twice changes nothing. Means are weighted by
the seconds they were measured in, the routing time's by those the probe was answered in.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Max

from router.telemetry.router_rows import (
    RouterDecision,
    RouterFigures,
    RouterHour,
    RouterMinute,
    RouterPlace,
    RouterSecond,
    RouterTenSeconds,
)

_DAY = 86_400
_SETTLE_SECONDS = 5  # a bucket is closed this long after its end
_KEEP_DECISIONS = 400 * _DAY
MEANS = ("idle", "cpu", "threads", "pods", "cores", "connections", "requests")
PEAKS = ("cpu_peak", "connections_peak")
COLUMNS = ("at", "seconds", "probed", "routing_ms", "routing_peak_ms", *MEANS, *PEAKS)


@dataclass(frozen=True, slots=True)
class Level:
    """A resolution: its table, its bucket and how long it is kept, in seconds."""

    model: type[RouterFigures]
    step: int
    keep: int


LEVELS = (
    Level(RouterSecond, 1, 7_200),
    Level(RouterTenSeconds, 10, 2 * _DAY),
    Level(RouterMinute, 60, 30 * _DAY),
    Level(RouterHour, 3_600, 400 * _DAY),
)


def merge(rows: Iterable[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """Rows of `COLUMNS` of one router in buckets of `step` seconds, in order of time."""
    buckets: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        buckets.setdefault(row["at"] - row["at"] % step, []).append(row)
    return [_merged(at, parts) for at, parts in sorted(buckets.items())]


def _merged(at: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = sum(part["seconds"] for part in parts)
    answered = [part for part in parts if part["routing_ms"] is not None and part["probed"]]
    probed = sum(part["probed"] for part in answered)
    made: dict[str, Any] = {
        "at": at,
        "seconds": seconds,
        "probed": probed,
        "routing_ms": None,
        "routing_peak_ms": None,
    }
    if answered:
        made["routing_ms"] = sum(part["routing_ms"] * part["probed"] for part in answered) / probed
        made["routing_peak_ms"] = max(part["routing_peak_ms"] for part in answered)
    for name in MEANS:
        made[name] = sum(part[name] * part["seconds"] for part in parts) / seconds
    for name in PEAKS:
        made[name] = max(part[name] for part in parts)
    return made


def newest(model: type[RouterFigures]) -> dict[str, int]:
    """Where the newest bucket of each router begins."""
    rows = model._default_manager.order_by().values_list("cluster").annotate(Max("at"))
    return dict(rows)


def roll_up(now: float) -> dict[int, int]:
    """Make every bucket that has closed. Returns rows written, by step."""
    clusters = list(RouterPlace.objects.values_list("cluster", flat=True))
    written = {}
    for finer, level in zip(LEVELS, LEVELS[1:], strict=False):
        closed = int(now) - _SETTLE_SECONDS
        closed -= closed % level.step
        made = newest(level.model)
        written[level.step] = sum(
            _roll(cluster, finer, level, made.get(cluster, 0), closed)
            for cluster in clusters
            if made.get(cluster, 0) + level.step < closed
        )
    return written


def _roll(cluster: str, finer: Level, level: Level, start: int, closed: int) -> int:
    rows = finer.model._default_manager.filter(cluster=cluster, at__gte=start, at__lt=closed)
    merged = merge(rows.values(*COLUMNS), level.step)
    if not any(row["at"] > start for row in merged):
        return 0
    level.model._default_manager.bulk_create(
        [level.model(cluster=cluster, **row) for row in merged],
        update_conflicts=True,
        unique_fields=["cluster", "at"],
        update_fields=COLUMNS[1:],
        batch_size=500,
    )
    return len(merged)


def prune(now: float) -> int:
    """Forget what is older than its resolution is kept."""
    gone = 0
    for level in LEVELS:
        gone += level.model._default_manager.filter(at__lt=int(now) - level.keep).delete()[0]
    gone += RouterDecision.objects.filter(at__lt=now - _KEEP_DECISIONS).delete()[0]
    return gone


def maintain(now: float) -> None:
    """What the controller calls as often as it likes: rolls up, and prunes once a minute."""
    if roll_up(now)[60]:
        prune(now)
