"""The request log between HAProxy and the portal: lines read, kept in memory by number, and the wire.

PURE. A line is one request: when, which, how long, by whom, never what. What comes in is bytes; a line that
is not one is counted as lost, as is one that fell out before the portal took it: nothing vanishes unsaid.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any
from urllib.parse import unquote

from router.haproxy.request_line import FIELDS, LONGEST

_INDEX = {name: index for index, name in enumerate(FIELDS)}


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One request. Times are milliseconds, None where it did not come so far."""

    at: float  # when it came, epoch seconds
    service: str
    version: str
    request_id: str
    client_request_id: str
    method: str
    operation: str
    status: int  # 0 where none was sent: the client had left
    queue_ms: int | None
    service_ms: int | None  # until the replica's first byte
    total_ms: int
    bytes_in: int
    bytes_out: int
    replica: str  # "" when none had it
    who: str  # primary, secondary, token:<subject>; "" where the service asks nobody
    termination_state: str  # HAProxy's: "--" is a good end


@dataclass(frozen=True, slots=True)
class Gap:
    """Lines that are not there. `lost` is how many, None when nobody can know."""

    start: float  # epoch seconds
    end: float
    lost: int | None
    why: str


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Answer of the router's `/requests?after=N`: lines after number N, as of one run of the loop.

    `began` is when this run began to read; `lost` counts those after N that fell out unread.
    """

    epoch: str
    next: int
    began: float
    lines: tuple[RequestLine, ...] = ()
    gaps: tuple[Gap, ...] = ()
    lost: int = 0


Names = Callable[[str, str], tuple[str, str] | None]
"""(backend, slot as "backend/server") -> (version, replica's id or ""); None for a strange backend."""


def parse(line: bytes, names: Names) -> RequestLine | None:
    """One line of HAProxy's; None when it is not one."""
    cells = line.decode("utf-8", "replace").split("\t")
    if len(cells) != len(FIELDS):
        return None
    (
        ended, service, backend, request_id, client_request_id, method, operation, status,
        queue_ms, service_ms, total_ms, bytes_in, bytes_out, slot, who, termination_state,
    ) = cells  # fmt: skip
    named = names(backend, slot)
    if named is None or service == "-":
        return None
    try:
        total = max(int(total_ms.lstrip("+")), 0)
        return RequestLine(
            at=(int(ended) - total) / 1000,
            service=service[:32],
            version=named[0],
            request_id=_text(request_id),
            client_request_id=_text(client_request_id),
            method=method[:16],
            operation=_text(operation)[:32],
            status=max(int(status), 0),  # HAProxy says -1
            queue_ms=_milliseconds(queue_ms),
            service_ms=_milliseconds(service_ms),
            total_ms=total,
            bytes_in=int(bytes_in),
            bytes_out=int(bytes_out.lstrip("+")),
            replica=named[1],
            who=unquote(_text(who))[:300],
            termination_state=termination_state[:4],
        )
    except ValueError:
        return None


def _text(cell: str) -> str:
    return "" if cell == "-" else cell[:100]


def _milliseconds(cell: str) -> int | None:
    value = int(cell.lstrip("+"))
    return None if value < 0 else value


class Splitter:
    """Bytes of one connection to whole lines. What is longer than a line can be is dropped."""

    def __init__(self) -> None:
        self._rest = b""

    def lines(self, data: bytes) -> list[bytes]:
        *whole, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) <= LONGEST else b""
        return [line for line in whole if line]


class Requests:
    """The last `limit` lines, numbered, for whoever asks "everything after N". Lives on the event loop."""

    def __init__(self, epoch: str, began: float, limit: int = 100_000) -> None:
        self.epoch, self.began = epoch, began
        self.taken = self.unreadable = 0  # since `began`
        self._rows: deque[RequestLine | Gap] = deque(maxlen=limit)
        self._next = 0

    def add(self, lines: Iterable[bytes], names: Names, now: float) -> None:
        """Take in lines as HAProxy wrote them; one that cannot be read leaves a gap of one."""
        bad = 0
        for line in lines:
            made = parse(line, names)
            if made is None:
                bad += 1
                continue
            self._rows.append(made)
            self._next += 1
            self.taken += 1
        if bad:
            self.unreadable += bad
            self.gap(Gap(now, now, bad, "could not be read"))

    def gap(self, gap: Gap) -> None:
        self._rows.append(gap)
        self._next += 1

    def page(self, after: int, limit: int = 5000) -> RequestPage:
        first = self._next - len(self._rows)
        start = min(max(after - first, 0), len(self._rows))
        rows = list(islice(self._rows, start, start + limit))
        return RequestPage(
            epoch=self.epoch,
            next=first + start + len(rows),
            began=self.began,
            lines=tuple(row for row in rows if isinstance(row, RequestLine)),
            gaps=tuple(row for row in rows if isinstance(row, Gap)),
            lost=max(first - after, 0),
        )


_LINE = tuple(item.name for item in fields(RequestLine))
_GAP = tuple(item.name for item in fields(Gap))


def to_wire(page: RequestPage) -> dict[str, Any]:
    """The page as plain JSON values; a line is a list, for there may be thousands."""
    return {
        "epoch": page.epoch,
        "next": page.next,
        "began": page.began,
        "fields": _LINE,
        "lines": [[getattr(line, name) for name in _LINE] for line in page.lines],
        "gaps": [[getattr(gap, name) for name in _GAP] for gap in page.gaps],
        "lost": page.lost,
    }


def from_wire(data: Any) -> RequestPage:
    """The inverse, also of what a router of another version said. Raises ValueError."""
    try:
        names = data["fields"]
        known = set(_LINE)
        return RequestPage(
            epoch=str(data["epoch"]),
            next=int(data["next"]),
            began=float(data["began"]),
            lines=tuple(
                RequestLine(**{n: v for n, v in zip(names, row, strict=True) if n in known})
                for row in data["lines"]
            ),
            gaps=tuple(Gap(*row) for row in data["gaps"]),
            lost=int(data["lost"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a page of requests: {error!r}") from error
