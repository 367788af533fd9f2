"""The Metrics tab: who may look, the chart's data, the CSV, the ledger in words."""

import csv
import io
import json
import time
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from deployments.services.models import Service, ServiceVersion
from portal.models import User
from router.telemetry.models import Decision, Series
from tests.portal.metrics.conftest import measure

PAGES = ("metrics/", "metrics/data/", "metrics/data.csv")


@pytest.fixture
def vera(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


@pytest.mark.parametrize("page", PAGES)
def test_a_viewer_may_look(vera: Client, service: Service, page: str) -> None:
    assert vera.get(f"/services/diabetes/{page}").status_code == 200


@pytest.mark.parametrize("page", PAGES)
def test_a_stranger_may_not(client: Client, service: Service, page: str) -> None:
    answer = client.get(f"/services/diabetes/{page}")
    assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/login/")


@pytest.mark.parametrize("page", PAGES)
def test_a_person_who_was_deactivated_may_not(
    vera: Client, viewer: User, service: Service, page: str
) -> None:
    viewer.is_active = False
    viewer.save(update_fields=["is_active"])
    assert vera.get(f"/services/diabetes/{page}").status_code in (302, 403)


@pytest.mark.parametrize("page", PAGES)
def test_an_unknown_service_is_not_found(vera: Client, db: None, page: str) -> None:
    assert vera.get(f"/services/nobody/{page}").status_code == 404


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_posted_here(vera: Client, service: Service, page: str) -> None:
    assert vera.post(f"/services/diabetes/{page}").status_code == 405


class TestPage:
    def test_opens_at_the_range_of_its_address(self, vera: Client, service: Service) -> None:
        page = vera.get("/services/diabetes/metrics/?range=24h").content.decode()
        assert 'data-range="24h" aria-current="true"' in page
        ranges = page.split('aria-label="Range"')[1].split("</nav>")[0]
        assert ranges.count("aria-current") == 1

    @pytest.mark.parametrize("query", ["", "?range=", "?range=9y"])
    def test_opens_at_half_an_hour_otherwise(
        self, vera: Client, service: Service, query: str
    ) -> None:
        page = vera.get(f"/services/diabetes/metrics/{query}").content.decode()
        assert 'data-range="30m" aria-current="true"' in page

    def test_says_so_when_there_is_no_decision_yet(self, vera: Client, service: Service) -> None:
        assert "No decisions yet" in vera.get("/services/diabetes/metrics/").content.decode()

    def test_plotly_finds_what_keeps_it_inside_the_content_policy(self) -> None:
        """Its map part writes a style element unless one with this id is there."""
        page = (Path(settings.CHECKOUT) / "templates/metrics/metrics.html").read_text()
        marker = page.split('<meta id="')[1].split('"')[0]
        script = (files("plotly") / "package_data/plotly.min.js").read_text(encoding="utf-8")
        assert f'document.getElementById("{marker}")' in script
        assert "plotly.js-style-" in script


class TestData:
    def get(self, client: Client, query: str) -> dict[str, Any]:
        answer = client.get(f"/services/diabetes/metrics/data/?{query}")
        assert answer["Cache-Control"] == "no-store"
        return json.loads(answer.content)

    def test_has_columns_a_gap_and_marks(
        self, vera: Client, measured: Series, ledger: list[Decision]
    ) -> None:
        body = self.get(vera, "range=5m")
        assert (body["range"], body["step"]) == ("5m", 1)
        assert len(body["x"]) == 120 - 10 + 1
        assert body["columns"]["ok"].count(None) == 1
        assert body["columns"]["p95"][0] == pytest.approx(49, abs=1)
        up, prevented = body["decisions"]
        assert (up["id"], up["direction"], up["after"]) == (ledger[0].pk, "up", 2)
        assert prevented["direction"] == "prevented"

    def test_only_what_is_new_comes_after_what_is_there(
        self, vera: Client, measured: Series, ledger: list[Decision]
    ) -> None:
        first = self.get(vera, "range=5m")
        measure(measured, first["newest"] + 1, ok=7)
        last = ledger[-1].pk
        body = self.get(vera, f"range=5m&after={first['newest']}&decision={last}")
        assert body["columns"]["ok"] == [7]
        assert body["decisions"] == []
        assert body["newest"] == first["newest"] + 1

    def test_nothing_new_is_nothing_drawn_anew(self, vera: Client, measured: Series) -> None:
        first = self.get(vera, "range=5m")
        body = self.get(vera, f"range=5m&after={first['newest']}")
        assert (body["x"], body["newest"]) == ([], first["newest"])

    def test_times_are_in_the_portals_zone(
        self, vera: Client, measured: Series, settings: Any
    ) -> None:
        before = self.get(vera, "range=5m")["end"]
        settings.TIME_ZONE = "Asia/Tokyo"
        after = self.get(vera, "range=5m")["end"]
        assert (int(after[11:13]) - int(before[11:13])) % 24 in (9, 10)

    @pytest.mark.parametrize("query", ["range=9y", "range=5m&after=x", "after=-1"])
    def test_a_query_that_means_nothing_is_refused(
        self, vera: Client, service: Service, query: str
    ) -> None:
        assert vera.get(f"/services/diabetes/metrics/data/?{query}").status_code == 400

    def test_any_range_takes_few_queries(
        self, vera: Client, measured: Series, django_assert_max_num_queries: Any
    ) -> None:
        for key in ("5m", "24h", "30d"):
            with django_assert_max_num_queries(12):
                self.get(vera, f"range={key}")


class TestCsv:
    def test_has_the_charts_figures_without_the_gaps(self, vera: Client, measured: Series) -> None:
        answer = vera.get("/services/diabetes/metrics/data.csv?range=5m")
        assert answer["Content-Disposition"] == 'attachment; filename="diabetes-5m.csv"'
        rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
        assert len(rows) == 110
        assert rows[0]["time"].endswith("Z")
        assert (rows[0]["ok"], rows[0]["ready"]) == ("4.0", "2.0")

    def test_an_unknown_range_is_refused(self, vera: Client, service: Service) -> None:
        assert vera.get("/services/diabetes/metrics/data.csv?range=9y").status_code == 400


@pytest.fixture
def green(service: Service) -> Series:
    """A second version that is measured: 10 answers a second, where `default` has 4."""
    return Series.objects.create(cluster="local", service=service.name, version="green")


@pytest.mark.parametrize(("version", "rate"), [("", 14), ("default", 4), ("green", 10)])
def test_the_figures_are_of_all_versions_or_of_one(
    vera: Client, measured: Series, green: Series, version: str, rate: int
) -> None:
    now = int(time.time())
    for at in range(now - 120, now):
        measure(green, at, ok=10)
    data = vera.get("/services/diabetes/metrics/data/", {"range": "5m", "version": version}).json()
    assert rate in data["columns"]["ok"]
    text = vera.get(
        "/services/diabetes/metrics/data.csv", {"range": "5m", "version": version}
    ).content.decode()
    assert f",{float(rate)}," in text


def test_marks_are_of_all_versions_or_of_one(
    vera: Client, ledger: list[Decision], green: Series
) -> None:
    Decision.objects.create(
        series=green, at=time.time(), before=1, after=3, code="up", applied=True, reason="Grew."
    )
    for version, count in (("", 3), ("green", 1), ("default", 2)):
        data = vera.get("/services/diabetes/metrics/data/", {"version": version}).json()
        assert len(data["decisions"]) == count


class TestAround:
    """The chart around a moment in the past, as a decision's row links to it."""

    def test_the_moment_is_in_the_middle_and_only_its_marks_are_drawn(
        self, vera: Client, measured: Series, ledger: list[Decision]
    ) -> None:
        past = int(time.time()) - 3_000
        measure(measured, past)
        old = Decision.objects.create(
            series=measured, at=past, before=1, after=3, code="up", applied=True, reason="Grew."
        )
        answer = vera.get(
            "/services/diabetes/metrics/data/", {"range": "5m", "around": f"{past}.5"}
        )
        body = answer.json()
        assert [mark["id"] for mark in body["decisions"]] == [old.pk]
        assert body["x"] == [body["decisions"][0]["x"]] == [body["around"]]
        start, end = (datetime.fromisoformat(body[name]) for name in ("start", "end"))
        assert (end - start).total_seconds() == 300
        assert abs((datetime.fromisoformat(body["around"]) - start).total_seconds() - 150) <= 1

    def test_what_has_just_been_is_shown_up_to_now(self, vera: Client, measured: Series) -> None:
        now = time.time()
        query = {"range": "5m"}
        upto = vera.get("/services/diabetes/metrics/data/", query).json()["end"]
        near = vera.get("/services/diabetes/metrics/data/", query | {"around": now - 10}).json()
        gap = datetime.fromisoformat(near["end"]) - datetime.fromisoformat(upto)
        assert gap.total_seconds() in (0, 1)

    @pytest.mark.parametrize("around", ["x", "-1", "nan", "1e99"])
    def test_no_moment_is_refused(self, vera: Client, service: Service, around: str) -> None:
        answer = vera.get("/services/diabetes/metrics/data/", {"around": around})
        assert answer.status_code == 400


def test_the_latest_decisions_stand_below_the_chart(
    vera: Client, ledger: list[Decision], green: Series
) -> None:
    page = vera.get("/services/diabetes/metrics/").content.decode()
    assert "1 busy + 3 queued on 1 slot is 400 %, target 70 %: 2 wanted." in page
    assert "the limit is &lt;2&gt; replicas" in page
    assert f'href="/services/diabetes/decisions/?open={ledger[0].pk}"' in page
    one = vera.get("/services/diabetes/decisions/latest/", {"version": "green"}).content.decode()
    assert "No decisions yet" in one


def test_the_page_offers_versions_where_there_are_several(vera: Client, service: Service) -> None:
    ServiceVersion.objects.create(service=service, name="default", is_default=True)
    assert "All versions" not in vera.get("/services/diabetes/metrics/").content.decode()
    ServiceVersion.objects.create(service=service, name="green")
    text = vera.get("/services/diabetes/metrics/", {"version": "green"}).content.decode()
    assert "All versions" in text
    assert 'data-version="green"' in text


@pytest.mark.parametrize("version", ["Green", "a b", "<script>"])
def test_what_is_no_version_is_refused(vera: Client, service: Service, version: str) -> None:
    answer = vera.get("/services/diabetes/metrics/data/", {"version": version})
    assert answer.status_code == 400
