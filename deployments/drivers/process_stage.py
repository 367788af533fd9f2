"""Bring a revision's files to where its replicas can read them.

`revisions/<service>-r<N>-<key>/app` is the unpacked project folder and `.../models/<name>/<version>/` holds
the model files. All of it is made in a folder beside and renamed, so a folder with the final name is
whole, and a kill in between leaves only something for the next call to sweep away.

An archive is not trusted, whoever checked it before: absolute paths, "..", backslashes, control
characters, links, devices, files that meet a folder, and what is far larger than it says are refused.
"""

import errno
import os
import shutil
import stat
import time
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from deployments.drivers.base import BlobSource
from deployments.drivers.process_layout import ClusterFolder, sync_folder
from deployments.errors import InvalidInput, PermanentError, TemporaryError
from deployments.types import FileSpec, RevisionSpec

MAX_SOURCE_BYTES = 4 * 2**30
MAX_SOURCE_FILES = 100_000
_CHUNK = 2**20
_LEFTOVER_AGE = 3600.0  # seconds; a half-made folder older than this belongs to nobody


def stage(folder: ClusterFolder, revision: RevisionSpec, blobs: BlobSource) -> None:
    """Make the revision's folder unless it stands. Raises PermanentError, TemporaryError."""
    final = folder.revision(revision)
    try:
        os.utime(final)  # young again: the agent clears away old revisions that nothing uses
        return
    except FileNotFoundError:
        pass
    folder.ensure()
    _sweep(folder.revisions)
    beside = folder.revisions / f".{final.name}.{os.getpid()}.{time.time_ns()}"
    try:
        beside.mkdir()
        _unpack(revision, blobs, beside / "app")
        for model in revision.models:
            into = beside / "models" / safe_path(model.name) / str(model.version)
            into.mkdir(parents=True)
            for file in model.files:
                _place(file, blobs, into / safe_path(file.path))
        beside.rename(final)
        sync_folder(folder.revisions)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and final.is_dir():
            return  # somebody else staged the same revision meanwhile
        raise _explained(error, revision) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _explained(error: OSError, revision: RevisionSpec) -> PermanentError | TemporaryError:
    what = f"revision {revision.number} of {revision.service}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TemporaryError(
            f"The disk is full: {what} could not be written. Free some space and deploy again.",
            delay=30.0,
            code="DiskFull",
            evidence=str(error),
        )
    return TemporaryError(
        f"The files of {what} could not be written: {error}.", evidence=str(error)
    )


def _sweep(revisions: Path) -> None:
    for entry in revisions.iterdir():
        if entry.name.startswith(".") and entry.stat().st_mtime < time.time() - _LEFTOVER_AGE:
            shutil.rmtree(entry, ignore_errors=True)


def safe_path(text: str) -> str:
    """The relative path `text`, or InvalidInput when it could lead anywhere else."""
    parts = text.split("/")
    bad = (
        not text
        or text.startswith("/")
        or "\\" in text
        or any(part in ("", ".", "..") for part in parts)
        or any(ord(letter) < 32 or ord(letter) == 127 for letter in text)
        or (len(parts[0]) == 2 and parts[0][1] == ":")
    )
    if bad:
        raise InvalidInput(f"The path {text!r} is not a plain relative path.", field="source")
    return str(PurePosixPath(text))


def _unpack(revision: RevisionSpec, blobs: BlobSource, into: Path) -> None:
    into.mkdir()
    with blobs.open(revision.source.sha256) as source:
        try:
            unpack(source, into)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise PermanentError(
                f"The project folder {revision.source.path} of {revision.service} is not a readable "
                "zip. Upload it again.",
                evidence=str(error),
            ) from error


def unpack(source: BinaryIO, into: Path) -> None:
    """Unpack a zip of plain files and folders. Raises InvalidInput, BadZipFile, OSError."""
    with zipfile.ZipFile(source) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_SOURCE_FILES:
            raise InvalidInput(
                f"The project folder holds {len(entries)} files; {MAX_SOURCE_FILES} is the most.",
                field="source",
            )
        room = MAX_SOURCE_BYTES
        for entry in entries:
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise InvalidInput(
                    f"{entry.filename!r} in the project folder is a link or a device.",
                    field="source",
                )
            target = into / safe_path(entry.filename.rstrip("/"))
            try:
                if entry.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                file = target.open("xb")
            except (FileExistsError, NotADirectoryError) as error:
                raise InvalidInput(
                    f"{entry.filename!r} is in the project folder twice.", field="source"
                ) from error
            with file, archive.open(entry) as content:
                while chunk := content.read(_CHUNK):
                    room -= len(chunk)
                    if room < 0:
                        raise InvalidInput(
                            f"The project folder unpacks to more than {MAX_SOURCE_BYTES >> 30} GiB.",
                            field="source",
                        )
                    file.write(chunk)
            target.chmod(0o755 if mode & 0o111 else 0o644)


def _place(file: FileSpec, blobs: BlobSource, target: Path) -> None:
    """A hard link to the stored content where the file system allows, else a copy.

    A linked file is made read-only: its content belongs to the store.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    local = blobs.local_path(file.sha256)
    if local is not None:
        try:
            os.link(local, target, follow_symlinks=True)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
        else:
            target.chmod(0o444)
            return
    with blobs.open(file.sha256) as source, target.open("xb") as copy:
        shutil.copyfileobj(source, copy, _CHUNK)
        if copy.tell() != file.size:
            raise TemporaryError(
                f"{file.path} should be {file.size} bytes and is {copy.tell()} in the store. "
                "Register the model again.",
                code="BlobDamaged",
            )
