"""How many replicas a version should have: one pure function, called four times a second.

PURE. Values and `now` in, a decision and the next state out. It never sees a socket, a clock or a
row, so the same function runs in the router, against a recorded trace and in the portal's what-if.

The rules, in the order they are asked:

1.  A fixed count is that count.
2.  Somebody else scales the version, or there is no fresh sample: invalid, nothing changes.
3.  demand = busy + queued + rejected work, all in requests at a time. Rejected requests a second
    become work by how long a request takes (Little's law); where that is not known yet, each
    counts as one. Once it is known, a queue of quick requests counts as what works it off in a
    quarter of a second, and what waits while others are refused is not counted twice.
4.  Wanted is the largest of three answers, rounded up, inside [minimum, maximum]:
    - the mean demand of the last 20 s at the target utilisation, but no more than the newest
      second's: what is over asks for nothing;
    - a slot for each request of the newest second;
    - where slots were short in it, its demand at the target. They are short when a request was
      refused, or a quarter more than they hold wanted in. Of a shortage that lasts, the mean of up
      to five seconds counts.
5.  More wanted than is there or on its way: up at once, as far as the cluster has room. Replicas
    in a crash loop, and those that are long overdue, are not waited for.
6.  Fewer wanted: down only when the whole last minute was measured, never below what its peak
    needed by the first two answers of rule 4, a minute after the last step up, at most half a
    step, and with a pause between steps.
7.  The minute of the peak grows where going down was regretted: slots are short, and replicas that
    were let go would have been enough. Then they are kept as long as six starts take, six minutes
    at most, and that halves each half hour. What starts within ten seconds is never kept longer.

Between two samples the newest reading of the router may only add replicas: a queue that the slots
will not have worked off by the next reading is a short second that need not be waited for.

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
MEAN_SECONDS = 20  # of steady load: long enough that single requests do not show
QUEUE_SECONDS = 0.25  # in which a queue should be worked off: the time between two readings
SHORTAGE_SECONDS = 5  # of a shortage that lasts
CHANCE = 0.25  # requests come in clusters: so many more than slots for a second is no shortage
# How much longer than a minute replicas may be kept: as often as a start, and this many seconds.
KEEP_STARTS, KEEP_MOST_SECONDS = 6.0, 360.0
_KEEP_HALVES_SECONDS = 1800.0
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
    stepped_up_at: float | None = None
    stepped_down_at: float | None = None
    service_seconds: float | None = None  # learnt: how long a request is inside a replica
    start_seconds: float | None = None  # learnt: from asking for a replica to its being ready
    starts_until: float = -1.0  # replicas that became ready up to here have been learnt from
    # (moment, replicas wanted then, not rounded), the largest first, each one newer than the last
    peaks: tuple[tuple[float, float], ...] = ()
    # when going down was regretted last, and how many seconds longer than a minute to keep replicas
    regret: tuple[float, float] = (0.0, 0.0)
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
    if looked_at is not None and (left := scaling.refresh_seconds - (now - looked_at)) > 0:
        seen = seconds[-1].at + 1 <= looked_at  # there is no newer second yet
        if now >= looked_at and (left > 0.5 or seen):
            return _between(case, left)
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


def _between(case: _Case, left: float) -> Decision:
    """Between two looks. With a refresh period of a second a reading may show a shortage."""
    load, reading, state = case.load, case.load.reading, case.state
    if case.limits.scaling.refresh_seconds > 1 or reading is None or not load.standing.ready:
        return case.keep(Code.BETWEEN, f"Looks again in {left:.0f} s.")
    service = 1.0 if state.service_seconds is None else state.service_seconds
    slots = load.standing.ready * case.limits.concurrency
    if reading.queued * service <= slots * QUEUE_SECONDS:
        return case.keep(Code.BETWEEN, "The slots work off what waits by the next reading.")
    now = Second(math.floor(reading.at), reading.busy, reading.queued, ready=load.standing.ready)
    wanted = needed(demand(now, state.service_seconds), case.limits)
    if wanted <= load.desired:
        return case.keep(Code.BETWEEN, f"{wanted} wanted by the newest reading.")
    figures = _figures(now, state, case.limits, load.standing, wanted)
    case = replace(case, state=_regretted(state, load.desired, case.now))
    return _apply(case, now, wanted, f"{figures}, by the newest reading")


def _weigh(case: _Case, looked_at: float | None) -> Decision:
    """Rules 3 to 6, on fresh figures."""
    load, limits, state, now = case.load, case.limits, case.state, case.now
    seconds = load.window.seconds
    recent = [s for s in seconds if looked_at is not None and s.at + 1 > looked_at] or seconds[-1:]
    recent = [s for s in recent if not s.cold]
    if not recent:
        return _cold(case)
    service, slots = state.service_seconds, load.standing.ready * limits.concurrency
    busiest = max(recent, key=lambda s: wants(s, limits, service, slots))
    at_once = wants(busiest, limits, service, slots)
    if busiest is seconds[-1]:
        at_once = min(at_once, _shortage(seconds, limits, service))
    begin, at_most = seconds[-1].at - MEAN_SECONDS, demand(busiest, service)
    lately = [demand(s, service) for s in seconds if s.at > begin and not s.cold]
    mean = sum(lately) / len(lately)
    # what is over by now asks for nothing any more
    level = min(mean, at_most) / share(limits)
    raw = max(at_once, level)
    wanted = _up_to_whole(raw)
    if level > at_once:
        figures = _mean_figures(min(mean, at_most), len(lately), limits, load.standing, wanted)
    else:
        figures = _figures(busiest, state, limits, load.standing, wanted)
    if wanted > load.desired and short(busiest, slots, service):
        state = _regretted(state, load.desired, now)
    kept = [item for item in state.peaks if now - KEEP_MOST_SECONDS < item[0] <= now]
    enough = max(level, at_most / limits.concurrency)
    peaks = (*(item for item in kept if item[1] > enough), (now, enough))
    case = replace(case, state=replace(state, peaks=peaks))
    return _apply(case, busiest, wanted, figures)


def _apply(case: _Case, busiest: Second, wanted: int, figures: str) -> Decision:
    """Rules 5 and 6: from what is wanted to what is done."""
    load, scaling, state = case.load, case.limits.scaling, case.state
    standing = load.standing
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
        figures=figures,
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
    state = replace(case.state, stepped_up_at=case.now)
    case = replace(case, state=state)
    return case.say(Code.UP, target, f"{figures}.")


def _down(case: _Case) -> Decision:
    load, limits, state, now = case.load, case.limits, case.state, case.now
    figures, span = case.figures, SPAN_SECONDS + _longer(state, now)
    seconds = [s for s in load.window.seconds if not s.cold]
    peak = max(seconds, key=lambda s: demand(s, state.service_seconds))
    peak_at, raw = float(peak.at), demand(peak, state.service_seconds) / limits.concurrency
    for at, value in state.peaks:
        if now - at < span and value > raw:
            peak_at, raw = at, value
            break  # the largest of those comes first
    floor = max(_up_to_whole(raw * DOWN_MARGIN), limits.scaling.minimum)
    case = replace(
        case,
        inputs=case.inputs | {"peak_needed": _up_to_whole(raw), "kept_seconds": round(span)},
    )
    if floor >= load.desired:
        newest = max((value for at, value in state.peaks if at == now), default=0.0)
        if _up_to_whole(newest * DOWN_MARGIN) >= load.desired:
            return case.keep(Code.STEADY, f"{figures}.")
        left = max(math.floor(peak_at) + span - math.floor(now), 1)
        reason = (
            f"{figures}; {now - peak_at:.0f} s ago {_up_to_whole(raw)} were needed: "
            f"holding {load.desired} for {left:.0f} s."
        )
        return case.keep(Code.HOLDING, reason)
    added = state.stepped_up_at
    if added is not None and 0 <= now - added < SPAN_SECONDS:
        left = math.ceil(SPAN_SECONDS - (now - added))
        return case.keep(Code.HOLDING, f"{figures}; what was added last is kept for {left} s.")
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
    enough = max(_up_to_whole(raw), limits.scaling.minimum)
    target = max(enough, math.ceil(load.desired / 2))
    figures += f"; {enough} suffice{'s' if enough == 1 else ''} for the last {span:.0f} s"
    if target > enough:
        figures += f": {target} first, half at a time"
    case = replace(case, state=replace(state, stepped_down_at=now))
    return case.say(Code.DOWN, target, f"{figures}.")


def _shortage(seconds: tuple[Second, ...], limits: Limits, service: float | None) -> float:
    """Replicas that the newest seconds in a row ask for in which slots were short: their mean, for
    one second by itself may be twice the next. Never fewer than the newest one's own slots."""
    row: list[float] = []
    for second in reversed(seconds[-SHORTAGE_SECONDS:]):
        if row and (second.cold or not short(second, second.ready * limits.concurrency, service)):
            break
        row.append(demand(second, service))
    return max(sum(row) / len(row) / share(limits), row[0] / limits.concurrency)


