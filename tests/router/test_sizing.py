"""The router measures itself, acts on the verdict and keeps both."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from deployments.errors import Unavailable
from deployments.types import Capacity, NodeCapacity, Purpose, RouterPods, RouterSpec
from router import selfscale, sizing
from router.dataplane import Reading, Settings
from router.haproxy import gates, names
from router.haproxy.stats import Worker
from router.sizing import NOT_APPLIED, Sizing
from tests.router.conftest import Rig, eventually
from tests.router.fakes import Load, MemoryDriver, QuickClient
from tests.router.test_routing import serving

ROOM = Capacity(0.0, (NodeCapacity("here", 4, 4, 16, 16),))


class Bench:
    """A router without HAProxy: what it would say, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **spec: Any) -> None:
        self.now, self.cpu, self.threads, self.requests = 1_000.0, 0.0, 1, 0
        self.routing: float | None = 10.0
        self.busy = 0.95
        given = {"purpose": Purpose.FAST_PROD, "cores": 2, **spec}
        self.plane = SimpleNamespace(
            threads=1,
            old_workers=(),
            settings=Settings("127.0.0.1", 1),
            haproxy=SimpleNamespace(runtime=SimpleNamespace(ask=self._show)),
            following=SimpleNamespace(asked=RouterSpec(**given), spec=RouterSpec()),
        )
        self.driver = MemoryDriver()
        monkeypatch.setattr(sizing, "_cpu_seconds", lambda pids: {pids[0]: self.cpu})
        self.sizing = Sizing(self.driver, self.plane, "e", lambda: self.now, self._ask)
        self.version = (3, 2)

    async def _show(self, commands: list[str]) -> list[str]:
        return [f"# pxname,scur,req_tot,\nscoring,3,{self.requests},\n" for _ in commands]

    def _ask(self, bind: str, port: int) -> float:
        if self.routing is None:
            raise Unavailable("no answer")
        return self.routing

    async def seconds(self, count: int, *, pid: int = 7) -> None:
        for _ in range(count):
            worker = Worker(pid, "", False, self.version, self.threads, 5.0)
            await self.sizing.turned(Reading(self.now, 0.0, worker, {}, {}), ROOM)
            if self.sizing._probe is not None:
                await asyncio.wait({self.sizing._probe})
            self.now += 1
            self.cpu += self.busy
            self.requests += 23  # the probe's own are not clients'

    @property
    def rows(self) -> list[tuple[str, bool]]:
        return [(item.code, item.applied) for item in self.sizing.page(0).decisions]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_a_second_is_a_sample_of_what_changed_in_it(bench: Bench) -> None:
    await bench.seconds(3)
    first, second = bench.sizing.page(0).samples  # the first reading has nothing to compare with
    assert (second.at, second.routing_ms, second.cpu) == (1_001, 10.0, 0.95)
    assert (second.requests, second.connections, second.threads, second.cores) == (20.0, 3, 1, 2)
    assert bench.sizing.page(1).samples == (second,)
    assert first.at == 1_000


async def test_another_worker_or_a_gap_is_no_second(bench: Bench) -> None:
    await bench.seconds(2)
    await bench.seconds(1, pid=8)
    assert len(bench.sizing.page(0).samples) == 1
    bench.now += 10
    await bench.seconds(1, pid=8)
    assert len(bench.sizing.page(0).samples) == 1


async def test_a_probe_that_is_refused_is_unknown_and_one_that_hangs_is_long(bench: Bench) -> None:
    bench.routing = None
    await bench.seconds(3)
    assert bench.sizing.latest is not None
    assert bench.sizing.latest.routing_ms is None
    waits = asyncio.create_task(asyncio.sleep(60))
    bench.sizing._probe = waits  # type: ignore[assignment]
    await bench.seconds(1)
    assert bench.sizing.latest.routing_ms == 1000.0
    bench.sizing.close()
    await asyncio.gather(waits, return_exceptions=True)


async def test_more_threads_are_asked_for_once_and_noted_when_they_are_there(bench: Bench) -> None:
    await bench.seconds(13)
    assert bench.plane.threads == 2
    assert bench.rows == [("more_threads", True)]
    bench.threads = 2
    await bench.seconds(1)
    [asked, done] = bench.sizing.page(0).decisions
    assert (asked.at, asked.done_at) == (done.at, None)
    assert done.done_at is not None
    assert done.done_at - done.at == pytest.approx(3.0)


async def test_threads_that_haproxy_refuses_are_told_as_refused(bench: Bench) -> None:
    await bench.seconds(13)
    bench.plane.threads = 1  # as the data plane does when HAProxy would not
    await bench.seconds(1)
    last = bench.sizing.page(0).decisions[-1]
    assert (last.code, last.applied, last.threads_after) == (NOT_APPLIED, False, 1)
    assert "refused" in last.reason


async def test_a_change_that_never_comes_is_given_up(bench: Bench) -> None:
    await bench.seconds(13 + 62)
    assert bench.plane.threads == 1
    assert bench.rows[-1] == (NOT_APPLIED, False)


