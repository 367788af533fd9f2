"""The steps a job takes: zipping -> hashing -> image -> applying.

Each is a function of the run, idempotent and keyed by what it makes: a step that was killed half-way
is simply taken again, and one whose product stands is not repeated. Nothing here loads a model.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deployments.clusters.drivers import driver_for
from deployments.environments.hashing import environment_hash
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.environments.venvs import ensure_built, is_complete
from deployments.errors import PermanentError
from deployments.images import registries, scan
from deployments.images.models import ImageBuild, Registry
from deployments.pipeline.archive import write_zip
from deployments.pipeline.ignore import select
from deployments.pipeline.log import DeploymentLog
from deployments.registry.archives import unpack_zip
from deployments.registry.blobs import StorageBlobs, digest, open_blob, store_path
from deployments.registry.blobs import release as release_hold
from deployments.services import containers, no_code, specs, versions
from deployments.services.models import Deployment, DeploymentState, Revision, Service
from deployments.services.sources import MOST_BYTES, MOST_FILES


class ClaimLost(Exception):
    """Another process has the deployment now, or it was cancelled; this one stops without a word."""


@dataclass(frozen=True, slots=True)
class Run:
    """One deployment under way. `check_claim` raises ClaimLost."""

    deployment: Deployment
    service: Service
    revision: Revision
    log: DeploymentLog
    check_claim: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Done:
    """What a step says of itself on the timeline. `skipped`: its product stood already."""

    detail: str
    skipped: bool = False


def zipping(run: Run) -> Done:
    """Pack the project folder by its ignore rules; the revision's package from then on."""
    revision = run.revision
    if revision.container is not None:
        return _brought(run, "zipped")
    if revision.package is not None:
        run.log.write(f"The package of revision {revision.number} is in the store.")
        return Done(f"{revision.package} is in the store", skipped=True)
    scratch = Path(tempfile.mkdtemp(prefix="package-", dir=settings.HOME.uploads))
    try:
        folder = scratch / "project"
        if revision.source is None:
            chosen, left_out = _no_code_files(revision, folder), ""
        else:
            with open_blob(revision.source.sha256) as file:
                unpack_zip(file, folder, max_bytes=MOST_BYTES, max_files=MOST_FILES)
            selection = select(folder)
            chosen = list(selection.files)
            left_out = ""
            if selection.ignored:
                why = selection.rules or "rule"
                left_out = f", {selection.ignored} left out by {why}"
            if revision.entry_script not in chosen:
                raise PermanentError(
                    f"{selection.rules} leaves out {revision.entry_script}, the entry script. "
                    "Change its patterns.",
                    code="EntryScriptIgnored",
                )
        size = sum((folder / name).stat().st_size for name in chosen)
        target = scratch / specs.PACKAGE_NAME
        write_zip(target, [(name, folder / name) for name in chosen])
        blob = store_path(target, *digest(target))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    Revision.objects.filter(pk=revision.pk, package=None).update(package=blob)
    release_hold([blob])
    revision.refresh_from_db(fields=["package"])
    detail = (
        f"{_counted(len(chosen), 'file')}, {_sized(size)}, zipped to {_sized(blob.size)}{left_out}"
    )
    run.log.write(f"Project folder: {detail}.")
    return Done(detail)


def _no_code_files(revision: Revision, folder: Path) -> list[str]:
    version = specs.model_versions_of(revision)[0]
    script = files("deployments.runtime") / no_code.script_name(version)
    folder.mkdir(parents=True)
    (folder / specs.NO_CODE_SCRIPT).write_bytes(script.read_bytes())
    return [specs.NO_CODE_SCRIPT]


def hashing(run: Run) -> Done:
    """Say which environment it is; the row's hash is held to its definition."""
    environment = run.revision.environment
    if environment is None:
        return _brought(run, "hashed")
    run.log.write("Creating Container Registry if not exists.")
    if run.service.cluster.kind == run.service.cluster.Kind.PROCESS:
        run.log.write("This cluster keeps environments on the machine itself; none is needed.")
    else:
        run.log.write(_registry_line(registries.workspace()))
    run.log.write("Registering the environment.")
    expected = environment_hash(
        base_image=environment.base_image,
        docker_steps=environment.docker_steps,
        conda_yaml=environment.conda_yaml,
        pip_requirements=environment.pip_requirements,
    )
    if expected != environment.hash:
        raise PermanentError(
            f"Environment {environment} does not match its hash; make a new version of it.",
            code="EnvironmentChanged",
        )
    run.log.write(f"Environment {environment} has the hash {environment.hash}.")
    return Done(f"{environment}, {environment.hash[:12]}")


