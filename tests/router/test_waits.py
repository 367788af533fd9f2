"""What a client that was refused is told to wait."""

from dataclasses import replace

import pytest

from deployments.types import Exit, Phase
from router.haproxy.pool import Key
from router.versions import Versions
from router.waits import Coming, Queue, fell_at, of_each, retry_after
from tests.router.fakes import MemoryDriver, replica, service


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (105.0, 15),
        (118.9, 2),
        (119.0, 1),
        (119.5, 1),
        (120.0, 1),  # just due
        (121.5, 2),  # 1.5 s late: as long again
        (150.0, 30),
        (1_000.0, 300),
    ],
)
def test_a_client_comes_again_when_the_next_replica_should_be_ready(
    now: float, seconds: int
) -> None:
    assert retry_after(Coming(since=(100.0,), start_seconds=20.0), Queue(), now) == seconds


def test_the_first_of_those_on_their_way_counts() -> None:
    coming = Coming(since=(100.0, 110.0), start_seconds=20.0)
    assert retry_after(coming, Queue(), 105.0) == 15
    assert retry_after(coming, Queue(), 129.0) == 1  # the second one, while the first is 9 s late


@pytest.mark.parametrize(("now", "seconds"), [(100.0, 1), (100.9, 1), (105.0, 5), (160.0, 60)])
def test_a_first_start_that_nobody_knows_takes_as_long_again(now: float, seconds: int) -> None:
    assert retry_after(Coming(since=(100.0,)), Queue(), now) == seconds


def test_a_replica_that_is_asked_for_and_not_made_yet_takes_a_whole_start() -> None:
    assert retry_after(Coming(unmade=1, start_seconds=7.2), Queue(), 105.0) == 8
    assert retry_after(Coming(unmade=0, start_seconds=7.2), Queue(), 105.0) == 1
    assert retry_after(Coming(unmade=1), Queue(), 105.0) == 1


def test_an_overloaded_version_that_gets_no_more_replicas_says_when_its_queue_is_worked_off() -> (
    None
):
    full = Queue(queued=50, places=10, service_seconds=0.5)
    assert retry_after(Coming(start_seconds=20.0), full, 105.0) == 3
    assert retry_after(Coming(since=(100.0,), start_seconds=20.0), full, 105.0) == 15
    assert retry_after(Coming(), Queue(queued=50, places=10), 105.0) == 1
    assert retry_after(Coming(), Queue(places=10, service_seconds=0.5), 105.0) == 1


def test_a_crash_loop_with_nobody_ready_is_given_as_long_again_as_it_is_down() -> None:
    assert retry_after(Coming(fallen=(100.0, 90.0)), Queue(), 108.0) == 8
    ready = Queue(queued=0, places=1, service_seconds=0.1)
    assert retry_after(Coming(fallen=(100.0,)), ready, 108.0) == 1


def test_a_crashed_replica_fell_when_it_ended() -> None:
    crashed = replica("a", "demo", "", Phase.CRASHED, last_exit=Exit(1, 0, 77.0))
    again = replica("b", "demo", "", Phase.STARTING, last_exit=Exit(1, 0, 70.0), restarts=1)
    assert fell_at([crashed, again]) == (77.0,)


def test_calm_versions_are_told_nothing_and_a_new_version_learns_from_its_sibling() -> None:
    driver = MemoryDriver()
    blue = service("demo").versions[0]
    green = replace(blue, name="green", is_default=False, traffic_percent=10)
    started = {"created_at": 990.0, "ready_at": 995.0}
    driver.put(
        replace(service("demo"), versions=(blue, green)),
        replica("a", "demo", "127.0.0.1:1", **started),
        replica("b", "demo", "", Phase.STARTING, version="green", created_at=999.0),
    )
    seen = Versions({"demo/default": 12.0}, {})
    seen.take_in(driver.observe())
    assert of_each(seen.by_key, {}, lambda key: 0, 1_000.0) == {Key("demo", "green"): 11}
