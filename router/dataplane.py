"""One cluster's HAProxy, kept at what the cluster says. This is what the control loop talks to.

    prepare   HAProxy runs, with a backend for every version and the cluster's settings   router.installer
              one that was found running is learnt from first                             router.adoption
    read      figures of versions, slots, counters                                        router.reader
    apply     maps and slots are told what is missing                                     here

All of them share what is believed of HAProxy (`router.known`). A call that fails half-way is made good
by the next cycle, which compares with what HAProxy shows and says the rest. Nothing here decides how many
replicas there should be or talks to the cluster.
"""

import logging
import operator
import time
from collections.abc import Callable, Mapping, Sequence

from deployments.clusters.custom import Remark
from deployments.errors import PermanentError
from deployments.types import CustomLines, RouterSpec, ServiceSpec
from router.adoption import adopt
from router.following import Following
from router.haproxy import gates, names, pool, slots
from router.haproxy.links import SlotLinks
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy
from router.haproxy.render import BackendShape
from router.haproxy.slots import Slot, Wanted
from router.haproxy.stats import Server
from router.installer import Installer, Settings
from router.known import Known
from router.reader import Reader, Reading
from router.route_maps import RouteMaps, Step
from router.selfscale import EXACT_THREADS
from router.token_maps import TokenMaps

__all__ = ["DataPlane", "Reading", "Settings"]

log = logging.getLogger(__name__)

