"""The request log's rows: taken over from the routers, kept for a while, searched.

How far a router's log has been read stands in `RequestPlace` and moves in the same transaction as the
lines it stands for, by compare-and-set: killed, it reads the same page again, and run twice it writes
nothing twice. What is missing is a row of its own (`RequestGap`), never a silence.

Searching goes from row to row by key, never by counting rows off, so that a page costs the same however
many there are.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from django.db import DataError, IntegrityError, transaction
from django.db.models import Max, Min, Q, QuerySet

from deployments.errors import Unavailable
from deployments.signals import announce
from router.doors import Door, Query, door
from router.request_log import Gap, RequestPage, from_wire
from router.telemetry.models import RequestGap, RequestPlace, RequestRecord, Series

DEADLINE_SECONDS = 2.0
_PAGES_AT_ONCE = 10  # of catching up in one call; the next call goes on
_PRUNED_AT_ONCE = 5_000


def collect(
    cluster: str, router: Path | Door, now: float | None = None, *, source: str = ""
) -> int:
    """Take over every new line of a cluster's router, or of one of its pods (`source` is its name).
    Returns how many.

    Raises Unavailable when it does not answer in time or says what cannot be read.
    """
    now = time.time() if now is None else now
    way = door(router)
    place, _ = RequestPlace.objects.get_or_create(cluster=cluster, source=source)
    taken = 0
    for _ in range(_PAGES_AT_ONCE):
        page = _ask(way, place.epoch, place.seq)
        if not keep(place, page, now):
            break  # another collector was faster
        taken += len(page.lines)
        if not (page.lines or page.gaps):
            break
    return taken


def _ask(way: Door, epoch: str, after: int) -> RequestPage:
    query: Query = {"after": after, "epoch": epoch}
    try:
        return from_wire(way.ask("GET", "/requests", DEADLINE_SECONDS, query=query))
    except ValueError as error:
        raise Unavailable(f"The router's request log cannot be read: {error}.") from error


def keep(place: RequestPlace, page: RequestPage, now: float) -> bool:
    """Write one page and move the place, both or neither. False when somebody else had moved it."""
    gaps = [*page.gaps, *_between(place, page, now)]
    with transaction.atomic():
        here = RequestPlace.objects.filter(pk=place.pk, epoch=place.epoch, seq=place.seq)
        if here.update(epoch=page.epoch, seq=page.next, seen_at=now) != 1:
            return False
        if refused := _write(
            [RequestRecord(cluster=place.cluster, **asdict(line)) for line in page.lines]
        ):
            gaps.append(Gap(now, now, refused, "the database refused them"))
        RequestGap.objects.bulk_create(
            [RequestGap(cluster=place.cluster, **asdict(gap)) for gap in gaps]
        )
        for service in {line.service for line in page.lines}:
            announce("requests", service)
    place.epoch, place.seq, place.seen_at = page.epoch, page.next, now
    return True


def _write(rows: list[RequestRecord]) -> int:
    """How many the database refused: one bad line is not to hold up all that come after it."""
    if _written(rows):
        return 0
    return sum(not _written([row]) for row in rows)


def _written(rows: list[RequestRecord]) -> bool:
    try:
        with transaction.atomic():
            RequestRecord.objects.bulk_create(rows, batch_size=1000)
    except (IntegrityError, DataError, ValueError):  # ValueError: text that cannot be stored
        return False
    return True


def _between(place: RequestPlace, page: RequestPage, now: float) -> list[Gap]:
    """What is missing between the last reading and this one."""
    if not place.epoch:
        return []
    if page.epoch != place.epoch:
        # HAProxy held lines meanwhile; what the former run had read and not handed on is gone.
        end = max(page.began, place.seen_at)
        return [Gap(place.seen_at, end, None, "the router's loop was started anew")]
    if page.lost:
        return [Gap(place.seen_at, now, page.lost, "the portal was away too long")]
    return []


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; empty is anything. Times are epoch seconds, `slower` milliseconds."""

    text: str = ""  # a request's id or its client's
    code: str = ""  # "503", or a class: "5xx"
    version: str = ""
    who: str = ""
    since: float | None = None
    until: float | None = None
    slower: int | None = None


def find(service: str, search: Search, *, before: int = 0, after: int = 0) -> QuerySet:
    """A service's requests, newest first: older than row `before`, or newer than row `after`."""
    rows = RequestRecord.objects.filter(service=service)
    if before:
        rows = rows.filter(pk__lt=before)
    if after:
        rows = rows.filter(pk__gt=after)
    if search.text:
        rows = rows.filter(Q(request_id=search.text) | Q(client_request_id=search.text))
    if search.code.endswith("xx"):
        low = int(search.code[0]) * 100
        rows = rows.filter(status__gte=low, status__lt=low + 100)
    elif search.code:
        rows = rows.filter(status=int(search.code))
    if search.version:
        rows = rows.filter(version=search.version)
    if search.who:
        rows = rows.filter(who=search.who)
    if search.since is not None:
        rows = rows.filter(at__gte=search.since)
    if search.until is not None:
        rows = rows.filter(at__lt=search.until)
    if search.slower is not None:
        rows = rows.filter(total_ms__gte=search.slower)
    return rows.order_by("-pk")


def gaps(cluster: str, since: float, until: float) -> Sequence[RequestGap]:
    """What is missing of a cluster's log in a span, newest first, at most 20."""
    return list(RequestGap.objects.filter(cluster=cluster, end__gte=since, start__lte=until)[:20])


def prune(now: float, *, days: int, rows: int) -> int:
    """Forget what is older than `days`, and beyond the newest `rows` of a service. In batches, so that
    nobody else waits long for the table."""
    gone = _forget_before(now - days * 86_400)
    ends = RequestRecord.objects.aggregate(first=Min("pk"), last=Max("pk"))
    if ends["last"] is None or ends["last"] - ends["first"] < rows:
        return gone  # no service can have more
    for service in Series.objects.order_by().values_list("service", flat=True).distinct():
        own = RequestRecord.objects.filter(service=service)
        # the one place that counts rows off, once a minute: which is the oldest to stay
        for kept in own.order_by("-pk").values_list("pk", flat=True)[rows - 1 : rows]:
            gone += _delete(own.filter(pk__lt=kept))
    return gone


def _forget_before(oldest: float) -> int:
    """Rows come in by time, but for how long each request took: only the first ones are looked at."""
    RequestGap.objects.filter(end__lt=oldest).delete()
    RequestPlace.objects.exclude(source="").filter(
        seen_at__lt=oldest
    ).delete()  # pods that are gone
    gone = 0
    while True:
        first = list(RequestRecord.objects.order_by("pk").values_list("pk", "at")[:_PRUNED_AT_ONCE])
        old = [pk for pk, at in first if at < oldest]
        if old:
            gone += RequestRecord.objects.filter(
                pk__gte=old[0], pk__lte=old[-1], at__lt=oldest
            ).delete()[0]
        if len(old) < _PRUNED_AT_ONCE:
            return gone


def _delete(rows: QuerySet) -> int:
    gone = 0
    while True:
        keys = list(rows.order_by("pk").values_list("pk", flat=True)[:_PRUNED_AT_ONCE])
        if not keys:
            return gone
        gone += rows.filter(pk__gte=keys[0], pk__lte=keys[-1]).delete()[0]
