"""Registering and deleting model versions: the functions that change the registry's rows.

Versions of a model count up under a lock on the model's row and are never used twice, not even after
a version was deleted. A version's rows and files never change once they are made.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, Q
from django.utils import timezone

from deployments.audit.record import record
from deployments.errors import Conflict, SlipwayError, Unavailable
from deployments.registry import blobs, rules
from deployments.registry.models import Blob, Model, ModelFile, ModelVersion
from deployments.services.models import Deployment, DeploymentState, RevisionModel, ServiceVersion
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

log = logging.getLogger(__name__)
_UNFINISHED = (DeploymentState.QUEUED, DeploymentState.RUNNING, DeploymentState.ROLLING)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to register: its place in the version, where its bytes are now, and what they are.

    `source` is given up: it is moved into the store.
    """

    path: str
    source: Path
    sha256: str
    size: int  # bytes


def register_version(
    actor: "AbstractBaseUser | None",
    *,
    name: str,
    files: Sequence[NewFile],
    framework: str = "",
    framework_version: str = "",
    description: str = "",
    tags: Mapping[str, str] | None = None,
    sample_input: str = "",
) -> ModelVersion:
    """Store the files and make the next version of the model, which is made when it is new.

    An empty framework is taken from the file names. Raises InvalidInput with the field before
    anything is stored. Not to be called inside a transaction: storing may take minutes.
    """
    rules.checked_name(name)
    paths = rules.checked_paths(file.path for file in files)
    chosen = rules.checked_framework(framework, paths)
    chosen_version = rules.checked_framework_version(framework_version)
    kept_tags = rules.checked_tags(tags or {})
    sample = rules.checked_sample_input(sample_input)
    held: list[Blob] = []
    try:
        for file in {file.sha256: file for file in files}.values():
            held.append(blobs.store_path(file.source, file.sha256, file.size))
        with transaction.atomic():
            version = _next_version(actor, name, description)
            version.description = description
            version.tags = kept_tags
            version.framework = chosen
            version.framework_version = chosen_version
            version.sample_input = sample
            version.content_hash = rules.content_hash(
                (path, file.sha256) for path, file in zip(paths, files, strict=True)
            )
            version.size = sum(file.size for file in files)
            version.file_count = len(files)
            version.save()
            ModelFile.objects.bulk_create(
                [
                    ModelFile(version=version, path=path, blob_id=file.sha256)
                    for path, file in zip(paths, files, strict=True)
                ],
                batch_size=200,
            )
            record(actor, "model.register", "model", str(version), after=_audited(version))
            announce("model", name)
    except IntegrityError as error:
        # a hold ran out, or was given up by somebody with the same content, and the blob went
        raise Unavailable(
            f"A file of {name} was removed from the store meanwhile; upload it again.", delay=0
        ) from error
    finally:
        # referred to by now; or, after an error, not wanted any more
        blobs.release(held)
        _remove_contents({blob.sha256 for blob in held})
    return version


def _next_version(actor: "AbstractBaseUser | None", name: str, description: str) -> ModelVersion:
    """An unsaved version with its number, counted up under the lock of the model's row."""
    model, _ = Model.objects.get_or_create(
        name=name,
        defaults={"description": description, "created_by": actor},  # type: ignore[misc]
    )
    model = Model.objects.select_for_update().get(pk=model.pk)
    version = ModelVersion(model=model, version=model.next_version, created_by=actor)  # type: ignore[misc]
    model.next_version += 1
    model.save(update_fields=["next_version"])
    return version


def used_by(versions: Iterable[int]) -> dict[int, list[str]]:
    """Version's key -> names of the services it is deployed in, sorted; one query for all of them.

    Deployed means: in the current revision of one of the service's versions, or in one whose
    deployment is unfinished.
    """
    links = (
        RevisionModel.objects.filter(model_version__in=versions)
        .filter(
            Q(revision__in=ServiceVersion.objects.filter(current__isnull=False).values("current"))
            | Q(revision__in=Deployment.objects.filter(state__in=_UNFINISHED).values("revision"))
        )
        .values_list("model_version_id", "revision__service__name")
    )
    services: dict[int, set[str]] = {}
    for version, name in links:
        services.setdefault(version, set()).add(name)
    return {version: sorted(names) for version, names in services.items()}


def where_used(version: ModelVersion) -> list[str]:
    """Names of the services whose current or unfinished revision uses this version, sorted."""
    return used_by([version.pk]).get(version.pk, [])


def kept_by(version: ModelVersion) -> list[str]:
    """All revisions that hold this version, such as "diabetes r2", also those one may roll back to."""
    links = RevisionModel.objects.filter(model_version=version).select_related("revision__service")
    return [
        str(link.revision)
        for link in links.order_by("revision__service__name", "-revision__number")
    ]


def delete_version(actor: "AbstractBaseUser | None", version: ModelVersion) -> None:
    """Delete a version, and its contents where nothing else refers to them.

    Raises Conflict that names the services while it is deployed, and the revisions while an earlier
    revision keeps it for a roll-back.
    """
    with transaction.atomic():
        contents = _delete_rows(actor, version)
    _remove_contents(contents)


def delete_model(actor: "AbstractBaseUser | None", model: Model) -> int:
    """Delete all versions of a model, or none when one of them is in use. Returns how many.

    The name's row stays, so that a later version of that name gets a new number.
    """
    contents: set[str] = set()
    with transaction.atomic():
        versions = list(model.versions.select_related("model").order_by("version"))
        for version in versions:
            contents |= _delete_rows(actor, version)
    _remove_contents(contents)
    return len(versions)


def _delete_rows(actor: "AbstractBaseUser | None", version: ModelVersion) -> set[str]:
    """Delete a version's rows and return the SHA-256s it referred to."""
    label = str(version)
    model = Model.objects.select_for_update().get(pk=version.model_id)
    services = where_used(version)
    if services:
        raise Conflict(
            f"{label} is deployed in {_listed(services)}. "
            "Deploy another version there, or delete the service, then delete this version.",
            code="ModelInUse",
        )
    contents = set(version.files.values_list("blob_id", flat=True))
    before = _audited(version)
    try:
        version.delete()
    except ProtectedError as error:
        raise Conflict(
            f"{label} is kept for rolling back to {_listed(kept_by(version))}. "
            "Delete the service to give up its earlier revisions, then delete this version.",
            code="ModelInUse",
        ) from error
    record(actor, "model.delete", "model", label, before=before)
    announce("model", model.name)
    return contents


def _listed(names: Sequence[str], shown: int = 10) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _remove_contents(contents: set[str]) -> None:
    """Remove what is not referred to. What cannot be removed now is left for the next time."""
    try:
        blobs.remove_unreferenced(timezone.now(), among=sorted(contents))
    except SlipwayError as error:
        log.warning("Contents of a deleted model version stay for now: %s", error.message)


def _audited(version: ModelVersion) -> dict[str, Any]:
    return {
        "framework": version.framework,
        "framework_version": version.framework_version,
        "tags": version.tags,
        "files": version.file_count,
        "size": version.size,
        "content_hash": version.content_hash,
    }


def register_files(paths: Mapping[str, Path]) -> list[NewFile]:
    """Files that are on this machine already, hashed: place in the version -> where it is now."""
    return [NewFile(path, source, *blobs.digest(source)) for path, source in sorted(paths.items())]
