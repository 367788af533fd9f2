"""The router's control loop of one cluster.

Four times a second: see the cluster through its driver, bring HAProxy there, tell the cluster which
replicas are in rotation, draining and out. Once a second: one sample per version, one verdict of the
autoscaler, and its count given to the driver.

    observe -> prepare -> read -> apply -> publish -> (each second) sample -> decide -> scale

HAProxy serves on without this loop, and this loop finds it again. What was not seen is not acted on:
without an observation no slot changes and nothing is published; without HAProxy's figures there is no
sample, and the autoscaler says so by itself. One service's trouble never stops the others'.

Driver calls block and run in a thread; there is one at a time.
"""

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from deployments.drivers.base import Driver
from deployments.errors import SlipwayError
from deployments.types import (
    Capacity,
    Observation,
    Phase,
    Replica,
    ReplicaRoute,
    RouteReport,
    RouteState,
    ServiceSpec,
    VersionSpec,
)
from router import sampling, state
from router.autoscaler import policy, window
from router.autoscaler.policy import Code, Limits
from router.autoscaler.window import Load, Window
from router.dataplane import DataPlane, Reading
from router.haproxy.pool import Key
from router.haproxy.slots import State, Wanted
from router.haproxy.stats import BackendFigures, Counters
from router.ring import Ring
from router.samples import DecisionRecord, Sample
from router.sampling import Count, Mark

log = logging.getLogger(__name__)

TICK = 0.25  # seconds
_LATE = 0.5  # a cycle that begins this many seconds late is said
_CAPACITY_EVERY = 10.0
_SAY_AGAIN = 60.0  # the same trouble is said once a minute

T = TypeVar("T")


@dataclass
class Version:
    """What the loop knows of one version between two cycles."""

    spec: VersionSpec
    service: ServiceSpec
    desired: int
    replicas: tuple[Replica, ...] = ()
    window: Window = Window()
    scaling: policy.State = field(default_factory=policy.State)


@dataclass(frozen=True, slots=True)
class Status:
    """How the loop itself fares, for /healthz and /metrics. Times are epoch seconds."""

    observed_at: float | None = None
    read_at: float | None = None
    cycle_seconds: float = 0.0
    late_cycles: int = 0
    trouble: str = ""


