"""Recorded counts as requests again: as many, when they came, and as long as they took."""

import math

import pytest

from router.autoscaler.replay import Block, UnknownServiceTime, requests
from router.samples import BUCKET_BOUNDS_US, BUCKETS


def histogram(**counts: int) -> tuple[int, ...]:
    """`ms100=3`: three in the bucket that ends at 100 ms."""
    found = [0] * BUCKETS
    for name, count in counts.items():
        found[BUCKET_BOUNDS_US.index(1000 * int(name.removeprefix("ms")))] = count
    return tuple(found)


def test_each_block_has_its_requests_inside_it_and_in_order() -> None:
    blocks = [
        Block(0, 10, 30, histogram=histogram(ms100=30)),
        Block(10, 10, 0),
        Block(40, 10, 7, histogram=histogram(ms100=7)),
    ]
    found = requests(blocks)
    assert list(found.arrivals) == sorted(found.arrivals)
    assert sum(1 for at in found.arrivals if 0 <= at < 10) == 30
    assert sum(1 for at in found.arrivals if 40 <= at < 50) == 7
    assert len(found.arrivals) == len(found.services) == 37


def test_the_same_blocks_give_the_same_requests() -> None:
    blocks = [Block(0, 60, 100, histogram=histogram(ms20=50, ms300=50))]
    assert requests(blocks) == requests(blocks)
    assert requests(blocks).arrivals != requests(blocks, seed=21).arrivals


def test_times_are_drawn_from_the_blocks_own_histogram() -> None:
    blocks = [
        Block(0, 10, 400, histogram=histogram(ms100=3, ms2000=1)),
        Block(10, 10, 100, histogram=histogram(ms5=9)),
    ]
    services = requests(blocks).services
    quick, slow = services[400:], services[:400]
    assert all(0.003 <= service <= 0.005 for service in quick)
    assert all(0.075 <= service <= 0.1 or 1.0 <= service <= 2.0 for service in slow)
    assert 60 <= sum(1 for service in slow if service >= 1.0) <= 140


def test_a_block_without_answers_takes_the_times_of_its_neighbour() -> None:
    blocks = [
        Block(0, 1, 5),
        Block(1, 1, 5, histogram=histogram(ms5=1)),
        Block(2, 1, 5),
        Block(3, 1, 5, histogram=histogram(ms2000=1)),
    ]
    services = requests(blocks).services
    assert all(service <= 0.005 for service in services[:15])
    assert all(service >= 1.0 for service in services[15:])


def test_where_nothing_was_answered_nobody_knows_how_long_it_takes() -> None:
    with pytest.raises(UnknownServiceTime):
        requests([Block(0, 1, 5)])
    assert len(requests([Block(0, 1, 0)]).arrivals) == 0


def test_those_that_timed_out_take_for_ever() -> None:
    blocks = [Block(0, 10, 20, timeouts=4, busy_seconds=300.0, histogram=histogram(ms100=16))]
    found = requests(blocks)
    assert sum(1 for service in found.services if service == math.inf) == 4
    assert found.stretch == 1.0


def test_times_are_stretched_to_the_work_that_was_measured() -> None:
    """1,000 requests in the bucket from 100 to 150 ms took 110 ms each: 100 busy seconds."""
    blocks = [Block(0, 100, 1_000, busy_seconds=110.0, histogram=histogram(ms150=1_000))]
    found = requests(blocks)
    assert found.stretch == pytest.approx(0.88, abs=0.01)
    assert sum(found.services) == pytest.approx(110.0)


@pytest.mark.parametrize(("busy", "stretch"), [(24.9, 1.0), (25.0, 0.4), (1_000.0, 2.5)])
def test_little_work_stretches_nothing_and_nonsense_not_without_bounds(
    busy: float, stretch: float
) -> None:
    blocks = [Block(0, 100, 1_000, busy_seconds=busy, histogram=histogram(ms150=1_000))]
    assert requests(blocks).stretch == stretch


def test_rejected_requests_are_no_work_of_replicas() -> None:
    block = Block(0, 100, 2_000, refused=1_000, busy_seconds=125.0, histogram=histogram(ms150=1))
    assert requests([block]).stretch == pytest.approx(1.0, abs=0.01)


def test_progress_is_told() -> None:
    told: list[float] = []
    blocks = [Block(at, 1, 1, histogram=histogram(ms5=1)) for at in range(400)]
    requests(blocks, progress=told.append)
    assert told == sorted(told)
    assert len(told) == 4
    assert 0 < told[0] < told[-1] < 1
