"""A service with a deployment, and replicas whose output a test writes."""

from dataclasses import dataclass, field

import pytest
from django.conf import settings

from deployments import logstore
from deployments.clusters.models import Cluster, Sku
from deployments.drivers.base import LogLine, LogPage
from deployments.environments.changes import create_environment
from deployments.errors import NotFound, Unavailable
from deployments.services.models import Deployment, DeploymentState, Revision, Service
from portal import log_sources, previous_runs


@dataclass
class FakeDriver:
    """Keeps lines in lists; the cursor is how many were read."""

    lines: dict[str, list[LogLine]] = field(default_factory=dict)
    before: dict[str, list[LogLine]] = field(default_factory=dict)  # of the run before
    asked: int = 0
    down: bool = False

    def say(self, replica: str, at: float, text: str, stream: str = "stdout") -> None:
        self.lines.setdefault(replica, []).append(LogLine(at, replica, stream, text))

    def log_replicas(self, service: str) -> list[str]:
        if self.down:
            raise Unavailable("The cluster local does not answer. Check that it runs.")
        return list(self.lines)

    def logs(
        self, replica: str, *, cursor: str = "", limit: int = 1000, previous: bool = False
    ) -> LogPage:
        self.asked += 1
        said = self.before if previous else self.lines
        if replica not in said:
            raise NotFound(replica)
        start = int(cursor or 0)
        found = tuple(said[replica][start : start + limit])
        return LogPage(found, str(start + len(found)))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    monkeypatch.setattr(log_sources, "driver_for", lambda cluster: fake)
    monkeypatch.setattr(previous_runs, "driver_for", lambda cluster: fake)
    return fake


@pytest.fixture
def service(db: None) -> Service:
    sku = Sku.objects.create(name="This machine", family="CPU")
    cluster = Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")
    row = Service.objects.create(name="diabetes", cluster=cluster)
    deploy(row)
    return row


def deploy(service: Service) -> Deployment:
    """A new deployment with an empty log of its own."""
    environment = create_environment(None, name="e")
    service.deployments.update(state=DeploymentState.SUCCEEDED)
    number = service.revisions.count() + 1
    revision = Revision.objects.create(service=service, number=number, environment=environment)
    deployment = Deployment.objects.create(service=service, revision=revision)
    settings.HOME.deployment_log(deployment.pk).unlink(missing_ok=True)
    return deployment


def write(deployment: Deployment, *texts: str, at: float = 1.0) -> None:
    entries = [logstore.LogEntry(at, "pipeline", text) for text in texts]
    logstore.append(settings.HOME.deployment_log(deployment.pk), entries)
