"""A router with a real HAProxy for the tests marked `daemons`, each in a folder of its own."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from deployments.home import Home
from router.dataplane import DataPlane, Settings
from router.haproxy.process import HAProxy, find_binary
from router.loop import RouterLoop
from router.ring import Ring
from router.run import Place
from tests.ports import free_port
from tests.router.fakes import MemoryDriver, TinyReplica


async def eventually(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait for something that another task or process brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


@dataclass
class Rig:
    """One router: HAProxy, the loop as a task, a cluster in memory, and a client."""

    place: Place
    settings: Settings
    driver: MemoryDriver = field(default_factory=MemoryDriver)
    loop: RouterLoop | None = None
    task: asyncio.Task[None] | None = None
    replicas: list[TinyReplica] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def score(self, name: str) -> str:
        return f"{self.url}/api/v1/service/{name}/score"

    @property
    def haproxy(self) -> HAProxy:
        return HAProxy(find_binary(), self.place.paths)

    async def replica(self, work: float = 0.0) -> TinyReplica:
        folder = None
        if self.settings.slot_folder is not None:
            # longer than a socket's own name may be
            folder = (
                self.place.home.root / ("r" * 60) / f"replica-{len(self.replicas)}" / ("x" * 30)
            )
            folder.mkdir(parents=True)
        made = await TinyReplica(work, folder).start()
        self.replicas.append(made)
        return made

    def start(self, pace: float = 1.0) -> RouterLoop:
        """`pace`: how many of the loop's seconds pass in one of ours, where a test waits for its samples.
        Requests, HAProxy and the cluster keep to ours."""

        def clock() -> float:
            return self.began + (time.time() - self.began) * pace

        self.loop = RouterLoop(
            self.driver,
            DataPlane(self.haproxy, self.settings, clock=clock),
            Ring("epoch"),
            self.place.folder / "state.json",
            tick=0.1 * pace,  # the product's is 0.25 s; tests have less time
            clock=clock,
        )
        self.task = asyncio.create_task(self.loop.run())
        return self.loop

    async def abandon(self) -> None:
        """The loop is gone from one moment to the next; nothing is tidied up."""
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def routed(self, *names: str) -> None:
        await eventually(
            lambda: all(self.driver.route(name) == "in_rotation" for name in names),
            f"{names} in rotation",
        )


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with _rig(tmp_path) as made:
        yield made


@pytest.fixture
async def unix_rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """One whose replicas listen on unix sockets."""
    async with _rig(tmp_path, unix=True) as made:
        yield made


@contextlib.asynccontextmanager
async def _rig(tmp_path: Path, *, unix: bool = False) -> AsyncIterator[Rig]:
    home = Home(tmp_path / "home")
    home.ensure()
    place = Place("local", home)
    settings = Settings("127.0.0.1", free_port(), backends=4, slots=8)
    if unix:
        settings = replace(settings, slot_folder=place.slots)
    made = Rig(place, settings)
    try:
        yield made
    finally:
        if made.task is not None and not made.task.done():
            await made.abandon()
        await asyncio.to_thread(made.haproxy.stop, 0.5)
        for item in made.replicas:
            await item.kill()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=300, max_keepalive_connections=300)
    async with httpx.AsyncClient(limits=limits, timeout=30) as made:
        yield made


Score = Callable[..., Awaitable[httpx.Response]]
