"""What somebody deletes or changes of a router in a real cluster comes back, and requests with it."""

import asyncio
from collections.abc import Iterator

import pytest
from django.conf import settings

from deployments.audit.models import AuditEntry
from deployments.clusters.catalogue import THIS_MACHINE, ensure_skus
from deployments.clusters.drivers import forget
from deployments.clusters.models import Cluster, Sku
from deployments.clusters.router_keeping import CHECK, RouterKeeper
from deployments.clusters.router_settings import apply_router_on_commit
from deployments.drivers import kube_file
from deployments.drivers import kubernetes_belongings as ours
from deployments.drivers import kubernetes_router as shapes
from deployments.drivers import kubernetes_routers as routers
from deployments.errors import NotFound
from deployments.kube.api import Kube
from deployments.types import KubeSettings, Purpose
from tests.kubernetes import cluster, reach
from tests.kubernetes.routers import Client, Router, image

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(300),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def kept() -> Iterator[tuple[Router, Cluster]]:
    """An attached cluster with its router, and a service that somebody made with kubectl."""
    kube = Kube(cluster.spec())
    with reach.api_server(kube) as passage, cluster.namespace(kube, "keep") as space:
        given = KubeSettings(space, Purpose.DEV_TEST, router_image=image())
        ours.take(kube, space, ours.Mark("it", "kept", "a portal", "a test", "now"))
        routers.install_router(kube, given, "kept")
        ensure_skus()
        row = Cluster.objects.create(
            name="kept",
            kind="kubernetes",
            sku=Sku.objects.get(name=THIS_MACHINE),
            kube_namespace=space,
            kube_mark="it",
        )
        kube_file.write(settings.HOME.cluster("kept"), kube_file.KubeFile(cluster.spec(), given))
        apply_router_on_commit(row.pk)
        made = Router(kube, given, passage)
        made.wait(1)
        made.deploy("counted", replicas=1)
        made.routed("counted", 1)
        yield made, row
        forget("kept")
        kube_file.forget(settings.HOME.cluster("kept"))
        routers.remove_router(kube, given)
    kube.close()


def score(made: Router) -> int | str:
    """One request by its Service, wherever that is now."""

    async def ask() -> int | str:
        client = Client(made.address(), "/api/v1/service/counted/score")
        try:
            return await client.post()
        finally:
            client.close()

    try:
        return asyncio.run(ask())
    except NotFound:
        return "no Service"


def test_what_is_deleted_or_changed_comes_back_with_the_requests(
    kept: tuple[Router, Cluster],
) -> None:
    made, row = kept
    ticks = iter(range(0, 10**6, 30))  # no wait for its turn
    keeper = RouterKeeper(clock=lambda: float(next(ticks)))
    space = f"namespaces/{made.space}"
    deployment = f"/apis/apps/v1/{space}/deployments/{shapes.NAME}"
    service = f"/api/v1/{space}/services/{shapes.NAME}"
    role = f"/apis/rbac.authorization.k8s.io/v1/{space}/roles/{shapes.NAME}"
    assert score(made) == 200
    for _ in range(3):
        keeper.round()
    row.refresh_from_db()
    assert row.checks == [], "a router that nobody touched is as it was made"

    made.kube.delete(deployment)
    made.kube.delete(service)
    made.kube.patch(role, {"rules": []})

    def back() -> bool:
        keeper.round()
        return score(made) == 200

    cluster.until(back, 120)
    assert made.kube.get(role)["rules"] == shapes.role()
    row.refresh_from_db()
    (said,) = row.checks
    assert said["name"] == CHECK
    assert said["status"] == "pass"
    entries = AuditEntry.objects.filter(action="cluster.router.mended", object_name="kept")
    told = " ".join(str(entry.before) for entry in entries)
    assert "Deployment slipway-router is gone" in told
    assert "Service slipway-router is gone" in told
    assert "Role slipway-router is changed" in told

    # the count of its pods is its own
    made.kube.patch(f"{deployment}/scale", {"spec": {"replicas": 2}})
    before = entries.count()
    for _ in range(3):
        keeper.round()
    assert made.kube.get(deployment)["spec"]["replicas"] == 2
    assert entries.count() == before
