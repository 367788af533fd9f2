"""The functions that change environments and their builds. Each writes its audit row."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from deployments.audit.record import record
from deployments.environments import claims, jobs, usage, venvs
from deployments.environments.definition import check_variables
from deployments.environments.hashing import environment_hash
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.errors import Conflict, InvalidInput
from deployments.registry.models import name_validator
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

_ATTEMPTS = 5  # at the next version's number, when several people save at once


def create_environment(
    actor: "AbstractBaseUser | None",
    *,
    name: str,
    base_image: str = "",
    docker_steps: str = "",
    conda_yaml: str = "",
    pip_requirements: str = "",
    variables: Mapping[str, str] | None = None,
    description: str = "",
) -> Environment:
    """The next version under this name; the latest one where nothing differs from it.

    Raises InvalidInput with the field and the line.
    """
    try:
        name_validator(name)
    except ValidationError as error:
        raise InvalidInput(error.messages[0], field="name") from error
    check_variables(variables or {})
    values = {
        "base_image": base_image.strip(),
        "docker_steps": _text(docker_steps),
        "conda_yaml": _text(conda_yaml),
        "pip_requirements": _text(pip_requirements),
        "variables": dict(variables or {}),
        "description": _text(description),
    }
    hash_ = environment_hash(
        base_image=base_image,
        docker_steps=docker_steps,
        conda_yaml=conda_yaml,
        pip_requirements=pip_requirements,
    )
    for _ in range(_ATTEMPTS):
        try:
            with transaction.atomic():
                latest = Environment.objects.filter(name=name).order_by("-version").first()
                if latest and all(getattr(latest, key) == value for key, value in values.items()):
                    return latest
                return _insert(actor, name, values, hash_)
        except IntegrityError:
            continue  # somebody took this number; look again
    raise Conflict(f"Several people are saving versions of {name} right now; save again.")


def _insert(
    actor: "AbstractBaseUser | None", name: str, values: Mapping[str, object], hash_: str
) -> Environment:
    highest = Environment.objects.filter(name=name).aggregate(highest=Max("version"))["highest"]
    environment = Environment.objects.create(
        name=name,
        version=(highest or 0) + 1,
        hash=hash_,
        created_by_id=actor.pk if actor else None,
        **values,
    )
    # values of variables may be secrets of the person's: their names are enough
    record(
        actor,
        "environment.create",
        "environment",
        str(environment),
        after={"hash": hash_, "variables": sorted(environment.variables)},
    )
    announce("environment", hash_)
    return environment


def _text(value: str) -> str:
    """As typed, with one kind of line end and none at the end."""
    return "\n".join(value.splitlines()).strip("\n")


def request_build(actor: "AbstractBaseUser | None", environment: Environment) -> None:
    """Build it now, or again after a failure. Raises Conflict while it is being built or ready."""
    with transaction.atomic():
        build, _ = EnvironmentBuild.objects.get_or_create(hash=environment.hash)
        if claims.is_running(build, timezone.now()):
            raise Conflict(f"{environment} is being built already; its log shows how far it is.")
        if build.state == BuildState.READY and venvs.is_complete(build.location):
            raise Conflict(f"{environment} is built already.")
        seen = EnvironmentBuild.objects.filter(
            pk=build.pk, state=build.state, claimed_by=build.claimed_by
        )
        queued = seen.update(
            state=BuildState.QUEUED, error="", error_code="", claimed_by="", claimed_until=None
        )
        if not queued:
            raise Conflict(f"{environment} changed at this moment; look again.")
        record(actor, "environment.build", "environment", str(environment))
        announce("environment", environment.hash)
        transaction.on_commit(lambda: jobs.enqueue_build(environment.pk))


def remove_build(actor: "AbstractBaseUser | None", environment: Environment) -> None:
    """Free the disk of a built environment nobody uses. It is built again when it is needed.

    Raises Conflict, with where, while it is used or being built.
    """
    with transaction.atomic():
        build = EnvironmentBuild.objects.filter(hash=environment.hash).first()
        if build is None or build.state == BuildState.REMOVED:
            return
        _remove_row(build)
        record(
            actor,
            "environment.remove_build",
            "environment",
            str(environment),
            before={"hash": build.hash, "size": build.size},
        )
        announce("environment", environment.hash)
    venvs.remove_files(environment.hash)


def _remove_row(build: EnvironmentBuild) -> None:
    """Mark REMOVED first, then look who uses it: whoever asks later sees the mark and builds anew."""
    if claims.is_running(build, timezone.now()):
        raise Conflict("It is being built; wait for the end of the build.")
    seen = EnvironmentBuild.objects.filter(
        pk=build.pk, state=build.state, claimed_by=build.claimed_by
    )
    if not seen.update(
        state=BuildState.REMOVED, location="", size=None, claimed_by="", claimed_until=None
    ):
        raise Conflict("Its build changed at this moment; look again.")
    if used := usage.services_using([build.hash]).get(build.hash):
        raise Conflict(f"It is used by {', '.join(used)}. Delete or update those services first.")


def delete_environment(actor: "AbstractBaseUser | None", environment: Environment) -> None:
    """Delete a version that no revision was made with, and its build and image when no other version has it.

    Raises Conflict with where it is used.
    """
    from deployments.images import changes as images  # images know environments, not the other way

    hash_ = environment.hash
    with transaction.atomic():
        if revisions := usage.revisions_of(environment):
            shown = ", ".join(f"{service} revision {number}" for service, number in revisions[:5])
            more = f" and {len(revisions) - 5} more" if len(revisions) > 5 else ""
            raise Conflict(
                f"{environment} was used for {shown}{more}, which can be rolled back to."
            )
        last = not Environment.objects.filter(hash=hash_).exclude(pk=environment.pk).exists()
        build = EnvironmentBuild.objects.filter(hash=hash_).first() if last else None
        if build is not None:
            _remove_row(build)
            build.delete()
        if last:
            images.let_go(hash_)
        record(
            actor,
            "environment.delete",
            "environment",
            str(environment),
            before={"hash": hash_, "variables": sorted(environment.variables)},
        )
        environment.delete()
        announce("environment", hash_)
    if last:
        venvs.remove_files(hash_)
