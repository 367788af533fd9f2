"""A Docker cluster on a real Engine, with the real agent and the real router."""

import signal
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from django.utils import timezone

from deployments.agent.stopping import stop_replicas
from deployments.engine.containers import Engine
from deployments.errors import Unavailable
from deployments.types import (
    CheckStatus,
    ContainerSpec,
    EngineSpec,
    EnvironmentSpec,
    Phase,
    Resources,
)
from tests.deployments.clusters.authority import issue
from tests.docker.cluster import BROKEN, DockerCluster
from tests.docker.engines import ENGINE, IMAGE, OWN_IMAGE, OwnEngine, docker, ensure_image
from tests.ports import free_port

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(240),
    # the client library leaves a socket to the collector when an Engine does not answer
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Load:
    """Asks over and over while something else happens; what was not answered 200 is kept."""

    def __init__(self, cluster: DockerCluster, clients: int = 3) -> None:
        self.cluster, self.failures, self.answers = cluster, [], []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self.stopping.is_set():
            try:
                answer = self.cluster.score(sleep=0.01)
            except (httpx.HTTPError, ValueError) as error:
                self.failures.append(repr(error))
                continue
            if answer.status_code == 200:
                self.answers.append(answer.json()["text"])
            else:
                self.failures.append(f"{answer.status_code} {answer.text}")

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def test_a_service_is_deployed_scored_updated_under_load_scaled_and_removed(cluster):
    cluster.deploy(cluster.revision(1), count=2)
    cluster.wait_ready(2)
    cluster.wait("it scores", cluster.scores)
    answer = cluster.score().json()
    assert (answer["text"], answer["cwd"]) == ("weights 1", "/slipway/staged/app")
    assert answer["uid"] != 0
    (first, *_) = cluster.ready()
    assert "loaded weights 1" in cluster.text(first)
    confined = docker("inspect", cluster.container_of(first), "--format", "{{json .HostConfig}}")
    for part in (
        '"CapDrop":["ALL"]',
        '"ReadonlyRootfs":true',
        "no-new-privileges",
        '"max-size":"10m"',
    ):
        assert part in confined

    with Load(cluster) as load:
        cluster.wait("load runs", lambda: len(load.answers) > 20)
        cluster.deploy(cluster.revision(2), count=2)
        cluster.wait_ready(2, number=2)
        cluster.wait("the old ones are gone", lambda: len(cluster.replicas()) == 2)
        told = len(load.answers)
        cluster.wait("the new ones answer", lambda: len(load.answers) > told + 20)
    assert load.failures == []
    assert load.answers[0] == "weights 1"
    assert load.answers[-1] == "weights 2"

    cluster.driver.scale("diabetes", "default", 3)
    cluster.wait_ready(3, number=2)
    cluster.driver.scale("diabetes", "default", 2)
    cluster.wait("one is gone", lambda: len(cluster.containers(running=True)) == 2)

    # what is said is kept when its container is gone
    cluster.driver.remove("diabetes")
    cluster.wait("none runs", lambda: cluster.containers() == [])
    assert "loaded weights 1" in cluster.text(first)


def test_a_crash_loop_backs_off_and_says_why_and_keeps_the_last_words(cluster):
    cluster.deploy(cluster.revision(1, BROKEN))
    cluster.wait("two crashes", lambda: any(item.restarts >= 2 for item in cluster.replicas()))
    (replica,) = cluster.replicas()
    assert replica.cause is not None
    assert replica.cause.code == "UserScriptInitFailed"
    assert "the table is empty" in replica.cause.message
    assert "the table is empty" in cluster.text(replica, previous=True)
    assert replica.last_exit is not None
    assert replica.last_exit.code != 0
    # the run and the one before it are kept, not all of them
    cluster.wait("one more", lambda: cluster.replicas()[0].restarts >= 3)
    assert len(cluster.containers()) <= 3


def test_a_replica_that_eats_all_its_memory_is_told_from_one_that_crashes(cluster):
    cluster.deploy(cluster.revision(1))
    cluster.wait_ready(1)
    cluster.wait("it scores", cluster.scores)
    cluster.score(eat=True)
    cluster.wait(
        "it was told",
        lambda: any(item.last_exit and item.last_exit.oom for item in cluster.replicas()),
    )
    (replica,) = cluster.replicas()
    assert replica.cause is not None
    assert replica.cause.code == "PodOutOfMemory"
    cluster.wait_ready(1)
    cluster.wait("it scores again", cluster.scores)


def test_an_image_that_is_nowhere_says_so(cluster):
    missing = EnvironmentSpec("e" * 64, "127.0.0.1:1/slipway/env:none")
    cluster.deploy(cluster.revision(1, environment=missing))
    cluster.wait("it crashed", lambda: any(item.cause for item in cluster.replicas()))
    (replica,) = cluster.replicas()
    assert replica.cause is not None
    assert replica.cause.code == "ImagePullBackOff"
    assert "127.0.0.1:1/slipway/env:none" in replica.cause.message


def test_a_killed_agent_finds_its_containers_again_and_clears_away_strangers(cluster):
    cluster.deploy(cluster.revision(1), count=2)
    cluster.wait_ready(2)
    before = set(cluster.containers(running=True))
    cluster.end("agent", signal.SIGKILL)
    orphan = docker(
        "run", "-d", "--label", f"slipway.cluster={cluster.id}", "--label", "slipway.replica=nobody",
        "--label", "slipway.run=1", "--network", "none", IMAGE, "sleep", "600",
    )  # fmt: skip
    cluster.wait("it scores without an agent", cluster.scores)
    cluster.start("agent")
    cluster.wait(
        "the stranger is gone",
        lambda: orphan not in docker("ps", "-aq", "--no-trunc").split(),
    )
    assert set(cluster.containers(running=True)) == before
    assert [item.restarts for item in cluster.ready()] == [0, 0]
    text = cluster.text(cluster.ready()[0])
    assert text.count("loaded weights 1") == 1  # nothing was copied twice


