"""Ray Serve's autoscaler with its default delays.

PURE. Follows ray-project/ray `python/ray/serve/autoscaling_policy.py` at 00590c4
(`_core_replica_queue_length_policy`, `_apply_scaling_factors`, `_apply_delay_logic`) and
https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html: `desired = running x
(requests / running) / target`, requests running or queued averaged over `look_back_period_s` 30 s; up only
when that was wanted for `upscale_delay_s` 30 s without a break, down for `downscale_delay_s` 600 s;
factors 1. `target_ongoing_requests` is what the others have too, not Ray's default of 2.
"""

import math

from router.autoscaler.policy import Limits
from router.autoscaler.rivals import seen
from router.autoscaler.simulate import Scaler, Verdict
from router.autoscaler.window import Load

LOOK_BACK_SECONDS = 30
UP_DELAY_SECONDS = 30
DOWN_DELAY_SECONDS = 600


def desired(requests: float, running: int, target: float) -> int:
    """Replicas for so many requests over all running ones, before any delay."""
    running = max(running, 1)
    ratio = requests / (target * running)
    scaled = math.ceil(round(running + (running * ratio - running), 9))
    return max(scaled, 1)


class Delay:
    """A wish is granted when it pointed the same way in more periods than the delay has.

    As the original counts its own control loop's turns, so are they counted here.
    """

    def __init__(self, period: float = 1.0) -> None:
        self._period, self._counter = period, 0

    def granted(self, wish: int, target: int) -> int:
        if wish == target:
            self._counter = 0
            return target
        sign, delay = (1, UP_DELAY_SECONDS) if wish > target else (-1, DOWN_DELAY_SECONDS)
        self._counter = self._counter + sign if self._counter * sign > 0 else sign
        if abs(self._counter) <= int(delay / self._period):
            return target
        self._counter = 0
        return wish


def ray(limits: Limits) -> Scaler:
    target, delay = seen.target(limits), Delay()

    def ask(load: Load, now: float, fresh: bool) -> Verdict | None:
        if not fresh:
            return None
        requests = seen.mean(load.window.seconds, LOOK_BACK_SECONDS)
        wish = seen.bounded(desired(requests, load.standing.ready, target), limits)
        count = delay.granted(wish, load.desired)
        return Verdict(count, f"{requests:.3g} ongoing, target {target:.3g} a replica")

    return ask
