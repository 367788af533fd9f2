"""`bench/telemetry`: what it may be asked, what its figures mean, and what it writes."""

import json

import pytest

from bench.store import __main__ as command
from bench.store import feed
from router.samples import from_wire
from router.telemetry.columns import COLUMNS


def times(cpu: float, database: float) -> dict[str, float]:
    return {"best_ms": 1.0, "median_ms": 900.0, "cpu_ms": cpu, "database_ms": database}


def row(database: str, cores: float, chart: dict[str, float]) -> dict[str, object]:
    return {
        "database": database,
        "filled_rows": 1,
        "database_mb": 1.0,
        "bytes_a_row": 1.0,
        "collect": {
            "rows_a_second": 1_000.0,
            "collector_cores": cores,
            "database_cores": 0.1,
            "longest_turn_ms": 1.0,
        },
        "upkeep": {"hour_rollup_s": 1, "hour_rollup_cpu_s": 1, "prune_rows": 1, "prune_s": 1},
        "charts": {"7d": chart},
        "ledger": {},
    }


def test_both_databases_and_the_issues_load_unless_asked_otherwise() -> None:
    usual = command.arguments([])
    assert (usual.database, usual.services, usual.seconds) == (["sqlite", "postgresql"], 1_000, 60)
    assert usual.decisions == 1_000_000
    quick = command.arguments(["--quick", "--database", "sqlite", "--services", "7"])
    assert (quick.database, quick.services, quick.histories) == (["sqlite"], 7, 1)


@pytest.mark.parametrize("given", [["--services", "0"], ["--decisions", "-1"], ["--seconds", "0"]])
def test_nonsense_is_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.arguments(given)
    assert "too small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("database", "cores", "work", "missed"),
    [
        ("postgresql", 0.49, (100.0, 49.9), 0),
        ("postgresql", 0.5, (100.0, 49.9), 1),
        ("postgresql", 0.5, (100.0, 50.0), 2),
        ("sqlite", 0.9, (149.9, 0.0), 0),  # the issue names PostgreSQL for the collector
        ("sqlite", 0.9, (150.0, 0.0), 1),
    ],
)
def test_figures_are_held_to_the_issues_by_the_work_done(
    database: str, cores: float, work: tuple[float, float], missed: int
) -> None:
    assert len(command.misses(row(database, cores, times(*work)))) == missed


def test_the_table_has_a_column_a_database_and_a_line_a_chart() -> None:
    rows = [row("sqlite", 0.1, times(10, 0)), row("postgresql", 0.2, times(10, 5))]
    lines = command.table(rows).splitlines()
    assert lines[0].split() == ["sqlite", "postgresql"]
    assert lines[-1].split() == ["charts", "7d,", "ms", "10", "(900)", "15", "(900)"]


def test_the_feed_says_what_a_router_says_a_second_at_a_time() -> None:

    pages = feed.pages(3, 1_000)
    first, empty, second = (from_wire(json.loads(next(pages))) for _ in range(3))
    assert [sample.at for sample in first.samples] == [1_000] * 3
    assert (first.next, empty.next, second.next) == (3, 3, 6)
    assert empty.samples == ()
    assert {sample.at for sample in second.samples} == {1_001}
    assert all(sum(sample.histogram) == sample.ok > 0 for sample in first.samples)
    assert set(feed.shapes()[0]) <= set(COLUMNS)
