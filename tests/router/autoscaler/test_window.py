"""The minute the policy looks at, and how replicas are counted."""

import pytest

from deployments.types import Phase, Replica
from router.autoscaler.window import SPAN_SECONDS, Second, Window, removal_order, second, standing
from router.samples import Sample


def replica(name: str, phase: Phase, **kwargs: object) -> Replica:
    return Replica(name, "s", "default", 1, phase, **kwargs)  # type: ignore[arg-type]


def test_a_second_without_a_ready_replica_at_any_router_is_cold() -> None:
    none, one = Sample(5, "s", "v", rejected=9), Sample(5, "s", "v", rejected=9, ready=1)
    assert second([none, none]).cold
    assert not second([none, one]).cold


def test_what_found_no_ready_replica_is_not_rejected_work() -> None:
    """The first replica became ready within this second: its earlier part is no demand."""
    one = Sample(5, "s", "v", rejected=9, unready=7, ready=1)
    two = Sample(5, "s", "v", rejected=4, unready=4)
    assert second([one, two]) == Second(5, rejected=2, unready=11, ready=1)


def test_samples_of_several_routers_add_up() -> None:
    one = Sample(
        5, "s", "v", arrivals=9, ok=3, failures=1, timeouts=1, rejected=2, busy=1.5, queued=0.5
    )
    two = Sample(5, "s", "v", ok=2, busy=2.0, client_errors=9, ready=1)
    assert second([one, two]) == Second(5, 3.5, 0.5, 2, 7, arrivals=9, ready=1)


def test_the_window_keeps_a_minute() -> None:
    window = Window()
    for at in range(100, 100 + SPAN_SECONDS + 1):
        window = window.add(Second(at))
    assert [window.seconds[0].at, window.seconds[-1].at] == [101, 100 + SPAN_SECONDS]
    assert len(window.seconds) == SPAN_SECONDS


def test_a_gap_stays_a_gap() -> None:
    window = Window().add(Second(1)).add(Second(9))
    assert [item.at for item in window.seconds] == [1, 9]


@pytest.mark.parametrize("at", [8, 9])
def test_a_second_that_was_seen_is_not_taken_twice(at: int) -> None:
    window = Window().add(Second(9, busy=1))
    assert window.add(Second(at, busy=5)) is window


@pytest.mark.parametrize(
    ("phase", "restarts", "counts"),
    [
        (Phase.READY, 0, (1, 0, 0)),
        (Phase.READY, 9, (1, 0, 0)),
        (Phase.SCHEDULING, 0, (0, 1, 0)),
        (Phase.LOADING, 1, (0, 1, 0)),
        (Phase.LOADING, 2, (0, 0, 1)),
        (Phase.CRASHED, 0, (0, 0, 1)),
        (Phase.DRAINING, 0, (0, 0, 0)),
        (Phase.STOPPED, 0, (0, 0, 0)),
    ],
)
def test_each_phase_is_counted_once(
    phase: Phase, restarts: int, counts: tuple[int, int, int]
) -> None:
    seen = standing([replica("a", phase, restarts=restarts)])
    assert (seen.ready, len(seen.starting_since), seen.crashing) == counts


def test_a_replica_that_starts_again_is_on_its_way_since_then() -> None:
    again = replica("a", Phase.LOADING, restarts=1, created_at=10.0, started_at=900.0)
    first = replica("b", Phase.LOADING, created_at=20.0, started_at=25.0)
    assert standing([again, first]).starting_since == (20.0, 900.0)


def test_start_times_come_from_first_runs_only() -> None:
    seen = standing(
        [
            replica("b", Phase.READY, created_at=10.0, ready_at=25.0),
            replica("a", Phase.READY, created_at=10.0, ready_at=20.0),
            replica("c", Phase.READY, created_at=10.0, ready_at=900.0, restarts=1),
        ]
    )
    assert seen.starts == ((20.0, 10.0), (25.0, 15.0))


def test_those_that_serve_nobody_go_first_and_the_busiest_last() -> None:
    replicas = [
        replica("busy", Phase.READY, created_at=1.0),
        replica("idle-old", Phase.READY, created_at=1.0),
        replica("idle-young", Phase.READY, created_at=2.0),
        replica("unreported", Phase.READY, created_at=3.0),
        replica("starting", Phase.STARTING, created_at=4.0),
        replica("looping", Phase.STARTING, created_at=2.0, restarts=3),
        replica("crashed", Phase.CRASHED, created_at=1.0),
        replica("leaving", Phase.DRAINING),
    ]
    order = removal_order(replicas, {"busy": 2, "idle-old": 0, "idle-young": 0})
    assert order == (
        "crashed", "looping", "starting", "idle-young", "idle-old", "busy", "unreported",
    )  # fmt: skip
