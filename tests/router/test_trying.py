"""A request that is tried from inside a router's pod: what HAProxy is asked, and how the answer travels."""

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.types import RouterSpec, TlsSpec
from router import trying
from router.admin_api import application
from router.dataplane import DataPlane, Settings
from router.haproxy.process import HAProxy, Paths
from router.loop import RouterLoop
from router.ring import Ring
from router.trying import Asked, Tries, answered_of, asked_of, to_wire
from tests.deployments.clusters.authority import issue
from tests.router.fakes import MemoryDriver

ASKED = Asked("demo", "application/json", "the-key", "", 2.0)


@pytest.fixture
def plane(tmp_path: Path) -> DataPlane:
    haproxy = HAProxy(Path(), Paths.of(tmp_path, tmp_path, "local"))
    return DataPlane(haproxy, Settings("0.0.0.0", 8080))


async def _try(plane: DataPlane, handler: Any, asked: Asked = ASKED, body: bytes = b"{}") -> Any:
    tries = Tries(plane, httpx.MockTransport(handler))
    status, _, data = await tries.answer(to_wire(asked, body))
    assert status == 200, data
    return answered_of(data)


async def test_the_services_own_rules_meet_the_key_and_the_answer_comes_whole(
    plane: DataPlane,
) -> None:
    seen: list[httpx.Request] = []

    async def haproxy(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        headers = [("x-request-id", "r1"), ("server-timing", "queue;dur=1"), ("set-cookie", "a=b")]
        return httpx.Response(503, headers=headers, content=b"busy" + await request.aread())

    answered, raw = await _try(plane, haproxy, replace(ASKED, version="blue"), b"\x00\n{}\n")
    assert str(seen[0].url) == "http://127.0.0.1:8080/api/v1/service/demo/score"
    assert seen[0].headers["authorization"] == "Bearer the-key"
    assert seen[0].headers["azureml-model-deployment"] == "blue"
    assert (answered.status, raw, answered.cut) == (503, b"busy\x00\n{}\n", False)
    assert ("x-request-id", "r1") in answered.headers


async def test_without_a_key_none_is_sent(plane: DataPlane) -> None:
    def haproxy(request: httpx.Request) -> httpx.Response:
        assert "authorization" not in request.headers
        return httpx.Response(200)

    answered, _ = await _try(plane, haproxy, replace(ASKED, key=""))
    assert answered.status == 200


async def test_an_answer_is_cut_and_one_that_does_not_come_is_said(plane: DataPlane) -> None:
    long = b"x" * (trying.SHOWN + 1)
    answered, raw = await _try(plane, lambda request: httpx.Response(200, content=long))
    assert (answered.cut, len(raw)) == (True, trying.SHOWN)

    def late(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("late")

    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    answered, raw = await _try(plane, late)
    assert (answered.status, raw) == (None, b"") and "within 2 s" in answered.error
    answered, _ = await _try(plane, away)
    assert answered.status is None and "refused" in answered.error


@pytest.mark.parametrize("plain", [True, False])
async def test_a_router_that_scores_over_tls_alone_is_asked_so(
    plane: DataPlane, plain: bool
) -> None:
    site = issue("models.example", names=("models.example",))
    plane.following.spec = RouterSpec(
        tls=TlsSpec("models.example", site.pem, site.key_pem, plain_http=plain)
    )
    seen: list[str] = []

    def haproxy(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.url.scheme}:{request.url.port}")
        return httpx.Response(200)

    await _try(plane, haproxy)
    assert seen == ["http:8080" if plain else "https:8443"]
    _, trusted = Tries(plane)._door()
    assert trusted.verify_mode is ssl.CERT_REQUIRED
    assert trusted.cert_store_stats()["x509"] == (0 if plain else 1)


async def test_no_more_are_inside_than_memory_is_for(plane: DataPlane) -> None:
    go = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        await go.wait()
        return httpx.Response(200)

    tries = Tries(plane, httpx.MockTransport(slow))
    inside = [
        asyncio.ensure_future(tries.answer(to_wire(ASKED, b""))) for _ in range(trying.AT_ONCE)
    ]
    await asyncio.sleep(0)
    assert (await tries.answer(to_wire(ASKED, b"")))[0] == 429
    go.set()
    assert [(await item)[0] for item in inside] == [200] * trying.AT_ONCE
    assert (await tries.answer(to_wire(ASKED, b"")))[0] == 200


@pytest.mark.parametrize(
    "data", [b"", b"{}\n", b"[]\n", b"no line", b"{\n", b'{"service": 1, "content_type": "", "key": "",'
             b' "version": "", "seconds": 1}\n']
)  # fmt: skip
async def test_what_is_no_request_is_refused(plane: DataPlane, data: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        asked_of(data)
    assert (await Tries(plane).answer(data))[0] == 400


async def test_only_a_router_in_a_pod_has_this_door(plane: DataPlane, tmp_path: Path) -> None:
    loop = RouterLoop(MemoryDriver(), plane, Ring("now"), tmp_path / "state.json")
    transport = httpx.ASGITransport(app=application(loop))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        assert (await client.post("/try", content=to_wire(ASKED, b"{}"))).status_code == 405
        loop.peering = object()  # type: ignore[assignment]
        assert (await client.post("/try", content=b"nothing")).status_code == 400
        large = to_wire(ASKED, b"x" * (trying.LARGEST + 2**20))
        assert (await client.post("/try", content=large)).status_code == 413
