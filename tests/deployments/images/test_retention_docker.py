"""Old images go from a real Engine; what runs, what is needed and what is another's stays."""

import contextlib
from collections.abc import Callable
from datetime import timedelta

import docker
import pytest
from django.utils import timezone

from deployments.environments.changes import create_environment, delete_environment
from deployments.environments.models import Environment
from deployments.errors import Conflict
from deployments.images import attempt, builder_script, retention
from deployments.images.builds import ensure_image
from deployments.images.engines import Place
from deployments.images.models import ImageBuild
from deployments.types import EngineSpec
from tests.deployments.images.builder import small_script
from tests.deployments.images.conftest import BASE, ENGINE

pytestmark = [
    pytest.mark.docker,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(170),
    pytest.mark.usefixtures("builds"),
]

HERE = Place(EngineSpec(ENGINE), runs_there=True)


def on_engine(engine: docker.DockerClient, environment: Environment) -> int:
    wanted = {"label": f"slipway.environment={environment.hash}"}
    return len(engine.images.list(filters=wanted))


def test_old_images_and_left_over_builders_go_and_what_a_container_runs_stays(
    engine: docker.DockerClient,
    env: Callable[..., None],
    tidy: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builder_script, "script", lambda plan, settings: small_script(0.1))
    monkeypatch.setattr(attempt.ImageAttempt, "_look_into", lambda self, image: None)
    env(image_keep=0, image_days=1)
    old, running, new = (
        create_environment(None, name=name, conda_yaml=f"dependencies: [{name}]")
        for name in ("numpy", "scipy", "pandas")
    )
    for environment in (old, running, new):
        tidy(environment.hash)
        ensure_image(environment, HERE, log=lambda line: None)
    long_ago = timezone.now() - timedelta(days=2)
    ImageBuild.objects.exclude(hash=new.hash).update(last_used_at=long_ago)
    container = engine.containers.create(ImageBuild.objects.get(hash=running.hash).reference, "x")
    left = engine.containers.create(BASE, "x", labels={"slipway.build": old.hash})
    strange = engine.containers.create(BASE, "x", labels={"slipway.build": "0" * 64})
    try:
        assert retention.tidy() >= 2
        assert [on_engine(engine, item) for item in (old, running, new)] == [0, 1, 1]
        assert ImageBuild.objects.get(hash=old.hash).state == "removed"
        assert ImageBuild.objects.get(hash=new.hash).state == "ready"
        with pytest.raises(docker.errors.NotFound):
            left.reload()
        strange.reload()  # another Slipway's, which shares the Engine
        build = ImageBuild.objects.get(hash=new.hash)
        monkeypatch.setattr(retention, "needed_hashes", lambda hashes: set(hashes))
        with pytest.raises(Conflict, match="can be rolled back to it"):
            retention.remove(build)
        again = ImageBuild.objects.get(hash=new.hash)
        assert (again.state, again.reference) == ("ready", build.reference)

        # a definition that is deleted takes its image and its row with it, at once; one that a container
        # was made from goes when that is gone
        delete_environment(None, new)
        delete_environment(None, running)
        assert retention.tidy() >= 1
        assert [on_engine(engine, item) for item in (new, running)] == [0, 1]
        assert not ImageBuild.objects.filter(hash=new.hash).exists()
        assert ImageBuild.objects.get(hash=running.hash).state == "removed"
        container.remove(force=True)
        retention.tidy()
        assert on_engine(engine, running) == 0
        assert not ImageBuild.objects.filter(hash=running.hash).exists()
    finally:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True)
        strange.remove(force=True)
