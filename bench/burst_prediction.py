"""What `router.autoscaler.simulate` says of the burst that `bench/burst` makes.

PURE. The clients are as the bench's own: each waits for its answer and asks again at once, after a 503 it
waits a moment; when the burst is over one of them goes on, slowly. The loop may turn at any moment of the
burst's first quarter second, so figures are means over several of them.
"""

import statistics
from dataclasses import dataclass

from deployments.types import Scaling
from router.autoscaler.policy import Limits
from router.autoscaler.simulate import TICK, Result, Setup, simulate, slipway

LEAD = 70.0  # idle seconds before it, as many as the policy looks back
PHASES = 4


@dataclass(frozen=True, slots=True)
class Burst:
    """Times are seconds."""

    clients: int
    seconds: float  # of the burst
    after: float  # observed after it
    service_seconds: float
    start_seconds: float  # from a replica's being asked for to its being ready
    maximum: int
    back_off: float  # after a 503
    pause: float  # between the requests of the one client that goes on


@dataclass(frozen=True, slots=True)
class Figures:
    """What can be compared. Times are seconds since the burst began; None: it did not happen."""

    asked: float | None  # the first scale call
    replicas: int  # the most that were ready
    ready: tuple[float, ...]  # when the second, third ... replica was
    requests: int  # of the burst
    rejected: int
    replica_seconds: float  # of ready and starting ones, until the end of what was observed
    down: float | None  # the first step down
    lost: int  # refused after the burst

    @property
    def rejected_share(self) -> float:
        return self.rejected / self.requests if self.requests else 0.0


def predict(burst: Burst) -> Figures:
    """Means over the phases; counts are rounded."""
    runs = [_once(burst, LEAD + TICK * (number + 0.5) / PHASES) for number in range(PHASES)]
    asked = [run.asked for run in runs if run.asked is not None]
    down = [run.down for run in runs if run.down is not None]
    return Figures(
        asked=statistics.mean(asked) if asked else None,
        replicas=round(statistics.mean(run.replicas for run in runs)),
        ready=tuple(map(statistics.mean, zip(*(run.ready for run in runs), strict=False))),
        requests=round(statistics.mean(run.requests for run in runs)),
        rejected=round(statistics.mean(run.rejected for run in runs)),
        replica_seconds=statistics.mean(run.replica_seconds for run in runs),
        down=statistics.mean(down) if down else None,
        lost=max(run.lost for run in runs),
    )


def _once(burst: Burst, begin: float) -> Figures:
    limits = Limits(Scaling(autoscale=True, minimum=1, maximum=burst.maximum))
    end = begin + burst.seconds
    setup = Setup(limits, burst.start_seconds, seconds=end + burst.after)
    clients = _Clients(burst, end)
    first = [begin] * burst.clients
    services = [burst.service_seconds] * burst.clients
    result = simulate(first, services, setup, slipway(limits), again=clients)
    ups = [action for action in result.actions if action.after > action.before]
    downs = [action for action in result.actions if action.after < action.before]
    points = [point for point in result.points if point.at >= int(begin)]
    return Figures(
        asked=ups[0].at - begin if ups else None,
        replicas=max(point.ready for point in points),
        ready=_ready(result, begin),
        requests=clients.requests,
        rejected=clients.rejected,
        replica_seconds=sum(float(point.ready + point.starting) for point in points),
        down=downs[0].at - begin if downs else None,
        lost=clients.lost,
    )


def _ready(result: Result, begin: float) -> tuple[float, ...]:
    """When each count beyond one was ready: at the end of a second, as samples have it."""
    found: list[float] = []
    for point in result.points:
        while point.at >= int(begin) and len(found) < point.ready - 1:
            found.append(point.at + 1 - begin)
    return tuple(found)


class _Clients:
    """Told of each answer; says when that client asks next."""

    def __init__(self, burst: Burst, end: float) -> None:
        self.requests = self.rejected = self.lost = 0
        self._burst = burst
        self._end = end
        self._busy = burst.clients  # of those that have not noticed yet that it is over

    def __call__(self, answered: float, refused: bool) -> float | None:
        if self._busy:
            self.requests += 1
            self.rejected += refused
            due = answered + (self._burst.back_off if refused else 0.0)
            if due < self._end:
                return due
            self._busy -= 1
            return None if self._busy else due + self._burst.pause
        self.lost += refused
        return answered + self._burst.pause


def compared(real: Figures, predicted: Figures) -> dict[str, bool]:
    """Whether each figure is within 15 % of what was predicted. A time to the scale call may differ by
    a turn of the loop, and a share of refusals by half a percent of all: below that it is chance."""
    asked = None not in (real.asked, predicted.asked) and _near(
        real.asked or 0.0, predicted.asked or 0.0, TICK
    )
    return {
        "asked": asked,
        "replicas": _near(real.replicas, predicted.replicas),
        "rejected_share": _near(real.rejected_share, predicted.rejected_share, 0.005),
        "replica_seconds": _near(real.replica_seconds, predicted.replica_seconds),
    }


def _near(real: float, predicted: float, least: float = 0.0) -> bool:
    return abs(real - predicted) <= max(0.15 * predicted, least)
