"""All services as small charts: one query for all, gaps, paging, CSV."""

import csv
import io
import time
from typing import Any

import pytest
from django.test import Client

from deployments.clusters.models import Cluster
from portal.models import User
from router.telemetry.models import Hour, Minute
from router.telemetry.multiples import BY_KEY, multiples
from tests.portal.charts.conftest import rolled, series, service, ten_seconds

NOW = 1_700_000_405
LAST = 1_700_000_390  # where the last complete bucket begins


@pytest.fixture
def vera(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


def test_a_chart_adds_up_versions_and_leaves_gaps(db: None, django_assert_num_queries: Any) -> None:
    blue, green, other = series("one"), series("one", "green"), series("two")
    ten_seconds(blue, LAST)
    ten_seconds(green, LAST, busy=1, queued=0, ready=1, desired=1, rejected=0)
    ten_seconds(blue, LAST - 30, seconds=5, rejected=0)
    ten_seconds(other, LAST - 10)
    ten_seconds(series("three"), LAST - 2_000)  # too long ago
    rolled(LAST + 10)
    with django_assert_num_queries(2):
        found = multiples(["one", "two", "three"], BY_KEY["15m"], NOW)
    assert found.services.keys() == {"one", "two"}
    one = found.services["one"]
    assert one["demand"][-4:] == [2.0, None, None, 3.0]
    assert one["ready"][-1] == 3.0
    assert one["rejected"][-4:] == [0.0, None, None, 2.0]
    assert (found.at[-1], found.end, len(found.at)) == (LAST, LAST + 10, 90)
    assert all(len(column) == 90 for column in one.values())


def test_an_open_bucket_is_not_told_and_comes_later(db: None) -> None:
    one = series("one")
    ten_seconds(one, LAST - 10)
    ten_seconds(one, LAST)
    rolled(LAST)
    first = multiples(["one"], BY_KEY["15m"], NOW)
    assert first.at[-1] == LAST - 10
    assert multiples(["one"], BY_KEY["15m"], NOW, first.at[-1]).at == []
    rolled(LAST + 10)
    more = multiples(["one"], BY_KEY["15m"], NOW, first.at[-1])
    assert (more.at, more.services["one"]["ready"]) == ([LAST], [2.0])


@pytest.mark.parametrize(
    ("key", "table", "own"), [("2h", Minute, 60), ("24h", Minute, 60), ("7d", Hour, 3600)]
)
def test_longer_spans_come_from_coarser_rows(db: None, key: str, table: Any, own: int) -> None:
    span = BY_KEY[key]
    now = 1_700_006_400  # a whole number of all steps
    one = series("one")
    at = now - span.step
    for begin in range(at, now, own):
        table.objects.create(series=one, at=begin, seconds=own, busy=2, ready=1, rejected=own)
    rolled(now, own)
    found = multiples(["one"], span, now)
    assert found.at[-1] == at
    assert (found.services["one"]["demand"][-1], found.services["one"]["rejected"][-1]) == (
        2.0,
        1.0,
    )


def test_a_page_holds_48_services_and_leads_to_the_next(vera: Client, cluster: Cluster) -> None:
    for number in range(50):
        service(cluster, f"svc-{number:03d}")
    page = vera.get("/services/_charts/?span=2h").content.decode()
    assert page.count("data-service=") == 48
    assert "span=2h&amp;page=2" in page
    rest = vera.get("/services/_charts/?span=2h&page=2").content.decode()
    assert rest.count("data-service=") == 2
    assert vera.get("/services/_charts/?page=99").content.decode().count("data-service=") == 2


def test_services_are_found_by_name_state_and_cluster(vera: Client, cluster: Cluster) -> None:
    service(cluster, "wine")
    service(cluster, "bread")
    assert "wine" not in vera.get("/services/_charts/?q=bread").content.decode()
    nothing = vera.get("/services/_charts/?cluster=elsewhere").content.decode()
    assert "No service matches" in nothing
    assert vera.get("/services/_charts/?state=Healthy").content.decode().count("data-service=") == 2


def test_without_services_the_page_says_what_will_stand_there(vera: Client) -> None:
    assert "No services yet" in vera.get("/services/_charts/").content.decode()


def test_the_page_is_reached_from_the_list_and_the_overview(vera: Client, cluster: Cluster) -> None:
    service(cluster, "wine")
    assert "/services/_charts/" in vera.get("/services/").content.decode()
    assert "/services/_charts/" in vera.get("/").content.decode()


def test_the_data_has_known_services_only(vera: Client, cluster: Cluster) -> None:
    service(cluster, "wine")
    now = int(time.time())
    last = now - now % 10 - 10
    ten_seconds(series("wine"), last)
    ten_seconds(series("gone"), last)
    rolled(last + 10)
    data = vera.get("/services/_charts/data/?names=wine,gone,nobody").json()
    assert list(data["services"]) == ["wine"]
    assert data["services"]["wine"]["desired"][-1] == 3.0
    assert data["newest"] == last
    more = vera.get(f"/services/_charts/data/?names=wine&after={last}").json()
    assert (more["x"], more["services"], more["newest"]) == ([], {}, last)


@pytest.mark.parametrize("query", ["span=1y", "after=x", "names=" + ",".join(["a"] * 101)])
def test_what_cannot_be_meant_is_refused(vera: Client, db: None, query: str) -> None:
    assert vera.get(f"/services/_charts/data/?{query}").status_code == 400
    assert vera.get(f"/services/_charts/data.csv?{query}").status_code == 400


def test_the_csv_names_the_service_in_each_row(vera: Client, cluster: Cluster) -> None:
    now = int(time.time())
    last = now - now % 10 - 10
    for name in ("wine", "bread"):
        service(cluster, name)
        ten_seconds(series(name), last)
    rolled(last + 10)
    answer = vera.get("/services/_charts/data.csv?names=wine,bread")
    assert 'filename="services-demand-15m.csv"' in answer["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert [(row["service"], row["rejected"]) for row in rows] == [
        ("bread", "2.0"),
        ("wine", "2.0"),
    ]
    one = vera.get("/services/_charts/data.csv?names=wine")
    assert 'filename="wine-demand-15m.csv"' in one["Content-Disposition"]


@pytest.mark.parametrize("page", ["", "data/", "data.csv"])
def test_a_stranger_sees_nothing(client: Client, db: None, page: str) -> None:
    assert client.get(f"/services/_charts/{page}").status_code == 302
