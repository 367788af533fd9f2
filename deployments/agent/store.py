"""The agent's own files: records of replicas, what they are started from, and what is cleared away.

Every step may be interrupted: a replica's folder is made beside and renamed, a forgotten one is marked,
moved and then emptied, and what was left half-done is finished on the next call.
"""

import logging
import os
import secrets
import shutil
import string
import time
from collections.abc import Iterable
from pathlib import Path

from deployments.agent import processes
from deployments.agent.record import Record, Wanted, from_stored, to_stored
from deployments.codec import from_json, to_json
from deployments.drivers.process_layout import (
    ClusterFolder,
    read_json,
    sync_folder,
    write_json,
)
from deployments.drivers.process_records import hint
from deployments.types import Phase, RevisionSpec

logger = logging.getLogger(__name__)

KEPT_GONE = 20  # stopped replicas of one service whose logs are kept
KEPT_GONE_SECONDS = 7 * 24 * 3600.0
REVISION_AGE = 24 * 3600.0  # an unused revision's files are kept this long, for a quick way back
_LETTERS = string.ascii_lowercase + string.digits
_OF_GONE = {"replica.json", "log"}


def create(folder: ClusterFolder, wanted: Wanted, node: str, now: float) -> Record:
    """A new replica's folder with its record."""
    suffix = "".join(secrets.choice(_LETTERS) for _ in range(5))
    record = Record(
        id=f"{wanted.service}-r{wanted.revision.number}-{suffix}",
        service=wanted.service,
        version=wanted.version,
        revision=wanted.revision,
        key=wanted.key,
        phase=Phase.SCHEDULING,
        created_at=now,
        node=node,
    )
    beside = folder.replicas / f".new-{record.id}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    write_json(beside / "revision.json", to_json(record.revision))
    write_json(beside / "replica.json", to_stored(record))
    beside.rename(folder.replica(record.id))
    sync_folder(folder.replicas)
    return record


def save(folder: ClusterFolder, record: Record) -> None:
    write_json(folder.replica_record(record.id), to_stored(record))
    hint(folder.replicas)


def load(folder: ClusterFolder) -> dict[str, Record]:
    """All records by id. A damaged one is put aside and its processes are ended."""
    records: dict[str, Record] = {}
    for path in sorted(folder.replicas.iterdir()):
        if path.name.startswith("."):
            shutil.rmtree(path, ignore_errors=True)  # an agent was killed while it made this
            continue
        try:
            revision = from_json(RevisionSpec, read_json(path / "revision.json"))
            records[path.name] = from_stored(read_json(path / "replica.json"), revision)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            logger.error("%s: its record is damaged (%s); it is put aside", path.name, error)
            processes.kill_all_of(path)
            (path / "replica.json").unlink(missing_ok=True)
            _move_to_gone(folder, path)
    return records


def forget(folder: ClusterFolder, record: Record) -> None:
    """Keep only a stopped replica's record and log."""
    path = folder.replica(record.id)
    if path.exists():
        save(folder, record)
        path = _move_to_gone(folder, path)
        _empty(path)


def _move_to_gone(folder: ClusterFolder, path: Path) -> Path:
    target = folder.gone / path.name
    shutil.rmtree(target, ignore_errors=True)
    path.rename(target)
    os.utime(target)
    sync_folder(folder.replicas)
    return target


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.name not in _OF_GONE:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def prepare(folder: ClusterFolder, record: Record) -> bool:
    """A fresh working copy for the next run; False when the revision's files are not staged."""
    staged = folder.revision(record.revision)
    try:
        os.utime(staged)
    except FileNotFoundError:
        return False
    work = folder.replica(record.id) / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for name in ("home", "tmp"):
        (work / name).mkdir()
    shutil.copytree(staged / "app", work / "app", symlinks=True)
    return True


def tidy(
    folder: ClusterFolder,
    records: Iterable[Record],
    wanted: Iterable[Wanted],
    *,
    whole: bool,
    now: float | None = None,
) -> None:
    """Clear away old logs of stopped replicas and revisions that nothing uses.

    `whole` says that every service's wish could be read; revisions are left alone otherwise.
    """
    now = time.time() if now is None else now
    by_service: dict[str, list[Path]] = {}
    for path in folder.gone.iterdir():
        _empty(path)
        by_service.setdefault(path.name.rsplit("-r", 1)[0], []).append(path)
    for paths in by_service.values():
        paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for place, path in enumerate(paths):
            if place >= KEPT_GONE or now - path.stat().st_mtime > KEPT_GONE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
    if not whole:
        return
    used = [item.revision for item in wanted] + [record.revision for record in records]
    kept = {folder.revision(revision).name for revision in used}
    for path in folder.revisions.iterdir():
        if path.name not in kept and now - path.stat().st_mtime > REVISION_AGE:
            shutil.rmtree(path, ignore_errors=True)
