"""A service's overview: its state with the cause, the deployment as it happens, replicas, figures.

The page and each of its live parts are made from one context and one fragment template. Only reads.
"""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from deployments.pipeline.timeline import usual_durations
from deployments.services import versions
from deployments.services.models import Deployment, DeploymentState, Service
from portal.access import requires
from portal.models import Role
from portal.replicas import is_stale, replica_views, seen_at
from portal.samples import curl, sample_body
from portal.timeline import lay_out, total_seconds
from portal.views.services_shared import get_service, page
from router.telemetry import queries


def _latest(service: Service) -> Deployment | None:
    return (
        service.deployments.select_related("revision", "previous", "created_by", "service__cluster")
        .order_by("-created_at", "-pk")
        .first()
    )


def _timeline(service: Service) -> dict[str, Any]:
    deployment = _latest(service)
    if deployment is None:
        return {"service": service, "deployment": None}
    now = timezone.now()
    usual = usual_durations(excluding=deployment)
    return {
        "service": service,
        "deployment": deployment,
        "log_source": f"deployment:{deployment.pk}",
        "steps": lay_out(deployment, deployment.steps.all(), usual, now),
        "took": total_seconds(deployment, now),
        "usual_total": sum(usual.values()) if "healthy" in usual else None,
    }


def _replicas(service: Service, version: str = "") -> dict[str, Any]:
    """All replicas, or those of one version; those of a version that was deleted are among all."""
    seen = seen_at(service)
    rows = {row.name: row for row in service.versions.all()}
    only = rows.get(version)
    found = replica_views(service.replicas)
    return {
        "service": service,
        "versions": list(rows),
        "of_version": only.name if only is not None else "",
        "desired": service.desired_replicas if only is None else only.desired_replicas,
        "replicas": [view for view in found if only is None or view.replica.version == only.name],
        "seen_at": seen,
        "stale": is_stale(seen, timezone.now()),
    }


def _figures(service: Service) -> dict[str, Any]:
    now = timezone.now().timestamp()
    return {
        "service": service,
        "figures": queries.latest([service.name], now, 60).get(service.name),
    }


def _state(service: Service) -> dict[str, Any]:
    deployment = _latest(service)
    return {
        "service": service,
        "deployment": deployment,
        "failed": deployment if _is_news(deployment) else None,
    }


def _is_news(deployment: Deployment | None) -> bool:
    """Whether a deployment failed, and the version it was for is still there to be mended."""
    if deployment is None or deployment.state != DeploymentState.FAILED:
        return False
    return versions.find(deployment.service, deployment.version_name) is not None


@requires(Role.VIEWER)
@require_GET
def overview(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    context = _timeline(service) | _replicas(service) | _figures(service) | _state(service)
    context["curl"] = curl(service, sample_body(service))
    deployment = context["deployment"]
    revision = service.current or (deployment.revision if deployment else None)
    if revision is not None:
        context["models"] = revision.model_links.select_related("model_version__model")
    return render(request, "services/overview.html", page(service, "overview") | context)


@requires(Role.VIEWER)
@require_GET
def header(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "services/_header.html", {"service": get_service(name)})


@requires(Role.VIEWER)
@require_GET
def state(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "services/_state.html", _state(get_service(name)))


@requires(Role.VIEWER)
@require_GET
def timeline(request: HttpRequest, name: str) -> HttpResponse:
    """The timeline; with `?log=<id>`, the deployment whose log is shown, also a newer one's log."""
    context = _timeline(get_service(name))
    deployment, shown = context["deployment"], request.GET.get("log", "")
    context["newer_log"] = bool(deployment and shown and shown != str(deployment.pk))
    return render(request, "services/_timeline.html", context)


@requires(Role.VIEWER)
@require_GET
def replicas(request: HttpRequest, name: str) -> HttpResponse:
    context = _replicas(get_service(name), request.GET.get("version", ""))
    return render(request, "services/_replicas.html", context)


@requires(Role.VIEWER)
@require_GET
def figures(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "services/_figures.html", _figures(get_service(name)))
