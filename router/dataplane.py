"""One cluster's HAProxy, kept at what the cluster says: started or adopted, grown, read and told.

The thin layer between `router.haproxy`'s pure modules and its socket and process. A call that fails
half-way is made good by the next cycle, which compares with what HAProxy shows and says the rest.
It never decides how many replicas there should be and never talks to the cluster.
"""

import logging
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.errors import PermanentError, SlipwayError, Unavailable
from deployments.types import ServiceSpec
from router.haproxy import pool, render, slots, stats
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy
from router.haproxy.render import BackendShape, Placed, RouterConfig
from router.haproxy.slots import Slot, State, Wanted
from router.haproxy.stats import BackendFigures, Counters, Server, Worker

log = logging.getLogger(__name__)

_READ_EVERY = 0.9  # seconds between readings of a backend in which nothing is pending
_MAPS_EVERY = 30.0  # seconds between looks whether the maps are still what we think
_SAY_AGAIN = 60.0  # the same refusal is said once a minute
_RELOAD_AGAIN = 30.0  # seconds until a refused configuration is tried again


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the configuration a person chooses."""

    bind: str
    port: int
    backends: int = 32
    slots: int = 32


@dataclass(frozen=True, slots=True)
class Reading:
    """What HAProxy said. `at` is epoch seconds, `begun` monotonic, both from before it was asked."""

    at: float
    begun: float
    worker: Worker
    figures: Mapping[Key, BackendFigures]
    servers: Mapping[str, Mapping[str, Server]]  # of the backends read this time
    counters: Mapping[Key, Counters] | None = None


class DataPlane:
    """Lives on the event loop; one cycle at a time."""

    def __init__(
        self,
        haproxy: HAProxy,
        settings: Settings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.haproxy = haproxy
        self.settings = settings
        self.backends: dict[Key, str] = {}
        self.shapes: tuple[BackendShape, ...] = ()
        self.slots: dict[str, tuple[Slot, ...]] = {}
        self.servers: dict[str, Mapping[str, Server]] = {}
        self.old_workers: tuple[int, ...] = ()
        self.reloads = 0
        self.told = 0  # commands that changed something
        self.unplaced: tuple[Wanted, ...] = ()
        self._maps: dict[str, dict[str, str]] | None = None
        self._maps_at = 0.0
        self._read_at: dict[str, float] = {}
        self._refused, self._refused_at = "", 0.0
        self._ready = False
        self._outdated = False  # HAProxy runs with another text than these shapes make
        self._not_before = 0.0  # of the next try at a configuration that was refused
        self._monotonic = monotonic
        self._clock = clock

    # ---- what the loop keeps between its runs -------------------------------------------------

    def remember(
        self, backends: Mapping[str, str], shapes: Sequence[BackendShape], kept: Sequence[Slot]
    ) -> None:
        """Take up what an earlier run knew; what HAProxy itself says goes before it."""
        self.backends = pool.recovered(backends)
        self.shapes = tuple(shapes)
        self.slots = {
            name: tuple(slot for slot in kept if slot.backend == name)
            for name in {slot.backend for slot in kept}
        }

    def held(self) -> tuple[Slot, ...]:
        """The slots that are not free."""
        return tuple(
            slot for row in self.slots.values() for slot in row if slot.state is not State.FREE
        )

    # ---- one cycle: prepare, read, apply ------------------------------------------------------

    async def prepare(
        self, services: Sequence[ServiceSpec], wanted: Mapping[Key, Sequence[Wanted]]
    ) -> None:
        """Have HAProxy running, with a backend for every version."""
        if self.haproxy.running() is None and not await self.haproxy.recover():
            await self._start(services, wanted)
        elif not self._ready:
            await self._adopt(wanted)
        asked = self._assign(services, wanted)
        if asked.shapes != self.shapes or self._outdated:
            await self._reload(asked)
        self.backends = {
            key: name for key, name in asked.backends.items() if name in self._known_names()
        }

    async def read(
        self, wanted: Mapping[Key, Sequence[Wanted]] | None, *, counters: bool
    ) -> Reading:
        """Figures of all versions; slots of those backends where something is due."""
        begun, at = self._monotonic(), self._clock()
        if not self._ready:
            raise Unavailable("HAProxy is adopted only once the cluster was seen.")
        keys = {name: key for key, name in self.backends.items()}
        due = [
            name
            for name, row in self.slots.items()
            if self._due(row, keys.get(name), wanted, begun, self._read_at.get(name, 0.0))
        ]
        commands = ["show info", "show stat -1 2 -1"]
        commands += ["show table counters"] if counters else []
        for name in due:
            commands += [f"show servers state {name}", f"show servers conn {name}"]
        try:
            answers = iter(await self.haproxy.runtime.ask(commands))
            worker = stats.parse_worker(next(answers))
            figures = stats.parse_backends(next(answers))
            table = stats.parse_counters(next(answers)) if counters else None
            servers = {
                name: _by_name(stats.parse_servers(next(answers), next(answers))) for name in due
            }
            await self._with_old_workers(servers)
        except stats.Unreadable as error:
            raise SlipwayError(f"HAProxy's answer makes no sense: {error}") from error
        for name in due:
            self._read_at[name] = begun
            self.servers[name] = servers[name]
        here = {key: name for key, name in self.backends.items() if name in figures}
        return Reading(
            at=at,
            begun=begun,
            worker=worker,
            figures={key: figures[name] for key, name in here.items()},
            servers=servers,
            counters=None
            if table is None
            else {
                key: stats.counters(figures[name], table.get(name)) for key, name in here.items()
            },
        )

    async def apply(
        self,
        reading: Reading,
        services: Sequence[ServiceSpec],
        wanted: Mapping[Key, Sequence[Wanted]],
        retry_after: Mapping[Key, int],
    ) -> None:
        """Send what brings maps and slots to what is wanted; nothing when they are."""
        commands: list[str] = []
        now = self._monotonic()
        if self._maps is None or now - self._maps_at > _MAPS_EVERY:
            await self._read_maps()
        routed = [spec for spec in services if self._has_backends(spec)]
        want_maps = pool.maps(routed, self.backends, retry_after)
        commands += pool.map_commands(self._maps or {}, want_maps)
        by_backend = {name: wanted.get(key, ()) for key, name in self.backends.items()}
        unplaced: list[Wanted] = []
        for name, seen in reading.servers.items():
            step = slots.plan(
                self.slots[name], by_backend.get(name, ()), seen, reading.begun, self._monotonic()
            )
            self.slots[name] = step.slots
            unplaced += step.unplaced
            commands += step.commands
        self.unplaced = tuple(unplaced)
        if not commands:
            return
        self.told += len(commands)
        await self._tell_old_workers(commands)
        self._maps = None  # until all of it went through
        try:
            await self.haproxy.runtime.tell(commands)
            self._maps = want_maps
        except PermanentError as error:
            if error.message != self._refused or now - self._refused_at > _SAY_AGAIN:
                self._refused, self._refused_at = error.message, now
                log.error("%s The other commands were carried out.", error.message)

    # ---- starting, adopting, growing ----------------------------------------------------------

    def _config(self, shapes: Sequence[BackendShape]) -> RouterConfig:
        paths = self.haproxy.paths
        held = sum(shape.slots for shape in shapes)  # each reserves a descriptor for its check
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        connections = 8000
        if descriptors != resource.RLIM_INFINITY:
            connections = max(min(connections, (descriptors - held - 500) // 2), 100)
        return RouterConfig(
            bind=self.settings.bind,
            port=self.settings.port,
            stats_socket=str(paths.stats_socket),
            body_socket=str(paths.body_socket),
            backends=tuple(shapes),
            connections=connections,
        )

    def _known_names(self) -> set[str]:
        return {render.backend_name(index) for index in range(len(self.shapes))}

    def _has_backends(self, spec: ServiceSpec) -> bool:
        return all(Key(spec.name, version.name) in self.backends for version in spec.versions)

    def _assign(
        self, services: Sequence[ServiceSpec], wanted: Mapping[Key, Sequence[Wanted]]
    ) -> pool.Assignment:
        counts = {key: len(items) for key, items in wanted.items()}
        for key, name in self.backends.items():
            taken = sum(slot.state is not State.FREE for slot in self.slots.get(name, ()))
            counts[key] = max(counts.get(key, 0), taken)
        occupied = {slot.backend for slot in self.held()}
        shapes = self.shapes or (BackendShape(slots=self.settings.slots),) * self.settings.backends
        return pool.assign(
            self.backends, shapes, pool.needs(services, counts), occupied, self.settings.slots
        )

    async def _start(
        self, services: Sequence[ServiceSpec], wanted: Mapping[Key, Sequence[Wanted]]
    ) -> None:
        """Nothing runs: start it with everything that is known standing in it already."""
        self._ready = False
        self.slots = {}
        asked = self._assign(services, wanted)
        now = self._monotonic()
        fresh = _empty_slots(asked.shapes)
        for key, items in wanted.items():
            row = list(fresh[asked.backends[key]]) if key in asked.backends else []
            for index, item in enumerate(items[: len(row)]):
                row[index] = replace(
                    row[index],
                    state=State.JOINED,
                    replica=item.replica,
                    address=item.address,
                    concurrency=item.concurrency,
                    since=now,
                )
            if row:
                fresh[asked.backends[key]] = tuple(row)
        maps = pool.maps(services, asked.backends, {})
        await self._install(asked.shapes, fresh, maps)
        await self.haproxy.start()
        log.info("started HAProxy on %s:%d", self.settings.bind, self.settings.port)
        self.backends, self.shapes, self.slots = asked.backends, asked.shapes, fresh
        self._ready, self._outdated, self.old_workers = True, False, ()

    async def _install(
        self,
        shapes: Sequence[BackendShape],
        rows: Mapping[str, Sequence[Slot]],
        maps: Mapping[str, Mapping[str, str]],
    ) -> str:
        config = self._config(shapes)
        placed = {
            name: {
                slot.name: Placed(slot.address, slot.concurrency)
                for slot in row
                if slot.state is State.JOINED
            }
            for name, row in rows.items()
        }
        files = {name: pool.map_text(entries) for name, entries in maps.items()}
        files["router.lua"] = render.render_lua(config)
        await self.haproxy.install(render.render(config, placed), files)
        self._maps = {name: dict(entries) for name, entries in maps.items()}
        self._maps_at = self._monotonic()
        return render.shape(config)

    async def _reload(self, asked: pool.Assignment) -> None:
        now = self._monotonic()
        if now < self._not_before:
            return
        rows = _empty_slots(asked.shapes)
        for name, row in self.slots.items():
            kept = {slot.name: slot for slot in row}
            rows[name] = tuple(kept.get(slot.name, slot) for slot in rows[name])
        if self._maps is None:
            await self._read_maps()
        log.warning("reloading HAProxy: %s", "; ".join(asked.why) or "its configuration changed")
        try:
            shape = await self._install(asked.shapes, rows, self._maps or {})
            await self.haproxy.reload(shape)
        except PermanentError as error:
            self._not_before = now + _RELOAD_AGAIN
            log.error(
                "HAProxy goes on with its old configuration: %s %s", error.message, error.evidence
            )
            return
        self.reloads += 1
        self.shapes, self.slots, self._outdated = asked.shapes, rows, False
        self.old_workers = stats.parse_processes(await self.haproxy.master.ask("show proc")).old

    async def _adopt(self, wanted: Mapping[Key, Sequence[Wanted]]) -> None:
        """HAProxy runs already: learn from itself what stands in it."""
        ask = self.haproxy.runtime.ask
        try:
            info, limits, states, used = await ask(
                ["show info", "show stat -1 4 -1", "show servers state", "show servers conn"]
            )
            worker = stats.parse_worker(info)
            at_a_time = stats.parse_limits(limits)
            servers = {
                key: server
                for key, server in stats.parse_servers(states, used).items()
                if key[0].startswith("be_")
            }
            self.old_workers = stats.parse_processes(await self.haproxy.master.ask("show proc")).old
        except stats.Unreadable as error:
            raise SlipwayError(f"HAProxy's answer makes no sense: {error}") from error
        maps = await self._read_maps()
        self.backends = pool.recovered(maps[render.VERSIONS_MAP])
        names = sorted({backend for backend, _ in servers})
        self._outdated = not self.shapes or render.shape(self._config(self.shapes)) != worker.shape
        if self._outdated:
            waits = dict(enumerate(shape.queue_wait_ms for shape in self.shapes))
            self.shapes = tuple(
                BackendShape(waits.get(index, 500), sum(backend == name for backend, _ in servers))
                for index, name in enumerate(names)
            )
        keys = {name: key for key, name in self.backends.items()}
        now = self._monotonic()
        self.slots = {
            name: slots.adopt(
                [server for (backend, _), server in servers.items() if backend == name],
                at_a_time,
                self.slots.get(name, ()),
                wanted.get(keys[name], ()) if name in keys else (),
                now,
            )
            for name in names
        }
        self._read_at.clear()
        self._ready = True
        log.info(
            "adopted HAProxy worker %d with %d replicas of %d versions",
            worker.pid,
            len(self.held()),
            len(self.backends),
        )

    async def _read_maps(self) -> dict[str, dict[str, str]]:
        answers = await self.haproxy.runtime.ask([f"show map {name}" for name in render.MAPS])
        try:
            found = {
                name: stats.parse_map(answer)
                for name, answer in zip(render.MAPS, answers, strict=True)
            }
        except stats.Unreadable as error:
            raise SlipwayError(f"HAProxy's answer makes no sense: {error}") from error
        self._maps, self._maps_at = found, self._monotonic()
        return found

    # ---- readings -----------------------------------------------------------------------------

    def _due(
        self,
        row: Sequence[Slot],
        key: Key | None,
        wanted: Mapping[Key, Sequence[Wanted]] | None,
        now: float,
        read_at: float,
    ) -> bool:
        """Whether a backend's slots are to be read now: something is pending, or it was long ago."""
        if key is None and all(slot.state is State.FREE for slot in row):
            return False
        if now - read_at >= _READ_EVERY or any(slot.since >= read_at for slot in row):
            return True
        if any(slot.state in (State.DRAINING, State.SETTLING) for slot in row):
            return True
        if wanted is None:
            return False
        joined = {(slot.replica, slot.address) for slot in row if slot.state is State.JOINED}
        items = wanted.get(key, ()) if key is not None else ()
        return joined != {(item.replica, item.address) for item in items}

    async def _with_old_workers(self, servers: dict[str, dict[str, Server]]) -> None:
        """After a reload the old worker still has requests inside replicas: they count too."""
        if not self.old_workers:
            return
        master = self.haproxy.master
        self.old_workers = stats.parse_processes(await master.ask("show proc")).old
        inside: dict[str, int] = {}
        for pid in self.old_workers:
            answer = await master.ask(f"@!{pid} show servers conn")
            if not answer.strip():
                continue  # it ended just now
            for address, used in stats.parse_used(answer).values():
                inside[address] = inside.get(address, 0) + used
        for name, row in servers.items():
            own = {slot.name: slot.address for slot in self.slots[name]}
            servers[name] = {
                slot: replace(server, used=server.used + inside.get(own.get(slot, ""), 0))
                for slot, server in row.items()
            }

    async def _tell_old_workers(self, commands: Sequence[str]) -> None:
        """An old worker still takes one request from each of its idle clients: it has to know the
        same routes, keys and replicas. A backend that it never had it cannot get: a new service
        on one is a 503 there, once for each such client."""
        for pid in self.old_workers:
            for start in range(0, len(commands), 100):
                lines = (f"@!{pid} {command}" for command in commands[start : start + 100])
                await self.haproxy.master.ask(";".join(lines))


def _by_name(servers: Mapping[tuple[str, str], Server]) -> dict[str, Server]:
    return {name: server for (_, name), server in servers.items()}


def _empty_slots(shapes: Sequence[BackendShape]) -> dict[str, tuple[Slot, ...]]:
    return {
        render.backend_name(index): tuple(
            Slot(render.backend_name(index), render.server_name(number))
            for number in range(shape.slots)
        )
        for index, shape in enumerate(shapes)
    }
