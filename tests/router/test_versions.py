"""Versions of a service come, share, are promoted and go: at a real HAProxy, and nobody loses a request."""

import asyncio
from dataclasses import replace

import httpx
import pytest

from deployments.types import ServiceSpec
from tests.router.conftest import Rig, eventually
from tests.router.fakes import TinyReplica, replica, service

pytestmark = pytest.mark.daemons


def two(share: int, *, default: str = "blue", **changes: object) -> ServiceSpec:
    """`demo` with the versions blue and green, of which green has this share of the requests."""
    one = service("demo", **changes)
    shares = {"blue": 100 - share, "green": share}
    return replace(
        one,
        versions=tuple(
            replace(one.versions[0], name=name, traffic_percent=percent, is_default=name == default)
            for name, percent in shares.items()
        ),
    )


async def serving(rig: Rig, spec: ServiceSpec) -> dict[str, TinyReplica]:
    made = {version.name: await rig.replica() for version in spec.versions}
    rig.driver.put(
        spec,
        *(
            replica(f"demo-{name}", "demo", tiny.address, version=name)
            for name, tiny in made.items()
        ),
    )
    rig.start()
    await rig.routed(*(f"demo-{name}" for name in made))
    return made


async def test_shares_and_promotion_change_under_load_without_a_reload(rig: Rig) -> None:
    tinies = await serving(rig, two(0))
    assert rig.loop is not None
    codes: set[int] = set()
    stop = asyncio.Event()

    async def ask() -> None:
        async with httpx.AsyncClient(timeout=10) as mine:
            while not stop.is_set():
                codes.add((await mine.post(rig.score("demo"))).status_code)

    async def reached(*names: str) -> None:
        """These answer, and nobody else."""
        for _ in range(100):
            before = {name: tiny.served for name, tiny in tinies.items()}
            await asyncio.sleep(0.2)
            grown = {name for name, tiny in tinies.items() if tiny.served > before[name]}
            if grown == set(names):
                return
        raise AssertionError(f"{names} are not those that answer, but {grown}")

    clients = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        await reached("blue")
        rig.driver.put(two(50))
        await reached("blue", "green")
        rig.driver.put(two(100, default="green"))  # promoted
        await reached("green")
        rig.driver.put(two(0))  # and taken back
        await reached("blue")
    finally:
        stop.set()
        await asyncio.gather(*clients)
    assert codes == {200}
    assert rig.loop.plane.reloads == 0


async def test_who_waits_for_a_version_that_goes_is_still_answered(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    tinies = await serving(rig, two(0, max_request_wait_ms=5000))
    green = {"azureml-model-deployment": "green"}
    url = rig.score("demo")
    asked = [
        asyncio.create_task(client.post(url, content=b"sleep 0.4", headers=green)) for _ in range(5)
    ]
    await eventually(lambda: tinies["green"].now == 1, "the first request inside")
    alone = two(0, max_request_wait_ms=5000)
    rig.driver.put(replace(alone, versions=alone.versions[:1]))
    answers = await asyncio.gather(*asked)
    assert [answer.status_code for answer in answers] == [200] * 5
    assert tinies["green"].served == 5
    await eventually(lambda: rig.driver.route("demo-green") in (None, "out"), "green is out")
    gone = await client.post(url, headers=green)
    assert gone.json()["error"]["code"] == "DeploymentNotFound"
    assert (await client.post(url)).status_code == 200
