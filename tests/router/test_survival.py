"""Who dies, who lives on, and that no request is lost by it. With a real HAProxy."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from deployments.errors import PermanentError
from deployments.types import Phase, RouteState
from tests.router.conftest import Rig, eventually
from tests.router.fakes import FileDriver, Load, replica, service
from tests.router.test_routing import serving

pytestmark = pytest.mark.daemons

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def far(rig: Rig) -> AsyncIterator["Far"]:
    made = Far(rig)
    yield made
    await made.kill()


class Far:
    """The loop in a process of its own, so that it can be killed for real."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.driver = FileDriver(rig.place.home.root)
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with (self.rig.place.home.root / "loop.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.router.loop_process"),
                *(str(self.rig.place.home.root), str(self.rig.settings.port)),
                cwd=CHECKOUT,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
            )

    def log(self) -> str:
        return (self.rig.place.home.root / "loop.log").read_text()

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def put(self, *names: str) -> None:
        self.driver.write()
        await eventually(
            lambda: all(self.state(name) == "in_rotation" for name in names), f"{names}"
        )

    def state(self, name: str, after: float = 0.0) -> str | None:
        report = self.driver.report()
        if report is None or report.at <= after:
            return None
        return {item.replica: item.state.value for item in report.routes}.get(name)


def niceness(pid: int) -> int:
    """Field 19 of /proc/<pid>/stat; the second one, in parentheses, may hold spaces."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])


async def test_the_loop_steps_back_for_haproxy_and_its_workers(rig: Rig, far: Far) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    behind = min(own + 5, 19)
    far.driver.put(service("demo"), replica("a", "demo", (await rig.replica()).address))
    far.driver.write()
    await far.start()
    await far.put("a")
    master = rig.haproxy.running()
    assert master is not None
    [worker] = master.children()
    far.driver.put(service("slow", max_request_wait_ms=9000))  # no backend waits so long: a reload
    far.driver.write()
    await eventually(
        lambda: [item for item in master.children() if item.pid != worker.pid], "the reload"
    )
    assert far.process is not None
    assert niceness(far.process.pid) == behind
    assert [niceness(item.pid) for item in (master, *master.children())] == [own] * (
        1 + len(master.children())
    )
    threads = Path(f"/proc/{far.process.pid}/task")
    assert (
        sum(niceness(int(item.name)) == own for item in threads.iterdir()) == 1
    )  # it starts HAProxy


async def test_the_loop_ends_quietly_with_the_request_log_connected(rig: Rig, far: Far) -> None:
    spec = service("demo", request_log=True)
    far.driver.put(spec, replica("a", "demo", (await rig.replica()).address))
    far.driver.write()
    await far.start()
    await far.put("a")
    async with httpx.AsyncClient() as client:
        await client.post(rig.score("demo"), content=b"{}")
    assert far.process is not None
    far.process.terminate()
    assert await asyncio.wait_for(far.process.wait(), 10) == 0
    assert "Traceback" not in far.log()
    assert "HAProxy serves on" in far.log()


@pytest.mark.faults
async def test_the_loop_killed_loses_no_request_and_the_next_one_adopts(rig: Rig, far: Far) -> None:
    first, second = await rig.replica(), await rig.replica()
    spec = service("demo", concurrency=2, max_request_wait_ms=5000)
    far.driver.put(spec, replica("a", "demo", first.address))
    far.driver.write()
    await far.start()
    await far.put("a")  # stands in the text; b joins at run time
    far.driver.put(spec, replica("b", "demo", second.address))
    await far.put("b")
    master = rig.haproxy.running()
    assert master is not None
    load = Load(rig.settings.port, "demo", b"sleep 0.02", clients=6)
    await load.more()

    for state_kept in (True, False):
        await far.kill()
        await load.more()
        if not state_kept:
            (rig.place.folder / "state.json").unlink()
        started = time.time()
        await far.start()
        await eventually(
            lambda started=started: far.state("b", after=started) == "in_rotation", "b is adopted"
        )
        assert rig.haproxy.running() == master
        # only the state file knows the queue waits: without it, one reload makes them right
        assert ("reloading" in far.log()) is not state_kept
    await load.more()

    far.driver.phase("b", Phase.DRAINING)
    far.driver.write()
    await eventually(lambda: far.state("b", after=started) == "out", "b is out")
    served = second.served
    await load.more()
    assert second.served == served
    assert second.now == 0
    assert await load.stop() == {200}


async def test_sigterm_ends_the_loop_and_haproxy_serves_on(
    rig: Rig, far: Far, client: httpx.AsyncClient
) -> None:
    tiny = await rig.replica()
    far.driver.put(service("demo"), replica("a", "demo", tiny.address))
    far.driver.write()
    await far.start()
    await far.put("a")
    transport = httpx.AsyncHTTPTransport(uds=str(rig.place.admin_socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as admin:
        assert (await admin.get("/healthz")).json()["healthy"] is True
    assert rig.place.admin_socket.stat().st_mode & 0o777 == 0o600
    assert rig.place.paths.stats_socket.stat().st_mode & 0o777 == 0o600

    second = Far(rig)
    await second.start()
    assert second.process is not None
    assert await second.process.wait() == 1
    assert "runs already" in second.log()

    assert far.process is not None
    far.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(far.process.wait(), 5) == 0
    assert (await client.post(rig.score("demo"))).status_code == 200


async def test_haproxy_killed_is_started_anew_with_its_replicas(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig, count=2)
    master = rig.haproxy.running()
    assert master is not None
    family = [master, *master.children(recursive=True)]
    for process in family:
        process.kill()

    async def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return (await client.post(rig.score("demo"))).status_code == 200
        return False

    begun = time.monotonic()
    while not await answers():
        assert time.monotonic() - begun < 5
        await asyncio.sleep(0.05)
    await rig.routed("demo-0", "demo-1")
    assert rig.haproxy.running() != master


async def test_a_lost_pid_file_does_not_start_a_second_haproxy(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig)
    master = rig.haproxy.running()
    rig.place.paths.pid.unlink()
    await eventually(lambda: rig.place.paths.pid.exists(), "the pid is noted again")
    assert rig.haproxy.running() == master
    assert (await client.post(rig.score("demo"))).status_code == 200


async def test_a_pid_of_somebody_else_is_not_trusted(rig: Rig) -> None:
    rig.place.folder.mkdir(parents=True)
    own = psutil.Process(os.getpid())
    wrong = [
        {"pid": own.pid, "started": own.create_time() - 5, "executable": own.exe()},
        {"pid": own.pid, "started": own.create_time(), "executable": "/usr/sbin/haproxy"},
        {"pid": 2**22 + 1, "started": 1.0, "executable": "/usr/sbin/haproxy"},
    ]
    for noted in wrong:
        rig.place.paths.pid.write_text(json.dumps(noted))
        assert rig.haproxy.running() is None
    right = {"pid": own.pid, "started": own.create_time(), "executable": own.exe()}
    rig.place.paths.pid.write_text(json.dumps(right))
    assert rig.haproxy.running() == own
    rig.place.paths.pid.unlink()


async def test_a_configuration_that_haproxy_refuses_changes_nothing(rig: Rig) -> None:
    await serving(rig)
    before = rig.place.paths.config.read_text()
    with pytest.raises(PermanentError, match="unknown keyword 'nonsense'") as caught:
        await rig.haproxy.install("global\n    nonsense\n", {"routes.map": "x y\n"})
    assert caught.value.code == "RouterConfigInvalid"
    assert rig.place.paths.config.read_text() == before
    assert "x y" not in (rig.place.folder / "routes.map").read_text()
    assert not list(rig.place.folder.glob(".check-*"))


async def test_a_reload_loses_nothing_and_knows_what_the_old_worker_still_has(
    rig: Rig,
) -> None:
    first, second = await serving(rig, count=2, concurrency=8, max_request_wait_ms=5000)
    assert rig.loop is not None
    load = Load(rig.settings.port, "demo", b"sleep 0.02", clients=6)
    async with httpx.AsyncClient(timeout=30) as other:
        long = asyncio.create_task(other.post(rig.score("demo"), content=b"sleep 3"))
        await eventually(lambda: first.now + second.now >= 1, "the long request inside")
        await load.more()
        rig.driver.put(service("late", max_request_wait_ms=900))
        await eventually(lambda: rig.loop.plane.reloads == 1, "the reload")
        await load.more()
        assert rig.loop.plane.old_workers
        for name in ("demo-0", "demo-1"):
            rig.driver.phase(name, Phase.DRAINING)
        third = await rig.replica()
        spec = rig.driver.services["demo"]
        rig.driver.put(spec, replica("demo-2", "demo", third.address, created_at=2.0))
        await rig.routed("demo-2")
        while not long.done():
            report = {item.replica: item.state for item in rig.driver.reports[-1].routes}
            out = [report[name] is RouteState.OUT for name in ("demo-0", "demo-1")]
            inside = [first.now > 0, second.now > 0]
            assert not any(a and b for a, b in zip(out, inside, strict=True))
            await asyncio.sleep(0.02)
        assert (await long).status_code == 200
    assert await load.stop() == {200}
    await eventually(
        lambda: {rig.driver.route("demo-0"), rig.driver.route("demo-1")} == {"out"}, "both out"
    )


async def test_a_cluster_that_cannot_be_seen_changes_nothing(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    [tiny] = await serving(rig)
    assert rig.loop is not None
    rig.driver.reachable = False
    rig.driver.replicas.clear()
    await asyncio.sleep(0.3)
    told = len(rig.driver.reports)
    rows = rig.loop.ring.page(0).next
    await asyncio.sleep(2.2)
    assert (await client.post(rig.score("demo"))).status_code == 200
    assert len(rig.driver.reports) == told
    assert rig.loop.ring.page(0).next > rows  # the figures are HAProxy's, and it can be read
    rig.driver.reachable = True
    rig.driver.put(service("demo"), replica("demo-0", "demo", tiny.address))
    await eventually(lambda: len(rig.driver.reports) > told, "reports again")
    assert (await client.post(rig.score("demo"))).status_code == 200


async def test_a_port_that_is_taken_is_said_and_tried_again(rig: Rig) -> None:
    blocker = await asyncio.start_server(lambda r, w: None, "127.0.0.1", rig.settings.port)
    tiny = await rig.replica()
    rig.driver.put(service("demo"), replica("demo-0", "demo", tiny.address))
    loop = rig.start()
    await eventually(lambda: "port taken" in loop.status.trouble, "the trouble is said")
    assert rig.driver.reports == []
    blocker.close()
    await blocker.wait_closed()
    await rig.routed("demo-0")


async def test_stopping_lets_a_request_finish(rig: Rig, client: httpx.AsyncClient) -> None:
    [tiny] = await serving(rig)
    request = asyncio.create_task(client.post(rig.score("demo"), content=b"sleep 0.5"))
    await eventually(lambda: tiny.now == 1, "the request inside")
    await rig.abandon()
    haproxy = rig.haproxy
    begun = time.monotonic()
    assert await asyncio.to_thread(haproxy.stop, 8.0) == "stopped"
    assert time.monotonic() - begun < 4  # the idle connection of the client is not waited for
    assert (await request).status_code == 200
    assert haproxy.running() is None
    assert not rig.place.paths.stats_socket.exists()
    assert await asyncio.to_thread(haproxy.stop) == "was not running"


async def test_stopping_has_an_end(rig: Rig, client: httpx.AsyncClient) -> None:
    [tiny] = await serving(rig)
    request = asyncio.create_task(client.post(rig.score("demo"), content=b"sleep 20"))
    await eventually(lambda: tiny.now == 1, "the request inside")
    await rig.abandon()
    outcome = await asyncio.to_thread(rig.haproxy.stop, 0.3)
    assert outcome == "stopped before all requests were done"
    with pytest.raises(httpx.TransportError):
        await request


async def test_one_bad_replica_does_not_stop_the_others(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig)
    rig.driver.put(service("bad"), replica("bad-0", "bad", "no such host:99999999"))
    await serving(rig, "good")
    assert (await client.post(rig.score("good"))).status_code == 200
    assert (await client.post(rig.score("demo"))).status_code == 200
    async with asyncio.timeout(10):
        while (answer := await client.post(rig.score("bad"))).status_code == 502:
            await asyncio.sleep(0.05)  # its first check has not failed yet
    assert answer.status_code == 503
    rig.driver.replicas["bad-0"] = replace(rig.driver.replicas["bad-0"], phase=Phase.CRASHED)
    await serving(rig, "later")
