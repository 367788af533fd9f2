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
4.  Wanted is the largest of four answers, rounded up, inside [minimum, maximum]:
    - the mean demand of the last 20 s (as many as a start takes, a minute at most) at the target
      utilisation, but no more than the newest second's: what is over asks for nothing;
    - a slot for each request of the newest second;
    - where slots were short in it, its demand at the target. They are short when a request was
      refused, or a quarter more than they hold wanted in. Of a shortage that lasts, the mean counts:
      of five seconds, half a start, half a minute at most. What waits while replicas start counts
      once, not in each second (`demand`);
    - where demand comes again with a period, what came a period ago from now until a replica that
      is asked for now would be ready, at the target (`recurring`).
5.  More wanted than is there or on its way: up at once, as far as the cluster has room. Replicas
    in a crash loop, and those that are long overdue, are not waited for.
6.  Fewer wanted: down only when the whole last minute was measured, never below what was wanted in
    it nor below the slots that its busiest second took, at most half a step, and with a pause
    between steps. Within a tenth of that a count stays, and for three minutes within a twentieth.
7.  What starts slowly is not let go for a lull: three minutes' mean demand is kept for as long as
    six starts take, six minutes at most, unless demand comes again on time (`keeping`).

Between two samples the newest reading of the router may only add replicas: a queue that the slots
will not have worked off by the next reading is a short second that need not be waited for.

Safety: an invalid decision repeats the count it was given; a valid one is inside the limits.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from router.autoscaler import keeping, learning, recurring, words
from router.autoscaler.demand import (
    QUEUE_SECONDS,
    demand,
    mean,
    mean_seconds,
    needed,
    share,
    shortage,
    up_to_whole,
    wants,
)
from router.autoscaler.state import INVALID as INVALID
from router.autoscaler.state import PREVENTED as PREVENTED
from router.autoscaler.state import Code as Code
from router.autoscaler.state import Limits as Limits
from router.autoscaler.state import State as State
from router.autoscaler.window import SPAN_SECONDS, Load, Second

STALE_SECONDS = 3.0  # a sample older than this says nothing about now
# Seconds of the last minute that may be missing before "fewer sufficed all the time" is a guess.
MISSING_ALLOWED = 3
# Demand that wavers by 5 % either way has peaks 1.05 / 0.95 apart: within that, a count stays.
DOWN_MARGIN = 1.106
STEP_SECONDS = 10.0  # between two steps down: time to see what the first one did
CALM_MARGIN = 1.05  # ... and where three minutes wanted no more, but for half a replica
REPEAT_SECONDS = 60.0  # the same hindrance within this time is the same story


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
    case = _Case(load, limits, learning.learnt(load, state), now)
    if load.other_scaler:
        reason = f"{load.other_scaler} scales this version too; remove it. Nothing is changed."
        return case.keep(Code.CONFLICT, reason)
    if not scaling.autoscale:
        return case.say(Code.FIXED, scaling.minimum, f"Fixed at {scaling.minimum}.")
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
    if load.standing.starting_since and load.window.seconds[-1].rejected:
        return case.keep(Code.BETWEEN, "What waits has been counted: replicas for it start.")
    service = 1.0 if state.service_seconds is None else state.service_seconds
    slots = load.standing.ready * case.limits.concurrency
    if reading.queued * service <= slots * QUEUE_SECONDS:
        return case.keep(Code.BETWEEN, "The slots work off what waits by the next reading.")
    now = Second(math.floor(reading.at), reading.busy, reading.queued, ready=load.standing.ready)
    wanted = needed(demand(now, state.service_seconds), case.limits)
    if wanted <= load.desired:
        return case.keep(Code.BETWEEN, f"{wanted} wanted by the newest reading.")
    figures = words.of_second(now, state, case.limits, load.standing, wanted)
    case = replace(case, state=keeping.wanted_now(state, case.now, wanted))
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
        at_once = min(at_once, shortage(seconds, limits, state, bool(load.standing.starting_since)))
    at_most = demand(busiest, service)
    # what is over by now asks for nothing any more
    long = mean_seconds(state.start_seconds)
    steady = min(mean(seconds, long, service), at_most)
    coming = recurring.expected(state, now)
    level = steady / share(limits)
    raw = max(at_once, level, coming / share(limits))
    wanted = up_to_whole(raw)
    if raw == at_once:
        figures = words.of_second(busiest, state, limits, load.standing, wanted)
    elif raw == level:
        figures = words.of_mean(steady, min(long, len(seconds)), limits, load.standing, wanted)
    else:
        figures = words.of_expected(coming, state.course, wanted)
    state = keeping.wanted_now(state, now, max(raw, at_most / limits.concurrency))
    state = keeping.wanted_long(state, now, share(limits))
    decision = _apply(replace(case, state=state), busiest, wanted, figures)
    # What the newest seconds show of the course counts from the next look on.
    course = recurring.follow(state.course, seconds, service)
    return replace(decision, state=replace(decision.state, course=course))


