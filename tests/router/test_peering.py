"""Three pods of one router on this machine, each with a HAProxy and an address of its own."""

import asyncio
import contextlib
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from deployments.errors import Conflict
from deployments.home import Home
from deployments.types import Phase, Scaling
from router import admin_api, peers
from router.dataplane import DataPlane, Settings
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy, find_binary
from router.haproxy.render import PeerConfig
from router.loop import RouterLoop
from router.peer_plane import PeerPlane
from router.peering import Peering
from router.peers import Lease, Member
from router.request_reader import RequestReader
from router.ring import Ring
from router.run import Place
from tests.ports import free_port
from tests.router.conftest import eventually
from tests.router.fakes import MemoryDriver, TinyReplica, replica, service

pytestmark = pytest.mark.daemons


@dataclass
class Cluster:
    """What the pods see of each other."""

    pods: dict[str, Member] = field(default_factory=dict)
    kept: Lease = Lease("", "0")

    def members(self) -> Sequence[Member]:
        return tuple(self.pods.values())

    def lease(self) -> Lease:
        return self.kept

    def take(self, lease: Lease, holder: str) -> Lease:
        if self.kept != lease:
            raise Conflict("changed meanwhile")
        self.kept = Lease(holder, str(int(lease.turn) + 1))
        return self.kept


class Pod:
    """One of them."""

    def __init__(
        self, name: str, host: str, cluster: Cluster, driver: MemoryDriver, ports: "Ports"
    ) -> None:
        self.name, self.host, self.cluster = name, host, cluster
        folder = Path(tempfile.mkdtemp(prefix="k-"))
        home = Home(folder)
        home.ensure()
        self.place = Place("local", home)
        inner = PeerConfig(host, ports.inner, str(home.run / "peer.sock"), "secret", 4)
        self.settings = Settings(host, ports.outer, backends=4, slots=8, peers=inner)
        self.haproxy = HAProxy(find_binary(), self.place.paths)
        plane = DataPlane(self.haproxy, self.settings)
        self.peering = Peering(
            name, cluster, PeerPlane(plane, name), "secret", ports.admin, f"epoch-{name}"
        )
        self.loop = RouterLoop(
            driver, plane, Ring(f"epoch-{name}"), self.place.folder / "state.json",
            peering=self.peering,
        )  # fmt: skip
        self.stopping = asyncio.Event()
        self.tasks = [
            asyncio.create_task(self.loop.run()),
            asyncio.create_task(self.peering.run(self.stopping)),
            asyncio.create_task(
                RequestReader(self.loop.requests, plane).serve(
                    self.place.paths.log_socket, self.stopping
                )
            ),
            asyncio.create_task(
                admin_api.serve(
                    admin_api.application(self.loop),
                    self.place.admin_socket,
                    self.stopping,
                    (host, ports.admin),
                )
            ),
        ]
        cluster.pods[name] = Member(name, host, ready=False)

    @property
    def handed(self) -> set[str]:
        return set(self.loop.plane.known.owners or {})

    async def ready(self) -> None:
        await eventually(lambda: self.loop.routed, f"{self.name} routes")
        self.cluster.pods[self.name] = Member(self.name, self.host, ready=True)

    async def kill(self) -> None:
        """All of it at once, as a pod that is killed."""
        for task in self.tasks:
            task.cancel()
        master = self.haproxy.running()
        assert master is not None
        for process in [*master.children(recursive=True), master]:
            process.kill()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def close(self) -> None:
        self.stopping.set()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.to_thread(self.haproxy.stop, 0.2)


@dataclass(frozen=True)
class Ports:
    outer: int
    inner: int
    admin: int


