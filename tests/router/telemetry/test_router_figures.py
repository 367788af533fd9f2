"""The routers' own figures: taken over once, rolled up exactly, shown with their gaps."""

from dataclasses import replace

import pytest

from router.size_wire import RouterSample, SizeDecision, SizePage, from_wire, to_wire
from router.telemetry import router_collect, router_queries, router_rollups
from router.telemetry.queries import BY_KEY
from router.telemetry.router_rows import (
    RouterDecision,
    RouterHour,
    RouterMinute,
    RouterPlace,
    RouterSecond,
    RouterTenSeconds,
)

NOW = 1_700_000_400  # a full minute
SAMPLE = RouterSample(
    at=NOW,
    routing_ms=0.5,
    idle=90.0,
    cpu=0.1,
    threads=1,
    pods=1,
    cores=2,
    connections=4,
    requests=10.0,
)
DECISION = SizeDecision(
    at=NOW + 0.5,
    code="more_threads",
    reason="slow",
    threads_before=1,
    threads_after=2,
    pods_before=1,
    pods_after=1,
    applied=True,
    inputs={"cpu": 0.9, "free_cores": None},
)


def samples(*seconds: int, **values: float) -> tuple[RouterSample, ...]:
    return tuple(replace(SAMPLE, at=at, **values) for at in seconds)


def keep(place: RouterPlace, page: SizePage, now: float = NOW) -> bool:
    return router_collect.keep(place, page, now)


@pytest.fixture
def place(db: None) -> RouterPlace:
    return RouterPlace.objects.create(cluster="local")


def test_the_wire_says_what_was_said() -> None:
    page = SizePage("e", 7, (SAMPLE, replace(SAMPLE, routing_ms=None)), (DECISION,))
    assert from_wire(to_wire(page)) == page
    with pytest.raises(ValueError):
        from_wire({"epoch": "e"})


def test_a_page_is_taken_over_once(place: RouterPlace) -> None:
    page = SizePage("e", 3, samples(NOW, NOW + 1), (DECISION,))
    late = RouterPlace.objects.get()  # another collector that read the same page
    assert keep(place, page)
    assert not keep(late, page)
    assert RouterSecond.objects.count() == 2
    place.refresh_from_db()
    assert (place.epoch, place.seq) == ("e", 3)
    # a router that began anew tells the same seconds again
    assert keep(place, SizePage("f", 2, samples(NOW + 1, NOW + 2)))
    assert list(RouterSecond.objects.order_by("at").values_list("at", flat=True)) == [
        NOW,
        NOW + 1,
        NOW + 2,
    ]


def test_what_becomes_of_a_decision_is_told_in_its_row(place: RouterPlace) -> None:
    keep(place, SizePage("e", 1, (), (DECISION,)))
    row = RouterDecision.objects.get()
    assert (row.direction, row.title, row.waited) == ("up", "1 → 2 threads", None)
    keep(place, SizePage("e", 2, (), (replace(DECISION, done_at=NOW + 1.75),)))
    row = RouterDecision.objects.get()
    assert row.waited == 1.25
    assert dict(row.figures())["cores free beside it"] == "unknown"
    refused = replace(DECISION, code="not_applied", threads_after=1, applied=False)
    keep(place, SizePage("e", 3, (), (refused,)))
    assert RouterDecision.objects.get().direction == "prevented"


def test_both_tellings_of_a_decision_in_one_page_are_one_row(place: RouterPlace) -> None:
    keep(place, SizePage("e", 2, (), (DECISION, replace(DECISION, done_at=NOW + 2.0))))
    assert RouterDecision.objects.get().done_at == NOW + 2.0