async def test_a_hindrance_is_one_row_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, purpose=Purpose.DEV_TEST)
    await bench.seconds(100)
    told = bench.sizing.page(0).decisions
    assert {(item.at, item.code) for item in told} == {(told[0].at, "dev_test")}
    assert len(told) == 2  # at its beginning, and after a minute
    bench.routing = 0.2
    await bench.seconds(40)
    last = bench.sizing.page(0).decisions[-1]
    assert last.over
    assert last.at == told[0].at
    assert last.until is not None
    assert last.until < bench.now - 15


async def test_without_gates_an_old_haproxy_stays_at_one_thread(bench: Bench) -> None:
    bench.version = (2, 8)
    await bench.seconds(20)
    assert bench.plane.threads == 1
    assert bench.rows == [("inexact", False)]


async def test_pods_go_through_the_drivers_door(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, cores=1)
    asked: list[int] = []
    pods = RouterPods(pods=3, least=3, most=5, free=2)
    monkeypatch.setattr(bench.driver, "router_pods", lambda: pods)
    monkeypatch.setattr(bench.driver, "resize_router", asked.append)
    await bench.seconds(13)
    assert asked == [4]
    monkeypatch.undo()


async def test_where_a_router_is_no_pod_the_door_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, cores=1)
    pods = RouterPods(pods=3, least=3, most=5, free=2)
    monkeypatch.setattr(bench.driver, "router_pods", lambda: pods)
    await bench.seconds(13)
    last = bench.sizing.page(0).decisions[-1]
    assert last.code == NOT_APPLIED
    assert "only its threads can change" in last.reason


@pytest.mark.daemons
async def test_a_slow_router_gets_more_threads_under_load_and_loses_nothing(
    unix_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thresholds are let down, because no test keeps a core busy; the rest is what runs."""
    monkeypatch.setattr(selfscale, "BUSY", 0.0)
    monkeypatch.setattr(selfscale, "LEAST_SECONDS", 1)
    monkeypatch.setattr(selfscale, "UP_MS", 0.0)
    rig = unix_rig
    rig.driver.router = replace(rig.driver.router, purpose=Purpose.FAST_PROD, cores=2)
    monkeypatch.setattr(gates, "_SLACK", 0.0)
    await serving(rig, count=2, concurrency=4, max_request_wait_ms=5000, scoring_timeout_ms=1000)
    assert rig.loop is not None
    plane = rig.loop.plane
    load = Load(rig.settings.port, "demo", b"{}", clients=6)
    try:
        await load.more()
        await eventually(lambda: plane.known.threads == 2, "two threads")
        await load.more()
        sizes = rig.loop.sizing
        await eventually(lambda: sizes.latest and sizes.latest.threads == 2, "seen with two")
        await eventually(lambda: any(x.done_at for x in sizes.page(0).decisions), "noted as done")
    finally:
        codes = await load.stop()
    assert codes == {200}
    # below 3.2 requests keep a copy for as long as there are several threads, so that a gate's refusal
    # goes on to another replica: with one thread the entry would be gone after the scoring timeout
    await eventually(lambda: not plane.old_workers, "the old worker is gone")
    begun = time.time()
    await eventually(lambda: rig.driver.reports[-1].at > begun + 2.2, "reports after that")
    [entries] = await rig.haproxy.runtime.ask([f"show map {names.GATES_MAP}"])
    assert entries.strip()
    reloads = plane.reloads
    await rig.abandon()
    monkeypatch.setattr(selfscale, "UP_MS", 1e9)
    loop = rig.start()
    await eventually(lambda: loop.sizing.latest is not None, "a second of the new loop")
    assert loop.plane.known.threads == loop.plane.threads == 2
    assert (loop.plane.reloads, reloads) == (0, 1)
    assert loop.sizing.latest is not None
    worker = await asyncio.to_thread(_worker_threads, rig)
    assert worker >= 2
    one = QuickClient(rig.settings.port, "/api/v1/service/demo/score")
    assert await one.post() == 200
    one.close()


def _worker_threads(rig: Rig) -> int:
    master = rig.haproxy.running()
    assert master is not None
    return max(child.num_threads() for child in master.children())


async def test_the_admin_api_tells_the_routers_own_figures(bench: Bench) -> None:
    from router.admin_api import application

    await bench.seconds(3)
    loop: Any = SimpleNamespace(sizing=bench.sizing, plane=None)
    transport = httpx.ASGITransport(app=application(loop))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        page = (await client.get("/size?after=1&epoch=e")).json()
        assert [item["at"] for item in page["samples"]] == [1_001]
        assert (await client.get("/size?after=x")).status_code == 400


def test_the_cpu_of_a_process_that_is_gone_is_not_told() -> None:
    used = sizing._cpu_seconds([psutil.Process().pid, 2**22 + 1])
    assert list(used) == [psutil.Process().pid]
    assert used[psutil.Process().pid] > 0
