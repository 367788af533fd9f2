"""What the burst is said to come to, against what can be worked out by hand."""

from dataclasses import replace

import pytest

from bench.burst_prediction import Burst, Figures, compared, predict

BURST = Burst(
    clients=4,
    seconds=10.0,
    after=100.0,
    service_seconds=0.25,
    start_seconds=2.0,
    maximum=6,
    back_off=0.5,
    pause=0.5,
)


def test_one_replica_serves_until_the_others_are_ready_and_nobody_is_lost_after() -> None:
    found = predict(BURST)
    assert found.asked is not None
    assert 0 < found.asked <= 0.25  # the next turn of the loop
    assert found.replicas == 6
    assert len(found.ready) == 5
    assert all(2.0 < at < 4.0 for at in found.ready)
    assert found.lost == 0
    assert found.down is not None
    # four at a time, a quarter of a second each, but for the two seconds with one slot
    assert 4 * 10 / 0.25 * 0.8 < found.requests < 4 * 10 / 0.25


def test_clients_that_are_refused_ask_less() -> None:
    slow = predict(replace(BURST, start_seconds=60.0))
    assert slow.rejected >= 5
    assert slow.requests < 70


def figures(**changes: object) -> Figures:
    made = Figures(0.2, 10, (), 1000, 50, 900.0, 100.0, 0)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("asked", {"asked": 0.45}, {"asked": 0.46}),
        ("asked", {"asked": 0.0}, {"asked": None}),
        ("replicas", {"replicas": 9}, {"replicas": 8}),
        ("rejected_share", {"rejected": 57}, {"rejected": 58}),
        ("replica_seconds", {"replica_seconds": 1035.0}, {"replica_seconds": 1036.0}),
    ],
)
def test_within_fifteen_percent(
    name: str, inside: dict[str, object], outside: dict[str, object]
) -> None:
    assert compared(figures(**inside), figures())[name]
    assert not compared(figures(**outside), figures())[name]
