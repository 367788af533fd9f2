"""Watching a Kubernetes cluster being detached: what is removed, and what came of it."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from deployments.clusters.models import Cluster, Detachment
from portal.access import requires
from portal.models import Role


def detachment_of(cluster: Cluster, *, running: bool = False) -> Detachment | None:
    """The latest of a cluster that is being given up (of those that run, if asked so); None where it is
    attached."""
    if cluster.state != Cluster.State.DETACHING:
        return None
    rows = Detachment.objects.filter(name=cluster.name)
    return (rows.filter(state=Detachment.State.RUNNING) if running else rows).first()


def _context(pk: int) -> dict[str, Any]:
    try:
        row = Detachment.objects.select_related("created_by").get(pk=pk)
    except Detachment.DoesNotExist as error:
        raise Http404("There is no such detaching of a cluster; it may be long ago.") from error
    gone = sum(step["state"] == "removed" for step in row.steps)
    return {
        "detachment": row,
        "running": row.state == Detachment.State.RUNNING,
        "failed": row.state == Detachment.State.FAILED,
        "gone": gone,
        "left": len(row.steps) - gone,
        "stands": Cluster.objects.filter(name=row.name).exists(),
        "latest": not Detachment.objects.filter(name=row.name, pk__gt=row.pk).exists(),
    }


@requires(Role.ADMINISTRATOR)
@require_GET
def page(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "clusters/detaching.html", _context(pk))


@requires(Role.ADMINISTRATOR)
@require_GET
def live(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "clusters/_detaching.html", _context(pk))
