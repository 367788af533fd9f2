"""Every answer is counted once, whatever restarts: a second is right or missing, never a spike or a zero."""

import asyncio
from collections import Counter

import httpx
import pytest

from router.haproxy.pool import Key
from router.haproxy.stats import HISTOGRAMS, PLAIN
from router.loop import RouterLoop
from router.samples import Sample
from tests.router.conftest import Rig, eventually
from tests.router.fakes import replica, service

pytestmark = pytest.mark.daemons
KEY = Key("demo", "default")
PACE = 2.5  # of the loop's clock: ten turns a second, as elsewhere, are then four of its own


def samples(loop: RouterLoop) -> list[Sample]:
    return [item for item in loop.ring.page(0, limit=100_000).samples if item.service == "demo"]


def counted(loop: RouterLoop) -> Counter[str]:
    """All that was counted since the loop began. A second that is late has no sample, but its counts
    are here."""
    total = loop.totals[KEY]
    found = Counter({name: getattr(total, name) for name in PLAIN})
    for name in HISTOGRAMS:
        found[name] = sum(getattr(total, name))
        assert sum(sum(getattr(item, name)) for item in samples(loop)) <= found[name]
    for name in PLAIN:
        assert sum(getattr(item, name) for item in samples(loop)) <= found[name]
    return found


async def measured_twice(loop: RouterLoop) -> None:
    """Two more seconds have a sample: the first of them began after now."""
    before = len(samples(loop))
    await eventually(lambda: len(samples(loop)) >= before + 2, "two more samples")


async def start(rig: Rig, **changes: object) -> RouterLoop:
    stand = await rig.replica()
    rig.driver.put(service("demo", **changes), replica("a", "demo", stand.address))
    loop = rig.start(PACE)
    await rig.routed("a")
    await measured_twice(loop)
    return loop


async def post(rig: Rig, client: httpx.AsyncClient, body: str) -> int:
    return (await client.post(rig.score("demo"), content=body.encode())).status_code


async def test_each_answer_is_counted_once_and_by_its_kind(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    loop = await start(rig, scoring_timeout_ms=300, max_request_wait_ms=200)
    codes: Counter[int] = Counter()
    for body, times in (("{}", 40), ("status 418", 7), ("fail", 5), ("sleep 0.6", 2)):
        for _ in range(times):
            codes[await post(rig, client, body)] += 1
    # three at a time at a replica that takes one: who waits over 200 ms is turned away
    for _ in range(2):
        codes.update(await asyncio.gather(*(post(rig, client, "sleep 0.25") for _ in range(3))))
    await measured_twice(loop)
    found = counted(loop)
    assert found["ok"] == codes[200]
    assert found["client_errors"] == codes[418] == 7
    assert found["failures"] == codes[502] == 5
    assert found["timeouts"] == codes[504] == 2
    assert found["rejected"] == codes[503] > 0
    assert found["unready"] == 0
    assert found["arrivals"] == codes.total()
    assert {found[name] for name in HISTOGRAMS} == {codes[200]}


async def test_what_found_no_ready_replica_is_told_apart(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    loop = await start(rig)
    del rig.driver.replicas["a"]
    await eventually(lambda: not loop.plane.held(), "the slot is free")
    assert [await post(rig, client, "{}") for _ in range(3)] == [503] * 3
    await measured_twice(loop)
    found = counted(loop)
    assert (found["rejected"], found["unready"]) == (3, 3)


async def test_a_killed_haproxy_leaves_a_gap(rig: Rig, client: httpx.AsyncClient) -> None:
    loop = await start(rig)
    for _ in range(60):
        assert await post(rig, client, "{}") == 200
    await measured_twice(loop)
    assert counted(loop)["ok"] == 60
    before = len(samples(loop))
    master = rig.haproxy.running()
    assert master is not None
    for process in [*master.children(), master]:
        process.kill()
    await eventually(lambda: len(samples(loop)) >= before + 3, "samples of the new HAProxy")
    assert await post(rig, client, "{}") == 200
    await measured_twice(loop)
    seconds = [item.at for item in samples(loop)]
    assert seconds == sorted(set(seconds))
    assert seconds[-1] - seconds[0] + 1 > len(seconds)  # at least one is missing
    assert counted(loop)["ok"] == 61  # neither the 60 again nor fewer
    assert max(item.arrivals for item in samples(loop)[before:]) <= 1


async def test_a_killed_loop_leaves_a_gap_and_the_next_one_does_not_count_from_zero(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    first = await start(rig)
    for _ in range(60):
        assert await post(rig, client, "{}") == 200
    await rig.abandon()
    for _ in range(40):  # nobody measures these
        assert await post(rig, client, "{}") == 200
    second = rig.start(PACE)
    await measured_twice(second)
    assert await post(rig, client, "{}") == 200
    await measured_twice(second)
    assert counted(second)["ok"] == 1
    assert max(item.arrivals for item in samples(second)) == 1
    assert samples(second)[0].at > samples(first)[-1].at


async def test_a_reload_loses_no_count_of_the_worker_that_finishes(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    loop = await start(rig)
    for _ in range(20):
        assert await post(rig, client, "{}") == 200
    slow = asyncio.create_task(post(rig, client, "sleep 3"))
    await asyncio.sleep(0.3)
    stand = await rig.replica()
    reloads = loop.plane.reloads
    for number in range(8):  # more than there are backends: HAProxy reloads
        name = f"other-{number}"
        rig.driver.put(service(name), replica(name, name, stand.address))
    await eventually(lambda: loop.plane.reloads > reloads, "the reload")
    await eventually(lambda: loop.plane.old_workers, "the old worker is known")
    await measured_twice(loop)
    assert samples(loop)[-1].busy == 1  # inside the old worker
    assert await slow == 200
    await eventually(lambda: not loop.plane.old_workers, "the old worker's end")
    await measured_twice(loop)
    found = counted(loop)
    # the old worker counted the slow one's answer as it ended, when it may not have been read any more
    assert found["arrivals"] == 21
    assert found["ok"] in (20, 21)
    assert max(item.ok for item in samples(loop)) <= 20
