"""Adding rows up in the database: a long chart fetches as many rows as it has points.

Counts are summed, means weighted by measured seconds, peaks are the largest, and packed histograms are put
one behind the other, which is how a packed sum of them may look.
"""

from collections.abc import Iterable
from typing import Any

from django.db.models import Aggregate, BinaryField, F, FloatField, Max, QuerySet, Sum
from django.db.models.functions import Cast, Mod

from router.telemetry.columns import FIRST_HISTOGRAM, HISTOGRAMS, MEANS, PEAKS, SUMS


class _Together(Aggregate):
    """Bytes one behind the other, in any order."""

    output_field = BinaryField()

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "STRING_AGG(%(expressions)s, ''::bytea)"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        # its GROUP_CONCAT reads bytes as text and would end at the first zero
        template = "GROUP_CONCAT(HEX(%(expressions)s), '')"
        return self.as_sql(compiler, connection, template=template, **extra)


def added_up(rows: QuerySet[Any], step: int) -> Iterable[tuple[Any, ...]]:
    """Sample rows as tuples of `COLUMNS` in buckets of `step` seconds, by series; in no order."""
    seconds = Sum("seconds")
    found = (
        rows.annotate(bucket=F("at") - Mod("at", step))
        .values_list("series_id", "bucket")
        .order_by()
        .annotate(
            measured=seconds,
            **{f"sum_{name}": Sum(name) for name in SUMS},
            **{
                f"mean_{name}": Sum(F(name) * F("seconds"), output_field=FloatField())
                / Cast(seconds, FloatField())
                for name in MEANS
            },
            **{f"peak_{name}": Max(name) for name in PEAKS},
            **{f"all_{name}": _Together(name) for name in HISTOGRAMS},
        )
    )
    for row in found:
        counted = [int(value) for value in row[: 2 + 1 + len(SUMS)]]
        yield (*counted, *row[len(counted) : FIRST_HISTOGRAM], *map(_bytes, row[FIRST_HISTOGRAM:]))


def _bytes(value: bytes | memoryview | str | None) -> bytes:
    return bytes.fromhex(value) if isinstance(value, str) else bytes(value or b"")
