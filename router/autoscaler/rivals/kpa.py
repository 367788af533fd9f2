"""Knative's pod autoscaler (KPA) on concurrency, with its defaults.

PURE. Follows knative/serving `pkg/autoscaler/scaling/autoscaler.go` at 00a4a55 (`Scale`) and
https://knative.dev/docs/serving/autoscaling/kpa-specific: stable window 60 s, panic window 10 % of it
(6 s), panic threshold 200 %, up at most 1000 times and down at most to half of what is ready, asked every
2 s. In panic the count never goes down; panic ends when the threshold was not passed for a stable window.
A container concurrency of C at 70 % utilisation is a target of 0.7 x C a pod. The activator holds what
has no free pod, and counts it, so what is queued counts here. Scale to zero is off: minimum 1 as ours.
"""

import math
from dataclasses import dataclass

from router.autoscaler.policy import Limits
from router.autoscaler.rivals import seen
from router.autoscaler.simulate import Scaler, Verdict
from router.autoscaler.window import Load

STABLE_SECONDS = 60
PANIC_SECONDS = 6
PANIC_THRESHOLD = 2.0
MAX_UP_RATE = 1000.0
MAX_DOWN_RATE = 2.0
PERIOD_SECONDS = 2


@dataclass(slots=True)
class State:
    panic_at: float | None = None
    panic_pods: int = 0


def desired(
    stable: float, panic: float, ready: int, target: float, state: State, now: float
) -> int:
    """Pods wanted for mean concurrencies of both windows. Changes `state`."""
    pods = max(1, ready)
    most, least = math.ceil(MAX_UP_RATE * pods), math.floor(pods / MAX_DOWN_RATE)
    # as 100 / 7 is not, 7 / 0.7 is 10.000000000000002 in floating point
    for_stable = min(max(math.ceil(round(stable / target, 9)), least), most)
    wanted_in_panic = math.ceil(round(panic / target, 9))
    for_panic = min(max(wanted_in_panic, least), most)
    if wanted_in_panic / pods >= PANIC_THRESHOLD:
        state.panic_at = now
    elif state.panic_at is not None and now - state.panic_at > STABLE_SECONDS:
        state.panic_at, state.panic_pods = None, 0
    if state.panic_at is None:
        return for_stable
    state.panic_pods = max(state.panic_pods, for_stable, for_panic)
    return state.panic_pods


def kpa(limits: Limits) -> Scaler:
    state, target = State(), seen.target(limits)
    started = False

    def ask(load: Load, now: float, fresh: bool) -> Verdict | None:
        nonlocal started
        if not started:
            started = True
            # a new autoscaler begins in panic where there is more than one pod: it has no history
            if load.standing.ready > 1:
                state.panic_at, state.panic_pods = now, load.standing.ready
        if not fresh or load.window.seconds[-1].at % PERIOD_SECONDS == 0:
            return None
        seconds = load.window.seconds
        stable, panic = seen.mean(seconds, STABLE_SECONDS), seen.mean(seconds, PANIC_SECONDS)
        count = desired(stable, panic, load.standing.ready, target, state, now)
        mode = "stable" if state.panic_at is None else "panic"
        reason = f"{mode}: {stable:.3g} in 60 s, {panic:.3g} in 6 s, target {target:.3g} a pod"
        return Verdict(seen.bounded(count, limits), reason)

    return ask
