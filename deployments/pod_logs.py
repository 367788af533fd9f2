"""The output of pods, kept in Slipway's own folder: also of those that are gone.

    <logs>/pods/<cluster>/<service>/<pod>/<run>-<number of its first line>.jsonl

A Kubernetes cluster forgets what a pod said as soon as the pod is deleted, and cannot be asked while its API
server is away. So the controller copies it (`Collector`), and whoever shows logs reads the copy (`Kept`). The
files are a replica's log as `drivers.process_logs` reads it; the last line of each batch carries the driver's
cursor after it (`k`).

Safety: a batch is one write, and what follows the last cursor is cut off when a file is taken up again:
killed at any point, no line is twice or missing. One process writes (the controller holds a lock).
"""

import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deployments.drivers import process_logs
from deployments.drivers.base import LogPage
from deployments.errors import NotFound, SlipwayError, Unavailable
from deployments.types import Observation, Phase, Replica

log = logging.getLogger(__name__)

_SEGMENT_BYTES, _LOG_BYTES = 10_000_000, 30_000_000
_MOST_SEGMENTS = 40  # each run has one at least
_PAGE = 2000  # lines
_PAGES = 20  # of one pod, before the others have their turn
_LONGEST_LINE = 64 * 1024
_TALKING, _QUIET = 2.0, 15.0  # seconds between two looks at a pod
_CHANGING = 0.5  # at one that starts or goes: it is there a moment longer than its last words
_AGAIN = 5.0  # after one that failed
_A_SECOND = 20.0  # looks, at all pods together
_AT_ONCE = 4
_TIDY_EVERY = 600.0
_MOST_GONE = 100  # pods of a service that are gone, whose output is kept
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


class Source(Protocol):
    """The part of a driver that is used here."""

    def logs(
        self, replica: str, *, cursor: str = "", limit: int = 1000, previous: bool = False
    ) -> LogPage: ...


