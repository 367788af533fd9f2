"""The Metrics tab of a service: one chart, its data as JSON and CSV, and the latest scaling decisions.

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
from portal.forms.metrics import DEFAULT_RANGE, ChartForm
from portal.models import Role
from portal.views.decisions import newest
from portal.views.services_shared import get_service, page
from router.telemetry import ledger, queries
from router.telemetry.models import Decision


@requires(Role.VIEWER)
@require_GET
def metrics(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = ChartForm(request.GET)
    span, version, around = queries.BY_KEY[DEFAULT_RANGE], "", None
    if form.is_valid():
        span, version = form.span(), form.cleaned_data["version"]
        around = form.cleaned_data["around"]
    names = list(service.versions.values_list("name", flat=True))
    context = page(
        service,
        "metrics",
        ranges=queries.RANGES,
        span=span,
        versions=names,
        around="" if around is None else f"{around:.3f}",
    )
    return render(request, "metrics/metrics.html", context | newest(service, version))


@requires(Role.VIEWER)
@require_GET
def data(request: HttpRequest, name: str) -> HttpResponse:
    """The chart as JSON; with `after` and `decision`, only what came since; with `around`, a past
    moment in its middle."""
    service = get_service(name)
    form = ChartForm(request.GET)
    if not form.is_valid():
        return JsonResponse({"message": "Unknown range."}, status=400)
    after, decision = form.cleaned_data["after"], form.cleaned_data["decision"]
    now = time.time()
    version, around = form.cleaned_data["version"], form.cleaned_data["around"]
    end = now if around is None else min(now, around + form.span().seconds / 2)
    chart = queries.chart(service.name, form.span(), end, after, version=version)
    marks = ledger.marks(
        service.name, end - chart.range.seconds, decision or 0, version, until=end + 1
    )
    body = {
        "range": chart.range.key,
        "step": chart.range.step,
        "start": _local(chart.end - chart.range.seconds),
        "end": _local(chart.end),
        "newest": chart.at[-1] if chart.at else after,
        "x": [_local(at) for at in chart.at],
        "columns": chart.columns,
        "decisions": [_mark(item) for item in marks],
        "ledger": ledger.state(service.name, now, version),
        "around": None if around is None else _local(around),
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
