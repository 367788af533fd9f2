"""The first page: what is known is shown, what is not known is not made up."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.clusters.models import Cluster, Sku
from deployments.environments.models import Environment
from deployments.registry.models import Model, ModelVersion
from deployments.services.models import (
    Deployment,
    DeploymentState,
    DeploymentStep,
    Revision,
    Service,
)
from portal import overview
from portal.models import User
from router.samples import BUCKETS
from router.telemetry.models import Second, Series, pack_histogram

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def cluster(db: None) -> Cluster:
    sku, _ = Sku.objects.get_or_create(name="This machine", defaults={"family": "CPU"})
    return Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:8080")


def _service(cluster: Cluster, name: str, **values: Any) -> Service:
    return Service.objects.create(name=name, cluster=cluster, **values)


def _deployment(service: Service, **values: Any) -> Deployment:
    environment, _ = Environment.objects.get_or_create(name="sk", version=1)
    revision = Revision.objects.create(service=service, number=1, environment=environment)
    return Deployment.objects.create(service=service, revision=revision, **values)


def _measure(service: Service, at: int, ok: int, rejected: int = 0) -> None:
    series, _ = Series.objects.get_or_create(
        cluster="local", service=service.name, version="default"
    )
    histogram = [0] * BUCKETS
    histogram[10] = ok
    Second.objects.create(
        series=series,
        at=at,
        ok=ok,
        rejected=rejected,
        ready=1,
        desired=1,
        histogram=pack_histogram(histogram),
    )


def test_never_seen_is_unknown_and_not_zero(cluster: Cluster) -> None:
    _service(cluster, "churn")
    (row,) = overview.service_rows(NOW)
    assert (row.ready, row.desired, row.figures, row.spark) == (None, None, None, [])
    assert row.stale
    assert not row.short
    totals = overview.totals([row])
    assert (totals.ready, totals.desired, totals.requests_per_second, totals.bad_percent) == (
        None,
    ) * 4


@pytest.mark.parametrize(("age", "stale"), [(20, False), (20.001, True)])
def test_what_was_seen_too_long_ago_is_stale(age: float, stale: bool) -> None:
    assert overview.is_stale(NOW - timedelta(seconds=age), NOW) is stale


@pytest.mark.parametrize(
    ("service_age", "cluster_age", "stale"),
    [(300, 3, False), (3, 300, False), (300, 300, True), (300, None, True), (None, 3, True)],
)
def test_a_quiet_service_is_seen_as_long_as_its_cluster_is(
    service_age: int | None, cluster_age: int | None, stale: bool, cluster: Cluster
) -> None:
    def ago(age: int | None) -> datetime | None:
        return None if age is None else NOW - timedelta(seconds=age)

    Cluster.objects.update(observed_at=ago(cluster_age))
    _service(cluster, "quiet", observed_at=ago(service_age))
    (row,) = overview.service_rows(NOW)
    assert row.stale is stale
    assert (row.seen_at is None) is (service_age is None)


def test_replicas_are_counted_by_phase(cluster: Cluster) -> None:
    phases = ["ready", "ready", "starting", "loading", "crashed", "draining"]
    _service(
        cluster,
        "churn",
        observed_at=NOW,
        desired_replicas=5,
        replicas=[{"phase": p} for p in phases],
    )
    (row,) = overview.service_rows(NOW)
    assert (row.ready, row.desired, row.starting, row.crashed) == (2, 5, 2, 1)
    assert row.short


def test_services_in_trouble_come_first(cluster: Cluster) -> None:
    for name, state in (
        ("aaa", "Healthy"),
        ("bbb", "Failed"),
        ("ccc", "Transitioning"),
        ("ddd", "Unhealthy"),
    ):
        _service(cluster, name, state=state)
    assert [row.service.name for row in overview.service_rows(NOW)] == ["bbb", "ddd", "aaa", "ccc"]


def test_figures_are_summed_and_the_share_not_served_is_weighted(cluster: Cluster) -> None:
    at = int(NOW.timestamp()) - 2
    _measure(_service(cluster, "busy"), at, ok=90)
    _measure(_service(cluster, "full"), at, ok=5, rejected=5)
    totals = overview.totals(overview.service_rows(NOW))
    assert totals.requests_per_second == 100
    assert totals.bad_percent == pytest.approx(5)


def test_an_idle_service_that_is_measured_has_a_zero(cluster: Cluster) -> None:
    _measure(_service(cluster, "idle"), int(NOW.timestamp()) - 2, ok=0)
    totals = overview.totals(overview.service_rows(NOW))
    assert (totals.requests_per_second, totals.bad_percent) == (0, 0)


@pytest.mark.parametrize("capacity", [None, {}, {"at": 1, "nodes": []}])
def test_unknown_capacity_has_no_bars(capacity: dict | None) -> None:
    assert overview.rooms(capacity) == []


def test_room_is_that_of_all_nodes_together() -> None:
    node = {"name": "n", "cpu_total": 4, "cpu_free": 1, "memory_gb_total": 10, "memory_gb_free": 10,
            "gpu_total": 0, "gpu_free": 0}  # fmt: skip
    cpu, memory = overview.rooms({"at": 1, "nodes": [node, node]})
    assert (cpu.used, cpu.total, cpu.percent, cpu.tone) == (6, 8, 75, "")
    assert (memory.used, memory.percent) == (0, 0)


@pytest.mark.parametrize(("used", "tone"), [(79.4, ""), (80, "warn"), (94.4, "warn"), (95, "bad")])
def test_full_rooms_are_marked(used: float, tone: str) -> None:
    assert overview.Room("CPU", used, 100, "cores").tone == tone


def test_first_steps_tick_off_and_end_with_the_first_service(cluster: Cluster) -> None:
    assert [step.done for step in overview.first_steps()] == [True, False, False]
    model = Model.objects.create(name="churn")
    assert [step.done for step in overview.first_steps()] == [True, False, False]
    ModelVersion.objects.create(model=model, version=1, size=1, file_count=1)
    assert [step.done for step in overview.first_steps()] == [True, True, False]
    _service(cluster, "churn")
    assert overview.first_steps() == []


# The page -----------------------------------------------------------------------------------


def test_a_viewer_sees_services_clusters_and_deployments(
    client: Client, viewer: User, cluster: Cluster
) -> None:
    service = _service(
        cluster,
        "churn",
        state="Failed",
        state_cause="init() raised KeyError",
        observed_at=timezone.now(),
    )
    deployment = _deployment(
        service, state=DeploymentState.FAILED, cause="init() raised KeyError: 'x'"
    )
    DeploymentStep.objects.create(
        deployment=deployment, name="loading", state="failed", started_at=NOW
    )
    client.force_login(viewer)
    html = client.get("/").content.decode()
    for text in (
        "churn",
        "Failed",
        "init() raised KeyError",
        "local",
        "Its room is not known yet.",
        "dot-failed",
    ):
        assert text in html
    assert reverse("service-deploy") not in html


def test_an_empty_portal_shows_the_first_steps_to_who_may_take_them(
    client: Client, administrator: User, viewer: User
) -> None:
    client.force_login(administrator)
    html = client.get("/").content.decode()
    assert "From a file to an endpoint" in html
    assert reverse("cluster-attach") in html
    client.force_login(viewer)
    html = client.get("/").content.decode()
    assert "for administrators" in html
    assert reverse("cluster-attach") not in html


@pytest.mark.parametrize("part", ["services", "clusters", "deployments"])
def test_each_part_is_on_the_page_as_its_own_url_gives_it(
    part: str, client: Client, viewer: User, cluster: Cluster
) -> None:
    _deployment(_service(cluster, "churn"))
    client.force_login(viewer)
    fragment = client.get(f"/overview/{part}/").content.decode().strip()
    assert fragment.startswith("<section")
    assert f'hx-get="/overview/{part}/"' in fragment
    assert fragment.partition(">")[0] in client.get("/").content.decode()


def test_more_services_take_no_more_queries(
    client: Client, viewer: User, cluster: Cluster, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        _deployment(_service(cluster, f"service-{number}"))
    client.force_login(viewer)
    with django_assert_max_num_queries(12):
        client.get("/")
