"""One cluster's HAProxy, kept at what the cluster says: started or adopted, grown, read and told.

The thin layer between `router.haproxy`'s pure modules and its socket and process. A call that fails
half-way is made good by the next cycle, which compares with what HAProxy shows and says the rest.
It never decides how many replicas there should be and never talks to the cluster.
"""

import logging
import operator
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deployments.clusters.custom import Remark
from deployments.errors import PermanentError, SlipwayError, Unavailable
from deployments.types import CustomLines, RouterSpec, ServiceSpec
from router import setup
from router.following import Following
from router.haproxy import gates, names, pool, render, slots, stats
from router.haproxy.links import SlotLinks
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy
from router.haproxy.render import BackendShape, Placed, RouterConfig
from router.haproxy.slots import Slot, State, Wanted
from router.haproxy.stats import BackendFigures, Counters, Server, Worker
from router.look import Look
from router.token_maps import TokenMaps

log = logging.getLogger(__name__)

_MAPS_EVERY = 30.0  # seconds between looks whether the maps are still what we think
_CHECKS_A_SECOND = 4_000  # of all slots; beyond that each is checked less often than twice a second
_SAY_AGAIN = 60.0  # the same refusal is said once a minute
_RELOAD_AGAIN = 30.0  # seconds until a refused configuration is tried again


