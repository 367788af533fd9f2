"""The figures behind a verdict, as a sentence and as plain values for the ledger.

PURE. Only words: nothing is decided here.
"""

from typing import Any

from router.autoscaler.demand import demand
from router.autoscaler.recurring import EACH_SECONDS
from router.autoscaler.state import Course, Limits, State
from router.autoscaler.window import Load, Second, Standing


def of_second(second: Second, state: State, limits: Limits, standing: Standing, wanted: int) -> str:
    """ "12 busy + 3 queued + 2 rejected on 10 slots is 170 %, target 70 %: 25 wanted" """
    parts = [f"{second.busy:.3g} busy"]
    if second.queued:
        parts.append(f"{second.queued:.3g} queued")
    if second.rejected:
        times = "" if state.service_seconds is None else f" x {state.service_seconds:.3g} s"
        parts.append(f"{second.rejected} rejected{times}")
    slots = standing.ready * limits.concurrency
    share = ""
    if slots:
        percent = 100 * demand(second, state.service_seconds) / slots
        share = f" is {percent:.0f} %, target {limits.scaling.target_utilization} %"
    return f"{' + '.join(parts)} on {slots} slot{'' if slots == 1 else 's'}{share}: {wanted} wanted"


def of_mean(mean: float, seconds: int, limits: Limits, standing: Standing, wanted: int) -> str:
    """ "7.2 at a time over 20 s on 10 slots is 72 %, target 70 %: 11 wanted" """
    slots, utilisation = standing.ready * limits.concurrency, ""
    if slots:
        percent = 100 * mean / slots
        utilisation = f" is {percent:.0f} %, target {limits.scaling.target_utilization} %"
    plural = "" if slots == 1 else "s"
    return (
        f"{mean:.3g} at a time over {seconds} s on {slots} slot{plural}{utilisation}: "
        f"{wanted} wanted"
    )


def of_expected(at_a_time: float, course: Course, wanted: int) -> str:
    """ "14 at a time are expected soon, as 10 min ago: 20 wanted" """
    ago = course.period * EACH_SECONDS / 60
    return f"{at_a_time:.3g} at a time are expected soon, as {ago:.3g} min ago: {wanted} wanted"


def eta(standing: Standing, state: State, now: float) -> str:
    if state.start_seconds is None or not standing.starting_since:
        return ""
    left = standing.starting_since[0] + state.start_seconds - now
    return f", the first ready in about {left:.0f} s" if left >= 1 else ""


def inputs(
    load: Load, limits: Limits, state: State, second: Second, wanted: int, overdue: int
) -> dict[str, Any]:
    """The figures behind the verdict, for the ledger. Plain JSON values."""
    scaling, service = limits.scaling, state.service_seconds
    return {
        "busy": round(second.busy, 3),
        "queued": round(second.queued, 3),
        "rejected": second.rejected,
        "service_seconds": None if service is None else round(service, 4),
        "demand": round(demand(second, service), 3),
        "ready": load.standing.ready,
        "starting": len(load.standing.starting_since),
        "overdue": overdue,
        "crashing": load.standing.crashing,
        "desired": load.desired,
        "placeable": load.placeable,
        "start_seconds": None if state.start_seconds is None else round(state.start_seconds, 1),
        "concurrency": limits.concurrency,
        "target": scaling.target_utilization,
        "minimum": scaling.minimum,
        "maximum": scaling.maximum,
        "needed": wanted,
    }
