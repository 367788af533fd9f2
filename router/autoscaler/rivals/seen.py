"""What more than one of them needs.

PURE.
"""

from collections.abc import Sequence

from router.autoscaler.policy import Limits
from router.autoscaler.window import Second


def target(limits: Limits) -> float:
    """Requests at a time that one replica should have."""
    return limits.concurrency * limits.scaling.target_utilization / 100


def bounded(count: int, limits: Limits) -> int:
    return min(max(count, limits.scaling.minimum), limits.scaling.maximum)


def mean(seconds: Sequence[Second], last: int) -> float:
    """Requests inside replicas or waiting, averaged over the last so many measured seconds."""
    newest = seconds[-1].at
    values = [item.busy + item.queued for item in seconds if item.at > newest - last]
    return sum(values) / len(values)
