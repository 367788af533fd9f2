"""The project folder on its way through the deployment form: stored once, kept when the form comes back.

What was uploaded is stored as a blob at once; the form carries a signed note of it, so that an error in
another field loses nothing. The note is for the person who got it and for a day: nobody can name a blob
they did not give or were not shown.
"""

from dataclasses import dataclass
from typing import BinaryIO, cast

from django.contrib.auth.base_user import AbstractBaseUser
from django.core import signing
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest

from deployments.errors import InvalidInput, SlipwayError
from deployments.registry.models import Blob
from deployments.services import sources

_SALT = "slipway.project-source"
_KEPT_FOR = 24 * 3600  # seconds


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored project folder as the form shows it."""

    blob: Blob
    token: str
    files: tuple[tuple[str, int], ...]  # (path, bytes)

    @property
    def size(self) -> int:
        return sum(size for _, size in self.files)


def token(user: AbstractBaseUser, blob: Blob) -> str:
    return signing.dumps({"sha256": blob.pk, "user": user.pk}, salt=_SALT)


def keep(user: AbstractBaseUser, blob: Blob) -> Kept:
    return Kept(blob=blob, token=token(user, blob), files=tuple(sources.listing(blob)))


def from_token(user: AbstractBaseUser, text: str) -> Kept | None:
    """What the note stands for; None when it is forged, another person's, old or gone."""
    if not text:
        return None
    try:
        note = signing.loads(text, salt=_SALT, max_age=_KEPT_FOR)
    except signing.BadSignature:
        return None
    if note.get("user") != user.pk:
        return None
    blob = Blob.objects.filter(pk=note.get("sha256")).first()
    if blob is None:
        return None
    try:
        return keep(user, blob)
    except (SlipwayError, OSError):
        return None


def _stream(file: UploadedFile) -> BinaryIO:
    return cast(BinaryIO, file.file or file)


def uploaded(request: HttpRequest) -> Blob | None:
    """The zip or the folder of this request, stored; None where none came.

    Raises InvalidInput whose field is `archive` or `folder`.
    """
    archive = request.FILES.get("archive")
    if archive is not None:
        try:
            return sources.from_zip(_stream(archive))
        except InvalidInput as error:
            raise InvalidInput(error.message, field="archive") from error
    folder = request.FILES.getlist("folder")
    if not folder:
        return None
    paths = request.POST.getlist("folder_paths")
    if len(paths) != len(folder):
        paths = [file.name or "file" for file in folder]
    try:
        return sources.from_files(
            [(path, _stream(file)) for path, file in zip(paths, folder, strict=True)]
        )
    except InvalidInput as error:
        raise InvalidInput(error.message, field="folder") from error
