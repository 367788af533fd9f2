"""Services on a real cluster, from being applied to being gone."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.drivers import kubernetes_names as names
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.errors import Conflict
from deployments.kube.api import Kube
from deployments.types import (
    ContainerSpec,
    EnvironmentSpec,
    FileSpec,
    KubeSettings,
    ObservedService,
    Phase,
    Purpose,
    Replica,
    Resources,
    RevisionSpec,
    Scaling,
    ServiceSpec,
    VersionSpec,
)
from tests.deployments.drivers.test_process import FolderBlobs
from tests.kubernetes import cluster, images

pytestmark = pytest.mark.kubernetes

SMALL = Resources(cpu=0.05, memory_gb=0.05)


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    made = Kube(cluster.spec())
    yield made
    made.close()


@pytest.fixture(scope="module")
def space(kube: Kube) -> Iterator[str]:
    with cluster.namespace(kube, "core") as name:
        yield name


@pytest.fixture(scope="module")
def driver(kube: Kube, space: str) -> Iterator[KubernetesDriver]:
    settings = KubeSettings(space, Purpose.DEV_TEST, router_image=images.pod())
    made = KubernetesDriver(kube, settings, cluster="test")
    yield made
    made.close()


def spec(
    name: str = "own",
    image: str = "",
    *,
    revision: int = 1,
    generation: int = 1,
    resources: Resources = SMALL,
    scaling: Scaling | None = None,
    **more: object,
) -> ServiceSpec:
    made = RevisionSpec(
        service=name,
        number=revision,
        source=FileSpec("", "", 0),
        entry_script="",
        models=(),
        environment=EnvironmentSpec("", image or images.own(), variables={"SECRET": "hidden"}),
        resources=resources,
        scoring_timeout_ms=2000,
        start_timeout_seconds=30,
        container=ContainerSpec(image or images.own(), 8000, "/predict", "/alive", "/ready"),
    )
    version = VersionSpec("default", made, scaling or Scaling(minimum=1, maximum=4))
    return replace(ServiceSpec(name, (version,), generation=generation), **more)


class Cluster:
    """What the tests do to it."""

    def __init__(self, driver: KubernetesDriver, blobs: FolderBlobs) -> None:
        self.driver, self.blobs = driver, blobs

    def deploy(self, wanted: ServiceSpec) -> None:
        for version in wanted.versions:
            self.driver.stage(version.revision, self.blobs)
        self.driver.apply(wanted)

    def service(self, name: str) -> ObservedService | None:
        found = [item for item in self.driver.observe().services if item.spec.name == name]
        return found[0] if found else None

    def replicas(self, name: str) -> list[Replica]:
        found = self.service(name)
        return list(found.replicas) if found else []

    def ready(self, name: str, count: int, seconds: float = 60) -> list[Replica]:
        def look() -> list[Replica]:
            living = [item for item in self.replicas(name) if item.phase is not Phase.DRAINING]
            good = [item for item in living if item.phase is Phase.READY]
            return good if len(good) == count == len(living) else []

        return self.until(name, look, seconds)

    def trouble(self, name: str, code: str, seconds: float = 60) -> Replica:
        def look() -> Replica | None:
            causes = {item.cause.code: item for item in self.replicas(name) if item.cause}
            return causes.get(code)

        return self.until(name, look, seconds)

    def until(self, name: str, look: Callable, seconds: float):
        try:
            return cluster.until(look, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.service(name)}") from error


@pytest.fixture
def there(driver: KubernetesDriver, tmp_path: Path) -> Cluster:
    return Cluster(driver, FolderBlobs(tmp_path))


def score(replica: Replica) -> bytes:
    asked = urllib.request.Request(f"http://{replica.address}/score", data=b"1", method="POST")
    with urllib.request.urlopen(asked, timeout=5) as answer:
        return answer.read()


def left(kube: Kube, space: str, service: str) -> set[str]:
    """What there is of a service."""
    mine = names.query(service=service)
    found = set()
    for path in (
        "/api/v1/namespaces/{}/pods",
        "/api/v1/namespaces/{}/secrets",
        "/api/v1/namespaces/{}/services",
        "/apis/apps/v1/namespaces/{}/deployments",
        "/apis/apps/v1/namespaces/{}/replicasets",
    ):
        listed = kube.items(path.format(space), labels=mine).items
        found |= {f"{path.rpartition('/')[2]} {item['metadata']['name']}" for item in listed}
    return found


def test_a_service_from_applied_to_gone(
    there: Cluster, driver: KubernetesDriver, kube: Kube, space: str
) -> None:
    there.deploy(spec())
    (one,) = there.ready("own", 1)
    assert score(one) == b"own 1"
    assert there.service("own").spec == spec()
    assert driver.drifted() == frozenset()
    again = there.service("own")
    assert there.service("own") is again
    assert "own server begins" in [line.text for line in driver.logs(one.id).lines]
    assert list(driver.log_replicas("own")) == [one.id]
    assert "hidden" not in str(kube.items(f"/api/v1/namespaces/{space}/pods").items)

    driver.scale("own", "default", 2)
    there.ready("own", 2)
    assert there.service("own").desired[0].desired == 2

    # an update keeps the count, and an older one changes nothing
    there.deploy(spec(revision=2, generation=2))
    two = there.until(
        "own", lambda: {item.revision for item in there.ready("own", 2)} == {2} and "new", 60
    )
    assert two == "new"
    there.deploy(spec(revision=1, generation=1))
    assert there.service("own").spec.generation == 2

    # what somebody else changed is seen, and put right
    path = f"/apis/apps/v1/namespaces/{space}/deployments/own-default"
    change = [{"op": "replace", "path": "/spec/template/spec/enableServiceLinks", "value": True}]
    kube.patch(path, change, "json")
    cluster.until(lambda: driver.drifted() == {"own"}, 5)
    driver.apply(spec(revision=2, generation=2))
    cluster.until(lambda: not driver.drifted(), 5)

    driver.scale("own", "default", 1)
    there.ready("own", 1, 90)

    driver.remove("own")
    cluster.until(lambda: there.service("own") is None, 10)
    cluster.until(lambda: not left(kube, space, "own"), cluster.GONE_SECONDS)
    driver.remove("own")


def test_a_version_that_is_gone_takes_its_objects_along(there: Cluster, kube: Kube) -> None:
    both = spec("pair")
    second = replace(both.versions[0], name="b", is_default=False, traffic_percent=0)
    there.deploy(replace(both, versions=(*both.versions, second)))
    cluster.until(lambda: len(there.replicas("pair")) == 2)
    there.deploy(spec("pair", generation=2))
    cluster.until(lambda: [item.name for item in there.service("pair").desired] == ["default"])
    cluster.until(
        lambda: {item.version for item in there.replicas("pair")} == {"default"},
        cluster.GONE_SECONDS,
    )
    there.driver.remove("pair")


def test_a_crash_loop_is_told_with_what_it_said(there: Cluster) -> None:
    there.deploy(spec("crash", images.crashing()))
    found = there.trouble("crash", "CrashLoopBackOff")
    there.until(
        "crash", lambda: "the table" in there.trouble("crash", found.cause.code).cause.evidence, 20
    )
    assert found.last_exit.code == 1
    there.driver.remove("crash")


def test_an_image_that_does_not_exist_is_named(there: Cluster) -> None:
    missing = f"{images.REGISTRY}/slipway-tests/none:1"
    there.deploy(spec("missing", missing))
    found = there.trouble("missing", "ImagePullBackOff")
    assert missing in found.cause.message
    assert found.phase is Phase.PULLING
    there.driver.remove("missing")


def test_what_is_too_big_is_told_in_the_schedulers_words(there: Cluster) -> None:
    there.driver.capacity()
    there.deploy(spec("big", resources=Resources(cpu=900, memory_gb=0.1)))
    found = there.trouble("big", "PodUnschedulable")
    assert "Insufficient cpu" in found.cause.message
    assert "asks for 900 cores" in found.cause.message
    assert "Closest: " in found.cause.message
    there.driver.remove("big")


def test_an_accelerator_that_no_node_has_is_refused(there: Cluster) -> None:
    there.deploy(spec("gpu", resources=replace(SMALL, gpu=1)))
    found = there.trouble("gpu", "PodUnschedulable")
    assert "nvidia.com/gpu" in found.cause.message
    there.driver.remove("gpu")


def test_a_quota_is_named_and_with_its_figures(there: Cluster, kube: Kube, space: str) -> None:
    quotas = f"/api/v1/namespaces/{space}/resourcequotas"
    kube.create(quotas, {"metadata": {"name": "few"}, "spec": {"hard": {"requests.cpu": "1m"}}})
    try:
        there.deploy(spec("many"))
        found = there.trouble("many", "PodUnschedulable")
        assert "quota few" in found.cause.message
        assert "requests.cpu=" in found.cause.message
    finally:
        kube.delete(f"{quotas}/few")
        there.driver.remove("many")


def test_what_others_made_is_not_taken_over(there: Cluster, kube: Kube, space: str) -> None:
    services = f"/api/v1/namespaces/{space}/services"
    kube.create(services, {"metadata": {"name": "taken"}, "spec": {"ports": [{"port": 80}]}})
    with pytest.raises(Conflict, match="that Slipway did not make"):
        there.deploy(spec("taken"))
    there.driver.remove("taken")
    assert kube.get(f"{services}/taken")


def test_what_the_clusters_own_rules_make_of_it_is_not_fought(
    there: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an admission webhook would: it gives containers another image than was asked for."""
    driver = there.driver
    apply = driver.kube.apply

    def admitted(path: str, item: dict) -> dict:
        if item["kind"] == "Deployment":
            item = json.loads(json.dumps(item))
            item["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror/own:1"
        return apply(path, item)

    monkeypatch.setattr(driver.kube, "apply", admitted)
    there.deploy(spec("ruled"))
    cluster.until(lambda: there.replicas("ruled"))
    assert driver.drifted() == frozenset()
    driver._admitted.clear()  # another process was told what the cluster made of it
    driver._compared.clear()
    assert driver.drifted() == {"ruled"}
    driver.apply(spec("ruled"))
    assert driver.drifted() == frozenset()
    driver.remove("ruled")


def test_another_scaler_is_found(there: Cluster, kube: Kube, space: str) -> None:
    there.deploy(spec("scaled"))
    cluster.until(lambda: there.service("scaled"))
    assert there.driver.foreign_scalers() == {}
    path = f"/apis/autoscaling/v1/namespaces/{space}/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "scaled-default"}
    kube.create(
        path,
        {"metadata": {"name": "cpu"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3}},
    )
    cluster.until(there.driver.foreign_scalers, 5)
    assert there.driver.foreign_scalers() == {("scaled", "default"): "HorizontalPodAutoscaler cpu"}
    kube.delete(f"{path}/cpu")
    cluster.until(lambda: not there.driver.foreign_scalers(), 5)
    there.driver.remove("scaled")


def test_a_service_made_without_the_portal_is_one(there: Cluster, kube: Kube, space: str) -> None:
    labels = {"slipway.dev/part": "model", "slipway.dev/service": "plain"}
    keys = {"metadata": {"name": "plain-keys", "labels": {"slipway.dev/part": "keys"}},
            "stringData": {"one": "let me in"}}  # fmt: skip
    kube.create(f"/api/v1/namespaces/{space}/secrets", keys)
    notes = {"slipway.dev/port": "8000", "slipway.dev/concurrency": "4",
             "slipway.dev/autoscale": "1-3", "slipway.dev/keys": "plain-keys"}  # fmt: skip
    container = {"name": "web", "image": images.own(),
                 "readinessProbe": {"httpGet": {"path": "/ready", "port": 8000}}}  # fmt: skip
    deployments = f"/apis/apps/v1/namespaces/{space}/deployments"
    kube.create(
        deployments,
        {
            "metadata": {"name": "plain", "labels": labels, "annotations": notes},
            "spec": {
                "selector": {"matchLabels": {"app": "plain"}},
                "template": {
                    "metadata": {
                        "labels": {**labels, "app": "plain"},
                        "annotations": {"slipway.dev/port": "8000"},
                    },
                    "spec": {"containers": [container]},
                },
            },
        },
    )
    (one,) = there.ready("plain", 1)
    assert one.address.endswith(":8000")
    found = there.service("plain").spec
    assert len(found.auth.key_digests) == 1
    assert (found.versions[0].revision.concurrency, found.versions[0].scaling.maximum) == (4, 3)
    assert there.driver.drifted() == frozenset()
    there.driver.scale("plain", "default", 2)
    cluster.until(lambda: there.service("plain").desired[0].desired == 2, 5)
    kube.delete(f"{deployments}/plain")
