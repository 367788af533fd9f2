"""A fixed count: what a careful person sets who knows the traffic.

PURE. The busiest minute's mean at the target utilisation, from beginning to end. That minute is known only
afterwards, so this flatters the fixed count.
"""

import math
from collections.abc import Sequence

from router.autoscaler.rivals import seen
from router.autoscaler.simulate import Scaler, Setup, Verdict
from router.autoscaler.window import Load


def count(arrivals: Sequence[float], services: Sequence[float], setup: Setup) -> int:
    """Replicas for the busiest minute. A request counts in the minute in which it came."""
    minutes: dict[int, float] = {}
    for arrival, service in zip(arrivals, services, strict=True):
        minute = int(arrival // 60)
        minutes[minute] = minutes.get(minute, 0.0) + service / 60
    wanted = max(minutes.values(), default=0.0) / seen.target(setup.limits)
    return seen.bounded(math.ceil(round(wanted, 9)), setup.limits)


def fixed(arrivals: Sequence[float], services: Sequence[float], setup: Setup) -> Scaler:
    replicas = count(arrivals, services, setup)

    def ask(load: Load, now: float, fresh: bool) -> Verdict | None:
        return Verdict(replicas, "fixed")

    return ask
