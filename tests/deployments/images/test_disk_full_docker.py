"""A build on an Engine whose disk is full: a second dockerd, with a small tmpfs as its disk."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from deployments.environments.changes import create_environment
from deployments.errors import PermanentError
from deployments.images import attempt, builder_script, causes
from deployments.images.builds import ensure_image
from deployments.images.engines import Place
from deployments.images.models import ImageBuild
from deployments.types import EngineSpec
from tests.deployments.images.builder import small_script

pytestmark = [
    pytest.mark.docker,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(230),
    pytest.mark.usefixtures("builds"),
]

_BRIDGE = "slipway-small"


class SmallEngine:
    """Its disk has `size` MiB, which `resize` changes."""

    def __init__(self, folder: Path, size: int) -> None:
        self._disk = folder / "disk"
        self._disk.mkdir()
        self._socket = folder / "engine.sock"
        self.url = f"unix://{self._socket}"
        self._mount(f"size={size}m")
        subprocess.run(["ip", "link", "add", _BRIDGE, "type", "bridge"], check=True)
        subprocess.run(["ip", "addr", "add", "198.18.77.1/24", "dev", _BRIDGE], check=True)
        self._process = subprocess.Popen(
            [
                "dockerd",
                *("--data-root", str(self._disk / "data")),
                *("--exec-root", str(folder / "exec")),
                *("--pidfile", str(folder / "pid")),
                *("-H", self.url),
                # never "none": that would take away the other Engine's bridge
                *(f"--bridge={_BRIDGE}", "--iptables=false", "--ip-masq=false"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def client(self) -> docker.DockerClient:
        deadline = time.monotonic() + 60
        while not self._socket.exists():  # from then on it makes callers wait until it is ready
            assert self._process.poll() is None, "the small Engine ended"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return docker.DockerClient(base_url=self.url, timeout=60)

    def resize(self, size: int) -> None:
        self._mount(f"remount,size={size}m")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._disk)]
        subprocess.run(command, check=True)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)
        subprocess.run(["ip", "link", "delete", _BRIDGE], check=True)
        subprocess.run(["umount", str(self._disk)], check=True)
        # dockerd leaves its network's name behind
        left = self._disk.parent / "exec/netns/default"
        subprocess.run(["umount", str(left)], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def small() -> Iterator[SmallEngine]:
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a second Engine on a small disk needs root and dockerd")
    folder = Path(tempfile.mkdtemp(prefix="engine-"))  # short: it holds sockets
    engine = SmallEngine(folder, 60)
    yield engine
    engine.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_full_disk_is_the_cause_and_the_next_try_with_room_works(
    small: SmallEngine, env: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder_script, "script", lambda plan, settings: small_script(0.1))
    monkeypatch.setattr(attempt.ImageAttempt, "_look_into", lambda self, image: None)
    client = small.client()
    env(docker_host=small.url)
    place = Place(EngineSpec(small.url), runs_there=True)
    environment = create_environment(
        None,
        name="large",
        conda_yaml="dependencies: [numpy]",
        docker_steps="RUN head -c 200000000 /dev/zero >/large",
    )

    def full(step: str) -> bool:
        lines: list[str] = []
        with pytest.raises(PermanentError) as failed:
            ensure_image(environment, place, log=lines.append)
        assert failed.value.code == causes.DISK_FULL, failed.value.message
        assert client.images.list(filters={"label": "slipway.environment"}) == []
        assert client.containers.list(all=True) == []
        assert ImageBuild.objects.get().state == "failed"
        return any(line.startswith(step) for line in lines)

    assert full("Pulling the base image")
    small.resize(520)
    assert full("Step 2/2 : RUN head")
    small.resize(2000)
    build = ensure_image(environment, place, log=lambda line: None)
    assert client.images.get(build.reference).id == build.reference
    client.close()
