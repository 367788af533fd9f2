"""One reading of HAProxy: figures of versions, slots where something is due, counters once a second.

Asks and parses, and changes nothing at HAProxy. `router.look` decides what is worth asking in which turn;
what was not asked stays as it was read last. After a reload old workers still finish what they had: they
count too, and are asked through the master one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.errors import SlipwayError, Unavailable
from router.haproxy import names, stats
from router.haproxy.links import SlotLinks
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy
from router.haproxy.slots import Wanted
from router.haproxy.stats import BackendFigures, Counters, Server, Worker
from router.known import Known
from router.look import Look

_TABLES = tuple(f"show table {table}" for table in ("counters", *names.LATENCY_TABLES))


@dataclass(frozen=True, slots=True)
class Reading:
    """What HAProxy said. `at` is epoch seconds, `begun` monotonic, both from before it was asked.

    `figures` add up all workers, where an old one still finishes requests; `counted` tells them apart.
    """

    at: float
    begun: float
    worker: Worker
    figures: Mapping[Key, BackendFigures]
    servers: Mapping[str, Mapping[str, Server]]  # of the backends read this time
    counted: Mapping[int, Mapping[str, Counters]] | None = None
    gates: Mapping[str, str] | None = None  # None: not read this time


class Reader:
    """Reads one HAProxy, and notes in `known` what it saw of servers and old workers."""

    def __init__(
        self,
        haproxy: HAProxy,
        known: Known,
        links: SlotLinks,
        monotonic: Callable[[], float],
        clock: Callable[[], float],
        *,
        gated: bool = False,
    ) -> None:
        self.gated = gated
        self.haproxy = haproxy
        self.known = known
        self.links = links
        self._monotonic = monotonic
        self._clock = clock
        self._look = Look()
        self._lines: stats.Lines = {}
        self._counted: dict[str, tuple[object, Counters]] = {}

    def forget(self) -> None:
        """Another HAProxy, or another of its workers, is there: look at all of it."""
        self._look = Look()

    async def read(
        self, wanted: Mapping[Key, Sequence[Wanted]] | None, *, counters: bool
    ) -> Reading:
        """Figures of all versions (between two seconds of a large cluster: of those in use); slots of
        those backends where something is due."""
        known, begun, at = self.known, self._monotonic(), self._clock()
        if not known.ready:
            raise Unavailable("HAProxy is adopted only once the cluster was seen.")
        due = self._look.due(known.slots, known.servers, known.backends, wanted, begun)
        asked = self._look.figures(list(known.backends.values()), whole=counters)
        commands = ["show info", *asked]
        commands += _TABLES if counters else ()
        gated = counters and self.gated
        commands += [f"show map {names.GATES_MAP}"] if gated else []
        for name in due:
            commands += [f"show servers state {name}", f"show servers conn {name}"]
        try:
            answers = iter(await self.haproxy.runtime.ask(commands))
            worker = stats.parse_worker(next(answers))
            figures: dict[str, BackendFigures] = {}
            for _ in asked:
                figures |= stats.parse_backends(next(answers))
            counted = None
            if counters:
                table = stats.parse_counters(next(answers), self._lines)
                times = stats.parse_times([next(answers) for _ in names.LATENCY_TABLES])
                counted = {worker.pid: self._counters(figures, table, times)}
            standing = stats.parse_map(next(answers)) if gated else None
            servers = {}
            for name in due:
                rows = stats.parse_servers(next(answers), next(answers), self.links.address)
                servers[name] = {slot: server for (_, slot), server in rows.items()}
            if not await self._with_old_workers(servers, figures, counted):
                counted = None
        except stats.Unreadable as error:
            raise SlipwayError(f"HAProxy's answer makes no sense: {error}") from error
        self._look.took(figures, due, begun, whole=counters)
        for name in due:
            if known.servers.get(name) != servers[name]:  # what stands stays the same object
                known.servers[name] = servers[name]
        return Reading(
            at=at,
            begun=begun,
            worker=worker,
            figures={key: figures[name] for key, name in known.backends.items() if name in figures},
            servers=servers,
            counted=counted,
            gates=standing,
        )

    def _counters(
        self,
        figures: Mapping[str, BackendFigures],
        table: Mapping[str, tuple[int, ...]],
        times: Mapping[str, stats.Times],
    ) -> dict[str, Counters]:
        """By backend. What did not change since the last time is the same object."""
        before, self._counted = self._counted, {}
        found = {}
        for name in self.known.backends.values():
            if (figure := figures.get(name)) is None:
                continue
            source = (figure.arrivals, figure.ok, table.get(name), times.get(name))
            last = before.get(name)
            if last is None or last[0] != source:
                last = (source, stats.counters(figure, *source[2:]))
            self._counted[name] = last
            found[name] = last[1]
        return found

    # ---- after a reload -----------------------------------------------------------------------

    async def _with_old_workers(
        self,
        servers: dict[str, dict[str, Server]],
        figures: dict[str, BackendFigures],
        counted: dict[int, dict[str, Counters]] | None,
    ) -> bool:
        """After a reload the old worker still has requests inside replicas: they count too.

        False when one that lives on did not answer: what it counted is not known now, and would be lost
        if the others' counts were taken for all there are.
        """
        known, whole = self.known, True
        if not known.old_workers:
            return whole
        master = self.haproxy.master
        known.old_workers = stats.parse_processes(await master.ask("show proc")).old
        inside: dict[str, int] = {}
        ended = set()
        for pid in known.old_workers:
            answer = await master.ask(f"@!{pid} show servers conn")
            told = await master.ask(f"@!{pid} show stat -1 2 -1")
            tables = (
                [await master.ask(f"@!{pid} {command}") for command in _TABLES]
                if counted is not None
                else []
            )
            if not answer.strip() or not told.strip() or not all(table.strip() for table in tables):
                ended.add(pid)
                lives = stats.parse_processes(await master.ask("show proc")).old
                whole = whole and pid not in lives
                continue  # it ended just now, most of the time
            for address, used in stats.parse_used(answer).values():
                inside[address] = inside.get(address, 0) + used
            own_figures = stats.parse_backends(told)
            for name, figure in own_figures.items():
                if (ours := figures.get(name)) is not None:
                    figures[name] = replace(
                        ours, busy=ours.busy + figure.busy, queued=ours.queued + figure.queued
                    )
            if counted is not None:
                lines, times = stats.parse_counters(tables[0]), stats.parse_times(tables[1:])
                counted[pid] = {
                    name: stats.counters(figure, lines.get(name), times.get(name))
                    for name, figure in own_figures.items()
                }
        if self.links.folder is not None:
            await self._with_old_slots(
                servers, [pid for pid in known.old_workers if pid not in ended]
            )
            return whole
        for name, row in servers.items():
            own = {slot.name: slot.address for slot in known.slots[name]}
            servers[name] = {
                slot: replace(server, used=server.used + inside.get(own.get(slot, ""), 0))
                for slot, server in row.items()
            }
        return whole

    async def _with_old_slots(
        self, servers: dict[str, dict[str, Server]], pids: Sequence[int]
    ) -> None:
        """Old workers follow the same links, so a slot is in maintenance when it is so in all of them."""
        for pid in pids:
            for name, row in servers.items():
                states = await self.haproxy.master.ask(f"@!{pid} show servers state {name}")
                used = await self.haproxy.master.ask(f"@!{pid} show servers conn {name}")
                if not states.startswith("1"):
                    continue  # it ended just now, or never had this backend
                olds = stats.parse_servers(states, used)
                for slot, server in row.items():
                    if (old := olds.get((name, slot))) is not None:
                        row[slot] = stats.together(server, old)
