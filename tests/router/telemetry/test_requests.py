"""The request log's rows: taken over once, gaps said, forgotten in time."""

import dataclasses

import pytest

from router.request_log import Gap, RequestLine, RequestPage, to_wire
from router.telemetry import requests
from router.telemetry.models import RequestGap, RequestPlace, RequestRecord, Series

NOW = 1_790_000_000.0

LINE = RequestLine(
    at=NOW,
    service="diabetes",
    version="default",
    request_id="r-1",
    client_request_id="",
    method="POST",
    operation="score",
    status=200,
    queue_ms=0,
    service_ms=5,
    total_ms=6,
    bytes_in=1,
    bytes_out=2,
    replica="a",
    who="primary",
    termination_state="--",
)


def page(after: int, count: int, epoch: str = "one", **values: object) -> RequestPage:
    lines = tuple(
        dataclasses.replace(LINE, request_id=f"{epoch}-{after + number}") for number in range(count)
    )
    made = RequestPage(epoch=epoch, next=after + count, began=NOW - 100, lines=lines)
    return dataclasses.replace(made, **values)


@pytest.fixture
def place(db: None) -> RequestPlace:
    return RequestPlace.objects.create(cluster="local")


def test_a_page_is_kept_with_its_place(place: RequestPlace) -> None:
    assert requests.keep(place, page(0, 3), NOW)
    assert requests.keep(place, page(3, 2), NOW + 1)
    assert RequestRecord.objects.count() == 5
    stored = RequestPlace.objects.get()
    assert (stored.epoch, stored.seq, stored.seen_at) == ("one", 5, NOW + 1)
    assert not RequestGap.objects.exists()


def test_each_pod_of_a_router_has_a_place_of_its_own(db: None) -> None:
    class Pod:
        def __init__(self, epoch: str) -> None:
            self.page = page(0, 2, epoch)
            self.asked: list[object] = []

        def ask(self, *args: object, **named: object) -> object:
            self.asked.append(named["query"])
            after = named["query"]["after"]  # type: ignore[index]
            return to_wire(self.page if not after else dataclasses.replace(self.page, lines=()))

    one, other = Pod("one"), Pod("other")
    assert requests.collect("far", one, NOW, source="pod-1") == 2  # type: ignore[arg-type]
    assert requests.collect("far", other, NOW, source="pod-2") == 2  # type: ignore[arg-type]
    assert requests.collect("far", one, NOW, source="pod-1") == 0  # type: ignore[arg-type]
    assert one.asked[-1] == {"after": 2, "epoch": "one"}
    assert RequestRecord.objects.filter(cluster="far").count() == 4
    assert not RequestGap.objects.exists()


def test_a_line_that_the_database_refuses_holds_nobody_up(place: RequestPlace) -> None:
    good = page(0, 3)
    bad = dataclasses.replace(LINE, status=-1, request_id="bad")
    assert requests.keep(place, dataclasses.replace(good, next=4, lines=(bad, *good.lines)), NOW)
    assert requests.keep(place, page(4, 1), NOW + 1)
    assert RequestRecord.objects.count() == 4
    assert not RequestRecord.objects.filter(request_id="bad").exists()
    [gap] = RequestGap.objects.all()
    assert (gap.lost, gap.why) == (1, "the database refused them")


def test_the_same_page_twice_is_kept_once(place: RequestPlace) -> None:
    stale = RequestPlace.objects.get()
    assert requests.keep(place, page(0, 3), NOW)
    assert not requests.keep(stale, page(0, 3), NOW)
    assert RequestRecord.objects.count() == 3


def test_a_loop_that_was_started_anew_leaves_a_gap_of_unknown_size(place: RequestPlace) -> None:
    requests.keep(place, page(0, 3), NOW)
    requests.keep(place, page(0, 1, "two", began=NOW + 9), NOW + 10)
    [gap] = RequestGap.objects.all()
    assert (gap.start, gap.end, gap.lost) == (NOW, NOW + 9, None)
    assert RequestRecord.objects.count() == 4


def test_lines_that_fell_out_of_the_router_are_counted(place: RequestPlace) -> None:
    requests.keep(place, page(0, 1), NOW)
    requests.keep(place, page(50, 1, lost=49), NOW + 300)
    [gap] = RequestGap.objects.all()
    assert (gap.start, gap.end, gap.lost) == (NOW, NOW + 300, 49)


def test_a_first_reading_misses_nothing(place: RequestPlace) -> None:
    requests.keep(place, page(50, 1, lost=49, gaps=(Gap(NOW, NOW, 1, "could not be read"),)), NOW)
    assert [gap.why for gap in RequestGap.objects.all()] == ["could not be read"]


def test_a_thousand_lines_are_few_statements(
    place: RequestPlace, django_assert_max_num_queries: object
) -> None:
    # SQLite takes about 50 rows a statement; no query is made for each row
    with django_assert_max_num_queries(40):  # type: ignore[operator]
        requests.keep(place, page(0, 1_000), NOW)


def _at(*ages: float, service: str = "diabetes") -> None:
    Series.objects.get_or_create(cluster="local", service=service, version="default")
    RequestRecord.objects.bulk_create(
        RequestRecord(
            cluster="local",
            **dataclasses.asdict(dataclasses.replace(LINE, at=NOW - age, service=service)),
        )
        for age in ages
    )


DAY = 86_400


def test_what_is_too_old_is_forgotten_and_what_is_just_young_enough_is_not(db: None) -> None:
    _at(8 * DAY, 7 * DAY + 1, 7 * DAY - 1, 5)
    RequestGap.objects.create(cluster="local", start=0, end=NOW - 7 * DAY - 1, why="old")
    RequestGap.objects.create(cluster="local", start=0, end=NOW - 7 * DAY + 1, why="young")
    assert requests.prune(NOW, days=7, rows=1_000) == 2
    assert RequestRecord.objects.count() == 2
    assert [gap.why for gap in RequestGap.objects.all()] == ["young"]


def test_a_long_request_that_ended_late_is_not_a_stop(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_PRUNED_AT_ONCE", 2)
    _at(8 * DAY, 8 * DAY, 8 * DAY, 8 * DAY, 1)
    assert requests.prune(NOW, days=7, rows=1_000) == 4


def test_a_service_keeps_its_newest_rows_and_leaves_others_theirs(db: None) -> None:
    _at(*range(30))
    _at(*range(5), service="iris")
    assert requests.prune(NOW, days=7, rows=10) == 20
    left = RequestRecord.objects.filter(service="diabetes").values_list("at", flat=True)
    assert list(left) == [NOW - age for age in range(29, 19, -1)]  # the newest by row come first
    assert RequestRecord.objects.filter(service="iris").count() == 5
    assert requests.prune(NOW, days=7, rows=10) == 0