def _apply(case: _Case, busiest: Second, wanted: int, figures: str) -> Decision:
    """Rules 5 and 6: from what is wanted to what is done."""
    load, scaling, state = case.load, case.limits.scaling, case.state
    standing = load.standing
    count = min(max(wanted, scaling.minimum), scaling.maximum)
    overdue = learning.overdue(standing, state, case.now)
    coming = len(standing.starting_since) - overdue
    # Wanted replicas that will not come by waiting. A roll-out runs one more than is wanted: one of
    # those that fails takes nothing away from the count.
    useless = standing.crashing + overdue
    unmade = max(load.desired - standing.ready - coming - useless, 0)
    lost = max(load.desired - standing.ready - coming - unmade, 0)
    case = replace(
        case,
        figures=figures,
        inputs=words.inputs(load, case.limits, state, busiest, wanted, overdue),
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
        eta = words.eta(standing, state, case.now)
        return case.keep(Code.STARTING, f"{case.figures}; {coming} already starting{eta}.")
    return case.keep(Code.STEADY, f"{case.figures}.")


def _cold(case: _Case) -> Decision:
    """No replica is ready: a slow start is not demand, and a fallen service is not idle."""
    standing, last = case.load.standing, case.load.window.seconds[-1]
    rejected = last.rejected + last.unready
    figures = f"No replica is ready; {rejected} rejected, which says nothing about the load"
    if standing.crashing and not standing.starting_since:
        return case.keep(Code.CRASHING, f"{figures}. {standing.crashing} crash while starting.")
    eta = words.eta(standing, case.state, case.now)
    return case.keep(Code.STARTING, f"{figures}; {len(standing.starting_since)} starting{eta}.")


def _up(case: _Case, wanted: int, lost: int, coming: int) -> Decision:
    load, maximum, figures = case.load, case.limits.scaling.maximum, case.figures
    wanted = max(wanted, case.limits.scaling.minimum)
    if coming:
        figures += f"; {coming} already starting"
    if lost:
        figures += f"; {lost} crashed or hang while starting"
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
    figures, span = case.figures, keeping.span(state, now)
    seconds = [s for s in load.window.seconds if not s.cold]
    busiest = max(seconds, key=lambda s: demand(s, state.service_seconds))
    own = demand(busiest, state.service_seconds) / limits.concurrency
    peak_at, raw = max(keeping.peak(state, now), (float(busiest.at), own), key=lambda item: item[1])
    floor = max(up_to_whole(raw * DOWN_MARGIN), limits.scaling.minimum)
    calm = max(keeping.calm(state, now), raw)
    lower = max(up_to_whole(calm * CALM_MARGIN - 0.5), up_to_whole(calm), limits.scaling.minimum)
    if floor >= load.desired > lower:
        floor, raw, span = lower, calm, keeping.CALM_SECONDS
    case = replace(
        case,
        inputs=case.inputs | {"peak_needed": up_to_whole(raw), "kept_seconds": round(span)},
    )
    if floor >= load.desired:
        newest = max((value for at, value in state.peaks if at == now), default=0.0)
        if up_to_whole(newest * DOWN_MARGIN) >= load.desired:
            return case.keep(Code.STEADY, f"{figures}.")
        left = max(math.floor(peak_at) + span - math.floor(now), 1)
        reason = (
            f"{figures}; {now - peak_at:.0f} s ago {up_to_whole(raw)} were needed: "
            f"holding {load.desired} for {left:.0f} s."
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
    enough = max(up_to_whole(raw), limits.scaling.minimum)
    target = max(enough, math.ceil(load.desired / 2))
    figures += f"; {enough} suffice{'s' if enough == 1 else ''} for the last {span:.0f} s"
    if target > enough:
        figures += f": {target} first, half at a time"
    case = replace(case, state=replace(state, stepped_down_at=now))
    return case.say(Code.DOWN, target, f"{figures}.")
