"""The rows of a service and its revisions, as a deployment writes them.

Called inside the transaction of `deployments.services.changes`, which checks, locks and records.
"""

from typing import TYPE_CHECKING, Any

from django.db.models import F

from deployments.clusters.models import Cluster
from deployments.environments.models import Environment
from deployments.errors import InvalidInput
from deployments.services import containers, cors, keys
from deployments.services.apply import apply_on_commit
from deployments.services.config import DeploymentConfig
from deployments.services.models import (
    Revision,
    RevisionModel,
    Service,
)
from deployments.services.planning import DeployRequest, Plan
from deployments.services.specs import model_versions_of

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


def create_service(
    actor: "AbstractBaseUser | None", request: DeployRequest, config: DeploymentConfig
) -> Service:
    primary, secondary = request.keys or (keys.generate(), keys.generate())
    if request.cluster is None:
        raise InvalidInput("Choose a cluster.", field="cluster")
    # locked: a cluster that a service is being made on is not detached meanwhile
    cluster = Cluster.objects.select_for_update().filter(pk=request.cluster.pk).first()
    if cluster is None or cluster.state == Cluster.State.DETACHING:
        raise InvalidInput(
            f"{request.cluster.name} is being detached; choose another cluster.", field="cluster"
        )
    return Service.objects.create(
        name=request.name,
        cluster=request.cluster,
        description=request.description or "",
        tags=dict(request.tags or {}),
        properties=dict(request.properties or {}),
        auth_enabled=config.auth_enabled,
        token_auth_enabled=config.token_auth_enabled,
        cors_origins=list(cors.origins(request.cors_origins or ())),
        primary_key=keys.encrypt(primary),
        secondary_key=keys.encrypt(secondary),
        created_by_id=actor.pk if actor else None,
    )


def update_service(service: Service, request: DeployRequest, config: DeploymentConfig) -> None:
    """Access and words belong to the service, not to a revision: they change at once."""
    access: dict[str, Any] = {
        "auth_enabled": config.auth_enabled,
        "token_auth_enabled": config.token_auth_enabled,
    }
    if request.cors_origins is not None:
        access["cors_origins"] = list(cors.origins(request.cors_origins))
    if request.keys is not None and request.keys != keys.read(service):
        access["primary_key"], access["secondary_key"] = map(keys.encrypt, request.keys)
    words: dict[str, Any] = {}
    if request.description is not None:
        words["description"] = request.description
    if request.tags is not None:
        words["tags"] = dict(request.tags)
    if request.properties is not None:
        words["properties"] = {**service.properties, **request.properties}
    changed = {
        name: value
        for name, value in {**access, **words}.items()
        if getattr(service, name) != value
    }
    for name, value in changed.items():
        setattr(service, name, value)
    fields = [*changed, "updated_at"]
    if changed.keys() & access.keys():
        service.generation += 1
        fields.append("generation")
        apply_on_commit(service.pk)
    service.save(update_fields=fields)


def create_revision(
    actor: "AbstractBaseUser | None",
    service: Service,
    plan: Plan,
    environment: Environment | None,
    note: str,
) -> Revision:
    number = service.next_revision
    Service.objects.filter(pk=service.pk).update(next_revision=F("next_revision") + 1)
    service.next_revision = number + 1
    revision = Revision.objects.create(
        service=service,
        number=number,
        entry_script=plan.entry_script,
        source=plan.source,
        environment=environment,
        container=containers.to_row(plan.container),
        config=plan.config.to_values(),
        note=note[:200],
        created_by_id=actor.pk if actor else None,
    )
    RevisionModel.objects.bulk_create(
        RevisionModel(revision=revision, model_version=version, position=position)
        for position, version in enumerate(plan.model_versions)
    )
    return revision


def summary(revision: Revision) -> dict[str, Any]:
    """A revision in an audit row: what it is made of, no secrets."""
    return {
        "revision": revision.number,
        "models": [str(version) for version in model_versions_of(revision)],
        "entry_script": revision.entry_script or ("(image)" if revision.container else "(no-code)"),
        "environment": str(revision.environment or ""),
        **({"container": revision.container} if revision.container else {}),
        "config": revision.config,
    }
