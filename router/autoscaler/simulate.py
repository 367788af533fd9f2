"""A version's requests against an autoscaler: what would have happened.

PURE and deterministic: the same requests, setup and scaler give the same result on any machine. Discrete
events with the semantics of the router: one central queue in order of arrival, exact concurrency, the
replica with the fewest requests next, a queue time-out, 503 at once while no replica is ready, replicas
that start and stop late, idle ones removed first, busy ones drained. The control loop turns four times a
second, as `router.loop` does: it sees what became ready, reads the router, makes a sample of each whole
second, and asks the scaler.

    result = simulate(arrivals, services, Setup(limits, start_seconds=20), slipway(limits))

Requests come when they come; or, with `again`, from clients that wait for an answer before they ask once
more, so that a slow service is asked less.

One request costs 2 to 4 us, a simulated second with our policy about 0.5 ms.
"""

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from typing import NamedTuple, Protocol

from router.autoscaler import policy
from router.autoscaler.policy import Limits, State
from router.autoscaler.window import Load, Reading, Second, Standing, Window

TICK = 0.25  # seconds, as the loop's
_TICKS = 4  # of a second
_NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Setup:
    """What the requests meet. Times are seconds."""

    limits: Limits
    start_seconds: float = 20.0  # from the scale call to a replica that is ready
    stop_seconds: float = 1.0  # from a drained replica's last answer to its end
    initial: int | None = None  # replicas that are ready as it begins; None: the minimum
    queue_seconds: float = 0.5  # a request that waited longer is answered 503
    scoring_seconds: float = 60.0  # a request that takes longer is answered 504
    room: int | None = None  # replicas that the cluster can place in all; None: any number
    seconds: float | None = None  # how long; None: until the last request's second


class Verdict(NamedTuple):
    """What a scaler says: the count from now on, and why."""

    replicas: int
    reason: str = ""


class Scaler(Protocol):
    """An autoscaler with the state of one run. Asked at each turn of the loop (`TICK`).

    `fresh` says that the window has a new second. None: no change.
    """

    def __call__(self, load: Load, now: float, fresh: bool) -> Verdict | None: ...


class Point(NamedTuple):
    """One simulated second, for charts."""

    at: int
    arrivals: int
    busy: float
    queued: float
    rejected: int
    ready: int
    starting: int
    desired: int


class Action(NamedTuple):
    """One change of the count."""

    at: float
    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """How a run went. Waits are of requests that reached a replica, in seconds."""

    requests: int
    answered: int  # by a replica in time
    rejected: int  # 503
    timeouts: int  # 504
    wait_p50: float
    wait_p95: float
    wait_p99: float
    replica_hours: float  # from the scale call to a replica's end, so starts and drains count
    actions: tuple[Action, ...] = ()
    points: tuple[Point, ...] = ()

    @property
    def rejected_share(self) -> float:
        return self.rejected / self.requests if self.requests else 0.0


def slipway(limits: Limits) -> Scaler:
    """Our own policy, unchanged: the very function that the router calls."""
    state = State()

    def ask(load: Load, now: float, fresh: bool) -> Verdict | None:
        nonlocal state
        decision = policy.decide(load, limits, state, now)
        state = decision.state
        return Verdict(decision.replicas, decision.reason) if decision.valid else None

    return ask


@dataclass(slots=True)
class _Replicas:
    """Who is there. A replica is its number, in order of creation."""

    concurrency: int
    created: list[float] = field(default_factory=list)
    inside: list[int] = field(default_factory=list)
    leaving: list[bool] = field(default_factory=list)
    ready: set[int] = field(default_factory=set)
    starting: deque[int] = field(default_factory=deque)
    # Numbers of replicas by how many requests are inside. An entry may be out of date: whoever
    # takes one checks.
    levels: list[list[int]] = field(default_factory=list)
    free: int = 0  # places in ready replicas
    lived: float = 0.0  # seconds of those that ended
    starts: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=20))

    def __post_init__(self) -> None:
        self.levels = [[] for _ in range(self.concurrency)]

    def create(self, count: int, now: float) -> None:
        for _ in range(count):
            self.starting.append(len(self.created))
            self.created.append(now)
            self.inside.append(0)
            self.leaving.append(False)

    def promote(self, now: float, start_seconds: float) -> None:
        """Those whose start is over become ready."""
        while self.starting and self.created[self.starting[0]] + start_seconds <= now:
            number = self.starting.popleft()
            self.ready.add(number)
            self.levels[0].append(number)
            self.free += self.concurrency
            self.starts.append((now, now - self.created[number]))

    def take(self) -> int:
        """A ready replica with the fewest requests inside gets one more. Needs `free`."""
        inside, leaving = self.inside, self.leaving
        self.free -= 1
        for level, stack in enumerate(self.levels):
            while stack:
                number = stack.pop()
                if inside[number] == level and not leaving[number]:
                    inside[number] = level + 1
                    if level + 1 < self.concurrency:
                        self.levels[level + 1].append(number)
                    return number
        raise AssertionError("free places without a replica that has one")

    def remove(self, count: int, now: float, stop_seconds: float) -> None:
        """The youngest on their way first, then ready ones with the fewest requests, drained."""
        while count and self.starting:
            self.lived += now - self.created[self.starting.pop()]
            count -= 1
        order = sorted(self.ready, key=lambda number: (self.inside[number], -number))
        for number in order[:count]:
            self.ready.discard(number)
            self.leaving[number] = True
            self.free -= self.concurrency - self.inside[number]
            if not self.inside[number]:
                self.lived += now + stop_seconds - self.created[number]
        # out-of-date entries would pile up where a level is seldom reached
        keep = self.ready
        self.levels = [
            sorted({number for number in stack if number in keep and self.inside[number] == level})
            for level, stack in enumerate(self.levels)
        ]

    def hours(self, end: float) -> float:
        alive = [*self.ready, *self.starting]
        alive += [n for n, gone in enumerate(self.leaving) if gone and self.inside[n]]
        return (self.lived + sum(end - self.created[number] for number in alive)) / 3600


class _Clients:
    """Those who ask again once they are answered. `times` are the requests to come, kept in order."""

    def __init__(
        self,
        again: Callable[[float, bool], float | None],
        times: list[float],
        services: Sequence[float],
    ) -> None:
        self.services = [*services]
        self._again = again
        self._times = times
        self._firsts = tuple(services)

    def answered(self, at: float, refused: bool, index: int, now: float) -> None:
        """The client's next request is put among those from `index` on, no sooner than `now`."""
        due = self._again(at, refused)
        if due is not None:
            insort(self._times, max(due, now), index)
            self.services.append(self._firsts[len(self.services) % len(self._firsts)])


def simulate(
    arrivals: Sequence[float],
    services: Sequence[float],
    setup: Setup,
    scaler: Scaler,
    *,
    again: Callable[[float, bool], float | None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Result:
    """Run the requests: `arrivals` in seconds from the beginning, in order, and how long each is
    inside a replica. `progress` is told the share that is done, each simulated minute.

    `again` is asked at each answer, with its time and whether it was a refusal, when its client asks
    next; None: never. Then `arrivals` are the clients' first requests, and what follows takes as long at a
    replica as theirs do, in turn; it needs `setup.seconds`.
    """
    if again is not None and setup.seconds is None:
        raise ValueError("clients that ask again and again need an end")
    if len(arrivals) != len(services):
        raise ValueError(f"{len(arrivals)} arrivals and {len(services)} service times")
    scaling, concurrency = setup.limits.scaling, setup.limits.concurrency
    patience, longest = setup.queue_seconds, setup.scoring_seconds
    desired = scaling.minimum if setup.initial is None else setup.initial
    replicas = _Replicas(concurrency)
    replicas.create(desired, 0.0)
    replicas.promote(0.0, 0.0)
    replicas.starts.clear()
    if desired:  # they were there before, and the cluster still knows how long they took
        replicas.starts.append((0.0, setup.start_seconds))
    end = setup.seconds
    if end is None:
        end = math.floor(arrivals[-1]) + 1.0 if len(arrivals) else 0.0
    times = [*arrivals, _NEVER]
    clients = None if again is None else _Clients(again, times, services)
    if clients is not None:
        services = clients.services
    inside, leaving = replicas.inside, replicas.leaving
    # (when a request leaves its replica, the replica); the first entry is never reached
    leaves: list[tuple[float, int]] = [(_NEVER, -1)]
    queue: deque[int] = deque()
    waits: list[float] = []
    rejected = unready = completed = timeouts = total_rejected = 0
    window, readings = Window(), [(0, 0)]
    points: list[Point] = []
    actions: list[Action] = []
    index, arrival, before = 0, times[0], 0
    turns = math.ceil(end * _TICKS)
    for turn in range(1, turns + 1):
        now = turn * TICK
        while True:
            leave, number = leaves[0]
            if arrival <= leave:
                if arrival >= now:
                    break
                if replicas.free:
                    service = services[index]
                    if service > longest:
                        service, timeouts = longest, timeouts + 1
                    heappush(leaves, (arrival + service, replicas.take()))
                elif replicas.ready:
                    queue.append(index)
                else:
                    unready += 1
                    if clients is not None:
                        clients.answered(arrival, True, index + 1, arrival)
                index += 1
                arrival = times[index]
                continue
            if leave >= now:
                break
            completed += 1
            if clients is not None:
                clients.answered(leave, False, index, leave)
                arrival = times[index]
            if queue and not leaving[number]:
                late = leave - patience
                while queue and times[queue[0]] < late:
                    refused = queue.popleft()
                    rejected += 1
                    if clients is not None:
                        clients.answered(times[refused] + patience, True, index, leave)
                        arrival = times[index]
                if queue:
                    waiting = queue.popleft()
                    waits.append(leave - times[waiting])
                    service = services[waiting]
                    if service > longest:
                        service, timeouts = longest, timeouts + 1
                    heapreplace(leaves, (leave + service, number))
                    continue
            heappop(leaves)
            left = inside[number] = inside[number] - 1
            if not leaving[number]:
                replicas.levels[left].append(number)
                replicas.free += 1
            elif not left:
                replicas.lived += leave + setup.stop_seconds - replicas.created[number]
        while queue and times[queue[0]] < now - patience:
            refused = queue.popleft()
            rejected += 1
            if clients is not None:
                clients.answered(times[refused] + patience, True, index, now)
        replicas.promote(now, setup.start_seconds)
        while queue and replicas.free:
            waiting = queue.popleft()
            waits.append(now - times[waiting])
            service = services[waiting]
            if service > longest:
                service, timeouts = longest, timeouts + 1
            heappush(leaves, (now + service, replicas.take()))
        if not replicas.ready:
            unready += len(queue)
            if clients is not None:
                for _ in queue:
                    clients.answered(now, True, index, now)
            queue.clear()
        if clients is not None:
            arrival = times[index]
        busy, queued = len(leaves) - 1, len(queue)
        fresh = turn % _TICKS == 0
        if fresh:
            at = turn // _TICKS - 1
            second = Second(
                at,
                sum(item[0] for item in readings) / len(readings),
                sum(item[1] for item in readings) / len(readings),
                rejected,
                completed,
                not replicas.ready,
                unready,
                index - before,
                len(replicas.ready),
            )
            window = window.add(second)
            points.append(
                Point(at, index - before, second.busy, second.queued, rejected + unready,
                      len(replicas.ready), len(replicas.starting), desired)
            )  # fmt: skip
            total_rejected += rejected + unready
            before, rejected, unready, completed, readings = index, 0, 0, 0, []
            if progress is not None and at % 60 == 59:
                progress(now / end)
        readings.append((busy, queued))
        load = Load(
            desired,
            Standing(
                len(replicas.ready),
                tuple(replicas.created[item] for item in replicas.starting),
                0,
                tuple(replicas.starts),
            ),
            window,
            None if setup.room is None else max(setup.room - desired, 0),
            "",
            Reading(now, busy, queued),
        )
        verdict = scaler(load, now, fresh)
        if verdict is None or verdict.replicas == desired:
            continue
        actions.append(Action(now, desired, verdict.replicas, verdict.reason))
        change, desired = verdict.replicas - desired, verdict.replicas
        if change > 0:
            replicas.create(change, now)
        else:
            replicas.remove(-change, now, setup.stop_seconds)
    # What waits or is inside as it ends is answered: nothing speaks against it.
    total_rejected += rejected + unready
    came = index
    waits.sort()
    served = came - total_rejected
    return Result(
        requests=came,
        answered=served - timeouts,
        rejected=total_rejected,
        timeouts=timeouts,
        wait_p50=_quantile(waits, served, 0.50),
        wait_p95=_quantile(waits, served, 0.95),
        wait_p99=_quantile(waits, served, 0.99),
        replica_hours=replicas.hours(end),
        actions=tuple(actions),
        points=tuple(points),
    )


def _quantile(waited: Sequence[float], served: int, share: float) -> float:
    """Of `served` requests all but `waited` (sorted) did not wait at all."""
    rank = math.ceil(share * served) - 1 - (served - len(waited))
    return waited[min(rank, len(waited) - 1)] if waited and rank >= 0 else 0.0
