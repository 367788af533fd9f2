"""The Decisions tab of a service: the autoscaler's ledger in words. Only reads.

`?at=03:12` answers why there were so many replicas then: it opens the decision that was in force. `?open=`
shows one row, wherever in the ledger it is.
"""

import csv
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from deployments.services.models import Service
from portal import ledger as words
from portal.access import requires
from portal.forms.decisions import DecisionSearch, write_cursor
from portal.models import Role
from portal.views.services_shared import get_service, page
from router.telemetry import ledger, queries
from router.telemetry.ledger import Search
from router.telemetry.models import Decision

ROWS_A_PAGE = 25
LATEST = 5  # below the chart
CSV_ROWS = 100_000  # the newest ones
_ABOVE = 5  # newer rows shown with one that is far down
_LIVE_ROWS = 200  # that are read again; with more, the page begins anew
_COLUMNS = (
    "id", "at", "cluster", "version", "kind", "before", "after", "code", "applied", "reason",
    "formula", "outcome", "outcome_seconds", "ready_at", "until", "superseded_by", "inputs",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A decision with what is said of it."""

    decision: Decision
    outcome: words.Outcome
    then: Decision | None  # what superseded it

    @property
    def title(self) -> str:
        return words.title(self.decision)

    @property
    def formula(self) -> str:
        return words.formula(self.decision.inputs)

    @property
    def chart(self) -> str:
        """Query string of the Metrics tab around its time."""
        span = queries.around(self.decision.at, time.time())
        return urlencode({"range": span.key, "around": f"{self.decision.at:.3f}"})


@requires(Role.VIEWER)
@require_GET
def decisions(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = DecisionSearch(request.GET)
    form.offer(ledger.versions(name))
    now = time.time()
    valid = form.is_valid()
    search = form.search() if valid else Search()
    asked = form.cleaned_data.get("at")
    force = [] if asked is None else ledger.in_force(name, asked, search.version)
    opened = force[0] if force else _opened(name, form.cleaned_data.get("open"))
    if opened is not None:
        # the row is shown among its neighbours, whatever else was searched for
        own = opened.series.version == search.version
        search = Search(version=search.version if own else "")
    context = page(
        service,
        "decisions",
        form=form,
        searched=search != Search() or not valid,
        **_asked(asked, force),
        lost=asked is None and opened is None and bool(form.cleaned_data.get("open")),
        **_shown(service, search, opened, now, valid=valid),
    )
    return render(request, "decisions/decisions.html", context)


@requires(Role.VIEWER)
@require_GET
def rows(request: HttpRequest, name: str) -> HttpResponse:
    """Fragment: rows older than `before`; or the newest ones down to `least`, 204 when they are as
    they were at `state`."""
    service = get_service(name)
    form = DecisionSearch(request.GET)
    if not form.is_valid():
        return HttpResponse("This search cannot be read.", status=400, content_type="text/plain")
    values, search, now = form.cleaned_data, form.search(), time.time()
    if values["before"]:
        found = ledger.newest(name, search, ROWS_A_PAGE + 1, before=values["before"])
        context = _context(service, search, found[:ROWS_A_PAGE], len(found) > ROWS_A_PAGE, now)
        return render(request, "decisions/_older.html", context)
    state = ledger.state(name, now, search.version)
    if values["state"] == state:
        return HttpResponse(status=204)
    most = _LIVE_ROWS if values["least"] else ROWS_A_PAGE
    found = ledger.newest(name, search, most + 1, least=values["least"])
    if len(found) > most:
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})
    context = _context(service, search, found, False, now, state=state)
    context |= {"opened": values["open"], "searched": search != Search()}
    if values["at"] is not None:
        context |= _asked(values["at"], ledger.in_force(name, values["at"], search.version))
    return render(request, "decisions/_live.html", context)


@requires(Role.VIEWER)
@require_GET
def latest(request: HttpRequest, name: str) -> HttpResponse:
    """Fragment: the newest decisions, for below the chart."""
    form = DecisionSearch(request.GET)
    version = form.cleaned_data["version"] if form.is_valid() else ""
    return render(request, "metrics/_decisions.html", newest(get_service(name), version))


def newest(service: Service, version: str) -> dict[str, Any]:
    """Context of `metrics/_decisions.html`."""
    found = ledger.newest(service.name, Search(version=version), LATEST)
    return {"service": service, "of_version": version, "latest": _rows(found, time.time())}


@requires(Role.VIEWER)
@require_GET
def data_csv(request: HttpRequest, name: str) -> HttpResponse | StreamingHttpResponse:
    """What the search finds as a table, newest first: UTC times, seconds; unknown is empty."""
    service = get_service(name)
    form = DecisionSearch(request.GET)
    if not form.is_valid():
        return HttpResponse("This search cannot be read.", status=400, content_type="text/plain")
    return StreamingHttpResponse(
        _csv(service.name, form.search()),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{service.name}-decisions.csv"'},
    )


def _opened(service: str, pk: int | None) -> Decision | None:
    return Decision.objects.filter(series__service=service, pk=pk).first() if pk else None


def _asked(at: float | None, force: list[Decision]) -> dict[str, Any]:
    """Of a page that was asked about a moment: the moment, and what else was in force then."""
    return {
        "asked": None if at is None else datetime.fromtimestamp(at, UTC),
        "asked_at": "" if at is None else f"{at:.3f}",
        "others": force[1:],
    }


def _shown(
    service: Service, search: Search, opened: Decision | None, now: float, *, valid: bool
) -> dict[str, Any]:
    if not valid:
        return _context(service, search, [], False, now)
    if opened is None:
        found = ledger.newest(service.name, search, ROWS_A_PAGE + 1)
        return _context(
            service,
            search,
            found[:ROWS_A_PAGE],
            len(found) > ROWS_A_PAGE,
            now,
            state=ledger.state(service.name, now, search.version),
        )
    above = ledger.newer(service.name, search, opened, ROWS_A_PAGE)
    far = len(above) == ROWS_A_PAGE
    above = above[-_ABOVE:] if far else above
    least = ROWS_A_PAGE - _ABOVE
    below = ledger.newest(service.name, search, least + 1, before=ledger.cursor(opened))
    context = _context(
        service,
        search,
        [*above, opened, *below[:least]],
        len(below) > least,
        now,
        state="" if far else ledger.state(service.name, now, search.version),
    )
    return context | {"opened": opened.pk, "far": far}


def _context(
    service: Service,
    search: Search,
    found: list[Decision],
    more: bool,
    now: float,
    *,
    state: str = "",
) -> dict[str, Any]:
    """Of the list and its parts. `state` is "" for rows that are not kept up to date."""
    made = _rows(found, now)
    # how many of those awaited are ready changes without a word from the ledger
    awaits = any(row.outcome.state == "waiting" for row in made)
    return {
        "service": service,
        "rows": made,
        "more": more,
        "state": f"{state}~" if awaits else state,
        "live": bool(state),
        "oldest": write_cursor(ledger.cursor(found[-1])) if found else "",
        "query": _query(search),
    }


def _rows(found: Sequence[Decision], now: float) -> list[Row]:
    following = ledger.next_changes(found)
    made = [
        Row(item, words.outcome(item, following.get(item.pk), None, now), following.get(item.pk))
        for item in found
    ]
    waiting = {row.decision.series_id for row in made if row.outcome.state == "waiting"}
    ready = ledger.ready_now(list(waiting), now) if waiting else {}
    return [
        replace(row, outcome=words.outcome(row.decision, None, ready.get(series), now))
        if row.outcome.state == "waiting" and (series := row.decision.series_id) in ready
        else row
        for row in made
    ]


def _query(search: Search) -> str:
    values = {
        "kind": search.kind,
        "version": search.version,
        "since": _utc(search.since),
        "until": _utc(search.until),
    }
    return urlencode({name: value for name, value in values.items() if value})


def _utc(at: float | None) -> str:
    if at is None:
        return ""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


class _Echo:
    """A file that gives back what is written."""

    def write(self, value: str) -> str:
        return value


def _csv(service: str, search: Search) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(_COLUMNS)
    before = None
    for _ in range(0, CSV_ROWS, 1000):
        found = ledger.newest(service, search, 1000, before=before)
        now, following = time.time(), ledger.next_changes(found)
        for item in found:
            then = following.get(item.pk)
            outcome = words.outcome(item, then, None, now)
            yield writer.writerow(
                [
                    item.pk,
                    _utc(item.at),
                    item.series.cluster,
                    item.series.version,
                    item.direction,
                    item.before,
                    item.after,
                    item.code,
                    "yes" if item.applied else "no",
                    _text(item.reason),
                    _text(words.formula(item.inputs)),
                    outcome.state,
                    "" if outcome.seconds is None else round(outcome.seconds, 3),
                    _utc(item.ready_at),
                    _utc(item.until),
                    then.pk if then and outcome.state == "superseded" else "",
                    json.dumps(item.inputs),
                ]
            )
        if len(found) < 1000:
            return
        before = ledger.cursor(found[-1])


def _text(value: str) -> str:
    """A spreadsheet would take some texts for a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value
