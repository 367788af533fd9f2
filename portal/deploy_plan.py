"""What the deployment form amounts to, said before it is submitted. Reads rows only."""

from dataclasses import dataclass, field
from typing import Any

from deployments.clusters.changes import capacity_of as cluster_capacity
from deployments.clusters.models import Cluster
from deployments.environments.definition import parse
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.errors import InvalidInput
from deployments.images.models import ImageBuild
from deployments.registry.models import Framework, ModelVersion
from deployments.services import containers, fits, placement, versions
from deployments.services.config import DEFAULTS, DeploymentConfig, replicas_needed
from deployments.services.models import Service
from portal.forms.deploy import EDITOR, ENTRY_SCRIPT, DeployForm

# Frameworks an environment is made for when none is chosen.
MADE_FOR = (Framework.SCIKIT_LEARN.value, Framework.ONNX.value)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about one field, named as the form names it."""

    label: str
    message: str


@dataclass(slots=True)
class Plan:
    """`lines` say what will happen; `misfits` can never run there; `warnings` may not run now."""

    lines: list[str] = field(default_factory=list)
    misfits: list[Remark] = field(default_factory=list)
    warnings: list[Remark] = field(default_factory=list)
    capacity_known: bool = True
    cluster: Cluster | None = None


@dataclass(frozen=True, slots=True)
class Needed:
    """The calculator's answer with its formula written out."""

    replicas: int
    formula: str


def capacity_of(values: dict[str, Any]) -> Needed:
    """How many replicas this load needs. `values` are a valid CapacityForm's."""
    rate, seconds = values["requests_per_second"], values["seconds_per_request"]
    percent = values["autoscale_target_utilization"] or DEFAULTS["autoscale_target_utilization"]
    concurrency = values["replica_max_concurrent_requests"] or 1
    replicas = replicas_needed(rate, seconds, percent / 100, concurrency)
    return Needed(
        replicas,
        f"{rate:g} requests/s × {seconds:g} s ÷ {percent / 100:g} target ÷ {concurrency} at once, "
        f"rounded up = {replicas:,}",
    )


def misfits_of(form: DeployForm, cluster: Cluster | None) -> list[InvalidInput]:
    """What can never run on the cluster; empty while the configuration itself is not valid."""
    config = form.config
    return placement.misfits_on(config, cluster) if config is not None else []


def plan_of(form: DeployForm, service: Service | None) -> Plan:
    """The form must have been validated; what is missing or wrong in it is simply not said here."""
    data = form.cleaned_data
    cluster = service.cluster if service else data.get("cluster")
    plan = Plan(cluster=cluster)
    if cluster is not None:
        plan.capacity_known = cluster.capacity is not None
        plan.misfits = [_remark(form, item) for item in misfits_of(form, cluster)]
        if form.config is not None and not plan.misfits:
            plan.warnings = [
                _remark(form, item)
                for item in fits.warnings(form.config, cluster_capacity(cluster))
            ]
    if data.get("container") is not None:
        wrong = (
            containers.cluster_problems(cluster.kind, cluster.name, cluster.engine_url)
            if cluster
            else []
        )
    elif (defined := data.get("new_environment")) is not None:
        wrong = placement.environment_problems(parse(**defined.texts()), cluster)
    else:
        wrong = placement.unbuildable(data.get("environment"), cluster)
    label = "Image" if data.get("container") is not None else "Environment"
    plan.misfits += [Remark(label, item.message) for item in wrong]
    plan.lines = _lines(data, service, cluster)
    return plan


def _remark(form: DeployForm, item: InvalidInput) -> Remark:
    found = form.fields.get(item.field)
    return Remark(str(found.label) if found else "Cluster", item.message)


