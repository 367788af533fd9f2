"""From seconds to hours: counts exact, means weighted, quantiles of all requests, gaps kept."""

import random
from typing import Any

import pytest

from router.samples import BUCKETS, quantile_us
from router.telemetry.models import (
    Decision,
    Hour,
    Minute,
    RollupMark,
    Second,
    Series,
    TenSeconds,
    pack_histogram,
    unpack_histogram,
)
from router.telemetry.rollups import LEVELS, maintain, prune, reopen, roll_up, until

HOUR = 1_800_000_000 - 1_800_000_000 % 3600
pytestmark = pytest.mark.django_db


@pytest.fixture
def series() -> Series:
    return Series.objects.create(cluster="local", service="diabetes", version="default")


def write(series: Series, at: int, **values: Any) -> None:
    Second.objects.create(series=series, at=at, **values)


def test_counts_add_up_means_are_weighted_and_peaks_are_the_highest(series: Series) -> None:
    for i in range(5):  # five measured seconds of the first ten
        write(series, HOUR + i, ok=10, busy=2.0, busy_peak=i, ready=1)
    for i in range(10):
        write(series, HOUR + 10 + i, ok=1, busy=8.0, busy_peak=3, ready=4)
    assert roll_up(HOUR + 65) == {10: 2, 60: 1, 3600: 0}
    first, second = TenSeconds.objects.order_by("at")
    assert (first.at, first.seconds, first.ok, first.busy, first.busy_peak) == (HOUR, 5, 50, 2.0, 4)
    assert (second.at, second.seconds, second.ok, second.busy) == (HOUR + 10, 10, 10, 8.0)
    minute = Minute.objects.get()
    assert (minute.seconds, minute.ok, minute.busy_peak) == (15, 60, 4)
    assert minute.busy == pytest.approx((5 * 2 + 10 * 8) / 15)
    assert minute.ready == pytest.approx((5 * 1 + 10 * 4) / 15)


def test_an_hour_has_the_counts_and_quantiles_of_all_its_requests(series: Series) -> None:
    rng = random.Random(7)
    total, arrivals = [0] * BUCKETS, 0
    rows = []
    for i in range(3600):
        histogram = [0] * BUCKETS
        for _ in range(rng.randrange(4)):
            histogram[rng.randrange(BUCKETS)] += 1
        total = [a + b for a, b in zip(total, histogram, strict=True)]
        count = rng.randrange(1000)
        arrivals += count
        rows.append(
            Second(series=series, at=HOUR + i, arrivals=count, histogram=pack_histogram(histogram))
        )
    Second.objects.bulk_create(rows)
    written = roll_up(HOUR + 3605)
    assert written == {10: 360, 60: 60, 3600: 1}
    hour = Hour.objects.get()
    assert (hour.seconds, hour.arrivals) == (3600, arrivals)
    assert list(unpack_histogram(hour.histogram)) == total
    assert quantile_us(unpack_histogram(hour.histogram), 0.99) == quantile_us(tuple(total), 0.99)


@pytest.mark.parametrize(("now", "closed"), [(HOUR + 14, 0), (HOUR + 15, 1)])
def test_a_bucket_is_made_once_it_is_over_and_settled(
    series: Series, now: int, closed: int
) -> None:
    write(series, HOUR, ok=1)
    roll_up(now)
    assert TenSeconds.objects.count() == closed


def test_a_gap_has_no_rows_at_any_resolution(series: Series) -> None:
    write(series, HOUR, ok=1)
    write(series, HOUR + 7200 + 5, ok=1)
    roll_up(HOUR + 3 * 3600 + 5)
    assert [row.at for row in Hour.objects.order_by("at")] == [HOUR, HOUR + 7200]
    assert [row.at for row in TenSeconds.objects.order_by("at")] == [HOUR, HOUR + 7200]


def test_running_twice_changes_nothing(series: Series) -> None:
    write(series, HOUR, ok=3)
    roll_up(HOUR + 70)
    assert roll_up(HOUR + 70) == {10: 0, 60: 0, 3600: 0}
    reopen(HOUR)
    roll_up(HOUR + 70)
    assert [(row.at, row.ok, row.seconds) for row in Minute.objects.all()] == [(HOUR, 3, 1)]


def test_late_samples_get_into_every_resolution(series: Series) -> None:
    write(series, HOUR, ok=3)
    roll_up(HOUR + 3700)
    write(series, HOUR + 1, ok=4)
    reopen(HOUR + 1)
    roll_up(HOUR + 3700)
    for model in (TenSeconds, Minute, Hour):
        assert [row.ok for row in model.objects.all()] == [7], model


def test_each_version_has_rows_of_its_own(series: Series) -> None:
    other = Series.objects.create(cluster="local", service="diabetes", version="b")
    write(series, HOUR, ok=1)
    write(other, HOUR, ok=2)
    roll_up(HOUR + 60)
    found = TenSeconds.objects.order_by("series").values_list("series", "ok")
    assert list(found) == [(series.pk, 1), (other.pk, 2)]


def test_a_long_way_behind_is_caught_up_in_bounded_steps(series: Series) -> None:
    Second.objects.bulk_create([Second(series=series, at=HOUR + 10 * i, ok=1) for i in range(100)])
    assert roll_up(HOUR + 1005)[10] == 100
    assert until(10) == HOUR + 1000


def test_many_services_are_rolled_up_without_a_query_for_each(
    series: Series, django_assert_max_num_queries: Any
) -> None:
    many = Series.objects.bulk_create(
        [Series(cluster="local", service=f"s{i}", version="default") for i in range(200)]
    )
    Second.objects.bulk_create(
        [Second(series=item, at=HOUR + i, ok=1) for item in many for i in range(10)]
    )
    with django_assert_max_num_queries(40):
        roll_up(HOUR + 15)
    assert TenSeconds.objects.filter(ok=10).count() == 200


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: f"{level.step}s")
def test_rows_are_kept_as_long_as_their_resolution_says(series: Series, level: Any) -> None:
    now = HOUR + 500 * 86_400
    for item in LEVELS[1:]:
        RollupMark.objects.create(step=item.step, until=now)
    edge = now - level.keep
    for at in (edge - 1, edge):
        level.model.objects.create(series=series, at=at)
    assert prune(now) == 1
    assert level.model.objects.get().at == edge


def test_what_is_not_rolled_up_yet_is_not_forgotten(series: Series) -> None:
    write(series, HOUR, ok=1)
    assert prune(HOUR + 8000) == 0
    roll_up(HOUR + 8000)
    assert prune(HOUR + 8000) == 1


def test_decisions_are_kept_as_long_as_the_coarsest_samples(series: Series) -> None:
    for age in (399, 401):
        Decision.objects.create(
            series=series, at=HOUR - age * 86_400, before=1, after=2, code="up", reason=".",
            applied=True,
        )  # fmt: skip
    prune(HOUR)
    assert Decision.objects.count() == 1


def test_maintaining_rolls_up_and_prunes(series: Series) -> None:
    write(series, HOUR, ok=1)
    maintain(HOUR + 30_000)
    assert Hour.objects.count() == 1
    assert not Second.objects.exists()


def test_histograms_survive_packing() -> None:
    counts = tuple(range(BUCKETS))
    assert unpack_histogram(pack_histogram(counts)) == counts
    assert pack_histogram((0,) * BUCKETS) == b""
