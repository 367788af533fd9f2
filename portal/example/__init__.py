"""The example of the first run: a small model, deployed as anyone would deploy theirs.

Each step is left out when its result is there, so that a first run that was killed goes on where it
was. `deploy_example` runs in `manage.py seed`; `up` watches and prints what is here.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from django.conf import settings

from deployments.clusters.catalogue import THIS_MACHINE
from deployments.clusters.changes import attach, refresh
from deployments.clusters.models import Cluster, Sku
from deployments.environments.changes import create_environment
from deployments.registry.models import Framework, ModelVersion
from deployments.registry.versions import register_files, register_version
from deployments.services import keys, sources
from deployments.services.changes import DeployRequest, deploy
from deployments.services.models import Deployment, DeploymentState, Service
from deployments.types import ServiceState

EXAMPLE = "diabetes"
CLUSTER = "local"
SAMPLE = '{"data": [[0.0381, 0.0507, 0.0617, 0.0219, -0.0442, -0.0348, -0.0434, -0.0026, 0.0199, -0.0176]]}'


class ExampleFailed(Exception):
    """The example's endpoint did not come up; says why and where to look."""


def router_url() -> str:
    """Where clients reach the router of the cluster `local`."""
    env = settings.ENV
    host = env.router_bind if env.router_bind not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
    return env.router_url or f"http://{host}:{env.router_port}"


def deploy_example() -> None:
    """Attach `local`, train and register the model, and deploy it. Idempotent."""
    cluster = Cluster.objects.filter(name=CLUSTER).first() or attach(
        None,
        name=CLUSTER,
        sku=Sku.objects.get(name=THIS_MACHINE),
        router_url=router_url(),
        description="The machine that runs the portal.",
    )
    version = _registered()
    if Service.objects.filter(name=EXAMPLE).exists():
        return
    environment = create_environment(
        None,
        name=EXAMPLE,
        description="What the example needs.",
        # a pickled model wants the scikit-learn that wrote it
        pip_requirements=f"scikit-learn=={version.framework_version}\n",
    )
    script = Path(__file__).with_name("score.py").read_text(encoding="utf-8")
    deploy(
        None,
        DeployRequest(
            name=EXAMPLE,
            cluster=cluster,
            model_versions=(version,),
            source=sources.from_text({"score.py": script}),
            entry_script="score.py",
            environment=environment,
            description="Predicts the progression of diabetes from ten measurements.",
            note="First run",
        ),
    )


def _registered() -> ModelVersion:
    version = ModelVersion.objects.filter(model__name=EXAMPLE).order_by("version").first()
    if version is not None:
        return version
    from portal.example.train import train  # scikit-learn takes a second to load

    with tempfile.TemporaryDirectory(dir=settings.HOME.uploads) as folder:
        path, sklearn_version = train(Path(folder))
        return register_version(
            None,
            name=EXAMPLE,
            files=register_files({path.name: path}),
            framework=Framework.SCIKIT_LEARN,
            framework_version=sklearn_version,
            description="Ridge regression on scikit-learn's bundled diabetes data.",
            tags={"example": "true"},
            sample_input=SAMPLE,
        )


def curl() -> str | None:
    """A command that scores the example; None when there is no such service."""
    service = Service.objects.select_related("cluster").filter(name=EXAMPLE).first()
    if service is None:
        return None
    authorization = ""
    if service.auth_enabled:
        authorization = f"-H 'Authorization: Bearer {keys.read(service)[0]}' "
    return (
        f"curl {service.scoring_uri} {authorization}"
        f"-H 'Content-Type: application/json' -d '{SAMPLE}'"
    )


def wait_until_it_answers(seconds: float) -> Iterator[None]:
    """Yields a few times a second until the example scores. Raises ExampleFailed."""
    deadline = time.monotonic() + seconds
    with httpx.Client(timeout=5.0) as client:
        while not _answers(client):
            deployment = Deployment.objects.filter(service__name=EXAMPLE).order_by("-pk").first()
            if deployment is not None and deployment.state == DeploymentState.FAILED:
                raise ExampleFailed(
                    f"The example failed: {deployment.cause}\n{deployment.evidence}"
                )
            if time.monotonic() >= deadline:
                step = f" It stands at '{deployment.step}'." if deployment else ""
                raise ExampleFailed(
                    f"The example {EXAMPLE} did not answer within {seconds:.0f} s.{step} "
                    f"Its deployment log is on its page in the portal."
                )
            yield
            time.sleep(0.2)


def check_cluster() -> None:
    """Check `local` again: it was attached before its agent and its router had started."""
    for cluster in Cluster.objects.filter(name=CLUSTER):
        refresh(cluster)


def _answers(client: httpx.Client) -> bool:
    service = Service.objects.select_related("cluster").filter(name=EXAMPLE).first()
    # a request before that would be a 503 on its first chart, and counted as demand
    if service is None or service.state != ServiceState.HEALTHY:
        return False
    try:
        answer = client.post(
            service.scoring_uri,
            content=SAMPLE,
            headers={
                "Authorization": f"Bearer {keys.read(service)[0]}",
                "Content-Type": "application/json",
            },
        )
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK
