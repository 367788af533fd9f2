"""What the policy looks at: the last minute of one version, second by second, and its replicas.

PURE. A second that could not be measured is absent, never zero. Seconds are added up over the
cluster's routers before they come in here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployments.types import Phase, Replica
from router.samples import Sample

SPAN_SECONDS = 60  # how far back the policy looks before it goes down

_COMING = frozenset({Phase.SCHEDULING, Phase.PULLING, Phase.STARTING, Phase.LOADING})
# A replica that fails again after its second restart is in a crash loop, not on its way.
_CRASH_LOOP_RESTARTS = 2


@dataclass(frozen=True, slots=True)
class Second:
    """One measured second of a version, over all routers."""

    at: int  # begins here, epoch seconds
    busy: float = 0.0  # requests inside replicas, mean of the second
    queued: float = 0.0  # requests waiting in the router, mean
    rejected: int = 0  # 503 in this second although a replica was ready: all of them were taken
    completed: int = 0  # requests that replicas finished with: answers, failures and time-outs
    cold: bool = False  # no replica was ready at any router when the second ended
    unready: int = 0  # 503 because no replica was ready, which says nothing about load
    arrivals: int = 0  # requests that came
    ready: int = 0  # replicas in rotation; 0 where that is not known


def second(samples: Sequence[Sample]) -> Second:
    """The samples of the same second from each router, added up. At least one is needed."""
    return Second(
        at=samples[0].at,
        busy=sum(sample.busy for sample in samples),
        queued=sum(sample.queued for sample in samples),
        rejected=sum(sample.rejected - sample.unready for sample in samples),
        unready=sum(sample.unready for sample in samples),
        completed=sum(sample.ok + sample.failures + sample.timeouts for sample in samples),
        cold=not any(sample.ready for sample in samples),
        arrivals=sum(sample.arrivals for sample in samples),
        ready=max(sample.ready for sample in samples),
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """What stands in the router at one moment, over all routers: taken four times a second."""

    at: float
    busy: int = 0
    queued: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """Measured seconds of the last minute, oldest first. A new loop begins with an empty one."""

    seconds: tuple[Second, ...] = ()

    def add(self, new: Second) -> "Window":
        """With one more second; what is older than the span falls out. A repeat changes nothing."""
        if self.seconds and new.at <= self.seconds[-1].at:
            return self
        oldest, first = new.at - SPAN_SECONDS + 1, 0
        while first < len(self.seconds) and self.seconds[first].at < oldest:
            first += 1
        return Window((*self.seconds[first:], new))


@dataclass(frozen=True, slots=True)
class Standing:
    """How a version's replicas stand. Draining and stopped ones are not in here."""

    ready: int = 0
    starting_since: tuple[float, ...] = ()  # when those on their way began, oldest first
    crashing: int = 0  # in a crash loop: wanted, but no capacity to wait for
    # (moment it became ready, seconds that took) of replicas on their first run, in that order
    starts: tuple[tuple[float, float], ...] = ()


def standing(replicas: Iterable[Replica]) -> Standing:
    """Count a version's replicas as the policy needs them."""
    ready = crashing = 0
    starting: list[float] = []
    starts: list[tuple[float, float]] = []
    for replica in replicas:
        if replica.phase is Phase.READY:
            ready += 1
            if replica.ready_at is not None and replica.restarts == 0:
                starts.append((replica.ready_at, replica.ready_at - replica.created_at))
        elif replica.phase is Phase.CRASHED or (
            replica.phase in _COMING and replica.restarts >= _CRASH_LOOP_RESTARTS
        ):
            crashing += 1
        elif replica.phase in _COMING:
            again = replica.started_at if replica.restarts else None
            starting.append(replica.created_at if again is None else again)
    return Standing(ready, tuple(sorted(starting)), crashing, tuple(sorted(starts)))


@dataclass(frozen=True, slots=True)
class Load:
    """All that one decision is made from, besides the limits and the policy's own state."""

    desired: int  # replicas wanted now, as the cluster keeps it
    standing: Standing = Standing()
    window: Window = Window()
    placeable: int | None = None  # more replicas the cluster has room for; None is unknown
    other_scaler: str = ""  # who else scales this version, such as an HPA's name
    # The newest look at the router, newer than the window's last second. None: decide on seconds.
    reading: Reading | None = None


def removal_order(replicas: Iterable[Replica], busy: dict[str, int]) -> tuple[str, ...]:
    """Ids of a version's replicas in the order to remove them.

    Those that serve nobody first (crashed, then the youngest on their way), then ready ones with
    the fewest requests inside, the youngest of them first. `busy` is by replica id; a replica
    that the router has not reported counts as busiest.
    """

    def key(replica: Replica) -> tuple[int, int, float]:
        if replica.phase is Phase.CRASHED:
            return (0, 0, -replica.created_at)
        if replica.phase in _COMING:
            return (1, -replica.restarts, -replica.created_at)
        return (2, busy.get(replica.id, 1 << 30), -replica.created_at)

    here = [item for item in replicas if item.phase not in (Phase.DRAINING, Phase.STOPPED)]
    return tuple(replica.id for replica in sorted(here, key=key))
