"""What runs, how it does, and what happened last: the first page and its live parts."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from portal import overview as reads
from portal import router_view
from portal.access import requires
from portal.models import Role


def _services() -> dict[str, Any]:
    rows = reads.service_rows(timezone.now())
    return {
        "rows": rows[: reads.MOST_SERVICES],
        "totals": reads.totals(rows),
        "more": max(len(rows) - reads.MOST_SERVICES, 0),
        "steps": [] if rows else reads.first_steps(),
    }


def _clusters() -> dict[str, Any]:
    return {"clusters": reads.cluster_rows(timezone.now())}


def _deployments() -> dict[str, Any]:
    return {"deployments": reads.recent_deployments()}


@require_safe
@requires(Role.VIEWER)
def overview(request: HttpRequest) -> HttpResponse:
    context = {
        **_services(),
        **_clusters(),
        **_deployments(),
        "expiring": router_view.expiring(timezone.now()),
    }
    return render(request, "overview/overview.html", context)


@require_safe
@requires(Role.VIEWER)
def services(request: HttpRequest) -> HttpResponse:
    return render(request, "overview/_services.html", _services())


@require_safe
@requires(Role.VIEWER)
def clusters(request: HttpRequest) -> HttpResponse:
    return render(request, "overview/_clusters.html", _clusters())


@require_safe
@requires(Role.VIEWER)
def deployments(request: HttpRequest) -> HttpResponse:
    return render(request, "overview/_deployments.html", _deployments())
