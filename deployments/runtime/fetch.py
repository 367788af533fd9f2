"""Fetch a revision's files into a pod: its first container (`python -m deployments.runtime.fetch`).

Reads /slipway/files/files.json (`kubernetes_pod.files_data`): {path, sha256, size, url, unpack} each, and for
the node's cache {cache, key} (`fetch_doors`). Writes below /slipway/staged, and the runtime (`inside.py` and
what it needs) to /slipway/runtime. Says on stdout how far it is; how it ended is its exit code (`UNREACHABLE`
and those beside it), with a sentence in the container's termination message.

Safety: a file has its name only once its SHA-256 was right; the project folder, once all of it is unpacked.
Killed at any point it goes on where it was: bytes that came are kept. A URL is a secret until it runs out,
and is never printed; and what it brings is trusted for its SHA-256 alone.

No Django, no rows: it runs in a cluster, beside nothing of Slipway's.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import time
import urllib.error
import zipfile
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Event, Lock
from typing import Any
from urllib.parse import urlsplit

from deployments.drivers.process_stage import safe_path, unpack
from deployments.errors import InvalidInput
from deployments.runtime.fetch_doors import Doors, NotCached, why

FILES = Path("/slipway/files/files.json")
STAGED, RUNTIME = Path("/slipway/staged"), Path("/slipway/runtime")
TOLD = Path("/dev/termination-log")
RUNTIME_FILES = (
    "inside.py", "gate.py", "gate_guest.py", "gate_sockets.py", "gunicorn_conf.py",
    "front.py", "front_pod.py",
)  # fmt: skip

# Exit codes; `deployments.drivers.kubernetes_pod.of_fetch` makes causes of them.
UNREACHABLE, WRONG, REFUSED, MISSING, FULL, UNREADABLE, TOLD_WRONG = 10, 11, 12, 13, 14, 15, 16

CACHE = "the node's cache"
_AT_ONCE = 4
_BACK_OFF = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds before each try but the first
_SILENCE = 30.0  # seconds in which nothing comes
_CHUNK = 1 << 20
_SAY_EVERY = 2.0


class Trouble(Exception):
    """Why it ends. `code` is the exit code; `again`: another try may help."""

    def __init__(self, code: int, words: str, *, again: bool = False, cached: bool = False) -> None:
        super().__init__(words)
        self.code, self.words, self.again = code, words, again
        self.cached = cached  # the node's cache had a part in it


@dataclass(frozen=True, slots=True)
class Wanted:
    """One line of files.json."""

    path: str
    sha256: str
    size: int
    url: str = field(repr=False)
    unpack: bool
    cache: str = ""  # its address in the node's cache, "" without one
    key: str = field(default="", repr=False)

    @property
    def where(self) -> str:
        """Its server, without what is secret of the address."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


class Progress:
    """What a person reads meanwhile."""

    def __init__(self, wanted: Iterable[Wanted], say: Callable[[str], None]) -> None:
        sizes = [item.size for item in wanted]
        self.total, self.files = sum(sizes), len(sizes)
        self.say, self._lock = say, Lock()
        self._bytes = self._done = 0
        self._said_at = time.monotonic()

    def came(self, count: int) -> None:
        with self._lock:
            self._bytes += count
            if time.monotonic() - self._said_at >= _SAY_EVERY:
                self._said_at = time.monotonic()
                self.say(f"fetched {_mib(self._bytes)} of {_mib(self.total)} MiB")

    def done(self, item: Wanted) -> None:
        with self._lock:
            self._done += 1
            self.say(f"{item.path} is here ({self._done} of {self.files})")


