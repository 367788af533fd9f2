"""Uploads go straight to disk and are hashed on the way; nothing is held in memory.

The way of a body: the ASGI handler (`portal.bodies`) spools it to a nameless file in the uploads
folder; when it has all arrived, Django's parser cuts it up, and the handler here writes each file of
it, small ones too, to a file of its own in the same folder while it computes the SHA-256. So an upload
is on disk twice for a moment and in memory never but for one chunk. The registry then renames the
files into the store.

What is too large or too many is not a bare 400: parsing stops, the fields before the files are kept,
and `problem(request)` says why, for the form to show. So a form's files come after its fields.

Files are removed when the request ends. A process that is killed leaves them; `remove_stale` clears
them a day later.
"""

import contextlib
import hashlib
import logging
import os
import uuid
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.http import HttpRequest, QueryDict
from django.http.multipartparser import MultiPartParser
from django.utils import timezone
from django.utils.datastructures import MultiValueDict

from deployments.registry.rules import MAX_FILES
from portal.templatetags.slipway import filesize

log = logging.getLogger(__name__)
_STALE_AFTER = 24 * 3600.0  # seconds; longer than storing the largest upload takes
_SUFFIX = ".upload"


def max_bytes() -> int:
    """The largest upload in bytes, all its files together."""
    return int(settings.ENV.max_upload_gb * 2**30)


def too_large() -> str:
    """Why an upload above `max_bytes` is refused, for a person."""
    return (
        f"The files are larger than {filesize(max_bytes())} together, which is the most this portal "
        "takes at once. Leave some out, or ask an administrator to raise SLIPWAY_MAX_UPLOAD_GB."
    )


def problem(request: HttpRequest) -> str:
    """Why this request's files were not taken, for a person; empty when they were."""
    return getattr(request, "upload_problem", "")


class HashedUpload(UploadedFile):
    """A file on disk with its SHA-256. It is opened when it is read, so thousands of them may wait.

    `relative_path` is the path the browser gave ("folder/sub/file" for a folder's files), as it came:
    `safe_relative_path` has yet to judge it.
    """

    _opened: IO[Any] | None = None

    def __init__(self, path: Path, name: str, relative_path: str, content_type: str | None) -> None:
        super().__init__(None, name, content_type, 0)
        self.path = path
        self.relative_path = relative_path
        self.sha256 = ""

    @property
    def file(self) -> IO[Any]:
        if self._opened is None:
            self._opened = self.path.open("rb")
        return self._opened

    @file.setter
    def file(self, value: IO[Any] | None) -> None:
        self._opened = value

    @property
    def closed(self) -> bool:
        return False  # it opens when it is read

    def open(self, mode: str | None = None, *args: Any, **kwargs: Any) -> "HashedUpload":
        """Back to the first byte."""
        self.file.seek(0)
        return self

    def temporary_file_path(self) -> str:
        return str(self.path)

    def let_go(self) -> None:
        """Close the file, and keep it on disk."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def close(self) -> None:
        """Called when the request ends: the file goes, unless it was moved into the store."""
        self.let_go()
        self.path.unlink(missing_ok=True)


class _PathParser(MultiPartParser):
    """Django's parser, which also tells the handler the path that it cuts off a file's name."""

    given_path = ""

    def sanitize_file_name(self, file_name: str) -> str | None:
        self.given_path = file_name
        return super().sanitize_file_name(file_name)


class HashingUploadHandler(FileUploadHandler):
    """A temporary file on disk whose SHA-256 is known when the last byte has arrived."""

    chunk_size = 2**20

    def __init__(self, request: HttpRequest | None = None) -> None:
        super().__init__(request)
        self._parser: _PathParser | None = None
        self._current: HashedUpload | None = None
        self._writer: IO[bytes] | None = None
        self._bytes = 0
        self._files = 0

    def handle_raw_input(
        self,
        input_data: Any,
        META: dict[str, Any],
        content_length: int,
        boundary: str,
        encoding: str | None = None,
    ) -> tuple[QueryDict, MultiValueDict[str, UploadedFile]] | None:
        if self._parser is not None:
            return None  # asked again by our own parser below
        self._parser = _PathParser(META, input_data, [self], encoding)
        try:
            return self._parser.parse()
        finally:
            self._drop_unfinished()

    def new_file(self, field_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        super().new_file(field_name, file_name, *args, **kwargs)
        self._files += 1
        if self._files > MAX_FILES:
            self._refuse(
                f"More than {MAX_FILES:,} files were sent; a version holds at most {MAX_FILES:,}. "
                "Pack small files into an archive."
            )
        folder = Path(settings.FILE_UPLOAD_TEMP_DIR)
        if self._files == 1:
            remove_stale(folder, timezone.now().timestamp())
        path = folder / f"{uuid.uuid4().hex}{_SUFFIX}"
        given = self._parser.given_path if self._parser is not None else file_name
        self._current = HashedUpload(path, file_name, given, self.content_type)
        # private to us until it is in the store
        self._writer = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._hasher = hashlib.sha256()

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if self._writer is None:
            return
        self._bytes += len(raw_data)
        if self._bytes > max_bytes():
            self._refuse(too_large())
        self._hasher.update(raw_data)
        self._writer.write(raw_data)

    def file_complete(self, file_size: int) -> HashedUpload | None:
        upload, writer = self._current, self._writer
        if upload is None or writer is None:
            return None
        writer.close()
        self._current = self._writer = None
        upload.size = file_size
        upload.sha256 = self._hasher.hexdigest()
        return upload

    def upload_interrupted(self) -> None:
        self._drop_unfinished()

    def _refuse(self, why: str) -> None:
        if self.request is not None:
            self.request.upload_problem = why  # type: ignore[attr-defined]
        self._drop_unfinished()
        # the body is on our disk already, so reading on to its end costs little
        raise StopUpload(connection_reset=False)

    def _drop_unfinished(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._current is not None:
            self._current.close()
            self._current = None


def remove_stale(folder: Path, now: float) -> int:
    """Remove temporary files that a killed process left, by age; `now` is epoch seconds."""
    removed = 0
    for path in folder.glob(f"*{_SUFFIX}"):
        # another process may clear the same folder
        with contextlib.suppress(FileNotFoundError):
            if now - path.stat().st_mtime > _STALE_AFTER:
                path.unlink()
                removed += 1
    if removed:
        log.info("Removed %d unfinished uploads from %s", removed, folder)
    return removed
