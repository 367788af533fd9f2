"""Sample rows into their table, thousands at once: by COPY on PostgreSQL, in one statement elsewhere.

A statement with a parameter for every value costs several times what the rows themselves do. Rows are tuples
of numbers and bytes, unique by series and time.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection, models, transaction

_KEY = ("series_id", "at")


def write(
    model: type[models.Model],
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    replace: bool = False,
) -> None:
    """Add the rows; of those that are there, keep what is there, or with `replace` take the new one."""
    table = connection.ops.quote_name(model._meta.db_table)
    names = ", ".join(connection.ops.quote_name(column) for column in columns)
    conflict = "NOTHING"
    if replace:
        quoted = [connection.ops.quote_name(name) for name in columns if name not in _KEY]
        conflict = "UPDATE SET " + ", ".join(f"{name} = EXCLUDED.{name}" for name in quoted)
    conflict = f"ON CONFLICT ({', '.join(_KEY)}) DO {conflict}"
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # COPY knows no conflicts, so it fills a table of this session, which each commit empties
            passing = connection.ops.quote_name(f"passing_{model._meta.db_table}")
            cursor.execute(
                f"CREATE TEMPORARY TABLE IF NOT EXISTS {passing} (LIKE {table}) ON COMMIT DELETE ROWS"
            )
            cursor.execute(f"ALTER TABLE {passing} ALTER COLUMN id DROP NOT NULL")
            with cursor.copy(f"COPY {passing} ({names}) FROM STDIN") as copy:
                copy.write("".join(map(_line, rows)))
            # every part is a name of the model's own
            insert = f"INSERT INTO {table} ({names}) SELECT {names} FROM {passing}"  # noqa: S608
            cursor.execute(f"{insert} {conflict}")
            cursor.execute(f"TRUNCATE {passing}")
        else:
            marks = ", ".join(["%s"] * len(columns))
            insert = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
            cursor.executemany(f"{insert} {conflict}", list(rows))


def _line(row: Sequence[Any]) -> str:
    """COPY's text form: the numbers as they are, bytes in hexadecimal."""
    return "\t".join([
        "\\\\x" + value.hex() if isinstance(value, bytes) else str(value) for value in row
    ]) + "\n"  # fmt: skip
