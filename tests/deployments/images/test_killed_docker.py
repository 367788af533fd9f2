"""Workers that build the same image, some killed with -9: in the pull, the install, the push."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.deployments.images.conftest import BASE, ENGINE
from tests.deployments.images.gate import Gate
from tests.deployments.images.registry_server import RegistryServer

pytestmark = [pytest.mark.docker, pytest.mark.timeout(170)]

CHECKOUT = Path(__file__).resolve().parents[3]
Process = "subprocess.Popen[str]"


class World:
    """A home with one environment and a registry behind a gate."""

    def __init__(self, home: Path, gate: Gate, registry: RegistryServer, base: str) -> None:
        self.home, self.gate, self.registry, self.base = home, gate, registry, base
        self._running: list[subprocess.Popen[str]] = []
        self.hash = self.finish(self.start("prepare", f"127.0.0.1:{gate.port}", base))["hash"]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.deployments.images.builder", *arguments],
            cwd=CHECKOUT,
            env={
                **os.environ,
                "SLIPWAY_HOME": str(self.home),
                "DJANGO_SETTINGS_MODULE": "tests.deployments.environments.process_settings",
                "SLIPWAY_LOG_LEVEL": "ERROR",
                "SLIPWAY_DOCKER_HOST": ENGINE,
                "SLIPWAY_BASE_IMAGE": BASE,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    def finish(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return json.loads(output)

    def kill(self, process: "subprocess.Popen[str]") -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def lines(self) -> list[str]:
        path = self.home / "logs/environments" / f"{self.hash}.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line)["text"] for line in text.splitlines()]

    def await_line(self, start: str) -> None:
        wait_for(lambda: any(line.startswith(start) for line in self.lines()))


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def world(
    tmp_path: Path,
    engine: docker.DockerClient,
    start_registry: Callable[..., RegistryServer],
    tidy: Callable[[str], None],
) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(base: str = "") -> World:
        registry = start_registry()
        gate = Gate(int(registry.address.rpartition(":")[2]))
        made.append(World(tmp_path / "home", gate, registry, base.format(port=gate.port)))
        tidy(made[-1].hash)
        return made[-1]

    yield make
    for item in made:
        item.stop()
        item.gate.shut_down()


def left_of(engine: docker.DockerClient, hash_: str) -> list[Any]:
    wanted = {"label": f"slipway.build={hash_}"}
    return [
        *engine.api.containers(all=True, filters=wanted),
        *engine.api.images(filters=wanted),
    ]


def whole(world: World, engine: docker.DockerClient, outcome: dict[str, Any]) -> bool:
    """Built, pushed, and nothing half-made left."""
    assert "error" not in outcome, outcome
    assert world.registry.copies("tests/env") == [world.hash]
    assert left_of(engine, world.hash) == []
    assert world.finish(world.start("show"))["state"] == "ready"
    return bool(engine.images.get(outcome["reference"]))


def test_two_that_need_the_same_new_image_build_it_once_and_both_see_its_log(
    world: Callable[..., World], engine: docker.DockerClient
) -> None:
    here = world()
    outcomes = [here.finish(process) for process in [here.start("build", "2") for _ in range(2)]]
    assert outcomes[0]["reference"] == outcomes[1]["reference"]
    for outcome in outcomes:
        shown = [line for line in outcome["lines"] if line.startswith("line ")]
        assert shown == [f"line {number}" for number in range(5)]
    assert here.lines().count("line 0") == 1
    assert whole(here, engine, outcomes[0])


def test_one_killed_while_it_installs_is_followed_by_the_next_and_leaves_nothing(
    world: Callable[..., World], engine: docker.DockerClient
) -> None:
    here = world()
    first = here.start("build", "60")
    here.await_line("line 0")
    second = here.start("build", "0")  # it waits, and takes over
    here.kill(first)
    assert whole(here, engine, here.finish(second))


def test_one_killed_in_the_push_is_followed_by_one_that_pushes_what_is_built(
    world: Callable[..., World], engine: docker.DockerClient
) -> None:
    here = world()
    first = here.start("build", "0.5")
    here.await_line("line 0")
    here.gate.close()
    here.await_line("Pushing ")
    assert here.gate.held.wait(60)
    here.kill(first)
    here.gate.open()
    assert here.registry.copies("tests/env") in ([], [here.hash])
    assert whole(here, engine, here.finish(here.start("build", "0")))


def test_one_killed_while_the_base_image_is_pulled_is_followed_by_the_next(
    world: Callable[..., World], engine: docker.DockerClient, tmp_path: Path
) -> None:
    here = world(base="127.0.0.1:{port}/slow/base:1")
    _push_small_base(engine, here.base, tmp_path)
    here.gate.close()
    first = here.start("build", "0")
    here.await_line("Pulling the base image")
    assert here.gate.held.wait(60)
    here.kill(first)
    here.gate.open()
    outcome = here.finish(here.start("build", "0"))
    engine.images.remove(here.base, force=True)
    assert whole(here, engine, outcome)


def _push_small_base(engine: docker.DockerClient, name: str, folder: Path) -> None:
    """The base image with a layer of its own, in the registry and no more on the Engine."""
    folder = folder / "base"
    folder.mkdir()
    (folder / "blob").write_bytes(os.urandom(4 * 2**20))
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nCOPY blob /blob\n")
    engine.images.build(path=str(folder), tag=name)
    engine.images.push(name)
    engine.images.remove(name, force=True)
    shutil.rmtree(folder)