def _brought(run: Run, what: str) -> Done:
    """A brought image serves by itself."""
    container = containers.from_row(run.revision.container)
    if container is None:
        raise PermanentError(f"{run.revision} has neither an environment nor an image.")
    run.log.write(f"The image {container.image} was brought; nothing is {what}.")
    return Done("an image was brought", skipped=True)


def _registry_line(registry: Registry | None) -> str:
    if registry is None:
        return "No workspace registry is set up; images stay on the Engine that builds them."
    return f"The workspace's registry is {registry.name} ({registry.address})."


def image(run: Run) -> Done:
    """Find the environment built, or build it: a virtual environment, or an image."""
    environment = run.revision.environment
    if environment is None:
        return _brought(run, "built")
    if run.service.cluster.kind == run.service.cluster.Kind.PROCESS:
        return _virtual_environment(run, environment)
    # Docker's client library is slow to import, and process clusters never need it
    from deployments.images.builds import ensure_image
    from deployments.images.engines import place_of

    began = timezone.now()
    place = place_of(run.service.cluster)
    ready = ImageBuild.objects.filter(hash=environment.hash, state=BuildState.READY).exists()
    if ready:
        run.log.write("Use the existing image.")

    def say(text: str) -> None:
        if not ready and text.startswith("Building image "):
            run.log.write("Building image..")
        run.log.write(text, source="build")

    build = ensure_image(environment, place, log=say, check=run.check_claim)
    run.log.write(f"The image is {build.reference}.")
    here = build.started_at is not None and build.started_at >= began
    if not here:
        return Done("found on the Engine" if build.registry is None else "found")
    if build.found and build.registry is not None:
        run.log.write("Use the existing image.")
        return Done(f"found in {build.registry.name}")
    return Done("built" if build.registry is None else f"built, pushed to {build.registry.name}")


def _virtual_environment(run: Run, environment: Environment) -> Done:
    build = EnvironmentBuild.objects.filter(hash=environment.hash, state=BuildState.READY).first()
    found = build is not None and is_complete(build.location)
    run.log.write("Use the existing image." if found else "Building image..")
    build = ensure_built(environment, log=lambda text: run.log.write(text, source="build"))
    run.log.write(f"The environment is at {build.location}.")
    refused = run.service.cluster.refuse_severity
    scan.vet(build, refused, lambda text: run.log.write(text, source="build"))
    return Done("found" if found else "built")


def applying(run: Run) -> Done:
    """Bring the files to the cluster, then make it want the revision."""
    run.log.write("Creating resources in AKS.")
    cluster = run.service.cluster
    run.log.write(f"Cluster {cluster.name} ({cluster.get_kind_display()}, {cluster.purpose}).")
    driver = driver_for(cluster)
    location = specs.location_of(run.revision, kind=cluster.kind)
    driver.stage(specs.revision_spec(run.revision, location=location), StorageBlobs())
    run.check_claim()
    run.log.write("Submitting deployment to compute.")
    applied_at = timezone.now()
    with transaction.atomic():
        service = Service.objects.select_for_update().get(pk=run.service.pk)
        if service.deleting:
            raise ClaimLost(f"{service.name} is being deleted")
        version = versions.find(service, run.deployment.version_name)
        if version is None:
            raise ClaimLost(f"version {run.deployment.version_name} was deleted")
        versions.set_current(service, version, run.revision)
        # under the service's lock, which a cancelling deletion takes as well
        if not Deployment.objects.filter(
            pk=run.deployment.pk,
            state=DeploymentState.RUNNING,
            claimed_by=run.deployment.claimed_by,
        ).update(applied_at=applied_at):
            raise ClaimLost("the deployment is another's")
    spec = specs.service_spec(service)
    driver.apply(spec)
    what = f"revision {run.revision.number} on {cluster.name}"
    if len(spec.versions) > 1:
        return Done(f"{what}, version {run.deployment.version_name}")
    return Done(what)


STEPS: tuple[tuple[str, Callable[[Run], Done]], ...] = (
    ("zipping", zipping),
    ("hashing", hashing),
    ("image", image),
    ("applying", applying),
)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _sized(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
