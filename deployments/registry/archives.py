"""Paths and archives that come from outside, made safe or refused.

`safe_relative_path` is the one judge of a path inside a model, a source folder or an archive.
`unpack_zip` writes only below its target, only plain files and folders, and never more than it was
allowed to: sizes are counted while bytes arrive, because an archive's own figures may lie.
"""

import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from deployments.errors import InvalidInput

# bytes; a longer one would not fit into the 1,024 bytes that Django reads of an upload's part headers
LONGEST_PATH = 800
LONGEST_NAME = 255  # bytes of one part, what file systems take
_CHUNK = 1 << 20
_ENCRYPTED = 0x1


def safe_relative_path(text: str) -> str:
    """The path as POSIX parts joined by "/", or InvalidInput that quotes it and says what is wrong.

    "./" and doubled slashes are taken out. Refused: empty, absolute, drive letters, "..",
    backslashes, control characters, parts too long for a file system.
    """
    shown = repr(text if len(text) <= 120 else text[:117] + "...")
    if not text.strip():
        raise InvalidInput("A file has an empty path; give it a name.")
    if any(not character.isprintable() for character in text):
        raise InvalidInput(f"The path {shown} contains control characters; rename the file.")
    if "\\" in text:
        raise InvalidInput(f"The path {shown} contains a backslash; use '/' between folders.")
    if text.startswith("/") or (len(text) > 1 and text[1] == ":" and text[0].isalpha()):
        raise InvalidInput(f"The path {shown} is absolute; paths are relative to the folder.")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidInput(f"The path {shown} leaves its folder with '..'.")
    if not parts:
        raise InvalidInput(f"The path {shown} names no file.")
    if any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise InvalidInput(f"The path {shown} has a name longer than {LONGEST_NAME} bytes.")
    path = "/".join(parts)
    if len(path.encode()) > LONGEST_PATH:
        raise InvalidInput(f"The path {shown} is longer than {LONGEST_PATH} bytes.")
    return path


def clashing_path(paths: Iterable[str]) -> str | None:
    """A path that cannot exist beside the others (given twice, or both file and folder), if any."""
    ordered = list(paths)
    known = set(ordered)
    if len(known) != len(ordered):
        seen: set[str] = set()
        for path in ordered:
            if path in seen:
                return path
            seen.add(path)
    for path in ordered:
        for folder in PurePosixPath(path).parents:
            if str(folder) in known:
                return str(folder)
    return None


def unpack_zip(source: BinaryIO, into: Path, *, max_bytes: int, max_files: int) -> list[str]:
    """Unpack below `into` (made when missing) and return the files' paths, sorted.

    Raises InvalidInput for what is no zip, is encrypted or damaged, holds links or devices, plays
    tricks with paths, or unpacks to more than `max_bytes` or `max_files`; what was written until then
    stays for the caller to remove with the folder.
    """
    try:
        archive = zipfile.ZipFile(source)
    except zipfile.BadZipFile as error:
        raise InvalidInput(f"This is not a zip archive: {error}.") from error
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if len(entries) > max_files:
            raise InvalidInput(
                f"The archive holds {len(entries):,} files; at most {max_files:,} are taken."
            )
        paths = [_checked(entry) for entry in entries]
        clash = clashing_path(paths)
        if clash is not None:
            raise InvalidInput(f"The archive holds {clash!r} more than once.")
        # an honest archive says at once that it is too large; one that lies is found out below
        if sum(entry.file_size for entry in entries) > max_bytes:
            raise _too_large(max_bytes)
        into.mkdir(parents=True, exist_ok=True)
        left = max_bytes
        for entry, path in zip(entries, paths, strict=True):
            left -= _unpack_one(archive, entry, into / path, left, max_bytes)
    return sorted(paths)


def _checked(entry: zipfile.ZipInfo) -> str:
    # the name as stored: ZipInfo.filename has been cut at a NUL and may have lost backslashes
    name = entry.orig_filename if "\0" in entry.orig_filename else entry.filename
    path = safe_relative_path(name)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise InvalidInput(
            f"The archive holds {path!r}, which is a link or a device; put the file itself in."
        )
    if entry.flag_bits & _ENCRYPTED:
        raise InvalidInput(f"The archive is encrypted ({path!r}); make one without a password.")
    return path


def _too_large(max_bytes: int) -> InvalidInput:
    return InvalidInput(
        f"The archive unpacks to more than {max_bytes:,} bytes; "
        "leave out what the service does not need."
    )


def _unpack_one(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int, max_bytes: int
) -> int:
    written = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(entry) as packed, target.open("xb") as file:
            while chunk := packed.read(_CHUNK):
                written += len(chunk)
                if written > left:
                    raise _too_large(max_bytes)
                file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InvalidInput(
            f"The archive is damaged or packed in an unknown way at {entry.filename!r}: {error}."
        ) from error
    return written