_TABLES = tuple(f"show table {table}" for table in ("counters", *names.LATENCY_TABLES))


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the configuration a person chooses."""

    bind: str
    port: int
    backends: int = 32
    slots: int = 32
    slot_folder: Path | None = None  # where slots have links; None: replicas have hosts and ports
    tls_port: int = 8443


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
        self.following = Following(haproxy.paths.folder / "applied.json", monotonic)
        self.token_maps = TokenMaps(haproxy, monotonic, clock)
        self.backends: dict[Key, str] = {}
        self.shapes: tuple[BackendShape, ...] = ()
        self.slots: dict[str, tuple[Slot, ...]] = {}
        self.servers: dict[str, Mapping[str, Server]] = {}
        self.old_workers: tuple[int, ...] = ()
        self.reloads = 0
        self.told = 0  # commands that changed something
        self.unplaced: tuple[Wanted, ...] = ()
        self.links = SlotLinks(settings.slot_folder)
        self._gates: dict[str, str] | None = None  # None: not read this time
        self._maps: dict[str, dict[str, str]] | None = None
        self._maps_at = 0.0
        self._look = Look()
        self._lines: stats.Lines = {}
        self._counted: dict[str, tuple[object, Counters]] = {}
        self._prepared: tuple[object, object] | None = None
        self._mapped: tuple[object, object, object] | None = None
        self._gone: dict[Key, float] = {}  # versions that are gone, and since when (monotonic)
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
        self,
        services: Sequence[ServiceSpec],
        wanted: Mapping[Key, Sequence[Wanted]],
        spec: RouterSpec | None = None,
    ) -> None:
        """Have HAProxy running as the cluster's settings say, with a backend for every version.

        `spec` None: the settings could not be read, and stay what they are.
        """
        self.following.ask(spec)
        # a revoked token is refused whatever becomes of the other settings
        self.token_maps.want(self.following.asked or self.following.spec, services)
        if self.haproxy.running() is None and not await self.haproxy.recover():
            await self._start(services, wanted)
        elif not self._ready:
            await self._adopt(wanted)
        elif (
            self._prepared is not None
            and all(map(operator.is_, self._prepared, (services, wanted)))
            and self.following.due() is None
        ):
            return  # the very same objects as last time, and nothing was left to do then
        asked = self._assign(services, wanted)
        await self._follow(asked)
        if asked.shapes != self.shapes or self._outdated:
            await self._grow(asked)
        known = self._known_names()
        backends = {key: name for key, name in asked.backends.items() if name in known}
        if backends != self.backends:
            self.backends = backends
        settled = (
            asked.shapes == self.shapes
            and not self._outdated
            and all(key in wanted for key in asked.backends)
        )
        self._prepared = (services, wanted) if settled else None

    async def read(
        self, wanted: Mapping[Key, Sequence[Wanted]] | None, *, counters: bool
    ) -> Reading:
        """Figures of all versions (between two seconds of a large cluster: of those in use); slots of
        those backends where something is due."""
        begun, at = self._monotonic(), self._clock()
        if not self._ready:
            raise Unavailable("HAProxy is adopted only once the cluster was seen.")
        due = self._look.due(self.slots, self.servers, self.backends, wanted, begun)
        asked = self._look.figures(list(self.backends.values()), whole=counters)
        commands = ["show info", *asked]
        commands += _TABLES if counters else ()
        gated = counters and self.links.folder is not None
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
            self._gates = stats.parse_map(next(answers)) if gated else None
            servers = {
                name: self._by_name(stats.parse_servers(next(answers), next(answers)))
                for name in due
            }
            await self._with_old_workers(servers, figures, counted)
        except stats.Unreadable as error:
            raise SlipwayError(f"HAProxy's answer makes no sense: {error}") from error
        self._look.took(figures, due, begun, whole=counters)
        for name in due:
            self.servers[name] = servers[name]
        return Reading(
            at=at,
            begun=begun,
            worker=worker,
            figures={key: figures[name] for key, name in self.backends.items() if name in figures},
            servers=servers,
            counted=counted,
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
        for name in self.backends.values():
            if (figure := figures.get(name)) is None:
                continue
            source = (figure.arrivals, figure.ok, table.get(name), times.get(name))
            last = before.get(name)
            if last is None or last[0] != source:
                last = (source, stats.counters(figure, *source[2:]))
            self._counted[name] = last
            found[name] = last[1]
        return found

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
        source = (services, self.backends, retry_after)
        same = self._mapped is not None and all(map(operator.is_, source, self._mapped))
        want_maps = self._maps or {}
        if not same:  # the maps were not made of these very objects last time
            routed = [spec for spec in services if self._has_backends(spec)]
            want_maps = pool.maps(routed, self.backends, retry_after)
            commands += pool.map_commands(self._maps or {}, want_maps)
        by_backend = {name: wanted.get(key, ()) for key, name in self.backends.items()}
        waited_for = self._waited_for(reading, wanted)
        unplaced: list[Wanted] = []
        for name, seen in reading.servers.items():
            if name in waited_for:
                continue
            step = slots.plan(
                self.slots[name], by_backend.get(name, ()), seen, reading.begun, self._monotonic()
            )
            if step.slots != self.slots[name]:  # a row that stands stays the same object
                self.slots[name] = step.slots
            for slot in step.links:
                self.links.make(slot)
            unplaced += step.unplaced
            commands += step.commands
        if self._gates is not None:
            commands += gates.commands(
                self._gates,
                self.backends.values(),
                want_maps[names.TIMEOUTS_MAP] if want_maps else {},
                overlap=bool(self.old_workers),
                now=self._clock(),
            )
        self.unplaced = tuple(unplaced)
        if commands:
            await self._tell(commands, want_maps, source)
        else:
            self._mapped = source
        # after the maps: a service that takes no tokens any more must not have one verified again
        if self.following.spec.token_keys and not self._outdated:
            self.told += await self.token_maps.follow(self._tell_old_workers)

    def _waited_for(
        self, reading: Reading, wanted: Mapping[Key, Sequence[Wanted]]
    ) -> frozenset[str]:
        """Backends of versions that are gone, in which requests may still wait.

        Their replicas stay until a reading made after the maps sent nobody there any more shows an
        empty queue: HAProxy gives a server that drains nothing out of it, so who waits would get 503.
        """
        now = self._monotonic()
        told = self._maps is not None
        self._gone = {
            key: self._gone.get(key, now) if told else now
            for key in self.backends
            if key not in wanted
        }
        return frozenset(
            self.backends[key]
            for key, since in self._gone.items()
            if reading.begun <= since or (seen := reading.figures.get(key)) is None or seen.queued
        )

    async def _tell(
        self,
        commands: Sequence[str],
        want_maps: dict[str, dict[str, str]],
        source: tuple[object, object, object],
    ) -> None:
        now = self._monotonic()
        self.told += len(commands)
        await self._tell_old_workers(commands)
        self._maps = self._mapped = None  # until all of it went through
        try:
            await self.haproxy.runtime.tell(commands)
            self._maps, self._mapped = want_maps, source
        except PermanentError as error:
            if error.message != self._refused or now - self._refused_at > _SAY_AGAIN:
                self._refused, self._refused_at = error.message, now
                log.error("%s The other commands were carried out.", error.message)

    # ---- starting, adopting, growing ----------------------------------------------------------

    def _config(self, shapes: Sequence[BackendShape], spec: RouterSpec) -> RouterConfig:
        paths = self.haproxy.paths
        held = sum(shape.slots for shape in shapes)  # each reserves a descriptor for its check
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        connections = 8000
        if descriptors != resource.RLIM_INFINITY:
            connections = max(min(connections, (descriptors - held - 500) // 2), 100)
        config = RouterConfig(
            bind=self.settings.bind,
            port=self.settings.port,
            stats_socket=str(paths.stats_socket),
            body_socket=str(paths.body_socket),
            backends=tuple(shapes),
            connections=connections,
            check_interval_ms=max(500, held * 1000 // _CHECKS_A_SECOND),
            log_socket=str(paths.log_socket),
            slot_folder=None if self.links.folder is None else str(self.links.folder),
        )
        return setup.configured(config, spec, self.settings.tls_port)

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
            for slot in row:
                if slot.state is State.JOINED:  # no worker runs that could follow its link
                    self.links.make(slot)
        maps = pool.maps(services, asked.backends, {})
        choices = setup.fallbacks(self.following.asked, self.following.kept)
        for spec in choices:
            try:
                await self._install(asked.shapes, fresh, maps, spec)
                await self.haproxy.start()
            except PermanentError as error:
                if spec is self.following.asked:
                    self.following.refuse(spec, error)
                if spec is choices[-1]:
                    raise
            else:
                self.following.took(spec)
                break
        log.info("started HAProxy on %s:%d", self.settings.bind, self.settings.port)
        self.backends, self.shapes, self.slots = asked.backends, asked.shapes, fresh
        self._ready, self._outdated, self.old_workers = True, False, ()
        self.token_maps.started()

    async def _install(
        self,
        shapes: Sequence[BackendShape],
        rows: Mapping[str, Sequence[Slot]],
        maps: Mapping[str, Mapping[str, str]],
        spec: RouterSpec,
        verified: Mapping[str, str] | None = None,
    ) -> str:
        config = self._config(shapes, spec)
        placed = {
            name: {
                slot.name: Placed(slot.address, slot.concurrency)
                for slot in row
                if slot.state is State.JOINED
            }
            for name, row in rows.items()
        }
        files = self._files(config, maps, spec) | self.token_maps.files(verified or {})
        await self.haproxy.install(render.render(config, placed), files)
        self._maps, self._mapped = {name: dict(entries) for name, entries in maps.items()}, None
        self._maps_at = self._monotonic()
        return render.shape(config)

    def _files(
        self, config: RouterConfig, maps: Mapping[str, Mapping[str, str]], spec: RouterSpec
    ) -> dict[str, str]:
        """What stands beside the text."""
        files = {name: pool.map_text(entries) for name, entries in maps.items()}
        # a new worker does not know what replicas are still at work on for the one before
        since = gates.entries(maps[names.TIMEOUTS_MAP], self._clock())
        files[names.GATES_MAP] = pool.map_text(since)
        files[names.BUCKETS_MAP] = render.buckets_map()
        files["router.lua"] = render.render_lua(config)
        return files | self.token_maps.files({}) | setup.files(spec)

    async def _grow(self, asked: pool.Assignment) -> None:
        """Reload for what the services ask for; refused, it is tried again in a while."""
        now = self._monotonic()
        if now < self._not_before:
            return
        try:
            await self._reload(asked, self.following.spec, asked.why)
        except PermanentError as error:
            self._not_before = now + _RELOAD_AGAIN
            log.error(
                "HAProxy goes on with its old configuration: %s %s", error.message, error.evidence
            )

    async def _reload(
        self, asked: pool.Assignment, spec: RouterSpec, why: Sequence[str] = ()
    ) -> None:
        """Have a new worker with these shapes and settings take over.

        Raises PermanentError when HAProxy would not; the old worker serves on, and what it was started
        from stands on the disk again.
        """
        rows = _empty_slots(asked.shapes)
        for name, row in self.slots.items():
            kept = {slot.name: slot for slot in row}
            rows[name] = tuple(kept.get(slot.name, slot) for slot in rows[name])
        if self._maps is None:
            await self._read_maps()
        maps = self._maps or {}
        log.warning("reloading HAProxy: %s", "; ".join(why) or "its configuration changed")
        verified = await self._still_verified(spec)
        shape = await self._install(asked.shapes, rows, maps, spec, verified)
        try:
            await self.haproxy.reload(shape)
        except PermanentError:
            if not self._outdated:
                await self._install(self.shapes, self.slots, maps, self.following.spec)
            raise
        self.reloads += 1
        self.shapes, self.slots, self._outdated = asked.shapes, rows, False
        self._gates = None
        self.token_maps.started()
        self.old_workers = stats.parse_processes(await self.haproxy.master.ask("show proc")).old

    async def _still_verified(self, spec: RouterSpec) -> dict[str, str]:
        """What a new worker need not verify again. With other keys everything is: a key goes because
        nobody should be let in by it any more."""
        keys = self.following.spec.token_keys
        if not keys or keys != spec.token_keys or self._outdated:
            return {}
        return await self.token_maps.verified()

    async def _follow(self, asked: pool.Assignment) -> None:
        """Bring HAProxy to the cluster's settings. What it refuses changes nothing but the status."""
        spec = self.following.due()
        if spec is None:
            return
        before = self.following.spec
        try:
            if setup.needs_reload(before, spec):
                await self._reload(asked, spec, ["the router's settings changed"])
            elif self.following.certificate_due(spec):
                await self.haproxy.runtime.set_certificate(setup.SITE, setup.site(spec))
                await self.haproxy.put(setup.SITE, setup.site(spec))
        except PermanentError as error:
            self.following.refuse(spec, error)
            return
        self.following.took(spec)
        # a key that nobody uses any more must not lie about
        await self.haproxy.forget(setup.files(before).keys() - setup.files(spec).keys())

    async def check(self, lines: CustomLines) -> tuple[bool, list[Remark]]:
        """Whether HAProxy would take these lines of a person's in the place of those it has, and what
        it says to them. Changes nothing."""
        spec = replace(self.following.asked or self.following.spec, custom=lines)
        shapes = self.shapes or (BackendShape(slots=self.settings.slots),)
        config = self._config(shapes, spec)
        text = render.render(config)
        maps: dict[str, dict[str, str]] = {name: {} for name in names.MAPS}
        try:
            said = await self.haproxy.check(text, self._files(config, maps, spec))
        except PermanentError as error:
            return False, setup.remarks(error.evidence, text, lines)
        return True, setup.remarks(said, text, lines)

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
        self.backends = pool.recovered(maps[names.VERSIONS_MAP])
        found = sorted({backend for backend, _ in servers})
        known = (self.following.asked, self.following.spec) if self.shapes else ()
        same = [
            spec
            for spec in known
            if spec and render.shape(self._config(self.shapes, spec)) == worker.shape
        ]
        self._outdated = not same
        self.following.adopt(same[0] if same else self.following.spec)
        if self._outdated:
            waits = dict(enumerate(shape.queue_wait_ms for shape in self.shapes))
            self.shapes = tuple(
                BackendShape(waits.get(index, 500), sum(backend == name for backend, _ in servers))
                for index, name in enumerate(found)
            )
        keys = {name: key for key, name in self.backends.items()}
        now = self._monotonic()
        self.links.forget()
        self.slots = {
            name: slots.adopt(
                [self._led(item) for (backend, _), item in servers.items() if backend == name],
                at_a_time,
                self.slots.get(name, ()),
                wanted.get(keys[name], ()) if name in keys else (),
                now,
            )
            for name in found
        }
        self._look = Look()
        self._ready = True
        self.token_maps.found()
        log.info(
            "adopted HAProxy worker %d with %d replicas of %d versions",
            worker.pid,
            len(self.held()),
            len(self.backends),
        )

    async def _read_maps(self) -> dict[str, dict[str, str]]:
        answers = await self.haproxy.runtime.ask([f"show map {name}" for name in names.MAPS])
        try:
            found = {
                name: stats.parse_map(answer)
                for name, answer in zip(names.MAPS, answers, strict=True)
            }
        except stats.Unreadable as error:
            raise SlipwayError(f"HAProxy's answer makes no sense: {error}") from error
        self._maps, self._maps_at, self._mapped = found, self._monotonic(), None
        return found

    # ---- readings -----------------------------------------------------------------------------

    async def _with_old_workers(
        self,
        servers: dict[str, dict[str, Server]],
        figures: dict[str, BackendFigures],
        counted: dict[int, dict[str, Counters]] | None,
    ) -> None:
        """After a reload the old worker still has requests inside replicas: they count too."""
        if not self.old_workers:
            return
        master = self.haproxy.master
        self.old_workers = stats.parse_processes(await master.ask("show proc")).old
        inside: dict[str, int] = {}
        ended = set()
        for pid in self.old_workers:
            answer = await master.ask(f"@!{pid} show servers conn")
            told = await master.ask(f"@!{pid} show stat -1 2 -1")
            tables = (
                [await master.ask(f"@!{pid} {command}") for command in _TABLES]
                if counted is not None
                else []
            )
            if not answer.strip() or not told.strip() or not all(table.strip() for table in tables):
                ended.add(pid)
                continue  # it ended just now
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
                servers, [pid for pid in self.old_workers if pid not in ended]
            )
            return
        for name, row in servers.items():
            own = {slot.name: slot.address for slot in self.slots[name]}
            servers[name] = {
                slot: replace(server, used=server.used + inside.get(own.get(slot, ""), 0))
                for slot, server in row.items()
            }

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

    def _led(self, server: Server) -> Server:
        """With where its link leads instead of HAProxy's "unix"."""
        if server.address != "unix":
            return server
        return replace(server, address=self.links.address(server.backend, server.name))

    def _by_name(self, servers: Mapping[tuple[str, str], Server]) -> dict[str, Server]:
        return {name: self._led(server) for (_, name), server in servers.items()}

    async def _tell_old_workers(self, commands: Sequence[str]) -> None:
        """An old worker still takes one request from each of its idle clients: it has to know the
        same routes, keys and replicas. A backend that it never had it cannot get: a new service
        on one is a 503 there, once for each such client."""
        for pid in self.old_workers:
            for start in range(0, len(commands), 100):
                lines = (f"@!{pid} {command}" for command in commands[start : start + 100])
                await self.haproxy.master.ask(";".join(lines))


def _empty_slots(shapes: Sequence[BackendShape]) -> dict[str, tuple[Slot, ...]]:
    return {
        render.backend_name(index): tuple(
            Slot(render.backend_name(index), render.server_name(number))
            for number in range(shape.slots)
        )
        for index, shape in enumerate(shapes)
    }
