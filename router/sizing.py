"""The router measures itself each second and is made as large as `router.selfscale` says.

Each second: the probe's answer, HAProxy's own word and the CPU time of its processes become one
`RouterSample`; the verdict is acted on (threads through the data plane, which reloads HAProxy in its next
turn; pods through the driver) and kept, with what was prevented, for the portal. In memory only: the
portal has the history, and the size itself stands in HAProxy and in the loop's state file.

Never raises into the loop and never makes it wait: the probe has a thread of its own, and an answer that
is not there yet has already taken as long as it is awaited.
"""

import asyncio
import logging
import math
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import psutil

from deployments.drivers.base import Driver
from deployments.errors import SlipwayError
from deployments.types import Capacity, NodeCapacity, RouterPods
from router import probe, selfscale
from router.dataplane import DataPlane, Reading
from router.haproxy import stats
from router.peering import Peering
from router.selfscale import CHANGES, PREVENTED, Code, Decision, Limits, Room, Second, Size
from router.size_wire import RouterSample, SizeDecision, SizePage

log = logging.getLogger(__name__)

NOT_APPLIED = "not_applied"  # the verdict was right and could not be carried out
_RING = 10_000  # rows: some hours
_DONE_SECONDS = 60.0  # within which HAProxy should have the size asked for
_TELL_SECONDS = 60.0  # a hindrance that goes on is told again
_GONE_SECONDS = 15.0  # not met for so long: over
_LONGEST_GAP = 3.0  # between two readings; a longer one is no second


