"""HAProxy's answers as values.

PURE. Text in, frozen values out; columns are found by name. An answer that is not what was asked for
raises `Unreadable`: it never becomes zero, "idle" or an empty list. Counters only ever grow within one
worker; what a second added is `delta`, and a counter that shrank (another worker answers now) makes
the second unknown.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import itemgetter
from typing import Any

from router.haproxy import names
from router.samples import BUCKETS

# By command, inherited, resolving. Not 0x04: that only tells that the text said `disabled`, and stays
# when the server is made ready.
_MAINTENANCE = 0x01 | 0x02 | 0x20 | 0x40
_DRAIN = 0x08 | 0x10
_STOPPED = 0  # srv_op_state; the others take or finish requests
_COUNTER = re.compile(r" gpc(\d+)=(\d+)")


class Unreadable(Exception):
    """An answer of HAProxy is not what was asked for."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Which worker answered, and how it fares. `shape` is the text it was started with, see
    `render.shape`; `idle` is percent of its threads' time."""

    pid: int
    shape: str
    stopping: bool
    version: tuple[int, int] = (0, 0)
    threads: int = 1
    idle: float = 100.0


@dataclass(frozen=True, slots=True)
class BackendFigures:
    """One backend now (`busy`, `queued`: requests; `up`: replicas that may get one) and since its
    worker began (the others)."""

    busy: int
    queued: int
    arrivals: int
    ok: int
    up: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """One slot as HAProxy has it. `address` is "host:port" or "unix" (whoever knows the slot's link makes
    that "unix:/path"), `used` the requests inside."""

    backend: str
    name: str
    address: str
    maintenance: bool
    draining: bool
    up: bool
    used: int


@dataclass(frozen=True, slots=True)
class Counters:
    """What one backend has counted since its worker began; also what one second added."""

    arrivals: int = 0
    ok: int = 0
    client_errors: int = 0
    rejected: int = 0
    unready: int = 0  # of `rejected`: no replica was ready
    timeouts: int = 0
    failures: int = 0
    # Of 2xx answers: total time in the router, wait in its queue, time at the replica.
    histogram: tuple[int, ...] = (0,) * BUCKETS
    queue_histogram: tuple[int, ...] = (0,) * BUCKETS
    service_histogram: tuple[int, ...] = (0,) * BUCKETS


HISTOGRAMS = ("histogram", "queue_histogram", "service_histogram")
PLAIN = tuple(item.name for item in fields(Counters) if item.name not in HISTOGRAMS)
NOTHING = Counters()  # `delta` gives this very object where nothing was counted
_NO_TIMES = (0,) * BUCKETS


@dataclass(frozen=True, slots=True)
class Processes:
    """The master's family: `old` workers still finish what they had when a reload came."""

    master: int
    worker: int | None
    old: tuple[int, ...]


def parse_worker(text: str) -> Worker:
    """`show info`"""
    pairs = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    try:
        return Worker(
            pid=int(pairs["Pid"]),
            shape=pairs.get("description", "").removeprefix("slipway-"),
            stopping=pairs.get("Stopping", "0") != "0",
            version=_release(pairs["Version"]),
            threads=int(pairs["Nbthread"]),
            idle=float(pairs["Idle_pct"]),
        )
    except (KeyError, ValueError) as error:
        raise Unreadable(f"show info answered {text[:200]!r}") from error


def _release(text: str) -> tuple[int, int]:
    """(2, 8) of "2.8.25-0ubuntu1". Raises ValueError."""
    major, minor, *_ = re.split(r"[.\-+~ ]", text)
    return int(major), int(minor)


_BACKEND_COLUMNS = ("pxname", "qcur", "scur", "stot", "hrsp_2xx", "hrsp_3xx", "act")


def parse_backends(text: str) -> dict[str, BackendFigures]:
    """`show stat -1 2 -1`: one line a backend. A thousand of them each second, hence by position.

    A request has arrived when it has its backend (`stot`); `req_tot` counts it only as it ends.
    """
    lines = text.strip().splitlines()
    if not lines or not lines[0].startswith("# pxname,"):
        raise Unreadable(f"show stat answered {text[:200]!r}")
    names = lines[0][2:].split(",")
    found = {}
    try:
        name, qcur, scur, stot, ok, redirect, act = map(names.index, _BACKEND_COLUMNS)
        cells = max(name, qcur, scur, stot, ok, redirect, act) + 1
        for line in lines[1:]:
            row = line.split(",", cells)
            queued = int(row[qcur])
            found[row[name]] = BackendFigures(
                max(int(row[scur]) - queued, 0),
                queued,
                int(row[stot]),
                int(row[ok]) + int(row[redirect]),
                int(row[act]),
            )
    except (IndexError, ValueError) as error:
        raise Unreadable(f"show stat lacks figures of a backend: {error}") from error
    return found


