"""The router's page of a cluster: who may look, what stands there, its data and its limits."""

import csv
import io
import time
from datetime import datetime

import pytest
from django.test import Client

from deployments.audit.models import AuditEntry
from deployments.clusters.models import Cluster
from portal.models import User
from router.telemetry.router_rows import RouterDecision, RouterSecond
from tests.portal.charts.conftest import router_second

PAGES = ("router/", "router/now/", "router/data/", "router/data.csv", "router/decisions/")


@pytest.fixture
def vera(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


@pytest.mark.parametrize("page", PAGES)
def test_a_viewer_may_look_and_a_stranger_may_not(
    client: Client, viewer: User, cluster: Cluster, page: str
) -> None:
    answer = client.get(f"/clusters/local/{page}")
    assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/login/")
    client.force_login(viewer)
    assert client.get(f"/clusters/local/{page}").status_code == 200
    assert client.post(f"/clusters/local/{page}").status_code == 405
    assert client.get(f"/clusters/nowhere/{page}").status_code == 404


def test_a_page_without_figures_says_so(vera: Client, cluster: Cluster) -> None:
    page = vera.get("/clusters/local/router/").content.decode()
    assert "Nothing was measured in the last seconds" in page
    assert "No decisions yet" in page
    assert "stays as it is: one thread" in page
    assert vera.get("/clusters/local/router/data/").json()["x"] == []


def test_the_figures_of_now_stand_above_the_chart(vera: Client, measured: Cluster) -> None:
    now = vera.get("/clusters/local/router/now/").content.decode()
    for figure in ("0.40", "of 4 cores", "12 %", "88", "40.5"):
        assert figure in now
    assert 'data-live="telemetry:router:local"' in now
    RouterSecond.objects.update(routing_ms=None)
    assert "did not answer its probe" in vera.get("/clusters/local/router/now/").content.decode()


def test_a_production_cluster_says_how_it_scales(vera: Client, measured: Cluster) -> None:
    Cluster.objects.update(purpose="FastProd")
    page = vera.get("/clusters/local/router/").content.decode()
    assert "More threads when routing takes over 3 ms" in page


def test_what_keeps_the_router_small_stands_there_while_it_does(
    vera: Client, sizes: list[RouterDecision]
) -> None:
    page = vera.get("/clusters/local/router/now/").content.decode()
    assert "The router would be larger." in page
    assert "took &lt;4&gt; ms" in page
    RouterDecision.objects.update(over=True)
    assert "would be larger" not in vera.get("/clusters/local/router/now/").content.decode()
    old = time.time() - 4_000
    RouterDecision.objects.filter(code="no_room").update(over=False, until=old)
    assert "would be larger" not in vera.get("/clusters/local/router/now/").content.decode()


def test_decisions_stand_in_words_with_their_figures(
    vera: Client, sizes: list[RouterDecision]
) -> None:
    page = vera.get("/clusters/local/router/decisions/").content.decode()
    assert "1 → 2 threads" in page
    assert "So after 0.5 s" in page or "So after 500 ms" in page
    assert "cores free beside it" in page
    assert "Stayed as it is" in page
    assert page.index("Stayed as it is") < page.index("1 → 2 threads")


def test_older_decisions_come_page_by_page(vera: Client, sizes: list[RouterDecision]) -> None:
    now = time.time()
    RouterDecision.objects.bulk_create(
        RouterDecision(
            cluster="local", at=now + i, code="at_most", reason=f"number {i}.", threads_before=1,
            threads_after=1, pods_before=1, pods_after=1, applied=False,
        )
        for i in range(30)
    )  # fmt: skip
    first = vera.get("/clusters/local/router/decisions/").content.decode()
    assert first.count("<details") == 20
    older = first.split("?before=")[1].split('"')[0]
    rest = vera.get(f"/clusters/local/router/decisions/?before={older}").content.decode()
    assert rest.count("<details") == 12
    assert "number 10." in first
    assert "number 9." in rest
    assert "?before=" not in rest


def test_the_data_is_the_chart_and_then_only_what_is_new(
    vera: Client, sizes: list[RouterDecision]
) -> None:
    data = vera.get("/clusters/local/router/data/?range=5m").json()
    assert data["step"] == 1
    assert len(data["x"]) == 111  # 110 seconds, and one row for the gap
    assert data["columns"]["cpu"].count(None) == 1
    assert [item["direction"] for item in data["decisions"]] == ["up", "prevented"]
    assert [item["threads"] for item in data["decisions"]] == [2, 1]
    router_second(data["newest"] + 1, cpu=0.5)
    last = data["decisions"][-1]["id"]
    more = vera.get(
        f"/clusters/local/router/data/?range=5m&after={data['newest']}&decision={last}"
    ).json()
    assert more["columns"]["cpu"] == [0.5]
    assert more["decisions"] == []
    assert vera.get("/clusters/local/router/data/?range=1y").status_code == 400


def test_the_csv_has_a_row_a_second_and_none_for_a_gap(vera: Client, measured: Cluster) -> None:
    answer = vera.get("/clusters/local/router/data.csv?range=5m")
    assert 'filename="router-local-5m.csv"' in answer["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert len(rows) == 110
    assert rows[0]["threads"] == "1.0"
    assert datetime.fromisoformat(rows[0]["time"]).tzinfo is not None


def test_only_an_administrator_sets_the_cores(
    client: Client, deployer: User, administrator: User, cluster: Cluster
) -> None:
    client.force_login(deployer)
    assert client.post("/clusters/local/router/cores/", {"cores": 2}).status_code == 403
    assert "Cores the router may use" not in client.get("/clusters/local/router/").content.decode()
    client.force_login(administrator)
    page = client.post("/clusters/local/router/cores/", {"cores": 2}, follow=True)
    assert "may use 2 cores" in page.content.decode()
    cluster.refresh_from_db()
    assert (cluster.router_cores, cluster.router_generation) == (2, 1)
    assert AuditEntry.objects.filter(action="cluster.router_cores").count() == 1
    client.post("/clusters/local/router/cores/", {"cores": ""})
    cluster.refresh_from_db()
    assert cluster.router_cores is None
    refused = client.post("/clusters/local/router/cores/", {"cores": "99"}, follow=True)
    assert "less than or equal to 64" in refused.content.decode()


def test_the_clusters_page_leads_there(vera: Client, cluster: Cluster) -> None:
    assert "/clusters/local/router/" in vera.get("/clusters/local/").content.decode()
