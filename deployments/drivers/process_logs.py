"""Read a replica's output from the segments its shim writes.

A replica's `log/` folder holds files named `<run>-<number of the first line>.jsonl`. Each line is
`{"n": number, "at": seconds, "s": "o" or "e", "t": text}`; numbers count up over all runs of the
replica and are never used twice, so a cursor can tell exactly what it has had and what was lost to
rotation. A last line without its newline is still being written and is not read.

The cursor is `<number>:<segment>:<offset>`: the last line read and where the next one should be.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.drivers.base import LogLine, LogPage
from deployments.errors import InvalidInput

_READ_AT_ONCE = 4 * 2**20
_TRIES = 3


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    run: int
    first: int
    name: str


def segments(folder: Path) -> list[Segment]:
    """What is kept, oldest first."""
    found = []
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    for name in names:
        stem, _, ending = name.partition(".")
        run, _, first = stem.partition("-")
        if ending == "jsonl" and run.isdigit() and first.isdigit():
            found.append(Segment(int(run), int(first), name))
    return sorted(found)


def read(
    folder: Path,
    replica: str,
    *,
    cursor: str = "",
    limit: int = 1000,
    previous: bool = False,
    ended: float | None = None,
) -> LogPage:
    """At most `limit` lines after the cursor. Raises InvalidInput for a cursor not made here.

    `previous`: of the last run that had begun when one `ended` (epoch seconds); where that is not known, of
    the run before the newest one that said something.
    """
    last, name, offset = _parse(cursor)
    for _ in range(_TRIES - 1):
        try:
            return _read(folder, replica, last, name, offset, limit, previous, ended)
        except FileNotFoundError:
            continue  # a segment rotated away between the listing and its opening: list again
    return _read(folder, replica, last, name, offset, limit, previous, ended)


def _parse(cursor: str) -> tuple[int, str, int]:
    if not cursor:
        return 0, "", 0
    parts = cursor.split(":")
    if len(parts) != 3 or not parts[0].isdecimal() or not parts[2].isdecimal():
        raise InvalidInput("The log cursor is not one that was given out.", field="cursor")
    return int(parts[0]), parts[1], int(parts[2])


def _read(
    folder: Path,
    replica: str,
    last: int,
    name: str,
    offset: int,
    limit: int,
    previous: bool,
    ended: float | None,
) -> LogPage:
    kept = segments(folder)
    if previous:
        run = _previous(folder, kept, ended)
        kept = [segment for segment in kept if segment.run == run]
    lines: list[LogLine] = []
    begin, lost = last, None
    for segment, start in _from_cursor(kept, last, name, offset):
        if len(lines) >= limit:
            break
        name, offset = segment.name, start
        path = folder / segment.name
        while len(lines) < limit and (found := _whole_lines(path, offset, limit - len(lines))):
            for raw, end in found:
                offset = end
                number = raw["n"]
                if number <= last:
                    continue
                if lost is None:
                    lost = number - last - 1
                last = number
                stream = "stderr" if raw["s"] == "e" else "stdout"
                lines.append(LogLine(at=raw["at"], replica=replica, stream=stream, text=raw["t"]))
    known_gap = begin > 0 and not previous  # the first page begins where what is kept begins
    return LogPage(
        lines=tuple(lines),
        cursor=f"{last}:{name}:{offset}",
        lost=(lost or 0) if known_gap else 0,
    )


def _previous(folder: Path, kept: Sequence[Segment], ended: float | None) -> int | None:
    """The run before: of one that is over and has no successor yet, that one itself."""
    runs = sorted({segment.run for segment in kept})
    if ended is None:
        return runs[-2] if len(runs) > 1 else None
    # a node tells only the second
    until = ended + 1 if ended.is_integer() else ended
    begun = {}
    for segment in kept:
        if segment.run not in begun:
            first = _whole_lines(folder / segment.name, 0, 1)
            begun[segment.run] = first[0][0]["at"] if first else math.inf
    return max((run for run in runs if begun[run] < until), default=None)


def _from_cursor(
    kept: Sequence[Segment], last: int, name: str, offset: int
) -> list[tuple[Segment, int]]:
    """The segments to read, in order, each with the byte to begin at."""
    names = [segment.name for segment in kept]
    if name in names:
        place = names.index(name)
        return [(kept[place], offset), *((segment, 0) for segment in kept[place + 1 :])]
    # Its segment is gone: begin with the one that may hold the next line.
    older = [place for place, segment in enumerate(kept) if segment.first <= last + 1]
    return [(segment, 0) for segment in kept[older[-1] if older else 0 :]]


def _whole_lines(path: Path, start: int, limit: int) -> list[tuple[dict[str, Any], int]]:
    found: list[tuple[dict[str, Any], int]] = []
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(_READ_AT_ONCE)
    begin = 0
    while len(found) < limit and (end := data.find(b"\n", begin)) >= 0:
        found.append((json.loads(data[begin:end]), start + end + 1))
        begin = end + 1
    return found


def tail(folder: Path, *, run: int, limit_bytes: int = 64 * 1024) -> str:
    """The end of one run's output as text, for reading the cause of a failure."""
    data = b""
    for segment in reversed([segment for segment in segments(folder) if segment.run == run]):
        try:
            with (folder / segment.name).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - (limit_bytes - len(data))))
                piece = file.read()
        except FileNotFoundError:
            break
        data = piece + data
        if len(data) >= limit_bytes:
            break
    texts = []
    for raw in data.split(b"\n")[:-1]:
        try:
            texts.append(json.loads(raw)["t"])
        except (ValueError, KeyError):
            continue  # the first piece may be the end of a line
    return "\n".join(texts)
