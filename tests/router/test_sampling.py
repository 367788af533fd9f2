"""A second is measured whole or not at all; and what a client is told to wait."""

import pytest

from deployments.types import Capacity, NodeCapacity, Phase, Resources
from router.haproxy.pool import Key
from router.haproxy.stats import BackendFigures, Counters
from router.ring import Ring
from router.samples import DecisionRecord, Sample
from router.sampling import Count, Mark, placeable, retry_after, samples
from tests.router.fakes import replica

KEY = Key("demo", "default")
COUNTS = {KEY: Count(ready=2, starting=1, draining=0, desired=3)}


def mark(at: float, worker: int = 7, **counters: int) -> Mark:
    return Mark(at, worker, {KEY: Counters(**counters)})


def reading(busy: int, queued: int) -> dict[Key, BackendFigures]:
    return {KEY: BackendFigures(busy, queued, 0, 0)}


def test_a_second_has_differences_means_and_peaks() -> None:
    readings = [reading(1, 0), reading(2, 5), reading(0, 0), reading(1, 1)]
    before = mark(100.0, arrivals=10, ok=9)
    after = mark(101.0, arrivals=14, ok=12, rejected=3, unready=2)
    [made] = samples(100, readings, before, after, COUNTS)
    assert (made.at, made.arrivals, made.ok) == (100, 4, 3)
    assert (made.rejected, made.unready) == (3, 2)
    assert (made.busy, made.busy_peak, made.queued, made.queued_peak) == (1.0, 2, 1.5, 5)
    assert (made.ready, made.starting, made.desired) == (2, 1, 3)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, mark(101.0)),
        (mark(100.0, worker=7), mark(101.0, worker=8)),
        (mark(100.0, ok=5), mark(101.0, ok=4)),
        (mark(100.0), mark(101.81)),
        (mark(100.0), mark(100.39)),
        (Mark(100.0, 7, {}), mark(101.0)),
    ],
    ids=["no begin", "another worker", "shrank", "too long", "too short", "new version"],
)
def test_a_second_that_was_not_measured_whole_is_a_gap(before: Mark | None, after: Mark) -> None:
    assert samples(100, [reading(0, 0)], before, after, COUNTS) == ()


def test_seconds_just_inside_the_bounds_are_measured() -> None:
    for end in (100.41, 101.79):
        assert len(samples(100, [reading(0, 0)], mark(100.0), mark(end), COUNTS)) == 1


def test_a_second_without_a_reading_of_the_version_is_a_gap() -> None:
    assert samples(100, [{}], mark(100.0), mark(101.0), COUNTS) == ()


def test_a_client_comes_again_when_the_next_replica_should_be_ready() -> None:
    starting = [
        replica("a", "demo", "", Phase.LOADING, created_at=100.0),
        replica("b", "demo", "", Phase.STARTING, created_at=110.0),
    ]
    for now, seconds in ((105.0, 15), (119.5, 1), (119.0, 1), (118.9, 2), (150.0, 1)):
        assert retry_after(starting, 20.0, now) == seconds
    assert retry_after(starting, None, 105.0) == 1
    assert retry_after([replica("c", "demo", "x:1")], 20.0, 105.0) == 1
    assert retry_after(starting, 10_000.0, 105.0) == 300


def test_room_is_counted_by_node_and_by_what_is_scarcest() -> None:
    nodes = (NodeCapacity("a", 4, 1.0, 16, 3.0), NodeCapacity("b", 4, 0.3, 16, 9.0))
    capacity = Capacity(1.0, nodes)
    assert placeable(capacity, Resources(cpu=0.1, memory_gb=0.5)) == 6 + 3
    assert placeable(capacity, Resources(cpu=0.5, memory_gb=0.5)) == 2
    assert placeable(capacity, Resources(gpu=1)) == 0
    assert placeable(None, Resources()) is None


def test_the_ring_numbers_its_rows_and_forgets_the_oldest() -> None:
    ring = Ring("e", limit=3)
    assert ring.page(0).next == 0
    ring.add([Sample(1, "s", "v"), DecisionRecord(1.5, "s", "v", 1, 2, "up", "why", True)])
    page = ring.page(0)
    assert (len(page.samples), len(page.decisions), page.next) == (1, 1, 2)
    assert ring.page(2).samples == ()
    ring.add([Sample(at, "s", "v") for at in (2, 3)])
    assert [item.at for item in ring.page(0).samples] == [2, 3]
    assert ring.page(0).next == 4
    assert [item.at for item in ring.page(3).samples] == [3]
    assert ring.page(99).next == 4
    assert ring.page(0, limit=1).next == 2
