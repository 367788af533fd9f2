"""The objects that keep files on nodes, and who makes them when."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from deployments.drivers import kubernetes_belongings as ours
from deployments.drivers import kubernetes_cache as shapes
from deployments.drivers import kubernetes_caches as caches
from deployments.drivers import kubernetes_routers as routers
from deployments.errors import NotFound, PermanentError
from deployments.kube.api import UNACCESSIBLE, Listing
from deployments.runtime import cache, cache_keys
from deployments.types import KubeSettings, Toleration
from tests.deployments.agent.conftest import a_revision

SETTINGS = KubeSettings(
    "models",
    router_image="registry.example.com/slipway/router:1",
    blob_url="https://portal:8000",
    blob_ca="PEM",
    files_cache_gb=2.0,
)
SECRETS = "/api/v1/namespaces/models/secrets/slipway-files-cache"
SERVICES = "/api/v1/namespaces/models/services/slipway-files"
DAEMONS = "/apis/apps/v1/namespaces/models/daemonsets/slipway-files"


def made(settings: KubeSettings = SETTINGS) -> dict[str, Any]:
    return {place.body["kind"]: place.body for place in shapes.objects(settings, "c", "hush-hush")}


def pod(settings: KubeSettings = SETTINGS) -> Any:
    return made(settings)["DaemonSet"]["spec"]["template"]["spec"]


class Kube:
    """As much of an API server as is asked."""

    def __init__(self, *, forbidden: str = "", **standing: Any) -> None:
        self.standing = {
            {"secret": SECRETS, "service": SERVICES, "daemons": DAEMONS}[name]: item
            for name, item in standing.items()
        }
        self.forbidden = forbidden
        self.deleted: list[str] = []

    def get(self, path: str) -> Any:
        if self.forbidden and self.forbidden in path:
            raise PermanentError("may not", code=UNACCESSIBLE)
        if path not in self.standing:
            raise NotFound(path)
        return self.standing[path]

    def items(self, path: str, **_: str) -> Listing:
        if self.forbidden and self.forbidden in path:
            raise PermanentError("may not", code=UNACCESSIBLE)
        return Listing([], "")

    def has(self, *_: str) -> bool:
        return True

    def delete(self, path: str) -> None:
        self.deleted.append(path)


class Blobs:
    def url(self, sha256: str, base: str = "") -> str:
        return f"{base}/blobs/{sha256}?signature=s"


def secret(key: str) -> dict[str, Any]:
    return {"data": {"key": base64.b64encode(key.encode()).decode()}}


def test_a_pod_of_it_is_restricted_and_has_neither_a_token_nor_a_place_of_the_node() -> None:
    spec = pod()
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostNetwork" not in spec
    [container] = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all("hostPort" not in port for port in container["ports"])
    assert {next(iter(set(item) - {"name"})) for item in spec["volumes"]} == {"emptyDir", "secret"}


def test_the_folder_may_hold_a_little_more_than_the_cache_keeps() -> None:
    [container] = pod()["containers"]
    kept = int(container["args"][container["args"].index("--bytes") + 1])
    limit = pod()["volumes"][0]["emptyDir"]["sizeLimit"]
    assert kept == 2 * 2**30
    assert kept * 1.05 < int(limit.removesuffix("Mi")) * 2**20 < kept * 1.2


def test_the_key_is_in_its_secret_alone_and_only_the_cache_mounts_it() -> None:
    for kind, body in made().items():
        assert ("hush-hush" in str(body)) == (kind == "Secret")


def test_it_stands_wherever_models_may() -> None:
    spec = pod(replace(SETTINGS, node_selector={"pool": "gpu"}, tolerations=(Toleration("gpu"),)))
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]


def test_only_models_pods_and_caches_get_in() -> None:
    policy = made()["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == {"matchLabels": {"slipway.dev/part": "cache"}}
    [rule] = policy["ingress"]
    assert [item["podSelector"]["matchLabels"]["slipway.dev/part"] for item in rule["from"]] == [
        "model",
        "cache",
    ]
    assert rule["ports"] == [{"protocol": "TCP", "port": cache.PORT}]


def test_every_object_says_whose_it_is_and_what_was_asked_for() -> None:
    for place in shapes.objects(SETTINGS, "c", "k"):
        assert "/namespaces/models/" in place.path
        assert place.path.endswith("/" + place.body["metadata"]["name"])
        labels = place.body["metadata"]["labels"]
        assert (labels["app.kubernetes.io/managed-by"], labels["slipway.dev/part"]) == (
            "slipway",
            "cache",
        )
        assert place.body["metadata"]["annotations"]["slipway.dev/spec-sha256"]


@pytest.mark.parametrize(
    ("cluster_ip", "address"),
    [
        ("10.0.0.7", "http://10.0.0.7:8092"),
        ("fd00::7", "http://[fd00::7]:8092"),
        ("", ""),
        ("None", ""),
    ],
)
def test_the_services_address_is_that_of_all_caches(cluster_ip: str, address: str) -> None:
    assert shapes.address({"spec": {"clusterIP": cluster_ip}}) == address


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, files_cache_gb=0),
        replace(SETTINGS, blob_url=""),
        replace(SETTINGS, router_image=""),
    ],
)
def test_where_there_are_to_be_none_there_are_none(settings: KubeSettings) -> None:
    kube = Kube(secret=secret("k"), service={"spec": {"clusterIP": "10.0.0.7"}})
    assert caches.wanted(kube, settings, "c") == []
    staged = caches.staged(kube, settings, a_revision(), Blobs())
    assert "cache" not in json.loads(staged["files.json"])[0]


def test_where_the_role_does_not_allow_them_nothing_fails() -> None:
    kube = Kube(forbidden="daemonsets")
    assert caches.wanted(kube, SETTINGS, "c") == []
    caches.remove(kube, SETTINGS)
    assert kube.deleted == []
    # nor does a cluster that is given up
    assert ours.belongings(kube, "models", "c") == ()


def test_the_key_that_is_there_stays() -> None:
    [kept, *_] = caches.wanted(Kube(secret=secret("kept")), SETTINGS, "c")
    assert kept.body["stringData"] == {"key": "kept", "ca.pem": "PEM"}
    [new, *_] = caches.wanted(Kube(), SETTINGS, "c")
    assert len(new.body["stringData"]["key"]) == 64


def test_files_are_told_with_the_caches_address_and_a_key_of_their_own() -> None:
    kube = Kube(secret=secret("s"), service={"spec": {"clusterIP": "10.0.0.7"}})
    staged = caches.staged(kube, SETTINGS, a_revision(), Blobs())
    assert staged["ca.pem"] == "PEM"
    rows = json.loads(staged["files.json"])
    for row in rows:
        assert row["url"].startswith("https://portal:8000/blobs/")
        assert row["cache"] == f"http://10.0.0.7:8092/{row['sha256']}"
        assert row["key"] == cache_keys.key("s", row["sha256"])
    assert len({row["key"] for row in rows}) == len(rows)


def test_pods_are_told_anew_when_the_address_or_the_key_is_another() -> None:
    at = {"spec": {"clusterIP": "10.0.0.7"}}
    stamps = [
        caches.stamp(kube, SETTINGS)
        for kube in (
            Kube(),
            Kube(secret=secret("s"), service=at),
            Kube(secret=secret("t"), service=at),
            Kube(secret=secret("s"), service={"spec": {"clusterIP": "10.0.0.8"}}),
        )
    ]
    assert len(set(stamps)) == 4
    assert caches.stamp(Kube(service=at), SETTINGS) == stamps[0]


def test_they_are_put_right_only_where_they_were_made() -> None:
    assert not caches.stand(Kube(), "models")
    assert caches.stand(Kube(secret=secret("s")), "models")
    assert caches.stand(Kube(service={"spec": {"clusterIP": "10.0.0.7"}}), "models")


def test_drift_is_looked_for_in_them_only_where_they_were_made(monkeypatch) -> None:
    monkeypatch.setattr(routers, "_own", lambda *_: [])
    assert routers.wanted(Kube(), SETTINGS, "c") == []
    found = routers.wanted(Kube(secret=secret("s")), SETTINGS, "c")
    assert [place.body["kind"] for place in found] == [
        "Secret",
        "Service",
        "NetworkPolicy",
        "DaemonSet",
    ]


@pytest.mark.parametrize("there", ["secret", "service"])
def test_half_a_cache_is_none(there: str) -> None:
    one = {"secret": secret("s"), "service": {"spec": {"clusterIP": "10.0.0.7"}}}
    staged = caches.staged(Kube(**{there: one[there]}), SETTINGS, a_revision(), Blobs())
    assert "cache" not in json.loads(staged["files.json"])[0]


def test_what_goes_goes_from_the_daemons_on() -> None:
    kube = Kube(daemons={})
    caches.remove(kube, SETTINGS)
    assert kube.deleted[0] == DAEMONS
    assert set(kube.deleted) >= {SECRETS, SERVICES}
