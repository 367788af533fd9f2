"""An oracle: it knows every request beforehand, and is what no autoscaler can reach.

PURE. In each second it has as many replicas as there would be requests at a time if none ever waited, so it
rejects nothing that it was given the time for. It asks `start_seconds` ahead, and keeps a replica that it
will want again before a new one could be there.
"""

import math
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from router.autoscaler.rivals import seen
from router.autoscaler.simulate import Scaler, Setup, Verdict
from router.autoscaler.window import Load

_AHEAD = 2  # seconds more than a start takes: the loop turns four times a second


def peaks(arrivals: Sequence[float], services: Sequence[float]) -> list[int]:
    """The most requests at a time in each second, had every request begun as it came."""
    found: list[int] = []
    inside: list[float] = []
    for arrival, service in zip(arrivals, services, strict=True):
        second = int(arrival)
        while len(found) <= second:
            # what is left of the second before stands in its first moment
            while inside and inside[0] <= len(found):
                heappop(inside)
            found.append(len(inside))
        while inside and inside[0] <= arrival:
            heappop(inside)
        heappush(inside, arrival + service)
        found[second] = max(found[second], len(inside))
    return found


def ahead(values: Sequence[int], span: int) -> list[int]:
    """The largest of each value and the `span` after it."""
    result, window = [0] * len(values), deque[int]()
    for index in range(len(values) - 1, -1, -1):
        while window and values[window[-1]] <= values[index]:
            window.pop()
        window.append(index)
        if window[0] > index + span:
            window.popleft()
        result[index] = values[window[0]]
    return result


def oracle(arrivals: Sequence[float], services: Sequence[float], setup: Setup) -> Scaler:
    span = math.ceil(setup.start_seconds) + _AHEAD
    wanted = ahead(peaks(arrivals, services), span)

    def ask(load: Load, now: float, fresh: bool) -> Verdict | None:
        at = int(now)
        most = wanted[at] if at < len(wanted) else 0
        count = seen.bounded(math.ceil(most / setup.limits.concurrency), setup.limits)
        return Verdict(count, "knows")

    return ask
