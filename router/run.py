"""Puts one cluster's router together and runs it; the commands are thin around this."""

import asyncio
import fcntl
import gc
import logging
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.drivers.base import Driver
from deployments.drivers.kubernetes_router import LEAVE_SECONDS
from deployments.errors import Conflict, SlipwayError
from deployments.home import Home
from router import admin_api
from router.dataplane import DataPlane, Settings
from router.haproxy.peer_rules import LEAVING
from router.haproxy.process import HAProxy, Paths, find_binary, steady_thread
from router.loop import RouterLoop
from router.peer_plane import PeerPlane
from router.peering import Peering, Source
from router.request_reader import RequestReader
from router.ring import Ring

log = logging.getLogger(__name__)

# A full look for garbage takes 0.1 s with a thousand services' samples in memory, and finds next to nothing:
# what the loop makes holds no cycles. Numbers of new objects, as `gc.set_threshold` takes them.
_RARELY = (20_000, 20, 200)
# for what is on its way to a pod that ends: a node may have learnt of that late, and connected just now
_LINGER_SECONDS = 3.0
_STEP_BACK = 5  # of niceness: where cores are short requests go before the loop's turns


@dataclass(frozen=True, slots=True)
class Place:
    """Where one cluster's router keeps its things."""

    cluster: str
    home: Home

    @property
    def folder(self) -> Path:
        return self.home.cluster(self.cluster) / "router"

    @property
    def paths(self) -> Paths:
        return Paths.of(self.folder, self.home.run, self.cluster)

    @property
    def slots(self) -> Path:
        """Links to the sockets of replicas, where these are processes of this machine."""
        return self.home.run / f"slots-{self.cluster}"

    @property
    def admin_socket(self) -> Path:
        return self.home.run / f"router-{self.cluster}.sock"


@dataclass(frozen=True, slots=True)
class Pod:
    """What a router in a pod is told of itself. `grace_seconds` is how long requests that are inside when
    it is to go may take."""

    name: str
    source: Source
    token: str
    admin_port: int
    grace_seconds: float

    def peering(self, plane: DataPlane, epoch: str) -> Peering:
        return Peering(
            self.name, self.source, PeerPlane(plane, self.name), self.token, self.admin_port, epoch
        )


async def run(
    place: Place,
    driver: Driver,
    settings: Settings,
    haproxy_bin: str = "",
    pod: Pod | None = None,
) -> None:
    """Until SIGTERM or SIGINT. HAProxy is left serving; in a pod it is drained and ends too."""
    with _alone(place):
        spawner = steady_thread()
        os.nice(_STEP_BACK)  # this thread, and those that it makes from here on
        gc.set_threshold(*_RARELY)
        binary = await asyncio.to_thread(find_binary, haproxy_bin)
        haproxy = HAProxy(binary, place.paths, spawner)
        plane, epoch = DataPlane(haproxy, settings), uuid.uuid4().hex
        peering = None if pod is None else pod.peering(plane, epoch)
        loop = RouterLoop(
            driver, plane, Ring(epoch=epoch), place.folder / "state.json", peering=peering
        )
        asked, stopping = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, asked.set)
        log.info("the router of %s runs; %s", place.cluster, haproxy.binary)
        async with asyncio.TaskGroup() as group:
            group.create_task(
                admin_api.serve(
                    admin_api.application(loop),
                    place.admin_socket,
                    stopping,
                    None if pod is None else (settings.bind, pod.admin_port),
                )
            )
            group.create_task(loop.run())
            if peering is not None:
                group.create_task(peering.run(stopping))
            group.create_task(
                RequestReader(loop.requests, loop.plane).serve(place.paths.log_socket, stopping)
            )
            group.create_task(_keep_log_short(haproxy, stopping))
            await asked.wait()
            if peering is not None:
                await _leave(haproxy, peering)
            stopping.set()
            loop.stop()
        if pod is None:
            log.info("the router of %s ends; HAProxy serves on", place.cluster)
        else:
            outcome = await asyncio.to_thread(
                haproxy.stop, pod.grace_seconds, linger=_LINGER_SECONDS
            )
            log.info("this pod ends; its HAProxy %s", outcome)


async def _leave(haproxy: HAProxy, peering: Peering) -> None:
    """Be out of the others' sight before the door is shut: each answer ends its connection meanwhile."""
    peering.leaving = True  # readiness and the other pods go by this
    log.info("this pod is to go; it takes requests for %d s more", LEAVE_SECONDS)
    try:
        await haproxy.runtime.ask([f"experimental-mode on; set var {LEAVING} bool(true)"])
    except SlipwayError as error:
        log.warning("connections are not told that this pod goes: %s", error.message)
    await asyncio.sleep(LEAVE_SECONDS)


async def _keep_log_short(haproxy: HAProxy, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        await asyncio.to_thread(haproxy.rotate_log)
        try:
            await asyncio.wait_for(stopping.wait(), 60)
        except TimeoutError:
            continue


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Two loops would undo each other's work. The lock dies with its holder."""
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(place.folder / "loop.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"The router of {place.cluster} runs already; stop that one first."
            ) from error
        yield
    finally:
        os.close(descriptor)