class RouterLoop:
    """`run` until `stop`; `cycle` is one turn, for tests too."""

    def __init__(
        self,
        driver: Driver,
        plane: DataPlane,
        ring: Ring,
        state_path: Path,
        *,
        tick: float = TICK,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.driver = driver
        self.plane = plane
        self.ring = ring
        self.versions: dict[Key, Version] = {}
        self.totals: dict[Key, Counters] = {}  # since this run began, for /metrics
        self.latest: dict[Key, Sample] = {}
        self.status = Status()
        self._tick = tick
        self._clock = clock
        self._stopping = asyncio.Event()
        self._state_path = state_path
        self._kept = state.load(state_path)
        self._concurrency = dict(self._kept.concurrency)
        self._second: int | None = None
        self._readings: list[Mapping[Key, BackendFigures]] = []
        self._mark: Mark | None = None
        self._capacity: Capacity | None = None
        self._capacity_at = 0.0
        self._said: dict[str, float] = {}
        plane.remember(self._kept.backends, self._kept.shapes, self._kept.slots)

    # ---- pacing -------------------------------------------------------------------------------

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """As simple as possible: turn after turn at even times, whatever a turn meets."""
        while not self._stopping.is_set():
            began = self._clock()
            await self.guarded_cycle()
            took = self._clock() - began
            due = (math.floor(began / self._tick) + 1) * self._tick
            late = self._clock() - due
            missed = late > _LATE
            self.status = replace(
                self.status,
                cycle_seconds=took,
                late_cycles=self.status.late_cycles + missed,
            )
            if missed:
                self._say("late", f"a turn took {took:.2f} s; the next one is {late:.2f} s late")
            while due <= self._clock():
                due += self._tick
            try:
                await asyncio.wait_for(self._stopping.wait(), due - self._clock())
            except TimeoutError:
                continue

    async def guarded_cycle(self) -> None:
        """One turn that never raises: its trouble is said, and the next turn begins anew."""
        try:
            await self.cycle()
            if self.status.trouble:
                log.info("the router is well again")
            self.status = replace(self.status, trouble="")
        except SlipwayError as error:
            self.status = replace(self.status, trouble=error.message)
            self._say(type(error).__name__, f"{error.message} {error.evidence}".strip())
        except Exception:  # the loop outlives any bug in one turn
            self.status = replace(self.status, trouble="an unexpected error; see the router's log")
            log.exception("a turn of the router failed")

    def _say(self, kind: str, message: str) -> None:
        now = self._clock()
        if now - self._said.get(kind, 0.0) >= _SAY_AGAIN:
            self._said[kind] = now
            log.warning("%s", message)

    # ---- one turn -----------------------------------------------------------------------------

    async def cycle(self) -> None:
        """Observe, route, publish; at the turn of a second also sample and scale."""
        try:
            observation: Observation | None = await self._driver(self.driver.observe)
        except SlipwayError as error:
            observation = None
            self._say("observe", f"the cluster cannot be seen: {error.message}")
        wanted: dict[Key, tuple[Wanted, ...]] | None = None
        if observation is not None:
            self._take_in(observation)
            wanted = {key: self._wanted(version) for key, version in self.versions.items()}
            await self.plane.prepare(self._services(), wanted)
        second = math.floor(self._clock())
        turned = second != self._second
        reading = await self.plane.read(wanted, counters=turned)
        self.status = replace(self.status, read_at=reading.at)
        if observation is not None and wanted is not None:
            now = self._clock()
            retry = {
                key: sampling.retry_after(version.replicas, version.scaling.start_seconds, now)
                for key, version in self.versions.items()
            }
            await self.plane.apply(reading, self._services(), wanted, retry)
            self._keep()
            await self._driver(self.driver.publish_routes, self._report(observation))
        if turned:
            made = self._sample(reading)
            self._second, self._readings = second, []
            await self._scale(made)
        self._readings.append(reading.figures)

    def _take_in(self, observation: Observation) -> None:
        known, self.versions = self.versions, {}
        for service in observation.services:
            counts = {item.name: item.desired for item in service.desired}
            for spec in service.spec.versions:
                key = Key(service.spec.name, spec.name)
                version = known.get(key)
                if version is None:
                    learnt = self._kept.start_seconds.get(str(key))
                    version = Version(spec, service.spec, 0)
                    version.scaling = policy.State(start_seconds=learnt)
                version.spec, version.service = spec, service.spec
                version.desired = counts.get(spec.name, spec.scaling.minimum)
                version.replicas = tuple(
                    item for item in service.replicas if item.version == spec.name
                )
                self.versions[key] = version
                revision = f"{key.service}/{spec.revision.number}"
                self._concurrency[revision] = spec.revision.concurrency
        self.status = replace(self.status, observed_at=observation.at)

    def _services(self) -> list[ServiceSpec]:
        return list({key.service: item.service for key, item in self.versions.items()}.values())

    def _wanted(self, version: Version) -> tuple[Wanted, ...]:
        service = version.service.name
        return tuple(
            Wanted(
                replica.id,
                replica.address,
                self._concurrency.get(f"{service}/{replica.revision}", 1),
            )
            for replica in version.replicas
            if replica.phase is Phase.READY and replica.address
        )

    def _report(self, observation: Observation) -> RouteReport:
        """Where each replica stands. `at` is when the cluster was seen, not now: a drain that the
        cluster began after that is not answered by this report."""
        routes: dict[str, ReplicaRoute] = {
            replica.id: ReplicaRoute(replica.id, RouteState.OUT, 0)
            for version in self.versions.values()
            for replica in version.replicas
        }
        for slot in self.plane.held():
            if not slot.replica:
                continue
            server = self.plane.servers.get(slot.backend, {}).get(slot.name)
            inside = slot.state is State.JOINED and (server is None or server.up)
            routes[slot.replica] = ReplicaRoute(
                slot.replica,
                RouteState.IN_ROTATION if inside else RouteState.DRAINING,
                server.used if server is not None else 0,
            )
        return RouteReport(at=observation.at, routes=tuple(routes.values()))

    def _keep(self) -> None:
        versions = {
            f"{key.service}/{item.revision}": None
            for key, version in self.versions.items()
            for item in version.replicas
        }
        kept = state.RouterState(
            backends={str(key): name for key, name in self.plane.backends.items()},
            shapes=self.plane.shapes,
            slots=self.plane.held(),
            start_seconds={
                str(key): round(version.scaling.start_seconds, 1)
                for key, version in self.versions.items()
                if version.scaling.start_seconds is not None
            },
            concurrency={
                name: count for name, count in self._concurrency.items() if name in versions
            },
        )
        if kept != self._kept:
            state.save(self._state_path, kept)
            self._kept = kept

    # ---- each second --------------------------------------------------------------------------

    def _sample(self, reading: Reading) -> tuple[Sample, ...]:
        if reading.counters is None:
            return ()
        mark = Mark(reading.at, reading.worker.pid, reading.counters)
        before, self._mark = self._mark, mark
        if self._second is None:
            return ()
        made = sampling.samples(self._second, self._readings, before, mark, self._counts())
        self.ring.add(made)
        self.latest = {Key(item.service, item.version): item for item in made}
        totals = {key: self.totals.get(key, Counters()) for key in self.versions}
        for key, item in self.latest.items():
            totals[key] = _added(totals[key], item)
        self.totals = totals
        return made

    def _counts(self) -> dict[Key, Count]:
        inside: dict[str, int] = defaultdict(int)
        leaving: dict[str, int] = defaultdict(int)
        for slot in self.plane.held():
            server = self.plane.servers.get(slot.backend, {}).get(slot.name)
            if slot.state is not State.JOINED:
                leaving[slot.backend] += 1
            elif server is None or server.up:
                inside[slot.backend] += 1
        counts = {}
        for key, version in self.versions.items():
            backend = self.plane.backends.get(key, "")
            counts[key] = Count(
                ready=inside[backend],
                starting=sum(item.phase in sampling.STARTING for item in version.replicas),
                draining=leaving[backend],
                desired=version.desired,
            )
        return counts

    async def _scale(self, made: Sequence[Sample]) -> None:
        now = self._clock()
        if now - self._capacity_at >= _CAPACITY_EVERY:
            self._capacity_at = now
            try:
                self._capacity = await self._driver(self.driver.capacity)
            except SlipwayError as error:
                self._capacity = None  # unknown, not full
                self._say("capacity", f"the cluster's room is not known: {error.message}")
        measured = {Key(item.service, item.version): item for item in made}
        for key, version in self.versions.items():
            if key in measured:
                version.window = version.window.add(window.second([measured[key]]))
            await self._decide(key, version, now)

    async def _decide(self, key: Key, version: Version, now: float) -> None:
        revision = version.spec.revision
        load = Load(
            desired=version.desired,
            standing=window.standing(version.replicas),
            window=version.window,
            placeable=sampling.placeable(self._capacity, revision.resources),
        )
        limits = Limits(version.spec.scaling, revision.concurrency)
        decision = policy.decide(load, limits, version.scaling, now)
        version.scaling = decision.state
        before = version.desired
        applied = False
        if decision.valid and decision.replicas != before:
            applied = await self._apply_count(key, version, decision.replicas)
        if decision.news:
            level = logging.INFO if applied else logging.DEBUG
            log.log(level, "%s: %d -> %d: %s", key, before, decision.replicas, decision.reason)
            self.ring.add([_record(now, key, before, decision, applied)])

    async def _apply_count(self, key: Key, version: Version, replicas: int) -> bool:
        prefer: tuple[str, ...] = ()
        if replicas < version.desired:
            busy = {
                slot.replica: server.used
                for slot in self.plane.held()
                if (server := self.plane.servers.get(slot.backend, {}).get(slot.name)) is not None
            }
            prefer = window.removal_order(version.replicas, busy)[: version.desired - replicas]
        try:
            await self._driver(self.driver.scale, key.service, key.version, replicas, prefer)
        except SlipwayError as error:
            log.warning("%s could not be scaled to %d: %s", key, replicas, error.message)
            return False
        version.desired = replicas
        return True

    async def _driver(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(call, *arguments)


def _record(
    now: float, key: Key, before: int, decision: policy.Decision, applied: bool
) -> DecisionRecord:
    after = decision.replicas if decision.code not in policy.PREVENTED else before
    return DecisionRecord(
        at=now,
        service=key.service,
        version=key.version,
        before=before,
        after=after,
        code=Code(decision.code).value,
        reason=decision.reason,
        applied=applied,
        inputs=decision.inputs,
    )


def _added(total: Counters, sample: Sample) -> Counters:
    return Counters(
        arrivals=total.arrivals + sample.arrivals,
        ok=total.ok + sample.ok,
        client_errors=total.client_errors + sample.client_errors,
        rejected=total.rejected + sample.rejected,
        unready=total.unready + sample.unready,
        timeouts=total.timeouts + sample.timeouts,
        failures=total.failures + sample.failures,
        histogram=tuple(a + b for a, b in zip(total.histogram, sample.histogram, strict=True)),
    )
