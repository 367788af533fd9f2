"""What goes on inside a model's pod, on a real cluster: the real scoring server, with the portal's files."""

import hashlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from deployments.drivers.kubernetes import KubernetesDriver
from deployments.errors import NotFound
from deployments.kube.api import Kube
from deployments.pod_logs import Collector, Kept
from deployments.registry.blobs import StorageBlobs, storage_name
from deployments.types import (
    Cause,
    ContainerSpec,
    EnvironmentSpec,
    FileSpec,
    KubeSettings,
    ModelSpec,
    Phase,
    Purpose,
    Replica,
    Resources,
    RevisionSpec,
    Scaling,
    ServiceSpec,
    VersionSpec,
)
from tests.deployments.drivers.test_process import zipped
from tests.docker.engines import IMAGE, ensure_image
from tests.kubernetes import cluster, images
from tests.kubernetes.files import portal  # noqa: F401  a fixture

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(240)]

JSON = {"Content-Type": "application/json"}
SCORE = """
import json, os, time
from pathlib import Path

def init():
    global factor
    factor = int((Path(os.environ["AZUREML_MODEL_DIR"]) / "factor.txt").read_text())
    print("the factor is", factor, flush=True)

def run(data):
    asked = json.loads(data)
    print("asked for", asked["x"], flush=True)
    if asked.get("die"):
        os.kill(1, 15)
    time.sleep(asked.get("seconds", 0))
    return asked["x"] * factor
"""


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    made = Kube(cluster.spec())
    yield made
    made.close()


@pytest.fixture(scope="module")
def driver(kube: Kube, portal: str) -> Iterator[KubernetesDriver]:  # noqa: F811
    with cluster.namespace(kube, "pods") as space:
        settings = KubeSettings(space, Purpose.DEV_TEST, router_image=images.pod(), blob_url=portal)
        made = KubernetesDriver(kube, settings, cluster="test")
        yield made
        made.close()


@pytest.fixture(scope="module")
def image() -> str:
    return images._pushed(ensure_image(IMAGE), f"{images.REGISTRY}/{IMAGE}")


def stored(path: str, data: bytes) -> FileSpec:
    """In the portal's store."""
    digest = hashlib.sha256(data).hexdigest()
    if not default_storage.exists(storage_name(digest)):
        default_storage.save(storage_name(digest), ContentFile(data))
    return FileSpec(path, digest, len(data))


def spec(name: str, image: str, **changes: object) -> ServiceSpec:
    revision = RevisionSpec(
        service=name,
        number=1,
        source=stored("project.zip", zipped({"score.py": SCORE.encode()})),
        entry_script="score.py",
        models=(ModelSpec("times", 3, (stored("factor.txt", b"7"),)),),
        environment=EnvironmentSpec("e" * 64, image),
        resources=Resources(cpu=0.1, memory_gb=0.25),
        scoring_timeout_ms=20_000,
        start_timeout_seconds=90,
    )
    version = VersionSpec("default", replace(revision, **changes), Scaling(minimum=1, maximum=1))
    return ServiceSpec(name, (version,))


def deploy(driver: KubernetesDriver, wanted: ServiceSpec, blobs: object = None) -> None:
    driver.stage(wanted.versions[0].revision, blobs or StorageBlobs())
    driver.apply(wanted)


def replica_of(driver: KubernetesDriver, name: str, phase: Phase = Phase.READY) -> Replica:
    def look() -> Replica | None:
        for service in driver.observe().services:
            for replica in service.replicas:
                if service.spec.name == name and replica.phase is phase:
                    return replica
        return None

    return cluster.until(look, 120)


def post(replica: Replica, **asked: object) -> tuple[int, bytes]:
    request = urllib.request.Request(
        f"http://{replica.address}/score", data=json.dumps(asked).encode(), headers=JSON
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, answer.read()


def health(replica: Replica, path: str = "/") -> tuple[int, dict[str, str]]:
    address = replica.address.replace(":5001", ":5002")
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)


@pytest.fixture(scope="module")
def serving(driver: KubernetesDriver, image: str) -> Replica:
    deploy(driver, spec("times", image))
    return replica_of(driver, "times")


def test_a_pod_serves_with_the_files_that_it_fetched(serving: Replica) -> None:
    assert post(serving, x=6) == (200, b"42")
    code, headers = health(serving)
    assert code == 200
    assert float(headers["x-slipway-silent"]) < 1
    assert health(serving, "/live")[0] == 200


def test_one_request_too_many_goes_back_to_the_router(serving: Replica) -> None:
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(post, serving, x=1, seconds=2)
        time.sleep(0.5)
        request = urllib.request.Request(
            f"http://{serving.address}/score",
            data=b'{"x": 2}',
            headers={**JSON, "x-slipway-retry": str(int(time.time() * 1e6))},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=5)
        assert (refused.value.code, refused.value.headers["x-slipway-gate"]) == (425, "elsewhere")
        refused.value.close()
        assert health(serving)[0] == 200  # busy is not ill
        assert busy.result() == (200, b"7")


def test_nothing_of_the_portal_is_told_to_the_model(
    serving: Replica, kube: Kube, driver: KubernetesDriver
) -> None:
    pod = kube.get(f"/api/v1/namespaces/{driver.settings.namespace}/pods/{serving.id}")
    (model,) = pod["spec"]["containers"]
    assert "files" not in {mount["name"] for mount in model["volumeMounts"]}
    assert not any("serviceaccount" in mount["mountPath"] for mount in model["volumeMounts"])
    assert "signature" not in json.dumps(pod)


