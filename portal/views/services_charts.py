"""All services as small charts: replicas against demand, and what was rejected. Only reads.

A page holds as many as a screen can bear; its charts are drawn as they come into view, from one answer of
`data/` for all of them.
"""

import csv
import time
from datetime import UTC, datetime
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from deployments.clusters.models import Cluster
from deployments.services.models import Service
from portal.access import requires
from portal.forms.multiples import MultiplesForm, span_of
from portal.forms.services import ServiceFilter
from portal.models import Role
from router.telemetry.multiples import COLUMNS, SPANS, Multiples, multiples

CHARTS_A_PAGE = 48


@requires(Role.VIEWER)
@require_GET
def charts(request: HttpRequest) -> HttpResponse:
    form = ServiceFilter(request.GET)
    services = Service.objects.select_related("cluster").order_by("name")
    if form.is_valid():
        asked = form.cleaned_data
        if asked["q"]:
            services = services.filter(
                Q(name__icontains=asked["q"]) | Q(description__icontains=asked["q"])
            )
        if asked["state"]:
            services = services.filter(state=asked["state"])
        if asked["cluster"]:
            services = services.filter(cluster__name=asked["cluster"])
    page = Paginator(services, CHARTS_A_PAGE).get_page(request.GET.get("page"))
    span = span_of(request.GET)
    kept = request.GET.copy()
    kept.pop("page", None)
    bare = kept.copy()
    bare.pop("span", None)
    context = {
        "form": form,
        "page": page,
        "names": ",".join(service.name for service in page),
        "span": span,
        "spans": SPANS,
        "query": kept.urlencode(),
        "without_span": bare.urlencode(),
        "filtered": any(request.GET.get(name) for name in ("q", "state", "cluster")),
        "clusters": Cluster.objects.order_by("name").values_list("name", flat=True),
    }
    return render(request, "services/charts.html", context)


@requires(Role.VIEWER)
@require_GET
def charts_data(request: HttpRequest) -> HttpResponse:
    """The charts of the named services as JSON; with `after`, only the buckets that came since."""
    form = MultiplesForm(request.GET)
    if not form.is_valid():
        return JsonResponse({"message": "Unknown span, or too many services."}, status=400)
    found = _read(form)
    body = {
        "span": found.span.key,
        "step": found.span.step,
        "start": _local(found.end - found.span.seconds),
        "end": _local(found.end),
        "newest": found.at[-1] if found.at else form.cleaned_data["after"],
        "x": [_local(at) for at in found.at],
        "services": found.services,
    }
    return JsonResponse(body, headers={"Cache-Control": "no-store"})


@requires(Role.VIEWER)
@require_GET
def charts_csv(request: HttpRequest) -> HttpResponse:
    """The same as a table: UTC times, 503s a second."""
    form = MultiplesForm(request.GET)
    if not form.is_valid():
        return HttpResponse("Unknown span.", status=400, content_type="text/plain")
    found = _read(form)
    names = form.cleaned_data["names"]
    base = names[0] if len(names) == 1 else "services"
    filename = f"{base}-demand-{found.span.key}.csv"
    response = HttpResponse(
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )
    writer = csv.writer(response)
    writer.writerow(["service", "time", *COLUMNS])
    for name, columns in sorted(found.services.items()):
        for index, at in enumerate(found.at):
            row = [columns[column][index] for column in COLUMNS]
            if any(value is not None for value in row):  # a gap is a missing row, not an empty one
                moment = datetime.fromtimestamp(at, UTC)
                writer.writerow([name, moment.strftime("%Y-%m-%dT%H:%M:%SZ"), *row])
    return response


def _read(form: MultiplesForm) -> Multiples:
    asked: dict[str, Any] = form.cleaned_data
    names = Service.objects.filter(name__in=asked["names"]).values_list("name", flat=True)
    return multiples(list(names), form.chosen(), time.time(), asked["after"])


def _local(at: float) -> str:
    """A time as Plotly reads it, in the portal's time zone."""
    local = datetime.fromtimestamp(at, timezone.get_current_timezone())
    return local.strftime("%Y-%m-%d %H:%M:%S")
