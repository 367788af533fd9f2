"""Several logs as one, in the order of time, page by page.

PURE. A page takes a prefix of each log and nothing twice, so the position after it is one number of
lines for each log. Also: what a terminal would have made of a line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from deployments.drivers.base import LogPage

# Colours, cursor movements (CSI), titles (OSC) and the shorter escapes.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Line:
    """One line to show. `stream` is "stdout", "stderr" or "" for Slipway's own."""

    at: float
    source: str
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """The next lines of one log; `ended` when there are no more now."""

    lines: Sequence[Line]
    ended: bool


def merge(parts: Sequence[Part], limit: int) -> tuple[list[Line], list[int]]:
    """At most `limit` lines in the order of time, and how many of each part they took.

    Ends early at the end of a part that has more: what comes next in it is not known yet and may be
    older than what the other parts hold. Lines of one part keep their order whatever their times say.
    """
    taken = [0] * len(parts)
    merged: list[Line] = []
    while len(merged) < limit:
        chosen = -1
        for index, part in enumerate(parts):
            if taken[index] == len(part.lines):
                if not part.ended:
                    return merged, taken
                continue
            at = part.lines[taken[index]].at
            if chosen < 0 or at < parts[chosen].lines[taken[chosen]].at:
                chosen = index
        if chosen < 0:
            break
        merged.append(parts[chosen].lines[taken[chosen]])
        taken[chosen] += 1
    return merged, taken


def plain(text: str) -> str:
    """Without escapes and control characters; of an overwritten line (progress bars) the last state."""
    if text.isprintable():
        return text
    text = _ESCAPES.sub("", text).rstrip("\r\n").rsplit("\r", 1)[-1]
    return _CONTROLS.sub("\ufffd", text)


def shown(page: LogPage) -> list[Line]:
    """A driver's lines as a viewer has them."""
    return [Line(item.at, item.replica, item.stream, plain(item.text)) for item in page.lines]


def as_text(line: Line) -> str:
    """A line of the downloaded file: time (UTC), source, stream where it is stderr, text."""
    at = datetime.fromtimestamp(line.at, UTC).isoformat(timespec="milliseconds")
    mark = "! " if line.stream == "stderr" else ""
    return f"{at.replace('+00:00', 'Z')} [{line.source}] {mark}{line.text}\n"
