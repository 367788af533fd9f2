"""An environment, and services that use it."""

from collections.abc import Callable

import pytest

from deployments.clusters.models import Cluster, Sku
from deployments.environments.changes import create_environment
from deployments.environments.models import Environment
from deployments.services.models import Deployment, DeploymentState, Revision, Service
from tests.serving import serve


@pytest.fixture
def environment(db: None) -> Environment:
    return create_environment(None, name="sklearn", pip_requirements="six==1.17.0")


@pytest.fixture
def use(db: None) -> Callable[..., Revision]:
    """Makes a revision of a service with this environment, as its current one or as a deployment."""

    def make(
        environment: Environment,
        service: str = "diabetes",
        *,
        current: bool = True,
        deployment: DeploymentState | None = None,
    ) -> Revision:
        sku, _ = Sku.objects.get_or_create(name="This machine", defaults={"family": "CPU"})
        cluster, _ = Cluster.objects.get_or_create(name="local", defaults={"sku": sku})
        row, _ = Service.objects.get_or_create(name=service, defaults={"cluster": cluster})
        number = row.revisions.count() + 1
        revision = Revision.objects.create(service=row, number=number, environment=environment)
        if current:
            serve(row, revision)
        if deployment:
            Deployment.objects.create(service=row, revision=revision, state=deployment)
        return revision

    return make
