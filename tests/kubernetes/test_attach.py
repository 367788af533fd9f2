"""Attaching a real cluster: what its checks find, what is refused, and that nothing is left behind."""

import base64
import subprocess
import time
from collections.abc import Iterator

import pytest

from deployments.clusters import attaching, rechecks
from deployments.clusters.catalogue import ensure_skus
from deployments.clusters.models import Attachment, Cluster, Detachment, Sku
from deployments.drivers import kubernetes_checks as checks
from deployments.drivers import kubernetes_names as names
from deployments.errors import NotFound
from deployments.images.models import Registry
from deployments.kube.api import Kube
from deployments.types import KubeSpec
from tests.kubernetes import cluster, reach, routers
from tests.kubernetes.attached import (
    attach,
    detach,
    everything,
    naming,
    node_address,
    of_namespace,
    portal,
    row,
    run_here,
)
from tests.kubernetes.images import REGISTRY

pytestmark = [pytest.mark.kubernetes, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    made = Kube(cluster.spec())
    with reach.api_server(made):
        yield made
    made.close()


@pytest.fixture(scope="module")
def image() -> str:
    return routers.image()


@pytest.fixture
def door(kube: Kube) -> Iterator[str]:
    with portal(kube) as address:
        yield address


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.spec()  # skips without one
    ensure_skus()
    run_here(monkeypatch)
    Registry.objects.create(name="workspace", role="workspace", address=REGISTRY)


@pytest.fixture
def space(kube: Kube) -> Iterator[str]:
    """A name that nothing has yet; whatever is left of it goes."""
    name = f"t-k2-{time.monotonic_ns() % 10**8}"
    yield name
    kube.delete(f"/api/v1/namespaces/{name}")
    _forget(kube, f"slipway-router-{name}")


def found(attachment: Attachment) -> dict[str, tuple[str, str]]:
    return {item["name"]: (item["status"], item["evidence"]) for item in attachment.checks}


def test_a_cluster_is_attached_looked_at_again_and_given_up_without_a_trace(
    kube: Kube, image: str, door: str, space: str
) -> None:
    before = everything(kube)
    tried = attach(cluster.spec(), space, image=image, portal=door)
    seen = found(tried)
    assert tried.state == Attachment.State.ATTACHED, (tried.problem, seen)
    assert [name for name, (status, _) in seen.items() if status != "pass"] == []
    assert list(seen) == [name.format(address=REGISTRY) for name in checks.NAMES], (
        "the order in which things are needed"
    )
    stands = row()
    assert stands.capacity["nodes"][0]["cpu_total"] > 0
    assert stands.kube_network["services"]
    assert stands.kube_network["pods"]

    # a second portal, which has no row of it, is refused: by whom and since when
    server = stands.kube_server
    Cluster.objects.update(kube_server="https://elsewhere.invalid")
    again = attach(cluster.spec(), space, name="second", image=image, portal=door)
    assert again.state == Attachment.State.REFUSED
    assert again.field == "kube_namespace"
    assert f"as {stands.name} of the portal" in again.problem
    assert "since 20" in again.problem
    assert not Cluster.objects.filter(name="second").exists()
    Cluster.objects.update(kube_server=server)

    assert rechecks.look_again(stands)
    stands.refresh_from_db()
    assert stands.checking_at is None
    assert {item["status"] for item in stands.checks} == {"pass"}

    listed = attaching.belongings(stands)
    assert {item.kind for item in listed} >= {
        "Deployment", "Service", "ServiceAccount", "Secret", "Role", "RoleBinding", "ConfigMap", "Lease",
        "NetworkPolicy", "ClusterRole", "ClusterRoleBinding", "Namespace", "DaemonSet",
    }  # fmt: skip
    given_up = detach(stands)
    assert given_up.state == Detachment.State.DETACHED, given_up.problem
    assert {step["state"] for step in given_up.steps} == {"removed"}
    assert [(step["kind"], step["name"]) for step in given_up.steps] == [
        (item.kind, item.name) for item in listed
    ]
    assert not Cluster.objects.exists()
    with pytest.raises(NotFound):
        kube.get(f"/api/v1/namespaces/{space}")
    assert everything(kube) == before
    assert naming(kube, space) == []


def test_a_namespace_of_somebody_keeps_all_that_is_theirs(
    kube: Kube, image: str, door: str
) -> None:
    with cluster.namespace(kube, "k2") as theirs:
        kube.create(f"/api/v1/namespaces/{theirs}/configmaps", {"metadata": {"name": "somebodys"}})
        cluster.until(lambda: "Secret" in " ".join(of_namespace(kube, theirs)) or True)
        time.sleep(1.0)  # its own account's secret comes a moment later
        before = of_namespace(kube, theirs)
        tried = attach(cluster.spec(), theirs, image=image, portal=door)
        assert tried.state == Attachment.State.ATTACHED, tried.problem
        assert len(of_namespace(kube, theirs)) > len(before)
        detach(row())
        assert of_namespace(kube, theirs) == before


def test_a_check_that_fails_inside_leaves_nothing(kube: Kube, image: str, space: str) -> None:
    before = everything(kube)
    nobody = f"http://{node_address(kube)}:1"
    tried = attach(cluster.spec(), space, image=image, portal=nobody)
    assert tried.state == Attachment.State.REFUSED
    assert tried.field == "kube_blob_url"
    status, evidence = found(tried)[checks.STORE]
    assert status == "fail"
    assert "from a pod on" in evidence
    assert not Cluster.objects.exists()
    with pytest.raises(NotFound):
        kube.get(f"/api/v1/namespaces/{space}")
    assert everything(kube) == before
    assert naming(kube, space) == []


def test_a_registry_that_nodes_do_not_reach_is_found_from_a_node(
    kube: Kube, image: str, door: str, space: str
) -> None:
    Registry.objects.create(name="far", role="global", address="registry.invalid")
    tried = attach(cluster.spec(), space, image=image, portal=door)
    name = checks.REGISTRY.format(address="registry.invalid")
    status, evidence = found(tried)[name]
    assert (tried.state, status) == (Attachment.State.REFUSED, "fail")
    assert "registry.invalid" in evidence
    assert found(tried)[checks.REGISTRY.format(address=REGISTRY)][0] == "pass"


def test_production_is_refused_with_azures_words_before_anything_is_made(
    kube: Kube, image: str, door: str, space: str
) -> None:
    nodes = len(kube.items("/api/v1/nodes").items)
    if nodes >= 3:
        pytest.skip("this cluster is large enough for production")
    tried = attach(cluster.spec(), space, purpose="FastProd", image=image, portal=door)
    assert (tried.state, tried.field) == (Attachment.State.REFUSED, "purpose")
    assert (
        "At least 3 machine(s) are required for cluster with purpose 'FastProd'. "
        f"Available machine(s) : {nodes}" in tried.problem
    )
    assert checks.STORE not in found(tried)
    with pytest.raises(NotFound):
        kube.get(f"/api/v1/namespaces/{space}")


def test_an_account_that_may_too_little_is_told_what_it_misses(kube: Kube, door: str) -> None:
    with cluster.namespace(kube, "k2") as theirs:
        # the Role to copy, without its right to make Secrets
        given = checks.role_yaml(theirs, theirs).replace(
            '  resources: ["secrets"]\n  verbs: [get, list, watch, create, patch, delete]',
            '  resources: ["secrets"]\n  verbs: [get, list, watch]',
        )
        spec = _account(kube, theirs, given)
        try:
            tried = attach(spec, theirs, image=f"{REGISTRY}/router:1", portal=door)
            assert (tried.state, tried.field) == (Attachment.State.REFUSED, "kubeconfig")
            status, evidence = found(tried)[checks.ALLOWED]
            assert status == "fail"
            assert f"in the namespace {theirs}: create, patch, delete secrets" in evidence
        finally:
            _forget(kube, theirs)


def test_the_role_to_copy_is_enough(kube: Kube, image: str, door: str) -> None:
    with cluster.namespace(kube, "k2") as theirs:
        spec = _account(kube, theirs, checks.role_yaml(theirs, theirs))
        try:
            tried = attach(spec, theirs, image=image, portal=door)
            assert tried.state == Attachment.State.ATTACHED, (tried.problem, found(tried))
            detach(row())
            left = kube.items(f"/api/v1/namespaces/{theirs}/configmaps").items
            assert names.MARKER_NAME not in {item["metadata"]["name"] for item in left}
        finally:
            _forget(kube, theirs)


def test_a_size_with_gpus_needs_a_node_that_offers_them(
    kube: Kube, image: str, door: str, space: str
) -> None:
    Sku.objects.create(
        name="gpu here", family="GPU", accelerators=2, resource_name="slipway.test/k2-gpu"
    )
    tried = attach(cluster.spec(), space, sku="gpu here", image=image, portal=door)
    assert (tried.state, tried.field) == (Attachment.State.REFUSED, "sku")
    assert "No node offers slipway.test/k2-gpu" in tried.problem
    (node, *_) = kube.items("/api/v1/nodes").items
    path = f"/api/v1/nodes/{node['metadata']['name']}/status"
    key = "/status/capacity/slipway.test~1k2-gpu"
    kube.patch(path, [{"op": "add", "path": key, "value": "2"}], "json")
    try:
        cluster.until(
            lambda: (
                "slipway.test/k2-gpu"
                in kube.get(path.removesuffix("/status"))["status"]["allocatable"]
            )
        )
        tried = attach(cluster.spec(), space, sku="gpu here", image=image, portal=door)
        assert tried.state == Attachment.State.ATTACHED, tried.problem
        assert "2 × slipway.test/k2-gpu" in found(tried)[checks.DEVICES][1]
        stands = row()
        assert max(item["gpu_total"] for item in stands.capacity["nodes"]) == 2
        detach(stands)
    finally:
        for kind in ("capacity", "allocatable"):
            one = f"/status/{kind}/slipway.test~1k2-gpu"
            kube.patch(path, [{"op": "remove", "path": one}], "json")


def _account(kube: Kube, namespace: str, role: str) -> KubeSpec:
    """A service account with these rights, as its kubeconfig would have it."""
    kube.create(
        f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": namespace}}
    )
    subprocess.run(
        ["kubectl", "apply", "-f", "-"],
        input=role.encode(),
        check=True,
        capture_output=True,
        timeout=60,
    )
    secret = {
        "metadata": {
            "name": "token",
            "annotations": {"kubernetes.io/service-account.name": namespace},
        },
        "type": "kubernetes.io/service-account-token",
    }
    kube.create(f"/api/v1/namespaces/{namespace}/secrets", secret)
    path = f"/api/v1/namespaces/{namespace}/secrets/token"
    token = cluster.until(lambda: (kube.get(path).get("data") or {}).get("token"))
    whole = cluster.spec()
    return KubeSpec(whole.server, whole.ca, base64.b64decode(token).decode())


def _forget(kube: Kube, name: str) -> None:
    for kind in ("clusterroles", "clusterrolebindings"):
        kube.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{name}")