def parse_frontend(text: str) -> tuple[int, int]:
    """`show stat scoring 1 -1`: connections of clients now, and requests since the worker began."""
    for row in _table(text, "# pxname", ","):
        try:
            return int(row["scur"]), int(row["req_tot"])
        except (KeyError, ValueError) as error:
            raise Unreadable(f"show stat lacks figures of the frontend: {error}") from error
    raise Unreadable("show stat does not list the frontend")


def parse_doors(text: str) -> dict[str, int]:
    """`show stat -1 1 -1`: the connections that each frontend has now."""
    try:
        return {row["pxname"]: int(row["scur"]) for row in _table(text, "# pxname", ",")}
    except (KeyError, ValueError) as error:
        raise Unreadable(f"show stat lacks connections of a frontend: {error}") from error


def parse_limits(text: str) -> dict[tuple[str, str], int]:
    """`show stat -1 4 -1`: (backend, slot) -> requests it takes at a time."""
    rows = _table(text, "# pxname", ",")
    return {(row["pxname"], row["svname"]): int(row["slim"]) for row in rows if row["slim"]}


_STATE_COLUMNS = ("be_name", "srv_name", "srv_addr", "srv_port", "srv_op_state", "srv_admin_state")
_USED_COLUMNS = ("bkname/svname", "addr", "port", "used_cur")


def parse_servers(
    states: str, connections: str, unix: Callable[[str, str], str] | None = None
) -> dict[tuple[str, str], Server]:
    """`show servers state` and `show servers conn` of the same backends, put together.

    `unix` says where the link of a backend's slot leads; HAProxy itself shows only "unix".
    """
    used = parse_used(connections)
    first, _, rest = states.partition("\n")
    if first.strip() != "1":
        raise Unreadable(f"show servers state answered {states[:200]!r}")
    found = {}
    for backend, name, host, port, state, told in _columns(rest, "# be_id", _STATE_COLUMNS):
        key = (backend, name)
        if key not in used:
            raise Unreadable(f"show servers conn does not list {backend}/{name}")
        admin, address = int(told), _address(host, port)
        if unix is not None and address == "unix":
            address = unix(backend, name)
        found[key] = Server(
            backend,
            name,
            address,
            bool(admin & _MAINTENANCE),
            bool(admin & _DRAIN),
            int(state) != _STOPPED,
            used[key][1],
        )
    return found


def together(server: Server, old: Server) -> Server:
    """A slot as two workers have it: takes requests when it does so in one of them."""
    return replace(
        server,
        used=server.used + old.used,
        maintenance=server.maintenance and old.maintenance,
        draining=(server.draining or server.maintenance) and (old.draining or old.maintenance),
    )


def parse_used(text: str) -> dict[tuple[str, str], tuple[str, int]]:
    """`show servers conn`: (backend, slot) -> (address, requests inside)."""
    found = {}
    for slot, host, port, inside in _columns(text, "# bkname/svname", _USED_COLUMNS):
        backend, _, name = slot.partition("/")
        found[backend, name] = (_address(host, port), int(inside))
    return found


def _address(host: str, port: str) -> str:
    """HAProxy shows no path of a unix socket: "unix", and where its link leads is for others to say."""
    if host == "-":
        return "unix"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


Lines = dict[str, tuple[str, tuple[int, ...]]]


def parse_counters(text: str, known: Lines | None = None) -> dict[str, tuple[int, ...]]:
    """`show table counters`: backend -> its counters. One that never counted is not listed.

    `known` keeps each backend's last line with its values from one call to the next: most backends of
    a large cluster counted nothing since, and the same tuple comes back for the same line.
    """
    lines = text.strip().splitlines()
    if not lines or not lines[0].startswith("# table: counters"):
        raise Unreadable(f"show table answered {text[:200]!r}")
    found = {}
    for line in lines[1:]:
        _, _, rest = line.partition(" key=")
        name, _, cells = rest.partition(" ")
        if known is not None and (last := known.get(name)) is not None and last[0] == cells:
            found[name] = last[1]
            continue
        values = tuple(int(value) for _, value in _COUNTER.findall(" " + cells))
        if len(values) != names.COUNTERS:
            raise Unreadable(f"a line of the counters is cut: {line[:100]!r}")
        found[name] = values
        if known is not None:
            known[name] = (cells, values)
    return found


