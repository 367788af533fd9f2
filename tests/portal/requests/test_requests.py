"""The Requests tab: who may look, the search, pages by key, what is missing, the CSV, the live top."""

import csv
import re
import time
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deployments.clusters.models import Cluster, Family, Sku
from deployments.services.models import Service
from deployments.types import ServiceState
from portal.models import User
from router.telemetry.models import RequestGap, RequestRecord

PAGES = ("requests/", "requests/rows/", "requests/data.csv")


@pytest.fixture
def service(db: None) -> Service:
    sku = Sku.objects.create(name="test machine", family=Family.CPU)
    cluster = Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")
    return Service.objects.create(
        name="diabetes", cluster=cluster, state=ServiceState.HEALTHY.value
    )


@pytest.fixture
def vera(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


def log(request_id: str, **values: Any) -> RequestRecord:
    base = {
        "cluster": "local",
        "service": "diabetes",
        "version": "default",
        "at": time.time(),
        "request_id": request_id,
        "method": "POST",
        "operation": "score",
        "status": 200,
        "queue_ms": 1,
        "service_ms": 20,
        "total_ms": 22,
        "bytes_in": 100,
        "bytes_out": 200,
        "replica": "diabetes-r1-abc",
        "who": "primary",
        "termination_state": "----",
    }
    return RequestRecord.objects.create(**base | values)


def ids(answer: Any) -> list[str]:
    """The request ids of the rows, in order."""
    return re.findall(r'request-id" title="([^":]+)"', answer.content.decode())


@pytest.mark.parametrize("page", PAGES)
def test_a_viewer_may_look_and_a_stranger_may_not(
    client: Client, viewer: User, service: Service, page: str
) -> None:
    answer = client.get(f"/services/diabetes/{page}")
    assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/login/")
    client.force_login(viewer)
    assert client.get(f"/services/diabetes/{page}").status_code == 200
    assert client.get(f"/services/nobody/{page}").status_code == 404
    assert client.post(f"/services/diabetes/{page}").status_code == 405


def test_a_service_that_logs_nothing_says_how_to_switch_it_on(
    vera: Client, service: Service, deployer: User
) -> None:
    page = vera.get("/services/diabetes/requests/").content.decode()
    assert "Requests are not logged" in page
    assert "A deployer can switch it on" in page
    vera.force_login(deployer)
    page = vera.get("/services/diabetes/requests/").content.decode()
    assert 'href="/services/diabetes/settings/"' in page


def test_what_was_logged_before_stays_to_be_seen(vera: Client, service: Service) -> None:
    log("r-1")
    page = vera.get("/services/diabetes/requests/")
    assert ids(page) == ["r-1"]
    assert "Request logging is off now" in page.content.decode()


def test_pages_go_on_by_key_and_never_count_rows_off(vera: Client, service: Service) -> None:
    for number in range(120):
        log(f"r-{number:03d}")
    log("other", service="iris")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        first = vera.get("/services/diabetes/requests/")
    assert not [q for q in queries.captured_queries if "OFFSET" in q["sql"]]
    assert ids(first) == [f"r-{number:03d}" for number in range(119, 69, -1)]
    older = re.search(r'hx-get="([^"]+before=\d+)"', first.content.decode())
    assert older is not None
    second = vera.get(older[1].replace("&amp;", "&"))
    assert ids(second) == [f"r-{number:03d}" for number in range(69, 19, -1)]
    older = re.search(r'hx-get="([^"]+before=\d+)"', second.content.decode())
    assert older is not None
    last = vera.get(older[1].replace("&amp;", "&"))
    assert ids(last) == [f"r-{number:03d}" for number in range(19, -1, -1)]
    assert "Older requests" not in last.content.decode()


def test_the_top_gets_what_is_new_and_begins_anew_when_that_is_more_than_a_page(
    vera: Client, service: Service
) -> None:
    newest = log("r-old").pk
    log("r-new")
    answer = vera.get(f"/services/diabetes/requests/rows/?after={newest}")
    assert ids(answer) == ["r-new"]
    assert f"after={newest + 1}" in answer.content.decode()
    assert "HX-Retarget" not in answer
    for number in range(50):
        log(f"r-{number}")
    answer = vera.get(f"/services/diabetes/requests/rows/?after={newest}")
    assert answer["HX-Retarget"] == "#request-list"
    assert len(ids(answer)) == 50
    quiet = vera.get(f"/services/diabetes/requests/rows/?after={newest + 51}")
    assert ids(quiet) == []
    assert f"after={newest + 51}" in quiet.content.decode()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=r-slow", ["r-slow"]),
        ("q=client-7", ["r-failed"]),
        ("q=r-", []),
        ("code=5xx", ["r-late", "r-failed"]),
        ("code=503", ["r-late"]),
        ("version=green", ["r-slow"]),
        ("who=token:ann", ["r-late"]),
        ("slower=900", ["r-slow"]),
        ("slower=901", []),
        ("since=2026-01-01T00:00:00&until=2026-01-02T00:00:00", ["r-failed"]),
        ("code=5xx&who=primary", ["r-failed"]),
    ],
)
def test_the_search(vera: Client, service: Service, query: str, found: list[str]) -> None:
    log("r-good")
    log("r-failed", status=502, client_request_id="client-7", at=1_767_225_600.0)
    log("r-slow", total_ms=900, version="green")
    log("r-late", status=503, who="token:ann", service_ms=None)
    assert ids(vera.get(f"/services/diabetes/requests/?{query}")) == found


def test_a_search_that_cannot_be_read_is_said(vera: Client, service: Service) -> None:
    log("r-1")
    page = vera.get("/services/diabetes/requests/?slower=fast")
    assert page.status_code == 200
    assert "Enter a whole number" in page.content.decode()
    for part in ("rows/", "data.csv"):
        assert vera.get(f"/services/diabetes/requests/{part}?slower=fast").status_code == 400


def test_what_is_missing_is_said(vera: Client, service: Service) -> None:
    now = time.time()
    log("r-1", at=now - 60)
    RequestGap.objects.create(
        cluster="local", start=now - 40, end=now - 30, lost=7, why="the portal was away too long"
    )
    RequestGap.objects.create(cluster="other", start=now - 40, end=now, lost=9, why="elsewhere")
    page = vera.get("/services/diabetes/requests/").content.decode()
    assert "7 lines, the portal was away too long" in page
    assert "elsewhere" not in page


def test_the_csv_has_all_that_is_found_and_no_formulas(vera: Client, service: Service) -> None:
    for number in range(1_200):
        log(f"r-{number}")
    log("=1+1", status=502, service_ms=None)
    answer = vera.get("/services/diabetes/requests/data.csv")
    rows = list(csv.DictReader(b"".join(answer.streaming_content).decode().splitlines()))
    assert len(rows) == 1_201
    assert (rows[0]["request_id"], rows[0]["status"], rows[0]["service_ms"]) == ("'=1+1", "502", "")
    assert rows[0]["at"].endswith("Z")
    answer = vera.get("/services/diabetes/requests/data.csv?code=502")
    assert len(b"".join(answer.streaming_content).decode().splitlines()) == 2


def test_ids_are_text_and_nothing_else(vera: Client, service: Service) -> None:
    log("<script>alert(1)</script>", who='"><b>')
    page = vera.get("/services/diabetes/requests/").content.decode()
    assert "<script>alert" not in page
    assert '"><b>' not in page
