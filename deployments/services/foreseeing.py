"""What a deployment would want of its cluster, found out without deploying anything.

The deployment is written down by the same functions as any other, read as the cluster would get it, and the
transaction is rolled back: no row, no audit row, no news, no job. No cluster and no registry is touched.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction

from deployments.environments.models import BuildState, Environment
from deployments.errors import InvalidInput
from deployments.images import references, registries
from deployments.images.models import ImageBuild
from deployments.services import changes, versions
from deployments.services.planning import DeployRequest
from deployments.services.specs import service_spec
from deployments.types import ServiceSpec

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


@dataclass(frozen=True, slots=True)
class Foreseen:
    """`unbuilt`: images of `spec` that no registry is known to have yet, by the names they will have."""

    spec: ServiceSpec
    unbuilt: tuple[str, ...] = ()


def foresee(
    actor: "AbstractBaseUser | None", asked: Callable[[], DeployRequest]
) -> Foreseen | list[InvalidInput]:
    """What the service would be on a cluster that pulls images, or all that is wrong with the request.

    `asked` is called within the transaction, so that an environment it makes is not kept either. Raises as
    `changes.deploy` does.
    """
    unbuilt: list[str] = []

    def stands(environment: Environment) -> str:
        ready = ImageBuild.objects.filter(hash=environment.hash, state=BuildState.READY)
        found = ready.exclude(registry=None).values_list("reference", flat=True).first()
        if found:
            return found
        unbuilt.append(image_name(environment.hash))
        return unbuilt[-1]

    with transaction.atomic():
        request = asked()
        if wrong := changes.check(request):
            transaction.set_rollback(True)
            return wrong
        deployment = changes.deploy(actor, request)
        service = deployment.service
        version = versions.find(service, deployment.version_name)
        if version is not None:
            versions.set_current(service, version, deployment.revision)
        spec = service_spec(service, ahead=stands)
        transaction.set_rollback(True)
    return Foreseen(spec, tuple(dict.fromkeys(unbuilt)))


def image_name(environment_hash: str) -> str:
    """What an environment's image is called once it is pushed; by tag, as its digest is not known."""
    workspace = registries.workspace()
    if workspace is None:
        return f"{references.image_path('')}:{environment_hash}"
    return f"{workspace.address}/{references.image_path(workspace.repository)}:{environment_hash}"
