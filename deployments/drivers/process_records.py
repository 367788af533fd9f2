"""Folders of JSON files of a process cluster, parsed and kept; read again only where something changed.

A router looks four times a second, and a large cluster has ten thousand replicas. So a folder is not
looked through while nothing in it can have changed:

- in a flat folder (`<name>.json`) every change is a rename in it, which moves the folder's own time; a
  time that is too young to tell two changes apart is not trusted, and every two seconds none is;
- in a folder of folders (`<name>/<file>`) a change moves the inner folder's time alone, so all files are
  looked at, as often as costs no more than a twelfth of the time. Whoever writes there may touch the outer
  folder's time (`hint`): then the next reading looks at once.

As long as nothing changed, the same dict comes back: `is` tells a reader that it has seen it all.
Only reads, but for `hint`. Not thread-safe.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from deployments.drivers.process_layout import read_json

T = TypeVar("T")

_RACY = 0.1  # seconds; folders' times come in steps of several milliseconds
_TRUST = 2.0  # seconds that a folder's unchanged time is believed
_SHARE = 12.0  # looking through files takes one twelfth of the time at most


class Records(Generic[T]):
    """The files of one folder by name: `<name>.json` there, or `<name>/<inner>`."""

    def __init__(self, folder: Path, parse: Callable[[Any], T], inner: str = "") -> None:
        self._folder, self._parse, self._inner = folder, parse, inner
        self._kept: dict[str, tuple[tuple[int, int, int], T]] = {}
        self._found: dict[str, T] = {}
        self._time: int | None = None  # of the folder, when it was looked through last
        self._trusted_until = self._next = 0.0  # monotonic

    def read(self) -> dict[str, T]:
        """Name -> value, in the order of names; empty where there is no folder.

        Raises OSError and ValueError when a file that is there cannot be read.
        """
        now = time.monotonic()
        moved = self.moved()
        if self._time is not None and moved == self._time and now < self._trusted_until:
            return self._found
        clock = time.time()
        try:
            self._look()
        except FileNotFoundError:
            if self._folder.exists():
                raise
            self._kept, self._found = {}, {}
        end = time.monotonic()
        settled = moved is not None and moved / 1e9 < clock - _RACY
        self._time = moved if settled else None
        trust = min(_SHARE * (end - now), _TRUST) if self._inner else _TRUST
        self._trusted_until = end + trust
        return self._found

    def moved(self) -> int | None:
        """The folder's own time, in nanoseconds; None where there is no folder."""
        try:
            return os.stat(self._folder).st_mtime_ns  # noqa: PTH116  a hot path
        except FileNotFoundError:
            return None

    def _look(self) -> None:
        base, inner, kept = str(self._folder), self._inner, self._kept
        found: dict[str, tuple[tuple[int, int, int], T]] = {}
        changed = False
        for entry in sorted(os.listdir(base)):  # noqa: PTH208
            if entry.startswith("."):
                continue  # being made
            path = f"{base}/{entry}/{inner}" if inner else f"{base}/{entry}"
            try:
                stat = os.stat(path)  # noqa: PTH116
                stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                old = kept.get(entry)
                if old is not None and old[0] == stamp:
                    found[entry] = old
                    continue
                # Replaced while it is read: the stamp is the older one, so the next look reads again.
                found[entry] = (stamp, self._parse(read_json(Path(path))))
                changed = True
            except FileNotFoundError:
                if inner and os.path.exists(f"{base}/{entry}"):  # noqa: PTH110
                    raise
                continue  # it went between the listing and the reading
        if changed or len(found) != len(kept):
            suffix = 0 if inner else len(".json")
            self._kept = found
            self._found = {name[: len(name) - suffix]: value for name, (_, value) in found.items()}


def hint(folder: Path) -> None:
    """Have readers look through this folder of folders at once."""
    with contextlib.suppress(OSError):
        os.utime(folder)
