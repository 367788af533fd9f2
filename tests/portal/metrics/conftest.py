"""A service with figures of the last minutes and two decisions."""

import time

import pytest

from deployments.clusters.models import Cluster, Family, Sku
from deployments.services.models import Service
from deployments.types import ServiceState
from router.samples import BUCKETS
from router.telemetry.models import Decision, Second, Series, pack_histogram


@pytest.fixture
def service(db: None) -> Service:
    sku = Sku.objects.create(name="test machine", family=Family.CPU)
    cluster = Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")
    return Service.objects.create(
        name="diabetes", cluster=cluster, state=ServiceState.HEALTHY.value
    )


@pytest.fixture
def series(service: Service) -> Series:
    return Series.objects.create(cluster="local", service=service.name, version="default")


def measure(series: Series, at: int, **values: int) -> Second:
    histogram = pack_histogram((0,) * 9 + (values.get("ok", 4),) + (0,) * (BUCKETS - 10))
    figures = {"ok": 4, "busy": 1.5, "ready": 2, "desired": 2} | values
    return Second.objects.create(series=series, at=at, histogram=histogram, **figures)


@pytest.fixture
def measured(series: Series) -> Series:
    """Two minutes, with a gap of ten seconds half a minute ago."""
    now = int(time.time())
    for at in range(now - 120, now):
        if not now - 30 <= at < now - 20:
            measure(series, at)
    return series


@pytest.fixture
def ledger(series: Series) -> list[Decision]:
    now = time.time()
    return [
        Decision.objects.create(
            series=series, at=now - 90, before=1, after=2, code="up", applied=True,
            reason="1 busy + 3 queued on 1 slot is 400 %, target 70 %: 2 wanted.",
            inputs={"busy": 1, "queued": 3, "placeable": None}, ready_at=now - 80,
        ),
        Decision.objects.create(
            series=series, at=now - 60, before=2, after=2, code="at_maximum", applied=False,
            reason="9 busy on 2 slots is 450 %; the limit is <2> replicas.",
        ),
    ]  # fmt: skip
