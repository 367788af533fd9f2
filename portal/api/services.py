"""Services and deployments over the API, in the wire words of Azure ML v1. Only reads.

GET /api/v1/services                       all services, a page at a time; ?page=
GET /api/v1/services/<name>                one service with its configuration
GET /api/v1/services/<name>/deployments    its last deployments, newest first
GET /api/v1/deployments/<id>               one deployment with its steps
"""

from typing import Any

from django.core.paginator import Paginator
from django.db.models import Prefetch
from django.http import HttpRequest

from deployments.errors import NotFound
from deployments.services import containers, versions
from deployments.services.config import DeploymentConfig, load_object, to_azure_json
from deployments.services.models import (
    Deployment,
    DeploymentState,
    Revision,
    Service,
    ServiceVersion,
)
from deployments.services.specs import config_of
from portal.api.responses import endpoint
from portal.models import Role

_A_PAGE = 100
_DEPLOYMENTS = 50
# Azure's words for how an operation stands.
_OPERATION = {
    DeploymentState.QUEUED: "NotStarted",
    DeploymentState.RUNNING: "Running",
    DeploymentState.ROLLING: "Running",
    DeploymentState.SUCCEEDED: "Succeeded",
    DeploymentState.FAILED: "Failed",
    DeploymentState.CANCELLED: "Cancelled",
}


def _services() -> Any:
    return (
        Service.objects.select_related("cluster", "current__environment", "created_by")
        .prefetch_related(
            "current__model_links__model_version__model",
            Prefetch("versions", ServiceVersion.objects.select_related("current")),
        )
        .order_by("name")
    )


def named(name: str) -> Service:
    service = _services().filter(name=name).first()
    if service is None:
        raise NotFound(f"There is no service named {name}.", code="WebServiceNotFound")
    return service


@endpoint(Role.VIEWER)
def service_list(request: HttpRequest) -> dict[str, Any]:
    page = Paginator(_services(), _A_PAGE).get_page(request.GET.get("page"))
    answer: dict[str, Any] = {"value": [service_json(service) for service in page]}
    if page.has_next():
        answer["nextLink"] = request.build_absolute_uri(
            f"{request.path}?page={page.next_page_number()}"
        )
    return answer


@endpoint(Role.VIEWER)
def service_detail(request: HttpRequest, name: str) -> dict[str, Any]:
    return service_json(named(name))


@endpoint(Role.VIEWER)
def deployment_list(request: HttpRequest, name: str) -> dict[str, Any]:
    service = named(name)
    rows = service.deployments.select_related("service", "revision", "created_by")
    return {
        "value": [
            deployment_json(row) for row in rows.order_by("-created_at", "-pk")[:_DEPLOYMENTS]
        ]
    }


@endpoint(Role.VIEWER)
def deployment_detail(request: HttpRequest, pk: int) -> dict[str, Any]:
    row = (
        Deployment.objects.select_related("service", "revision", "created_by").filter(pk=pk).first()
    )
    if row is None:
        raise NotFound(f"There is no deployment {pk}.", code="OperationNotFound")
    steps = [
        {
            "name": step.name,
            "state": step.state,
            "detail": step.detail,
            "startTime": step.started_at.isoformat(),
            "endTime": step.ended_at.isoformat() if step.ended_at else None,
        }
        for step in row.steps.all()
    ]
    return {**deployment_json(row), "steps": steps}


def service_json(service: Service) -> dict[str, Any]:
    """A service in Azure's names. What was never seen is null, not zero; keys are never in it."""
    current = service.current
    return {
        "id": service.name,
        "name": service.name,
        "computeType": "AKS",
        "computeName": service.cluster.name,
        "description": service.description,
        "kvTags": service.tags,
        "properties": service.properties,
        "state": "Deleting" if service.deleting else service.state,
        "error": {"message": service.state_cause} if service.state_cause else None,
        "scoringUri": service.scoring_uri or None,
        "swaggerUri": service.swagger_uri or None,
        "authEnabled": service.auth_enabled,
        "aadAuthEnabled": service.token_auth_enabled,
        "corsOrigins": service.cors_origins,
        "createdTime": service.created_at.isoformat(),
        "updatedTime": service.updated_at.isoformat(),
        "createdBy": service.created_by.username if service.created_by else None,
        "deploymentStatus": _replica_counts(service),
        "revision": current.number if current else None,
        "versions": versions_json(service),
        **(_revision_json(current) if current else {"models": []}),
    }


def versions_json(service: Service) -> dict[str, dict[str, Any]]:
    """By name, as Azure's AksEndpoint has them."""
    rows = list(service.versions.all())
    shares = versions.shares(rows)
    control = versions.control_of(rows)
    return {
        row.name: {
            "name": row.name,
            "isDefault": row.is_default,
            "type": "Control" if row.name == control else "Treatment",
            "trafficPercentile": shares[row.name],
            "state": row.state or "Transitioning",
            "error": {"message": row.state_cause} if row.state_cause else None,
            "revision": row.current.number if row.current else None,
            "deploymentStatus": _replica_counts(service, row),
        }
        for row in rows
    }


def _replica_counts(service: Service, version: ServiceVersion | None = None) -> dict[str, Any]:
    """Of all replicas, or of those of one version."""
    if service.observed_at is None:
        return {"currentReplicas": None, "desiredReplicas": None, "availableReplicas": None}
    phases = [
        row.get("phase")
        for row in service.replicas
        if isinstance(row, dict) and (version is None or row.get("version") == version.name)
    ]
    return {
        "currentReplicas": len([phase for phase in phases if phase != "stopped"]),
        "desiredReplicas": (service if version is None else version).desired_replicas,
        "availableReplicas": phases.count("ready"),
    }


def _revision_json(revision: Revision) -> dict[str, Any]:
    links = revision.model_links.all()
    config = config_of(revision)
    return {
        "models": [
            {
                "id": str(link.model_version),
                "name": link.model_version.model.name,
                "version": link.model_version.version,
            }
            for link in links
        ],
        "entryScript": revision.entry_script or None,
        "environment": _environment_json(revision),
        **_config_json(config),
    }


def _environment_json(revision: Revision) -> dict[str, Any]:
    """By name and version; a brought image as Azure's environments say one."""
    container = containers.from_row(revision.container)
    if container is not None:
        return containers.to_azure(container)
    chosen = revision.environment
    return {"name": chosen.name, "version": str(chosen.version)} if chosen is not None else {}


def _config_json(config: DeploymentConfig) -> dict[str, Any]:
    values: dict[str, Any] = load_object(to_azure_json(config), "the configuration")
    for name in ("computeType", "authEnabled", "tokenAuthEnabled"):
        values.pop(name, None)  # said of the service itself, as it is now
    return values


def deployment_json(row: Deployment) -> dict[str, Any]:
    """A deployment in the words of Azure's asynchronous operations."""
    failed = row.state == DeploymentState.FAILED
    return {
        "id": row.pk,
        "serviceName": row.service.name,
        "operationType": {"create": "Create", "update": "Update"}.get(row.kind, "Rollback"),
        "state": _OPERATION[DeploymentState(row.state)],
        "step": row.step,
        "revision": row.revision.number,
        "version": row.version_name,
        "createdTime": row.created_at.isoformat(),
        "endTime": row.finished_at.isoformat() if row.finished_at else None,
        "createdBy": row.created_by.username if row.created_by else None,
        "error": {
            "code": row.cause_code or "DeploymentFailed",
            "message": row.cause,
            "details": [{"message": row.evidence}] if row.evidence else [],
        }
        if failed
        else None,
    }
