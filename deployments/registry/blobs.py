"""Content by its SHA-256, stored once, through Django's storage API.

States of a content: absent -> row (held) -> row (held) + file -> row + file, referenced -> absent.
Safety rule: the row comes first and goes last. `store_*` takes a hold on the row before it looks at
the storage, and `remove_unreferenced` deletes the file while it has the row locked; so a file is never
removed between somebody's "it is already there" and their reference to it.
A hold runs out by itself (`HOLD`), so a process killed half-way leaves nothing for ever.

Where the storage has local paths, content is moved in (rename; copied beside and renamed from another
file system); elsewhere it is streamed. Nothing here reads a whole file into memory, and nothing ever
loads a model.
"""

import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.db import models, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from deployments.errors import InvalidInput, NotFound, PermanentError, Unavailable
from deployments.registry import addresses
from deployments.registry.models import Blob

HOLD = timedelta(hours=24)  # how long a caller of store_* may take to refer to its blob
_CHUNK = 1 << 20
_BATCH = 400  # rows in one transaction, below SQLite's limit of query parameters
T = TypeVar("T")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def storage_name(sha256: str) -> str:
    """Where a content is in the default storage."""
    if not _SHA256.fullmatch(sha256):
        raise InvalidInput(f"{sha256!r} is not a SHA-256 in lower-case hex.")
    return f"sha256/{sha256[:2]}/{sha256}"


def digest(path: Path) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes of a file, read in chunks."""
    hasher = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    return hasher.hexdigest(), size


def store_path(path: Path, sha256: str, size: int) -> Blob:
    """Take a file into the store, once per content. Idempotent.

    `path` is given up: it may be gone afterwards (renamed into the store). `sha256` and `size` are
    those of its bytes, computed by whoever wrote it; a size that differs is refused. Call it outside
    of a transaction: moving many GB must not hold up other writers.
    """
    actual = path.stat().st_size
    if actual != size:
        raise InvalidInput(f"{path.name} has {actual:,} bytes, not {size:,}; upload it again.")
    blob = _hold(sha256, size)
    name = storage_name(sha256)
    local = _local(name)
    try:
        if local is None:
            if not _stored_remotely(name, size):
                with path.open("rb") as file:
                    _save_remotely(name, File(file))
        elif not _is_file_of(local, size):
            _move_in(path, local)
    except OSError as error:
        raise Unavailable(
            f"{path.name} could not be stored: {error.strerror or error}. "
            "Check the room left on the disk and the storage settings, then try again."
        ) from error
    return blob


def store_bytes(data: bytes) -> Blob:
    """Take a small content into the store. Idempotent."""
    sha256 = hashlib.sha256(data).hexdigest()
    blob = _hold(sha256, len(data))
    name = storage_name(sha256)
    local = _local(name)
    try:
        if local is None:
            if not _stored_remotely(name, len(data)):
                _save_remotely(name, ContentFile(data))
        elif not _is_file_of(local, len(data)):
            local.parent.mkdir(parents=True, exist_ok=True)
            part = _beside(local)
            with _removed_on_error(part), part.open("xb") as file:
                file.write(data)
                _seal(file)
            _into_place(part, local)
    except OSError as error:
        raise Unavailable(
            f"{len(data):,} bytes could not be stored: {error.strerror or error}. "
            "Check the room left on the disk and the storage settings, then try again."
        ) from error
    return blob


def open_blob(sha256: str) -> BinaryIO:
    """A content as a stream; the caller closes it. Raises NotFound."""
    try:
        return cast(BinaryIO, default_storage.open(storage_name(sha256), "rb"))
    except FileNotFoundError as error:
        raise NotFound(f"The content {sha256[:12]} is not in the store.") from error
    except OSError as error:
        raise Unavailable(f"The store cannot be read: {error.strerror or error}.") from error


def local_path(sha256: str) -> Path | None:
    """A content as a file on this machine, None where the store is remote. Raises NotFound."""
    local = _local(storage_name(sha256))
    if local is not None and not local.is_file():
        raise NotFound(f"The content {sha256[:12]} is not in the store.")
    return local


class StorageBlobs:
    """The store as a driver's source of content (`drivers.base.BlobSource`)."""

    def local_path(self, sha256: str) -> Path | None:
        return local_path(sha256)

    def open(self, sha256: str) -> BinaryIO:
        return open_blob(sha256)

    def url(self, sha256: str, base: str = "") -> str:
        base = base or settings.ENV.node_url
        if not base:
            raise PermanentError(
                "Pods fetch models' files from the portal, and no address is set by which they reach it. "
                "Enter one on the cluster's page, or set SLIPWAY_NODE_URL.",
                code="NoAddressForNodes",
            )
        lifetime = settings.ENV.blob_url_seconds
        return addresses.address(base, sha256, now=time.time(), lifetime=lifetime)


