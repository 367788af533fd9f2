"""Who is asked when: each version with its sample, and between two seconds where somebody waits."""

import asyncio
from dataclasses import replace

import pytest

from deployments.types import Scaling
from router.autoscaler.policy import Code
from router.haproxy.pool import Key
from router.haproxy.stats import BackendFigures
from router.ring import Ring
from router.samples import DecisionRecord, Sample
from router.scaler import Scaler
from router.versions import Versions
from tests.router.fakes import MemoryDriver, replica, service

NOW = 1_800_000_000.0
KEY = Key("demo", "default")
SCALING = Scaling(autoscale=True, minimum=1, maximum=9)


class World:
    """One version with a replica, and a clock."""

    def __init__(self, scaling: Scaling = SCALING) -> None:
        self.now = NOW
        self.driver = MemoryDriver()
        self.driver.put(service("demo", scaling=scaling), replica("a", "demo", "127.0.0.1:1"))
        self.versions = Versions({}, {})
        self.versions.take_in(self.driver.observe())
        self.ring = Ring("e")
        self.scaler = Scaler(
            self.driver,
            self.versions,
            self.ring,
            lambda key: {},
            lambda kind, message: None,
            lambda: self.now,
        )

    def idle(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            asyncio.run(self.scaler.second([Sample(int(self.now) - 1, "demo", "default", ready=1)]))

    def reading(self, busy: int, queued: int, after: float = 0.25) -> None:
        self.now += after
        asyncio.run(self.scaler.reading(self.now, {KEY: BackendFigures(busy, queued, 0, 0)}))

    @property
    def desired(self) -> int:
        return self.versions.by_key[KEY].desired

    @property
    def rows(self) -> tuple[DecisionRecord, ...]:
        return self.ring.page(0).decisions


@pytest.mark.parametrize("seconds", [5, 200])  # 200: it stands still, and is passed over
def test_an_idle_version_is_scaled_by_the_first_reading_of_a_burst(seconds: int) -> None:
    world = World()
    world.idle(seconds)
    world.reading(busy=1, queued=4)
    [row] = world.rows
    assert (row.code, row.before, row.after, row.applied) == (Code.UP, 1, 8, True)
    assert row.reason.endswith("by the newest reading.")
    assert world.driver.scaled == [("demo", "default", 8, ())]


def test_a_reading_gives_no_more_than_the_next_one_still_asks_for() -> None:
    world = World()
    world.idle(5)
    world.reading(busy=1, queued=4)
    world.reading(busy=1, queued=4)
    assert world.desired == 8
    world.reading(busy=1, queued=0)
    assert (world.desired, len(world.rows)) == (8, 1)


@pytest.mark.parametrize(
    "scaling",
    [
        replace(SCALING, refresh_seconds=10),
        replace(SCALING, maximum=1),
        replace(SCALING, autoscale=False),
    ],
    ids=["looks every ten seconds", "at its maximum", "fixed"],
)
def test_others_are_not_asked_between_two_seconds(scaling: Scaling) -> None:
    world = World(scaling)
    world.idle(5)
    rows = world.rows
    for _ in range(3):
        world.reading(busy=1, queued=9)
    assert (world.desired, world.rows) == (1, rows)


def test_a_router_that_has_just_begun_holds_whatever_waits() -> None:
    world = World()
    world.reading(busy=1, queued=9)
    assert (world.desired, world.rows) == (1, ())


def test_the_second_after_a_reading_is_weighed_as_ever() -> None:
    world = World()
    world.idle(100)
    world.reading(busy=1, queued=0)
    world.reading(busy=1, queued=1)
    assert world.desired == 3
    world.now += 0.5
    busy = Sample(int(world.now) - 1, "demo", "default", busy=1, queued=5, arrivals=6, ready=1)
    asyncio.run(world.scaler.second([busy]))
    assert world.desired == 9
    assert world.rows[-1].code == Code.UP
    assert "newest reading" not in world.rows[-1].reason


def test_a_version_that_something_else_scales_is_left_alone_until_that_is_gone() -> None:
    world = World()
    world.idle(3)
    world.driver.others = {("demo", "default"): "HorizontalPodAutoscaler cpu"}
    world.idle(200)  # it stands still, and is told of all the same
    world.reading(1, 9)
    assert world.driver.scaled == []
    row = next(item for item in world.rows if item.code == Code.CONFLICT)
    assert "HorizontalPodAutoscaler cpu scales this version too" in row.reason
    world.driver.others = {}
    world.idle(1)
    world.reading(1, 9)
    assert world.desired > 1
