"""The router's control loop of one cluster.

Four times a second: see the cluster through its driver, bring HAProxy there, tell the cluster which
replicas are in rotation, draining and out. Once a second: one sample per version, one verdict of the
autoscaler, and its count given to the driver.

    observe -> prepare -> read -> apply -> publish -> (each second) sample -> decide -> scale

HAProxy serves on without this loop, and this loop finds it again. What was not seen is not acted on:
without an observation no slot changes and nothing is published; without HAProxy's figures there is no
sample, and the autoscaler says so by itself. One service's trouble never stops the others'.

What did not change is not done again: a driver gives the same object for a service that is as it was,
and with it nothing is assigned, mapped, reported or decided anew. So ten thousand replicas that stand cost
little more than their files' times.

Driver calls block and run in a thread; there is one at a time.
"""

import asyncio
import logging
import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from deployments.drivers.base import Driver
from deployments.errors import SlipwayError
from deployments.types import (
    Capacity,
    Observation,
    ObservedService,
    Phase,
    Replica,
    RouteReport,
    RouterSpec,
    ServiceSpec,
    VersionSpec,
)
from router import hindrances, sampling, state
from router.autoscaler import policy, window
from router.autoscaler.policy import Code, Limits
from router.autoscaler.window import Load, Window
from router.autoscaler.window import Standing as Counted
from router.dataplane import DataPlane, Reading
from router.haproxy.pool import Key
from router.haproxy.slots import Wanted
from router.haproxy.stats import BackendFigures, Counters, added
from router.hindrances import Hindrance
from router.request_log import Requests
from router.ring import Ring
from router.samples import DecisionRecord, Sample
from router.sampling import Count, Mark
from router.sizing import Sizing
from router.standing import Standing

log = logging.getLogger(__name__)

TICK = 0.25  # seconds
_GLANCE = 0.05  # between two turns: has the cluster changed?
_REST = 3.0  # an early turn comes no sooner than so many times the last one's length after it
_LATE = 0.5  # a cycle that begins this many seconds late is said
_CAPACITY_EVERY = 10.0
_SAY_AGAIN = 60.0  # the same trouble is said once a minute
_OLD = 4.0  # seconds after which a sample tells nothing of now
# A report or a state file that took this long is not written again before so many times as long.
_PAUSE_TIMES, _PAUSE_FROM, _PAUSE_MOST = 40.0, 0.02, 5.0
_LEAVING = frozenset({Phase.DRAINING, Phase.STOPPED})

