"""A deployed service with two recorded minutes, and a what-if of them."""

import time

import pytest

from deployments.services.models import Service
from portal.what_if import question
from router.samples import BUCKETS
from router.telemetry import what_if, what_if_queue
from router.telemetry.models import Second, Series, WhatIf, pack_histogram
from tests.portal.services.conftest import add_version as add_version
from tests.portal.services.conftest import cluster, diabetes, environment, service

__all__ = ["cluster", "diabetes", "environment", "service"]


@pytest.fixture(autouse=True)
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids that were put on the queue."""
    found: list[int] = []
    monkeypatch.setattr(what_if_queue, "enqueue", lambda pk: found.append(pk) is None)
    return found


@pytest.fixture
def begin() -> int:
    """Where the recording begins, epoch seconds."""
    return int(time.time()) - 700


@pytest.fixture
def series(service: Service, begin: int) -> Series:
    row = Series.objects.create(cluster="local", service=service.name, version="default")
    taken = pack_histogram([3 if index == 12 else 0 for index in range(BUCKETS)])
    Second.objects.bulk_create(
        Second(
            series=row,
            at=begin + second,
            arrivals=4 + second // 60 * 8,
            ok=3,
            rejected=1,
            busy=1.0,
            ready=2,
            desired=2,
            service_histogram=taken,
            queue_histogram=taken,
        )
        for second in range(120)
    )
    return row


@pytest.fixture
def row(series: Series, service: Service, begin: int) -> WhatIf:
    """Asked, and not run yet."""
    given = {"minimum": 2, "maximum": 20, "target": 60, "start_seconds": 2.0}
    asked = question(service, "default", begin, begin + 120, given, 0.5)
    return what_if.ask("vera", asked)


@pytest.fixture
def done(row: WhatIf) -> WhatIf:
    assert what_if.run(row.pk) == "done"
    row.refresh_from_db()
    return row
