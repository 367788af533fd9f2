"""The admin API: pages of telemetry, Prometheus' text, and an honest health."""

from pathlib import Path

import httpx
import pytest

from router.admin_api import application
from router.dataplane import DataPlane, Settings
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy, Paths
from router.haproxy.stats import Counters
from router.loop import RouterLoop, Status
from router.ring import Ring
from router.samples import Sample, from_wire
from tests.router.fakes import MemoryDriver


@pytest.fixture
def loop(tmp_path: Path) -> RouterLoop:
    haproxy = HAProxy(Path(), Paths.of(tmp_path, tmp_path, "local"))
    plane = DataPlane(haproxy, Settings("127.0.0.1", 1))
    made = RouterLoop(MemoryDriver(), plane, Ring("now"), tmp_path / "state.json")
    made.ring.add(Sample(at, "demo", "default") for at in range(5))
    return made


def ask(loop: RouterLoop, now: float = 100.0) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=application(loop, clock=lambda: now))
    return httpx.AsyncClient(transport=transport, base_url="http://router")


async def test_telemetry_goes_on_after_the_number_asked_for(loop: RouterLoop) -> None:
    async with ask(loop) as client:
        answer = await client.get("/telemetry?after=3")
        page = from_wire(answer.json())
        assert [item.at for item in page.samples] == [3, 4]
        assert (page.epoch, page.next) == ("now", 5)
        assert (await client.get("/telemetry?after=5&epoch=now")).json()["samples"] == []


async def test_a_reader_of_another_run_begins_anew(loop: RouterLoop) -> None:
    async with ask(loop) as client:
        page = (await client.get("/telemetry?after=5&epoch=before")).json()
        assert len(page["samples"]) == 5
        assert (await client.get("/telemetry?after=x")).status_code == 400


async def test_metrics_are_prometheus_text(loop: RouterLoop) -> None:
    loop.totals[Key("demo", "default")] = Counters(
        arrivals=7, ok=5, rejected=2, histogram=(3, 2) + (0,) * 22
    )
    loop.latest[Key("demo", "default")] = Sample(1, "demo", "default", busy=1.5, ready=2)
    async with ask(loop) as client:
        answer = await client.get("/metrics")
    lines = answer.text.splitlines()
    label = 'service="demo",version="default"'
    for line in (
        f"slipway_requests_total{{{label}}} 7.0",
        f'slipway_responses_total{{outcome="rejected",{label}}} 2.0',
        f'slipway_request_duration_seconds_bucket{{le="0.001",{label}}} 3.0',
        f'slipway_request_duration_seconds_bucket{{le="0.002",{label}}} 5.0',
        f'slipway_request_duration_seconds_bucket{{le="+Inf",{label}}} 5.0',
        'slipway_replicas{service="demo",state="ready",version="default"} 2.0',
        f'slipway_requests_in_flight{{place="replica",{label}}} 1.5',
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status(), 503),
        (Status(observed_at=96.0, read_at=96.0), 200),
        (Status(observed_at=95.0, read_at=99.0), 503),
        (Status(observed_at=99.0, read_at=95.0), 503),
        (Status(observed_at=99.0, read_at=99.0, trouble="the port is taken"), 503),
    ],
    ids=["never turned", "fresh", "cluster out of sight", "HAProxy silent", "trouble"],
)
async def test_health_is_that_of_the_last_turn(loop: RouterLoop, status: Status, code: int) -> None:
    loop.status = status
    async with ask(loop) as client:
        answer = await client.get("/healthz")
    assert answer.status_code == code
    assert answer.json()["trouble"] == status.trouble


async def test_nothing_else_is_here_and_nothing_is_changed(loop: RouterLoop) -> None:
    async with ask(loop) as client:
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/telemetry")).status_code == 405
