"""Replicas on unix sockets: what holds for a host and a port holds behind a slot's link. Real HAProxy."""

import asyncio
import time

import httpx
import pytest

from deployments.types import Phase
from router.haproxy.slots import State
from tests.router import test_routing, test_survival
from tests.router.conftest import Rig, eventually
from tests.router.fakes import Load, replica
from tests.router.test_routing import serving

pytestmark = pytest.mark.daemons


async def test_replicas_come_and_go_under_load_and_nothing_fails(unix_rig: Rig) -> None:
    await test_routing.test_replicas_come_and_go_under_load_and_nothing_fails(unix_rig)


async def test_a_replicas_death_takes_only_its_own_request(
    unix_rig: Rig, client: httpx.AsyncClient
) -> None:
    await test_routing.test_a_replicas_death_takes_only_its_own_request(unix_rig, client)


async def test_a_link_is_turned_only_once_an_old_worker_is_done_with_it(unix_rig: Rig) -> None:
    rig = unix_rig
    first, second = await serving(rig, count=2, concurrency=8, max_request_wait_ms=5000)
    assert rig.loop is not None
    load = Load(rig.settings.port, "demo", b"sleep 0.02", clients=6)
    async with httpx.AsyncClient(timeout=30) as other:
        long = asyncio.create_task(other.post(rig.score("demo"), content=b"sleep 3"))
        await eventually(lambda: first.now + second.now >= 1, "the long request inside")
        await load.more()
        rig.driver.put(test_survival.service("late", max_request_wait_ms=900))
        # which is known a moment later than the reload itself
        await eventually(lambda: rig.loop.plane.old_workers, "the reload's old worker")
        spec = rig.driver.services["demo"]
        for name in ("demo-0", "demo-1"):
            rig.driver.phase(name, Phase.DRAINING)
        new = []
        for number in range(8):  # more than there are slots beside the two that leave
            tiny = await rig.replica()
            new.append(tiny)
            rig.driver.put(spec, replica(f"new-{number}", "demo", tiny.address, created_at=2.0))
        await rig.routed("new-0")
        while not long.done():
            leaving = {slot.replica for slot in rig.loop.plane.held()}
            busy = {name for name, item in (("demo-0", first), ("demo-1", second)) if item.now}
            assert busy <= leaving
            await asyncio.sleep(0.02)
        assert (await long).status_code == 200
        await load.more()
    assert await load.stop() == {200}
    await rig.routed(*(f"new-{number}" for number in range(8)))
    for slot in rig.loop.plane.held():
        assert rig.loop.plane.links.address(slot.backend, slot.name) == slot.address


async def test_a_new_loop_knows_by_the_links_whose_a_slot_is(
    unix_rig: Rig, client: httpx.AsyncClient
) -> None:
    rig = unix_rig
    made = await serving(rig, count=3)
    assert rig.loop is not None
    held = {slot.replica: (slot.name, slot.address) for slot in rig.loop.plane.held()}
    await rig.abandon()
    (rig.place.folder / "state.json").unlink()
    loop = rig.start()
    await eventually(lambda: len(loop.plane.held()) == 3, "adopted")
    assert {slot.replica: (slot.name, slot.address) for slot in loop.plane.held()} == held
    assert all(slot.state is State.JOINED for slot in loop.plane.held())
    begun = time.time()
    await eventually(lambda: rig.driver.reports[-1].at > begun, "a report")
    assert loop.plane.told == 0
    assert (await client.post(rig.score("demo"), content=b"{}")).status_code == 200
    assert sum(item.served for item in made) == 1
