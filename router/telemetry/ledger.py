"""The ledger of scaling decisions: searched, paged by key, asked for the one in force. Only reads.

A page costs the same however long the ledger is: rows are reached by key (time, id), never counted off.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Max, OuterRef, Q, QuerySet, Subquery

from router.telemetry.models import Decision, Second, Series

KINDS = ("up", "down", "prevented")
MARKS_AT_MOST = 500  # decisions on one chart, the newest ones
_NEWS_SECONDS = 86_400  # what begins earlier is taken not to change any more
CHANGES = KINDS[:2]

Cursor = tuple[float, int]  # a row's time and id


@dataclass(frozen=True, slots=True)
class Search:
    """Which decisions; empty is any. Times are epoch seconds, `until` is not included."""

    kind: str = ""  # of KINDS
    version: str = ""
    since: float | None = None
    until: float | None = None


def versions(service: str) -> list[str]:
    """Names of the versions of which something is kept."""
    names = Series.objects.filter(service=service).order_by("version").values_list("version")
    return [name for (name,) in names.distinct()]


def cursor(row: Decision) -> Cursor:
    return row.at, row.pk


def find(
    service: str, search: Search, *, before: Cursor | None = None, least: Cursor | None = None
) -> QuerySet[Decision]:
    """A service's decisions, newest first: older than a row, or no older than one. For the first few of
    them `newest` is far quicker."""
    rows = Decision.objects.filter(series__in=_ids(service, search.version))
    return _narrowed(rows, search, before, least)


def newest(
    service: str,
    search: Search,
    most: int,
    *,
    before: Cursor | None = None,
    least: Cursor | None = None,
    after: int = 0,
) -> list[Decision]:
    """Up to `most` rows of `find`; with `after`, only those with a later id."""
    found: list[Decision] = []
    for rows in _by_series(service, search.version):
        # asked for always, SQLite would go by it and sort what it finds
        rows = rows.filter(pk__gt=after) if after else rows
        found += _narrowed(rows, search, before, least)[:most]
    return sorted(found, key=cursor, reverse=True)[:most]


def newer(service: str, search: Search, than: Decision, most: int) -> list[Decision]:
    """Up to `most` rows just newer than one, newest first."""
    at, pk = cursor(than)
    found: list[Decision] = []
    for rows in _by_series(service, search.version):
        rows = rows.filter(Q(at__gt=at) | Q(at=at, pk__gt=pk), at__gte=at)
        found += _narrowed(rows, search, None, None).order_by("at", "pk")[:most]
    return sorted(found, key=cursor)[:most][::-1]


def _by_series(service: str, version: str) -> Iterable[QuerySet[Decision]]:
    """The rows of each of a service's few series by itself, which leave their index in order. Of all
    of them together a database sorts a million rows to show the newest 25."""
    return (Decision.objects.filter(series=pk) for pk in _ids(service, version))


def _narrowed(
    rows: QuerySet[Decision], search: Search, before: Cursor | None, least: Cursor | None
) -> QuerySet[Decision]:
    if search.kind:
        rows = rows.filter(kind=search.kind)
    if search.since is not None:
        rows = rows.filter(at__gte=search.since)
    if search.until is not None:
        rows = rows.filter(at__lt=search.until)
    if before is not None:
        at, pk = before
        rows = rows.filter(Q(at__lt=at) | Q(at=at, pk__lt=pk), at__lte=at)
    if least is not None:
        at, pk = least
        rows = rows.filter(Q(at__gt=at) | Q(at=at, pk__gte=pk), at__gte=at)
    return rows.order_by("-at", "-pk")


def marks(
    service: str,
    since: float,
    after: int = 0,
    version: str = "",
    *,
    until: float | None = None,
) -> list[Decision]:
    """Decisions to draw on a chart, oldest first; with `after`, only those with a later id."""
    search = Search(version=version, since=since, until=until)
    return newest(service, search, MARKS_AT_MOST, after=after)[::-1]


def state(service: str, now: float, version: str = "") -> str:
    """A word that is another one when the ledger is: new rows, an outcome, or how long one lasts."""
    found: dict[str, Any] = find(
        service, Search(version=version, since=now - _NEWS_SECONDS)
    ).aggregate(
        newest=Max("pk"),
        outcomes=Count("ready_at"),
        until=Max("until"),
        over=Count("pk", filter=Q(over=True)),
    )
    return "-".join(str(value or 0) for value in found.values())


def in_force(service: str, at: float, version: str = "") -> list[Decision]:
    """What set each version's count as it was at a time: its last change at or before it. Newest
    first; a version that had none by then is not in it."""
    # asked for by kind: among a million hindrances each is found without reading those
    latest = {
        kind: Subquery(
            Decision.objects.filter(series=OuterRef("pk"), kind=kind, at__lte=at)
            .order_by("-at")
            .values("pk")[:1]
        )
        for kind in CHANGES
    }
    series = _series(service, version).annotate(**latest)
    ids = [pk for both in series.values_list(*CHANGES) for pk in both if pk is not None]
    found: dict[str, Decision] = {}
    for row in Decision.objects.filter(pk__in=ids).order_by("-at", "-pk"):
        found.setdefault(row.series.version, row)  # it may have moved from a cluster to another
    return list(found.values())


def next_changes(rows: Iterable[Decision]) -> dict[int, Decision]:
    """By a row's id: the next change of the same version. Two queries."""
    following = {
        kind: Subquery(
            Decision.objects.filter(series=OuterRef("series"), kind=kind, at__gt=OuterRef("at"))
            .order_by("at")
            .values("pk")[:1]
        )
        for kind in CHANGES
    }
    pairs = (
        Decision.objects.select_related(None)
        .filter(pk__in=[row.pk for row in rows])
        .order_by()
        .annotate(**following)
        .values_list("pk", *CHANGES)
    )
    candidates = {pk: both for pk, *both in pairs}
    found = Decision.objects.in_bulk({pk for both in candidates.values() for pk in both if pk})
    known = {pk: [found[one] for one in both if one in found] for pk, both in candidates.items()}
    return {pk: min(after, key=cursor) for pk, after in known.items() if after}


def ready_now(series: Sequence[int], now: float) -> dict[int, int]:
    """Replicas in rotation, by series; one that was not measured lately is not in it."""
    rows = Second.objects.filter(series_id__in=series, at__gte=int(now) - 10).order_by("at")
    return {pk: round(ready) for pk, ready in rows.values_list("series_id", "ready")}


def _series(service: str, version: str) -> QuerySet[Series]:
    rows = Series.objects.filter(service=service).order_by()
    return rows.filter(version=version) if version else rows


def _ids(service: str, version: str) -> list[int]:
    """Of the series, asked for first: with a join, a service that decides rarely would be looked for
    among everybody's rows."""
    return list(_series(service, version).values_list("pk", flat=True))
