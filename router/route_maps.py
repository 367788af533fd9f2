"""HAProxy's maps of routes, keys and waits, kept at what the services say; `pool.maps` decides what that is.

What HAProxy has is read when it is not certain, and now and then anyway: a person with the socket may
have changed it. While services, backends and waits are the very same objects nothing is made anew.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deployments.errors import SlipwayError
from deployments.types import ServiceSpec
from router.haproxy import names, pool, stats
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy

Entries = dict[str, dict[str, str]]  # of each map

_LOOK_EVERY = 30.0  # seconds between looks whether the maps are still what we think


@dataclass(frozen=True, slots=True)
class Step:
    """What the maps should hold, and the commands that bring them there."""

    entries: Entries
    commands: tuple[str, ...]
    made_of: tuple[object, ...]


class RouteMaps:
    """One router's. `monotonic` gives seconds."""

    def __init__(self, haproxy: HAProxy, monotonic: Callable[[], float]) -> None:
        self.haproxy = haproxy
        self.entries: Entries | None = None  # what HAProxy has; None: to be read
        self._monotonic = monotonic
        self._read_at = 0.0
        self._made_of: tuple[object, ...] = ()

    async def known(self) -> Entries:
        """What HAProxy has, read only where that is not certain."""
        return self.entries if self.entries is not None else await self.read()

    async def read(self) -> Entries:
        answers = await self.haproxy.runtime.ask([f"show map {name}" for name in names.MAPS])
        try:
            found = {
                name: stats.parse_map(answer)
                for name, answer in zip(names.MAPS, answers, strict=True)
            }
        except stats.Unreadable as error:
            raise SlipwayError(f"HAProxy's answer makes no sense: {error}") from error
        self.installed(found)
        return found

    def installed(self, entries: Mapping[str, Mapping[str, str]]) -> None:
        """HAProxy has these, or starts with them."""
        self.entries = {name: dict(found) for name, found in entries.items()}
        self._read_at, self._made_of = self._monotonic(), ()

    async def step(
        self,
        services: Sequence[ServiceSpec],
        backends: Mapping[Key, str],
        retry_after: Mapping[Key, int],
    ) -> Step:
        """What is to be said so that the maps say what the services do."""
        entries = self.entries
        if entries is None or self._monotonic() - self._read_at > _LOOK_EVERY:
            entries = await self.read()
        made_of = (services, backends, retry_after)
        if self._made_of and all(map(operator.is_, made_of, self._made_of)):
            return Step(entries, (), made_of)
        routed = [spec for spec in services if _has_backends(spec, backends)]
        wanted = pool.maps(routed, backends, retry_after)
        return Step(wanted, tuple(pool.map_commands(entries, wanted)), made_of)

    def doubt(self) -> None:
        """Commands are on their way: until all of them went through the maps are not known."""
        self.entries, self._made_of = None, ()

    def took(self, step: Step) -> None:
        """All of a step's commands went through."""
        self.entries, self._made_of = step.entries, step.made_of


def _has_backends(spec: ServiceSpec, backends: Mapping[Key, str]) -> bool:
    return all(Key(spec.name, version.name) in backends for version in spec.versions)
