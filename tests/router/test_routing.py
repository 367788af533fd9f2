"""What a client meets at the router: routes, codes, bodies, ids, keys. With a real HAProxy."""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from deployments.types import AuthSpec, Phase, Scaling
from tests.router.conftest import Rig, eventually
from tests.router.fakes import Load, TinyReplica, replica, service

pytestmark = pytest.mark.daemons


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def serving(
    rig: Rig, name: str = "demo", count: int = 1, **changes: object
) -> list[TinyReplica]:
    """A service with ready replicas, routed."""
    made = [await rig.replica() for _ in range(count)]
    rig.driver.put(
        service(name, **changes),
        *(replica(f"{name}-{n}", name, item.address) for n, item in enumerate(made)),
    )
    if rig.loop is None:
        rig.start()
    await rig.routed(*(f"{name}-{n}" for n in range(count)))
    return made


def error(response: httpx.Response) -> tuple[int, str, str]:
    """Status, code and message, once the body's whole form was looked at."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "request_id"}
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["error"]["code"], body["error"]["message"]


async def test_every_code_has_its_body(rig: Rig, client: httpx.AsyncClient) -> None:
    [tiny] = await serving(rig, scoring_timeout_ms=400)
    url = rig.score("demo")

    good = await client.post(url, content=b"{}")
    assert (good.status_code, good.json()) == (200, {"bytes": 2, "path": "/score"})
    assert (await client.get(url)).status_code == 200
    assert (await client.options(url)).status_code == 200
    swagger = await client.get(url.replace("/score", "/swagger.json?version=3"))
    assert swagger.json()["path"] == "/swagger.json?version=3"
    assert (await client.get(f"{rig.url}/healthz")).text == "Healthy"

    unknown = await client.post(rig.score("nobody"))
    assert error(unknown) == (404, "ServiceNotFound", "No service named nobody")
    quoted = await client.post(f'{rig.url}/api/v1/service/a"b\\c/score')
    assert error(quoted)[0] == 404
    assert error(await client.get(f"{rig.url}/elsewhere"))[:2] == (404, "NotFound")
    assert error(await client.get(url + "/more"))[:2] == (404, "NotFound")
    pinned = await client.post(url, headers={"azureml-model-deployment": "gone"})
    assert error(pinned) == (404, "DeploymentNotFound", "No deployment gone in service demo")
    right = await client.post(url, headers={"azureml-model-deployment": "default"})
    assert right.status_code == 200

    put = await client.put(url, content=b"x")
    assert error(put)[:2] == (405, "MethodNotAllowed")
    assert put.headers["allow"] == "GET, POST, OPTIONS"
    assert error(await client.post(url.replace("/score", "/swagger.json")))[0] == 405

    failed = await client.post(url, content=b"fail")
    assert failed.status_code == 502
    assert failed.json()["path"] == "/score"  # the replica's own words
    teapot = await client.post(url, content=b"status 418")
    assert teapot.status_code == 418
    died = await client.post(url, content=b"die")
    assert error(died) == (502, "ReplicaFailed", "Replica closed connection before replying")

    begun = time.monotonic()
    late = await client.post(url, content=b"sleep 2")
    assert error(late) == (504, "ScoringTimeout", "Scoring timed out for service demo")
    assert time.monotonic() - begun == pytest.approx(0.4, abs=0.15)
    assert "authorization" not in tiny.heads[-1].lower()


async def test_too_large_bodies_are_refused_announced_or_not(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig)
    limit = 100 * 2**20
    url = rig.score("demo")
    message = f"The request body must not exceed {limit} bytes"

    reader, writer = await asyncio.open_connection("127.0.0.1", rig.settings.port)
    writer.write(
        b"POST /api/v1/service/demo/score HTTP/1.1\r\nHost: x\r\n"
        b"Content-Length: %d\r\n\r\n" % (limit + 1)
    )
    answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 413")
    assert message in answer

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 2**20):
            yield b"\0" * 2**20

    passes = await client.post(url, content=chunks(3 * 2**20))
    assert passes.json()["bytes"] == 3 * 2**20
    refused = await client.post(url, content=chunks(limit + 2**20))
    assert error(refused) == (413, "RequestTooLarge", message)


async def test_ids_are_kept_made_and_refused(rig: Rig, client: httpx.AsyncClient) -> None:
    [tiny] = await serving(rig)
    url = rig.score("demo")

    kept = await client.post(url, headers={"x-request-id": "a" * 100})
    assert kept.headers["x-request-id"] == "a" * 100
    assert f"x-request-id: {'a' * 100}" in tiny.heads[-1]
    made = await client.post(url)
    again = await client.post(url)
    unsafe = await client.post(url, headers={"x-request-id": 'a"b'})
    ids = [answer.headers["x-request-id"] for answer in (made, again, unsafe)]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"[0-9a-f]{8}-\d+-\d+", text) for text in ids)
    assert f"x-request-id: {ids[-1]}" in tiny.heads[-1]
    for name in ("x-request-id", "x-ms-client-request-id", "x-ms-request-id"):
        long = await client.post(url, headers={name: "a" * 101})
        expected = (431, "RequestHeaderTooLarge", f"{name} must not exceed 100 characters")
        assert error(long) == expected
    echoed = await client.post(rig.score("nobody"), headers={"x-ms-client-request-id": "mine"})
    assert echoed.headers["x-ms-client-request-id"] == "mine"
    legacy = await client.post(url, headers={"x-ms-request-id": "old"})
    assert legacy.headers["x-ms-client-request-id"] == "old"


async def test_keys_change_without_a_reload(rig: Rig, client: httpx.AsyncClient) -> None:
    auth = AuthSpec(key_digests=(digest("first"), digest("second")))
    [tiny] = await serving(rig, auth=auth)
    url = rig.score("demo")
    assert rig.loop is not None

    async def code(key: str) -> int:
        return (await client.post(url, headers={"authorization": f"Bearer {key}"})).status_code

    assert [await code(key) for key in ("first", "second", "third")] == [200, 200, 401]
    assert "first" not in "".join(tiny.heads)
    missing = await client.post(url)
    assert error(missing) == (401, "Unauthorized", "Missing or wrong key for service demo")
    assert missing.headers["www-authenticate"] == "Bearer"
    basic = await client.post(url, headers={"authorization": "Basic first"})
    assert basic.status_code == 401
    assert (await client.options(url)).status_code == 200  # a preflight carries no key

    changed = AuthSpec(key_digests=(digest("third"), digest("second")))
    rig.driver.put(service("demo", auth=changed))
    begun = time.monotonic()
    while await code("third") != 200:
        assert time.monotonic() - begun < 1.0
        assert await code("second") == 200
    assert [await code(key) for key in ("first", "second", "third")] == [401, 200, 200]

    rig.driver.put(service("demo", auth=AuthSpec(key_enabled=False)))
    await asyncio.sleep(0.6)
    assert (await client.post(url)).status_code == 200
    assert rig.loop.plane.reloads == 0


async def test_a_key_opens_its_own_service_only(rig: Rig, client: httpx.AsyncClient) -> None:
    await serving(rig, "one", auth=AuthSpec(key_digests=(digest("a"),)))
    await serving(rig, "two", auth=AuthSpec(key_digests=(digest("b"),)))
    headers = {"authorization": "Bearer a"}
    assert (await client.post(rig.score("one"), headers=headers)).status_code == 200
    assert (await client.post(rig.score("two"), headers=headers)).status_code == 401


async def test_no_ready_replica_tells_when_to_come_again(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    [tiny] = await serving(rig)
    assert rig.loop is not None
    version = next(iter(rig.loop.versions.values()))
    version.scaling = replace(version.scaling, start_seconds=20.0, starts_until=10.0)
    starting = replica("demo-0", "demo", tiny.address, Phase.STARTING, created_at=time.time())
    rig.driver.put(service("demo"), starting)
    await eventually(lambda: rig.driver.route("demo-0") == "out", "demo-0 out")

    answer = await client.post(rig.score("demo"))
    assert error(answer) == (503, "NoReadyReplicas", "No ready replicas for service demo")
    assert 17 <= int(answer.headers["retry-after"]) <= 20


async def test_what_found_no_ready_replica_is_no_demand_in_the_second_of_the_first_one(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    [tiny] = await serving(rig)
    assert rig.loop is not None
    rig.driver.phase("demo-0", Phase.STARTING)
    await eventually(lambda: rig.driver.route("demo-0") == "out", "demo-0 out")
    url, version = rig.score("demo"), next(iter(rig.loop.versions.values()))
    await asyncio.sleep(1.2)  # a base to count from
    for _ in range(4):
        assert (await client.post(url)).json()["error"]["code"] == "NoReadyReplicas"
    rig.driver.phase("demo-0", Phase.READY)
    await rig.routed("demo-0")
    blocking = asyncio.create_task(client.post(url, content=b"sleep 1"))
    await eventually(lambda: tiny.now == 1, "the first request inside")
    overloaded = await client.post(url)
    assert overloaded.json()["error"]["code"] == "TooManyRequests"
    await blocking
    await eventually(lambda: sum(s.rejected for s in version.window.seconds), "it is measured")
    made = [item for item in rig.loop.ring.page(0).samples if item.service == "demo"]
    assert (sum(s.rejected for s in made), sum(s.unready for s in made)) == (5, 4)
    seconds = version.window.seconds
    assert (sum(s.rejected for s in seconds), sum(s.unready for s in seconds)) == (1, 4)


async def test_a_full_queue_is_overloaded_after_its_wait(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    [tiny] = await serving(rig)
    blocking = asyncio.create_task(client.post(rig.score("demo"), content=b"sleep 1.5"))
    await eventually(lambda: tiny.now == 1, "the first request inside")
    begun = time.monotonic()
    answer = await client.post(rig.score("demo"))
    assert time.monotonic() - begun == pytest.approx(0.5, abs=0.1)
    message = "Too many requests for service demo (overloaded)"
    assert error(answer) == (503, "TooManyRequests", message)
    assert answer.headers["retry-after"] == "1"
    assert (await blocking).status_code == 200


async def test_a_queue_wait_of_ones_own_takes_one_reload(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig, "plain")
    [tiny] = await serving(rig, "patient", max_request_wait_ms=1500)
    assert rig.loop is not None
    assert rig.loop.plane.reloads == 1
    blocking = asyncio.create_task(client.post(rig.score("patient"), content=b"sleep 1"))
    await eventually(lambda: tiny.now == 1, "the first request inside")
    assert (await client.post(rig.score("patient"))).status_code == 200
    assert (await blocking).status_code == 200
    assert (await client.post(rig.score("plain"))).status_code == 200


async def test_concurrency_is_exact_with_50_clients_and_work_is_shared(rig: Rig) -> None:
    made = await serving(rig, count=3, concurrency=2, max_request_wait_ms=30_000)
    for item in made:
        item.work = 0.01
    load = Load(rig.settings.port, "demo", b"{}", clients=50)
    await load.more(600)
    assert await load.stop() == {200}
    assert [item.most for item in made] == [2, 2, 2]
    shares = [item.served for item in made]
    assert max(shares) < 1.3 * min(shares)


async def test_replicas_come_and_go_under_load_and_nothing_fails(rig: Rig) -> None:
    limits = Scaling(minimum=1, maximum=6)
    await serving(rig, count=2, max_request_wait_ms=30_000, scaling=limits)
    assert rig.loop is not None
    reloads = rig.loop.plane.reloads
    load = Load(rig.settings.port, "demo", b"sleep 0.01", clients=16)
    for turn in range(3):
        name = f"demo-new-{turn}"
        tiny = await rig.replica()
        rig.driver.put(rig.driver.services["demo"], replica(name, "demo", tiny.address))
        await rig.routed(name)
        told = rig.loop.plane.told
        await eventually(lambda tiny=tiny: tiny.served > 5, "the new replica works")
        await asyncio.sleep(0.25)
        assert rig.loop.plane.told == told  # it stands, and nothing more is said about it
        rig.driver.phase(name, Phase.DRAINING)
        asked = time.time()
        await eventually(lambda name=name: rig.driver.route(name) == "out", f"{name} out")
        assert rig.driver.reports[-1].at > asked
        assert tiny.now == 0
        assert tiny.most == 1
        del rig.driver.replicas[name]
        await tiny.kill()
    await load.more(1)
    assert await load.stop() == {200}
    assert rig.loop.plane.reloads == reloads


async def test_a_draining_replica_is_out_only_once_its_request_is_done(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    [tiny] = await serving(rig)
    request = asyncio.create_task(client.post(rig.score("demo"), content=b"sleep 1.5"))
    await eventually(lambda: tiny.now == 1, "the request inside")
    rig.driver.phase("demo-0", Phase.DRAINING)
    await eventually(lambda: rig.driver.route("demo-0") == "draining", "draining")
    while rig.driver.route("demo-0") != "out":
        inside = tiny.now
        await asyncio.sleep(0.02)
        assert not (inside and rig.driver.route("demo-0") == "out")
    assert request.done() or tiny.now == 0
    assert (await request).status_code == 200


async def test_a_replicas_death_takes_only_its_own_request(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    first, second = await serving(rig, count=2, max_request_wait_ms=5000)
    for item in (first, second):
        item.work = 0.3
    tasks = [asyncio.create_task(client.post(rig.score("demo"))) for _ in range(8)]
    await eventually(lambda: first.now == 1 and second.now == 1, "one request in each")
    await first.kill()
    rig.driver.phase("demo-0", Phase.CRASHED)
    answers = await asyncio.gather(*tasks)
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] * 7 + [502]
    lost = next(answer for answer in answers if answer.status_code == 502)
    assert error(lost)[2] == "Replica closed connection before replying"


async def test_two_services_do_not_wait_for_each_other(rig: Rig, client: httpx.AsyncClient) -> None:
    [slow] = await serving(rig, "slow", max_request_wait_ms=2000)
    await serving(rig, "quick")
    stuck = [
        asyncio.create_task(client.post(rig.score("slow"), content=b"sleep 2.5")) for _ in range(20)
    ]
    await eventually(lambda: slow.now == 1, "the slow one is busy")
    begun = time.monotonic()
    for _ in range(10):
        assert (await client.post(rig.score("quick"))).status_code == 200
    assert time.monotonic() - begun < 2.0
    codes = sorted([(await task).status_code for task in stuck])
    assert codes == [200] + [503] * 19


async def test_a_removed_service_is_gone_and_its_backend_serves_another(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    rig.settings = replace(rig.settings, backends=2)
    for name in ("one", "two"):
        await serving(rig, name)
    assert rig.loop is not None
    del rig.driver.services["one"]
    await eventually(
        lambda: all(key.service != "one" for key in rig.loop.plane.backends), "one is given up"
    )
    assert error(await client.post(rig.score("one")))[:2] == (404, "ServiceNotFound")
    await serving(rig, "five")
    assert (await client.post(rig.score("five"))).status_code == 200
    assert rig.loop.plane.reloads == 0
    await serving(rig, "six")  # the pool is full: it grows, by a reload
    async with httpx.AsyncClient() as newcomer:
        assert (await newcomer.post(rig.score("six"))).status_code == 200
    assert rig.loop.plane.old_workers  # it waits for this client's idle connection
    auth = AuthSpec(key_digests=(digest("k"),))
    rig.driver.put(service("two", auth=auth))
    await asyncio.sleep(0.3)
    assert (await client.post(rig.score("two"))).status_code == 401
    rig.driver.put(service("two"))
    await asyncio.sleep(0.3)
    assert rig.loop.plane.reloads == 1
    assert len(rig.loop.plane.shapes) == 4
    for name in ("two", "five"):
        assert (await client.post(rig.score(name))).status_code == 200


async def test_samples_count_every_outcome(rig: Rig, client: httpx.AsyncClient) -> None:
    auth = AuthSpec(key_digests=(digest("k"),))
    [tiny] = await serving(rig, scoring_timeout_ms=300, auth=auth)
    assert rig.loop is not None
    await asyncio.sleep(1.2)  # the version's first mark is the base to count from
    url, headers = rig.score("demo"), {"authorization": "Bearer k"}
    for _ in range(5):
        await client.post(url, headers=headers)
    await client.post(url)  # 401
    await client.post(url, headers=headers, content=b"status 404")
    await client.post(url, headers=headers, content=b"fail")
    await client.post(url, headers=headers, content=b"die")
    await client.post(url, headers=headers, content=b"sleep 1")

    async def chunk() -> AsyncIterator[bytes]:
        yield b"{}"

    await client.post(url, headers=headers, content=chunk())
    await asyncio.sleep(2.2)
    page = rig.loop.ring.page(0)
    samples = [item for item in page.samples if item.service == "demo"]
    total = {
        name: sum(getattr(item, name) for item in samples)
        for name in ("arrivals", "ok", "client_errors", "rejected", "timeouts", "failures")
    }
    # after the replica died its slot is down for a moment: what came then was turned away
    assert total["ok"] + total["rejected"] + total["timeouts"] == 7
    assert total["timeouts"] + total["rejected"] >= 1
    assert total["client_errors"] == 2
    assert total["failures"] == 2
    assert sum(sum(item.histogram) for item in samples) == total["ok"]
    assert len({item.at for item in samples}) == len(samples)
    assert json.dumps(samples[-1].ready) == "1"
    assert tiny.served >= 6
