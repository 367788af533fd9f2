"""Contents on a node's disk by their SHA-256, for many readers and one writer of each.

    absent -> coming (a `.part` that grows, read while it does) -> kept (`<sha256>`, verified) -> absent

A content has its name only once its SHA-256 was right. What was used longest ago goes when there is no room;
what somebody reads or brings never does. When a file was used last is its modification time, so that a
process which is killed knows again; parts that it left are removed.

Nothing is written through to the disk: a node that loses its power may keep a wrong file under a right name.
Readers verify what they get, and who found it wrong says so (`doubt`).
Knows no network and no names of files. Thread-safe.
"""

import contextlib
import hashlib
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 18
_SOUND_FOR = 60.0  # seconds for which what was verified is not doubted again


class NotHere(Exception):
    """It cannot be had. `status` is what HTTP says of it."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class Coming:
    """A content on its way to the disk. One thread writes; readers follow it as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size: int | None = None  # None until its sender says it
        self.came = 0
        self.done = False
        self.failed: NotHere | None = None
        self._hasher = hashlib.sha256()
        self._file = path.open("xb", buffering=0)
        self._moved = threading.Condition()

    def begins(self, size: int) -> None:
        with self._moved:
            self.size = size
            self._moved.notify_all()

    def add(self, chunk: bytes) -> None:
        """Raises OSError, the disk's."""
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) :]
        self._hasher.update(chunk)
        with self._moved:
            self.came += len(chunk)
            self._moved.notify_all()

    def digest(self) -> str:
        return self._hasher.hexdigest()

    def ends(self, failed: NotHere | None) -> None:
        self._file.close()
        with self._moved:
            self.failed, self.done = failed, failed is None
            self._moved.notify_all()

    def wait(self, beyond: int, seconds: float) -> None:
        """Until there are more bytes than `beyond`, or all. Raises NotHere."""
        with self._moved:
            self._moved.wait_for(
                lambda: self.done or self.failed is not None or self.came > beyond, seconds
            )
            if self.failed is not None:
                raise self.failed
            if not self.done and self.came <= beyond:
                raise NotHere(504, "it comes no further")

    def wait_size(self, seconds: float) -> int:
        """Raises NotHere."""
        with self._moved:
            self._moved.wait_for(lambda: self.size is not None or self.failed is not None, seconds)
            if self.failed is not None:
                raise self.failed
            if self.size is None:
                raise NotHere(504, "it does not come")
            return self.size


@dataclass(slots=True)
class _Kept:
    size: int
    used: float  # epoch seconds
    sound: float = float("-inf")  # when it was verified, monotonic


