"""What a second asked for: requests at a time, and replicas for them.

PURE. demand = busy + queued + rejected work. Rejected requests a second become work by how long a
request takes (Little's law); where that is not known yet, each counts as one. Once it is known, a
queue of quick requests counts as what works it off in a quarter of a second, and what waits while
others are refused is not counted twice.
"""

import math
from collections.abc import Sequence

from router.autoscaler.state import Limits, State
from router.autoscaler.window import Second

QUEUE_SECONDS = 0.25  # in which a queue should be worked off: the time between two readings
# Of a shortage that lasts, and of steady load: single requests do not show. What starts slowly is
# sized for what lasts longer.
SHORTAGE_SECONDS, MEAN_SECONDS, LONGEST_MEAN_SECONDS = 5, 20, 60
CHANCE = 0.25  # requests come in clusters: so many more than slots for a second is no shortage


def demand(second: Second, service_seconds: float | None) -> float:
    """Requests at a time that wanted to be inside replicas in this second."""
    refused = rejected_work(second, service_seconds)
    if service_seconds is None:
        return second.busy + second.queued + refused
    # What waits in a second with refusals is what will be refused next: counted once.
    return second.busy + max(second.queued * min(service_seconds / QUEUE_SECONDS, 1.0), refused)


def offered(second: Second, service_seconds: float | None) -> float:
    """Demand, but no more queued than comes by Little's law: what waits while replicas start would
    otherwise be counted in each second in which it waits. Arrivals of 0 are not known."""
    most = demand(second, service_seconds)
    if service_seconds is None or not second.arrivals:
        return most
    least = second.busy + rejected_work(second, service_seconds)
    return max(min(most, second.arrivals * service_seconds), least)


def rejected_work(second: Second, service_seconds: float | None) -> float:
    """Requests at a time that the rejected ones would have been."""
    return second.rejected * (1.0 if service_seconds is None else service_seconds)


def short(second: Second, slots: int, service_seconds: float | None) -> bool:
    """Whether slots were short (0 is unknown): requests were refused, or more of them waited than
    a moment's chance brings."""
    if second.rejected or not slots:
        return bool(second.rejected or second.queued)
    return demand(second, service_seconds) > slots * (1 + CHANCE)


def wants(second: Second, limits: Limits, service_seconds: float | None, slots: int) -> float:
    """Replicas that this second by itself asks for, not rounded."""
    each = share(limits) if short(second, slots, service_seconds) else limits.concurrency
    return demand(second, service_seconds) / each


def mean_seconds(start_seconds: float | None) -> int:
    return round(min(max(start_seconds or 0.0, MEAN_SECONDS), LONGEST_MEAN_SECONDS))


def shortage(seconds: Sequence[Second], limits: Limits, state: State, coming: bool) -> float:
    """Replicas that the newest seconds in a row ask for in which slots were short: their mean, for
    one second by itself may be twice the next. Never fewer than the newest one's own slots. While
    replicas start (`coming`), what waits for them counts once."""
    row: list[float] = []
    service_seconds = state.service_seconds
    most = round(min(max(state.start_seconds or 0.0, SHORTAGE_SECONDS), LONGEST_MEAN_SECONDS / 2))
    for second in reversed(seconds[-most:]):
        slots = second.ready * limits.concurrency
        if row and (second.cold or not short(second, slots, service_seconds)):
            break
        row.append((offered if coming else demand)(second, service_seconds))
    return max(sum(row) / len(row) / share(limits), row[0] / limits.concurrency)


def mean(seconds: Sequence[Second], last: int, service_seconds: float | None) -> float:
    """Demand, averaged over the last so many seconds; those without a ready replica say nothing."""
    begin = seconds[-1].at - last
    found = [demand(s, service_seconds) for s in seconds if s.at > begin and not s.cold]
    return sum(found) / len(found) if found else 0.0


def share(limits: Limits) -> float:
    """Requests at a time that one replica should have."""
    return limits.scaling.target_utilization / 100 * limits.concurrency


def needed(at_a_time: float, limits: Limits) -> int:
    """Replicas that carry so many requests at a time at the target utilisation; at least 0."""
    return up_to_whole(at_a_time / share(limits))


def up_to_whole(replicas: float) -> int:
    # rounded first: 7 / 0.7 is 10.000000000000002 in floating point and means 10
    return math.ceil(round(replicas, 6))