def read(path: Path) -> list[Wanted]:
    """What files.json lists. Raises Trouble."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text())
        found = [
            Wanted(
                safe_path(row["path"]),
                row["sha256"],
                row["size"],
                row["url"],
                row.get("unpack", False),
                row.get("cache", ""),
                row.get("key", ""),
            )
            for row in rows
        ]
        for item in found:
            if urlsplit(item.url).scheme not in ("http", "https"):
                raise ValueError(f"{item.path} has no http address")
        return found
    except (OSError, ValueError, KeyError, TypeError, InvalidInput) as error:
        raise Trouble(TOLD_WRONG, f"{path.name} cannot be read: {error!r}") from error


def fetch(
    wanted: list[Wanted],
    staged: Path,
    say: Callable[[str], None],
    *,
    doors: Doors | None = None,
    back_off: tuple[float, ...] = _BACK_OFF,
    silence: float = _SILENCE,
) -> None:
    """Bring all of it. Raises Trouble, the first one that came."""
    progress, doors = Progress(wanted, say), doors or Doors()
    stop = Event()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        brought = [
            pool.submit(_bring, item, staged, progress, stop, doors, back_off, silence)
            for item in wanted
        ]
        try:
            for future in brought:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def install_runtime(runtime: Path) -> None:
    """What the other containers run of Slipway, in one step each."""
    source = Path(__file__).parent.parent / "agent"
    for name in RUNTIME_FILES:
        beside = runtime / f".{name}"
        shutil.copyfile(source / name, beside)
        beside.chmod(0o644)
        beside.replace(runtime / name)


def _bring(
    item: Wanted,
    staged: Path,
    progress: Progress,
    stop: Event,
    doors: Doors,
    back_off: tuple[float, ...],
    silence: float,
) -> None:
    target = staged / item.path
    if target.exists():
        progress.came(item.size)
        progress.done(item)
        return
    part = staged / ".parts" / hashlib.sha256(item.path.encode()).hexdigest()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.parent.mkdir(exist_ok=True)
        wrong = False
        for wait in (*back_off, None):
            try:
                _download(item, part, progress, stop, doors, silence)
                break
            except Trouble as trouble:
                if not trouble.again or wait is None or stop.is_set() or wrong:
                    raise
                # a transfer may go wrong once; what a cache has, until it is asked no more
                wrong = trouble.code == WRONG and not trouble.cached
                progress.say(f"{trouble.words}; again in {wait:g} s")
                stop.wait(wait)
        if item.unpack:
            _unpack(item, part, target)
        else:
            part.chmod(0o444)
            part.replace(target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Trouble(
                FULL, f"{item.path}: no room left on the node's disk ({error})"
            ) from error
        raise Trouble(TOLD_WRONG, f"{item.path} cannot be written: {error}") from error
    progress.done(item)


class Part:
    """What has come of one file, and its SHA-256 so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("ab+")
        self.hasher = hashlib.sha256()
        self.size = 0
        self.file.seek(0)
        while chunk := self.file.read(_CHUNK):
            self.hasher.update(chunk)
            self.size += len(chunk)

    def begin_again(self) -> None:
        self.file.truncate(0)
        self.hasher, self.size = hashlib.sha256(), 0

    def add(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self.hasher.update(chunk)
        self.size += len(chunk)

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _download(
    item: Wanted, path: Path, progress: Progress, stop: Event, doors: Doors, silence: float
) -> None:
    """All of it to `path`, with the right SHA-256. Raises Trouble; OSError for the disk's."""
    cached = False
    with Part(path) as part:
        if part.size > item.size:
            part.begin_again()
        if missing := part.size < item.size or not item.size:
            cached = _receive(item, part, progress, stop, doors, silence)
        found = part.hasher.hexdigest()
    if found != item.sha256:
        path.unlink()
        progress.came(-item.size if missing else 0)
        if cached:
            doors.was_wrong(item)
        raise Trouble(
            WRONG,
            f"{item.path}: its SHA-256 is {found[:12]}.., not {item.sha256[:12]}.. "
            f"(from {CACHE if cached else item.where})",
            again=True,
            cached=cached,
        )


def _receive(
    item: Wanted, part: Part, progress: Progress, stop: Event, doors: Doors, silence: float
) -> bool:
    """Add what is missing; whether the cache had a part in it."""
    cached = False
    if doors.may_have(item):
        try:
            with doors.cached(item, part.size, silence) as answer:
                cached = True
                _add(item, part, progress, stop, answer, CACHE)
                return True
        except (NotCached, Trouble) as error:
            if stop.is_set():
                raise
            progress.say(f"{item.path}: {CACHE}: {error}; it comes from the portal")
    try:
        answer = doors.portal(item, part.size, silence)
    except urllib.error.HTTPError as error:
        with error:
            raise _of_status(item, error.code) from error
    except (OSError, HTTPException) as error:
        raise _unreachable(item, error) from error
    with answer:
        _add(item, part, progress, stop, answer, item.where)
    return cached


def _add(
    item: Wanted, part: Part, progress: Progress, stop: Event, answer: HTTPResponse, where: str
) -> None:
    if answer.status != 206:
        part.begin_again()  # it sends all of it
    progress.came(part.size)
    while part.size < item.size:
        if stop.is_set():
            raise Trouble(UNREACHABLE, f"{item.path}: given up, as another file was")
        try:
            chunk = answer.read1(min(_CHUNK, item.size - part.size))
        except (OSError, HTTPException) as error:
            progress.came(-part.size)
            raise _unreachable(item, error, where) from error
        if not chunk:
            progress.came(-part.size)
            words = f"{item.path}: {where} broke off after {part.size:,} of {item.size:,} bytes"
            raise Trouble(UNREACHABLE, words, again=True)
        part.add(chunk)  # an OSError here is the disk's
        progress.came(len(chunk))


def _of_status(item: Wanted, status: int) -> Trouble:
    if status == 403:
        return Trouble(
            REFUSED,
            f"{item.path}: {item.where} refused its address (403): it has run out, or the portal's secret "
            "key is another now",
        )
    if status == 404:
        return Trouble(MISSING, f"{item.path}: {item.where} does not have it (404)")
    again = status >= 500 or status == 429
    return Trouble(UNREACHABLE, f"{item.path}: {item.where} answered {status}", again=again)


def _unreachable(item: Wanted, error: Exception, where: str = "") -> Trouble:
    words = f"{item.path}: {where or item.where} cannot be reached: {why(item, error)}"
    return Trouble(UNREACHABLE, words, again=True)


def _unpack(item: Wanted, part: Path, target: Path) -> None:
    """The project folder, whole or not at all."""
    beside = target.parent / f".{target.name}.unpacked"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        with part.open("rb") as file:
            unpack(file, beside)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        InvalidInput,
    ) as error:
        words = f"{item.path}: the project folder is not a zip that can be unpacked: {error}"
        raise Trouble(UNREADABLE, words) from error
    beside.rename(target)
    part.unlink()


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f}"


def _say(text: str) -> None:
    print(f"slipway: {text}", flush=True)  # noqa: T201  the container's output


def main() -> int:
    """The exit code."""
    try:
        install_runtime(RUNTIME)
        wanted = read(FILES)
        began = time.monotonic()
        doors = Doors(os.environ.get("NODE", ""), os.environ.get("SLIPWAY_BLOB_CA", ""))
        fetch(wanted, STAGED, _say, doors=doors)
    except Trouble as trouble:
        with contextlib.suppress(OSError):
            TOLD.write_text(trouble.words)
        _say(trouble.words)
        return trouble.code
    size = _mib(sum(item.size for item in wanted))
    _say(f"{len(wanted)} files, {size} MiB, in {time.monotonic() - began:.1f} s")
    shutil.rmtree(STAGED / ".parts", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
