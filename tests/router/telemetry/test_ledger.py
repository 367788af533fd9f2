"""The ledger's questions: filters, places in the list, what was in force, what came next."""

from typing import Any

import pytest

from router.telemetry import ledger
from router.telemetry.ledger import Search, cursor, find, in_force, marks, next_changes, state
from router.telemetry.models import Decision, Second, Series

NOW = 1_800_000_000
pytestmark = pytest.mark.django_db


@pytest.fixture
def series() -> Series:
    return Series.objects.create(cluster="local", service="diabetes", version="default")


def decide(series: Series, at: float, before: int, after: int, **values: Any) -> Decision:
    fields = {"code": "up", "applied": True, "reason": "Because."} | values
    return Decision.objects.create(series=series, at=at, before=before, after=after, **fields)


@pytest.fixture
def rows(series: Series) -> list[Decision]:
    return [
        decide(series, NOW - 50, 1, 3),
        decide(series, NOW - 40, 3, 3, code="at_maximum", applied=False),
        decide(series, NOW - 30, 3, 5, code="not_applied", applied=False),
        decide(series, NOW - 20, 3, 2, code="down"),
    ]


@pytest.fixture
def green() -> Series:
    return Series.objects.create(cluster="local", service="diabetes", version="green")


def test_is_filtered_by_what_it_did(rows: list[Decision]) -> None:
    up, at_max, refused, down = rows
    assert list(find("diabetes", Search())) == [down, refused, at_max, up]
    assert list(find("diabetes", Search(kind="up"))) == [up]
    assert list(find("diabetes", Search(kind="down"))) == [down]
    assert list(find("diabetes", Search(kind="prevented"))) == [refused, at_max]
    assert not find("other", Search()).exists()
    assert [item.direction for item in rows] == ["up", "prevented", "prevented", "down"]


def test_is_filtered_by_time_from_one_moment_up_to_another(rows: list[Decision]) -> None:
    found = find("diabetes", Search(since=NOW - 40, until=NOW - 20))
    assert list(found) == [rows[2], rows[1]]


def test_is_filtered_by_version(rows: list[Decision], green: Series) -> None:
    own = decide(green, NOW, 1, 2)
    assert list(find("diabetes", Search(version="green"))) == [own]
    assert len(find("diabetes", Search())) == 5


def test_every_row_is_on_one_page_also_where_versions_decide_at_the_same_time(
    rows: list[Decision], green: Series
) -> None:
    decide(green, NOW - 30, 1, 2)
    everything = list(find("diabetes", Search()))
    seen: list[Decision] = []
    place = None
    while page := ledger.newest("diabetes", Search(), 1, before=place):
        seen += page
        place = cursor(page[-1])
    assert seen == everything
    for index, row in enumerate(everything):
        assert list(find("diabetes", Search(), least=cursor(row))) == everything[: index + 1]
        assert ledger.newest("diabetes", Search(), 9, least=cursor(row)) == everything[: index + 1]
        assert ledger.newer("diabetes", Search(), row, 2) == everything[max(index - 2, 0) : index]


def test_marks_are_those_of_the_range_oldest_first(rows: list[Decision]) -> None:
    assert marks("diabetes", NOW - 40) == rows[1:]
    assert marks("diabetes", NOW - 40, until=NOW - 20) == rows[1:3]
    assert marks("diabetes", NOW - 100, after=rows[2].pk) == rows[3:]


@pytest.mark.parametrize(
    "change", [{"ready_at": NOW}, {"until": NOW - 1.0}, {"until": NOW - 1.0, "over": True}]
)
def test_its_state_is_another_with_each_row_and_each_change_of_one(
    rows: list[Decision], change: dict[str, Any]
) -> None:
    Decision.objects.filter(pk=rows[1].pk).update(until=NOW - 30.0)
    before = state("diabetes", NOW)
    assert state("diabetes", NOW) == before
    Decision.objects.filter(pk=rows[1].pk).update(**change)
    changed = state("diabetes", NOW)
    assert changed != before
    decide(rows[0].series, NOW, 2, 3)
    assert state("diabetes", NOW) != changed


@pytest.mark.parametrize(
    ("at", "index"), [(NOW - 51, None), (NOW - 50, 0), (NOW - 21, 0), (NOW - 20, 3), (NOW, 3)]
)
def test_in_force_is_the_last_change_at_a_time_or_before_it(
    rows: list[Decision], at: int, index: int | None
) -> None:
    assert in_force("diabetes", at) == ([] if index is None else [rows[index]])


def test_each_version_has_its_own_in_force(rows: list[Decision], green: Series) -> None:
    own = decide(green, NOW - 35, 1, 2)
    assert in_force("diabetes", NOW - 30) == [own, rows[0]]
    assert in_force("diabetes", NOW - 30, "default") == [rows[0]]
    moved = Series.objects.create(cluster="other", service="diabetes", version="default")
    later = decide(moved, NOW - 33, 1, 4)
    assert in_force("diabetes", NOW - 30) == [later, own]


def test_the_next_change_is_of_the_same_version(
    rows: list[Decision], green: Series, django_assert_num_queries: Any
) -> None:
    decide(green, NOW - 45, 1, 2)
    with django_assert_num_queries(2):
        assert next_changes(rows) == {row.pk: rows[3] for row in rows[:3]}


@pytest.mark.parametrize(("age", "known"), [(10, True), (11, False)])
def test_how_many_are_ready_is_known_for_ten_seconds(series: Series, age: int, known: bool) -> None:
    Second.objects.create(series=series, at=NOW - age, ready=3)
    assert ledger.ready_now([series.pk], NOW) == ({series.pk: 3} if known else {})