def _regretted(state: State, desired: int, now: float) -> State:
    """Slots are short. Had replicas been kept longer, would there have been enough of them?"""
    if state.start_seconds is None:
        return state
    then = max((at for at, value in state.peaks if value > desired), default=None)
    most = min(KEEP_STARTS * state.start_seconds, KEEP_MOST_SECONDS)
    if then is None or not SPAN_SECONDS < now - then <= most:
        return state
    return replace(state, regret=(now, most - SPAN_SECONDS))


def _longer(state: State, now: float) -> float:
    """Seconds longer than a minute that replicas are kept now."""
    at, seconds = state.regret
    return seconds * 0.5 ** (max(now - at, 0.0) / _KEEP_HALVES_SECONDS) if seconds else 0.0


def demand(second: Second, service_seconds: float | None) -> float:
    """Requests at a time that wanted to be inside replicas in this second."""
    refused = rejected_work(second, service_seconds)
    if service_seconds is None:
        return second.busy + second.queued + refused
    # What waits in a second with refusals is what will be refused next: counted once.
    return second.busy + max(second.queued * min(service_seconds / QUEUE_SECONDS, 1.0), refused)


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


def share(limits: Limits) -> float:
    """Requests at a time that one replica should have."""
    return limits.scaling.target_utilization / 100 * limits.concurrency


def rejected_work(second: Second, service_seconds: float | None) -> float:
    """Requests at a time that the rejected ones would have been."""
    return second.rejected * (1.0 if service_seconds is None else service_seconds)


def needed(at_a_time: float, limits: Limits) -> int:
    """Replicas that carry so many requests at a time at the target utilisation; at least 0."""
    return _up_to_whole(at_a_time / share(limits))


def _up_to_whole(replicas: float) -> int:
    # rounded first: 7 / 0.7 is 10.000000000000002 in floating point and means 10
    return math.ceil(round(replicas, 6))


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


def _mean_figures(
    mean: float, seconds: int, limits: Limits, standing: Standing, wanted: int
) -> str:
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
