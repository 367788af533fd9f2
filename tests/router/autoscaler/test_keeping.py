"""What is kept that is not needed now, and for how long."""

import pytest

from router.autoscaler.keeping import calm, peak, span, wanted_long, wanted_now
from router.autoscaler.state import Course, State


@pytest.mark.parametrize(
    ("start", "seconds"),
    [(None, 60), (2.0, 60), (10.0, 60), (20.0, 120), (60.0, 360), (600.0, 360)],
)
def test_what_starts_slowly_is_kept_longer(start: float | None, seconds: float) -> None:
    assert span(State(start_seconds=start), 0.0) == seconds


def test_nothing_is_kept_longer_where_demand_comes_on_time() -> None:
    found = Course(1000, (1.0,) * 60, 30, since=700.0)
    state = State(start_seconds=60.0, course=found)
    assert (span(state, 999.0), span(state, 1000.0)) == (360, 60)


@pytest.mark.parametrize(("ago", "kept"), [(59.0, 9.0), (60.0, 3.0)])
def test_what_was_wanted_once_is_kept_for_a_minute(ago: float, kept: float) -> None:
    state = wanted_now(wanted_now(State(), 1000.0 - ago, 9.0), 1000.0, 3.0)
    assert peak(state, 1000.0)[1] == kept
    assert calm(state, 1000.0) == 9.0


@pytest.mark.parametrize(("start", "kept"), [(20.0, 3.0), (60.0, 10.0)])
def test_a_level_outlives_the_minute_and_a_burst_does_not(start: float, kept: float) -> None:
    state = State(start_seconds=start, course=Course(1000, (7.0,) * 18))
    state = wanted_now(wanted_long(state, 1000.0, 0.7), 1000.0, 40.0)
    state = wanted_now(state, 1200.0, 3.0)
    assert peak(state, 1200.0)[1] == pytest.approx(kept)


def test_a_level_is_of_three_minutes_and_what_was_not_measured_adds_nothing() -> None:
    state = wanted_long(State(course=Course(1000, (7.0,) * 9)), 1000.0, 0.7)
    assert state.levels == ((1000.0, pytest.approx(5.0)),)
    state = wanted_long(State(course=Course(1000, (70.0,) * 9 + (7.0,) * 18)), 1000.0, 0.7)
    assert state.levels == ((1000.0, pytest.approx(10.0)),)


def test_of_what_was_wanted_only_what_is_not_outdone_later_is_remembered() -> None:
    state = State()
    for at, value in ((1.0, 5.0), (2.0, 3.0), (3.0, 4.0), (4.0, 4.0)):
        state = wanted_now(state, at, value)
    assert state.peaks == ((1.0, 5.0), (4.0, 4.0))