@dataclass
class World:
    cluster: Cluster
    driver: MemoryDriver
    pods: list[Pod]
    replicas: list[TinyReplica]

    def url(self, pod: int, name: str) -> str:
        chosen = self.pods[pod]
        return f"http://{chosen.host}:{chosen.settings.port}/api/v1/service/{name}/score"

    async def agreed(self, *keys: Key) -> None:
        """Every pod has handed on what is another one's."""
        alive = [pod for pod in self.pods if self.cluster.pods[pod.name].ready]
        names = [pod.name for pod in alive]

        def done() -> bool:
            return all(
                (pod.loop.plane.backends.get(key, "?") in pod.handed)
                == (peers.owner(key, names) != pod.name)
                for pod in alive
                for key in keys
            )

        await eventually(done, "every pod knows whose each version is")


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for name in ("RENEW_SECONDS", "KEEP_SECONDS", "TAKE_SECONDS"):
        monkeypatch.setattr(peers, name, getattr(peers, name) / 4)
    cluster, driver = Cluster(), MemoryDriver()
    made = World(cluster, driver, [], [])
    for _ in range(3):
        made.replicas.append(await TinyReplica(0.02).start())
    driver.put(
        service("shared", scaling=Scaling(autoscale=False, minimum=3, maximum=3), max_request_wait_ms=5000),
        *(replica(f"r{n}", "shared", item.address) for n, item in enumerate(made.replicas)),
    )  # fmt: skip
    ports = Ports(free_port(), free_port(), free_port())
    made.pods += [Pod(f"pod-{n}", f"127.0.0.{n + 2}", cluster, driver, ports) for n in range(3)]
    try:
        for pod in made.pods:
            await pod.ready()
        yield made
    finally:
        for pod in made.pods:
            with contextlib.suppress(Exception):
                await pod.close()
        for item in made.replicas:
            await item.kill()


KEY = Key("shared", "default")


async def load(world: World, seconds: float, clients: int = 8) -> list[int]:
    """Clients of all pods in turn; a status of 0 is an answer that did not come."""
    codes: list[int] = []
    end = time.monotonic() + seconds

    async def ask(number: int) -> None:
        async with httpx.AsyncClient(timeout=20) as client:
            while time.monotonic() < end:
                pod = number % len(world.pods)
                try:
                    codes.append(
                        (await client.post(world.url(pod, "shared"), content=b"{}")).status_code
                    )
                except httpx.HTTPError:
                    codes.append(0)

    await asyncio.gather(*(ask(number) for number in range(clients)))
    return codes


async def test_no_replica_gets_more_than_it_takes_whichever_pod_is_asked(world: World) -> None:
    await world.agreed(KEY)
    codes = await load(world, 1.5, clients=12)
    assert set(codes) == {200} and len(codes) > 30
    assert [item.most for item in world.replicas] == [1, 1, 1]  # they have no gates of their own


@pytest.mark.faults
async def test_a_pod_that_dies_takes_only_what_was_inside_it(world: World) -> None:
    await world.agreed(KEY)
    dead = next(
        pod for pod in world.pods if peers.owner(KEY, [p.name for p in world.pods]) == pod.name
    )
    asked = [number for number, pod in enumerate(world.pods) if pod is not dead]
    codes: list[int] = []
    done = asyncio.Event()

    async def ask(pod: int) -> None:
        async with httpx.AsyncClient(timeout=20) as client:
            while not done.is_set():
                try:
                    answer = await client.post(world.url(pod, "shared"), content=b"{}")
                    codes.append(answer.status_code)
                except httpx.HTTPError:
                    codes.append(0)  # the connection was closed, as HAProxy does on a later request

    tasks = [asyncio.create_task(ask(number)) for number in asked * 3]
    await eventually(lambda: len(codes) > 60, "answers")
    await dead.kill()
    at = len(codes)
    await eventually(lambda: len(codes) > at + 80, "answers without it")
    world.cluster.pods[dead.name] = replace(world.cluster.pods[dead.name], ready=False)
    world.pods.remove(dead)
    await world.agreed(KEY)
    done.set()
    await asyncio.gather(*tasks)
    lost = [code for code in codes if code != 200]
    assert len(lost) <= 6, lost  # each client had one under way


@pytest.mark.faults
async def test_a_pod_that_leaves_hands_all_on_and_loses_nothing(world: World) -> None:
    await world.agreed(KEY)
    owner = next(
        pod for pod in world.pods if peers.owner(KEY, [p.name for p in world.pods]) == pod.name
    )
    loading = asyncio.create_task(load(world, 2, clients=9))
    await asyncio.sleep(0.5)
    owner.peering.leaving = True
    world.cluster.pods[owner.name] = replace(world.cluster.pods[owner.name], leaving=True)
    backend = owner.loop.plane.backends[KEY]
    await eventually(lambda: backend in owner.handed, "it hands its versions on")
    assert set(await loading) == {200}


