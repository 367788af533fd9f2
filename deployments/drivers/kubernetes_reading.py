"""From what stands on the API server to what the house speaks of: services with their replicas.

PURE. Plain objects as the API server gives them go in. A `Reader` keeps what it read of a pod and of a
service as long as its objects' versions stay, so that ten thousand pods of which one changed are read once.
"""

import base64
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.codec import from_json
from deployments.drivers import kubernetes_names as names
from deployments.drivers.kubernetes_foreign import foreign_spec
from deployments.drivers.kubernetes_replicas import (
    label,
    not_created,
    replica,
    restarts_of,
    uid_of,
    version_label,
    version_of,
)
from deployments.types import (
    NodeCapacity,
    Observation,
    ObservedService,
    ObservedVersion,
    Replica,
    ServiceSpec,
    VersionSpec,
)

Object = dict[str, Any]
Objects = Mapping[str, Object]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a Reader reads. `tails` are the last lines of runs that ended: (pod's uid, restarts) -> text."""

    deployments: Objects
    pods: Objects
    secrets: Objects
    events: Objects = field(default_factory=dict)  # as `event` keeps them
    tails: Mapping[tuple[str, int], str] = field(default_factory=dict)
    nodes: tuple[NodeCapacity, ...] = ()

    def same(self, other: "Seen") -> bool:
        """Whether it is made of the very same objects; the nodes' room is told with what changes."""
        return (
            self.deployments is other.deployments
            and self.pods is other.pods
            and self.secrets is other.secrets
            and self.events is other.events
            and self.tails is other.tails
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was made of a service's objects, which are never changed but replaced."""

    spec: ServiceSpec
    deployments: list[Object]
    pods: list[Object]
    told: tuple[object, ...]
    found: ObservedService

    def made_of(
        self,
        spec: ServiceSpec,
        deployments: list[Object],
        pods: list[Object],
        told: tuple[object, ...],
    ) -> bool:
        return (
            (spec is self.spec or spec == self.spec)
            and len(deployments) == len(self.deployments)
            and len(pods) == len(self.pods)
            and all(map(operator.is_, deployments, self.deployments))
            and all(map(operator.is_, pods, self.pods))
            and told == self.told
        )


class Reader:
    """Keeps only what may be read again."""

    def __init__(self) -> None:
        self._services: dict[str, _Kept] = {}
        self._last: tuple[Seen, Observation] | None = None
        self._specs: dict[tuple[str, str], ServiceSpec | None] = {}
        self._replicas: dict[str, tuple[object, Replica]] = {}
        self._events_of: tuple[object, dict[str, list[Object]]] = (None, {})
        self._deployments_of: tuple[object, dict[str, list[Object]]] = (None, {})
        self._specs_of: tuple[object, dict[str, ServiceSpec]] = (None, {})

    def observe(self, seen: Seen, now: float) -> Observation:
        """Every service with a spec, or with a Deployment of our labels."""
        if self._last is not None and seen.same(self._last[0]):
            return replace(self._last[1], at=now)
        if self._deployments_of[0] is not seen.deployments:
            self._deployments_of = (seen.deployments, _by_service(seen.deployments))
        deployments, pods = self._deployments_of[1], _by_service(seen.pods)
        specs = self.specs(seen.secrets)
        events = self.by_pod(seen.events)
        touched = {*events, *(uid for uid, _ in seen.tails)}
        services = []
        for name in sorted({*deployments, *specs}):
            spec = specs.get(name)
            its = deployments.get(name, [])
            if spec is None:
                spec = foreign_spec(name, its, seen.secrets)
                if spec is None:
                    continue
            mine = pods.pop(name, [])
            services.append(self._service(spec, its, mine, events, touched, seen))
        orphans = tuple(
            replica(pod, None, "", events.get(uid_of(pod), ()), "", ())
            for left in pods.values()
            for pod in left
        )
        self._forget(seen, {item.spec.name for item in services})
        observation = Observation(now, tuple(services), orphans)
        self._last = (seen, observation)
        return observation

    def _service(
        self,
        spec: ServiceSpec,
        deployments: list[Object],
        pods: list[Object],
        events: Mapping[str, list[Object]],
        touched: set[str],
        seen: Seen,
    ) -> ObservedService:
        told: tuple[object, ...] = ()
        if touched:
            told = tuple(
                (uid, _told(events.get(uid, ())), (uid, restarts_of(pod)) in seen.tails)
                for pod in pods
                if (uid := uid_of(pod)) in touched
            )
        kept = self._services.get(spec.name)
        if kept is not None and kept.made_of(spec, deployments, pods, told):
            return kept.found
        versions = {
            names.selector(spec.name, version.name)[names.VERSION]: version
            for version in spec.versions
        }
        by_version = {version_label(item): item for item in deployments}
        desired = []
        replicas = [
            self._replica(pod, versions.get(version_label(pod)), events, seen) for pod in pods
        ]
        for shown, version in versions.items():
            standing = by_version.get(shown)
            count = version.scaling.minimum
            if standing is not None:
                count = int(standing.get("spec", {}).get("replicas", 1))
                here = sum(version_label(pod) == shown for pod in pods)
                if here < count and (missing := not_created(standing, version)):
                    replicas.append(missing)
            desired.append(ObservedVersion(version.name, count))
        replicas.sort(key=lambda item: (item.created_at, item.id))
        found = ObservedService(spec, tuple(desired), tuple(replicas))
        self._services[spec.name] = _Kept(spec, deployments, pods, told, found)
        return found

    def _replica(
        self,
        pod: Object,
        version: VersionSpec | None,
        events: Mapping[str, list[Object]],
        seen: Seen,
    ) -> Replica:
        uid = uid_of(pod)
        said, restarts = events.get(uid, ()), restarts_of(pod)
        # until the last words of the newest run are read, those of the run before
        tail = seen.tails.get((uid, restarts)) or seen.tails.get((uid, restarts - 1), "")
        stamp = (version_of(pod), _told(said), tail, version)
        kept = self._replicas.get(uid)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        revision = version.revision if version is not None else None
        name = version.name if version is not None else version_label(pod)
        made = replica(pod, revision, name, said, tail, seen.nodes)
        self._replicas[uid] = (stamp, made)
        return made

    def specs(self, secrets: Objects) -> dict[str, ServiceSpec]:
        """Of the services that Slipway deployed, by name; the same objects while nobody changed them."""
        if self._specs_of[0] is secrets:
            return self._specs_of[1]
        found, kept = {}, {}
        for uid, secret in secrets.items():
            if label(secret, names.PART) != names.SERVICES:
                continue
            key = (uid, version_of(secret))
            if key not in self._specs:
                self._specs[key] = spec_of(secret)
            kept[key] = spec = self._specs[key]
            if spec is not None:
                found[spec.name] = spec
        self._specs, self._specs_of = kept, (secrets, found)
        return found

    def by_pod(self, events: Objects) -> dict[str, list[Object]]:
        """What was kept of events, by their pod's uid, in their order."""
        if self._events_of[0] is not events:
            by_pod: dict[str, list[Object]] = {}
            for item in events.values():
                by_pod.setdefault(item["uid"], []).append(item)
            for listed in by_pod.values():
                listed.sort(key=lambda item: item["at"])
            self._events_of = (events, by_pod)
        return self._events_of[1]

    def _forget(self, seen: Seen, services: set[str]) -> None:
        for gone in self._services.keys() - services:
            del self._services[gone]
        if len(self._replicas) > 2 * len(seen.pods) + 100:
            self._replicas = {uid: item for uid, item in self._replicas.items() if uid in seen.pods}


def other_scalers(
    scalers: Objects, deployments: Objects, specs: Iterable[ServiceSpec]
) -> dict[tuple[str, str], str]:
    """Who else scales a version: (service, version) -> "HorizontalPodAutoscaler <name>"."""
    by_name = {item["metadata"]["name"]: item for item in deployments.values()}
    labels = {
        (spec.name, names.selector(spec.name, version.name)[names.VERSION]): version.name
        for spec in specs
        for version in spec.versions
    }
    found = {}
    for item in scalers.values():
        target = item.get("spec", {}).get("scaleTargetRef", {})
        mine = by_name.get(target.get("name", ""))
        if target.get("kind") != "Deployment" or mine is None:
            continue
        service, shown = label(mine, names.SERVICE), version_label(mine)
        name = item["metadata"]["name"]
        found[service, labels.get((service, shown), shown)] = f"HorizontalPodAutoscaler {name}"
    return found


def spec_of(secret: Object) -> ServiceSpec | None:
    """None for one that cannot be read: its service is then not there, and the portal writes it anew."""
    try:
        text = base64.b64decode((secret.get("data") or {})[names.SPEC_KEY])
        return from_json(ServiceSpec, json.loads(text))
    except (KeyError, ValueError, TypeError):
        return None


def _told(events: Sequence[Object]) -> int:
    """Another number once more was said; the same event said again counts up."""
    return sum(said["count"] for said in events)


def _by_service(found: Objects) -> dict[str, list[Object]]:
    by_service: dict[str, list[Object]] = {}
    for item in found.values():  # ten thousand of them in each turn in which one changed
        labels = item["metadata"].get("labels")
        name = labels.get(names.SERVICE) if labels else None
        if not name:
            continue
        mine = by_service.get(name)
        if mine is None:
            by_service[name] = [item]
        else:
            mine.append(item)
    return by_service
