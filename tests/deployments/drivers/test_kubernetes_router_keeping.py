"""A router in an API server that keeps what it is given; what a real one does is `tests/kubernetes`'."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deployments.drivers import kubernetes_router as shapes
from deployments.drivers import kubernetes_router_keeping as keeping
from deployments.drivers import kubernetes_routers as routers
from deployments.drivers.kubernetes_router_keeping import Known
from deployments.errors import Conflict, NotFound, PermanentError
from deployments.kube.api import Kube
from deployments.types import KubeSettings

SETTINGS = KubeSettings("models", router_image="registry.example.com/slipway/router:1")
CORE, APPS = "/api/v1/namespaces/models", "/apis/apps/v1/namespaces/models"
MARKER = f"{CORE}/configmaps/slipway-cluster"
DEPLOYMENT, SERVICE = f"{APPS}/deployments/slipway-router", f"{CORE}/services/slipway-router"
PEERS = f"{CORE}/secrets/slipway-router-peers"
POLICY = "/apis/networking.k8s.io/v1/namespaces/models/networkpolicies/slipway-router"
FORBIDDEN = PermanentError("You may not.", code="KubernetesUnaccessible")


class FakeKube:
    def __init__(self) -> None:
        self.objects: dict[str, Any] = {MARKER: {"metadata": {}, "data": {"mark": "ours"}}}
        self.addresses = ["10.0.0.1"]
        self.written: list[str] = []
        self.no_roles = False
        self.changes: Callable[[Any], None] = lambda item: None  # what an admission rule does

    def get(self, path: str) -> Any:
        if self.no_roles and "/clusterrole" in path:
            raise FORBIDDEN
        if path not in self.objects:
            raise NotFound(path)
        return copy.deepcopy(self.objects[path])

    def create(self, path: str, body: Any) -> Any:
        full = f"{path}/{body['metadata']['name']}"
        if full in self.objects:
            raise Conflict(full)
        return self.apply(full, body)

    def apply(self, path: str, body: Any) -> Any:
        if self.no_roles and "/clusterrole" in path:
            raise FORBIDDEN
        item = copy.deepcopy(body)
        self.changes(item)
        if path == PEERS:
            item.pop("stringData")
            item["data"] = {"token": "dG9rZW4="}
        self.objects[path] = item
        self.written.append(path)
        return item

    def delete(self, path: str) -> None:
        self.objects.pop(path, None)

    def has(self, version: str, resource: str) -> bool:
        return True

    def items(self, path: str, **more: Any) -> Any:
        nodes = [
            {"status": {"addresses": [{"type": "InternalIP", "address": address}]}}
            for address in self.addresses
        ]
        return SimpleNamespace(items=nodes)


@pytest.fixture
def fake() -> FakeKube:
    made = FakeKube()
    routers.install_router(cast(Kube, made), SETTINGS, "c")
    routers.install_router(cast(Kube, made), SETTINGS, "c")  # its pods have the token that is kept
    made.written.clear()
    return made


def look(fake: FakeKube, known: Known | None = None) -> Any:
    return keeping.look(cast(Kube, fake), SETTINGS, "c", "ours", known or Known())


def mend(fake: FakeKube, drifted: Any, known: Known) -> None:
    keeping.mend(cast(Kube, fake), SETTINGS, "c", drifted, known)


def test_what_was_installed_has_not_drifted_and_nothing_is_written(fake: FakeKube) -> None:
    assert look(fake) == ()
    assert fake.written == []


def test_only_what_drifted_is_written(fake: FakeKube) -> None:
    del fake.objects[SERVICE]
    fake.objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    drifted = look(fake)
    assert [item.path for item in drifted] == [SERVICE, DEPLOYMENT]
    mend(fake, drifted, Known())
    assert set(fake.written) == {SERVICE, DEPLOYMENT}
    assert look(fake) == ()


def test_nothing_is_made_where_the_namespace_is_not_ours(fake: FakeKube) -> None:
    del fake.objects[SERVICE]
    fake.objects[MARKER]["data"]["mark"] = "theirs"
    for _ in range(2):
        with pytest.raises(PermanentError, match="nothing is made there") as caught:
            look(fake)
        assert caught.value.code == "NotOurs"
        fake.objects.pop(MARKER, None)
    assert fake.written == []


def test_what_another_version_asked_for_otherwise_stays(fake: FakeKube) -> None:
    deployment = fake.objects[DEPLOYMENT]
    deployment["metadata"]["annotations"]["slipway.dev/spec-sha256"] = "of another version"
    deployment["spec"]["template"]["spec"]["containers"][0]["args"] = ["--other"]
    assert look(fake) == ()
    del deployment["metadata"]["annotations"]  # from before there were such notes
    assert look(fake) == ()
    del fake.objects[DEPLOYMENT]
    assert [item.kind for item in look(fake)] == ["Deployment"]


def test_while_something_goes_nothing_is_said(fake: FakeKube) -> None:
    del fake.objects[SERVICE]
    fake.objects[DEPLOYMENT]["metadata"]["deletionTimestamp"] = "now"
    assert look(fake) is None


def test_new_nodes_are_let_in_without_a_word(fake: FakeKube) -> None:
    fake.addresses.append("10.0.0.2")
    assert look(fake) == ()
    assert fake.written == [POLICY]
    assert "10.0.0.2/32" in str(fake.objects[POLICY])
    assert look(fake) == ()
    assert fake.written == [POLICY]


def test_pods_start_anew_with_another_token_where_theirs_is_gone(fake: FakeKube) -> None:
    before = fake.objects[DEPLOYMENT]["spec"]["template"]["metadata"]["annotations"]
    del fake.objects[PEERS]
    drifted = look(fake)
    assert [item.path for item in drifted if not item.fields] == [PEERS]
    mend(fake, drifted, Known())
    assert DEPLOYMENT in fake.written
    after = fake.objects[DEPLOYMENT]["spec"]["template"]["metadata"]["annotations"]
    assert after != before


def test_rights_of_the_whole_cluster_that_we_may_not_give_are_no_drift(fake: FakeKube) -> None:
    fake.objects = {path: item for path, item in fake.objects.items() if "clusterrole" not in path}
    known = Known()
    drifted = look(fake, known)
    assert {item.kind for item in drifted} == {"ClusterRole", "ClusterRoleBinding"}
    fake.no_roles = True
    mend(fake, drifted, known)
    assert look(fake, known) == ()


def test_what_a_rule_of_the_cluster_makes_otherwise_each_time_is_let_be(fake: FakeKube) -> None:
    def mirrored(item: Any) -> None:
        if item["kind"] == "Deployment":
            item["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror.example.com/r:1"

    fake.changes = mirrored
    known = Known()
    mirrored(fake.objects[DEPLOYMENT])
    drifted = look(fake, known)
    assert [item.path for item in drifted] == [DEPLOYMENT]
    mend(fake, drifted, known)
    assert look(fake, known) == ()


def test_the_token_of_its_pods_is_known_by_its_digest_alone(fake: FakeKube) -> None:
    notes = fake.objects[DEPLOYMENT]["spec"]["template"]["metadata"]["annotations"]
    assert "token" not in notes[shapes.PEERS_SHA256]