def test_buckets_are_weighted_by_what_was_measured(place: RouterPlace) -> None:
    first = samples(*range(NOW, NOW + 4), cpu=0.1, routing_ms=1.0)
    second = samples(*range(NOW + 4, NOW + 6), cpu=0.7, routing_ms=None)
    third = samples(*range(NOW + 70, NOW + 80), cpu=0.2, routing_ms=3.0, threads=2)
    keep(place, SizePage("e", 1, first + second + third))
    router_rollups.roll_up(NOW + 200)
    bucket = RouterTenSeconds.objects.get(at=NOW)
    assert (bucket.seconds, bucket.probed, bucket.routing_ms) == (6, 4, 1.0)
    assert bucket.cpu == pytest.approx((4 * 0.1 + 2 * 0.7) / 6)
    assert bucket.cpu_peak == 0.7
    assert not RouterTenSeconds.objects.filter(at=NOW + 10).exists()
    minute = RouterMinute.objects.get(at=NOW + 60)
    assert (minute.seconds, minute.threads, minute.routing_peak_ms) == (10, 2.0, 3.0)
    router_rollups.roll_up(NOW + 7_300)
    hour = RouterHour.objects.get()
    assert hour.seconds == 16
    assert hour.routing_ms == pytest.approx((4 * 1.0 + 10 * 3.0) / 14)


def test_rolling_up_twice_and_what_comes_late_change_nothing_else(place: RouterPlace) -> None:
    keep(place, SizePage("e", 1, samples(*range(NOW, NOW + 8))))
    router_rollups.roll_up(NOW + 30)
    keep(place, SizePage("e", 2, samples(NOW + 8, NOW + 9, *range(NOW + 10, NOW + 20))))
    router_rollups.roll_up(NOW + 30)
    router_rollups.roll_up(NOW + 31)
    assert list(RouterTenSeconds.objects.order_by("at").values_list("at", "seconds")) == [
        (NOW, 10),
        (NOW + 10, 10),
    ]


def test_an_open_bucket_is_not_made(place: RouterPlace) -> None:
    keep(place, SizePage("e", 1, samples(*range(NOW, NOW + 10))))
    assert router_rollups.roll_up(NOW + 14)[10] == 0
    assert router_rollups.roll_up(NOW + 15)[10] == 1


def test_what_is_too_old_goes(place: RouterPlace) -> None:
    keep(place, SizePage("e", 1, samples(NOW), (DECISION,)))
    router_rollups.prune(NOW + 7_200)
    assert RouterSecond.objects.exists()
    router_rollups.prune(NOW + 7_201)
    assert not RouterSecond.objects.exists()
    assert RouterDecision.objects.exists()


def test_a_gap_is_a_gap_on_the_chart(place: RouterPlace) -> None:
    keep(place, SizePage("e", 1, samples(NOW, NOW + 1, NOW + 5)))
    chart = router_queries.chart("local", BY_KEY["5m"], NOW + 6)
    assert chart.at == [NOW, NOW + 1, NOW + 2, NOW + 5]
    assert chart.columns["cpu"] == [0.1, 0.1, None, 0.1]
    fresh = router_queries.chart("local", BY_KEY["5m"], NOW + 6, NOW + 1)
    assert fresh.at == [NOW + 2, NOW + 5]
    assert router_queries.chart("elsewhere", BY_KEY["5m"], NOW + 6).at == []


@pytest.mark.parametrize("key", ["30m", "6h", "7d"])
def test_every_range_ends_at_now(place: RouterPlace, key: str) -> None:
    keep(place, SizePage("e", 1, samples(*range(NOW - 100, NOW))), NOW)
    router_rollups.roll_up(NOW)
    chart = router_queries.chart("local", BY_KEY[key], NOW)
    assert chart.at
    assert NOW - chart.at[-1] <= chart.range.step + 12
    assert chart.columns["requests"][0] == 10.0


def test_what_a_page_listens_to_changes_with_the_ledger(place: RouterPlace) -> None:
    before = router_queries.state("local")
    keep(place, SizePage("e", 1, (), (DECISION,)))
    between = router_queries.state("local")
    keep(place, SizePage("e", 2, (), (replace(DECISION, done_at=NOW + 1.0),)))
    assert len({before, between, router_queries.state("local")}) == 3
    assert [row.code for row in router_queries.marks("local", NOW)] == ["more_threads"]
    assert router_queries.latest("local", NOW) is None
