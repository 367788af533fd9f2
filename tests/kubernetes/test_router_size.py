"""A router in a real cluster makes itself larger and smaller, and loses no request by it.

What it goes by is measured over minutes; here its thresholds are low, in its own pods, until a file says that
the calm has come.
"""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from deployments.clusters.models import Cluster, Family, Sku
from deployments.drivers import kube_file
from deployments.drivers import kubernetes_router as shapes
from deployments.drivers import kubernetes_routers as routers
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.errors import SlipwayError
from deployments.kube.api import Kube
from deployments.types import KubeSettings, Purpose, RouterSpec
from portal.management.commands import run_controller
from portal.models import User
from tests.kubernetes import cluster, reach
from tests.kubernetes.routers import Answers, Router, image, paced

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(420)]

# In the place of manage.py: whatever HAProxy does is slow and busy, until /tmp/calm is there.
_LOW = """
import pathlib, sys, threading, time
from router import selfscale
selfscale.UP_MS, selfscale.BUSY, selfscale.SETTLE_SECONDS = 0.0, 0.001, 15.0
def look():
    while not pathlib.Path("/tmp/calm").exists():
        time.sleep(0.2)
    selfscale.UP_MS, selfscale.CALM, selfscale.CALM_SECONDS = 1e9, 1e9, 5.0
threading.Thread(target=look, daemon=True).start()
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""
_BEGIN = (
    "import sys; from router import pod_init; "
    f"pod_init._COMMAND = ('-c', {_LOW!r}, *pod_init._COMMAND[1:]); "
    "raise SystemExit(pod_init.Init(sys.argv[1:]).main())"
)


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """Three pods of such a router, and a service that somebody made with kubectl."""
    whole = shapes._container

    def low(given: KubeSettings, name: str) -> dict[str, Any]:
        asked = {"requests": {"cpu": "10m", "memory": "64Mi"}}  # a test's cluster may be small
        return whole(given, name) | {"command": ["python", "-c", _BEGIN], "resources": asked}

    monkeypatch.setattr(shapes, "_container", low)
    kube = Kube(cluster.spec())
    with reach.api_server(kube) as passage, cluster.namespace(kube, "size") as space:
        given = KubeSettings(space, Purpose.DENSE_PROD, router_image=image())
        made = Router(kube, given, passage)
        routers.install_router(kube, given, "sized")
        try:
            made.wait(3)
            made.deploy("counted", replicas=2)
            made.routed("counted", 2)
            yield made
        finally:
            routers.remove_router(kube, given)
    kube.close()


@pytest.fixture
def row(dense: Router, db: None) -> Iterator[Cluster]:
    sku = Sku.objects.create(name="any machine", family=Family.CPU)
    made = Cluster.objects.create(name="sized", kind=Cluster.Kind.KUBERNETES, sku=sku)
    file = kube_file.KubeFile(dense.kube.spec, dense.settings)
    kube_file.write(settings.HOME.cluster("sized"), file)
    yield made
    kube_file.forget(settings.HOME.cluster("sized"))


def told(made: Router) -> list[str]:
    """The codes of the leader's decisions."""
    holder = routers.leader(made.kube, made.space)
    try:
        return [item["code"] for item in made.ask(holder, "/size?after=0")["decisions"]]
    except SlipwayError:
        return []  # it is about to lead, or to go


def wanted(made: Router) -> int:
    path = f"/apis/apps/v1/namespaces/{made.space}/deployments/{shapes.NAME}"
    return int(made.kube.get(path)["spec"]["replicas"])


def calm_comes(made: Router) -> None:
    for pod in made.pods():
        # one that just went needs no telling
        subprocess.run(
            ["kubectl", "exec", "-n", made.space, pod["metadata"]["name"], "--", "touch", "/tmp/calm"],
            check=False, capture_output=True, timeout=60,
        )  # fmt: skip


def under_load(made: Router, act: Callable[[], None]) -> Answers:
    async def run() -> Answers:
        answers, done = Answers(), asyncio.Event()
        load = asyncio.create_task(paced(made.address(), "counted", answers, done, 60))
        try:
            await asyncio.to_thread(act)
        finally:
            done.set()
            await load
        return answers

    return asyncio.run(run())


@pytest.mark.django_db(transaction=True)
def test_pods_come_and_go_with_the_load_and_no_request_is_lost(
    dense: Router, row: Cluster, administrator: User
) -> None:
    driver = KubernetesDriver(dense.kube, dense.settings, cluster="sized")

    def act() -> None:
        # a dev-test router says that it would, and stays as it is
        driver.apply_router(RouterSpec(1, purpose=Purpose.DEV_TEST, cores=1))
        cluster.until(lambda: "dev_test" in told(dense), 90)
        assert wanted(dense) == 3
        driver.apply_router(RouterSpec(2, purpose=Purpose.DENSE_PROD, cores=1))
        cluster.until(lambda: wanted(dense) > 3, 120)
        # the page has it, with why
        away: set[str] = set()
        page = Client()
        page.force_login(administrator)
        address = reverse("cluster-router-decisions", args=["sized"])

        def shown() -> bool:
            run_controller._collect_of(row, away)
            return "so 4 pods" in page.get(address).content.decode()

        cluster.until(shown, 60)
        cluster.until(lambda: len(dense.pods()) == wanted(dense), 120)
        calm_comes(dense)
        # whoever came meanwhile, or leads now, is told too
        until = time.monotonic() + 180
        while not (wanted(dense) == 3 and len(dense.pods()) == 3):
            assert time.monotonic() < until, told(dense)
            time.sleep(2)
            calm_comes(dense)

    answers = under_load(dense, act)
    driver.close()
    assert answers.codes[200] > 500
    assert answers.bad == {}
