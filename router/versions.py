"""The versions that a cluster shows, and what the loop knows of each of them between two turns.

PURE but for what it remembers. A driver gives the very same object for a service that is as it was, and
what is made of it here stays the same object too: nothing is made anew of what did not change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from deployments.types import (
    Observation,
    ObservedService,
    Phase,
    Replica,
    ServiceSpec,
    VersionSpec,
)
from router.autoscaler import policy, window
from router.autoscaler.window import Standing, Window
from router.haproxy.pool import Key
from router.haproxy.slots import Wanted
from router.hindrances import Hindrance


@dataclass
class Version:
    """What the loop knows of one version between two cycles."""

    spec: VersionSpec
    service: ServiceSpec
    desired: int
    replicas: tuple[Replica, ...] = ()
    window: Window = Window()
    scaling: policy.State = field(default_factory=policy.State)
    # made of the above, when the cluster shows something new of this version
    wanted: tuple[Wanted, ...] = ()
    standing: Standing = Standing()
    calm: bool = False  # as many are ready as are wanted, and none comes or goes
    decided: bool = False  # the policy has seen what is new
    loud_at: float = 0.0  # the last second in which somebody asked for it
    passed_at: float = 0.0  # when the policy was not asked last, because all is as it was
    stories: tuple[Hindrance, ...] = ()  # what keeps it from its count, for the ledger


class Versions:
    """Brought up to date by `take_in` with each observation.

    `start_seconds` (by version) and `concurrency` (by service/revision) are what an earlier run learnt:
    a replica of a revision that no spec names any more still takes as many requests as it always did.
    """

    def __init__(self, start_seconds: Mapping[str, float], concurrency: Mapping[str, int]) -> None:
        self.by_key: dict[Key, Version] = {}
        self.services: tuple[ServiceSpec, ...] = ()
        self.wanted: dict[Key, tuple[Wanted, ...]] = {}
        self._start_seconds = dict(start_seconds)
        self._concurrency = dict(concurrency)
        self._seen: dict[str, ObservedService | None] = {}  # None: to be looked at anew

    def take_in(self, observation: Observation) -> tuple[Version, ...]:
        """What the cluster shows now. Returns the versions that are gone."""
        before, self._seen = self._seen, {item.spec.name: item for item in observation.services}
        if before.keys() == self._seen.keys() and all(
            before[name] is item for name, item in self._seen.items()
        ):
            return ()
        known, self.by_key = self.by_key, {}
        for service in observation.services:
            same = before.get(service.spec.name) is service
            for spec in service.spec.versions:
                key = Key(service.spec.name, spec.name)
                version = known.get(key)
                if version is None or not same:
                    version = self._news(key, version, spec, service)
                self.by_key[key] = version
        self.services = tuple(item.spec for item in observation.services)
        self.wanted = {key: version.wanted for key, version in self.by_key.items()}
        return tuple(version for key, version in known.items() if key not in self.by_key)

    def look_again(self, service: str) -> None:
        """The service was changed: what the cluster made of it is taken in anew, the same or not."""
        if service in self._seen:  # by name it stays known: that it is gone must be seen as well
            self._seen[service] = None

    def learnt(self) -> dict[str, float]:
        """How long a start of each version takes, as far as that is known."""
        return {
            str(key): round(version.scaling.start_seconds, 1)
            for key, version in self.by_key.items()
            if version.scaling.start_seconds is not None
        }

    def concurrency(self) -> dict[str, int]:
        """Requests at a time, of each revision that has a replica."""
        alive = {
            f"{key.service}/{item.revision}"
            for key, version in self.by_key.items()
            for item in version.replicas
        }
        return {name: count for name, count in self._concurrency.items() if name in alive}

    def _news(
        self, key: Key, version: Version | None, spec: VersionSpec, service: ObservedService
    ) -> Version:
        """What is known of a version, with what the cluster shows of it now."""
        if version is None:
            version = Version(spec, service.spec, 0)
            version.scaling = policy.State(start_seconds=self._start_seconds.get(str(key)))
        counts = {item.name: item.desired for item in service.desired}
        version.spec, version.service = spec, service.spec
        version.desired = counts.get(spec.name, spec.scaling.minimum)
        replicas = tuple(item for item in service.replicas if item.version == spec.name)
        if len(replicas) != len(version.replicas) or any(
            one is not other for one, other in zip(replicas, version.replicas, strict=True)
        ):
            version.replicas = replicas
        self._concurrency[f"{key.service}/{spec.revision.number}"] = spec.revision.concurrency
        wanted = self._places_for(version)
        if wanted != version.wanted:
            version.wanted = wanted
        version.standing = window.standing(version.replicas)
        ready = sum(item.phase is Phase.READY for item in version.replicas)
        version.calm = ready == len(version.replicas) == version.desired
        version.decided = False
        return version

    def _places_for(self, version: Version) -> tuple[Wanted, ...]:
        service = version.service.name
        return tuple(
            Wanted(
                replica.id,
                replica.address,
                self._concurrency.get(f"{service}/{replica.revision}", 1),
            )
            for replica in version.replicas
            # of one that its node does not tell of, HAProxy's own check is the better word
            if (replica.phase is Phase.READY or replica.unheard) and replica.address
        )
