"""The router's page of a cluster: how it fares, how large it is and why; and the cores it may use.

Reads; the one change is an administrator's. The page loads its chart from `data/` and asks there for what is
new.
"""

import csv
import time
from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from deployments.clusters import router_changes
from deployments.clusters.models import Cluster
from deployments.errors import SlipwayError
from portal.access import person, requires
from portal.forms.metrics import ChartForm
from portal.forms.router import CoresForm
from portal.models import Role
from portal.router_size import lately, size_view
from router import selfscale
from router.telemetry import queries, router_queries
from router.telemetry.router_collect import topic_key
from router.telemetry.router_rows import RouterDecision

ROWS_A_PAGE = 20


def _get(name: str) -> Cluster:
    try:
        return Cluster.objects.get(name=name)
    except Cluster.DoesNotExist as error:
        raise Http404(f"There is no cluster named {name}; it may have been detached.") from error


@requires(Role.VIEWER)
@require_GET
def router_page(request: HttpRequest, name: str) -> HttpResponse:
    cluster = _get(name)
    form = ChartForm(request.GET)
    span = form.span() if form.is_valid() else queries.BY_KEY["30m"]
    context = {
        **_now(cluster),
        **_decisions(cluster),
        "ranges": queries.RANGES,
        "span": span,
        "limit": selfscale.UP_MS,
        "topic": topic_key(cluster.name),
        "cores_form": CoresForm(initial={"cores": cluster.router_cores}),
    }
    return render(request, "clusters/router.html", context)


@requires(Role.VIEWER)
@require_GET
def router_now(request: HttpRequest, name: str) -> HttpResponse:
    """The figures of the last second, for a page that stands open."""
    return render(request, "clusters/_router_now.html", _now(_get(name)))


@requires(Role.VIEWER)
@require_GET
def router_decisions(request: HttpRequest, name: str) -> HttpResponse:
    """The newest verdicts; with `before`, those older than that row."""
    cluster = _get(name)
    before = request.GET.get("before", "")
    context = _decisions(cluster, int(before) if before.isdecimal() else None)
    template = "_router_rows.html" if before else "_router_decisions.html"
    return render(request, f"clusters/{template}", context)


def _now(cluster: Cluster) -> dict[str, Any]:
    now = time.time()
    return {
        "cluster": cluster,
        "size": size_view(cluster, router_queries.latest(cluster.name, now)),
        "lately": lately(cluster.name, now),
        "topic": topic_key(cluster.name),
    }


def _decisions(cluster: Cluster, before: int | None = None) -> dict[str, Any]:
    rows = list(router_queries.decisions(cluster.name, before)[: ROWS_A_PAGE + 1])
    return {
        "cluster": cluster,
        "decisions": rows[:ROWS_A_PAGE],
        "older": rows[ROWS_A_PAGE - 1].pk if len(rows) > ROWS_A_PAGE else None,
    }


@requires(Role.VIEWER)
@require_GET
def router_data(request: HttpRequest, name: str) -> HttpResponse:
    """The chart as JSON; with `after` and `decision`, only what came since."""
    cluster = _get(name)
    form = ChartForm(request.GET)
    if not form.is_valid():
        return JsonResponse({"message": "Unknown range."}, status=400)
    now, after = time.time(), form.cleaned_data["after"]
    chart = router_queries.chart(cluster.name, form.span(), now, after)
    since = now - chart.range.seconds
    marks = router_queries.marks(cluster.name, since, form.cleaned_data["decision"] or 0)
    body = {
        "range": chart.range.key,
        "step": chart.range.step,
        "seconds": chart.range.seconds,
        "start": _local(chart.end - chart.range.seconds),
        "end": _local(chart.end),
        "newest": chart.at[-1] if chart.at else after,
        "x": [_local(at) for at in chart.at],
        "columns": chart.columns,
        "decisions": [_mark(item) for item in marks],
        "ledger": router_queries.state(cluster.name),
    }
    return JsonResponse(body, headers={"Cache-Control": "no-store"})


def _local(at: float) -> str:
    """A time as Plotly reads it, in the portal's time zone."""
    local = datetime.fromtimestamp(at, timezone.get_current_timezone())
    return local.strftime("%Y-%m-%d %H:%M:%S")


def _mark(decision: RouterDecision) -> dict[str, Any]:
    return {
        "id": decision.pk,
        "x": _local(decision.at),
        "threads": decision.threads_after,
        "direction": decision.direction,
        "reason": decision.reason,
    }


@requires(Role.VIEWER)
@require_GET
def router_csv(request: HttpRequest, name: str) -> HttpResponse:
    """The chart's figures as a table: UTC times, milliseconds, cores, percent, rates a second."""
    cluster = _get(name)
    form = ChartForm(request.GET)
    if not form.is_valid():
        return HttpResponse("Unknown range.", status=400, content_type="text/plain")
    chart = router_queries.chart(cluster.name, form.span(), time.time())
    filename = f"router-{cluster.name}-{chart.range.key}.csv"
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


@requires(Role.ADMINISTRATOR)
@require_POST
def router_cores(request: HttpRequest, name: str) -> HttpResponse:
    """How many cores the router may use."""
    cluster = _get(name)
    form = CoresForm(request.POST)
    if not form.is_valid():
        messages.error(request, " ".join(map(str, form.errors["cores"])))
        return redirect("cluster-router", name)
    cores = form.cleaned_data["cores"]
    try:
        router_changes.set_cores(person(request), cluster, cores)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        said = "all cores of its machine" if cores is None else f"{cores} core{'s' * (cores > 1)}"
        messages.success(request, f"The router of {name} may use {said}.")
    return redirect("cluster-router", name)
