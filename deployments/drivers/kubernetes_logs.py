"""What a pod's containers say, read from the API server page by page: nothing twice, nothing left out.

The driver's `logs` is `read(kube, namespace, pod, ...)`. The cursor says for each container which run was
read, and the times of the last lines: the server goes back to the second only, and what goes to stdout and
stderr at a time may come a little out of order. When a container was started again, what is new of the run
before comes first, in pages of its own.

What the kubelet has deleted nobody can read: it keeps the current run and the one before, and of each the
last 10 MB or so. `deployments.pod_logs` reads often enough, and keeps it.
"""

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from deployments.drivers.base import LogLine, LogPage
from deployments.errors import Conflict, InvalidInput, NotFound

MODEL = "model"
_LATE = 5_000_000  # nanoseconds
_MOST_TIMES = 200
_STAMP = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?(.*)", re.DOTALL
)


class Logs(Protocol):
    """The part of `deployments.kube.api.Kube` that is used here."""

    def log(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        previous: bool = False,
        since: str = "",
        tail: int | None = None,
        follow: float = 0.0,
    ) -> Iterator[str]: ...


@dataclass(frozen=True, slots=True)
class Mark:
    """How far one container was read: the run, and when its last lines were said (in nanoseconds since the
    epoch, sorted), as far back as a line may still come late."""

    restarts: int = 0
    last: tuple[int, ...] = ()

    @property
    def floor(self) -> int:
        """What was said before it has been read."""
        if len(self.last) < _MOST_TIMES:
            return max(0, self.last[-1] - _LATE) if self.last else 0
        return self.last[0]

    def after(self, said: Sequence["Said"]) -> "Mark":
        times = sorted((*self.last, *(item.at for item in said)))
        if not times:
            return self
        kept = [at for at in times if at >= times[-1] - _LATE][-_MOST_TIMES:]
        return Mark(self.restarts, tuple(kept))


@dataclass(frozen=True, slots=True)
class Said:
    at: int
    container: str
    text: str


def containers_of(pod: Mapping[str, Any]) -> dict[str, int]:
    """Container -> how often it was started again, of all that ever ran, in the order they run. PURE."""
    status = pod.get("status", {})
    found = {}
    for item in (
        *status.get("initContainerStatuses", ()),
        *status.get("containerStatuses", ()),
    ):
        state = {**item.get("lastState", {}), **item.get("state", {})}
        if item.get("restartCount", 0) or "running" in state or "terminated" in state:
            found[item["name"]] = item.get("restartCount", 0)
    return found


def main_container(pod: Mapping[str, Any]) -> str:
    """Whose runs are the replica's: of a pod that somebody else made, the first. PURE."""
    names = [item["name"] for item in pod.get("spec", {}).get("containers", ())]
    return MODEL if MODEL in names or not names else names[0]


def read(
    kube: Logs,
    namespace: str,
    pod: Mapping[str, Any],
    *,
    cursor: str = "",
    limit: int = 1000,
    previous: bool = False,
) -> LogPage:
    """At most `limit` lines after the cursor; `previous`: of the run before, from its beginning.

    `pod` is the object as it was seen last. Raises InvalidInput for a cursor not made here, NotFound when the
    pod is gone, Unavailable.
    """
    name = pod["metadata"]["name"]
    main = main_container(pod)
    if previous:
        said, _ = _some(kube, namespace, name, main, Mark(), limit, previous=True)
        return LogPage(_lines(name, said), cursor, run=containers_of(pod).get(main, 0))
    marks = _parse(cursor)
    found = containers_of(pod)
    again = [
        container
        for container, restarts in found.items()
        if restarts > marks.get(container, Mark()).restarts
    ]
    for container in again:
        # of two runs that were missed the older one is gone
        mark = marks.get(container, Mark())
        said, more = _some(kube, namespace, name, container, mark, limit, previous=True)
        mark = mark.after(said)
        marks[container] = mark if more else Mark(found[container])
        if said:
            run = found[container] if container == main else found.get(main, 0) + 1
            return LogPage(_lines(name, said), _text(marks), run=run)
    read_now = {}
    for container, restarts in found.items():
        mark = marks.setdefault(container, Mark(restarts))
        read_now[container], _ = _some(kube, namespace, name, container, mark, limit)
    merged = list(heapq.merge(*read_now.values(), key=lambda item: item.at))[:limit]
    for container in found:
        own = [item for item in merged if item.container == container]
        marks[container] = marks[container].after(own)
    return LogPage(_lines(name, merged), _text(marks), run=found.get(main, 0) + 1)


def _some(
    kube: Logs,
    namespace: str,
    pod: str,
    container: str,
    mark: Mark,
    limit: int,
    *,
    previous: bool = False,
) -> tuple[list[Said], bool]:
    """The next lines of one container's run, and whether there may be more."""
    said: list[Said] = []
    read_before = Counter(mark.last)
    floor = mark.floor
    since = _since(floor) if floor else ""
    lines = kube.log(namespace, pod, container, previous=previous, since=since)
    try:
        for line in lines:
            item = parsed(line, container)
            if item is None or item.at < floor:
                continue
            if read_before[item.at]:
                read_before[item.at] -= 1
                continue
            if len(said) == limit:
                return said, True
            said.append(item)
    except Conflict:
        pass  # it has not begun, or there is no run before
    except NotFound:
        if not previous:
            raise
    finally:
        close = getattr(lines, "close", None)
        if close is not None:
            close()
    return said, False


def parsed(line: str, container: str) -> Said | None:
    """A line of the server's, "<time> <text>"; None for one without a time, which is no container's. PURE."""
    found = _STAMP.fullmatch(line.rstrip("\r\n"))
    if found is None:
        return None
    whole = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    nanos = int((found[2] or "0").ljust(9, "0"))
    return Said(int(whole.timestamp()) * 10**9 + nanos, container, found[4])


def _since(at: int) -> str:
    return datetime.fromtimestamp(at // 10**9, UTC).isoformat().replace("+00:00", "Z")


def _lines(pod: str, said: Sequence[Said]) -> tuple[LogLine, ...]:
    return tuple(LogLine(round(item.at / 1e9, 6), pod, "stdout", item.text) for item in said)


def _text(marks: Mapping[str, Mark]) -> str:
    return json.dumps(
        {name: [mark.restarts, *mark.last] for name, mark in sorted(marks.items())},
        separators=(",", ":"),
    )


def _parse(cursor: str) -> dict[str, Mark]:
    if not cursor:
        return {}
    try:
        rows = json.loads(cursor)
        return {
            str(name): Mark(int(restarts), tuple(int(at) for at in last))
            for name, (restarts, *last) in rows.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(
            "The log cursor is not one that was given out.", field="cursor"
        ) from error