def _lines(data: dict[str, Any], service: Service | None, cluster: Cluster | None) -> list[str]:
    lines: list[str] = []
    if service is not None:
        lines.append(_revision(service, data.get("version") or ""))
    elif data.get("name") and cluster is not None:
        lines.append(f"A new service {data['name']} on {cluster.name}.")
    if (container := data.get("container")) is not None:
        lines.append(
            f"It is the image {container.image}, port {container.port}: nothing is zipped or built. Requests "
            f"go to its {container.scoring_path}."
        )
    elif models := data.get("models"):
        shown = ", ".join(str(version) for version in models[:3])
        more = f" and {len(models) - 3} more" if len(models) > 3 else ""
        lines.append(f"It serves {shown}{more}, {_serving(data)}.")
    if container is not None:
        pass
    elif (defined := data.get("new_environment")) is not None:
        lines.append(
            f"{defined.name or 'An environment'} is made as inferenceconfig.json says, then built; "
            "that can take minutes."
        )
    else:
        lines.append(_environment(data.get("environment"), data.get("models") or [], cluster))
    if (config := data.get("config")) is not None:
        lines.append(_replicas(config))
        if data.get("brought_keys"):
            lines.append("Its keys become those of deploymentconfig.json.")
        elif service is None:
            lines.append(_access(config))
    return lines


def _revision(service: Service, name: str) -> str:
    """Which revision it is, of which version, and what becomes of what serves."""
    said = f"Revision {service.next_revision} of {service.name}"
    rows = versions.rows_of(service)
    own = versions.find(service, name)
    if own is None:
        return (
            f"{said}, in a new version {name} beside {', '.join(row.name for row in rows)}. It gets "
            "no requests until you give it a share."
        )
    of = f", version {own.name}" if len(rows) > 1 else ""
    until = " What serves now goes on until the new replicas answer." if own.current_id else ""
    return f"{said}{of}.{until}"


def _access(config: DeploymentConfig) -> str:
    if config.auth_enabled:
        return "Two keys are made for it" + (
            ", and tokens let requests in too." if config.token_auth_enabled else "."
        )
    if config.token_auth_enabled:
        return "Only tokens let requests in, not keys."
    return "Anyone who reaches the router may score: no key and no token is asked for."


def _serving(data: dict[str, Any]) -> str:
    if data.get("serving") != ENTRY_SCRIPT:
        return "without code of yours"
    script = data.get("entry_script") or "the entry script"
    return f"by {script}" + (" written here" if data.get("source_kind") == EDITOR else "")


def _environment(
    environment: Environment | None, models: list[ModelVersion], cluster: Cluster | None
) -> str:
    if environment is None:
        if models and models[0].framework not in MADE_FOR:
            name = models[0].get_framework_display()
            return f"Choose an environment: none is made for the framework {name}."
        return "Its environment is made for the model’s framework, and built once."
    if cluster is not None and cluster.kind != Cluster.Kind.PROCESS:
        if ImageBuild.objects.filter(hash=environment.hash, state=BuildState.READY).exists():
            return f"It runs in {environment}, whose image is there already."
        return f"It runs in {environment}, whose image is looked for in the registries, else built."
    ready = EnvironmentBuild.objects.filter(hash=environment.hash, state=BuildState.READY).exists()
    return f"It runs in {environment}, " + (
        "which is built already." if ready else "which is built first; that can take minutes."
    )


def _replicas(config: DeploymentConfig) -> str:
    scaling = config.to_scaling()
    each = f"{config.cpu_cores:g} CPU and {config.memory_gb:g} GiB each"
    if config.gpu_cores:
        each = f"{config.cpu_cores:g} CPU, {config.memory_gb:g} GiB and {config.gpu_cores} GPU each"
    if not scaling.autoscale:
        count = "1 replica" if scaling.minimum == 1 else f"{scaling.minimum} replicas"
        return f"{count}, {each}."
    return (
        f"{scaling.minimum} to {scaling.maximum} replicas as the load asks for, {each}, about "
        f"{scaling.target_utilization} % of them busy."
    )
