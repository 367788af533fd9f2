"""Files of revisions kept on the nodes of a real cluster, with the portal there and away."""

import http.client
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import make_server

import pytest
from django.core.wsgi import get_wsgi_application

from deployments.drivers import kubernetes_cache as shapes
from deployments.drivers import kubernetes_caches as caches
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_router as shapes_of_router
from deployments.drivers import kubernetes_routers as routers
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.kube.api import Kube
from deployments.registry.blobs import StorageBlobs
from deployments.runtime.cache_keys import FROM, HERE, KEY, NODE, key
from deployments.types import KubeSettings, Phase, Purpose, Replica, Scaling, ServiceSpec
from tests.docker.engines import IMAGE, ensure_image
from tests.kubernetes import cluster, images
from tests.kubernetes.files import Quiet, Threaded, _address
from tests.kubernetes.test_model_pod import post, spec

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]


class Portal:
    """The portal's door of files: counted, and gone when it is told to be."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._served = get_wsgi_application()
        self.port = 0
        self._open()
        self.url = f"http://{_address()}:{self.port}"

    def _app(self, environ: dict[str, Any], start: Callable) -> Iterable[bytes]:
        _, _, sha256 = environ["PATH_INFO"].partition("/blobs/")
        self.asked[sha256] += 1
        return self._served(environ, start)

    def _open(self) -> None:
        self._server = make_server("", self.port, self._app, Threaded, Quiet)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @contextmanager
    def away(self) -> Iterator[None]:
        self.close()
        try:
            yield
        finally:
            self._open()


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    made = Kube(cluster.spec())
    yield made
    made.close()


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    cluster.spec()
    made = Portal()
    yield made
    made.close()


class Service:
    """One that runs, with the caches beside it."""

    def __init__(self, kube: Kube, driver: KubernetesDriver, wanted: ServiceSpec) -> None:
        self.kube, self.driver, self.spec = kube, driver, wanted
        self.space = driver.settings.namespace
        self.core = f"/api/v1/namespaces/{self.space}"
        revision = wanted.versions[0].revision
        self.model = revision.models[0].files[0].sha256
        self.contents = {revision.source.sha256, self.model}
        self.first_asked: Counter[str] = Counter()  # of the portal, until it ran
        self.first_said: list[str] = []

    def ready(self, count: int, besides: Iterable[str] = ()) -> list[Replica]:
        """So many, and none of those."""

        def look() -> list[Replica]:
            found = [
                replica
                for service in self.driver.observe().services
                for replica in service.replicas
                if replica.phase is Phase.READY and replica.id not in besides
            ]
            return found if len(found) >= count else []

        return cluster.until(look, 120)

    def staying(self) -> list[str]:
        """Pods that are not on their way out."""
        pods = self.kube.items(f"{self.core}/pods", labels=names.query(part="model")).items
        return [_name(pod) for pod in pods if not shapes_of_router.leaving(pod)]

    def another(self) -> Replica:
        """A pod in the place of one that goes."""
        before = [replica.id for replica in self.ready(2)]
        self.kube.delete(f"{self.core}/pods/{before[0]}", grace=1)
        [new, *_] = self.ready(1, besides=before)
        return new

    def said(self, pod: str) -> str:
        """By what fetched its files."""
        return "\n".join(self.kube.log(self.space, pod, "fetch"))

    def ask(self, sha256: str, shown: str) -> list[int]:
        """What each cache answers to this key; they bring what they do not have."""
        given = {KEY: shown, FROM: StorageBlobs().url(sha256, self.driver.settings.blob_url)}
        found = []
        for pod in self.caches():
            connection = http.client.HTTPConnection(pod["status"]["podIP"], shapes.PORT, timeout=30)
            connection.request("GET", f"/{sha256}", headers=given)
            with connection.getresponse() as answer:
                answer.read()
                found.append(answer.status)
            connection.close()
        return found

    def fill(self) -> None:
        """Have the caches hold all files, whatever was done to them before."""
        secret = caches._key(self.kube, self.space)
        for sha256 in self.contents:
            assert set(self.ask(sha256, key(secret, sha256))) == {200}

    def caches(self) -> list[dict[str, Any]]:
        """Those that stay."""
        return [pod for pod in self.all_caches() if not shapes_of_router.leaving(pod)]

    def all_caches(self) -> list[dict[str, Any]]:
        return self.kube.items(f"{self.core}/pods", labels=names.query(part="cache")).items

    def end_caches(self) -> None:
        path = f"/apis/apps/v1/namespaces/{self.space}/daemonsets/{shapes.NAME}"
        self.kube.delete(path)

        def gone() -> bool:
            left = self.all_caches()
            for pod in left:
                self.kube.delete(f"{self.core}/pods/{_name(pod)}", grace=1)
            return not left and not self.led_to()

        cluster.until(gone, 120)

    def install(self) -> None:
        for place in caches.wanted(self.kube, self.driver.settings, "test"):
            if place.body["kind"] == "DaemonSet":
                [container] = place.body["spec"]["template"]["spec"]["containers"]
                # a test's machine may be nearly full
                container["env"].append({"name": "SLIPWAY_CACHE_SPARE", "value": "0"})
            routers.make(self.kube, place, self.driver.settings.purpose)
        cluster.until(self._stand, 120)

    def _stand(self) -> bool:
        path = f"/apis/apps/v1/namespaces/{self.space}/daemonsets/{shapes.NAME}"
        status = self.kube.get(path).get("status", {})
        ready = status.get("numberReady", 0)
        return ready == status.get("desiredNumberScheduled", -1) > 0 and self.led_to() == ready

    def led_to(self) -> int:
        """How many of them their Service leads to."""
        subsets = self.kube.get(f"{self.core}/endpoints/{shapes.NAME}").get("subsets") or ()
        return sum(len(subset.get("addresses") or ()) for subset in subsets)

    def inside(self, code: str) -> None:
        """Run in each cache's pod."""
        for pod in self.caches():
            subprocess.run(
                ["kubectl", "exec", "-n", self.space, pod["metadata"]["name"], "--",
                 "python3", "-c", code],
                check=True, capture_output=True, timeout=60,
            )  # fmt: skip


