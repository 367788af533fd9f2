"""Clusters, services and figures for the router's page and for the small charts of all services."""

import time

import pytest

from deployments.clusters.models import Cluster, Family, Sku
from deployments.services.models import Service
from deployments.types import ServiceState
from router.telemetry.models import RollupMark, Series, TenSeconds
from router.telemetry.router_rows import RouterDecision, RouterSecond


@pytest.fixture
def cluster(db: None) -> Cluster:
    sku = Sku.objects.create(name="test machine", family=Family.CPU)
    return Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")


def router_second(at: int, **values: float | None) -> RouterSecond:
    figures = {
        "routing_ms": 0.4, "routing_peak_ms": 0.4, "idle": 88.0, "cpu": 0.12, "cpu_peak": 0.12,
        "threads": 1, "pods": 1, "cores": 4, "connections": 6, "connections_peak": 6, "requests": 40.5,
    }  # fmt: skip
    return RouterSecond.objects.create(cluster="local", at=at, **figures | values)


@pytest.fixture
def measured(cluster: Cluster) -> Cluster:
    """Two minutes of the router, with a gap of ten seconds half a minute ago."""
    now = int(time.time())
    for at in range(now - 120, now):
        if not now - 30 <= at < now - 20:
            router_second(at)
    return cluster


@pytest.fixture
def sizes(measured: Cluster) -> list[RouterDecision]:
    """One change that was made, and one that is prevented now. Oldest first."""
    now = time.time()
    common = {"cluster": "local", "threads_before": 1, "pods_before": 1, "pods_after": 1}
    return [
        RouterDecision.objects.create(
            **common, at=now - 80, code="more_threads", threads_after=2, applied=True,
            reason="Routing took 4.2 ms: 2 threads of 4 cores given.", done_at=now - 79.5,
            inputs={"routing_ms": 4.2, "free_cores": None},
        ),
        RouterDecision.objects.create(
            **common, at=now - 40, code="no_room", threads_after=1, applied=False,
            reason="Routing took <4> ms: 0.2 cores are free.", until=now - 10,
        ),
    ]  # fmt: skip


def service(cluster: Cluster, name: str) -> Service:
    return Service.objects.create(name=name, cluster=cluster, state=ServiceState.HEALTHY.value)


def series(name: str, version: str = "default") -> Series:
    return Series.objects.create(cluster="local", service=name, version=version)


def ten_seconds(of: Series, at: int, **values: float) -> TenSeconds:
    figures = {"seconds": 10, "busy": 1.5, "queued": 0.5, "ready": 2, "desired": 3, "rejected": 20}
    return TenSeconds.objects.create(series=of, at=at, **figures | values)


def rolled(until: int, step: int = 10) -> None:
    RollupMark.objects.update_or_create(step=step, defaults={"until": until})
