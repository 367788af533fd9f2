"""The image step of a deployment on a cluster of containers: what its log and its timeline say."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.utils import timezone

from deployments.clusters.models import Cluster, Sku
from deployments.environments.changes import create_environment
from deployments.environments.models import BuildState, EnvironmentBuild
from deployments.errors import TemporaryError
from deployments.images.models import ImageBuild, Registry
from deployments.pipeline import steps
from deployments.services import specs
from deployments.services.models import Deployment, Revision, Service


@dataclass
class Lines:
    """A deployment's log in memory."""

    texts: list[str] = field(default_factory=list)

    def write(self, text: str, source: str = "pipeline") -> None:
        self.texts.append(text if source == "pipeline" else f"{source}: {text}")


@pytest.fixture
def run(db: None) -> steps.Run:
    sku = Sku.objects.create(name="This machine", family="CPU")
    cluster = Cluster.objects.create(
        name="docker", kind="docker", sku=sku, router_url="http://127.0.0.1:1"
    )
    service = Service.objects.create(name="diabetes", cluster=cluster)
    environment = create_environment(None, name="plain", pip_requirements="numpy")
    revision = Revision.objects.create(service=service, number=1, environment=environment)
    deployment = Deployment.objects.create(service=service, revision=revision)
    return steps.Run(deployment, service, revision, Lines(), lambda: None)  # type: ignore[arg-type]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the images' room gives: `answer(registry=row, found=True)`."""

    def give(*, lines: tuple[str, ...] = (), started: bool = True, **values: Any) -> None:
        def ensure(environment: Any, place: Any, *, log: Any, check: Any) -> ImageBuild:
            for line in lines:
                log(line)
            check()
            given = {"state": BuildState.READY, "reference": "r/env@sha256:1", **values}
            given["started_at"] = timezone.now() if started else None
            return ImageBuild.objects.update_or_create(hash=environment.hash, defaults=given)[0]

        monkeypatch.setattr("deployments.images.builds.ensure_image", ensure)

    return give


@pytest.fixture
def registry(db: None) -> Registry:
    return Registry.objects.create(name="company", address="registry.example.com")


def test_an_image_that_is_built_is_told_in_azures_words(
    run: steps.Run, answer: Callable[..., None], registry: Registry
) -> None:
    answer(lines=("Looked for it: not there", "Building image 123.", "Step 1"), registry=registry)
    assert steps.image(run).detail == "built, pushed to company"
    assert run.log.texts == [
        "build: Looked for it: not there",
        "Building image..",
        "build: Building image 123.",
        "build: Step 1",
        "The image is r/env@sha256:1.",
    ]


def test_one_that_is_found_in_a_registry_is_not_built(
    run: steps.Run, answer: Callable[..., None], registry: Registry
) -> None:
    answer(lines=("Looked for it: found",), registry=registry, found=True)
    assert steps.image(run).detail == "found in company"
    assert "Use the existing image." in run.log.texts
    assert "Building image.." not in run.log.texts


def test_one_that_stands_is_used(
    run: steps.Run, answer: Callable[..., None], registry: Registry
) -> None:
    hash_ = run.revision.environment.hash
    ImageBuild.objects.create(hash=hash_, state=BuildState.READY, registry=registry)
    answer(registry=registry, started=False)
    assert steps.image(run).detail == "found"
    assert run.log.texts[0] == "Use the existing image."


def test_the_hashing_step_says_which_registry_there_is(run: steps.Run, registry: Registry) -> None:
    steps.hashing(run)
    assert run.log.texts[:2] == [
        "Creating Container Registry if not exists.",
        "The workspace's registry is company (registry.example.com).",
    ]
    registry.delete()
    run.log.texts.clear()
    steps.hashing(run)
    assert "images stay on the Engine that builds them" in run.log.texts[1]


def test_where_an_environment_stands_is_the_kinds_own_answer(run: steps.Run) -> None:
    hash_ = run.revision.environment.hash
    EnvironmentBuild.objects.create(hash=hash_, state=BuildState.READY, location="/venv")
    assert specs.environment_location(hash_, kind="process") == "/venv"
    with pytest.raises(TemporaryError, match="The image of environment .* is not built yet"):
        specs.environment_location(hash_, kind="docker")
    ImageBuild.objects.create(hash=hash_, state=BuildState.READY, reference="r/env@sha256:1")
    assert specs.environment_location(hash_, kind="kubernetes") == "r/env@sha256:1"
