"""A real deployment, with the worker, the controller or the agent killed -9 half-way.

Redis, an rq worker, the controller, the agent and the scoring server are the real ones, each in a
process of its own; the router's word on rotation is spoken by a thread, so that nothing depends on
HAProxy here. Every process is stopped by its own pid.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from deployments.drivers.process import ProcessDriver
from deployments.errors import SlipwayError
from deployments.types import Phase, Replica, ReplicaRoute, RouteReport, RouteState
from tests.ports import free_range

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).resolve().parents[2]
PORTS = free_range()
QUICK = "def init(): ...\ndef run(data): return data.upper()\n"
SLOW = "import time\ndef init(): time.sleep(3)\ndef run(data): return data.upper()\n"
BROKEN = "import nowhere_to_be_found\ndef init(): ...\ndef run(data): ...\n"


class World:
    """One SLIPWAY_HOME and the processes started in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.driver = ProcessDriver(home / "clusters" / "local")
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.people: subprocess.Popen[str] | None = None
        self._stop = threading.Event()
        self._router = threading.Thread(target=self._speak_for_the_router, daemon=True)
        self._router.start()

    def start(self, *names: str) -> None:
        commands = {
            "redis": [
                "redis-server", "--port", "0", "--save", "", "--appendonly", "no",
                "--unixsocket", str(self.home / "run" / "redis.sock"), "--dir", str(self.home),
            ],
            "worker": [sys.executable, "manage.py", "rqworker", "default", "--skip-checks"],
            "controller": [sys.executable, "manage.py", "run_controller", "--period", "0.3"],
            "agent": [sys.executable, "manage.py", "run_agent", "local"],
        }  # fmt: skip
        for name in names:
            with (self.home / f"{name}.out").open("ab") as out:
                self.running[name] = subprocess.Popen(
                    commands[name], cwd=CHECKOUT, env=environ(self.home), stdout=out, stderr=out
                )

    def kill(self, name: str) -> None:
        """SIGKILL, and for the worker its job's process as well: nobody gets to say goodbye."""
        process = self.running.pop(name)
        children = psutil.Process(process.pid).children() if name == "worker" else []
        process.send_signal(signal.SIGKILL)
        for child in children:
            child.kill()
        process.wait(30)

    def prepare(self) -> None:
        """Start the process that does what people do; it makes the home first."""
        with (self.home / "people.out").open("ab") as out:
            self.people = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.world"],
                cwd=CHECKOUT,
                env=environ(self.home),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
            )
        while (line := self.people.stdout.readline()) != "ready\n":
            assert line, self.said()

    def deploy(self, name: str, script: str = QUICK, bulk: int = 0) -> int:
        """The deployment's id."""
        asked = json.dumps({"name": name, "script": script, "bulk": bulk})
        self.people.stdin.write(asked + "\n")
        self.people.stdin.flush()
        while not (answer := self.people.stdout.readline()).strip().isdigit():
            assert answer, self.said()
        return int(answer)

    def row(self, deployment: int) -> dict[str, str]:
        columns = "state, step, cause_code, cause, evidence, attempts"
        with closing(sqlite3.connect(self.home / "db.sqlite3", timeout=30)) as database:
            database.row_factory = sqlite3.Row
            return dict(
                database.execute(
                    f"SELECT {columns} FROM deployments_deployment WHERE id = ?", [deployment]
                ).fetchone()
            )

    def service(self, name: str) -> dict[str, str]:
        with closing(sqlite3.connect(self.home / "db.sqlite3", timeout=30)) as database:
            database.row_factory = sqlite3.Row
            return dict(
                database.execute(
                    "SELECT state, state_cause FROM deployments_service WHERE name = ?", [name]
                ).fetchone()
            )

    def wait_for(self, what: str, test: Callable[[], object], seconds: float = 180.0) -> None:
        deadline = time.monotonic() + seconds
        while not test():
            assert time.monotonic() < deadline, f"{what} did not come\n{self.said()}"
            time.sleep(0.01)

    def replicas(self, service: str) -> list[Replica]:
        found = self.driver.observe()
        return [r for s in found.services if s.spec.name == service for r in s.replicas]

    def score(self, service: str, text: str) -> str:
        (ready,) = [r for r in self.replicas(service) if r.phase is Phase.READY]
        request = urllib.request.Request(
            f"http://{ready.address}/score",
            data=text.encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def log(self, deployment: int) -> list[str]:
        path = self.home / "logs" / "deployments" / f"{deployment}.jsonl"
        return [json.loads(line)["text"] for line in path.read_text().splitlines()]

    def said(self) -> str:
        """The end of everything that was written, for a test that failed."""
        paths = [*self.home.glob("*.out"), *self.home.glob("clusters/local/*/*/log/*")]
        return "\n".join(f"== {path}\n{path.read_text()[-2000:]}" for path in paths)

    def close(self) -> None:
        self._stop.set()
        self._router.join(5)
        for name in ("worker", "controller", "agent"):
            if name in self.running:
                self.kill(name)
        subprocess.run(
            [sys.executable, "manage.py", "stop_replicas", "local"],
            cwd=CHECKOUT,
            env=environ(self.home),
            capture_output=True,
            timeout=60,
        )
        if "redis" in self.running:
            self.kill("redis")
        if self.people is not None:
            self.people.communicate()  # ends at the end of its input

    def _speak_for_the_router(self) -> None:
        while not self._stop.wait(0.1):
            with suppress(SlipwayError, OSError):
                seen = self.driver.observe()
                routes = [
                    ReplicaRoute(r.id, RouteState.IN_ROTATION, 0)
                    for service in seen.services
                    for r in service.replicas
                    if r.phase is Phase.READY
                ]
                self.driver.publish_routes(RouteReport(time.time(), tuple(routes)))


def environ(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "SLIPWAY_HOME": str(home),
        "SLIPWAY_REPLICA_PORTS": PORTS,
        "DJANGO_SETTINGS_MODULE": "tests.e2e.process_settings",
        "PYTHONPATH": str(CHECKOUT),
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A home with a cluster, a model and a built environment, and everything running in it."""
    made = World(tmp_path_factory.mktemp("home"))
    try:
        made.prepare()
        made.start("redis", "agent", "worker", "controller")
        yield made
    finally:
        made.close()


def test_a_deployment_comes_up_and_an_update_with_an_import_error_leaves_it_serving(world):
    first = world.deploy("words")
    world.wait_for("success", lambda: world.row(first)["state"] == "succeeded")
    assert world.service("words")["state"] == "Healthy"
    assert world.score("words", "abc") == "ABC"
    assert world.log(first)[-2:] == [
        "Succeeded",
        'AKS service creation operation finished, operation "Succeeded"',
    ]
    second = world.deploy("words", BROKEN)
    world.wait_for("failure", lambda: world.row(second)["state"] == "failed")
    row = world.row(second)
    assert row["cause_code"] == "UserScriptImportError"
    assert "nowhere_to_be_found" in row["cause"]
    assert "Traceback" in row["evidence"]
    assert world.score("words", "still") == "STILL"
    world.wait_for("calm", lambda: world.service("words")["state"] == "Healthy")
    assert "revision 1 keeps serving" in world.service("words")["state_cause"]


@pytest.mark.parametrize("step", ["zipping", "applying"])
def test_the_worker_killed_in_a_step(world, step):
    deployment = world.deploy(f"worker-{step}", bulk=25)
    world.wait_for(step, lambda: world.row(deployment)["step"] == step)
    world.kill("worker")
    assert world.row(deployment)["state"] == "running"
    world.start("worker")
    world.wait_for("success", lambda: world.row(deployment)["state"] == "succeeded")
    assert world.row(deployment)["attempts"] == 2
    assert world.score(f"worker-{step}", "abc") == "ABC"
    said = world.log(deployment)
    assert "Taken up again." in said
    assert len([line for line in said if line.startswith("Project folder:")]) == 1


def test_the_queue_lost_with_its_job(world):
    world.kill("worker")
    deployment = world.deploy("queue")
    world.kill("redis")
    world.start("redis", "worker")
    world.wait_for("success", lambda: world.row(deployment)["state"] == "succeeded")


def test_the_controller_killed_while_a_replica_loads(world):
    deployment = world.deploy("control", SLOW)
    world.wait_for("loading", lambda: world.row(deployment)["step"] == "loading")
    world.kill("controller")
    time.sleep(0.5)
    assert world.row(deployment)["state"] == "rolling"
    world.start("controller")
    world.wait_for("success", lambda: world.row(deployment)["state"] == "succeeded")
    assert world.service("control")["state"] == "Healthy"
    assert world.score("control", "abc") == "ABC"


def test_the_agent_killed_while_a_replica_loads(world):
    deployment = world.deploy("agent", SLOW)

    def loading() -> bool:
        return any(r.phase is Phase.LOADING for r in world.replicas("agent"))

    world.wait_for("loading", loading)
    (before,) = world.replicas("agent")
    world.kill("agent")
    world.start("agent")
    world.wait_for("success", lambda: world.row(deployment)["state"] == "succeeded")
    (after,) = world.replicas("agent")
    assert after.id == before.id
    assert after.restarts == 0
    assert world.score("agent", "abc") == "ABC"