class PodLog:
    """One pod's file, to write to. Made anew it goes on where the last one ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cursor = ""
        self._number = 0
        self._run, self._size = 0, 0
        self._path: Path | None = None
        self._take_up()

    def _take_up(self) -> None:
        for segment in reversed(process_logs.segments(self.folder)):
            path = self.folder / segment.name
            data = path.read_bytes()
            place = data.rfind(b',"k":')
            end = data.find(b"\n", place) + 1 if place >= 0 else 0
            if end == 0 and place >= 0:  # the line itself is torn: the cursor before it
                place = data.rfind(b',"k":', 0, place)
                end = data.find(b"\n", place) + 1 if place >= 0 else 0
            if end == 0:
                path.unlink()
                continue
            if end < len(data):
                with path.open("rb+") as file:
                    file.truncate(end)
            last = json.loads(data[data.rfind(b"\n", 0, end - 1) + 1 : end])
            self.cursor, self._number = last["k"], last["n"]
            self._path, self._run, self._size = path, segment.run, end
            return

    def add(self, page: LogPage, run: int) -> None:
        """Lines and the cursor after them. Raises OSError; then it must be made anew."""
        rows = []
        for line in page.lines:
            self._number += 1
            rows.append(
                {
                    "n": self._number,
                    "at": round(line.at, 3),
                    "s": "e" if line.stream == "stderr" else "o",
                    "t": line.text[:_LONGEST_LINE],
                }
            )
        self.cursor = page.cursor
        if not rows:
            return
        rows[-1]["k"] = page.cursor
        run = max(run, self._run)
        data = b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)
        if self._path is None or run != self._run or self._size >= _SEGMENT_BYTES:
            self._rotate(run, self._number - len(rows) + 1)
        if self._path is None:
            raise OSError("no file to write to")
        with self._path.open("ab", buffering=0) as file:
            if file.write(data) != len(data):
                raise OSError("the disk took only a part of it")
        self._size += len(data)

    def _rotate(self, run: int, first: int) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = [self.folder / item.name for item in process_logs.segments(self.folder)]
        sizes = {path: path.stat().st_size for path in kept}
        room = _LOG_BYTES - _SEGMENT_BYTES
        while kept and (sum(sizes[path] for path in kept) > room or len(kept) >= _MOST_SEGMENTS):
            kept.pop(0).unlink()
        self._run, self._size = run, 0
        self._path = self.folder / f"{run}-{first}.jsonl"


@dataclass(slots=True)
class _Pod:
    """One that is watched. Times are the collector's clock's."""

    source: Source
    folder: Path
    replica: Replica
    due: float = 0.0
    wait: float = _TALKING
    log: PodLog | None = None
    reading: Future[None] | None = None
    seen: bool = True
    failed: bool = False  # said once


class Collector:
    """Copies what all pods say. `see` is told which there are; `run` does the reading, in a thread."""

    def __init__(self, root: Path, *, days: int) -> None:
        self._root, self._days = root, days
        self._pods: dict[tuple[str, str], _Pod] = {}
        self._lock = threading.Lock()
        self._tidied_at = float("-inf")
        self._seen: set[str] = set()  # clusters of which it is known what lives
        self._attached: frozenset[str] = frozenset()

    def see(self, cluster: str, source: Source, observation: Observation) -> None:
        """Which pods a cluster has now."""
        replicas = [
            *(item for service in observation.services for item in service.replicas),
            *observation.orphans,
        ]
        with self._lock:
            for replica in replicas:
                if not (_NAME.fullmatch(replica.id) and _NAME.fullmatch(replica.service)):
                    continue
                pod = self._pods.get((cluster, replica.id))
                if pod is None:
                    folder = folder_of(self._root, cluster, replica.service) / replica.id
                    self._pods[cluster, replica.id] = pod = _Pod(source, folder, replica)
                elif pod.replica.restarts != replica.restarts or pod.replica.phase != replica.phase:
                    pod.due = 0.0
                pod.source, pod.replica = source, replica
            self._seen.add(cluster)
            there = {replica.id for replica in replicas}
            for (name, replica_id), pod in self._pods.items():
                if name == cluster:
                    pod.seen = replica_id in there

    def forget(self, clusters: Sequence[str]) -> None:
        """Watch only these clusters from now on."""
        with self._lock:
            self._attached = frozenset(clusters)
            self._seen &= self._attached
            self._pods = {key: pod for key, pod in self._pods.items() if key[0] in clusters}

    def run(self, stop: threading.Event) -> None:
        """Until `stop`."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pod-logs") as pool:
            while not stop.wait(0.25):
                try:
                    self.turn(pool, time.monotonic())
                except Exception:
                    log.exception("the logs of pods: this round failed")

    def turn(self, pool: ThreadPoolExecutor, now: float) -> None:
        """Begin to read what is due; forget who is gone; remove what is old."""
        with self._lock:
            pods = dict(self._pods)
            for key, pod in pods.items():
                if not pod.seen and (pod.reading is None or pod.reading.done()):
                    del self._pods[key]  # its last words were read while it was going
        at_once = max(1, int(_A_SECOND * 0.25))
        due = sorted(
            (pod for pod in pods.values() if pod.seen and pod.due <= now), key=lambda pod: pod.due
        )
        for pod in due:
            if at_once and (pod.reading is None or pod.reading.done()):
                at_once -= 1
                pod.reading = pool.submit(self._read, pod, now)
        if now - self._tidied_at >= _TIDY_EVERY:
            self._tidied_at = now
            alive = {pod.folder for pod in pods.values()}
            # what lives on a cluster that was not seen yet is not known
            unseen = self._attached - self._seen
            pool.submit(prune, self._root, alive, time.time(), days=self._days, unseen=unseen)

    def _read(self, pod: _Pod, now: float) -> None:
        """All that is new of one pod; says when to look again."""
        wait = _AGAIN
        try:
            new = copy(pod)
            settled = pod.replica.phase in (Phase.READY, Phase.CRASHED)
            pod.wait = _TALKING if new else min(_QUIET, pod.wait * 2)
            wait = pod.wait if settled else _CHANGING
            pod.failed = False
        except NotFound:
            pod.failed = False  # it has not begun, or is gone
        except (SlipwayError, OSError, ValueError, LookupError) as error:
            pod.log = None  # taken up anew from what is on the disk
            if not pod.failed:
                pod.failed = True
                said = error.message if isinstance(error, SlipwayError) else repr(error)
                log.warning("the log of %s is not read: %s", pod.replica.id, said)
        pod.due = now + wait


