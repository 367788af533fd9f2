"""The list of services: what runs where, how it does, found by name, state, cluster or model. Only reads."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Count, Max, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from deployments.clusters.models import Cluster
from deployments.services.models import DeploymentState, Service
from portal.access import requires
from portal.forms.services import ServiceFilter
from portal.models import Role
from portal.replicas import counts
from router.telemetry.queries import Figures, latest

_A_PAGE = 50
_UNFINISHED = [DeploymentState.QUEUED, DeploymentState.RUNNING, DeploymentState.ROLLING]


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One line of the list."""

    service: Service
    models: list[str]
    replicas: dict[str, int]
    figures: Figures | None
    last_deployed: datetime | None
    live: bool  # something of it is changing now


def _found(form: ServiceFilter) -> QuerySet[Any]:
    services = (
        Service.objects.select_related("cluster", "current")
        .prefetch_related("current__model_links__model_version__model")
        .annotate(
            last_deployed=Max("deployments__created_at"),
            unfinished=Max("deployments__pk", filter=Q(deployments__state__in=_UNFINISHED)),
            version_count=Count("versions", distinct=True),
        )
        .order_by("name")
    )
    if not form.is_valid():
        return services
    asked = form.cleaned_data
    if asked["q"]:
        services = services.filter(
            Q(name__icontains=asked["q"])
            | Q(description__icontains=asked["q"])
            | Q(pk__in=_with_model(asked["q"]))
        )
    if asked["state"]:
        services = services.filter(state=asked["state"])
    if asked["cluster"]:
        services = services.filter(cluster__name=asked["cluster"])
    return services


def _with_model(text: str) -> QuerySet[Service, int]:
    return Service.objects.filter(
        current__model_links__model_version__model__name__icontains=text
    ).values_list("pk", flat=True)


def _rows(services: list[Any]) -> list[ServiceRow]:
    figures = latest([service.name for service in services], timezone.now().timestamp(), 60)
    return [
        ServiceRow(
            service=service,
            models=[
                str(link.model_version)
                for link in (service.current.model_links.all() if service.current else [])
            ],
            replicas=counts(service.replicas),
            figures=figures.get(service.name),
            last_deployed=service.last_deployed,
            live=service.unfinished is not None,
        )
        for service in services
    ]


def _context(request: HttpRequest) -> dict[str, Any]:
    form = ServiceFilter(request.GET)
    page = Paginator(_found(form), _A_PAGE).get_page(request.GET.get("page"))
    asked = request.GET.copy()
    asked.pop("page", None)
    return {
        "form": form,
        "page": page,
        "rows": _rows(list(page)),
        "filtered": any(request.GET.get(name) for name in ("q", "state", "cluster")),
        "clusters": Cluster.objects.order_by("name").values_list("name", flat=True),
        "query": asked.urlencode(),
    }


@requires(Role.VIEWER)
@require_GET
def service_list(request: HttpRequest) -> HttpResponse:
    return render(request, "services/list.html", _context(request))


@requires(Role.VIEWER)
@require_GET
def service_rows(request: HttpRequest) -> HttpResponse:
    return render(request, "services/_rows.html", _context(request))