def release(held: Iterable[Blob]) -> None:
    """Give up the holds that `store_*` took, once there are references (or never will be).

    A hold that somebody took since is theirs and stays.
    """
    for batch in _batches(held):
        holds = models.Q()
        for blob in batch:
            holds |= models.Q(pk=blob.pk, held_until=blob.held_until)
        Blob.objects.filter(holds).update(held_until=None)


def remove_unreferenced(now: datetime, among: Iterable[str] | None = None) -> int:
    """Remove contents that nothing refers to and nobody holds, and return how many.

    Looks at the SHA-256s in `among`, which somebody has just stopped referring to (None: at all that
    nothing refers to), and at those whose hold has run out, which a killed process may have left.
    Any row with a foreign key to Blob counts as a reference, whatever room it is in.
    """
    expired = Blob.objects.filter(held_until__lte=now).values_list("pk", flat=True)
    if among is None:
        loose = Blob.objects.all()
        for rows, column in _references():
            loose = loose.exclude(Exists(rows.objects.filter(**{column: OuterRef("pk")})))
        among = loose.values_list("pk", flat=True)
    removed = 0
    for batch in _batches(sorted({*among, *expired})):
        # the lock makes a store_* of the same content wait until the file is gone as well
        with transaction.atomic():
            free = set(
                Blob.objects.select_for_update()
                .filter(pk__in=batch)
                .exclude(held_until__gt=now)
                .values_list("pk", flat=True)
            )
            for rows, column in _references():
                free -= set(
                    rows.objects.filter(**{f"{column}__in": free}).values_list(column, flat=True)
                )
            Blob.objects.filter(pk__in=batch, held_until__lte=now).update(held_until=None)
            Blob.objects.filter(pk__in=free).delete()
            for sha256 in sorted(free):
                _delete(storage_name(sha256))
        removed += len(free)
    return removed


def _references() -> list[tuple[Any, str]]:
    """(model, foreign key's column) of everything that may refer to a Blob."""
    return [
        (relation.related_model, relation.field.attname)
        for relation in Blob._meta.get_fields(include_hidden=True)
        if isinstance(relation, models.ManyToOneRel)
    ]


def _hold(sha256: str, size: int) -> Blob:
    storage_name(sha256)
    until = timezone.now() + HOLD
    for _ in range(3):
        blob, made = Blob.objects.get_or_create(
            sha256=sha256, defaults={"size": size, "held_until": until}
        )
        if made:
            return blob
        if blob.size != size:
            raise InvalidInput(f"The content {sha256[:12]} has {blob.size:,} bytes, not {size:,}.")
        # nothing to update when the row was removed since it was read: make it anew
        if Blob.objects.filter(pk=sha256).update(held_until=until) == 1:
            blob.held_until = until
            return blob
    raise Unavailable(f"The content {sha256[:12]} is being removed; try again.", delay=1)


def _delete(name: str) -> None:
    try:
        default_storage.delete(name)
    except OSError as error:
        raise Unavailable(f"{name} could not be removed from the store: {error}.") from error


def _local(name: str) -> Path | None:
    try:
        return Path(default_storage.path(name))
    except NotImplementedError:
        return None


def _is_file_of(local: Path, size: int) -> bool:
    return local.is_file() and local.stat().st_size == size


def _stored_remotely(name: str, size: int) -> bool:
    return default_storage.exists(name) and default_storage.size(name) == size


def _save_remotely(name: str, content: File) -> None:
    saved = default_storage.save(name, content)
    if saved != name:
        # the storage gave another name because someone stored the same content meanwhile
        default_storage.delete(saved)


def _move_in(path: Path, local: Path) -> None:
    local.parent.mkdir(parents=True, exist_ok=True)
    if path.stat().st_dev == local.parent.stat().st_dev:
        with path.open("rb") as file:
            _seal(file)
        _into_place(path, local)
        return
    part = _beside(local)
    with _removed_on_error(part), path.open("rb") as source, part.open("xb") as file:
        shutil.copyfileobj(source, file, _CHUNK)
        _seal(file)
    _into_place(part, local)
    path.unlink()


def _beside(local: Path) -> Path:
    return local.parent / f".{local.name[:12]}-{uuid.uuid4().hex}.part"


@contextmanager
def _removed_on_error(part: Path) -> Iterator[None]:
    """A half-written file does not stay."""
    try:
        yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _seal(file: BinaryIO) -> None:
    """Read-only, and on the disk before its name is."""
    file.flush()
    os.fchmod(file.fileno(), 0o444)
    os.fsync(file.fileno())


def _into_place(part: Path, local: Path) -> None:
    part.replace(local)
    folder = os.open(local.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
