"""What people do with images: ask for a build, cancel one, remove one. Each writes its audit row."""

from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from deployments.audit.record import record
from deployments.environments import claims
from deployments.environments.models import BuildState, Environment
from deployments.errors import Conflict
from deployments.images import jobs
from deployments.images.models import ImageBuild
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


def request_build(actor: "AbstractBaseUser | None", environment: Environment) -> None:
    """Look for the image, or build it, now. Raises Conflict while it is being built or stands."""
    with transaction.atomic():
        build, _ = ImageBuild.objects.get_or_create(hash=environment.hash)
        if claims.is_running(build, timezone.now()):
            raise Conflict(
                f"The image of {environment} is being built already; its log shows how far it is."
            )
        if build.state == BuildState.READY:
            raise Conflict(f"The image of {environment} is there already.")
        seen = ImageBuild.objects.filter(
            pk=build.pk, state=build.state, claimed_by=build.claimed_by
        )
        if not seen.update(
            state=BuildState.QUEUED, error="", error_code="", claimed_by="", claimed_until=None
        ):
            raise Conflict(f"The image of {environment} changed at this moment; look again.")
        record(actor, "image.build", "environment", str(environment))
        announce("environment", environment.hash)
        transaction.on_commit(lambda: jobs.enqueue_build(environment.pk))


def cancel_build(actor: "AbstractBaseUser | None", environment: Environment) -> None:
    """Stop the build within a second or two; who waits for it fails with that cause.

    Raises Conflict when nobody builds it.
    """
    with transaction.atomic():
        asked = ImageBuild.objects.filter(
            hash=environment.hash, state=BuildState.BUILDING, cancel_asked=False
        ).update(cancel_asked=True)
        if not asked:
            raise Conflict(f"The image of {environment} is not being built now.")
        record(actor, "image.cancel", "environment", str(environment))
        announce("environment", environment.hash)


def let_go(hash_: str) -> None:
    """No environment has this hash any more: its image and its row go with the next look at the Engines,
    which is soon. In a transaction of the caller's. Raises Conflict while it is being built."""
    build = ImageBuild.objects.filter(hash=hash_).first()
    if build is None:
        return
    if claims.is_running(build, timezone.now()):
        raise Conflict("Its image is being built; wait for the end of the build, or cancel it.")
    transaction.on_commit(jobs.enqueue_tidy)


def remove_image(actor: "AbstractBaseUser | None", environment: Environment) -> None:
    """Take it off the Engines. Raises Conflict, with where, while it is needed or being built."""
    from deployments.images.retention import remove

    build = ImageBuild.objects.filter(hash=environment.hash).first()
    if build is None or build.state == BuildState.REMOVED:
        return
    remove(build)
    record(
        actor,
        "image.remove",
        "environment",
        str(environment),
        before={"hash": build.hash, "size": build.size, "reference": build.reference},
    )
