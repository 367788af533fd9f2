"""When demand counts as coming again, and what is expected then."""

import random

import pytest

from router.autoscaler.recurring import EACH_SECONDS, LONGEST, expected, follow, met, period
from router.autoscaler.state import Course, State
from router.autoscaler.window import Second

SQUARE = (2.0,) * 15 + (8.0,) * 15


def test_a_square_wave_has_its_period_after_two_of_them() -> None:
    assert period(SQUARE * 2) == 30
    assert period((SQUARE * 2)[:-10]) == 0
    assert period(SQUARE * 5) in (30, 60, 90)


@pytest.mark.parametrize(
    "means",
    [
        (),
        (0.0,) * 200,
        (5.0,) * 200,
        tuple(i / 10 for i in range(200)),  # a ramp never comes again
        (2.0,) * 90 + (8.0,) * 90,  # nor does a step
        (2.0,) * 100 + (8.0,) * 6 + (2.0,) * 90,  # nor one spike
    ],
)
def test_what_does_not_come_again_has_none(means: tuple[float, ...]) -> None:
    assert all(period(means[:length]) == 0 for length in range(len(means)))


def test_noise_has_none() -> None:
    rng = random.Random(3)
    means = tuple(rng.gauss(5, 0.8) for _ in range(240))
    assert all(period(means[:length]) == 0 for length in range(0, 240, 5))


def test_a_known_period_is_kept_until_it_fits_much_worse() -> None:
    blurred = SQUARE + tuple(value + (2.5 if i % 2 else -1) for i, value in enumerate(SQUARE))
    assert period(blurred) == 0
    assert period(blurred, known=30) == 30
    assert period(SQUARE + (5.0, 3.0, 4.0) * 5 + SQUARE[:15], known=30) != 30


def test_the_course_is_means_of_ten_seconds_that_are_over() -> None:
    course, seconds = Course(), tuple[Second, ...]()
    for at in range(1000, 1035):
        seconds = (*seconds, Second(at, float(at // 10)))[-60:]
        course = follow(course, seconds, None)
    assert (course.until, course.means) == (1030, (100.0, 101.0, 102.0))


def test_a_gap_begins_it_anew() -> None:
    course = Course(1000, (1.0, 2.0), 6)
    gap = tuple(Second(at, 3.0) for at in range(1007, 1020))
    assert follow(course, gap, None) == Course(1020, (3.0,))
    later = tuple(Second(at, 3.0) for at in range(5000, 5010))
    assert follow(course, later, None) == Course(5010, (3.0,))


def test_no_more_is_remembered_than_the_longest_period_needs() -> None:
    course = Course(1000, (1.0,) * 2 * LONGEST)
    tenth = tuple(Second(at, 3.0) for at in range(1000, 1010))
    assert len(follow(course, tenth, None).means) == 2 * LONGEST


@pytest.mark.parametrize(
    ("start", "expects"),
    [
        (120.0, 2.0),  # 150 s of 2 come first
        (129.9, 2.0),
        (130.0, 5.0),  # half of twenty seconds
        (140.0, 8.0),
        (900.0, 8.0),  # no more than a period ahead
    ],
)
def test_what_came_a_period_ago_is_expected_as_far_as_a_start_takes(
    start: float, expects: float
) -> None:
    means = (2.0,) * 1 + (SQUARE[1:] + SQUARE[:1]) * 2
    assert expected(State(start_seconds=start, course=Course(1000, means, 30)), 1000.0) == expects


def test_nothing_is_expected_without_a_period_or_a_known_start() -> None:
    assert expected(State(start_seconds=9.0, course=Course(1000, SQUARE * 2)), 1000.0) == 0
    assert expected(State(course=Course(1000, SQUARE * 2, 30)), 1000.0) == 0


@pytest.mark.parametrize(("after", "is_met"), [(299.0, False), (300.0, True)])
def test_a_period_is_met_when_it_held_for_as_long_as_it_is(after: float, is_met: bool) -> None:
    course = Course(2000, SQUARE * 2, 30, since=1000.0)
    assert met(course, 1000.0 + after) is is_met
    assert not met(Course(2000, SQUARE * 2), 9e9)
    assert EACH_SECONDS * course.period == 300