class Sizing:
    """One router's size. `turned` is called once a second, on the event loop."""

    def __init__(
        self,
        driver: Driver,
        plane: DataPlane,
        epoch: str,
        clock: Callable[[], float] = time.time,
        ask: Callable[[str, int], float] = probe.routing_ms,
        peering: Peering | None = None,
    ) -> None:
        self._peering = peering
        self.epoch = epoch
        self.latest: RouterSample | None = None
        self.decision: Decision | None = None
        self._driver = driver
        self._plane = plane
        self._clock = clock
        self._ask = ask
        self._state = selfscale.State()
        self._probe: asyncio.Task[float | None] | None = None
        self._probe_at = 0.0
        self._used: dict[int, float] = {}  # CPU seconds by process
        self._before: tuple[float, int, int] | None = None  # when, worker, its requests
        self._frontend = (0, 0)  # connections, requests
        self._rows: deque[RouterSample | SizeDecision] = deque(maxlen=_RING)
        self._next = 0
        self._asked: SizeDecision | None = None  # a change that HAProxy has not made yet
        self._story: SizeDecision | None = None  # what it is prevented from
        self._told_at = self._met_at = 0.0

    async def turned(self, reading: Reading, capacity: Capacity | None) -> None:
        """A second is over. `reading` is the newest, `capacity` None where that is unknown."""
        now = self._clock()
        routing = self._answered(now)
        pods = await self._pods()
        size = Size(reading.worker.threads, 1 if pods is None else pods.pods)
        limits, room = self._limits(reading, capacity, pods), self._room(reading, capacity, pods)
        sample = None
        if await self._clients():
            sample = self._sample(reading, routing, size, limits, now)
        # after the frontend was read: a probe is no client
        self._probe_at = self._clock()
        settings = self._plane.settings
        self._probe = asyncio.create_task(self._asked_now(settings.bind, settings.port))
        self.latest = sample
        if sample is not None:
            self._keep(sample)
        second = None
        if sample is not None:
            second = Second(now, sample.routing_ms, sample.idle, sample.cpu)
        if self._asked is not None:
            self._follow(self._asked, size, now)
            if self._asked is not None:
                return  # the change is on its way
        decision = selfscale.decide(second, size, limits, room, self._state, now)
        self._state, self.decision = decision.state, decision
        if decision.code in CHANGES:
            await self._apply(size, decision, now)
        self._note(size, decision, now)

    def close(self) -> None:
        """Nothing is asked any more."""
        if self._probe is not None:
            self._probe.cancel()

    def page(self, after: int, limit: int = 2000) -> SizePage:
        """Rows from number `after` on, at most `limit`; those that fell out are skipped."""
        first = self._next - len(self._rows)
        start = min(max(after - first, 0), len(self._rows))
        rows = list(islice(self._rows, start, start + limit))
        return SizePage(
            epoch=self.epoch,
            next=first + start + len(rows),
            samples=tuple(row for row in rows if isinstance(row, RouterSample)),
            decisions=tuple(row for row in rows if isinstance(row, SizeDecision)),
        )

    def _keep(self, sample: RouterSample) -> None:
        """This process' figures, or of several pods the leader's sum of them."""
        if self._peering is None:
            self._add(sample)
            return
        self._peering.own_size = sample
        if self._peering.leading:
            self._add(self._peering.together(sample))

    def _add(self, row: RouterSample | SizeDecision) -> None:
        self._rows.append(row)
        self._next += 1

    # ---- measuring ----------------------------------------------------------------------------

    async def _asked_now(self, bind: str, port: int) -> float | None:
        try:
            return await asyncio.to_thread(self._ask, bind, port)
        except SlipwayError as error:
            log.debug("%s", error.message)
            return None

    def _answered(self, now: float) -> float | None:
        """Milliseconds of the probe that was sent a second ago; None: refused, or none was sent."""
        sent, self._probe = self._probe, None
        if sent is None:
            return None
        if sent.done():
            return None if sent.cancelled() or sent.exception() else sent.result()
        sent.cancel()
        return 1000 * (now - self._probe_at)

    async def _clients(self) -> bool:
        """What the frontend has of clients; the other sockets' connections are the loop's own."""
        try:
            [told] = await self._plane.haproxy.runtime.ask(["show stat scoring 1 -1"])
            self._frontend = stats.parse_frontend(told)
        except (SlipwayError, stats.Unreadable) as error:
            log.debug("the frontend's figures cannot be read: %s", error)
            self._before = None
            return False
        return True

    def _sample(
        self, reading: Reading, routing: float | None, size: Size, limits: Limits, now: float
    ) -> RouterSample | None:
        """None where there is nothing to compare with: the first second, another worker, a gap."""
        worker = reading.worker
        before, self._before = self._before, (reading.at, worker.pid, self._frontend[1])
        known, self._used = self._used, _cpu_seconds((worker.pid, *self._plane.old_workers))
        if before is None or before[1] != worker.pid or worker.pid not in known:
            return None
        seconds = reading.at - before[0]
        if not 0 < seconds <= _LONGEST_GAP:
            return None
        probed = probe.REQUESTS if routing is not None else 0
        used = sum(max(total - known.get(pid, total), 0.0) for pid, total in self._used.items())
        return RouterSample(
            at=math.floor(now) - 1,
            routing_ms=None if routing is None else round(routing, 3),
            idle=worker.idle,
            cpu=round(used / seconds, 4),
            threads=size.threads,
            pods=size.pods,
            cores=limits.cores,
            connections=self._frontend[0],
            requests=round(max(self._frontend[1] - before[2] - probed, 0) / seconds, 2),
        )

    async def _pods(self) -> RouterPods | None:
        try:
            return await asyncio.to_thread(self._driver.router_pods)
        except SlipwayError as error:
            log.debug("the router's pods are not known: %s", error.message)
            return None

    def _limits(
        self, reading: Reading, capacity: Capacity | None, pods: RouterPods | None
    ) -> Limits:
        following = self._plane.following
        least, most = (1, 1) if pods is None else (pods.least, pods.most)
        if pods is not None and self._peering is not None and not self._peering.leading:
            least = most = pods.pods  # how many there are is the leader's to say
        spec = following.asked or following.spec
        node = _node(capacity, self._plane.settings.node)
        there = reading.worker.threads if node is None else max(int(node.cpu_total), 1)
        return Limits(
            purpose=spec.purpose,
            cores=min(spec.cores, there)
            if spec.cores and node is not None
            else spec.cores or there,
            exact=reading.worker.version >= selfscale.EXACT_THREADS,
            gated=self._plane.settings.gated,
            least_pods=least,
            most_pods=most,
        )

    def _room(self, reading: Reading, capacity: Capacity | None, pods: RouterPods | None) -> Room:
        """What replicas leave and the router does not have already."""
        node = _node(capacity, self._plane.settings.node)
        return Room(
            cores=None if node is None else node.cpu_free - reading.worker.threads,
            pods=None if pods is None else pods.free,
        )

    # ---- acting -------------------------------------------------------------------------------

    async def _apply(self, size: Size, decision: Decision, now: float) -> None:
        record = _record(size, decision, now)
        try:
            if decision.size.pods != size.pods:
                await asyncio.to_thread(self._driver.resize_router, decision.size.pods)
            self._plane.threads = decision.size.threads
        except SlipwayError as error:
            self._prevented(_not_applied(record, error.message), now)
            return
        log.info("the router's size: %s", decision.reason)
        self._asked = record
        self._add(record)

    def _follow(self, asked: SizeDecision, size: Size, now: float) -> None:
        """Whether the change asked for has been made."""
        if (size.threads, size.pods) == (asked.threads_after, asked.pods_after):
            self._add(replace(asked, done_at=now))
            self._asked = None
        elif self._plane.threads != asked.threads_after:
            self._asked = None
            self._add(_not_applied(asked, "HAProxy refused its new configuration."))
        elif now - asked.at > _DONE_SECONDS:
            self._asked = None
            self._plane.threads = size.threads
            self._add(_not_applied(asked, f"it was not so after {_DONE_SECONDS:.0f} s."))

    def _note(self, size: Size, decision: Decision, now: float) -> None:
        """A hindrance is one row that is told when it begins, while it goes on, and at its end."""
        if decision.code in PREVENTED:
            self._prevented(_record(size, decision, now), now)
        elif self._story is not None and (
            decision.code in CHANGES or now - self._met_at >= _GONE_SECONDS
        ):
            self._add(replace(self._story, until=self._met_at, over=True))
            self._story = None

    def _prevented(self, record: SizeDecision, now: float) -> None:
        story = self._story
        self._met_at = now
        if story is not None and story.code == record.code:
            if now - self._told_at >= _TELL_SECONDS:
                self._told_at = now
                self._add(replace(story, until=now))
            return
        if story is not None:
            self._add(replace(story, until=now, over=True))
        log.info("the router's size stays: %s", record.reason)
        self._story, self._told_at = record, now
        self._add(replace(record, until=now))


def _record(size: Size, decision: Decision, now: float) -> SizeDecision:
    return SizeDecision(
        at=now,
        code=Code(decision.code).value,
        reason=decision.reason,
        threads_before=size.threads,
        threads_after=decision.size.threads,
        pods_before=size.pods,
        pods_after=decision.size.pods,
        applied=decision.code in CHANGES,
        inputs=decision.inputs,
    )


def _not_applied(record: SizeDecision, why: str) -> SizeDecision:
    return replace(
        record,
        code=NOT_APPLIED,
        reason=f"{record.reason} That could not be carried out: {why}",
        threads_after=record.threads_before,
        pods_after=record.pods_before,
        applied=False,
    )


def _node(capacity: Capacity | None, name: str) -> NodeCapacity | None:
    """The machine that this router runs on; None where it is not among the cluster's."""
    if capacity is None:
        return None
    own = [
        node for node in capacity.nodes if node.name == (name or socket.gethostname())
    ] or capacity.nodes
    return own[0] if len(own) == 1 else None


def _cpu_seconds(pids: Sequence[int]) -> dict[int, float]:
    """User and system time of each process that is there."""
    found = {}
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        found[pid] = times.user + times.system
    return found
