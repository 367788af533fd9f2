"""Rows as years of service would have left them: written as fast as the database takes them.

Rows of several services are mixed in order of time, as a collector writes them: a service's own rows then
lie on as many pages as they do in production, which is what a chart has to read.
"""

from collections.abc import Iterator
from typing import Any

from django.db import connection

from bench.store.feed import name, shapes
from router.samples import BUCKETS
from router.telemetry.columns import COLUMNS, SUMS
from router.telemetry.models import Decision, Series, pack_histogram
from router.telemetry.rollups import LEVELS, Level

CLUSTER = "local"


def series(services: int) -> list[int]:
    """Ids of the services' series, made where they are missing."""
    Series.objects.bulk_create(
        [Series(cluster=CLUSTER, service=name(i), version="default") for i in range(services)],
        ignore_conflicts=True,
    )
    rows = Series.objects.filter(cluster=CLUSTER).order_by("service").values_list("pk", flat=True)
    return list(rows)[:services]


def _values(step: int) -> list[tuple[Any, ...]]:
    """What stands after series, time and seconds in `COLUMNS`, of buckets of a step."""
    rows = []
    for shape in shapes():
        one = [shape.get(column, 0) for column in COLUMNS[3:]]
        for index, column in enumerate(COLUMNS[3:]):
            value = one[index]
            if column.endswith("histogram"):
                counts = value if isinstance(value, tuple) else (0,) * BUCKETS
                one[index] = pack_histogram([count * step for count in counts])
            elif column in SUMS:
                one[index] = value * step  # type: ignore[operator]
        rows.append(tuple(one))
    return rows


def _mixed(level: Level, ids: list[int], start: int, end: int) -> Iterator[tuple[Any, ...]]:
    values = _values(level.step)
    for number, at in enumerate(range(start - start % level.step, end, level.step)):
        for pk in ids:
            yield (pk, at, level.step, *values[(number + pk) % len(values)])


def history(ids: list[int], now: int) -> int:
    """Every resolution as far back as it is kept, of these series. Returns rows written."""
    return sum(samples(level, ids, now - level.keep + level.step, now) for level in LEVELS)


def samples(level: Level, ids: list[int], start: int, end: int) -> int:
    """A resolution's rows from start to end, of each series, instead of those that are there."""
    level.model._default_manager.filter(series__in=ids, at__gte=start, at__lt=end).delete()
    return _write(level.model._meta.db_table, COLUMNS, _mixed(level, ids, start, end))


def decisions(ids: list[int], count: int, start: float, end: float) -> int:
    """A ledger of some versions in turn: steps up and down, and five hundred hindrances to each of them."""
    step = (end - start) / count
    inputs = '{"busy": 6.5, "queued": 1, "demand": 7.5, "needed": 11, "target": 70}'
    columns = ("series_id", "at", "before", "after", "code", "reason", "applied", "inputs",
               "ready_at", "until", "over")  # fmt: skip

    def rows() -> Iterator[tuple[Any, ...]]:
        for index in range(count):
            at = start + index * step
            pk, turn = ids[index // 1_000 % len(ids)], index % 1_000
            if turn in (0, 500):
                before, after, code = (4, 7, "up") if turn == 0 else (7, 4, "down")
                yield (pk, at, before, after, code, "7.5 busy: 11 wanted.", True, inputs, at + 9,
                       None, False)  # fmt: skip
            else:
                yield (pk, at, 7, 7, "at_maximum", "The limit is 7.", True, inputs, None,
                       at + 5, True)  # fmt: skip

    return _write(Decision._meta.db_table, columns, rows())


def _write(table: str, columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> int:
    names, count = ", ".join(f'"{column}"' for column in columns), 0
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
                    count += 1
            cursor.execute(f"ANALYZE {table}")
            return count
        marks = ", ".join("?" * len(columns))
        connection.ensure_connection()
        while batch := [row for row, _ in zip(rows, range(20_000), strict=False)]:
            connection.connection.executemany(
                f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", batch
            )
            connection.connection.commit()
            count += len(batch)
    return count
