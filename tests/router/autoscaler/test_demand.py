"""What a second asked for, while replicas start and over time."""

from dataclasses import replace

import pytest

from deployments.types import Scaling
from router.autoscaler.demand import demand, mean, mean_seconds, offered, shortage
from router.autoscaler.state import Limits, State
from router.autoscaler.window import Second

LIMITS = Limits(Scaling(minimum=1, maximum=50, target_utilization=70))
FULL = Second(0, busy=10, queued=20, rejected=4, arrivals=24, ready=10)


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        (0, 30.0),  # not known: all that waits
        (24, 12.0),  # 24 a second of half a second each
        (10, 12.0),  # never less than what is inside and was refused
        (100, 30.0),
    ],
)
def test_a_queue_is_no_more_than_comes(arrivals: int, expected: float) -> None:
    second = replace(FULL, arrivals=arrivals)
    assert offered(second, 0.5) == expected
    assert demand(second, 0.5) == 30


def test_without_a_known_service_time_all_counts() -> None:
    assert offered(FULL, None) == demand(FULL, None) == 34


def test_a_shortage_counts_what_waits_for_replicas_on_their_way_once() -> None:
    state = State(service_seconds=0.5)
    assert shortage((FULL,), LIMITS, state, coming=False) == pytest.approx(30 / 0.7)
    assert shortage((FULL,), LIMITS, state, coming=True) == pytest.approx(12 / 0.7)


@pytest.mark.parametrize(("start", "counted"), [(None, 5), (2.0, 5), (20.0, 20), (60.0, 30)])
def test_what_starts_slowly_is_sized_for_what_lasts(start: float | None, counted: int) -> None:
    seconds = tuple(
        Second(i, busy=1, rejected=10 if i >= 40 - counted else 20, ready=1) for i in range(40)
    )
    state = State(start_seconds=start)
    assert shortage(seconds, LIMITS, state, coming=False) == pytest.approx(11 / 0.7)
    assert mean_seconds(start) == {None: 20, 2.0: 20, 20.0: 20, 60.0: 60}[start]


def test_seconds_without_a_ready_replica_are_in_no_mean() -> None:
    seconds = (Second(0, 4.0), Second(1, 9.0, cold=True), Second(2, 6.0))
    assert mean(seconds, 20, None) == 5
    assert mean(seconds[1:2], 20, None) == 0
