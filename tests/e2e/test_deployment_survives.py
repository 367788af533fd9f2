"""A real deployment, with the worker, the controller or the agent killed -9 half-way.

Redis, an rq worker, the controller, the agent and the scoring server are the real ones, each in a
process of its own; the router's word on rotation is spoken by a thread, so that nothing depends on
HAProxy here. Every process is stopped by its own pid.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deployments.errors import SlipwayError
from deployments.types import Phase, ReplicaRoute, RouteReport, RouteState
from tests import unix_http
from tests.e2e.processes import Processes

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(600)]

SLOW = "import time\ndef init(): time.sleep(3)\ndef run(data): return data.upper()\n"
BROKEN = "import nowhere_to_be_found\ndef init(): ...\ndef run(data): ...\n"


class World(Processes):
    """The processes, and a thread that says that what is ready is in rotation."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._stop = threading.Event()
        self._router = threading.Thread(target=self._speak_for_the_router, daemon=True)
        self._router.start()

    def score(self, service: str, text: str) -> str:
        (ready,) = [r for r in self.replicas(service) if r.phase is Phase.READY]
        status, answer = unix_http.score(ready.address, text.encode())
        assert status == 200, answer
        return json.loads(answer)

    def log(self, deployment: int) -> list[str]:
        path = self.home / "logs" / "deployments" / f"{deployment}.jsonl"
        return [json.loads(line)["text"] for line in path.read_text().splitlines()]

    def close(self) -> None:
        self._stop.set()
        self._router.join(5)
        super().close()

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


@pytest.mark.faults
@pytest.mark.parametrize("step", ["zipping", "applying"])
def test_the_worker_killed_in_a_step(world, step):
    deployment = world.deploy(f"worker-{step}", bulk=12)
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


@pytest.mark.faults
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


@pytest.mark.faults
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
