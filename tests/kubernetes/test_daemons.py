"""Daemons of a real cluster killed (-9) while requests come: its control plane's, and those of its nodes.

The cluster is these tests' own (`nodes`), of three nodes; its router is FastProd's, a pod on each. Nothing of
a portal runs but what a test itself holds.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.clusters.catalogue import ensure_skus
from deployments.clusters.models import Attachment, Detachment
from deployments.drivers import kubernetes_checks as checks
from deployments.drivers import kubernetes_router_checks
from deployments.drivers import kubernetes_routers as routers
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.errors import NotFound, SlipwayError, Unavailable
from deployments.images.models import Registry
from deployments.pod_logs import Collector, Kept
from deployments.types import CheckStatus, KubeSettings, Phase, Purpose, RouteState, Scaling
from tests.deployments.drivers.test_process import FolderBlobs
from tests.kubernetes import cluster, node_files
from tests.kubernetes.attached import attach, detach, everything, naming, row, run_here
from tests.kubernetes.attached import portal as door
from tests.kubernetes.images import REGISTRY
from tests.kubernetes.nodes import GRACE_SECONDS, Node, OwnCluster, own_cluster
from tests.kubernetes.routers import (
    BASE,
    SERVER,
    Answers,
    Router,
    counting,
    image,
    router,
    while_loaded,
)

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(400)]

NAME = "counted"
# says a number ten times a second
TALKS = """
import threading, time
def talk():
    number = 0
    while True:
        print(number, flush=True)
        number += 1
        time.sleep(0.1)