NOTHING = Counters()

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
    # made of the above, when the cluster shows something new of this version
    wanted: tuple[Wanted, ...] = ()
    standing: Counted = Counted()
    calm: bool = False  # as many are ready as are wanted, and none comes or goes
    decided: bool = False  # the policy has seen what is new
    loud_at: float = 0.0  # the last second in which somebody asked for it
    stories: tuple[Hindrance, ...] = ()  # what keeps it from its count, for the ledger


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
        requests: Requests | None = None,
    ) -> None:
        self.driver = driver
        self.plane = plane
        self.ring = ring
        self.requests = requests or Requests(ring.epoch, clock())
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
        self.sizing = Sizing(driver, plane, ring.epoch, clock)
        self._capacity: Capacity | None = None
        self._capacity_at = 0.0
        self._said: dict[str, float] = {}
        self._services: tuple[ServiceSpec, ...] = ()
        self._wanted: dict[Key, tuple[Wanted, ...]] = {}
        self._retry: dict[Key, int] = {}
        self._seen: dict[str, ObservedService] = {}
        self._standing = Standing()
        self._reporting, self._keeping = _Pause(), _Pause()
        self._stamp: object = None
        self._kept_from: tuple[object, ...] = ()
        plane.remember(self._kept.backends, self._kept.shapes, self._kept.slots, self._kept.threads)

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
            await self._rest(due, self._clock() + _REST * took)
        self.sizing.close()
        self._keep(final=True)

    async def _rest(self, due: float, early: float) -> None:
        """Until the next turn is due; or until the cluster has changed, but not before `early`."""
        while (left := due - self._clock()) > 0:
            try:
                await asyncio.wait_for(self._stopping.wait(), min(left, _GLANCE))
                return
            except TimeoutError:
                now = self._clock()
                if early <= now < due and await self._driver(self.driver.stamp) != self._stamp:
                    return

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
        if self.latest and self._clock() - next(iter(self.latest.values())).at > _OLD:
            self.latest = {}  # unknown by now

    def _say(self, kind: str, message: str) -> None:
        now = self._clock()
        if now - self._said.get(kind, 0.0) >= _SAY_AGAIN:
            self._said[kind] = now
            log.warning("%s", message)

    # ---- one turn -----------------------------------------------------------------------------

    async def cycle(self) -> None:
        """Observe, route, publish; at the turn of a second also sample and scale."""
        try:
            # before it is looked at: what changes meanwhile is seen as a change again
            self._stamp = await self._driver(self.driver.stamp)
            observation: Observation | None = await self._driver(self.driver.observe)
        except SlipwayError as error:
            observation = None
            self._say("observe", f"the cluster cannot be seen: {error.message}")
        if observation is not None:
            self._take_in(observation)
            await self.plane.prepare(self._services, self._wanted, await self._settings())
        second = math.floor(self._clock())
        turned = second != self._second
        wanted = self._wanted if observation is not None else None
        reading = await self.plane.read(wanted, counters=turned)
        self.status = replace(self.status, read_at=reading.at)
        if observation is not None:
            self._tell_when(reading)
            await self.plane.apply(reading, self._services, self._wanted, self._retry)
        self._standing.update(
            self.plane.slots,
            self.plane.servers,
            {key: version.replicas for key, version in self.versions.items()},
        )
        if observation is not None:
            self._keep()
            await self._publish(observation)
        if turned:
            made = self._sample(reading)
            self._second, self._readings = second, []
            await self._scale(made)
            await self.sizing.turned(reading, self._capacity)
        self._readings.append(reading.figures)

    async def _settings(self) -> RouterSpec | None:
        """How the cluster wants its router; None when that cannot be read, and nothing changes."""
        try:
            return await self._driver(self.driver.router_spec)
        except SlipwayError as error:
            self._say("settings", f"the router's settings cannot be read: {error.message}")
            return None

    def _take_in(self, observation: Observation) -> None:
        self.status = replace(self.status, observed_at=observation.at)
        before, self._seen = self._seen, {item.spec.name: item for item in observation.services}
        if before.keys() == self._seen.keys() and all(
            before[name] is item for name, item in self._seen.items()
        ):
            return
        known, self.versions = self.versions, {}
        for service in observation.services:
            same = before.get(service.spec.name) is service
            for spec in service.spec.versions:
                key = Key(service.spec.name, spec.name)
                version = known.get(key)
                if version is None or not same:
                    version = self._news(key, version, spec, service)
                self.versions[key] = version
        self._services = tuple(item.spec for item in observation.services)
        self._wanted = {key: version.wanted for key, version in self.versions.items()}
        for key in self.totals.keys() - self.versions.keys():
            del self.totals[key]
        for key in known.keys() - self.versions.keys():
            self.ring.add(hindrances.end(known[key].stories, self._clock()))

    def _news(
        self, key: Key, version: Version | None, spec: VersionSpec, service: ObservedService
    ) -> Version:
        """What is known of a version, with what the cluster shows of it now."""
        if version is None:
            version = Version(spec, service.spec, 0)
            version.scaling = policy.State(start_seconds=self._kept.start_seconds.get(str(key)))
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
            if replica.phase is Phase.READY and replica.address
        )

    def _tell_when(self, reading: Reading) -> None:
        """For whoever gets a 503: when to come again. Calm versions that nobody waits for need none."""
        now, retry = self._clock(), {}
        for key, version in self.versions.items():
            figures = reading.figures.get(key)
            queued = 0 if figures is None else figures.queued
            if version.calm and not queued:
                continue
            retry[key] = sampling.retry_after(
                sampling.Coming(
                    version.standing.starting_since,
                    sampling.fell_at(version.replicas),
                    max(version.desired - len(version.replicas), 0),
                    self._usual_start(key),
                ),
                sampling.Queue(
                    queued,
                    self._standing.place(self.plane.backends.get(key, "")).ready
                    * version.spec.revision.concurrency,
                    version.scaling.service_seconds,
                ),
                now,
            )
        if retry != self._retry:
            self._retry = retry

    def _usual_start(self, key: Key) -> float | None:
        """How long a replica of it takes to start: as learnt, else as another version's does."""
        own = self.versions[key].scaling.start_seconds
        if own is not None:
            return own
        others = (
            self.versions[other].scaling.start_seconds
            for other in (
                Key(key.service, item.name) for item in self.versions[key].service.versions
            )
            if other in self.versions
        )
        return max((item for item in others if item is not None), default=None)

    async def _publish(self, observation: Observation) -> None:
        """Where each replica stands. `at` is when the cluster was seen, not now: a drain that the
        cluster began after that is not answered by this report.

        News goes out at once; while a replica is on its way out, the cluster waits for a later report;
        else it is a sign of life.
        """
        awaited = any(
            item.phase in _LEAVING
            for version in self.versions.values()
            if not version.calm
            for item in version.replicas
        )
        now = self._clock()
        if not self._standing.news and not self._reporting.over(
            now, 1.0 if awaited else _PAUSE_MOST
        ):
            return
        report = RouteReport(at=observation.at, routes=self._standing.report())
        try:
            await self._driver(self.driver.publish_routes, report)
        except SlipwayError:
            self._standing.news = True
            raise
        self._reporting = _Pause(now, self._clock() - now)

    def _keep(self, *, final: bool = False) -> None:
        now = self._clock()
        if not final and not self._keeping.over(now, _PAUSE_MOST):
            return
        learnt = {
            str(key): round(version.scaling.start_seconds, 1)
            for key, version in self.versions.items()
            if version.scaling.start_seconds is not None
        }
        plane = self.plane
        source = (plane.backends, plane.shapes, plane.threads, *plane.slots.values())
        if learnt == self._kept.start_seconds and _same(source, self._kept_from):
            return
        versions = {
            f"{key.service}/{item.revision}"
            for key, version in self.versions.items()
            for item in version.replicas
        }
        kept = state.RouterState(
            backends={str(key): name for key, name in self.plane.backends.items()},
            shapes=self.plane.shapes,
            slots=self.plane.held(),
            start_seconds=learnt,
            concurrency={
                name: count for name, count in self._concurrency.items() if name in versions
            },
            threads=plane.threads,
        )
        self._kept_from = source
        if kept != self._kept:
            state.save(self._state_path, kept)
            self._kept = kept
        self._keeping = _Pause(now, self._clock() - now)

    # ---- each second --------------------------------------------------------------------------

    def _sample(self, reading: Reading) -> tuple[Sample, ...]:
        if reading.counted is None:
            return ()
        mark = Mark(reading.at, reading.worker.pid, reading.counted, self.plane.backends)
        changed = sampling.change(self._mark, mark)
        self._mark = mark
        for key, part in changed.by_version.items():
            if key in self.versions:
                self.totals[key] = added(self.totals.get(key, NOTHING), part)
        for key in self.versions:
            self.totals.setdefault(key, NOTHING)
        if self._second is None:
            return ()
        made = sampling.samples(self._second, self._readings, changed, self._counts())
        self.ring.add(made)
        self.latest = {Key(item.service, item.version): item for item in made}
        return made

    def _counts(self) -> dict[Key, Count]:
        counts = {}
        for key, version in self.versions.items():
            place = self._standing.place(self.plane.backends.get(key, ""))
            counts[key] = Count(
                ready=place.ready,
                starting=0
                if version.calm
                else sum(item.phase in sampling.STARTING for item in version.replicas),
                draining=place.leaving,
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
            sample = measured.get(key)
            if sample is not None:
                version.window = version.window.add(window.second([sample]))
                if sample.busy_peak or sample.queued_peak or sample.arrivals or sample.rejected:
                    version.loud_at = sample.at
                elif _still(version, now):
                    continue
            await self._decide(key, version, now)
            version.decided = True

    async def _decide(self, key: Key, version: Version, now: float) -> None:
        revision = version.spec.revision
        load = Load(
            desired=version.desired,
            standing=version.standing,
            window=version.window,
            placeable=sampling.placeable(self._capacity, revision.resources),
        )
        limits = Limits(version.spec.scaling, revision.concurrency)
        decision = policy.decide(load, limits, version.scaling, now)
        version.scaling = decision.state
        before = version.desired
        changes = decision.valid and decision.replicas != before
        refusal = await self._apply_count(key, version, decision.replicas) if changes else ""
        record = _record(now, key, before, decision, changes, refusal)
        if record.applied:
            log.info("%s: %d -> %d: %s", key, before, decision.replicas, decision.reason)
            self.ring.add([record])
        version.stories, rows = hindrances.note(version.stories, record, now)
        self.ring.add(rows)

    async def _apply_count(self, key: Key, version: Version, replicas: int) -> str:
        """Returns why the cluster did not take the count; "" when it did."""
        prefer: tuple[str, ...] = ()
        if replicas < version.desired:
            busy = self._standing.busy(self.plane.backends.get(key, ""))
            prefer = window.removal_order(version.replicas, busy)[: version.desired - replicas]
        try:
            await self._driver(self.driver.scale, key.service, key.version, replicas, prefer)
        except SlipwayError as error:
            log.warning("%s could not be scaled to %d: %s", key, replicas, error.message)
            return error.message or type(error).__name__
        version.desired, version.calm = replicas, False
        self._seen.pop(key.service, None)  # what the cluster made of it is looked at anew
        return ""

    async def _driver(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(call, *arguments)


def _record(
    now: float, key: Key, before: int, decision: policy.Decision, changes: bool, refusal: str
) -> DecisionRecord:
    """The verdict as a row. One that the cluster refused is a hindrance, with what it said."""
    reason = decision.reason
    if refusal:
        reason += f" {decision.replicas} was asked for and the cluster refused it: {refusal}"
    return DecisionRecord(
        at=now,
        service=key.service,
        version=key.version,
        before=before,
        after=decision.replicas if changes else before,
        code=hindrances.NOT_APPLIED if refusal else Code(decision.code).value,
        reason=reason,
        applied=changes and not refusal,
        inputs=decision.inputs,
    )


def _same(some: Sequence[object], others: Sequence[object]) -> bool:
    """Whether these are the very same objects."""
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _still(version: Version, now: float) -> bool:
    """Whether the policy would say again what it said: nothing came, goes or was asked for in its
    whole window, and the count is the least there may be."""
    return (
        version.calm
        and version.decided
        and not version.stories
        and version.desired == version.spec.scaling.minimum
        and now - version.loud_at > window.SPAN_SECONDS + 2
    )


@dataclass(frozen=True, slots=True)
class _Pause:
    """When something was done last and how long that took: what takes long is done more rarely."""

    at: float = 0.0
    took: float = 0.0

    def over(self, now: float, most: float) -> bool:
        if self.took < _PAUSE_FROM:
            return True
        return now - self.at >= min(self.took * _PAUSE_TIMES, most)
