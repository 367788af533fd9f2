"""What people do to services: deploy, roll back, change access, delete.

Each function takes the actor first, is one transaction, leaves an audit row and announces. A
deployment is only written down here; `deployments.jobs` brings it about. One operation on a service
at a time: a second raises Conflict (409).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from deployments.audit.record import record
from deployments.clusters import signing
from deployments.clusters.models import Cluster
from deployments.environments.models import Environment
from deployments.errors import Conflict, InvalidInput, NotFound
from deployments.queue import enqueue_deployment
from deployments.registry.models import Blob, ModelVersion
from deployments.services import cors, keys, no_code, placement, sources, versions
from deployments.services.apply import apply_on_commit
from deployments.services.config import DeploymentConfig, from_values, problems
from deployments.services.models import (
    DEFAULT_VERSION,
    UNFINISHED,
    Deployment,
    DeploymentState,
    DeploymentStep,
    Revision,
    RevisionModel,
    Service,
    ServiceVersion,
    service_name_validator,
)
from deployments.services.removal import remove_on_commit
from deployments.services.specs import config_of, model_versions_of
from deployments.signals import announce
from deployments.types import ServiceState

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

MOST_MODELS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRequest:
    """What a person asks for. None keeps what an update's service has.

    `update` False: the name must be free and `cluster` and `model_versions` are needed.
    `version`: the service's version the revision is for, "" the default one; a new name makes a new
    version, and on a new service names its first. A new version begins from what the default one has.
    `traffic_percent`: its share, which it gets when the deployment succeeds; None leaves it as it is.
    `source` and `entry_script`: the stored project folder (`deployments.services.sources`) and the
    script in it; an empty `entry_script` is no-code. A no-code deployment without an `environment`
    gets one made for the first model's framework and version.
    `config`: values under Azure's Python names; names left out keep their value or take the default.
    `keys`: (primary, secondary) brought along; new services get generated ones otherwise.
    """

    name: str
    update: bool = False
    version: str = ""
    traffic_percent: int | None = None
    cluster: Cluster | None = None
    model_versions: tuple[ModelVersion, ...] | None = None
    source: Blob | None = None
    entry_script: str | None = None
    environment: Environment | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    tags: Mapping[str, str] | None = None
    properties: Mapping[str, str] | None = None
    note: str = ""
    cors_origins: tuple[str, ...] | None = None
    keys: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """The request over what the service has: what the next revision is made of."""

    model_versions: tuple[ModelVersion, ...]
    source: Blob | None
    entry_script: str
    environment: Environment | None  # None: one is made for no-code
    config: DeploymentConfig


def check(request: DeployRequest) -> list[InvalidInput]:
    """Everything that is wrong with the request, each with its field; for forms."""
    service = _find(request)
    found: list[InvalidInput] = []
    try:
        service_name_validator(request.name)
    except ValidationError as error:
        found.append(InvalidInput(error.messages[0], field="name"))
    if request.update and service is None:
        raise NotFound(f"There is no service {request.name}.")
    if not request.update:
        if service is not None:
            found.append(
                InvalidInput(
                    f"A service named {request.name} exists already; update it, or choose "
                    "another name.",
                    field="name",
                )
            )
            service = None
        if request.cluster is None:
            found.append(InvalidInput("Choose a cluster.", field="cluster"))
    elif service is not None and request.cluster not in (None, service.cluster):
        found.append(
            InvalidInput(
                f"{service.name} runs on {service.cluster.name} and stays there: its scoring URI "
                "never changes.",
                field="cluster",
            )
        )
    if service is not None and request.properties is not None:
        found += _property_problems(service.properties, request.properties)
    if request.keys is not None:
        found += keys.check_given(*request.keys)
    found += versions.name_problems(service, request.version)
    found += versions.share_problems(service, request.version, request.traffic_percent)
    try:
        plan = _plan(request, service)
    except InvalidInput as error:
        return [*found, error]
    cluster = service.cluster if service is not None else request.cluster
    found += _plan_problems(plan)
    if not problems(plan.config):
        found += placement.misfits_on(plan.config, cluster)
    return found + placement.unbuildable(plan.environment, cluster)


def _find(request: DeployRequest) -> Service | None:
    return (
        Service.objects.select_related("cluster__sku", "current__environment", "current__source")
        .filter(name=request.name)
        .first()
    )


def _property_problems(before: Mapping[str, str], after: Mapping[str, str]) -> list[InvalidInput]:
    changed = sorted(key for key, value in before.items() if after.get(key, value) != value)
    if not changed:
        return []
    return [
        InvalidInput(
            f"Properties can only be added after the first deployment; {', '.join(changed)} "
            "would change.",
            field="properties",
        )
    ]


def _base(service: Service | None, version: str) -> Revision | None:
    """The revision an update starts from: what serves in the version, else in the default one, else
    the last one tried."""
    if service is None:
        return None
    revisions = service.revisions.select_related("environment", "source")
    own = versions.find(service, version)
    for found in (own.current_id if own is not None else None, service.current_id):
        if found is not None:
            return revisions.get(pk=found)
    return revisions.first()


def _plan(request: DeployRequest, service: Service | None) -> _Plan:
    base = _base(service, request.version)
    config = from_values(request.config, _kept_config(base, service))
    models = request.model_versions
    if models is None:
        models = model_versions_of(base) if base else ()
    source = request.source or (base.source if base else None)
    script = request.entry_script
    if script is None:
        script = base.entry_script if base else ""
    if not script:
        source = None
    environment = request.environment
    if environment is None and base is not None and not no_code.made_here(base.environment):
        environment = base.environment
    return _Plan(tuple(models), source, script.strip(), environment, config)


def _kept_config(base: Revision | None, service: Service | None) -> DeploymentConfig | None:
    """What stays where a request says nothing. Access is the service's, which a person may have
    changed since that revision was made."""
    if base is None or service is None:
        return None
    return replace(
        config_of(base),
        auth_enabled=service.auth_enabled,
        token_auth_enabled=service.token_auth_enabled,
    )


def _plan_problems(plan: _Plan) -> list[InvalidInput]:
    found = list(problems(plan.config))
    count = len(plan.model_versions)
    if count > MOST_MODELS:
        found.append(
            InvalidInput(
                f"{count:,} models are given; at most {MOST_MODELS:,} fit one deployment.",
                field="model_versions",
            )
        )
    if len({version.pk for version in plan.model_versions}) != count:
        found.append(InvalidInput("A model version is given twice.", field="model_versions"))
    if plan.entry_script:
        if plan.source is None:
            found.append(
                InvalidInput("Give the project folder the entry script is in.", field="source")
            )
        else:
            found += sources.entry_script_problems(plan.source, plan.entry_script)
        if plan.environment is None:
            found.append(
                InvalidInput("Choose the environment the script runs in.", field="environment")
            )
    else:
        found += no_code.problems(plan.model_versions)
    return found


def deploy(actor: "AbstractBaseUser | None", request: DeployRequest) -> Deployment:
    """Write down the next revision and its deployment, and put the job on the queue.

    Raises InvalidInput (the first problem; `check` lists all), NotFound, or Conflict while another
    operation on the service runs.
    """
    if found := check(request):
        raise found[0]
    # before the lock: making a no-code environment is a change of its own and may stay
    plan = _plan(request, _find(request))
    environment = plan.environment or no_code.environment_for(actor, plan.model_versions[0])
    try:
        with transaction.atomic():
            if request.update:
                service = _locked(request.name)
            else:
                service = _create_service(actor, request, plan.config)
            # again, under the lock: another request may have made the last version there can be
            if found := versions.name_problems(service, request.version):
                raise found[0]
            version = versions.ensure(actor, service, request.version)
            before = _summary(version.current) if version.current else None
            kind = Deployment.Kind.UPDATE if version.current_id else Deployment.Kind.CREATE
            if request.update:
                _update_service(service, request, plan.config)
            if request.traffic_percent is not None:
                versions.reserve(actor, service, version, request.traffic_percent)
            if service.token_auth_enabled:
                signing.ensure(service.cluster)
            revision = _create_revision(actor, service, plan, environment, request.note)
            deployment = _create_deployment(actor, service, version, revision, kind)
            record(
                actor,
                f"service.{kind.value}",
                "service",
                service.name,
                before=before,
                after={"version": version.name, **_summary(revision)},
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
                before=_summary(into.current) if into.current else None,
                after={"version": into.name, **_summary(revision)},
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
    if properties is not None and (wrong := _property_problems(service.properties, properties)):
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
            before=_summary(locked.current) if locked.current else None,
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


def _create_service(
    actor: "AbstractBaseUser | None", request: DeployRequest, config: DeploymentConfig
) -> Service:
    primary, secondary = request.keys or (keys.generate(), keys.generate())
    if request.cluster is None:
        raise InvalidInput("Choose a cluster.", field="cluster")
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


def _update_service(service: Service, request: DeployRequest, config: DeploymentConfig) -> None:
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


def _create_revision(
    actor: "AbstractBaseUser | None",
    service: Service,
    plan: _Plan,
    environment: Environment,
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
        config=plan.config.to_values(),
        note=note[:200],
        created_by_id=actor.pk if actor else None,
    )
    RevisionModel.objects.bulk_create(
        RevisionModel(revision=revision, model_version=version, position=position)
        for position, version in enumerate(plan.model_versions)
    )
    return revision


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


def _summary(revision: Revision) -> dict[str, Any]:
    """A revision in an audit row: what it is made of, no secrets."""
    return {
        "revision": revision.number,
        "models": [str(version) for version in model_versions_of(revision)],
        "entry_script": revision.entry_script or "(no-code)",
        "environment": str(revision.environment),
        "config": revision.config,
    }


def unfinished_deployment(service: Service) -> Deployment | None:
    return service.deployments.filter(state__in=UNFINISHED).first()
