"""Kubernetes' HorizontalPodAutoscaler on a pods metric: requests at a time in each pod.

PURE. Follows https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale: asked every 15 s;
`desired = ceil(current * metric / target)`, no change while the ratio is within 10 % of 1; pods without
figures, because they are not ready yet, count as using nothing when going up and their target when going
down; down only to the highest recommendation of the last 300 s;
up at most the larger of doubling and 4 pods in 15 s. The metric is the mean of the last 15 s of busy and
queued requests.
"""

import math
from collections import deque

from router.autoscaler.policy import Limits
from router.autoscaler.rivals import seen
from router.autoscaler.simulate import Scaler, Verdict
from router.autoscaler.window import Load

PERIOD_SECONDS = 15
DOWN_SECONDS = 300
TOLERANCE = 0.1
UP_TIMES, UP_PODS = 2, 4


def recommended(total: float, current: int, ready: int, target: float) -> int:
    """Pods for so many requests at a time over the ready ones; `current` counts the others too."""
    ready = max(ready, 1)
    ratio = total / (ready * target)
    if abs(ratio - 1) <= TOLERANCE:
        return current
    missing = current - ready
    if missing <= 0:
        return math.ceil(round(ratio * ready, 9))
    # What has no figures yet is taken to use nothing on the way up, and its target on the way down;
    # where that turns the ratio around, nothing changes.
    new = (total + (missing * target if ratio < 1 else 0.0)) / (current * target)
    if abs(new - 1) <= TOLERANCE or (new > 1) != (ratio > 1):
        return current
    return math.ceil(round(new * current, 9))


def hpa(limits: Limits) -> Scaler:
    target = seen.target(limits)
    recommendations: deque[tuple[float, int]] = deque()

    def ask(load: Load, now: float, fresh: bool) -> Verdict | None:
        if not fresh or (load.window.seconds[-1].at + 1) % PERIOD_SECONDS:
            return None
        if not recommendations:  # as the controller, it begins with what there is
            recommendations.append((now, load.desired))
        total = seen.mean(load.window.seconds, PERIOD_SECONDS)
        count = recommended(total, load.desired, load.standing.ready, target)
        recommendations.append((now, count))
        while recommendations[0][0] <= now - DOWN_SECONDS:
            recommendations.popleft()
        if count < load.desired:
            count = min(max(item[1] for item in recommendations), load.desired)
        most = max(load.desired * UP_TIMES, load.desired + UP_PODS)
        reason = f"{total:.3g} at a time, target {target:.3g} a pod"
        return Verdict(seen.bounded(min(count, most), limits), reason)

    return ask
