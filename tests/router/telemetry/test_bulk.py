"""Rows in bulk, and what the database adds up of them."""

import random

import pytest

from router.samples import BUCKETS, quantile_us
from router.telemetry import bulk
from router.telemetry.aggregate import added_up
from router.telemetry.columns import COLUMNS, SUMS
from router.telemetry.models import (
    Minute,
    Second,
    Series,
    pack_histogram,
    packed_quantiles_us,
)
from router.telemetry.rollups import merge

AT = 1_800_000_000
pytestmark = pytest.mark.django_db


@pytest.fixture
def series() -> Series:
    return Series.objects.create(cluster="local", service="diabetes", version="default")


def row(series: Series, at: int, ok: int, *, seconds: int = 1, histogram: bytes = b"") -> tuple:
    counts = [ok if name == "ok" else 0 for name in SUMS]
    means = [ok / 7, 0.0, 2.0, 0.0, 0.0, 3.0]
    return (series.pk, at, seconds, *counts, *means, ok, 1, histogram, b"", b"\x00\x01\x00\x00\x00")


def test_a_row_that_is_there_stays_unless_it_is_to_be_replaced(series: Series) -> None:
    bulk.write(Second, COLUMNS, [row(series, AT, 1), row(series, AT + 1, 2)])
    bulk.write(Second, COLUMNS, [row(series, AT, 9), row(series, AT + 2, 3)])
    assert list(Second.objects.order_by("at").values_list("ok", flat=True)) == [1, 2, 3]
    bulk.write(Second, COLUMNS, [row(series, AT, 9)], replace=True)
    assert list(Second.objects.order_by("at").values_list("ok", flat=True)) == [9, 2, 3]


def test_what_is_written_is_what_is_read(series: Series) -> None:
    histogram = pack_histogram([0, 13, 10, *[0] * (BUCKETS - 4), 92])
    given = row(series, AT, 13, histogram=histogram)
    bulk.write(Second, COLUMNS, [given])
    found = Second.objects.values_list(*COLUMNS).get()
    assert [bytes(v) if isinstance(v, memoryview) else v for v in found] == list(given)


def test_the_database_adds_up_as_a_roll_up_does(series: Series) -> None:
    other = Series.objects.create(cluster="local", service="diabetes", version="b")
    random_ = random.Random(3)
    rows = [
        row(
            one,
            AT + 60 * minute,
            random_.randrange(50),
            seconds=random_.randrange(1, 61),
            histogram=pack_histogram([random_.randrange(3) for _ in range(BUCKETS)]),
        )
        for minute in range(30)
        for one in (series, other)
    ]
    bulk.write(Minute, COLUMNS, rows)
    found = sorted(added_up(Minute.objects.all(), 600), key=lambda item: (item[1], item[0]))
    wanted = merge(rows, 600)
    assert len(found) == len(wanted) == 2 * (3 + (AT % 600 != 0))
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours[:-3] == pytest.approx(theirs[:-3])
        for packed, whole in zip(ours[-3:], theirs[-3:], strict=True):
            shares = (0.5, 0.95, 0.99)
            assert packed_quantiles_us(packed, shares) == packed_quantiles_us(whole, shares)


def test_quantiles_of_a_packed_histogram_are_those_of_the_whole_one() -> None:
    random_ = random.Random(5)
    for _ in range(50):
        counts = tuple(random_.randrange(4) * random_.randrange(2) for _ in range(BUCKETS))
        shares = (0.0, 0.5, 0.95, 0.99, 1.0)
        expected = tuple(quantile_us(counts, share) for share in shares)
        assert packed_quantiles_us(pack_histogram(counts), shares) == expected
