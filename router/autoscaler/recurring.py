"""Demand that comes again: what it will be while a replica starts.

PURE. Demand is kept as means of ten seconds, forty minutes of them. It recurs with a period when the
last period looks like the one before: what differs is less than half of how far demand swings in
it. Then what came a period ago is expected, for as far ahead as a start takes.
"""

import math
from dataclasses import replace
from operator import sub

from router.autoscaler.demand import demand
from router.autoscaler.state import Course, State
from router.autoscaler.window import Second

EACH_SECONDS = 10
SHORTEST, LONGEST = 6, 120  # periods, in means: one minute to twenty
_ALIKE, _STILL_ALIKE = 0.45, 0.75
_SWING = 0.2  # of the mean: less is noise, and served by what is there anyway
_LEAST_MEASURED = 5  # seconds of ten


def follow(course: Course, seconds: tuple[Second, ...], service: float | None) -> Course:
    """With the means that are complete by now. A gap begins the course anew."""
    complete = (seconds[-1].at + 1) // EACH_SECONDS * EACH_SECONDS
    if complete <= course.until:
        return course
    if complete - course.until > EACH_SECONDS * 5:
        course = Course(complete - EACH_SECONDS)
    for end in range(course.until + EACH_SECONDS, complete + 1, EACH_SECONDS):
        here = [
            demand(s, service) for s in seconds if end - EACH_SECONDS <= s.at < end and not s.cold
        ]
        if len(here) < _LEAST_MEASURED:
            course = Course(end)
            continue
        means = (*course.means, sum(here) / len(here))[-2 * LONGEST :]
        course = replace(course, until=end, means=means)
    found = period(course.means, course.period)
    if found == course.period:
        return course
    return replace(course, period=found, since=float(complete) if found else -1.0)


def period(means: tuple[float, ...], known: int = 0) -> int:
    """After how many means demand comes again; 0: it does not. What is known already is given up
    only where it fits much worse."""
    if known and _unlike(means, known) < _STILL_ALIKE:
        return known
    lengths = range(SHORTEST, min(LONGEST, len(means) // 2) + 1)
    found = min(lengths, key=lambda length: _unlike(means, length), default=0)
    return found if found and _unlike(means, found) < _ALIKE else 0


def _unlike(means: tuple[float, ...], length: int) -> float:
    """What differs between the last two periods, as a share of how far demand swings in one."""
    last, before = means[-length:], means[-2 * length : -length]
    level = sum(last) / length
    swing = sum(abs(value - level) for value in last)
    if swing <= _SWING * level * length:
        return math.inf
    return sum(map(abs, map(sub, last, before))) / swing


def met(course: Course, now: float) -> bool:
    """Whether a period has held for as long as it is: then nothing else need be kept for it."""
    return bool(course.period) and now - course.since >= course.period * EACH_SECONDS


def expected(state: State, now: float) -> float:
    """Requests at a time that are expected until a replica asked for now is ready and a little
    longer; 0 where nothing is known to recur. The mean of twenty seconds counts, not of ten."""
    course = state.course
    if not course.period or state.start_seconds is None:
        return 0.0
    ahead = now - course.until + state.start_seconds + EACH_SECONDS
    last = min(int(ahead / EACH_SECONDS) + 1, course.period)
    then = course.means[-course.period - 1 :][: last + 1]
    return max((a + b) / 2 for a, b in zip(then, then[1:], strict=False))
