"""The admin API: pages of telemetry, Prometheus' text, and an honest health."""

import asyncio
from pathlib import Path

import httpx
import pytest

from deployments.clusters.custom import Remark
from deployments.errors import PermanentError, TemporaryError, Unavailable
from deployments.types import CustomLines, RouterSpec
from router import admin_client, setup
from router.admin_api import application, serve
from router.dataplane import DataPlane, Settings
from router.haproxy.process import HAProxy, Paths
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


async def test_the_setup_says_how_far_the_settings_are_followed(loop: RouterLoop) -> None:
    following = loop.plane.following
    following.ask(RouterSpec(generation=2))
    async with ask(loop) as client:
        said = (await client.get("/setup")).json()
        assert said == {"generation": 0, "wanted": 2, "problem": "", "tls_not_after": None}
        following.refuse(RouterSpec(generation=2), PermanentError("HAProxy refuses"))
        assert (await client.get("/setup")).json()["problem"] == "HAProxy refuses"


async def test_a_check_hands_the_lines_to_the_plane_and_its_words_back(
    loop: RouterLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[CustomLines] = []

    async def check(lines: CustomLines) -> tuple[bool, list[Remark]]:
        asked.append(lines)
        return False, [Remark("defaults", 2, "unknown keyword")]

    monkeypatch.setattr(loop.plane, "check", check)
    async with ask(loop) as client:
        answer = await client.post("/check", json={"defaults": ["# a", "b"]})
    assert asked == [CustomLines(defaults=("# a", "b"))]
    assert answer.json() == {
        "ok": False,
        "message": "unknown keyword",
        "remarks": [{"area": "defaults", "line": 2, "message": "unknown keyword"}],
    }


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"defaults": "text"}', b'{"defaults": ["' + b"x" * 2**20 + b'"]}'],
    ids=["nothing", "cut", "a list", "a text", "too large"],
)
async def test_what_is_no_lines_is_refused(body: bytes, loop: RouterLoop) -> None:
    async with ask(loop) as client:
        assert (await client.post("/check", content=body)).status_code == 400
        assert (await client.get("/check")).status_code == 404


async def test_a_check_that_takes_too_long_is_no_verdict(
    loop: RouterLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(lines: CustomLines) -> tuple[bool, list[Remark]]:
        raise TemporaryError("HAProxy's check of its configuration took too long.")

    monkeypatch.setattr(loop.plane, "check", check)
    async with ask(loop) as client:
        answer = await client.post("/check", json={})
    assert (answer.status_code, answer.json()["error"][-14:]) == (503, "took too long.")


async def test_the_client_reads_what_the_router_says_over_its_socket(
    loop: RouterLoop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def check(lines: CustomLines) -> tuple[bool, list[Remark]]:
        return True, [Remark("frontend", 1, "is late")]

    monkeypatch.setattr(loop.plane, "check", check)
    path, stopping = tmp_path / "router.sock", asyncio.Event()
    with pytest.raises(Unavailable, match="not running"):
        admin_client.status(path)
    server = asyncio.create_task(serve(application(loop), path, stopping))
    while not path.is_socket():
        await asyncio.sleep(0.01)
    try:
        assert await asyncio.to_thread(admin_client.status, path) == setup.Status(0, 0)
        ok, remarks = await asyncio.to_thread(admin_client.check, path, CustomLines())
        assert (ok, remarks) == (True, [Remark("frontend", 1, "is late")])

        async def fails(lines: CustomLines) -> tuple[bool, list[Remark]]:
            raise TemporaryError("too long")

        monkeypatch.setattr(loop.plane, "check", fails)
        with pytest.raises(Unavailable, match="did not answer"):
            await asyncio.to_thread(admin_client.check, path, CustomLines())
    finally:
        stopping.set()
        await server
