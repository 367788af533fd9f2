"""What the portal learns and asks of a real cluster by itself: where its router is reached, the way of the
Test page where that cannot be reached, and what a replica said before it was last started again."""

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings

from deployments.clusters.catalogue import THIS_MACHINE, ensure_skus
from deployments.clusters.drivers import driver_for, forget
from deployments.clusters.models import Cluster, Sku
from deployments.clusters.router_addresses import learn
from deployments.codec import to_json
from deployments.drivers import kube_file, kubernetes_routers
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_router as shapes
from deployments.kube.api import Kube
from deployments.services.models import Service
from deployments.types import Purpose
from portal import previous_runs, try_ways
from portal.log_sources import read_page
from portal.scoring import Attempt
from tests.kubernetes import cluster, routers
from tests.kubernetes.routers import Router

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(300),
    pytest.mark.django_db(transaction=True),
]

KEY = "a-key-of-the-test-0123456789"
BALANCER = "203.0.113.7"  # of documentation; the node's kube-proxy takes what goes there
NOWHERE = "http://127.0.0.1:1"
CRASHING = "import sys; print('the table is empty', flush=True); sys.exit(3)"


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    kube = Kube(cluster.spec())
    with routers.router(kube, Purpose.DEV_TEST, 1) as made:
        made.kube.create(
            f"/api/v1/namespaces/{made.space}/secrets",
            {
                "metadata": {"name": "web-keys", "labels": {names.PART: "keys"}},
                "data": {"one": base64.b64encode(KEY.encode()).decode()},
            },
        )
        made.deploy("web", replicas=1, keys="web-keys")
        made.deploy("empty", replicas=1, server=CRASHING)
        yield made
    kube.close()


@pytest.fixture
def east(router: Router) -> Iterator[Cluster]:
    """The portal's row of it, and the file of its driver."""
    ensure_skus()
    made = Cluster.objects.create(
        name="east",
        kind="kubernetes",
        sku=Sku.objects.get(name=THIS_MACHINE),
        kube_namespace=router.space,
    )
    folder = settings.HOME.cluster("east")
    kube_file.write(folder, kube_file.KubeFile(cluster.spec(), router.settings))
    yield made
    forget("east")
    kube_file.forget(folder)


def _reached_by(kind: str, router: Router, east: Cluster) -> None:
    wanted = replace(router.settings, service_type=kind)
    for place in kubernetes_routers.wanted(router.kube, wanted, "test"):
        if place.body["kind"] == "Service":
            router.kube.apply(place.path, place.body)
    east.kube_service_type = kind
    east.save()


def _post(url: str, key: str) -> Any:
    asked = urllib.request.Request(
        url, data=b"{}", headers={"Authorization": f"Bearer {key}", "Content-Type": "a/b"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.loads(answer.read())


def test_a_port_of_the_nodes_is_learnt_and_leads_to_the_service(
    router: Router, east: Cluster
) -> None:
    _reached_by("NodePort", router, east)
    assert learn(east, router.kube).startswith("http://")
    service = Service.objects.create(name="web", cluster=Cluster.objects.get())
    router.routed("web", 1)
    # the node opens a port a moment after the API server knows of it
    answer = cluster.until(lambda: _posted(service.scoring_uri), 60)
    assert answer["pod"].startswith("web-")


def _posted(url: str) -> Any:
    """None while nobody listens there."""
    try:
        return _post(url, KEY)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError:
        return None


def test_a_load_balancer_is_waited_for_and_an_address_that_leads_nowhere_is_tried_otherwise(
    router: Router, east: Cluster
) -> None:
    _reached_by("LoadBalancer", router, east)
    assert learn(east, router.kube) == ""
    assert east.address_pending.startswith("pending")
    router.routed("web", 1)
    service = Service.objects.create(name="web", cluster=east)
    assert _try(service, KEY).status == 200  # without any address

    path = f"/api/v1/namespaces/{router.space}/services/{shapes.NAME}/status"
    router.kube.patch(path, {"status": {"loadBalancer": {"ingress": [{"ip": BALANCER}]}}})
    assert learn(east, router.kube) == f"http://{BALANCER}"
    service = Service.objects.select_related("cluster").get()
    assert service.scoring_uri == f"http://{BALANCER}/api/v1/service/web/score"
    service.cluster.router_url = NOWHERE  # by hand, and wrong
    answer = _try(service, KEY)
    assert (answer.status, answer.is_json) == (200, True)
    assert "web-" in answer.body and answer.request_id and answer.service is not None
    assert "API server’s proxy to the router’s pod slipway-router" in answer.way
    refused = _try(service, "another-key")
    assert refused.status == 401 and "Unauthorized" in refused.body
    missing = _try(service, KEY, version="green")
    assert missing.status == 404


def _try(service: Service, key: str, version: str = "") -> Attempt:
    asked = {
        "body": b"{}", "size": 2, "content_type": "application/json", "key": key, "version": version,
        "deadline": 20.0, "door": None,
    }  # fmt: skip
    return asyncio.run(try_ways.send(service, asked))


def test_what_a_pod_said_before_it_was_started_again_is_offered_and_read(
    router: Router, east: Cluster
) -> None:
    service = Service.objects.create(name="empty", cluster=east)
    driver = driver_for(east)

    def started_again() -> list[Any]:
        observed = [item for item in driver.observe().services if item.spec.name == "empty"]
        return [one for item in observed for one in item.replicas if one.last_exit is not None]

    (replica,) = cluster.until(started_again, 90)
    service.replicas = to_json([replica])
    service.save()
    (offered,) = previous_runs.offered(service)
    assert (offered.replica, offered.words) == (replica.id, "exit code 3")
    cluster.until(lambda: _said(replica.id) == ["the table is empty"], 60)


def _said(replica: str) -> list[str]:
    page = read_page(f"previous:empty:{replica}")
    assert page.ended
    return [line.text for line in page.lines]
