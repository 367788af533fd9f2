"""HAProxy's text and files: what it is started with, and when a reload has it take up another one.

The text follows from the pool's shapes and the cluster's `RouterSpec`; most changes need no new text and
never come here. What HAProxy refuses changes nothing: the old worker serves on, and what it was started
from stands on the disk again. Who is in which slot is decided elsewhere; a start only places who is known.
"""

import logging
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deployments.clusters.custom import Remark
from deployments.errors import PermanentError
from deployments.types import CustomLines, RouterSpec, ServiceSpec
from router import setup
from router.following import Following
from router.haproxy import gates, names, peer_rules, pool, render, stats
from router.haproxy.links import SlotLinks
from router.haproxy.pool import Assignment, Key
from router.haproxy.process import HAProxy
from router.haproxy.render import BackendShape, PeerConfig, Placed, RouterConfig
from router.haproxy.slots import Slot, State, Wanted
from router.known import Known, empty_peers, empty_slots
from router.route_maps import RouteMaps
from router.token_maps import TokenMaps

log = logging.getLogger(__name__)

_CHECKS_A_SECOND = 4_000  # of all slots; beyond that each is checked less often than twice a second
_RELOAD_AGAIN = 30.0  # seconds until a refused configuration is tried again
_REASONS = 5  # of a reload that are told
_PAUSE_TIMES = 3.0  # a reload to grow is not done again before so many times what the last one took


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the configuration a person chooses."""

    bind: str
    port: int
    backends: int = 32
    slots: int = 32
    slot_folder: Path | None = None  # where slots have links; None: replicas have hosts and ports
    tls_port: int = 8443
    server_close: bool = True  # a connection to a replica is for one request; the bench keeps them
    peers: PeerConfig | None = None  # this router may be one of several pods
    node: str = ""  # the machine's name among the cluster's nodes; "": its host name

    @property
    def gated(self) -> bool:
        """Whether replicas have gates."""
        return self.slot_folder is not None or self.peers is not None


class Installer:
    """One HAProxy's configuration. `monotonic` and `clock` give seconds, the latter since the epoch."""

    def __init__(
        self,
        haproxy: HAProxy,
        settings: Settings,
        known: Known,
        maps: RouteMaps,
        following: Following,
        token_maps: TokenMaps,
        links: SlotLinks,
        monotonic: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.haproxy = haproxy
        self.settings = settings
        self.known = known
        self.maps = maps
        self.following = following
        self.token_maps = token_maps
        self.links = links
        self._monotonic = monotonic
        self._clock = clock
        self._not_before = 0.0  # of the next try at a configuration that was refused

    # ---- what the text says -------------------------------------------------------------------

    def config(self, shapes: Sequence[BackendShape], spec: RouterSpec) -> RouterConfig:
        """Everything that HAProxy's text is made from."""
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
            server_close=self.settings.server_close,
            threads=self.known.threads_wanted,
            peers=self.settings.peers,
        )
        return setup.configured(config, spec, self.settings.tls_port)

    def assign(
        self, services: Sequence[ServiceSpec], wanted: Mapping[Key, Sequence[Wanted]]
    ) -> Assignment:
        """Whose each backend should be, and the shapes that takes."""
        known = self.known
        counts = {key: len(items) for key, items in wanted.items()}
        for key, name in known.backends.items():
            taken = sum(slot.state is not State.FREE for slot in known.slots.get(name, ()))
            counts[key] = max(counts.get(key, 0), taken)
        occupied = {slot.backend for slot in known.held()}
        shapes = known.shapes or (BackendShape(slots=self.settings.slots),) * self.settings.backends
        return pool.assign(
            known.backends, shapes, pool.needs(services, counts), occupied, self.settings.slots
        )

    def _files(
        self, config: RouterConfig, maps: Mapping[str, Mapping[str, str]], spec: RouterSpec
    ) -> dict[str, str]:
        """What stands beside the text."""
        files = {name: pool.map_text(entries) for name, entries in maps.items()}
        # a new worker does not know what replicas are still at work on for the one before
        since = gates.entries(maps[names.TIMEOUTS_MAP], self._clock())
        files[names.GATES_MAP] = pool.map_text(since)
        files[names.BUCKETS_MAP] = render.buckets_map()
        if config.peers is not None:
            files[names.OWNERS_MAP] = pool.map_text(self.known.owners or {})
        files["router.lua"] = render.render_lua(config)
        return files | self.token_maps.files({}) | setup.files(spec)

    async def _install(
        self,
        shapes: Sequence[BackendShape],
        rows: Mapping[str, Sequence[Slot]],
        maps: Mapping[str, Mapping[str, str]],
        spec: RouterSpec,
        verified: Mapping[str, str] | None = None,
    ) -> str:
        """Put text and files in place for the next start or reload; returns the text's shape."""
        config = self.config(shapes, spec)
        placed = {
            name: {
                slot.name: Placed(slot.address, slot.concurrency)
                for slot in row
                if slot.state is State.JOINED
            }
            for name, row in rows.items()
        }
        placed[peer_rules.BACKEND] = {
            slot.name: Placed(slot.address, slot.concurrency)
            for slot in self.known.peers
            if slot.state is State.JOINED
        }
        files = self._files(config, maps, spec) | self.token_maps.files(verified or {})
        await self.haproxy.install(render.render(config, placed), files)
        self.maps.installed(maps)
        return render.shape(config)

    async def check(self, lines: CustomLines) -> tuple[bool, list[Remark]]:
        """Whether HAProxy would take these lines of a person's in the place of those it has, and what
        it says to them. Changes nothing."""
        spec = replace(self.following.asked or self.following.spec, custom=lines)
        shapes = self.known.shapes or (BackendShape(slots=self.settings.slots),)
        config = self.config(shapes, spec)
        text = render.render(config)
        maps: dict[str, dict[str, str]] = {name: {} for name in names.MAPS}
        try:
            said = await self.haproxy.check(text, self._files(config, maps, spec))
        except PermanentError as error:
            return False, setup.remarks(error.evidence, text, lines)
        return True, setup.remarks(said, text, lines)

    # ---- starting -----------------------------------------------------------------------------

    async def start(
        self, services: Sequence[ServiceSpec], wanted: Mapping[Key, Sequence[Wanted]]
    ) -> None:
        """Nothing runs: start it with everything that is known standing in it already."""
        known = self.known
        known.ready = False
        known.slots = {}
        known.peers, known.owners = empty_peers(self.settings.peers), {}
        asked = self.assign(services, wanted)
        fresh = self._placed(asked, wanted)
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
        known.backends, known.shapes, known.slots = asked.backends, asked.shapes, fresh
        known.ready, known.outdated, known.old_workers = True, False, ()
        known.threads = known.threads_wanted
        self.token_maps.started()

    def _placed(
        self, asked: Assignment, wanted: Mapping[Key, Sequence[Wanted]]
    ) -> dict[str, tuple[Slot, ...]]:
        """The rows of a HAProxy that is not running yet, with the wanted replicas in them."""
        now = self._monotonic()
        fresh = empty_slots(asked.shapes)
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
        return fresh

    # ---- reloading ----------------------------------------------------------------------------

    async def grow(self, asked: Assignment) -> None:
        """Reload for what the services ask for; refused, it is tried again in a while."""
        now = self._monotonic()
        if now < self._not_before:
            return
        try:
            await self._reload(asked, self.following.spec, asked.why)
            ended = self._monotonic()
            self._not_before = ended + _PAUSE_TIMES * (ended - now)
        except PermanentError as error:
            self._not_before = now + _RELOAD_AGAIN
            self.known.threads_wanted = self.known.threads
            log.error(
                "HAProxy goes on with its old configuration: %s %s", error.message, error.evidence
            )

    async def follow(self, asked: Assignment) -> None:
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
        # A key that nobody uses any more must not lie about. Before it counts as done: whoever comes after
        # a kill in between does it again.
        await self.haproxy.forget(setup.files(before).keys() - setup.files(spec).keys())
        self.following.took(spec)

    async def _reload(self, asked: Assignment, spec: RouterSpec, why: Sequence[str] = ()) -> None:
        """Have a new worker with these shapes and settings take over.

        Raises PermanentError when HAProxy would not; the old worker serves on, and what it was started
        from stands on the disk again.
        """
        known = self.known
        rows = empty_slots(asked.shapes)
        for name, row in known.slots.items():
            kept = {slot.name: slot for slot in row}
            rows[name] = tuple(kept.get(slot.name, slot) for slot in rows[name])
        maps = await self.maps.known()
        log.warning("reloading HAProxy: %s", _told(why) or "its configuration changed")
        verified = await self._still_verified(spec)
        shape = await self._install(asked.shapes, rows, maps, spec, verified)
        try:
            await self.haproxy.reload(shape)
        except PermanentError:
            known.threads_wanted = known.threads
            if not known.outdated:
                await self._install(known.shapes, known.slots, maps, self.following.spec)
            raise
        known.reloads, known.threads = known.reloads + 1, known.threads_wanted
        known.shapes, known.slots, known.outdated = asked.shapes, rows, False
        self.token_maps.started()
        known.old_workers = stats.parse_processes(await self.haproxy.master.ask("show proc")).old

    async def _still_verified(self, spec: RouterSpec) -> dict[str, str]:
        """What a new worker need not verify again. With other keys everything is: a key goes because
        nobody should be let in by it any more."""
        keys = self.following.spec.token_keys
        if not keys or keys != spec.token_keys or self.known.outdated:
            return {}
        return await self.token_maps.verified()


def _told(why: Sequence[str]) -> str:
    """In a large cluster there may be hundreds of reasons."""
    more = [f"and {len(why) - _REASONS} more"] if len(why) > _REASONS else []
    return "; ".join([*why[:_REASONS], *more])
