"""How long replicas are kept that are not needed now.

PURE. What the last minute wanted at its peak is always kept. What starts slowly is kept longer: the
mean demand of three minutes (a burst is chance, what lasts is the level) at the target, for as long
as six starts take, six minutes at most; so what starts within ten seconds is never kept longer. Nor
is anything where demand was found to come again on time, which is met without keeping.
"""

from dataclasses import replace

from router.autoscaler import recurring
from router.autoscaler.state import Peaks, State
from router.autoscaler.window import SPAN_SECONDS

KEEP_STARTS, KEEP_MOST_SECONDS = 6.0, 360.0
LEVEL_SECONDS = 180
CALM_SECONDS = 180.0


def wanted_now(state: State, now: float, wanted: float) -> State:
    """With what is wanted now; replicas, not rounded."""
    return replace(state, peaks=_with(state.peaks, now, wanted, CALM_SECONDS))


def wanted_long(state: State, now: float, share: float) -> State:
    """With what three minutes' mean demand needs, when each replica should have `share` of it."""
    last = state.course.means[-LEVEL_SECONDS // recurring.EACH_SECONDS :]
    level = sum(last) * recurring.EACH_SECONDS / LEVEL_SECONDS / share
    return replace(state, levels=_with(state.levels, now, level, KEEP_MOST_SECONDS))


def _with(peaks: Peaks, now: float, value: float, span: float) -> Peaks:
    kept = (item for item in peaks if now - span < item[0] <= now and item[1] > value)
    return (*kept, (now, value))


def span(state: State, now: float) -> float:
    """Seconds that what lasts is kept; what was wanted at all is kept for a minute."""
    if state.start_seconds is None or recurring.met(state.course, now):
        return SPAN_SECONDS
    return max(min(KEEP_STARTS * state.start_seconds, KEEP_MOST_SECONDS), SPAN_SECONDS)


def peak(state: State, now: float) -> tuple[float, float]:
    """The most that is still kept: when it was wanted, and replicas, not rounded."""
    kept = [item for item in state.peaks if now - item[0] < SPAN_SECONDS][:1]
    longest = span(state, now)
    if longest > SPAN_SECONDS:
        kept += [item for item in state.levels if now - item[0] < longest][:1]
    return max(kept, key=lambda item: item[1], default=(now, 0.0))


def calm(state: State, now: float) -> float:
    """The most that was wanted in three minutes or is still kept; replicas, not rounded."""
    return max(state.peaks[0][1] if state.peaks else 0.0, peak(state, now)[1])
