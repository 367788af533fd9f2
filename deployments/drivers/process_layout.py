"""Where a process cluster keeps what, and how a file there is read and replaced.

The tree is described in `deployments.drivers.process`. Shared by the driver, the agent and the
commands that stop replicas. Writes are made beside, synced and renamed; a reader sees the old file or
the new one, never half of one. Holds no decision.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from deployments.codec import to_json
from deployments.errors import Unavailable
from deployments.types import RevisionSpec

T = TypeVar("T")

_LOCK_DEADLINE = 5.0  # seconds; a holder keeps it for one small write


@dataclass(frozen=True, slots=True)
class ClusterFolder:
    """Paths under one cluster's root. Names of services and replicas are checked by who makes them."""

    root: Path

    @property
    def services(self) -> Path:
        return self.root / "services"

    @property
    def scales(self) -> Path:
        return self.root / "scale"

    @property
    def revisions(self) -> Path:
        return self.root / "revisions"

    @property
    def replicas(self) -> Path:
        return self.root / "replicas"

    @property
    def gone(self) -> Path:
        """Folders of replicas that were stopped; only their logs are left."""
        return self.root / "gone"

    @property
    def routes(self) -> Path:
        return self.root / "routes.json"

    @property
    def router(self) -> Path:
        return self.root / "router.json"

    @property
    def agent(self) -> Path:
        return self.root / "agent.json"

    @property
    def agent_lock(self) -> Path:
        """Locked by the running agent for as long as it lives."""
        return self.root / "agent.lock"

    @property
    def wanted_lock(self) -> Path:
        """Locked while what is wanted is read, changed and written."""
        return self.root / "wanted.lock"

    def service(self, name: str) -> Path:
        return self.services / f"{name}.json"

    def scale(self, name: str) -> Path:
        return self.scales / f"{name}.json"

    def revision(self, revision: RevisionSpec) -> Path:
        """Named by content too: a service that is deleted and made again counts from 1 again."""
        key = revision_key(revision)
        return self.revisions / f"{revision.service}-r{revision.number}-{key}"

    def replica(self, replica: str) -> Path:
        return self.replicas / replica

    def replica_record(self, replica: str) -> Path:
        return self.replicas / replica / "replica.json"

    def ensure(self) -> None:
        """Create the folders. The root is its owner's alone: logs and variables may hold secrets."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.services, self.scales, self.revisions, self.replicas, self.gone):
            folder.mkdir(exist_ok=True)


def revision_key(revision: RevisionSpec) -> str:
    """12 hex digits that differ when anything a replica is started from differs."""
    text = json.dumps(to_json(revision), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_json(path: Path, value: Any, *, sync: bool = True) -> None:
    """Replace `path` in one step. `sync=False` is for what may be lost with the machine's power."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames inside a folder last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises FileNotFoundError, OSError, ValueError."""
    return json.loads(path.read_bytes())


@contextmanager
def locked(path: Path, deadline: float = _LOCK_DEADLINE) -> Iterator[None]:
    """Hold an exclusive lock; the kernel frees it when its holder dies. Raises Unavailable."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + deadline
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise Unavailable(
                        f"{path} has been locked by another process for {deadline:g} s. "
                        "See which one with `fuser`, and try again."
                    ) from error
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


class Cached(Generic[T]):
    """Parsed files by path, read again only when a file was replaced."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[tuple[int, int, int], T]] = {}

    def get(self, path: Path, parse: Any) -> T:
        """`parse(json)` of the file. Raises what reading and parsing raise."""
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        kept = self._kept.get(path)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        value: T = parse(read_json(path))
        # Replaced while it was read: the stamp is the older one, so the next call reads again.
        self._kept[path] = (stamp, value)
        return value

    def forget_all_but(self, paths: set[Path]) -> None:
        for path in self._kept.keys() - paths:
            del self._kept[path]