def refuses(pod: Pod) -> bool:
    with socket.socket() as other:
        return other.connect_ex((pod.host, pod.settings.port)) != 0


async def test_what_a_client_sends_while_a_pod_ends_is_answered(world: World) -> None:
    await world.agreed(KEY)
    ends = world.pods[0]
    reader, writer = await asyncio.open_connection(ends.host, ends.settings.port)
    while not (await ends.haproxy._doors())["scoring"]:
        await asyncio.sleep(0.02)
    ending = asyncio.create_task(asyncio.to_thread(ends.haproxy.stop, 5.0, linger=3.0))
    await eventually(lambda: refuses(ends), "nobody else comes in")
    head = "POST /api/v1/service/shared/score HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
    writer.write(head.encode() + b"{}")
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    assert await ending == "stopped"


async def test_the_leader_tells_of_all_pods_and_scales_alone(world: World) -> None:
    await world.agreed(KEY)
    await eventually(lambda: any(pod.peering.leading for pod in world.pods), "one leads")
    [leader] = [pod for pod in world.pods if pod.peering.leading]
    ring = leader.loop.ring
    await eventually(lambda: len(ring.page(0).samples) > 1, "sums")
    before = sum(item.arrivals for item in ring.page(0).samples)
    codes = await load(world, 1, clients=6)
    await eventually(
        lambda: sum(item.arrivals for item in ring.page(0).samples) - before == len(codes),
        "all requests are in the leader's samples",
        seconds=10,
    )
    assert all(not pod.loop.ring.page(0).samples for pod in world.pods if pod is not leader)


@pytest.mark.faults
async def test_another_pod_leads_when_the_leader_is_gone(world: World) -> None:
    await eventually(lambda: any(pod.peering.leading for pod in world.pods), "one leads")
    [leader] = [pod for pod in world.pods if pod.peering.leading]
    await leader.kill()
    world.pods.remove(leader)
    world.cluster.pods[leader.name] = replace(world.cluster.pods[leader.name], ready=False)
    await eventually(lambda: any(pod.peering.leading for pod in world.pods), "another leads", 15)


async def test_nobody_who_has_not_the_token_comes_in_at_the_inner_door(world: World) -> None:
    pod = world.pods[0]
    peer = pod.settings.peers
    assert peer is not None
    async with httpx.AsyncClient() as client:
        given = {"x-slipway-version": "shared/default", "x-slipway-peer": "guess"}
        inner = f"http://{peer.bind}:{peer.port}/score"
        assert (await client.post(inner, content=b"{}", headers=given)).status_code == 403
        admin = f"http://{pod.host}:{pod.peering._port}/peer"
        assert (await client.get(admin)).status_code == 403


async def test_a_replica_that_goes_leaves_all_pods(world: World) -> None:
    await world.agreed(KEY)
    world.driver.phase("r0", Phase.DRAINING)

    def gone() -> bool:
        return all(
            {item.replica: item.state.value for item in pod.loop.routes().routes}.get("r0") == "out"
            for pod in world.pods
        )

    await eventually(gone, "r0 is out everywhere")


async def test_a_requests_line_is_written_once_where_its_replica_is_known(world: World) -> None:
    key = Key("logged", "default")
    world.driver.put(
        service("logged", request_log=True), replica("r9", "logged", world.replicas[0].address)
    )
    await eventually(
        lambda: all(
            "logged" in (pod.loop.plane.maps.entries or {}).get("routes.map", {})
            for pod in world.pods
        ),
        "routed",
    )
    await asyncio.sleep(peers.SETTLED_SECONDS)
    await world.agreed(key)
    async with httpx.AsyncClient(timeout=20) as client:
        for pod in range(3):
            given = {"x-request-id": f"id-{pod}"}
            answer = await client.post(world.url(pod, "logged"), content=b"{}", headers=given)
            assert answer.status_code == 200
            assert answer.headers["x-request-id"] == f"id-{pod}"
            assert "replica;dur=" in answer.headers["server-timing"]

    def lines() -> list[tuple[str, str]]:
        return sorted(
            (line.request_id, line.replica)
            for pod in world.pods
            for line in pod.loop.requests.page(0).lines
        )

    await eventually(lambda: len(lines()) >= 3, "lines")
    assert lines() == [("id-0", "r9"), ("id-1", "r9"), ("id-2", "r9")]
