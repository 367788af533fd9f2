"""/metrics: what Prometheus itself reads, by its conventions, with labels nobody can make many of."""

import math
import re
from dataclasses import fields, replace
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from router import metrics
from router.admin_api import application
from router.dataplane import DataPlane, Settings
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy, Paths
from router.haproxy.stats import Counters
from router.loop import RouterLoop
from router.metrics import FAMILIES, Metrics
from router.ring import Ring
from router.samples import Sample
from router.size_wire import RouterSample
from tests.router.fakes import MemoryDriver

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
KEY = Key("demo", "default")


@pytest.fixture
def loop(tmp_path: Path) -> RouterLoop:
    haproxy = HAProxy(Path(), Paths.of(tmp_path, tmp_path, "local"))
    plane = DataPlane(haproxy, Settings("127.0.0.1", 1))
    made = RouterLoop(MemoryDriver(), plane, Ring("now"), tmp_path / "state.json")
    made.totals[KEY] = Counters(
        arrivals=9,
        ok=5,
        rejected=3,
        unready=1,
        timeouts=1,
        histogram=(3, 2) + (0,) * 22,
        queue_histogram=(5,) + (0,) * 23,
        service_histogram=(0,) * 23 + (5,),
    )
    made.latest[KEY] = Sample(1, "demo", "default", busy=1.5, queued=0.25, ready=2, desired=3)
    return made


def read(figures: Metrics) -> dict[str, Metric]:
    return {
        family.name: family for family in text_string_to_metric_families(figures.text().decode())
    }


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_prometheus_reads_the_figures(loop: RouterLoop) -> None:
    found = read(Metrics(loop))
    assert value(found, "slipway_requests_total", service="demo", version="default") == 9
    outcomes = {
        word: value(found, "slipway_responses_total", outcome=word)
        for word in ("ok", "client_error", "overloaded", "not_ready", "timeout", "failure")
    }
    assert outcomes == {
        "ok": 5, "client_error": 0, "overloaded": 2, "not_ready": 1, "timeout": 1, "failure": 0,
    }  # fmt: skip
    duration = "slipway_request_duration_seconds"
    assert value(found, f"{duration}_bucket", le="0.001") == 3
    assert value(found, f"{duration}_bucket", le="0.002") == 5
    assert value(found, f"{duration}_bucket", le="+Inf") == value(found, f"{duration}_count") == 5
    assert value(found, "slipway_queue_duration_seconds_bucket", le="0.001") == 5
    assert value(found, "slipway_replica_duration_seconds_bucket", le="60") == 0
    assert value(found, "slipway_replica_duration_seconds_bucket", le="+Inf") == 5
    assert value(found, "slipway_replicas", state="desired") == 3
    assert value(found, "slipway_requests_in_flight", place="replica") == 1.5
    assert value(found, "slipway_router_healthy") == 1


def test_names_and_units_are_by_prometheus_conventions(loop: RouterLoop) -> None:
    """https://prometheus.io/docs/practices/naming/"""
    found = read(Metrics(loop))
    told = {family.name for family in FAMILIES}
    assert len(told) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"slipway_[a-z][a-z_]*[a-z]", family.name)
        assert family.name.endswith("_total") is (family.kind == "counter")
        for unit in ("_ms", "_milliseconds", "_us", "_kb", "_mb", "_percent", "_minutes"):
            assert unit not in family.name
        if "duration" in family.name or "time" in family.name.split("_"):
            assert family.name.endswith("_seconds")
        assert family.text[0].isupper()
        assert family.text.endswith(".")
        parsed = found[family.name.removesuffix("_total")]
        assert (parsed.type, parsed.documentation) == (family.kind, family.text)
    assert {name.removesuffix("_total") for name in told} == found.keys()


def test_buckets_only_ever_count_up(loop: RouterLoop) -> None:
    for family in read(Metrics(loop)).values():
        buckets = [item for item in family.samples if item.name.endswith("_bucket")]
        assert [item.value for item in buckets] == sorted(item.value for item in buckets)
        bounds = [float(item.labels["le"]) for item in buckets]
        assert bounds == sorted(bounds)


def test_labels_are_bounded(loop: RouterLoop) -> None:
    allowed = {"service", "version", "outcome", "state", "place", "le"}
    for family in read(Metrics(loop)).values():
        for sample in family.samples:
            assert sample.labels.keys() <= allowed


def test_a_name_cannot_break_out_of_its_label(loop: RouterLoop) -> None:
    odd = Key('a"} 1\n', "b\\")
    loop.totals[odd] = Counters(arrivals=4)
    families = read(Metrics(loop))
    assert value(families, "slipway_requests_total", service=odd.service, version=odd.version) == 4


def test_only_what_changed_is_made_again(loop: RouterLoop) -> None:
    figures = Metrics(loop)
    first = figures.text()
    assert figures.text() == first
    loop.latest[KEY] = replace(loop.latest[KEY], ready=1)
    assert value(read(figures), "slipway_replicas", state="ready") == 1
    loop.totals[KEY] = replace(loop.totals[KEY], arrivals=10)
    assert value(read(figures), "slipway_requests_total") == 10
    del loop.totals[KEY]
    assert b"demo" not in figures.text()


def test_a_second_that_was_not_measured_has_no_gauges(loop: RouterLoop) -> None:
    loop.latest.clear()
    found = read(Metrics(loop))
    assert not found["slipway_replicas"].samples
    assert value(found, "slipway_requests_total") == 9


def test_the_routers_own_size_is_told_and_what_is_unknown_is_no_number(loop: RouterLoop) -> None:
    names = (
        "slipway_haproxy_threads",
        "slipway_haproxy_cpu_cores",
        "slipway_router_routing_seconds",
    )
    assert all(math.isnan(value(read(Metrics(loop)), name)) for name in names)
    loop.sizing.latest = RouterSample(
        at=1,
        routing_ms=2.5,
        idle=70,
        cpu=0.4,
        threads=2,
        pods=1,
        cores=4,
        connections=3,
        requests=9,
    )
    found = read(Metrics(loop))
    assert [value(found, name) for name in names] == [2, 0.4, 0.0025]


def test_every_metric_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for family in FAMILIES:
        assert f"`{family.name}`" in text
        for label in family.labels:
            assert f"`{label}`" in text


def test_every_count_of_the_router_is_told(loop: RouterLoop) -> None:
    """A new counter would otherwise be forgotten here."""
    assert {item.name for item in fields(Counters)} == {
        "arrivals", "ok", "client_errors", "rejected", "unready", "timeouts", "failures",
        "histogram", "queue_histogram", "service_histogram",
    }  # fmt: skip


async def test_the_admin_api_serves_them(loop: RouterLoop) -> None:
    transport = httpx.ASGITransport(app=application(loop))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"] == metrics.CONTENT_TYPE
    assert "slipway_requests_total" in answer.text
