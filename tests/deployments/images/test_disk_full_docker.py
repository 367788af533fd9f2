"""A build on an Engine whose disk is full: a second dockerd, with a small tmpfs as its disk."""

from collections.abc import Callable, Iterator

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
from tests.docker.engines import OwnEngine

pytestmark = [
    pytest.mark.docker,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(230),
    pytest.mark.usefixtures("builds"),
]


@pytest.fixture
def small() -> Iterator[OwnEngine]:
    engine = OwnEngine(disk_mib=60)
    try:
        engine.start()
        yield engine
    finally:
        engine.remove()


def test_a_full_disk_is_the_cause_and_the_next_try_with_room_works(
    small: OwnEngine, env: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder_script, "script", lambda plan, settings: small_script(0.1))
    monkeypatch.setattr(attempt.ImageAttempt, "_look_into", lambda self, image: None)
    client = docker.DockerClient(base_url=small.url, timeout=60)
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
    small.resize_disk(520)
    assert full("Step 2/2 : RUN head")
    small.resize_disk(2000)
    build = ensure_image(environment, place, log=lambda line: None)
    assert client.images.get(build.reference).id == build.reference
    client.close()
