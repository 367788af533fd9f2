"""The router's control loop of one cluster.

Four times a second: see the cluster through its driver, bring HAProxy there, tell the cluster which
replicas are in rotation, draining and out; where requests wait, ask the autoscaler whether more are needed
at once. Once a second: one sample per version, one verdict of the autoscaler, its count given to the driver.

    observe -> prepare -> read -> apply -> publish -> (each second) sample -> decide -> scale
                                                   -> (in use) decide on the reading -> scale

    router.versions   what the cluster shows            router.measuring   readings to samples
    router.dataplane  HAProxy                           router.scaler      verdicts and the ledger
    router.standing   where each replica stands         router.reporting   reports and the state file
    router.sizing     the router's own size             router.waits       what a refused client is told

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
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from deployments.drivers.base import Driver
from deployments.errors import SlipwayError
from deployments.types import Observation, RouteReport, RouterSpec
from router import sampling, waits
from router.dataplane import DataPlane, Reading
from router.haproxy.pool import Key
from router.haproxy.stats import Counters
from router.measuring import Measuring
from router.peering import Peering
from router.reporting import Keeper, Reporter
from router.request_log import Requests
from router.ring import Ring
from router.samples import Sample
from router.sampling import Count
from router.scaler import Scaler
from router.sizing import Sizing
from router.standing import Standing
from router.versions import Version, Versions

log = logging.getLogger(__name__)

TICK = 0.25  # seconds
_GLANCE = 0.05  # between two turns: has the cluster changed?
_REST = 1.5  # an early turn comes no sooner than so many times what it takes after the last one
_LATE = 0.5  # a cycle that begins this many seconds late is said
_SAY_AGAIN = 60.0  # the same trouble is said once a minute
_OLD = 4.0  # seconds after which a sample tells nothing of now


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
        peering: Peering | None = None,
    ) -> None:
        self.driver = driver
        self.plane = plane
        self.ring = ring
        self.requests = requests or Requests(ring.epoch, clock())
        self.status = Status()
        self.peering = peering  # None: this router is no pod among others
        self.routed = False  # HAProxy was brought to what the cluster shows, once at least
        self.turned_at = clock()  # when the last turn ended, however it went
        self._tick = tick
        self._clock = clock
        self._stopping = asyncio.Event()
        self._said: dict[str, float] = {}
        self._stamp: object = None
        self._routed_in = 0.0  # seconds of the last turn up to its report
        self._retry: dict[Key, int] = {}
        self._keeper = Keeper(state_path, clock)
        kept = self._keeper.kept
        plane.remember(kept.backends, kept.shapes, kept.slots, kept.threads)
        self._seen = Versions(kept.start_seconds, kept.concurrency)
        self._measuring = Measuring()
        self._standing = Standing()
        self._reporter = Reporter(driver, self._standing, clock)
        self.sizing = Sizing(driver, plane, ring.epoch, clock, peering=peering)
        self._scaler = Scaler(driver, self._seen, ring, self._busy, self._say, clock)

    # ---- for those who look -------------------------------------------------------------------

    @property
    def versions(self) -> dict[Key, Version]:
        return self._seen.by_key

    @property
    def totals(self) -> dict[Key, Counters]:
        """Counts of each version since this run began."""
        return self._measuring.totals

    @property
    def latest(self) -> dict[Key, Sample]:
        """The newest sample of each version, while it tells something of now."""
        return self._measuring.latest

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
            await self._rest(due, self._clock() + _REST * self._routed_in)
        self.sizing.close()
        self._keeper.keep(self.plane, self._seen, final=True)

    async def _rest(self, due: float, early: float) -> None:
        """Until the next turn is due; or until the cluster has changed, but not before `early`."""
        while (left := due - self._clock()) > 0:
            try:
                await asyncio.wait_for(self._stopping.wait(), min(left, _GLANCE))
                return
            except TimeoutError:
                now = self._clock()
                if early <= now < due and await asyncio.to_thread(self.driver.stamp) != self._stamp:
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
        self._measuring.expire(self._clock() - _OLD)
        self.turned_at = self._clock()

    def _say(self, kind: str, message: str) -> None:
        now = self._clock()
        if now - self._said.get(kind, 0.0) >= _SAY_AGAIN:
            self._said[kind] = now
            log.warning("%s", message)

    # ---- one turn -----------------------------------------------------------------------------

    async def cycle(self) -> None:
        """Observe, route, publish; at the turn of a second also sample and scale."""
        began = self._clock()
        observation = await self._observe()
        seen, plane = self._seen, self.plane
        if observation is not None:
            self._take_in(observation)
            await plane.prepare(seen.services, seen.wanted, await self._settings())
        second = math.floor(self._clock())
        turned = self._measuring.turned(second)
        wanted = seen.wanted if observation is not None else None
        reading = await plane.read(wanted, counters=turned)
        self.status = replace(self.status, read_at=reading.at)
        if observation is not None:
            self._tell_when(reading)
            await plane.apply(reading, seen.services, seen.wanted, self._retry)
        self._standing.update(
            plane.slots,
            plane.servers,
            {key: version.replicas for key, version in self.versions.items()},
        )
        if observation is not None:
            self._keeper.keep(plane, seen)
            await self._reporter.publish(observation, self.versions.values())
            self.routed = True
        if self.peering is not None:
            await self.peering.turn()
        self._routed_in = self._clock() - began
        if turned:
            made = self._measuring.turn(second, reading, plane.backends, self._counts())
            if self.peering is None:
                self.ring.add(made)
                await self._scaler.second(made)
            else:
                await self._scaler.look_at_room()
                self.peering.note(second - 1, made if made or not self.versions else None)
            await self.sizing.turned(reading, self._scaler.capacity)
        if self.peering is None:
            await self._scaler.reading(reading.at, reading.figures)
        else:
            await self._led(self.peering, reading)
        self._measuring.note(reading)

    async def _led(self, peering: Peering, reading: Reading) -> None:
        """Of several pods one scales, by what all of them counted."""
        peering.now(reading.figures, self._own_busy)
        if not peering.leading:
            return
        for made in peering.sums():
            self.ring.add(made)
            await self._scaler.second(made)
        await self._scaler.reading(reading.at, peering.figures(reading.figures))

    async def _observe(self) -> Observation | None:
        """The cluster as it is now; None when it cannot be seen."""
        try:
            # before it is looked at: what changes meanwhile is seen as a change again
            self._stamp = await asyncio.to_thread(self.driver.stamp)
            observation = await asyncio.to_thread(self.driver.observe)
        except SlipwayError as error:
            self._say("observe", f"the cluster cannot be seen: {error.message}")
            return None
        self.status = replace(self.status, observed_at=observation.at)
        return observation

    def _take_in(self, observation: Observation) -> None:
        if gone := self._seen.take_in(observation):
            self._scaler.gone(gone)
            self._measuring.only(self.versions)

    async def _settings(self) -> RouterSpec | None:
        """How the cluster wants its router; None when that cannot be read, and nothing changes."""
        try:
            return await asyncio.to_thread(self.driver.router_spec)
        except SlipwayError as error:
            self._say("settings", f"the router's settings cannot be read: {error.message}")
            return None

    def _tell_when(self, reading: Reading) -> None:
        """For whoever gets a 503: when to come again."""
        retry = waits.of_each(self.versions, reading.figures, self._ready, self._clock())
        if retry != self._retry:
            self._retry = retry

    def _ready(self, key: Key) -> int:
        """Replicas of it that take requests."""
        return self._standing.place(self.plane.backends.get(key, "")).ready

    def _busy(self, key: Key) -> dict[str, int]:
        """Requests inside each replica of a version, of all pods of this router."""
        inside = self._own_busy(key)
        for name, count in self.peering.busy(key).items() if self.peering is not None else ():
            inside[name] = inside.get(name, 0) + count
        return inside

    def routes(self) -> RouteReport:
        """Where each replica stands here now."""
        return RouteReport(self.status.observed_at or 0.0, self._standing.report())

    def _own_busy(self, key: Key) -> dict[str, int]:
        return self._standing.busy(self.plane.backends.get(key, ""))

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
