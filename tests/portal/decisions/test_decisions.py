"""The Decisions tab: who may look, the list and its pages, one row by its address, "why then?", the CSV."""

import csv
import io
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client

from deployments.clusters.models import Cluster
from deployments.services.models import Service
from deployments.types import Scaling
from portal.models import User
from router.autoscaler.policy import Limits, State, decide
from router.autoscaler.window import Load, Standing
from router.hindrances import note
from router.samples import DecisionRecord, TelemetryPage
from router.telemetry.collect import keep
from router.telemetry.models import Decision, Series
from tests.portal.metrics.conftest import measure

PAGES = ("decisions/", "decisions/rows/", "decisions/latest/", "decisions/data.csv")
BASE = "/services/diabetes/"


@pytest.fixture
def vera(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


def get(client: Client, query: str = "", page: str = "decisions/") -> str:
    answer = client.get(f"{BASE}{page}{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def ids(page: str) -> list[int]:
    return [int(found) for found in re.findall(r'<details [^>]*id="decision-(\d+)"', page)]


def many(series: Series, count: int) -> list[Decision]:
    start = time.time() - 5_000
    return Decision.objects.bulk_create(
        [
            Decision(
                series=series, at=start + i, before=i, after=i + 1, code="up", reason=f"No. {i}.",
                applied=True, ready_at=start + i + 0.5,
            )
            for i in range(count)
        ]
    )  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
class TestDoors:
    def test_a_viewer_may_look(self, vera: Client, service: Service, page: str) -> None:
        assert vera.get(BASE + page).status_code == 200

    def test_a_stranger_may_not(self, client: Client, service: Service, page: str) -> None:
        answer = client.get(BASE + page)
        assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/login/")

    def test_a_person_who_was_deactivated_may_not(
        self, vera: Client, viewer: User, service: Service, page: str
    ) -> None:
        viewer.is_active = False
        viewer.save(update_fields=["is_active"])
        assert vera.get(BASE + page).status_code in (302, 403)

    def test_an_unknown_service_is_not_found(self, vera: Client, db: None, page: str) -> None:
        assert vera.get(f"/services/nobody/{page}").status_code == 404

    def test_nothing_is_posted_here(self, vera: Client, service: Service, page: str) -> None:
        assert vera.post(BASE + page).status_code == 405


class TestList:
    def test_says_what_happened_why_and_what_came_of_it(
        self, vera: Client, ledger: list[Decision]
    ) -> None:
        page = get(vera)
        assert "1 → 2" in page
        assert "Scaled up from 1 to 2" in page
        assert "1 busy + 3 queued on 1 slot is 400 %, target 70 %: 2 wanted." in page
        assert "2 ready after 10 s" in page
        assert "<dt>room in the cluster for</dt><dd>unknown</dd>" in page
        assert "Kept at 2: that is the maximum" in page

    def test_a_reason_is_text(self, vera: Client, ledger: list[Decision]) -> None:
        assert "the limit is &lt;2&gt; replicas" in get(vera)

    def test_replicas_that_are_awaited_are_counted_from_the_last_seconds(
        self, vera: Client, series: Series
    ) -> None:
        at = time.time() - 30
        Decision.objects.create(
            series=series, at=at, before=2, after=7, code="up", applied=True, reason="Grew."
        )
        assert "Not yet; how many are ready is not known" in get(vera)
        measure(series, int(time.time()) - 1, ready=4)
        assert "Not yet: 4 of 7 ready after 30" in get(vera)

    def test_one_that_was_superseded_leads_to_what_superseded_it(
        self, vera: Client, series: Series
    ) -> None:
        now = time.time()
        fields = {"series": series, "code": "up", "applied": True, "reason": "Grew."}
        Decision.objects.create(at=now - 60, before=2, after=7, **fields)
        then = Decision.objects.create(at=now - 48, before=7, after=9, **fields)
        page = get(vera)
        assert "Superseded after 12 s by 7 → 9" in page
        assert f'<a href="{BASE}decisions/?open={then.pk}">that decision</a>' in page

    @pytest.mark.parametrize(
        ("query", "shown"),
        [
            ("", [1, 0]), ("?kind=up", [0]), ("?kind=down", []), ("?kind=prevented", [1]),
            ("?version=default", [1, 0]), ("?version=green", []),
        ],
    )  # fmt: skip
    def test_is_filtered(
        self, vera: Client, ledger: list[Decision], query: str, shown: list[int]
    ) -> None:
        assert ids(get(vera, query)) == [ledger[index].pk for index in shown]

    def test_is_filtered_by_time(self, vera: Client, ledger: list[Decision]) -> None:
        between = datetime.fromtimestamp(ledger[1].at - 10, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert ids(get(vera, f"?since={between}")) == [ledger[1].pk]
        assert ids(get(vera, f"?until={between}")) == [ledger[0].pk]

    def test_says_so_when_there_is_none(self, vera: Client, service: Service) -> None:
        assert "No decisions yet" in get(vera)
        assert "No decision matches" in get(vera, "?kind=up")

    @pytest.mark.parametrize("query", ["?kind=x", "?version=Green", "?since=x", "?at=x"])
    def test_a_search_that_cannot_be_read_finds_nothing_and_says_so(
        self, vera: Client, ledger: list[Decision], query: str
    ) -> None:
        page = get(vera, query)
        assert ids(page) == []
        assert "error" in page
        for other in ("rows/", "data.csv"):
            assert vera.get(f"{BASE}decisions/{other}{query}").status_code == 400

    def test_takes_few_queries(
        self, vera: Client, series: Series, django_assert_max_num_queries: Any
    ) -> None:
        many(series, 60)
        with django_assert_max_num_queries(11):
            get(vera)


class TestPages:
    @pytest.mark.parametrize(("count", "more"), [(25, False), (26, True)])
    def test_goes_on_below(self, vera: Client, series: Series, count: int, more: bool) -> None:
        many(series, count)
        assert ("Older decisions" in get(vera)) is more

    def test_every_decision_is_on_one_page_though_new_ones_come_in(
        self, vera: Client, series: Series
    ) -> None:
        made = [row.pk for row in many(series, 60)]
        page = get(vera)
        seen = ids(page)
        Decision.objects.create(
            series=series, at=time.time(), before=1, after=2, code="up", applied=True, reason="New."
        )
        while more := re.search(r'hx-get="([^"]*before=[^"]*)"', page):
            page = vera.get(more[1].replace("&amp;", "&")).content.decode()
            assert "<section" not in page
            seen += ids(page)
        assert seen == made[::-1]


class TestLive:
    def live(self, page: str) -> str:
        found = re.search(r'data-live="telemetry:diabetes".*?hx-get="([^"]*)"', page)
        assert found
        return found[1].replace("&amp;", "&")

    def test_nothing_new_is_no_content(self, vera: Client, ledger: list[Decision]) -> None:
        assert vera.get(self.live(get(vera))).status_code == 204

    def test_a_new_decision_is_added_to_those_on_the_page(
        self, vera: Client, series: Series
    ) -> None:
        many(series, 60)
        page = get(vera, "?kind=up")
        new = Decision.objects.create(
            series=series, at=time.time(), before=1, after=2, code="up", applied=True, reason="New."
        )
        assert ids(vera.get(self.live(page)).content.decode()) == [new.pk, *ids(page)]

    def test_the_first_of_all_comes_in(self, vera: Client, series: Series) -> None:
        page = get(vera)
        (new,) = many(series, 1)
        assert ids(vera.get(self.live(page)).content.decode()) == [new.pk]

    def test_an_outcome_comes_in(self, vera: Client, ledger: list[Decision]) -> None:
        page = get(vera)
        Decision.objects.filter(pk=ledger[1].pk).update(until=ledger[1].at + 41, over=True)
        assert "Lasted 41 s" in vera.get(self.live(page)).content.decode()

    def test_replicas_that_are_awaited_are_counted_each_time(
        self, vera: Client, series: Series
    ) -> None:
        Decision.objects.create(
            series=series, at=time.time(), before=2, after=7, code="up", applied=True, reason="Up."
        )
        assert vera.get(self.live(get(vera))).status_code == 200

    def test_with_very_much_new_the_page_begins_anew(self, vera: Client, series: Series) -> None:
        many(series, 1)
        page = get(vera)
        many(series, 201)
        answer = vera.get(self.live(page))
        assert (answer.status_code, answer["HX-Refresh"]) == (204, "true")


class TestOneRow:
    @pytest.mark.parametrize("index", [0, 10, 79])
    def test_is_there_open_and_marked_among_its_neighbours(
        self, vera: Client, series: Series, index: int
    ) -> None:
        made = many(series, 80)
        page = get(vera, f"?open={made[index].pk}")
        assert f'decision-here" id="decision-{made[index].pk}" open' in page
        assert page.count("decision-here") == 1
        found = ids(page)
        if index:
            assert made[index - 1].pk in found
        if index < 79:
            assert made[index + 1].pk in found
        assert ("Newest decisions" in page) is (index < 79)
        assert ("data-live=" in page.split('id="decisions-live"')[1].split(">")[0]) is (index == 79)

    def test_is_there_whatever_else_is_searched_for(
        self, vera: Client, ledger: list[Decision]
    ) -> None:
        page = get(vera, f"?open={ledger[0].pk}&kind=prevented&version=green")
        assert ids(page) == [ledger[1].pk, ledger[0].pk]

    def test_of_another_service_is_not_shown(self, vera: Client, ledger: list[Decision]) -> None:
        other = Series.objects.create(cluster="local", service="other", version="default")
        (secret,) = many(other, 1)
        page = get(vera, f"?open={secret.pk}")
        assert "not among those of diabetes" in page
        assert "No. 0." not in page

    def test_leads_back_to_the_chart_around_its_time(
        self, vera: Client, ledger: list[Decision]
    ) -> None:
        assert f"{BASE}metrics/?range=5m&amp;around={ledger[0].at:.3f}" in get(vera)


class TestWhy:
    """Why were there so many replicas at that time?"""

    def ask(self, client: Client, at: object, version: str = "") -> str:
        return client.get(f"{BASE}decisions/", {"at": at, "version": version}).content.decode()

    def test_the_decision_in_force_is_open(self, vera: Client, ledger: list[Decision]) -> None:
        # the later one was prevented, so the earlier one still set the count
        page = self.ask(vera, time.time())
        assert f'decision-here" id="decision-{ledger[0].pk}" open' in page
        assert "In force at" in page

    def test_a_time_without_an_offset_is_the_portals(
        self, vera: Client, ledger: list[Decision], settings: Any
    ) -> None:
        settings.TIME_ZONE = "Asia/Tokyo"
        local = datetime.fromtimestamp(ledger[0].at + 9 * 3600 + 1, UTC)
        page = self.ask(vera, local.strftime("%Y-%m-%dT%H:%M:%S.999"))
        assert f'decision-here" id="decision-{ledger[0].pk}" open' in page
        assert f"In force at {local.strftime('%Y-%m-%d %H:%M:%S')}" in page

    def test_before_the_first_decision_it_says_so(
        self, vera: Client, ledger: list[Decision]
    ) -> None:
        page = self.ask(vera, ledger[0].at - 1)
        assert "or before is kept" in page
        assert "decision-here" not in page
        assert len(ids(page)) == 2

    def test_other_versions_are_named_beside_it(
        self, vera: Client, ledger: list[Decision], series: Series
    ) -> None:
        green = Series.objects.create(cluster="local", service="diabetes", version="green")
        own = Decision.objects.create(
            series=green,
            at=time.time() - 10,
            before=1,
            after=3,
            code="up",
            applied=True,
            reason="G",
        )
        page = self.ask(vera, time.time())
        assert f'decision-here" id="decision-{own.pk}"' in page
        assert f'?open={ledger[0].pk}">default at 2 since' in page
        assert "Of other versions" not in self.ask(vera, time.time(), "green")


class TestCsv:
    def rows(self, client: Client, query: str = "") -> list[dict[str, str]]:
        answer = client.get(f"{BASE}decisions/data.csv{query}")
        assert answer["Content-Disposition"] == 'attachment; filename="diabetes-decisions.csv"'
        text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
        return list(csv.DictReader(io.StringIO(text)))

    def test_has_inputs_outcome_and_nothing_where_it_is_not_known(
        self, vera: Client, ledger: list[Decision]
    ) -> None:
        prevented, up = self.rows(vera)
        assert (up["kind"], up["before"], up["after"], up["outcome"]) == ("up", "1", "2", "ready")
        assert up["outcome_seconds"] == "10.0"
        assert json.loads(up["inputs"]) == ledger[0].inputs
        assert up["at"].endswith("+00:00")
        assert (prevented["kind"], prevented["applied"]) == ("prevented", "no")
        assert (prevented["ready_at"], prevented["until"], prevented["outcome_seconds"]) == (
            "", "", "",
        )  # fmt: skip

    def test_has_what_the_search_finds_beyond_a_page(self, vera: Client, series: Series) -> None:
        many(series, 1_001)
        assert len(self.rows(vera)) == 1_001
        assert self.rows(vera, "?kind=down") == []

    def test_no_cell_is_a_formula(self, vera: Client, series: Series) -> None:
        Decision.objects.create(
            series=series, at=1.0, before=1, after=1, code="x", applied=False, reason="=1+1"
        )
        assert self.rows(vera)[0]["reason"] == "'=1+1"


def test_another_scaler_of_the_same_version_is_shown(vera: Client, series: Series) -> None:
    """From what the loop sees, through the router's telemetry, to the page."""
    now = time.time()
    seen = Load(3, Standing(ready=3), other_scaler="HorizontalPodAutoscaler web/cpu")
    verdict = decide(seen, Limits(Scaling(minimum=1, maximum=9)), State(), now)
    record = DecisionRecord(
        now, "diabetes", "default", 3, verdict.replicas, str(verdict.code), verdict.reason,
        applied=False,
    )  # fmt: skip
    _, told = note((), record, now)
    keep(Cluster.objects.get(), TelemetryPage("one", 1, decisions=told), now)
    page = get(vera, "?kind=prevented")
    assert "Kept at 3: somebody else scales it too" in page
    assert "HorizontalPodAutoscaler web/cpu scales this version too; remove it." in page
    assert "Still so" in page