def test_a_pod_that_goes_finishes_what_it_has_and_says_that_it_goes(
    driver: KubernetesDriver, image: str, kube: Kube
) -> None:
    deploy(driver, spec("leaves", image))
    replica = replica_of(driver, "leaves")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(post, replica, x=5, seconds=6)
        time.sleep(0.5)
        kube.delete(f"/api/v1/namespaces/{driver.settings.namespace}/pods/{replica.id}")

        def leaves() -> bool:
            code, headers = health(replica)
            return code == 503 and headers.get("x-slipway-draining") == "1"

        cluster.until(leaves, 5)
        assert health(replica, "/live")[0] == 200
        assert slow.result() == (200, b"35")
    driver.remove("leaves")


class Elsewhere:
    """Blobs whose addresses are wrong in one way."""

    def __init__(self, change: object) -> None:
        self.change = change

    def url(self, sha256: str, base: str = "") -> str:
        return self.change(StorageBlobs().url(sha256, base))


@pytest.mark.parametrize(
    ("name", "change", "code", "said"),
    [
        (
            "expired",
            lambda url: url.replace("expires=1", "expires=0"),
            "FileUrlExpired",
            "refused its address (403)",
        ),
        (
            "nobody",
            lambda url: url.replace("http://", "http://127.0.0.1:9/"),
            "ModelStoreUnreachable",
            "cannot be reached",
        ),
    ],
)
def test_files_that_do_not_come_are_a_cause_in_the_pods_own_words(
    driver: KubernetesDriver, image: str, name: str, change: object, code: str, said: str
) -> None:
    deploy(driver, spec(name, image), Elsewhere(change))

    def cause() -> Cause | None:
        for service in driver.observe().services:
            for replica in service.replicas:
                if service.spec.name == name and replica.cause and replica.cause.code == code:
                    return replica.cause
        return None

    found = cluster.until(cause, 90)
    assert said in found.message
    assert "signature" not in found.message
    driver.remove(name)


def test_what_a_pod_said_is_kept_across_a_restart_and_when_it_is_gone(
    driver: KubernetesDriver, image: str, kube: Kube, tmp_path: Path
) -> None:
    deploy(driver, spec("speaks", image))
    replica = replica_of(driver, "speaks")
    collector = Collector(tmp_path, days=7)
    kept = Kept(tmp_path, "test")
    stop = threading.Event()
    reader = threading.Thread(target=collector.run, args=(stop,))
    reader.start()

    def look() -> list[str]:
        collector.see("test", driver, driver.observe())
        if replica.id not in kept.log_replicas("speaks"):
            return []
        return said()

    def said(*, previous: bool = False) -> list[str]:
        """Without what the scoring server writes before what a script prints."""
        page = kept.logs(replica.id, previous=previous, limit=10_000)
        return [line.text.rpartition("azmlinfsrv.print - ")[2] for line in page.lines]

    def until(*wanted: str) -> list[str]:
        return cluster.until(lambda: (found := look()) and set(wanted) <= set(found) and found, 60)

    try:
        for number in range(20):
            post(replica, x=number)
        until("the factor is 7", "asked for 19")
        post(replica, x=100, die=1)  # the container ends, and is started again
        cluster.until(lambda: replica_of(driver, "speaks").restarts == 1, 60)
        again = replica_of(driver, "speaks")
        post(again, x=200)
        all_of_it = until("asked for 100", "asked for 200")
        asked = [line for line in all_of_it if line.startswith("asked for")]
        assert asked == [f"asked for {number}" for number in (*range(20), 100, 200)]
        assert all_of_it.count("the factor is 7") >= 2  # more where a worker was started again
        # what the first container said is there too
        assert any(line.startswith("slipway: 2 files") for line in all_of_it)
        before = said(previous=True)
        assert "asked for 100" in before
        assert "asked for 200" not in before
        driver.remove("speaks")

        def gone() -> bool:
            look()
            return not driver.log_replicas("speaks")

        cluster.until(gone, cluster.GONE_SECONDS)
    finally:
        stop.set()
        reader.join()
    assert "asked for 200" in said()
    assert "Shutting down: Master" in said()[-1]  # its very last words


def test_a_persons_own_container_goes_with_what_stands_before_it(
    driver: KubernetesDriver, kube: Kube
) -> None:
    own = ContainerSpec(images.own(), 8000, "/predict", "/alive", "/ready")
    deploy(driver, spec("own", "", container=own, models=(), environment=EnvironmentSpec("", "")))
    replica = replica_of(driver, "own")
    assert post(replica, x=1) == (200, b'own {"x": 1}')
    path = f"/api/v1/namespaces/{driver.settings.namespace}/pods/{replica.id}"
    began = time.monotonic()
    kube.delete(path)
    assert post(replica, x=2) == (200, b'own {"x": 2}')  # the router may not have seen it yet

    def ended() -> bool:
        try:
            return cluster.has_ended(kube.get(path))
        except NotFound:
            return True

    cluster.until(ended, 60)
    took = time.monotonic() - began
    driver.remove("own")
    # two seconds for the router, and not all the time that a pod may take to go
    assert 2 < took < 20
