"""A recording whose truth is known: made-up requests, run through the simulator and written as samples."""

import random
from bisect import bisect_left

from deployments.types import Scaling
from router.autoscaler.policy import Limits
from router.autoscaler.simulate import Result, Setup, simulate, slipway
from router.samples import BUCKET_BOUNDS_US, BUCKETS
from router.telemetry.models import Second, Series, pack_histogram


def requests(
    seconds: int, rate: float, service: float, burst: float = 1.0
) -> tuple[list[float], list[float]]:
    """So many a second, `burst` times as many in the middle third; each takes about `service` seconds."""
    random_ = random.Random(11)
    arrivals, at = [], 0.0
    while at < seconds:
        here = rate * (burst if seconds / 3 <= at < 2 * seconds / 3 else 1.0)
        at += random_.expovariate(here)
        if at < seconds:
            arrivals.append(at)
    return arrivals, [service * random_.uniform(0.9, 1.1) for _ in arrivals]


def record(
    series: Series,
    begin: int,
    seconds: int,
    *,
    rate: float = 12.0,
    service: float = 0.2,
    burst: float = 3.0,
    limits: Limits | None = None,
    start_seconds: float = 20.0,
) -> Result:
    """Seconds of the simulator's run as rows from `begin` on."""
    limits = limits or Limits(Scaling(minimum=4, maximum=10))
    arrivals, services = requests(seconds, rate, service, burst)
    setup = Setup(limits, start_seconds=start_seconds, seconds=float(seconds))
    result = simulate(arrivals, services, setup, slipway(limits))
    taken = [[0] * BUCKETS for _ in range(seconds)]
    for at, time in zip(arrivals, services, strict=True):
        taken[int(at)][bisect_left(BUCKET_BOUNDS_US, 1e6 * time)] += 1
    Second.objects.bulk_create(
        Second(
            series=series,
            at=begin + point.at,
            arrivals=point.arrivals,
            ok=max(point.arrivals - point.rejected, 0),
            rejected=point.rejected,
            busy=point.busy,
            queued=point.queued,
            ready=point.ready,
            starting=point.starting,
            desired=point.desired,
            service_histogram=pack_histogram(taken[point.at]),
            queue_histogram=pack_histogram([point.arrivals, *[0] * (BUCKETS - 1)]),
        )
        for point in result.points
    )
    return result
