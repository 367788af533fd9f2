"""The router in a real cluster: scoring, and what is lost when its pods and its replicas come and go."""

import asyncio
import functools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from deployments.clusters.models import Cluster, Family, Sku
from deployments.drivers import kube_file
from deployments.drivers import kubernetes_router as shapes
from deployments.drivers import kubernetes_routers as routers
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.errors import SlipwayError
from deployments.kube.api import Kube
from deployments.types import CustomLines, Purpose, RouterSpec
from portal import router_view
from portal.management.commands import run_controller
from portal.router_doors import doors
from router import admin_client
from router.peers import SETTLED_SECONDS
from router.telemetry.models import RequestPlace, Second
from router.telemetry.router_rows import RouterSecond
from tests.deployments.drivers.test_process import FolderBlobs
from tests.kubernetes import cluster
from tests.kubernetes.routers import Client, Router, router, while_loaded

pytestmark = pytest.mark.kubernetes


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    made = Kube(cluster.spec())
    yield made
    made.close()


@pytest.fixture(scope="module")
def three(kube: Kube) -> Iterator[Router]:
    """Three router pods and a service of four replicas that somebody made with kubectl."""
    with router(kube, Purpose.DENSE_PROD, 3) as made:
        made.deploy("counted", replicas=4)
        made.routed("counted", 4)
        yield made


async def test_a_request_comes_through_whichever_pod_has_it(three: Router) -> None:
    for pod in three.pods():
        client = Client(
            (pod["status"]["podIP"], shapes.SCORE_PORT), "/api/v1/service/counted/score"
        )
        assert await client.post() == 200
        client.close()


async def test_no_replica_has_more_inside_than_it_takes(three: Router) -> None:
    three.deploy("steady", replicas=4)  # these have no gates: what is inside them the router sent
    three.routed("steady", 4)
    await asyncio.sleep(SETTLED_SECONDS + 1)
    # all four are busy most of the time: 130 of 200 a second
    answers = await while_loaded(three, "steady", lambda: time.sleep(8), rate=130)
    assert answers.bad == {}
    assert three.most("steady") == [1, 1, 1, 1]
    three.undeploy("steady")


async def test_requests_are_in_the_leaders_figures(three: Router) -> None:
    holder = cluster.until(lambda: routers.leader(three.kube, three.space))
    page = three.ask(holder, "/telemetry?after=0")
    fields = page["sample_fields"]
    name, arrivals = fields.index("service"), fields.index("arrivals")
    before = sum(row[arrivals] for row in page["samples"] if row[name] == "counted")
    answers = await while_loaded(three, "counted", lambda: None)

    def told() -> bool:
        rows = three.ask(holder, f"/telemetry?after=0&epoch={page['epoch']}")["samples"]
        seen = sum(row[arrivals] for row in rows if row[name] == "counted") - before
        # a second that one of the pods could not measure is nobody's
        return 0.5 * answers.codes[200] <= seen <= answers.codes[200]

    cluster.until(told, 20)


async def test_a_router_pod_that_is_deleted_takes_no_request_along(three: Router) -> None:
    [first, *_] = [pod["metadata"]["name"] for pod in three.pods()]

    def delete() -> None:
        three.kube.delete(f"/api/v1/namespaces/{three.space}/pods/{first}")
        cluster.until(lambda: gone(three, first), 90)

    answers = await while_loaded(three, "counted", delete)
    three.wait(3)
    assert answers.bad == {}


async def test_a_leader_whose_processes_are_killed_takes_along_only_what_was_inside(
    three: Router,
) -> None:
    holder = cluster.until(lambda: routers.leader(three.kube, three.space))

    def epoch() -> str | None:
        try:
            return three.ask(holder, "/telemetry?after=0")["epoch"]
        except SlipwayError:
            return None  # it is not back yet

    before = cluster.until(epoch)

    def kill() -> None:
        kill_in(three, holder)
        # a pod may be back before anybody asked whether it is ready
        cluster.until(lambda: epoch() not in (None, before), 60)
        three.wait(3)

    answers = await while_loaded(three, "counted", kill)
    lost = sum(answers.bad.values())
    # 100 a second: what was inside it, and what was sent to it until its Service knew
    assert lost <= 150, answers.bad
    print(f"lost {lost} of {sum(answers.codes.values())}: {answers.bad}")


async def test_the_router_is_updated_without_a_request_lost(three: Router) -> None:
    folder = f"/apis/apps/v1/namespaces/{three.space}/deployments/{shapes.NAME}"

    def update() -> None:
        before = set(names_of(routers.pods(three.kube, three.space)))
        note = {"metadata": {"annotations": {"slipway.dev/again": "1"}}}
        three.kube.patch(folder, {"spec": {"template": note}})
        cluster.until(lambda: len(set(names_of(three.pods())) - before) == 3, 180)
        cluster.until(lambda: gone(three, *before), 90)

    answers = await while_loaded(three, "counted", update)
    assert answers.bad == {}


async def test_replicas_that_come_and_go_lose_nothing(three: Router) -> None:
    folder = f"/apis/apps/v1/namespaces/{three.space}/deployments/counted"

    def change() -> None:
        for count in (2, 4):
            three.kube.patch(f"{folder}/scale", {"spec": {"replicas": count}})
            three.routed("counted", count)
        before = set(names_of(three.replicas("counted")))
        note = {"metadata": {"annotations": {"slipway.dev/again": "1"}}}
        three.kube.patch(folder, {"spec": {"template": note}})
        cluster.until(lambda: len(set(names_of(three.replicas("counted"))) - before) == 4, 120)
        three.routed("counted", 4)

    answers = await while_loaded(three, "counted", change, rate=60)
    assert answers.bad == {}


