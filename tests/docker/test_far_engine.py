"""A Docker cluster whose Engine shares no file and no socket with this machine: TLS, volumes, ports."""

import dataclasses
import json
import signal
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from deployments.agent.dismantling import dismantle
from deployments.agent.stopping import stop_replicas
from deployments.environments.changes import create_environment
from deployments.images import attempt, builder_script, builds
from deployments.images.engines import Place
from deployments.types import CheckStatus, ContainerSpec, EngineSpec
from tests.deployments.clusters.authority import issue
from tests.deployments.images.builder import small_script
from tests.docker.cluster import DockerCluster
from tests.docker.engines import IMAGE, OWN_IMAGE, OwnEngine, docker, ensure_image
from tests.docker.test_docker_cluster import Load
from tests.ports import free_port

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def far(tmp_path_factory) -> Iterator[tuple[OwnEngine, EngineSpec]]:
    """An Engine that takes TLS on an address that is not loopback."""
    ensure_image()
    folder = tmp_path_factory.mktemp("keys")
    began = timezone.now() - timedelta(hours=1)
    valid = {"begins": began, "ends": began + timedelta(days=1)}
    engine = OwnEngine()
    try:
        authority = issue("engines", authority=True, **valid)
        server = issue("engine", authority, names=(engine.address,), **valid)
        client = issue("slipway", authority, **valid)
        for name, text in (("ca", authority.pem), ("cert", server.pem), ("key", server.key_pem)):
            (folder / name).write_text(text)
        url = f"tcp://{engine.address}:{free_port()}"
        engine.start(
            "--host", url, "--tlsverify", "--tlscacert", str(folder / "ca"),
            "--tlscert", str(folder / "cert"), "--tlskey", str(folder / "key"),
        )  # fmt: skip
        engine.load(IMAGE)
        spec = EngineSpec(url, authority.pem, client.pem, client.key_pem)
        assert not spec.local
        yield engine, spec
    finally:
        engine.remove()


@pytest.fixture
def cluster(far, tmp_path) -> Iterator[DockerCluster]:
    engine, spec = far
    made = DockerCluster(tmp_path / "home", engine=engine.url, spec=spec)
    made.start()
    yield made
    made.stop()
    dismantle(made.root)
    assert docker("ps", "-aq", engine=engine.url) == ""
    assert docker("volume", "ls", "-q", engine=engine.url) == ""
    assert made.network not in docker("network", "ls", "--format", "{{.Name}}", engine=engine.url)


def test_a_service_runs_on_another_machine_through_all_its_life(cluster, far):
    engine, _ = far
    cluster.deploy(cluster.revision(1), count=2, most=2)
    cluster.wait_ready(2)
    cluster.wait("it scores", cluster.scores)
    answer = cluster.score().json()
    assert (answer["text"], answer["cwd"]) == ("weights 1", "/slipway/staged/app")
    assert answer["uid"] != 0
    (first, second) = cluster.ready()
    assert "loaded weights 1" in cluster.text(first)
    shown = json.loads(docker("inspect", cluster.container_of(first), engine=engine.url))[0]
    assert {item["Type"] for item in shown["Mounts"]} == {"volume"}
    writable = [item["Destination"] for item in shown["Mounts"] if item["RW"]]
    assert writable == ["/slipway/told"]

    checks = list(cluster.driver.check())
    assert [item for item in checks if item.status is CheckStatus.FAIL] == []
    assert {item.name: item.status for item in checks}["a container runs and is reached"] is (
        CheckStatus.PASS
    )

    with Load(cluster, clients=2) as load:
        cluster.wait("load runs", lambda: len(load.answers) > 10)
        cluster.deploy(cluster.revision(2), count=2, most=2)
        cluster.wait_ready(2, number=2)
        cluster.wait("the old ones are gone", lambda: len(cluster.replicas()) == 2)
        told = len(load.answers)
        cluster.wait("the new ones answer", lambda: len(load.answers) > told + 10)
    assert load.failures == []
    assert load.answers[-1] == "weights 2"

    cluster.deploy(cluster.revision(2), count=3, most=3)
    cluster.wait_ready(3, number=2)
    cluster.deploy(cluster.revision(2), count=2, most=2)
    cluster.wait("one is gone", lambda: len(cluster.replicas()) == 2)

    # a killed agent finds what runs, and one that ends in use is started again
    cluster.end("agent", signal.SIGKILL)
    cluster.wait("it scores without an agent", cluster.scores)
    cluster.start("agent")
    (replica, _) = cluster.ready()
    docker("kill", cluster.container_of(replica), engine=engine.url)
    cluster.wait("it was noticed", lambda: any(item.restarts for item in cluster.replicas()))
    cluster.wait_ready(2)
    cluster.wait("it scores again", cluster.scores)

    cluster.end("agent")
    assert stop_replicas(cluster.root).asked == 2
    assert cluster.containers(running=True) == []
    cluster.start("agent")
    cluster.wait_ready(2)
    cluster.driver.remove("diabetes")
    cluster.wait("none runs", lambda: cluster.containers() == [])


