"""One coloured log out of the processes' log files, followed as they grow and rotate."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92)


class ProcessLog:
    """Follows several files; each line comes with its process's name in its colour."""

    def __init__(
        self, files: Mapping[str, Path], *, colour: bool, from_start: bool = False
    ) -> None:
        self._files = dict(files)
        self._colour = colour
        self._width = max(map(len, self._files), default=0)
        self._open: dict[str, BinaryIO] = {}
        self._rest: dict[str, bytes] = {}
        self._from_start = from_start
        for name in self._files:
            self._reopen(name, at_end=not from_start)

    def _reopen(self, name: str, *, at_end: bool) -> None:
        try:
            file = self._files[name].open("rb")
        except FileNotFoundError:
            return
        if at_end:
            file.seek(0, os.SEEK_END)
        if old := self._open.pop(name, None):
            old.close()
        self._open[name] = file

    def lines(self) -> Iterator[str]:
        """What was written since the last call, ready to print."""
        for index, (name, path) in enumerate(self._files.items()):
            if name not in self._open:
                self._reopen(name, at_end=False)
            file = self._open.get(name)
            if file is None:
                continue
            yield from self._whole_lines(index, name, file.read())
            if self._rotated(path, file):
                yield from self._whole_lines(index, name, file.read())
                self._reopen(name, at_end=False)

    @staticmethod
    def _rotated(path: Path, file: BinaryIO) -> bool:
        try:
            there = path.stat()
        except FileNotFoundError:
            return False
        return there.st_ino != os.fstat(file.fileno()).st_ino

    def _whole_lines(self, index: int, name: str, data: bytes) -> Iterator[str]:
        *whole, rest = (self._rest.get(name, b"") + data).split(b"\n")
        self._rest[name] = rest
        prefix = f"{name:<{self._width}} | "
        if self._colour:
            prefix = f"\x1b[{_COLOURS[index % len(_COLOURS)]}m{prefix}\x1b[0m"
        for line in whole:
            yield prefix + line.decode(errors="replace")

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