async def test_the_leader_scales_what_somebody_made_with_kubectl(three: Router) -> None:
    three.deploy("scaled", replicas=1, autoscale="1-4")
    three.routed("scaled", 1)

    def grown() -> None:
        cluster.until(lambda: len(three.replicas("scaled")) >= 3, 60)

    # 100 requests of 20 ms a second keep two replicas busy: three at 70 %
    answers = await while_loaded(three, "scaled", grown)
    assert answers.bad == {}
    three.undeploy("scaled")


async def test_a_loop_that_dies_takes_nothing_along(three: Router) -> None:
    pods = names_of(three.pods())

    def kill() -> None:
        for pod in pods:
            kill_in(three, pod, "run_router")
        time.sleep(5)

    answers = await while_loaded(three, "counted", kill, after=5)
    assert answers.bad == {}
    assert set(names_of(three.pods())) == set(pods)
    three.routed("counted", 4)


@pytest.mark.timeout(300)
async def test_requests_go_on_while_the_api_server_is_away(three: Router) -> None:
    passage = three.passage
    if passage is None:
        pytest.skip("this cluster's API server is not this test's to take away")

    def away() -> None:
        with passage.away():
            time.sleep(40)  # watches are believed for 30 s

    answers = await while_loaded(three, "counted", away)
    assert answers.bad == {}
    cluster.until(lambda: routers.leader(three.kube, three.space), 20)
    three.routed("counted", 4)


@pytest.mark.timeout(300)
async def test_gates_hold_the_limit_while_versions_change_hands(
    three: Router, tmp_path: Path
) -> None:
    three.deploy_gated("gated", FolderBlobs(tmp_path), replicas=4)
    three.routed("gated", 4, 120)
    before = three.tries()

    def steady() -> None:
        time.sleep(8)

    answers = await while_loaded(three, "gated", steady)
    calm = three.tries()
    asked, again = calm[0] - before[0], calm[1] - before[1]
    print(f"calm: {again} of {asked} requests were tried again; {three.most('gated')}")
    assert answers.bad == {}
    assert again <= 0.01 * asked

    def change_hands() -> None:
        for name in names_of(three.pods()):
            three.kube.delete(f"/api/v1/namespaces/{three.space}/pods/{name}")
            cluster.until(functools.partial(gone, three, name), 90)
            three.wait(3)

    answers = await while_loaded(three, "gated", change_hands)
    asked, again = three.tries()
    print(f"moved: {again} of {asked} requests were tried again; {three.most('gated')}")
    assert answers.bad == {}
    assert three.most("gated") == [1, 1, 1, 1]


def gone(made: Router, *names: str) -> bool:
    """No process of these pods is left."""
    pods = routers.pods(made.kube, made.space)
    return all(cluster.has_ended(pod) for pod in pods if pod["metadata"]["name"] in names)


async def test_settings_reach_every_pod_within_two_seconds(three: Router) -> None:
    driver = KubernetesDriver(three.kube, three.settings)
    spec = RouterSpec(generation=7, purpose=Purpose.DENSE_PROD, revoked_tokens=("one",))
    driver.apply_router(spec)

    def followed() -> bool:
        told = [three.ask(pod, "/setup") for pod in names_of(three.pods())]
        return bool(told) and all(status["generation"] == 7 for status in told)

    cluster.until(followed, 2)
    driver.close()


def names_of(pods: list[dict[str, Any]]) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods]


def kill_in(made: Router, pod: str, only: str = "") -> None:
    """kill -9 of all but the pod's process 1, which nobody inside can kill; or of those with this word."""
    code = (
        "import os, pathlib\n"
        "for item in pathlib.Path('/proc').iterdir():\n"
        "    if item.name.isdecimal() and int(item.name) not in (1, os.getpid()):\n"
        "        words = (item / 'cmdline').read_bytes()\n"
        f"        if {only.encode()!r} in words: os.kill(int(item.name), 9)\n"
    )
    subprocess.run(
        ["kubectl", "exec", "-n", made.space, pod, "--", "python", "-c", code],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip


@pytest.mark.django_db
def test_the_portal_reads_it_all_through_the_api_server(three: Router) -> None:
    sku = Sku.objects.create(name="any machine", family=Family.CPU)
    row = Cluster.objects.create(name="far", kind=Cluster.Kind.KUBERNETES, sku=sku)
    file = kube_file.KubeFile(three.kube.spec, three.settings)
    kube_file.write(settings.HOME.cluster("far"), file)
    away: set[str] = set()

    def taken() -> bool:
        asyncio.run(score(three, 20))
        row.refresh_from_db()
        run_controller._collect_of(row, away)
        told = Second.objects.filter(series__service="counted", series__cluster="far")
        return sum(item.arrivals for item in told) >= 20 and RouterSecond.objects.exists()

    try:
        cluster.until(taken, 30)
        assert not away
        assert (
            RequestPlace.objects.filter(cluster="far").count() >= 3
        )  # or of a pod that was before
        assert router_view.setup_view(row).state in ("applied", "applying")
        assert (
            admin_client.check(doors(row).leader, CustomLines(defaults=("no such word",)))[0]
            is False
        )
    finally:
        kube_file.forget(settings.HOME.cluster("far"))


async def score(made: Router, count: int) -> None:
    client = Client(made.address(), "/api/v1/service/counted/score")
    for _ in range(count):
        assert await client.post() == 200
    client.close()