class Claim:
    """Somebody's reading of one content: close it. `coming` None: all of it is there."""

    def __init__(self, store: "Store", sha256: str, coming: Coming | None) -> None:
        self._store, self._sha256, self.coming = store, sha256, coming
        path = coming.path if coming is not None else store.path(sha256)
        self.file = path.open("rb", buffering=0)

    def size(self, seconds: float) -> int:
        """Raises NotHere where it does not begin to come in that time."""
        if self.coming is not None:
            return self.coming.wait_size(seconds)
        return os.fstat(self.file.fileno()).st_size

    def chunks(self, begin: int, seconds: float) -> Iterator[bytes]:
        """From there to its end. Raises NotHere where nothing more comes for so long."""
        at = begin
        while True:
            if self.coming is not None:
                self.coming.wait(at, seconds)
            chunk = os.pread(self.file.fileno(), _CHUNK, at)
            if not chunk:
                return
            at += len(chunk)
            yield chunk

    def close(self) -> None:
        self.file.close()
        self._store._released(self._sha256)

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Store:
    """`limit` in bytes. `spare`: the part of the disk that is left free, whatever the limit says: a node
    that runs out of disk ends pods."""

    def __init__(self, folder: Path, limit: int, *, spare: float = 0.15) -> None:
        self.folder, self.limit, self.spare = folder, limit, spare
        self._lock = threading.Lock()
        self._one_doubt = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._coming: dict[str, Coming] = {}
        self._claims: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if SHA256.fullmatch(path.name):
                found = path.stat()
                self._kept[path.name] = _Kept(found.st_size, found.st_mtime)
            elif path.name.endswith(".part"):
                path.unlink()

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def used(self) -> int:
        """Bytes, with those that are promised to what comes."""
        with self._lock:
            return self._used()

    def holds(self, sha256: str) -> bool:
        return sha256 in self._kept

    def claim(self, sha256: str) -> Claim | None:
        """All of it; None where it is not here."""
        with self._lock:
            return self._claim(sha256)

    def claim_or_begin(self, sha256: str) -> tuple[Claim, Coming | None]:
        """A reading of it; and what the caller has to bring, where nobody had begun to. Raises NotHere."""
        with self._lock:
            if (claim := self._claim(sha256)) is not None:
                return claim, None
            coming, mine = self._coming.get(sha256), None
            try:
                if coming is None:
                    path = self.folder / f"{sha256[:16]}-{uuid.uuid4().hex}.part"
                    coming = mine = Coming(path)
                claim = Claim(self, sha256, coming)
            except OSError as error:
                raise NotHere(507, f"the store cannot be used: {error.strerror}") from error
            self._coming[sha256] = coming
            self._claims[sha256] = self._claims.get(sha256, 0) + 1
            return claim, mine

    def begins(self, coming: Coming, size: int) -> None:
        """Say how much comes, and make room for it. Raises NotHere."""
        with self._lock:
            self._make_room(size)
            coming.begins(size)

    def ends(self, sha256: str, coming: Coming, failed: NotHere | None = None) -> NotHere | None:
        """What was brought is kept if it is what it should be; else why not."""
        if failed is None and coming.digest() != sha256:
            failed = NotHere(502, "its SHA-256 was wrong")
        with self._lock:
            if failed is None:
                try:
                    coming.path.chmod(0o444)
                    coming.path.replace(self.path(sha256))
                    self._kept[sha256] = _Kept(coming.came, time.time(), time.monotonic())
                except OSError as error:
                    failed = NotHere(507, f"the store cannot be written: {error.strerror}")
            if failed is not None:
                coming.path.unlink(missing_ok=True)
            self._coming.pop(sha256, None)
        coming.ends(failed)
        return failed

    def doubt(self, sha256: str) -> bool:
        """Somebody got wrong bytes: verify what is here, and remove it if it is wrong. True if it was."""
        with self._one_doubt:
            kept = self._kept.get(sha256)
            if kept is None or time.monotonic() - kept.sound < _SOUND_FOR:
                return False
            hasher = hashlib.sha256()
            try:
                with self.path(sha256).open("rb", buffering=0) as file:
                    while chunk := file.read(_CHUNK):
                        hasher.update(chunk)
            except OSError:
                pass  # what cannot be read is wrong
            with self._lock:
                if self._kept.get(sha256) is not kept:
                    return False
                if hasher.hexdigest() == sha256:
                    kept.sound = time.monotonic()
                    return False
                self._remove(sha256)
                return True

    def _claim(self, sha256: str) -> Claim | None:
        kept = self._kept.get(sha256)
        if kept is None:
            return None
        try:
            claim = Claim(self, sha256, None)
        except OSError:
            self._remove(sha256)  # it went without our doing
            return None
        kept.used = time.time()
        with contextlib.suppress(OSError):
            os.utime(self.path(sha256), (kept.used, kept.used))
        self._claims[sha256] = self._claims.get(sha256, 0) + 1
        return claim

    def _released(self, sha256: str) -> None:
        with self._lock:
            left = self._claims[sha256] - 1
            if left:
                self._claims[sha256] = left
            else:
                del self._claims[sha256]

    def _used(self) -> int:
        return sum(kept.size for kept in self._kept.values()) + self._promised()

    def _promised(self) -> int:
        return sum(coming.size or 0 for coming in self._coming.values())

    def _make_room(self, size: int) -> None:
        missing = self._missing(size)
        oldest = sorted(self._kept, key=lambda sha256: self._kept[sha256].used)
        free = [sha256 for sha256 in oldest if sha256 not in self._claims]
        if missing > sum(self._kept[sha256].size for sha256 in free):
            # nothing is removed for what would not fit anyway
            raise NotHere(507, f"no room for {size:,} bytes beside what is in use")
        for sha256 in free:
            if missing <= 0:
                return
            missing -= self._kept[sha256].size
            self._remove(sha256)

    def _missing(self, size: int) -> int:
        """Bytes that have to go before so many more may come; not above 0 where there is room."""
        disk = shutil.disk_usage(self.folder)
        unwritten = sum((item.size or 0) - item.came for item in self._coming.values())
        of_disk = size + unwritten - (disk.free - int(disk.total * self.spare))
        return max(self._used() + size - self.limit, of_disk)

    def _remove(self, sha256: str) -> None:
        del self._kept[sha256]
        with contextlib.suppress(OSError):
            self.path(sha256).unlink()
