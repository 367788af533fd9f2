"""A cluster, registered models, a service that serves and one whose first deployment failed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from deployments.clusters.models import Cluster, Sku
from deployments.codec import to_json
from deployments.environments.models import Environment
from deployments.errors import Unavailable
from deployments.images.models import Registry
from deployments.registry.models import Model, ModelVersion
from deployments.services import keys, sources, versions
from deployments.services.config import DeploymentConfig
from deployments.services.models import (
    Deployment,
    DeploymentStep,
    Revision,
    RevisionModel,
    Service,
)
from deployments.types import Capacity, Exit, KubeSettings, NodeCapacity, Phase, Purpose, Replica
from portal.models import User
from portal.views import services_objects
from tests.serving import serve

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def cluster(db: None) -> Cluster:
    sku, _ = Sku.objects.get_or_create(name="this machine", defaults={"family": "CPU"})
    capacity = Capacity(NOW.timestamp(), (NodeCapacity("here", 4.0, 3.0, 8.0, 5.0),))
    return Cluster.objects.create(
        name="local", sku=sku, router_url="http://127.0.0.1:27999", capacity=to_json(capacity)
    )


class Away:
    """An API server that does not answer."""

    def has(self, group_version: str, resource: str) -> bool:
        raise Unavailable("nobody there")


@pytest.fixture
def kubernetes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    from deployments.drivers.kubernetes import KubernetesDriver  # slow to import

    Registry.objects.create(name="ours", address="registry.example:5000", role="workspace")
    Cluster.objects.update(kind="kubernetes", kube_blob_url="http://portal.example")
    driver = KubernetesDriver(Away(), KubeSettings("models", Purpose.FAST_PROD, router_image="r:1"))
    monkeypatch.setattr(services_objects, "driver_for", lambda cluster: driver)
    cluster.refresh_from_db()
    return cluster


@pytest.fixture
def add_version(db: None) -> Callable[..., ModelVersion]:
    def add(name: str, version: int = 1, framework: str = "ScikitLearn", **more: Any) -> Any:
        model, _ = Model.objects.get_or_create(name=name)
        return ModelVersion.objects.create(
            model=model,
            version=version,
            framework=framework,
            content_hash="0" * 64,
            size=1,
            file_count=1,
            **more,
        )

    return add


@pytest.fixture
def diabetes(add_version: Callable[..., ModelVersion]) -> ModelVersion:
    return add_version("diabetes", sample_input='{"data": [[1, 2]]}', framework_version="1.7.2")


@pytest.fixture
def environment(db: None) -> Environment:
    return Environment.objects.create(name="sklearn", version=1, hash="ab" * 32)


def add_revision(
    service: Service,
    environment: Environment,
    versions: list[ModelVersion],
    config: dict[str, Any] | None = None,
    **more: Any,
) -> Revision:
    revision = Revision.objects.create(
        service=service,
        number=service.next_revision,
        environment=environment,
        config=DeploymentConfig(**(config or {})).to_values(),
        **more,
    )
    service.next_revision += 1
    service.save(update_fields=["next_revision"])
    for position, version in enumerate(versions):
        RevisionModel.objects.create(revision=revision, model_version=version, position=position)
    return revision


def replica(number: int, phase: Phase = Phase.READY, **more: Any) -> Replica:
    more.setdefault("version", "default")
    return Replica(
        id=f"diabetes-r1-{number}",
        service="diabetes",
        revision=1,
        phase=phase,
        address=f"127.0.0.1:{41000 + number}",
        node="here",
        created_at=NOW.timestamp() + number,
        ready_at=NOW.timestamp() if phase == Phase.READY else None,
        **more,
    )


@pytest.fixture
def service(cluster: Cluster, diabetes: ModelVersion, environment: Environment) -> Service:
    """`diabetes`, healthy, revision 1, two replicas of which one has crashed."""
    row = Service.objects.create(
        name="diabetes",
        cluster=cluster,
        state="Healthy",
        primary_key=keys.encrypt("primary-key-of-the-test"),
        secondary_key=keys.encrypt("secondary-key-of-the-test"),
        observed_at=NOW,
        desired_replicas=2,
        replicas=to_json(
            [
                replica(1),
                replica(
                    2,
                    Phase.CRASHED,
                    restarts=3,
                    last_exit=Exit(1, 9, NOW.timestamp(), "MemoryError: no room\n", True),
                ),
            ]
        ),
    )
    revision = add_revision(row, environment, [diabetes])
    serve(row, revision)
    deployment = Deployment.objects.create(
        service=row, revision=revision, state="succeeded", finished_at=NOW
    )
    DeploymentStep.objects.create(
        deployment=deployment,
        name="loading",
        state="done",
        started_at=NOW,
        ended_at=NOW + timedelta(seconds=3),
    )
    return row


@pytest.fixture
def failed(cluster: Cluster, diabetes: ModelVersion, environment: Environment) -> Service:
    """`broken`: its first deployment failed on an import in score.py."""
    row = Service.objects.create(name="broken", cluster=cluster, state="Failed", auth_enabled=False)
    versions.ensure(None, row)
    source = sources.from_text({"score.py": "import jsn\n", "lib/a.py": "A = 1\n"})
    revision = add_revision(
        row,
        environment,
        [diabetes],
        {"num_replicas": 2},
        entry_script="score.py",
        source=source,
    )
    Deployment.objects.create(
        service=row,
        revision=revision,
        state="failed",
        finished_at=NOW,
        cause_code="UserScriptImportError",
        cause="score.py imports jsn, which is not installed.",
        evidence="Traceback (most recent call last):\nModuleNotFoundError: No module named 'jsn'",
    )
    return row


@pytest.fixture
def sign_in() -> Callable[[User], Client]:
    def sign(person: User) -> Client:
        client = Client()
        client.force_login(person)
        return client

    return sign