def copy(pod: _Pod) -> int:
    """Copy what is new, and return how many lines. Raises SlipwayError, OSError."""
    if pod.log is None:
        pod.log = PodLog(pod.folder)
    count = 0
    for _ in range(_PAGES):
        before = pod.log.cursor
        page = pod.source.logs(pod.replica.id, cursor=before, limit=_PAGE)
        pod.log.add(page, page.run or pod.replica.restarts + 1)
        count += len(page.lines)
        if not page.lines and page.cursor == before:
            break
        if 0 < len(page.lines) < _PAGE and page.run > pod.replica.restarts:
            break
    return count


@dataclass(frozen=True, slots=True)
class Kept:
    """A cluster's logs as they were copied: a driver's `logs` and `log_replicas`."""

    root: Path
    cluster: str

    def logs(
        self,
        replica: str,
        *,
        cursor: str = "",
        limit: int = 1000,
        previous: bool = False,
        ended: float | None = None,
    ) -> LogPage:
        """As a driver's; `ended` is when the pod's last run that ended did. Raises NotFound, InvalidInput."""
        if _NAME.fullmatch(replica):
            for folder in folder_of(self.root, self.cluster).glob(f"*/{replica}"):
                try:
                    return process_logs.read(
                        folder,
                        replica,
                        cursor=cursor,
                        limit=limit,
                        previous=previous,
                        ended=ended,
                    )
                except (OSError, ValueError) as error:
                    raise Unavailable(f"The log of {replica} cannot be read: {error}.") from error
        raise NotFound(f"Nothing is kept of a pod {replica}.")

    def log_replicas(self, service: str) -> Sequence[str]:
        """Pods that said something, the oldest first."""
        if not _NAME.fullmatch(service):
            return []
        found = []
        for folder in _folders(folder_of(self.root, self.cluster, service)):
            segments = process_logs.segments(folder)
            if segments:
                found.append((_first_at(folder / segments[0].name), folder.name))
        return [name for _, name in sorted(found)]

    def started_again(self, service: str) -> Sequence[str]:
        """Pods of which more than one run is kept, the newest first."""
        return [
            name
            for name in reversed(self.log_replicas(service))
            if len({item.run for item in process_logs.segments(self._folder(service, name))}) > 1
        ]

    def _folder(self, service: str, pod: str) -> Path:
        return folder_of(self.root, self.cluster, service) / pod


def prune(
    root: Path, alive: set[Path], now: float, *, days: int, unseen: Collection[str] = ()
) -> int:
    """Remove what pods said that are gone for so many days, or are more than are kept of a service. Nothing
    of clusters that are `unseen`."""
    removed = 0
    for cluster in _folders(root):
        if cluster.name in unseen:
            continue
        for service in _folders(cluster):
            gone = [folder for folder in _folders(service) if folder not in alive]
            by_age = sorted(((_last_at(folder), folder) for folder in gone), reverse=True)
            for place, (at, folder) in enumerate(by_age):
                if place >= _MOST_GONE or now - at > days * 86400:
                    shutil.rmtree(folder, ignore_errors=True)
                    removed += 1
    return removed


def folder_of(root: Path, cluster: str, service: str = "") -> Path:
    return root / cluster / service if service else root / cluster


def _folders(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []


def _first_at(path: Path) -> float:
    try:
        with path.open("rb") as file:
            return float(json.loads(file.readline())["at"])
    except (OSError, ValueError, KeyError):
        return 0.0


def _last_at(folder: Path) -> float:
    return max((entry.stat().st_mtime for entry in folder.iterdir()), default=0.0)