_SAY_AGAIN = 60.0  # the same refusal is said once a minute


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
        self.known = Known()
        self.following = Following(haproxy.paths.folder / "applied.json", monotonic)
        self.token_maps = TokenMaps(haproxy, monotonic, clock)
        self.maps = RouteMaps(haproxy, monotonic)
        self.links = SlotLinks(settings.slot_folder)
        self.unplaced: tuple[Wanted, ...] = ()
        self._reader = Reader(
            haproxy, self.known, self.links, monotonic, clock, gated=settings.gated
        )
        self._installer = Installer(
            haproxy,
            settings,
            self.known,
            self.maps,
            self.following,
            self.token_maps,
            self.links,
            monotonic,
            clock,
        )
        self._prepared: tuple[object, object] | None = None
        self._gone: dict[Key, float] = {}  # versions that are gone, and since when (monotonic)
        self._refused, self._refused_at = "", 0.0
        self._monotonic = monotonic
        self._clock = self.clock = clock

    # ---- what is believed of HAProxy, for those who look --------------------------------------

    @property
    def backends(self) -> Mapping[Key, str]:
        return self.known.backends

    @property
    def shapes(self) -> tuple[BackendShape, ...]:
        return self.known.shapes

    @property
    def slots(self) -> Mapping[str, tuple[Slot, ...]]:
        return self.known.slots

    @property
    def servers(self) -> Mapping[str, Mapping[str, Server]]:
        return self.known.servers

    @property
    def old_workers(self) -> tuple[int, ...]:
        return self.known.old_workers

    @property
    def reloads(self) -> int:
        return self.known.reloads

    @property
    def told(self) -> int:
        """Commands that changed something."""
        return self.known.told

    @property
    def threads(self) -> int:
        """That HAProxy is to have. Another number is a reload, in the next turn; where HAProxy refuses,
        it is what it was again."""
        return self.known.threads_wanted

    @threads.setter
    def threads(self, wanted: int) -> None:
        self.known.threads_wanted = wanted

    def remember(
        self,
        backends: Mapping[str, str],
        shapes: Sequence[BackendShape],
        kept: Sequence[Slot],
        threads: int = 1,
    ) -> None:
        """Take up what an earlier run knew; what HAProxy itself says goes before it."""
        self.known.remember(pool.recovered(backends), shapes, kept, threads)

    def held(self) -> tuple[Slot, ...]:
        """The slots that are not free."""
        return self.known.held()

    async def check(self, lines: CustomLines) -> tuple[bool, list[Remark]]:
        """Whether HAProxy would take these lines of a person's in the place of those it has, and what
        it says to them. Changes nothing."""
        return await self._installer.check(lines)

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
        known = self.known
        self.following.ask(spec)
        # a revoked token is refused whatever becomes of the other settings
        self.token_maps.want(self.following.asked or self.following.spec, services)
        if self.haproxy.running() is None and not await self.haproxy.recover():
            await self._installer.start(services, wanted)
        elif not known.ready:
            await self._adopt(wanted)
        elif (
            self._prepared is not None
            and all(map(operator.is_, self._prepared, (services, wanted)))
            and self.following.due() is None
            and known.threads == known.threads_wanted
        ):
            return  # the very same objects as last time, and nothing was left to do then
        asked = self._installer.assign(services, wanted)
        await self._installer.follow(asked)
        if asked.shapes != known.shapes or known.outdated or known.threads != known.threads_wanted:
            await self._installer.grow(asked)
        there = known.names()
        backends = {key: name for key, name in asked.backends.items() if name in there}
        if backends != known.backends:
            known.backends = backends
        settled = (
            asked.shapes == known.shapes
            and not known.outdated
            and all(key in wanted for key in asked.backends)
        )
        self._prepared = (services, wanted) if settled else None

    async def _adopt(self, wanted: Mapping[Key, Sequence[Wanted]]) -> None:
        await adopt(
            self.haproxy,
            self.known,
            self.maps,
            self.following,
            self.links,
            self._installer.config,
            wanted,
            self._monotonic(),
        )
        self._reader.forget()
        self.token_maps.found()

    async def read(
        self, wanted: Mapping[Key, Sequence[Wanted]] | None, *, counters: bool
    ) -> Reading:
        """Figures of all versions (between two seconds of a large cluster: of those in use); slots of
        those backends where something is due."""
        return await self._reader.read(wanted, counters=counters)

    async def apply(
        self,
        reading: Reading,
        services: Sequence[ServiceSpec],
        wanted: Mapping[Key, Sequence[Wanted]],
        retry_after: Mapping[Key, int],
    ) -> None:
        """Send what brings maps and slots to what is wanted; nothing when they are."""
        known, worker = self.known, reading.worker
        maps = await self.maps.step(services, known.backends, retry_after)
        commands = [*maps.commands, *self._slots(reading, wanted)]
        if reading.gates is not None:
            commands += gates.commands(
                reading.gates,
                known.backends.values(),
                maps.entries[names.TIMEOUTS_MAP],
                overlap=bool(known.old_workers)
                # several threads of an older HAProxy pass a replica's limit by one now and then
                or (worker.threads > 1 and worker.version < EXACT_THREADS),
                now=self._clock(),
            )
        await self._tell(commands, maps)
        # after the maps: a service that takes no tokens any more must not have one verified again
        if self.following.spec.token_keys and not known.outdated:
            known.told += await self.token_maps.follow(self.tell_old_workers)

    def _slots(self, reading: Reading, wanted: Mapping[Key, Sequence[Wanted]]) -> list[str]:
        """The commands for the slots that were read, after the links they need are made."""
        known = self.known
        commands: list[str] = []
        by_backend = {name: wanted.get(key, ()) for key, name in known.backends.items()}
        waited_for = self._waited_for(reading, wanted)
        unplaced: list[Wanted] = []
        for name, seen in reading.servers.items():
            if name in waited_for:
                continue
            step = slots.plan(
                known.slots[name], by_backend.get(name, ()), seen, reading.begun, self._monotonic()
            )
            if step.slots != known.slots[name]:  # a row that stands stays the same object
                known.slots[name] = step.slots
            for slot in step.links:
                self.links.make(slot)
            unplaced += step.unplaced
            commands += step.commands
        self.unplaced = tuple(unplaced)
        return commands

    def _waited_for(
        self, reading: Reading, wanted: Mapping[Key, Sequence[Wanted]]
    ) -> frozenset[str]:
        """Backends of versions that are gone, in which requests may still wait.

        Their replicas stay until a reading made after the maps sent nobody there any more shows an
        empty queue: HAProxy gives a server that drains nothing out of it, so who waits would get 503.
        """
        backends, now = self.known.backends, self._monotonic()
        told = self.maps.entries is not None
        self._gone = {
            key: self._gone.get(key, now) if told else now for key in backends if key not in wanted
        }
        return frozenset(
            backends[key]
            for key, since in self._gone.items()
            if reading.begun <= since or (seen := reading.figures.get(key)) is None or seen.queued
        )

    async def _tell(self, commands: Sequence[str], maps: Step) -> None:
        if not commands:
            self.maps.took(maps)
            return
        now = self._monotonic()
        self.known.told += len(commands)
        await self.tell_old_workers(commands)
        self.maps.doubt()
        try:
            await self.haproxy.runtime.tell(commands)
            self.maps.took(maps)
        except PermanentError as error:
            if error.message != self._refused or now - self._refused_at > _SAY_AGAIN:
                self._refused, self._refused_at = error.message, now
                log.error("%s The other commands were carried out.", error.message)

    async def tell_old_workers(self, commands: Sequence[str]) -> None:
        """An old worker still takes one request from each of its idle clients: it has to know the
        same routes, keys and replicas. A backend that it never had it cannot get: a new service
        on one is a 503 there, once for each such client."""
        for pid in self.known.old_workers:
            for start in range(0, len(commands), 100):
                lines = (f"@!{pid} {command}" for command in commands[start : start + 100])
                await self.haproxy.master.ask(";".join(lines))
