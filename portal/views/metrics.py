"""The Metrics tab of a service: one chart, its data as JSON and CSV, and the scaling ledger in words.

Only reads. The page loads its chart from `data/` and asks there for what is new.
"""

import csv
import time
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from portal.access import requires
from portal.forms.metrics import DEFAULT_RANGE, ChartForm, LedgerForm
from portal.models import Role
from portal.views.services_shared import get_service, page
from router.telemetry import queries
from router.telemetry.models import Decision

ROWS_A_PAGE = 25
_FILTERS = (("all", "All"), ("changes", "Changes"), ("prevented", "Prevented"))


@requires(Role.VIEWER)
@require_GET
def metrics(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = ChartForm(request.GET)
    span, version = queries.BY_KEY[DEFAULT_RANGE], ""
    if form.is_valid():
        span, version = form.span(), form.cleaned_data["version"]
    names = list(service.versions.values_list("name", flat=True))
    context = page(service, "metrics", ranges=queries.RANGES, span=span, versions=names)
    ledger = _ledger(name, LedgerForm({"version": version}))
    return render(request, "metrics/metrics.html", context | ledger)


@requires(Role.VIEWER)
@require_GET
def data(request: HttpRequest, name: str) -> HttpResponse:
    """The chart as JSON; with `after` and `decision`, only what came since."""
    service = get_service(name)
    form = ChartForm(request.GET)
    if not form.is_valid():
        return JsonResponse({"message": "Unknown range."}, status=400)
    after, decision = form.cleaned_data["after"], form.cleaned_data["decision"]
    now = time.time()
    version = form.cleaned_data["version"]
    chart = queries.chart(service.name, form.span(), now, after, version=version)
    marks = queries.marks(service.name, now - chart.range.seconds, decision or 0, version)
    body = {
        "range": chart.range.key,
        "step": chart.range.step,
        "start": _local(chart.end - chart.range.seconds),
        "end": _local(chart.end),
        "newest": chart.at[-1] if chart.at else after,
        "x": [_local(at) for at in chart.at],
        "columns": chart.columns,
        "decisions": [_mark(item) for item in marks],
        "ledger": queries.ledger_state(service.name, version),
    }
    return JsonResponse(body, headers={"Cache-Control": "no-store"})


def _local(at: float) -> str:
    """A time as Plotly reads it, in the portal's time zone."""
    local = datetime.fromtimestamp(at, timezone.get_current_timezone())
    return local.strftime("%Y-%m-%d %H:%M:%S")


def _mark(decision: Decision) -> dict[str, Any]:
    return {
        "id": decision.pk,
        "x": _local(decision.at),
        "before": decision.before,
        "after": decision.after,
        "direction": decision.direction,
        "reason": decision.reason,
    }


@requires(Role.VIEWER)
@require_GET
def data_csv(request: HttpRequest, name: str) -> HttpResponse:
    """The chart's figures as a table: UTC times, rates a second, latencies in milliseconds."""
    service = get_service(name)
    form = ChartForm(request.GET)
    if not form.is_valid():
        return HttpResponse("Unknown range.", status=400, content_type="text/plain")
    version = form.cleaned_data["version"]
    chart = queries.chart(service.name, form.span(), time.time(), version=version)
    filename = "-".join(filter(None, (service.name, version, chart.range.key))) + ".csv"
    response = HttpResponse(
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )
    writer = csv.writer(response)
    writer.writerow(["time", *chart.columns])
    columns = list(chart.columns.values())
    for index, at in enumerate(chart.at):
        row = [column[index] for column in columns]
        if any(value is not None for value in row):  # a gap is a missing row, not an empty one
            moment = datetime.fromtimestamp(at, UTC)
            writer.writerow([moment.strftime("%Y-%m-%dT%H:%M:%SZ"), *row])
    return response


@requires(Role.VIEWER)
@require_GET
def decisions(request: HttpRequest, name: str) -> HttpResponse:
    """Fragment: a page of the ledger."""
    service = get_service(name)
    form = LedgerForm(request.GET)
    template = "metrics/_decisions.html"
    if form.is_valid() and form.cleaned_data["before"]:
        template = "metrics/_decision_rows.html"
    return render(request, template, {"service": service} | _ledger(service.name, form))


def _ledger(service: str, form: LedgerForm) -> dict[str, Any]:
    values = form.cleaned_data if form.is_valid() else {}
    show = values.get("show") or "all"
    version = values.get("version") or ""
    rows = queries.decisions(service, show, version)
    opened = values.get("open")
    limit = ROWS_A_PAGE
    if values.get("before"):
        rows = rows.filter(pk__lt=values["before"])
    elif opened:
        # as many as it takes to have that one among them
        limit = max(rows.filter(pk__gte=opened)[:1000].count() + 5, ROWS_A_PAGE)
    found = list(rows[: limit + 1])
    return {
        "decisions": found[:limit],
        "more": len(found) > limit,
        "show": show,
        "of_version": version,
        "filters": _FILTERS,
        "opened": opened,
    }
