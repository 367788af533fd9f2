"""Other autoscalers, written anew from what their projects publish, to be compared with in the simulator.

PURE. None of them is used to scale anything. Each one sees what it would see where it lives, busy and
queued requests, and none sees requests that the router rejected: their own front doors count what is
inside or waiting. All get the same target utilisation as ours.
"""

from collections.abc import Callable, Sequence

from router.autoscaler.policy import Limits
from router.autoscaler.rivals.fixed import fixed
from router.autoscaler.rivals.hpa import hpa
from router.autoscaler.rivals.kpa import kpa
from router.autoscaler.rivals.oracle import oracle
from router.autoscaler.rivals.ray import ray
from router.autoscaler.simulate import Scaler, Setup, slipway

Make = Callable[[Sequence[float], Sequence[float], Setup], Scaler]


def _seeing(make: Callable[[Limits], Scaler]) -> Make:
    """Most do not know the requests beforehand."""
    return lambda arrivals, services, setup: make(setup.limits)


SCALERS: dict[str, Make] = {
    "slipway": _seeing(slipway),
    "kpa": _seeing(kpa),
    "hpa": _seeing(hpa),
    "ray": _seeing(ray),
    "fixed": fixed,
    "oracle": oracle,
}
