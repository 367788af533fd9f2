"""What a request to deploy comes to: the request over what the service has, and all that is wrong with it.

Reads rows and writes none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.core.exceptions import ValidationError

from deployments.clusters.models import Cluster
from deployments.environments.models import Environment
from deployments.errors import InvalidInput, NotFound
from deployments.registry.models import Blob, ModelVersion
from deployments.services import containers, keys, no_code, placement, sources, versions
from deployments.services.config import DeploymentConfig, from_values, problems
from deployments.services.models import Revision, Service, service_name_validator
from deployments.services.specs import config_of, model_versions_of
from deployments.types import ContainerSpec

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
    `container`: a brought image; nothing is zipped, built or loaded for it, and models are not part of it.
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
    container: ContainerSpec | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    tags: Mapping[str, str] | None = None
    properties: Mapping[str, str] | None = None
    note: str = ""
    cors_origins: tuple[str, ...] | None = None
    keys: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The request over what the service has: what the next revision is made of."""

    model_versions: tuple[ModelVersion, ...]
    source: Blob | None
    entry_script: str
    environment: Environment | None  # None: one is made for no-code
    config: DeploymentConfig
    container: ContainerSpec | None = None  # then there is no script, no source and no environment


def check(request: DeployRequest) -> list[InvalidInput]:
    """Everything that is wrong with the request, each with its field; for forms."""
    service = find(request)
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
        elif request.cluster.state == Cluster.State.DETACHING:
            words = f"{request.cluster.name} is being detached; choose another cluster."
            found.append(InvalidInput(words, field="cluster"))
    elif service is not None and request.cluster not in (None, service.cluster):
        found.append(
            InvalidInput(
                f"{service.name} runs on {service.cluster.name} and stays there: its scoring URI "
                "never changes.",
                field="cluster",
            )
        )
    if service is not None and request.properties is not None:
        found += property_problems(service.properties, request.properties)
    if request.keys is not None:
        found += keys.check_given(*request.keys)
    if request.container is not None and request.entry_script:
        found.append(
            InvalidInput("Give an image or an entry script, not both.", field="entry_script")
        )
    found += versions.name_problems(service, request.version)
    found += versions.share_problems(service, request.version, request.traffic_percent)
    try:
        plan = plan_of(request, service)
    except InvalidInput as error:
        return [*found, error]
    cluster = service.cluster if service is not None else request.cluster
    found += _plan_problems(plan)
    if plan.container is not None and cluster is not None:
        found += containers.cluster_problems(cluster.kind, cluster.name, cluster.engine_url)
    if not problems(plan.config):
        found += placement.misfits_on(plan.config, cluster)
    return found + placement.unbuildable(plan.environment, cluster)


def find(request: DeployRequest) -> Service | None:
    return (
        Service.objects.select_related("cluster__sku", "current__environment", "current__source")
        .filter(name=request.name)
        .first()
    )


def property_problems(before: Mapping[str, str], after: Mapping[str, str]) -> list[InvalidInput]:
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


def plan_of(request: DeployRequest, service: Service | None) -> Plan:
    base = _base(service, request.version)
    config = from_values(request.config, _kept_config(base, service))
    models = request.model_versions
    if models is None:
        models = model_versions_of(base) if base else ()
    container = _container_of(request, base)
    if container is not None:
        return Plan((), None, "", None, config, container)
    source = request.source or (base.source if base else None)
    script = request.entry_script
    if script is None:
        script = base.entry_script if base else ""
    if not script:
        source = None
    environment = request.environment
    if environment is None and base is not None:
        kept = base.environment
        environment = kept if kept is not None and not no_code.made_here(kept) else None
    return Plan(tuple(models), source, script.strip(), environment, config)


def _container_of(request: DeployRequest, base: Revision | None) -> ContainerSpec | None:
    """The image that is brought: the request's, or what is kept where the request names no other way."""
    if request.container is not None:
        return request.container
    another = request.entry_script is not None or request.environment is not None or request.source
    return containers.from_row(base.container) if base is not None and not another else None


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


def _plan_problems(plan: Plan) -> list[InvalidInput]:
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
    if plan.container is not None:
        found += containers.problems(plan.container)
    elif plan.entry_script:
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
