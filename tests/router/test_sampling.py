"""A second is measured whole or not at all."""

import pytest

from deployments.types import Capacity, NodeCapacity, Resources
from router.haproxy.pool import Key
from router.haproxy.stats import BackendFigures, Counters
from router.ring import Ring
from router.samples import DecisionRecord, Sample
from router.sampling import (
    Count,
    Mark,
    change,
    placeable,
    samples,
)

KEY = Key("demo", "default")
COUNTS = {KEY: Count(ready=2, starting=1, draining=0, desired=3)}


HOME = {KEY: "be_0001"}


def mark(at: float, worker: int = 7, **counters: int) -> Mark:
    return Mark(at, worker, {worker: {"be_0001": Counters(**counters)}}, HOME)


def two(at: float, *, old: int, new: int) -> Mark:
    """After a reload: worker 7 finishes what it had, worker 8 takes what comes."""
    counted = {7: {"be_0001": Counters(ok=old)}, 8: {"be_0001": Counters(ok=new)}}
    return Mark(at, 8, counted, HOME)


def measure(before: Mark | None, after: Mark) -> tuple[Sample, ...]:
    return samples(100, [reading(0, 0)], change(before, after), COUNTS)


def reading(busy: int, queued: int) -> dict[Key, BackendFigures]:
    return {KEY: BackendFigures(busy, queued, 0, 0)}


def test_a_second_has_differences_means_and_peaks() -> None:
    readings = [reading(1, 0), reading(2, 5), reading(0, 0), reading(1, 1)]
    before = mark(100.0, arrivals=10, ok=9)
    after = mark(101.0, arrivals=14, ok=12, rejected=3, unready=2)
    [made] = samples(100, readings, change(before, after), COUNTS)
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
        (Mark(100.0, 7, {7: {}}, HOME), mark(101.0)),
        (Mark(100.0, 7, {7: {}}, {}), mark(101.0)),
        (Mark(100.0, 7, {7: {"be_0001": Counters()}}, {KEY: "be_0002"}), mark(101.0, ok=9)),
        (two(100.0, old=5, new=1), mark(101.0, worker=8, ok=2)),
        (mark(100.0, worker=8), two(101.0, old=5, new=1)),
    ],
    ids=[
        "no begin",
        "another worker",
        "shrank",
        "too long",
        "too short",
        "backend not counted",
        "new version",
        "moved to a backend that others used",
        "old worker ended, and what it counted last is unknown",
        "old worker that was not seen before",
    ],
)
def test_a_second_that_was_not_measured_whole_is_a_gap(before: Mark | None, after: Mark) -> None:
    assert measure(before, after) == ()


def test_seconds_just_inside_the_bounds_are_measured() -> None:
    for end in (100.41, 101.79):
        assert len(measure(mark(100.0), mark(end))) == 1


def test_a_reload_loses_no_count_while_the_old_worker_can_be_read() -> None:
    first, second, third = mark(100.0, ok=10), two(101.0, old=12, new=3), two(102.0, old=13, new=7)
    assert [item.ok for item in measure(first, second)] == [2 + 3]
    assert [item.ok for item in measure(second, third)] == [1 + 4]


def test_the_old_workers_end_costs_the_total_nothing_but_what_it_did_not_tell() -> None:
    before, after = two(100.0, old=13, new=7), mark(101.0, worker=8, ok=9)
    found = change(before, after)
    assert (found.whole, found.by_version[KEY].ok) == (False, 2)


def test_a_gap_in_the_samples_is_none_in_the_totals() -> None:
    found = change(mark(100.0, ok=5), mark(130.0, ok=50))
    assert samples(100, [reading(0, 0)], found, COUNTS) == ()
    assert (found.whole, found.by_version[KEY].ok) == (True, 45)


def test_another_workers_counters_are_never_taken_for_ours() -> None:
    """HAProxy was killed and started again: neither the spike nor zeros."""
    found = change(mark(100.0, worker=7, ok=5), mark(101.0, worker=9, ok=900))
    assert not found.whole


def test_all_three_histograms_are_differences() -> None:
    def counts(first: int) -> tuple[int, ...]:
        return (first,) + (0,) * 23

    def at(value: int) -> Mark:
        counted = Counters(
            ok=value,
            histogram=counts(value),
            queue_histogram=counts(value * 2),
            service_histogram=counts(value * 3),
        )
        return Mark(100.0 + value, 7, {7: {"be_0001": counted}}, HOME)

    [made] = measure(at(1), at(2))
    assert (made.histogram[0], made.queue_histogram[0], made.service_histogram[0]) == (1, 2, 3)


def test_a_second_without_a_reading_of_the_version_is_a_gap() -> None:
    assert samples(100, [{}], change(mark(100.0), mark(101.0)), COUNTS) == ()


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
