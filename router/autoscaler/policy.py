"""How many replicas a version should have: one pure function, called each second.

PURE. Values and `now` in, a decision and the next state out. It never sees a socket, a clock or a
row, so the same function runs in the router and against a recorded trace.

The rules, in the order they are asked:

1.  A fixed count is that count.
2.  Somebody else scales the version, or there is no fresh sample: invalid, nothing changes.
3.  demand = busy + queued + rejected work, all in requests at a time. Rejected requests a second
    become work by how long a request takes (Little's law); where that is not known yet, each
    counts as one.
4.  needed = demand / (target x concurrency), rounded up, inside [minimum, maximum].
5.  More needed than is there or on its way: up at once, as far as the cluster has room. Replicas
    in a crash loop, and those that are long overdue, are not waited for.
6.  Fewer needed: down only when the whole last minute was measured, and then not below what its
    busiest second needed with a margin, at most half a step, and a pause between steps.

Safety: an invalid decision repeats the count it was given; a valid one is inside the limits.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from deployments.types import Scaling
from router.autoscaler.window import SPAN_SECONDS, Load, Second, Standing

STALE_SECONDS = 3.0  # a sample older than this says nothing about now
# Seconds of the last minute that may be missing before "fewer sufficed all the time" is a guess.
MISSING_ALLOWED = 3
# Demand that wavers by 5 % either way has peaks 1.05 / 0.95 apart: within that, a count stays.
DOWN_MARGIN = 1.106
STEP_SECONDS = 10.0  # between two steps down: time to see what the first one did
# A replica that takes three times as long as they usually do (and half a minute) is not waited for.
OVERDUE_TIMES, OVERDUE_LEAST_SECONDS = 3.0, 30.0
REPEAT_SECONDS = 60.0  # the same hindrance within this time is the same story
_FEWEST_COMPLETED = 10  # answers in the window before its service time is believed
_LEARN = 0.3  # weight of the newest start in the learnt start time


class Code(StrEnum):
    """Why. Tests and charts go by the code; the sentence beside it may change its wording."""

    UP = "up"
    DOWN = "down"
    STEADY = "steady"
    FIXED = "fixed"
    LIMITS = "limits"  # the count was outside new limits
    STARTING = "starting"  # enough is on its way
    BETWEEN = "between"  # between two looks, when the refresh period is longer than a second
    # prevented
    AT_MAXIMUM = "at_maximum"
    CLUSTER_FULL = "cluster_full"
    CRASHING = "crashing"
    HOLDING = "holding"
    # invalid
    NO_DATA = "no_data"
    STALE = "stale"
    CONFLICT = "conflict"


INVALID = frozenset({Code.NO_DATA, Code.STALE, Code.CONFLICT})
PREVENTED = frozenset({Code.AT_MAXIMUM, Code.CLUSTER_FULL, Code.CRASHING, Code.HOLDING}) | INVALID


@dataclass(frozen=True, slots=True)
class Limits:
    """What a person set for the version."""

    scaling: Scaling = Scaling()
    concurrency: int = 1  # requests a replica takes at a time


@dataclass(frozen=True, slots=True)
class State:
    """What the policy remembers of one version. A new loop begins with an empty one."""

    looked_at: float | None = None
    stepped_down_at: float | None = None
    service_seconds: float | None = None  # learnt: how long a request is inside a replica
    start_seconds: float | None = None  # learnt: from asking for a replica to its being ready
    starts_until: float = 0.0  # replicas that became ready up to here have been learnt from
    # What prevented a change lately, and when each was said last: to tell news from repetition.
    prevented: tuple[tuple[Code, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """`replicas` is to be applied only when `valid`. `news` says that it belongs in the ledger:
    it changes the count, or something else than before now prevents that."""

    valid: bool
    replicas: int
    code: Code
    reason: str
    state: State
    news: bool = False
    inputs: dict[str, Any] = field(default_factory=dict)


def decide(load: Load, limits: Limits, state: State, now: float) -> Decision:
    """The count that the version should have now."""
    scaling, seconds = limits.scaling, load.window.seconds
    case = _Case(load, limits, _learn(load, state), now)
    if not scaling.autoscale:
        return case.say(Code.FIXED, scaling.minimum, f"Fixed at {scaling.minimum}.")
    if load.other_scaler:
        reason = f"{load.other_scaler} scales this version too; remove it. Nothing is changed."
        return case.keep(Code.CONFLICT, reason)
    if not seconds:
        return case.keep(Code.NO_DATA, "Nothing measured yet.")
    age = now - (seconds[-1].at + 1)
    if age > STALE_SECONDS:
        reason = f"The last measured second is {age:.0f} s old. Nothing is changed."
        return case.keep(Code.STALE, reason)
    if not scaling.minimum <= load.desired <= scaling.maximum:
        count = min(max(load.desired, scaling.minimum), scaling.maximum)
        reason = f"{load.desired} is outside the limits {scaling.minimum} to {scaling.maximum}."
        return case.say(Code.LIMITS, count, reason)
    looked_at = state.looked_at
    if looked_at is not None and 0 <= now - looked_at < scaling.refresh_seconds - 0.5:
        left = scaling.refresh_seconds - (now - looked_at)
        return case.keep(Code.BETWEEN, f"Looks again in {left:.0f} s.")
    return _weigh(replace(case, state=replace(case.state, looked_at=now)), looked_at)


@dataclass(frozen=True, slots=True)
class _Case:
    """One question to the policy, carried from rule to rule with what was found so far."""

    load: Load
    limits: Limits
    state: State
    now: float
    figures: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)

    def keep(self, code: Code, reason: str) -> Decision:
        return self.say(code, self.load.desired, reason)

    def say(self, code: Code, replicas: int, reason: str) -> Decision:
        state, news = self.state, replicas != self.load.desired
        if code in PREVENTED and code is not Code.NO_DATA:
            since = self.now - REPEAT_SECONDS
            lately = tuple(item for item in state.prevented if item[1] > since)
            news = news or code not in (item[0] for item in lately)
            others = tuple(item for item in lately if item[0] is not code)
            state = replace(state, prevented=(*others, (code, self.now)))
        return Decision(code not in INVALID, replicas, code, reason, state, news, self.inputs)


def _weigh(case: _Case, looked_at: float | None) -> Decision:
    """Rules 3 to 6, on fresh figures."""
    load, scaling, state = case.load, case.limits.scaling, case.state
    seconds, standing = load.window.seconds, load.standing
    recent = [s for s in seconds if looked_at is not None and s.at + 1 > looked_at] or seconds[-1:]
    recent = [s for s in recent if not s.cold]
    if not recent:
        return _cold(case)
    busiest = max(recent, key=lambda s: demand(s, state.service_seconds))
    wanted = needed(demand(busiest, state.service_seconds), case.limits)
    count = min(max(wanted, scaling.minimum), scaling.maximum)
    overdue = _overdue(standing, state, case.now)
    coming = len(standing.starting_since) - overdue
    # Wanted replicas that will not come by waiting. A roll-out runs one more than is wanted: one of
    # those that fails takes nothing away from the count.
    useless = standing.crashing + overdue
    unmade = max(load.desired - standing.ready - coming - useless, 0)
    lost = max(load.desired - standing.ready - coming - unmade, 0)
    case = replace(
        case,
        figures=_figures(busiest, state, case.limits, standing, wanted),
        inputs=_inputs(load, case.limits, state, busiest, wanted, overdue),
    )
    if count > load.desired - lost:
        return _up(case, wanted, lost, coming)
    if wanted > scaling.maximum:
        return case.keep(
            Code.AT_MAXIMUM, f"{case.figures}; the limit is {scaling.maximum} replicas."
        )
    if count < load.desired:
        return _down(case)
    if coming and wanted > standing.ready:
        eta = _eta(standing, state, case.now)
        return case.keep(Code.STARTING, f"{case.figures}; {coming} already starting{eta}.")
    return case.keep(Code.STEADY, f"{case.figures}.")


def _cold(case: _Case) -> Decision:
    """No replica is ready: a slow start is not demand, and a fallen service is not idle."""
    standing, last = case.load.standing, case.load.window.seconds[-1]
    rejected = last.rejected + last.unready
    figures = f"No replica is ready; {rejected} rejected, which says nothing about the load"
    if standing.crashing and not standing.starting_since:
        return case.keep(Code.CRASHING, f"{figures}. {standing.crashing} crash while starting.")
    eta = _eta(standing, case.state, case.now)
    return case.keep(Code.STARTING, f"{figures}; {len(standing.starting_since)} starting{eta}.")


def _up(case: _Case, wanted: int, lost: int, coming: int) -> Decision:
    load, maximum, figures = case.load, case.limits.scaling.maximum, case.figures
    wanted = max(wanted, case.limits.scaling.minimum)
    if coming:
        figures += f"; {coming} already starting"
    if lost:
        figures += f"; {lost} crash or hang while starting"
        if load.standing.ready == 0 and coming <= 0:
            reason = f"{figures}: more of the same would too, so nothing is added."
            return case.keep(Code.CRASHING, reason)
    target = min(wanted + lost, maximum)
    if wanted + lost > maximum:
        figures += f"; the limit is {maximum} replicas"
    if target <= load.desired:
        return case.keep(Code.AT_MAXIMUM, f"{figures}.")
    if load.placeable is not None and load.desired + load.placeable < target:
        target = load.desired + max(load.placeable, 0)
        if target == load.desired:
            return case.keep(Code.CLUSTER_FULL, f"{figures}; the cluster has no room for another.")
        figures += f"; the cluster has room for {load.placeable} more"
    return case.say(Code.UP, target, f"{figures}.")


def _down(case: _Case) -> Decision:
    load, limits, state, now = case.load, case.limits, case.state, case.now
    seconds = [s for s in load.window.seconds if not s.cold]
    figures = case.figures
    peak = max(seconds, key=lambda s: demand(s, state.service_seconds))
    peak_demand = demand(peak, state.service_seconds)
    floor = max(needed(peak_demand * DOWN_MARGIN, limits), limits.scaling.minimum)
    case = replace(
        case,
        inputs=case.inputs | {"peak_demand": round(peak_demand, 3), "peak_needed": floor},
    )
    if floor >= load.desired:
        newest = demand(seconds[-1], state.service_seconds)
        if needed(newest * DOWN_MARGIN, limits) >= load.desired:
            return case.keep(Code.STEADY, f"{figures}.")
        left = max(peak.at + SPAN_SECONDS - math.floor(now), 1)
        reason = (
            f"{figures}; {now - peak.at:.0f} s ago {peak_demand:.3g} at a time needed {floor}: "
            f"holding {load.desired} for {left} s."
        )
        return case.keep(Code.HOLDING, reason)
    begin = math.floor(now) - SPAN_SECONDS
    measured = sum(1 for s in seconds if s.at >= begin)
    if measured < SPAN_SECONDS - MISSING_ALLOWED:
        reason = (
            f"{figures}; only {measured} of the last {SPAN_SECONDS} s were measured: "
            f"holding {load.desired}."
        )
        return case.keep(Code.HOLDING, reason)
    stepped = state.stepped_down_at
    if stepped is not None and 0 <= now - stepped < STEP_SECONDS:
        left = math.ceil(STEP_SECONDS - (now - stepped))
        return case.keep(Code.HOLDING, f"{figures}; the next step down is in {left} s.")
    target = max(floor, math.ceil(load.desired / 2))
    figures += (
        f"; at most {peak_demand:.3g} at a time in the last {SPAN_SECONDS} s, "
        f"for which {floor} suffice{'s' if floor == 1 else ''}"
    )
    if target > floor:
        figures += f": {target} first, half at a time"
    case = replace(case, state=replace(state, stepped_down_at=now))
    return case.say(Code.DOWN, target, f"{figures}.")


def demand(second: Second, service_seconds: float | None) -> float:
    """Requests at a time that wanted to be inside replicas in this second."""
    return second.busy + second.queued + rejected_work(second, service_seconds)


def rejected_work(second: Second, service_seconds: float | None) -> float:
    """Requests at a time that the rejected ones would have been."""
    return second.rejected * (1.0 if service_seconds is None else service_seconds)


def needed(at_a_time: float, limits: Limits) -> int:
    """Replicas that carry so many requests at a time at the target utilisation; at least 0."""
    share = limits.scaling.target_utilization / 100 * limits.concurrency
    # rounded first: 7 / 0.7 is 10.000000000000002 in floating point and means 10
    return math.ceil(round(at_a_time / share, 6))


def _overdue(standing: Standing, state: State, now: float) -> int:
    if state.start_seconds is None:
        return 0
    patience = max(OVERDUE_TIMES * state.start_seconds, OVERDUE_LEAST_SECONDS)
    return sum(1 for since in standing.starting_since if now - since > patience)


def _learn(load: Load, state: State) -> State:
    """Take up what the window and the replicas show about how long things take."""
    completed = sum(s.completed for s in load.window.seconds)
    if completed >= _FEWEST_COMPLETED:
        busy = sum(s.busy for s in load.window.seconds)
        state = replace(state, service_seconds=busy / completed)
    start, until = state.start_seconds, state.starts_until
    for ready_at, took in load.standing.starts:
        if ready_at > state.starts_until:
            start = took if start is None else start + _LEARN * (took - start)
            until = max(until, ready_at)
    if until != state.starts_until:
        state = replace(state, start_seconds=start, starts_until=until)
    return state


def _figures(second: Second, state: State, limits: Limits, standing: Standing, wanted: int) -> str:
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


def _eta(standing: Standing, state: State, now: float) -> str:
    if state.start_seconds is None or not standing.starting_since:
        return ""
    left = standing.starting_since[0] + state.start_seconds - now
    return f", the first ready in about {left:.0f} s" if left >= 1 else ""


def _inputs(
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
