"""From rows to what is written into a cluster. Reads rows; changes nothing."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db.models import prefetch_related_objects

from deployments.clusters.models import Cluster
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.errors import TemporaryError
from deployments.images.models import ImageBuild
from deployments.services import containers, keys
from deployments.services.config import DeploymentConfig, from_values
from deployments.services.models import Revision, Service, ServiceVersion
from deployments.services.traffic import split
from deployments.types import (
    AuthSpec,
    EnvironmentSpec,
    FileSpec,
    ModelSpec,
    RevisionSpec,
    ServiceSpec,
    VersionSpec,
)

if TYPE_CHECKING:
    from deployments.registry.models import ModelVersion

PACKAGE_NAME = "project.zip"
_NOT_PACKED = FileSpec(PACKAGE_NAME, "", 0)
_PARTS = ("model_links__model_version__model", "model_links__model_version__files__blob")
NO_CODE_SCRIPT = "no_code_score.py"  # what the zipping step names it in a no-code package


def config_of(revision: Revision) -> DeploymentConfig:
    """The revision's configuration; names a newer or older Slipway knew are left out."""
    known = DeploymentConfig.__dataclass_fields__
    return from_values({name: value for name, value in revision.config.items() if name in known})


def model_versions_of(revision: Revision) -> tuple["ModelVersion", ...]:
    """The revision's model versions in the order given."""
    links = revision.model_links.select_related("model_version__model")
    return tuple(link.model_version for link in links)


def revision_spec(
    revision: Revision, *, location: str, instead: FileSpec | None = None
) -> RevisionSpec:
    """Everything a replica is started from. `location` is the built environment's, or the brought image's.

    Raises TemporaryError while the revision has no package yet, unless something is given `instead`.
    """
    config = config_of(revision)
    container = containers.from_row(revision.container)
    if container is not None:
        return RevisionSpec(
            service=revision.service.name,
            number=revision.number,
            source=FileSpec("", "", 0),
            entry_script="",
            models=(),
            environment=EnvironmentSpec("", location),
            container=container,
            **_running(config),
        )
    environment, package = revision.environment, instead
    if revision.package is not None:
        package = FileSpec(PACKAGE_NAME, revision.package.sha256, revision.package.size)
    if package is None or environment is None:
        raise TemporaryError(f"{revision} has no package yet; its deployment makes it.")
    prefetch_related_objects([revision], *_PARTS)
    models = tuple(
        ModelSpec(
            name=link.model_version.model.name,
            version=link.model_version.version,
            files=tuple(
                FileSpec(path=file.path, sha256=file.blob_id, size=file.blob.size)
                for file in link.model_version.files.all()
            ),
        )
        for link in revision.model_links.all()
    )
    variables = {str(key): str(value) for key, value in environment.variables.items()}
    return RevisionSpec(
        service=revision.service.name,
        number=revision.number,
        source=package,
        entry_script=revision.entry_script or NO_CODE_SCRIPT,
        models=models,
        environment=EnvironmentSpec(hash=environment.hash, location=location, variables=variables),
        **_running(config),
    )


def _running(config: DeploymentConfig) -> dict[str, Any]:
    """How a replica runs, whatever it is made of."""
    return {
        "resources": config.to_resources(),
        "probe": config.to_probe(),
        "concurrency": config.replica_max_concurrent_requests,
        "scoring_timeout_ms": config.scoring_timeout_ms,
        "max_request_wait_ms": config.max_request_wait_time,
        "collect_model_data": config.collect_model_data,
        "start_timeout_seconds": config.initial_delay_seconds,
        "request_log": config.enable_app_insights,
    }


def location_of(revision: Revision, *, kind: str) -> str:
    """Where what the revision runs in stands on a cluster of this kind. Raises TemporaryError."""
    container = containers.from_row(revision.container)
    if container is not None:
        return container.image
    if revision.environment is None:
        raise TemporaryError(f"{revision} has no environment.")
    return environment_location(revision.environment.hash, kind=kind)


def environment_location(environment_hash: str, *, kind: str) -> str:
    """Where the environment stands on a cluster of this kind: a folder, or an image's reference.

    Raises TemporaryError while it is not built.
    """
    process = kind == Cluster.Kind.PROCESS
    ready = {"hash": environment_hash, "state": BuildState.READY}
    if process:
        venvs = EnvironmentBuild.objects.filter(**ready).values_list("location", flat=True)
        location = venvs.first()
    else:
        images = ImageBuild.objects.filter(**ready).values_list("reference", flat=True)
        location = images.first()
    if not location:
        what = "Environment" if process else "The image of environment"
        raise TemporaryError(f"{what} {environment_hash[:12]} is not built yet.")
    return location


def service_spec(
    service: Service, *, ahead: Callable[[Environment], str] | None = None
) -> ServiceSpec:
    """What the cluster should want: every version that has a revision, the default one first.

    Raises TemporaryError while a version's environment is not built, or it has no package; not where
    `ahead` says where an environment will stand, for looking at what would be made: a package that is
    not there has no checksum then.
    """
    rows = list(
        ServiceVersion.objects.filter(service=service, current__isnull=False)
        .select_related("current__service", "current__environment", "current__package")
        .prefetch_related(*(f"current__{part}" for part in _PARTS))
    )
    shares = split([row.share for row in rows])
    return ServiceSpec(
        name=service.name,
        versions=tuple(
            _version_spec(row, shares[row.name], service.cluster.kind, ahead) for row in rows
        ),
        auth=AuthSpec(
            key_enabled=service.auth_enabled,
            token_enabled=service.token_auth_enabled,
            key_digests=keys.digests(service),
        ),
        cors_origins=tuple(service.cors_origins),
        generation=service.generation,
    )


def _version_spec(
    row: ServiceVersion,
    percent: int,
    kind: str,
    ahead: Callable[[Environment], str] | None,
) -> VersionSpec:
    revision = row.current
    if revision is None:
        raise TemporaryError(f"{row} has no revision any more.")
    instead = None
    if ahead is not None and revision.environment is not None:
        location, instead = ahead(revision.environment), _NOT_PACKED
    else:
        location = location_of(revision, kind=kind)
    return VersionSpec(
        name=row.name,
        revision=revision_spec(revision, location=location, instead=instead),
        scaling=config_of(revision).to_scaling(),
        traffic_percent=percent,
        is_default=row.is_default,
    )
