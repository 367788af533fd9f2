"""A Docker cluster with its agent and its router, each the product's own command, without a portal."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
from django.conf import settings

from deployments.drivers import engine_file
from deployments.drivers.docker import DockerDriver
from deployments.drivers.docker_checks import network_of
from deployments.drivers.engine_file import EngineFile
from deployments.types import (
    AuthSpec,
    ContainerSpec,
    EngineSpec,
    EnvironmentSpec,
    ModelSpec,
    Phase,
    Probe,
    Replica,
    Resources,
    RevisionSpec,
    Scaling,
    ServiceSpec,
    VersionSpec,
)
from tests.deployments.drivers.test_process import FolderBlobs, zipped
from tests.docker.engines import ENGINE, IMAGE, docker
from tests.ports import free_port

SCORE = b"""
import json, os, time
def init():
    global text
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.txt")) as file:
        text = file.read()
    print("loaded", text)
def run(data):
    asked = json.loads(data)
    time.sleep(asked.get("sleep", 0))
    if asked.get("exit"):
        os.kill(1, 15) if asked["exit"] == "term" else os._exit(asked["exit"])
    if asked.get("eat"):
        kept = []
        while True:
            kept.append(b"x" * 2**20)
    return {"text": text, "uid": os.getuid(), "cwd": os.getcwd()}
"""
BROKEN = b"""
def init():
    raise RuntimeError("the table is empty")
def run(data):
    return 1
"""


class DockerCluster:
    """`stop` ends its processes and removes what it has on its Engine."""

    def __init__(
        self,
        home: Path,
        *,
        engine: str = ENGINE,
        name: str = "docks",
        spec: EngineSpec | None = None,
    ) -> None:
        """`engine` is how the tests reach it, `spec` how the cluster does where that differs."""
        self.home, self.engine, self.name = home, engine, name
        self.root = home / "clusters" / name
        self.id = f"test{os.getpid()}{time.monotonic_ns()}"
        engine_file.write(self.root, EngineFile(self.id, spec or EngineSpec(engine)))
        self.driver = DockerDriver(self.root)
        self.network = network_of(name, self.id)
        self.blobs = FolderBlobs(home / "blobs")
        self.port, self.generation = free_port(), 0
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    # ---- processes ----------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        given = [self.name, "--kind", "docker", "--settings", "portal.settings_rowless"]
        commands = {
            "agent": ["run_agent", *given],
            "router": [
                "run_router",
                *given,
                "--port",
                str(self.port),
                "--tls-port",
                str(free_port()),
            ],
        }
        for name in names or ("agent", "router"):
            with (self.home / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "manage.py", *commands[name]],
                    cwd=settings.CHECKOUT,
                    env={**os.environ, "SLIPWAY_HOME": str(self.home)},
                    stdout=log,
                    stderr=log,
                )

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        process = self.processes.pop(name, None)
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=20)

    def stop(self) -> None:
        for name in list(self.processes):
            self.end(name)
        subprocess.run(
            [sys.executable, "manage.py", "stop_router", self.name, "--wait", "1"],
            cwd=settings.CHECKOUT,
            env={**os.environ, "SLIPWAY_HOME": str(self.home)},
            check=False,
            capture_output=True,
            timeout=60,
        )

    def log(self, name: str = "agent") -> str:
        return (self.home / f"{name}.log").read_text()

    # ---- what is wanted -----------------------------------------------------------------------

    def revision(self, number: int, score: bytes = SCORE, **changes: object) -> RevisionSpec:
        model = self.blobs.put(f"weights {number}".encode(), "model.txt")
        plain = RevisionSpec(
            service="diabetes",
            number=number,
            source=self.blobs.put(zipped({"score.py": score}), "source.zip"),
            entry_script="score.py",
            models=(ModelSpec("ridge", number, (model,)),),
            environment=EnvironmentSpec("e" * 64, IMAGE),
            resources=Resources(cpu=0.05, memory_gb=0.1, memory_gb_limit=0.3),
            probe=Probe(period_seconds=1, failure_threshold=2),
        )
        return replace(plain, **changes)  # type: ignore[arg-type]

    def own(self, number: int, container: ContainerSpec) -> RevisionSpec:
        return self.revision(number, container=container, environment=EnvironmentSpec("", ""))

    def deploy(self, revision: RevisionSpec, count: int = 1, most: int = 5) -> None:
        """`most` is as far as the autoscaler may go."""
        self.generation += 1
        if revision.container is None:
            self.driver.stage(revision, self.blobs)
        version = VersionSpec("default", revision, Scaling(minimum=count, maximum=max(count, most)))
        auth = AuthSpec(key_enabled=False)
        self.driver.apply(
            ServiceSpec(revision.service, (version,), auth, generation=self.generation)
        )

    # ---- what is ------------------------------------------------------------------------------

    def replicas(self) -> list[Replica]:
        seen = self.driver.observe()
        return [item for service in seen.services for item in service.replicas]

    def ready(self, number: int | None = None) -> list[Replica]:
        return [
            item
            for item in self.replicas()
            if item.phase is Phase.READY and number in (None, item.revision)
        ]

    def wait(self, what: str, until: Callable[[], bool], seconds: float = 60.0) -> float:
        """Seconds it took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if until():
                return time.monotonic() - began
            time.sleep(0.05)
        shown = [(item.id, item.phase, item.restarts, item.cause) for item in self.replicas()]
        raise AssertionError(f"not within {seconds:g} s: {what}\n{shown}\n{self.log()[-4000:]}")

    def wait_ready(self, count: int, number: int | None = None, seconds: float = 60.0) -> float:
        return self.wait(
            f"{count} ready", lambda: len(self.ready(number)) == count, seconds=seconds
        )

    def score(self, **asked: object) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}/api/v1/service/diabetes/score"
        return httpx.post(url, json=asked, timeout=30)

    def scores(self) -> bool:
        try:
            return self.score().status_code == 200
        except httpx.TransportError:
            return False

    def containers(self, *, running: bool = False) -> list[str]:
        """Names of its containers."""
        shown = ("ps", "--filter", f"label=slipway.cluster={self.id}", "--format", "{{.Names}}")
        words = shown if running else (shown[0], "-a", *shown[1:])
        return docker(*words, engine=self.engine).split()

    def container_of(self, replica: Replica) -> str:
        found = ("ps", "-q", "--filter", f"label=slipway.replica={replica.id}")
        return docker(*found, engine=self.engine).split()[0]

    def text(self, replica: Replica, *, previous: bool = False) -> str:
        page = self.driver.logs(replica.id, previous=previous)
        return "\n".join(line.text for line in page.lines)