def test_a_container_that_somebody_removes_is_replaced(cluster):
    cluster.deploy(cluster.revision(1))
    cluster.wait_ready(1)
    docker("rm", "-f", cluster.container_of(cluster.ready()[0]))
    cluster.wait("it was noticed", lambda: any(item.restarts for item in cluster.replicas()))
    cluster.wait("it serves again", lambda: len(cluster.ready()) >= 1)


def test_stopping_ends_all_containers_and_the_next_start_brings_them_back(cluster):
    cluster.deploy(cluster.revision(1), count=2)
    cluster.wait_ready(2)
    cluster.end("agent")
    assert stop_replicas(cluster.root).asked == 2
    assert cluster.containers(running=True) == []
    cluster.start("agent")
    cluster.wait_ready(2)
    assert [item.restarts for item in cluster.ready()] == [0, 0]


def test_a_service_that_finds_no_room_waits_and_says_so(cluster):
    cluster.deploy(cluster.revision(1, resources=Resources(cpu=0.05, memory_gb=0.1, gpu=1)))
    cluster.wait("it waits", lambda: any(item.cause for item in cluster.replicas()))
    (replica,) = cluster.replicas()
    assert replica.phase is Phase.SCHEDULING
    assert replica.cause is not None
    assert "1 GPU" in replica.cause.message


def test_the_checks_pass_and_the_capacity_is_the_engines(cluster):
    cluster.deploy(cluster.revision(1))
    cluster.wait_ready(1)
    checks = list(cluster.driver.check())
    assert [item for item in checks if item.status is not CheckStatus.PASS] == []
    assert "a container runs and is reached" in {item.name for item in checks}
    (node,) = cluster.driver.capacity().nodes
    shown = docker("info", "--format", "{{.Name}} {{.NCPU}}").split()
    assert (node.name, node.cpu_total) == (shown[0], float(shown[1]))
    assert node.cpu_free == pytest.approx(node.cpu_total - 0.05)


def test_an_image_of_a_persons_own_serves_by_its_own_paths(cluster):
    own = ContainerSpec(ensure_image(OWN_IMAGE), 8000, "/predict", "/alive", "/ready")
    cluster.deploy(cluster.own(1, own), count=2)
    cluster.wait_ready(2)
    cluster.wait("it scores", cluster.scores)
    answer = cluster.score(x=1)
    assert answer.text.startswith("own ")
    assert "own server begins" in cluster.text(cluster.ready()[0])
    docker("kill", cluster.container_of(cluster.ready()[0]))
    cluster.wait("it was noticed", lambda: any(item.restarts for item in cluster.replicas()))
    cluster.wait("as many serve again", lambda: len(cluster.ready()) >= 2)  # one more, for a while
    cluster.driver.remove("diabetes")
    cluster.wait("none runs", lambda: cluster.containers() == [])


def test_an_engine_that_restarts_underneath_changes_nothing_that_is_wanted(tmp_path):
    ensure_image()
    engine = OwnEngine()
    engine.start()
    cluster = DockerCluster(tmp_path / "home", engine=engine.url)
    try:
        engine.load(IMAGE)
        cluster.start()
        cluster.deploy(cluster.revision(1), count=2)
        cluster.wait_ready(2)
        engine.stop()
        time.sleep(2.0)  # cycles in which nothing can be seen
        assert len(cluster.driver.stored_replicas()) == 2
        failed = [item for item in cluster.driver.check() if item.status is CheckStatus.FAIL]
        assert failed[0].name == "Engine answers"
        engine.start()
        cluster.wait_ready(2, seconds=90)
        cluster.wait("it scores", cluster.scores)
        assert len(cluster.containers(running=True)) == 2
    finally:
        cluster.stop()
        engine.remove()
    assert engine.url != ENGINE


def test_an_engine_over_tls_is_reached_with_its_certificate_alone(tmp_path):
    began = timezone.now() - timedelta(hours=1)
    valid = {"begins": began, "ends": began + timedelta(days=1)}
    authority = issue("engines", authority=True, **valid)
    server = issue("engine", authority, names=("127.0.0.1",), **valid)
    client = issue("slipway", authority, **valid)
    stranger = issue("stranger", issue("others", authority=True, **valid), **valid)
    for name, text in (("ca", authority.pem), ("cert", server.pem), ("key", server.key_pem)):
        (tmp_path / name).write_text(text)
    url = f"tcp://127.0.0.1:{free_port()}"
    engine = OwnEngine()
    try:
        engine.start(
            "--host", url, "--tlsverify", "--tlscacert", str(tmp_path / "ca"),
            "--tlscert", str(tmp_path / "cert"), "--tlskey", str(tmp_path / "key"),
        )  # fmt: skip
        spec = EngineSpec(url, authority.pem, client.pem, client.key_pem)
        with closing(Engine(spec)) as found:
            assert found.local
            assert found.about().root == str(engine.root / "data")
            assert found.containers("nobody") == []
        for wrong in (
            replace(spec, cert=stranger.pem, key=stranger.key_pem),
            replace(spec, ca=stranger.pem),
        ):
            with closing(Engine(wrong)) as refused, pytest.raises(Unavailable):
                refused.about()
    finally:
        engine.remove()
