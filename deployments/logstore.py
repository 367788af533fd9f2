"""Append-only logs: a file of JSON lines each, read by byte offset.

The offset is the cursor: history is what lies before it, live is what comes after, and neither a gap
nor a repeat is possible between the two. Several processes may append; a line is one write with
O_APPEND, so lines never mix. A last line without its newline is still being written and is not read.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_LONGEST_LINE = 64 * 1024  # of text; what is longer is cut and says so
_READ_AT_ONCE = 4 * 2**20
_BLOCK = 256 * 1024


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line. `at` is epoch seconds; `source` says who wrote it ("pipeline", "build", a replica)."""

    at: float
    source: str
    text: str


def append(path: Path, entries: Iterable[LogEntry]) -> None:
    """Add lines at the end; makes the file and its folder."""
    data = b"".join(_encode(entry) for entry in entries)
    if not data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _encode(entry: LogEntry) -> bytes:
    text = entry.text
    if len(text) > _LONGEST_LINE:
        text = f"{text[:_LONGEST_LINE]} ... ({len(entry.text)} characters, cut)"
    line = json.dumps({"at": round(entry.at, 3), "source": entry.source, "text": text})
    return line.encode() + b"\n"


def read(path: Path, cursor: int = 0, limit: int = 5000) -> tuple[list[LogEntry], int]:
    """Whole lines after `cursor`, at most `limit`, and the cursor after them.

    A file that is not there has no lines. A cursor past the end (the log was removed) starts anew.
    """
    try:
        with path.open("rb") as file:
            if cursor > os.fstat(file.fileno()).st_size:
                cursor = 0
            file.seek(cursor)
            data = _whole_lines(file, limit)
    except FileNotFoundError:
        return [], 0
    # one parse for all lines: a newline is never inside of one
    rows = json.loads(b"[" + data.rstrip(b"\n").replace(b"\n", b",") + b"]")
    entries = [LogEntry(at=row["at"], source=row["source"], text=row["text"]) for row in rows]
    return entries, cursor + len(data)


def _whole_lines(file: BinaryIO, limit: int) -> bytes:
    """At most `limit` lines with their newlines, and not much more than `_READ_AT_ONCE`."""
    data = b""
    count = 0
    while count < limit and len(data) < _READ_AT_ONCE and (block := file.read(_BLOCK)):
        data += block
        count += block.count(b"\n")
    end = data.rfind(b"\n") + 1
    for _ in range(count - limit):
        end = data.rfind(b"\n", 0, end - 1) + 1
    return data[:end]
