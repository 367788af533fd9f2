"""Models, environments, a cluster in memory and deployments on it, for the tests of the back end."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.clusters import drivers
from deployments.clusters.catalogue import THIS_MACHINE, ensure_skus
from deployments.clusters.models import Cluster, Sku
from deployments.environments.changes import create_environment
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.registry.models import ModelVersion
from deployments.registry.versions import NewFile, register_version
from deployments.services import sources
from deployments.services.changes import DeployRequest
from tests.deployments.fakes import FakeDriver

SCRIPT = "def init():\n    pass\n\n\ndef run(data):\n    return data\n"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """The driver every process cluster has in this test."""
    driver = FakeDriver()
    monkeypatch.setitem(drivers._BY_KIND, "process", lambda name: driver)
    drivers._driver.cache_clear()
    yield driver
    drivers._driver.cache_clear()


@pytest.fixture
def cluster(db: None, fake: FakeDriver) -> Cluster:
    ensure_skus()
    return Cluster.objects.create(
        name="local", sku=Sku.objects.get(name=THIS_MACHINE), router_url="http://127.0.0.1:25080"
    )


@pytest.fixture
def make_model(db: None, tmp_path: Path) -> Callable[..., ModelVersion]:
    """Register a version: `make_model("diabetes", framework="ScikitLearn")`."""

    def make(name: str = "diabetes", content: bytes = b"model", **values: str) -> ModelVersion:
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(content)
        file = NewFile("model.pkl", path, hashlib.sha256(content).hexdigest(), len(content))
        values.setdefault("framework", "Custom")
        values.setdefault("framework_version", "")
        return register_version(None, name=name, files=[file], **values)

    return make


@pytest.fixture
def environment(db: None) -> Environment:
    """An environment that is built already."""
    made = create_environment(None, name="plain", pip_requirements="numpy\n")
    built(made)
    return made


def built(environment: Environment) -> None:
    EnvironmentBuild.objects.update_or_create(
        hash=environment.hash,
        defaults={"state": BuildState.READY, "location": "/venvs/" + environment.hash[:12]},
    )


@pytest.fixture
def ready_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building takes no time: every environment is there when it is asked for."""

    def ensure(environment: Environment, *, log: Callable[[str], None]) -> EnvironmentBuild:
        built(environment)
        log("built in no time")
        return EnvironmentBuild.objects.get(hash=environment.hash)

    monkeypatch.setattr("deployments.pipeline.steps.ensure_built", ensure)
    monkeypatch.setattr("deployments.pipeline.steps.is_complete", lambda location: True)


@pytest.fixture
def request_for(
    cluster: Cluster, make_model: Callable[..., ModelVersion], environment: Environment
) -> Callable[..., DeployRequest]:
    """A request that is valid as it stands; any part may be replaced."""

    def make(name: str = "diabetes", **values) -> DeployRequest:
        given = {
            "name": name,
            "cluster": cluster,
            "source": sources.from_text({"score.py": SCRIPT}),
            "entry_script": "score.py",
            "environment": environment,
        }
        if "model_versions" not in values:
            given["model_versions"] = (make_model(),)
        return DeployRequest(**{**given, **values})

    return make