threading.Thread(target=talk, daemon=True).start()
"""


@pytest.fixture(scope="module")
def own() -> Iterator[OwnCluster]:
    cluster.spec()  # skips without one
    with own_cluster([node_files.pause(), image(), BASE, counting()]) as made:
        yield made


@pytest.fixture(scope="module")
def three(own: OwnCluster) -> Iterator[Router]:
    """Three router pods, and a service of four replicas that talk."""
    with router(own.kube, Purpose.FAST_PROD, 3, small=False) as made:
        # a machine that is short of time is no fault
        patience = {"max-request-wait-ms": "18000"}
        made.deploy(NAME, replicas=4, server=TALKS + SERVER, **patience)
        made.routed(NAME, 4)
        yield made


class Portal:
    """As much of one as follows a cluster: its driver, and the logs that it keeps."""

    def __init__(self, made: Router, folder: Path) -> None:
        self.driver = KubernetesDriver(made.kube, made.settings, cluster="test")
        self.kept = Kept(folder, "test")
        self._collector = Collector(folder, days=7)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._collector.run, args=(self._stop,)),
            threading.Thread(target=self._follow),
        ]
        for thread in self._threads:
            thread.start()

    def _follow(self) -> None:
        while not self._stop.wait(0.5):
            try:
                self._collector.see("test", self.driver, self.driver.observe())
            except Unavailable:
                continue

    def ready(self) -> set[str]:
        """Replicas as it sees them; none while it does not see the cluster."""
        try:
            services = self.driver.observe().services
        except Unavailable:
            return set()
        return {
            replica.id
            for service in services
            for replica in service.replicas
            if service.spec.name == NAME and replica.phase is Phase.READY
        }

    def said(self, replica: str) -> list[int]:
        page = self.kept.logs(replica, limit=10_000)
        return [int(line.text) for line in page.lines if line.text.isdecimal()]

    def whole(self, replicas: set[str]) -> None:
        """What they said is there without a gap, until after this moment."""
        before = {name: len(self.said(name)) for name in replicas}

        def more() -> bool:
            return all(len(self.said(name)) >= count + 20 for name, count in before.items())

        cluster.until(more, 60)
        for name in replicas:
            said = self.said(name)
            assert said == list(range(len(said))), name

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.driver.close()


@pytest.fixture
def portal(three: Router, tmp_path: Path) -> Iterator[Portal]:
    made = Portal(three, tmp_path)
    cluster.until(lambda: made.ready() == set(names_of(three.replicas(NAME))) != set())
    try:
        yield made
    finally:
        made.close()


async def test_a_killed_api_server_costs_no_request(
    own: OwnCluster, three: Router, portal: Portal
) -> None:
    stay: set[str] = set()

    def kill() -> None:
        own.apiserver.kill()
        time.sleep(12)
        own.apiserver.start()
        began = int(time.time()) + 1
        scale(three, 3)
        three.routed(NAME, 3)
        stay.update(names_of(three.replicas(NAME)))
        cluster.until(lambda: portal.ready() == stay, 60)
        cluster.until(lambda: arrivals(three, began) >= 200, 30)

    report("kube-apiserver killed, 12 s away", await while_loaded(three, NAME, kill))
    portal.whole(stay)
    scale(three, 4)
    three.routed(NAME, 4)


async def test_killed_kubelets_cost_no_request(
    own: OwnCluster, three: Router, portal: Portal
) -> None:
    def kill() -> None:
        # the Service needs a router pod that Kubernetes calls ready: of new kubelets none is, for a second
        for node in own.nodes[1:]:
            node.kubelet.kill()
        silent = {node.name for node in own.nodes[1:]}
        held = [pod for pod in three.replicas(NAME) if pod["spec"]["nodeName"] in silent]
        (victim, *_) = names_of(held)
        path = f"/api/v1/namespaces/{three.space}/pods/{victim}"
        three.kube.delete(path)
        time.sleep(4)
        assert three.kube.get(path)["metadata"]["deletionTimestamp"]
        for node in own.nodes[1:]:
            node.kubelet.start()
        cluster.until(lambda: gone(three, path), 120)
        three.routed(NAME, 4)

    report(
        "kubelets of two nodes killed, 4 s away; a replica deleted",
        await while_loaded(three, NAME, kill),
    )
    portal.whole(portal.ready())


async def test_without_controllers_and_scheduler_a_scale_waits(
    own: OwnCluster, three: Router
) -> None:
    def kill() -> None:
        own.controllers.kill()
        own.scheduler.kill()
        scale(three, 5)
        time.sleep(5)
        assert len(three.replicas(NAME)) == 4
        own.scheduler.start()
        own.controllers.start()
        three.routed(NAME, 5)

    report("controller-manager and scheduler killed", await while_loaded(three, NAME, kill))
    scale(three, 4)
    three.routed(NAME, 4)


async def test_a_service_scales_where_there_is_no_portal(three: Router, tmp_path: Path) -> None:
    few = Scaling(minimum=1, maximum=4)
    three.deploy_gated("alone", FolderBlobs(tmp_path), 1, few, cpu=0.4)  # FastProd's limit too
    three.routed("alone", 1, 120)

    def grown() -> None:
        # 40 requests of 20 ms a second keep one replica busy for more than 70 %
        cluster.until(lambda: len(three.replicas("alone")) >= 2, 150)

    try:
        report("no portal, scaled by load", await while_loaded(three, "alone", grown, 40))
    finally:
        driver = KubernetesDriver(three.kube, three.settings, cluster="test")
        driver.remove("alone")
        driver.close()


async def test_a_node_without_kubelet_and_runtime_costs_no_request(
    own: OwnCluster, three: Router
) -> None:
    node, replicas = own.nodes[-1], three.replicas(NAME)
    assert node.name in {pod["spec"]["nodeName"] for pod in replicas}

    def kill() -> None:
        node.kubelet.kill()
        node.containerd.kill()
        given_up(own, three, node)
        # its replicas answer, whatever Kubernetes believes
        standing = routers.routes(three.kube, three.space)
        assert standing is not None
        inside = {r.replica for r in standing.routes if r.state is RouteState.IN_ROTATION}
        assert set(names_of(replicas)) <= inside
        time.sleep(3)
        node.containerd.start()
        node.kubelet.start()
        cluster.until(lambda: len(own.ready()) == 3, 90)
        three.wait(3)
        three.routed(NAME, 4)

    report("kubelet and containerd of a node killed", await while_loaded(three, NAME, kill))


async def test_a_node_that_is_cut_off_costs_no_more_than_what_was_on_its_way(
    own: OwnCluster, three: Router
) -> None:
    node = own.nodes[-1]

    def cut() -> None:
        own.plane.run("ip", "link", "set", node.port, "down")
        time.sleep(8)
        own.plane.run("ip", "link", "set", node.port, "up")
        three.routed(NAME, 4)

    answers = await while_loaded(three, NAME, cut, rate=60)
    report("a node cut off for 8 s", answers, most=60)
    # the others go on without it within two seconds
    assert sum(took > 1 for took in answers.times) <= 120


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> None:
    ensure_skus()
    run_here(monkeypatch)
    Registry.objects.create(name="workspace", role="workspace", address=REGISTRY)


@pytest.fixture
def third(own: OwnCluster) -> Iterator[Callable[[bool], None]]:
    """Whether the third node takes new pods."""
    path = f"/api/v1/nodes/{own.nodes[-1].name}"

    def takes(free: bool) -> None:
        own.kube.patch(path, {"spec": {"unschedulable": not free}})

    yield takes
    takes(True)


def test_production_has_a_router_pod_on_each_of_three_nodes(
    own: OwnCluster, here: None, third: Callable[[bool], None]
) -> None:
    space = f"t-nodes-{time.monotonic_ns() % 10**8}"
    before = everything(own.kube)
    with door(own.kube) as address:
        given = {"purpose": "FastProd", "image": image(), "portal": address}
        third(False)
        tried = attach(own.spec(), space, **given)
        assert (tried.state, tried.field) == (Attachment.State.REFUSED, "purpose")
        assert (
            "At least 3 machine(s) are required for cluster with purpose 'FastProd'. "
            "Available machine(s) : 2" in tried.problem
        )
        third(True)
        tried = attach(own.spec(), space, **given)
        assert tried.state == Attachment.State.ATTACHED, (tried.problem, tried.checks)
        found = {item["name"]: item["evidence"] for item in tried.checks}
        assert "12 cores altogether" in found[checks.PURPOSE]
        pods = routers.pods(own.kube, space)
        nodes = {node.name for node in own.nodes}
        assert len(pods) == 3
        assert {pod["spec"]["nodeName"] for pod in pods} == nodes
        for node in nodes:
            assert node in found[checks.ROUTER_STARTS]

        # a node less: the third pod waits, and the check says what for
        third(False)
        [lost] = [pod for pod in pods if pod["spec"]["nodeName"] == own.nodes[-1].name]
        name = lost["metadata"]["name"]
        own.kube.delete(f"/api/v1/namespaces/{space}/pods/{name}")
        wanted = KubeSettings(space, Purpose.FAST_PROD, router_image=image())

        def said() -> str:
            looked = kubernetes_router_checks.run(
                own.kube, wanted, "real", say=lambda doing: None, seconds=1
            )
            starts = next(looked)
            return starts.evidence if starts.status is CheckStatus.FAIL else ""

        words = cluster.until(lambda: "no node is free" in said() and said(), 60)
        assert "2 of 3 pods are ready" in words
        assert "this purpose wants one for each" in words
        assert "1 node(s) were unschedulable" in words
    given_up = detach(row())
    assert given_up.state == Detachment.State.DETACHED, given_up.problem
    assert everything(own.kube) == before
    assert naming(own.kube, space) == []


def given_up(own: OwnCluster, made: Router, node: Node) -> None:
    """The cluster believes the node to be gone, and its router pod with it."""
    cluster.until(lambda: node.name not in own.ready(), GRACE_SECONDS + 30)
    cluster.until(
        lambda: (
            {pod["spec"]["nodeName"] for pod in made.pods()}
            == {other.name for other in own.nodes if other is not node}
        ),
        30,
    )


def report(what: str, answers: Answers, most: int = 0) -> None:
    asked, lost = sum(answers.codes.values()), sum(answers.bad.values())
    times = sorted(answers.times)
    longest = f"p50 {times[len(times) // 2]:.3f} s, longest {times[-1]:.2f} s"
    print(f"{what}: {asked} requests, {lost} lost {answers.bad}; {longest}")
    assert lost <= most, answers.bad


def scale(made: Router, replicas: int) -> None:
    """As kubectl does; again until the API server takes it."""
    path = f"/apis/apps/v1/namespaces/{made.space}/deployments/{NAME}/scale"

    def taken() -> bool:
        return answered(lambda: made.kube.patch(path, {"spec": {"replicas": replicas}})) is not None

    cluster.until(taken, 60)


def arrivals(made: Router, since: int) -> int:
    """Of the service, in the leader's figures, from that second on."""
    holder = answered(lambda: routers.leader(made.kube, made.space))
    page = answered(lambda: made.ask(holder, "/telemetry?after=0")) if holder else None
    if page is None:
        return 0
    fields = page["sample_fields"]
    rows = [dict(zip(fields, row, strict=True)) for row in page["samples"]]
    return sum(row["arrivals"] for row in rows if row["service"] == NAME and row["at"] >= since)


def answered(ask: Callable[[], Any]) -> Any:
    """None where nobody answers."""
    try:
        return ask()
    except SlipwayError:
        return None


def gone(made: Router, path: str) -> bool:
    try:
        made.kube.get(path)
    except NotFound:
        return True
    except Unavailable:
        return False
    return False


def names_of(pods: list[dict[str, Any]]) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods]