def test_nobody_but_the_router_is_served_on_a_replicas_port(cluster, far):
    engine, _ = far
    cluster.deploy(cluster.revision(1))
    cluster.wait_ready(1)
    cluster.wait("it scores", cluster.scores)
    (replica,) = cluster.ready()
    shown = json.loads(docker("inspect", cluster.container_of(replica), engine=engine.url))[0]
    ports = shown["NetworkSettings"]["Ports"]
    assert list(ports) == ["5001/tcp"]
    port = int(ports["5001/tcp"][0]["HostPort"])
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    with socket.create_connection((engine.address, port), timeout=10) as plain:
        plain.sendall(head)
        assert b"200" not in plain.recv(4096)[:12]
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((engine.address, port), timeout=10) as made,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
        anybody.wrap_socket(made) as without,
    ):
        without.sendall(head)
        without.recv(4096)
    assert cluster.score().status_code == 200

    # who begins a handshake and says no more holds the only worker for 5 s, and not for good
    with socket.create_connection((engine.address, port), timeout=10) as silent:
        silent.sendall(b"\x16\x03\x01\x02\x00\x01")
        cluster.wait("it scores all the same", cluster.scores, seconds=20)


def test_an_image_of_a_persons_own_is_refused_there(cluster):
    own = ContainerSpec(OWN_IMAGE, 8000, "/predict", "/alive", "/ready")
    cluster.deploy(cluster.own(1, own))
    cluster.wait("it says so", lambda: any(item.cause for item in cluster.replicas()))
    (replica,) = cluster.replicas()
    assert replica.cause is not None
    assert replica.cause.code == "ImageNotProtected"
    assert cluster.containers() == []


@pytest.mark.django_db(transaction=True)
def test_an_image_is_built_on_that_engine_and_its_packages_are_listed(far, monkeypatch):
    engine, spec = far
    monkeypatch.setattr(
        settings, "ENV", dataclasses.replace(settings.ENV, base_image=IMAGE, build_network="host")
    )
    monkeypatch.setattr(builder_script, "script", lambda plan, settings: small_script(0.1))
    environment = create_environment(
        None, name="there", conda_yaml="dependencies: [numpy]", docker_steps="RUN true"
    )
    try:
        build = builds.ensure_image(
            environment, Place(spec, runs_there=True), log=lambda line: None
        )
        assert build.reference in docker("images", "-q", "--no-trunc", engine=engine.url)
        assert build.sbom is not None
        listed = {item["name"] for item in build.sbom["components"]}
        assert "azureml-inference-server-http" in listed
    finally:
        for image in docker(
            "images", "-q", "--filter", "label=slipway.environment", engine=engine.url
        ).split():
            docker("rmi", "-f", image, engine=engine.url)
        docker("volume", "rm", "-f", attempt.CACHE_VOLUME, engine=engine.url)