@pytest.fixture(scope="module")
def service(kube: Kube, portal: Portal) -> Iterator[Service]:
    with cluster.namespace(kube, "files") as space:
        settings = KubeSettings(
            space,
            Purpose.DEV_TEST,
            router_image=images.pod(),
            blob_url=portal.url,
            files_cache_gb=0.5,
        )
        driver = KubernetesDriver(kube, settings, cluster="test")
        image = images._pushed(ensure_image(IMAGE), f"{images.REGISTRY}/{IMAGE}")
        wanted = spec("kept", image)
        [version] = wanted.versions
        two = type(version)(version.name, version.revision, Scaling(minimum=2, maximum=4))
        made = Service(kube, driver, ServiceSpec("kept", (two,)))
        made.install()
        driver.stage(two.revision, StorageBlobs())
        driver.apply(made.spec)
        made.first_said = [made.said(replica.id) for replica in made.ready(2)]
        made.first_asked = Counter(portal.asked)
        try:
            yield made
        finally:
            driver.close()


def asked(host: str, sha256: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status, and where it sends to."""
    connection = http.client.HTTPConnection(host, shapes.PORT, timeout=30)
    connection.request("GET", f"/{sha256}", headers=headers)
    with connection.getresponse() as answer:
        answer.read()
    connection.close()
    return answer.status, answer.headers["Location"] or ""


@contextmanager
def another_node(service: Service) -> Iterator[str]:
    """A cache that takes itself for one of another node: its address."""
    path = f"/apis/apps/v1/namespaces/{service.space}/daemonsets/{shapes.NAME}"
    template = service.kube.get(path)["spec"]["template"]
    [container] = template["spec"]["containers"]
    container["env"] = [
        {"name": "NODE", "value": "elsewhere"} if item["name"] == "NODE" else item
        for item in container["env"]
    ]
    owner = service.kube.get(f"{service.core}/services/{shapes.NAME}")["metadata"]
    metadata = {
        "name": "elsewhere",
        "labels": template["metadata"]["labels"],
        # so that the DaemonSet does not take it for one of its own
        "ownerReferences": [
            {
                "apiVersion": "v1", "kind": "Service", "name": owner["name"], "uid": owner["uid"],
                "controller": True,
            }
        ],
    }  # fmt: skip
    pod = f"{service.core}/pods/elsewhere"
    service.kube.create(f"{service.core}/pods", {"metadata": metadata, "spec": template["spec"]})
    try:
        cluster.until(lambda: shapes_of_router.pod_ready(service.kube.get(pod)), 90)
        yield service.kube.get(pod)["status"]["podIP"]
    finally:
        service.kube.delete(pod, grace=1)
        cluster.until(lambda: "elsewhere" not in map(_name, service.all_caches()), 120)


def _name(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def test_two_replicas_come_up_with_one_download_of_each_file(service: Service) -> None:
    assert service.first_asked == dict.fromkeys(service.contents, 1)
    assert len(service.first_said) == 2
    assert not any("portal" in words for words in service.first_said)


def test_pods_start_while_the_portal_is_away(service: Service, portal: Portal) -> None:
    service.fill()
    with portal.away():
        service.driver.scale("kept", "default", 4)
        for replica in service.ready(4):
            assert post(replica, x=2) == (200, b"14")
    service.driver.scale("kept", "default", 2)
    cluster.until(lambda: len(service.staying()) == 2, 90)


def test_nobody_reads_a_file_without_its_key(service: Service) -> None:
    secret = caches._key(service.kube, service.space)
    assert set(service.ask(service.model, key(secret, service.model))) == {200}
    assert set(service.ask(service.model, key(secret, "0" * 64))) == {403}
    assert set(service.ask(service.model, "")) == {403}
    # and the secret is told to nobody by its pods
    assert secret not in json.dumps(service.caches())


def test_caches_find_each_other_and_one_has_from_another_what_the_portal_cannot_give(
    service: Service, portal: Portal
) -> None:
    service.fill()
    secret = caches._key(service.kube, service.space)
    shown = key(secret, service.model)
    [here, *_] = service.caches()
    with another_node(service) as elsewhere:
        host = here["status"]["podIP"]

        def sends_on() -> bool:
            status, where = asked(host, service.model, {KEY: shown, NODE: "elsewhere"})
            return (status, where) == (307, f"http://{elsewhere}:{shapes.PORT}/{service.model}")

        cluster.until(sends_on, 60)
        assert asked(elsewhere, service.model, {KEY: shown, HERE: "1"})[0] == 404
        with portal.away():
            assert asked(elsewhere, service.model, {KEY: shown})[0] == 200
        assert asked(elsewhere, service.model, {KEY: shown, HERE: "1"})[0] == 200


def test_a_file_that_rots_on_the_node_is_fetched_anew(service: Service, portal: Portal) -> None:
    service.fill()
    rot = (
        f"import os; path = '/slipway/store/{service.model}'; os.chmod(path, 0o644); "
        "open(path, 'wb').write(b'8')"
    )
    service.inside(rot)
    # started anew it does not know that the file was right a moment ago; and what it has, it has still
    service.inside("import os; os.kill(1, 15)")

    def runs_again() -> bool:
        return service.led_to() > 0 and all(
            status["restartCount"] and status["ready"]
            for pod in service.caches()
            for status in pod["status"]["containerStatuses"]
        )

    cluster.until(runs_again, 90)
    for _ in range(3):
        before = Counter(portal.asked)
        new = service.another()
        if "cannot be reached" not in service.said(new.id):
            break  # nodes take a moment to be led there again
    assert post(new, x=6) == (200, b"42")
    assert "its SHA-256 is" in service.said(new.id)
    assert portal.asked[service.model] == before[service.model] + 1
    assert portal.asked.total() == before.total() + 1  # the other file was there still
    service.fill()
    assert portal.asked.total() == before.total() + 1  # and what was wrong is right again


def test_without_caches_files_come_from_the_portal(service: Service, portal: Portal) -> None:
    try:
        service.end_caches()
        before = Counter(portal.asked)
        new = service.another()
        assert post(new, x=6) == (200, b"42")
        assert "it comes from the portal" in service.said(new.id)
        assert {
            name: portal.asked[name] - before[name] for name in service.contents
        } == dict.fromkeys(service.contents, 1)
    finally:
        service.install()