def parse_map(text: str) -> dict[str, str]:
    """`show map`: key -> value. The first line of a key is the one HAProxy goes by."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        parts = line.split(" ", 2)
        if len(parts) != 3 or not parts[0].startswith("0x"):
            raise Unreadable(f"show map answered {text[:200]!r}")
        found.setdefault(parts[1], parts[2])
    return found


def parse_processes(text: str) -> Processes:
    """`show proc` of the master."""
    master, section, current, old = None, "", None, []
    for line in text.splitlines():
        if line.startswith("# "):
            section = line[2:].strip()
        words = line.split()
        if len(words) >= 2 and words[1] == "master":
            master = int(words[0])
        elif len(words) >= 2 and words[1] == "worker":
            if section == "workers":
                current = int(words[0])
            elif section == "old workers":
                old.append(int(words[0]))
    if master is None:
        raise Unreadable(f"show proc answered {text[:200]!r}")
    return Processes(master, current, tuple(old))


# Of one backend, in all, in the queue and at a replica: how many 2xx answers in each bucket.
Times = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def parse_times(answers: Sequence[str]) -> dict[str, Times]:
    """`show table` of each of `names.LATENCY_TABLES`: backend -> its three histograms.

    An answer that did not wait stands in the first table only: it took as long at its replica as in all.
    """
    tables = [
        _latencies(text, table) for text, table in zip(answers, names.LATENCY_TABLES, strict=True)
    ]
    direct, total, queue, service = tables
    found = {}
    for backend in set().union(*tables):
        at_once = direct.get(backend, _NO_TIMES)
        unwaited = (sum(at_once), *_NO_TIMES[1:])
        found[backend] = (
            tuple(map(int.__add__, at_once, total.get(backend, _NO_TIMES))),
            tuple(map(int.__add__, unwaited, queue.get(backend, _NO_TIMES))),
            tuple(map(int.__add__, at_once, service.get(backend, _NO_TIMES))),
        )
    return found


def _latencies(text: str, table: str) -> dict[str, list[int]]:
    """One table: backend -> answers by bucket."""
    lines = text.strip().splitlines()
    if not lines or not lines[0].startswith(f"# table: {table},"):
        raise Unreadable(f"show table {table} answered {text[:200]!r}")
    found: dict[str, list[int]] = {}
    try:
        for line in lines[1:]:
            _, _, rest = line.partition(" key=")
            key, _, cells = rest.partition(" ")
            bucket, _, backend = key.partition(".")
            counts = found.get(backend) or found.setdefault(backend, list(_NO_TIMES))
            counts[int(bucket)] = int(cells.rpartition("=")[2])
    except (IndexError, ValueError) as error:
        raise Unreadable(f"a line of the table {table} makes no sense: {line[:100]!r}") from error
    return found


def counters(
    figures: BackendFigures, counted: Sequence[int] | None, times: Times | None
) -> Counters:
    """One backend's counters from all sources; None where a table has no line for it yet."""
    values = counted or (0,) * names.COUNTERS
    total, queue, service = times or (_NO_TIMES,) * 3
    return Counters(
        arrivals=figures.arrivals,
        ok=figures.ok,
        client_errors=values[names.CLIENT_ERRORS],
        rejected=values[names.REJECTED],
        unready=values[names.UNREADY],
        timeouts=values[names.TIMEOUTS],
        failures=values[names.FAILURES],
        histogram=total,
        queue_histogram=queue,
        service_histogram=service,
    )


def delta(before: Counters, after: Counters) -> Counters | None:
    """What was added in between; None when any counter shrank: these are another worker's."""
    if before is after or before == after:
        return NOTHING
    change: dict[str, Any] = {}
    for name in PLAIN:
        change[name] = added = getattr(after, name) - getattr(before, name)
        if added < 0:
            return None
    for name in HISTOGRAMS:
        older, newer = getattr(before, name), getattr(after, name)
        counts = tuple(map(int.__sub__, newer, older))
        if min(counts) < 0:
            return None
        change[name] = counts
    return Counters(**change)


def added(one: Counters, other: Counters) -> Counters:
    """Both together."""
    if other is NOTHING or other == NOTHING:
        return one
    total: dict[str, Any] = {}
    for name in PLAIN:
        total[name] = getattr(one, name) + getattr(other, name)
    for name in HISTOGRAMS:
        total[name] = tuple(map(int.__add__, getattr(one, name), getattr(other, name)))
    return Counters(**total)


def _columns(text: str, header: str, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The cells of these columns, line by line: hundreds of lines in every turn, hence by position."""
    lines = text.strip().splitlines()
    if not lines or not lines[0].startswith(header):
        raise Unreadable(f"an answer with the columns {header!r} was expected: {text[:200]!r}")
    names = lines[0][2:].split()
    try:
        cells = itemgetter(*map(names.index, columns))
        yield from [cells(line.split()) for line in lines[1:] if line.strip()]
    except (IndexError, ValueError) as error:
        raise Unreadable(f"an answer lacks a column of {columns}: {error}") from error


def _table(text: str, header: str, separator: str | None) -> Iterator[Mapping[str, str]]:
    lines = text.strip().splitlines()
    if not lines or not lines[0].startswith(header):
        raise Unreadable(f"an answer with the columns {header!r} was expected: {text[:200]!r}")
    names = lines[0][2:].split(separator)
    for line in lines[1:]:
        if line.strip():
            yield dict(zip(names, line.split(separator), strict=False))
