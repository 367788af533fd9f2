"""A project folder as a person gives it: one zip in the store, checked on its way in.

Given as a zip, as a list of files or as edited text. Paths that leave the folder, links and bombs are
refused (`deployments.registry.archives`). Ignore rules are not applied here but by the pipeline's
zipping step, so that the person can download again exactly what they gave.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from django.conf import settings

from deployments.errors import InvalidInput, NotFound
from deployments.pipeline.archive import write_zip
from deployments.registry.archives import clashing_path, safe_relative_path, unpack_zip
from deployments.registry.blobs import digest, open_blob, store_path
from deployments.registry.models import Blob

MOST_BYTES = 2 * 2**30
MOST_FILES = 10_000
_LONGEST_TEXT = 1 * 2**20  # of a file that is edited in the page
_NAMED_AT_MOST = 5


def from_zip(file: BinaryIO) -> Blob:
    """A zip as uploaded. Raises InvalidInput(field="source")."""
    with _folder() as folder:
        try:
            unpack_zip(file, folder, max_bytes=MOST_BYTES, max_files=MOST_FILES)
        except InvalidInput as error:
            raise InvalidInput(error.message, field="source") from error
        return _store(folder)


def from_files(files: Iterable[tuple[str, BinaryIO]]) -> Blob:
    """Uploaded files with their paths. A folder that holds all of them is not part of the paths.

    Raises InvalidInput(field="source").
    """
    given = list(files)
    if len(given) > MOST_FILES:
        raise InvalidInput(
            f"{len(given):,} files are given; a project folder has at most {MOST_FILES:,}.",
            field="source",
        )
    try:
        paths = [safe_relative_path(path) for path, _ in given]
    except InvalidInput as error:
        raise InvalidInput(error.message, field="source") from error
    paths = _without_common_folder(paths)
    clash = clashing_path(paths)
    if clash is not None:
        raise InvalidInput(f"{clash} is given more than once.", field="source")
    with _folder() as folder:
        left = MOST_BYTES
        for path, (_, source) in zip(paths, given, strict=True):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as copy:
                while chunk := source.read(2**20):
                    left -= len(chunk)
                    if left < 0:
                        raise InvalidInput(
                            f"The files are larger than {MOST_BYTES // 2**30} GiB together; "
                            "register large files as a model.",
                            field="source",
                        )
                    copy.write(chunk)
        return _store(folder)


def from_text(files: Mapping[str, str]) -> Blob:
    """Text edited in the page, by path: `{"score.py": "def init(): ..."}`."""
    with _folder() as folder:
        for name, text in files.items():
            try:
                path = safe_relative_path(name)
            except InvalidInput as error:
                raise InvalidInput(error.message, field="source") from error
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # what a browser sends has CRLF line ends
            target.write_text(text.replace("\r\n", "\n"), encoding="utf-8", newline="\n")
        return _store(folder)


def with_text(source: Blob, files: Mapping[str, str]) -> Blob:
    """The same project folder with some of its text files edited or added."""
    with _folder() as folder:
        with open_blob(source.sha256) as file:
            unpack_zip(file, folder, max_bytes=MOST_BYTES, max_files=MOST_FILES)
        for name, text in files.items():
            target = folder / safe_relative_path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text.replace("\r\n", "\n"), encoding="utf-8", newline="\n")
        return _store(folder)


def listing(source: Blob) -> list[tuple[str, int]]:
    """(path, bytes) of the folder's files, sorted."""
    with open_blob(source.sha256) as file, zipfile.ZipFile(file) as archive:
        return sorted(
            (entry.filename, entry.file_size) for entry in archive.infolist() if not entry.is_dir()
        )


def read_text(source: Blob, path: str) -> str:
    """A text file's content. Raises NotFound, or InvalidInput for what a page cannot edit."""
    with open_blob(source.sha256) as file, zipfile.ZipFile(file) as archive:
        try:
            entry = archive.getinfo(path)
        except KeyError as error:
            raise NotFound(f"{path} is not in the project folder.") from error
        if entry.file_size > _LONGEST_TEXT:
            raise InvalidInput(f"{path} is too large to edit in the page.", field="source")
        try:
            return archive.read(entry).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{path} is not text in UTF-8.", field="source") from error


def entry_script_problems(source: Blob, entry_script: str) -> list[InvalidInput]:
    """Why this script cannot be the entry script of this folder; empty when it can."""
    try:
        path = safe_relative_path(entry_script)
    except InvalidInput as error:
        return [InvalidInput(error.message, field="entry_script")]
    if not path.endswith(".py"):
        return [
            InvalidInput(f"{path} is not a Python file; name a .py file.", field="entry_script")
        ]
    names = [name for name, _ in listing(source)]
    if path in names:
        return []
    scripts = [name for name in names if name.endswith(".py")]
    shown = ", ".join(scripts[:_NAMED_AT_MOST]) or "no Python file"
    more = f" and {len(scripts) - _NAMED_AT_MOST} more" if len(scripts) > _NAMED_AT_MOST else ""
    return [
        InvalidInput(
            f"{path} is not in the project folder, which holds {shown}{more}.",
            field="entry_script",
        )
    ]


def _without_common_folder(paths: list[str]) -> list[str]:
    """A browser sends a folder's files with the folder's name before each path."""
    tops = {path.partition("/")[0] for path in paths}
    if len(tops) == 1 and all("/" in path for path in paths):
        return [path.partition("/")[2] for path in paths]
    return paths


class _folder:
    """Context: a scratch folder beside the store, gone afterwards."""

    def __enter__(self) -> Path:
        self._path = Path(tempfile.mkdtemp(prefix="source-", dir=settings.HOME.uploads))
        return self._path / "project"

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def _store(folder: Path) -> Blob:
    files = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    if not files:
        raise InvalidInput("The project folder holds no files.", field="source")
    target = folder.parent / "source.zip"
    write_zip(target, [(name, folder / name) for name in files])
    return store_path(target, *digest(target))
