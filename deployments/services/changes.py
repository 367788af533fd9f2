"""What people do to services: deploy, roll back, change access, delete.

Each function takes the actor first, is one transaction, leaves an audit row and announces. A
deployment is only written down here; `deployments.jobs` brings it about. One operation on a service
at a time: a second raises Conflict (409).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments.audit.record import record
from deployments.clusters import signing
from deployments.errors import Conflict, InvalidInput, NotFound
from deployments.queue import enqueue_deployment
from deployments.services import cors, no_code, versions
from deployments.services.apply import apply_on_commit
from deployments.services.models import (
    DEFAULT_VERSION,
    UNFINISHED,
    Deployment,
    DeploymentState,
    DeploymentStep,
    Revision,
    Service,
    ServiceVersion,
)
from deployments.services.planning import (
    DeployRequest,
    check,
    find,
    plan_of,
    property_problems,
)
from deployments.services.removal import remove_on_commit
from deployments.services.rows import (
    create_revision,
    create_service,
    summary,
    update_service,
)
from deployments.signals import announce
from deployments.types import ServiceState

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

__all__ = ["DeployRequest", "check", "delete_service", "deploy", "roll_back", "update_access"]


def deploy(actor: "AbstractBaseUser | None", request: DeployRequest) -> Deployment:
    """Write down the next revision and its deployment, and put the job on the queue.

    Raises InvalidInput (the first problem; `check` lists all), NotFound, or Conflict while another
    operation on the service runs.
    """
    if found := check(request):
        raise found[0]
    # before the lock: making a no-code environment is a change of its own and may stay
    plan = plan_of(request, find(request))
    environment = plan.environment
    if environment is None and plan.container is None:
        environment = no_code.environment_for(actor, plan.model_versions[0])
    try:
        with transaction.atomic():
            service = (
                _locked(request.name)
                if request.update
                else create_service(actor, request, plan.config)
            )
            # again, under the lock: another request may have made the last version there can be
            if found := versions.name_problems(service, request.version):
                raise found[0]
            version = versions.ensure(actor, service, request.version)
            before = summary(version.current) if version.current else None
            kind = Deployment.Kind.UPDATE if version.current_id else Deployment.Kind.CREATE
            if request.update:
                update_service(service, request, plan.config)
            if request.traffic_percent is not None:
                versions.reserve(actor, service, version, request.traffic_percent)
            if service.token_auth_enabled:
                signing.ensure(service.cluster)
            revision = create_revision(actor, service, plan, environment, request.note)
            deployment = _create_deployment(actor, service, version, revision, kind)
            record(
                actor,
                f"service.{kind.value}",
                "service",
                service.name,
                before=before,
                after={"version": version.name, **summary(revision)},
            )
    except IntegrityError as error:
        raise Conflict(
            f"Another operation on {request.name} began at the same moment; wait for it to end.",
            code="Conflict",
        ) from error
    return deployment


def roll_back(
    actor: "AbstractBaseUser | None", service: Service, revision: Revision, version: str = ""
) -> Deployment:
    """Deploy an earlier revision as it was, to a version ("" the default one).

    Keys, access and description stay as they are now.
    """
    if revision.service_id != service.pk:
        raise NotFound(f"{revision} is not a revision of {service.name}.")
    try:
        with transaction.atomic():
            locked = _locked(service.name)
            into = versions.find(locked, version)
            if into is None:
                raise NotFound(f"{service.name} has no version {version or DEFAULT_VERSION}.")
            if into.current_id == revision.pk:
                raise InvalidInput(
                    f"Revision {revision.number} is the one that serves now in {into.name}."
                )
            deployment = _create_deployment(actor, locked, into, revision, Deployment.Kind.ROLLBACK)
            record(
                actor,
                "service.rollback",
                "service",
                service.name,
                before=summary(into.current) if into.current else None,
                after={"version": into.name, **summary(revision)},
            )
    except IntegrityError as error:
        raise Conflict(
            f"Another operation on {service.name} began at the same moment; wait for it to end.",
            code="Conflict",
        ) from error
    return deployment


def update_access(
    actor: "AbstractBaseUser | None",
    service: Service,
    *,
    auth_enabled: bool | None = None,
    token_auth_enabled: bool | None = None,
    cors_origins: tuple[str, ...] | None = None,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
) -> Service:
    """Change who may call and what is said about the service: at once, without a new revision."""
    given: dict[str, Any] = {
        "auth_enabled": auth_enabled,
        "token_auth_enabled": token_auth_enabled,
        "cors_origins": list(cors.origins(cors_origins)) if cors_origins is not None else None,
        "description": description,
        "tags": dict(tags) if tags is not None else None,
        "properties": {**service.properties, **properties} if properties is not None else None,
    }
    if properties is not None and (wrong := property_problems(service.properties, properties)):
        raise wrong[0]
    with transaction.atomic():
        locked = Service.objects.select_for_update().get(pk=service.pk)
        changes = {
            name: value
            for name, value in given.items()
            if value is not None and getattr(locked, name) != value
        }
        if not changes:
            return locked
        before = {name: getattr(locked, name) for name in changes}
        for name, value in changes.items():
            setattr(locked, name, value)
        locked.generation += 1
        locked.save(update_fields=[*changes, "generation", "updated_at"])
        if locked.token_auth_enabled:
            signing.ensure(locked.cluster)
        record(actor, "service.access", "service", locked.name, before=before, after=changes)
        apply_on_commit(locked.pk)
        announce("service", locked.name)
    return locked


def delete_service(actor: "AbstractBaseUser | None", service: Service) -> None:
    """Begin to remove a service: its replicas drain and stop, then the controller removes the row.

    A deployment that is under way is cancelled: waiting for one that is stuck would keep the
    service for ever. Asking twice is not an error.
    """
    with transaction.atomic():
        locked = Service.objects.select_for_update().get(pk=service.pk)
        if locked.deleting:
            return
        locked.deleting = True
        locked.state = ServiceState.TRANSITIONING.value
        locked.state_cause = "Being deleted: its replicas finish their requests first."
        locked.save(update_fields=["deleting", "state", "state_cause", "updated_at"])
        for deployment in locked.deployments.filter(state__in=UNFINISHED):
            Deployment.objects.filter(pk=deployment.pk).update(
                state=DeploymentState.CANCELLED,
                cause_code="Cancelled",
                cause=f"{locked.name} was deleted while this deployment ran.",
                finished_at=timezone.now(),
            )
            announce("deployment", deployment.pk)
        record(
            actor,
            "service.delete",
            "service",
            locked.name,
            before=summary(locked.current) if locked.current else None,
        )
        remove_on_commit(locked.pk)
        announce("service", locked.name)


def _locked(name: str) -> Service:
    """The service's row, locked. Raises NotFound, or Conflict while something else is going on."""
    service = (
        Service.objects.select_for_update(of=("self",))
        .select_related("cluster", "current")
        .filter(name=name)
        .first()
    )
    if service is None:
        raise NotFound(f"There is no service {name}.")
    if service.deleting:
        raise Conflict(f"{name} is being deleted; wait until it is gone.", code="Conflict")
    running = service.deployments.filter(state__in=UNFINISHED).first()
    if running is not None:
        raise Conflict(
            f"Deployment {running.pk} of {name} is still {running.get_state_display().lower()}; "
            "one operation on a service runs at a time. Wait for it to end.",
            code="Conflict",
        )
    return service


def _create_deployment(
    actor: "AbstractBaseUser | None",
    service: Service,
    version: ServiceVersion,
    revision: Revision,
    kind: str,
) -> Deployment:
    deployment = Deployment.objects.create(
        service=service,
        version=version.name,
        revision=revision,
        previous=version.current,
        kind=kind,
        step="queued",
        created_by_id=actor.pk if actor else None,
    )
    DeploymentStep.objects.create(
        deployment=deployment, name="queued", started_at=deployment.created_at
    )
    Service.objects.filter(pk=service.pk).update(
        state=ServiceState.TRANSITIONING.value,
        state_cause="",
        updated_at=timezone.now(),
    )
    transaction.on_commit(lambda: enqueue_deployment(deployment.pk), robust=True)
    announce("service", service.name)
    announce("deployment", deployment.pk)
    return deployment
