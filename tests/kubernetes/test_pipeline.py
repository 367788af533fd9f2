"""A whole deployment to a Kubernetes cluster: its image built, pushed, and pulled by the nodes by digest."""

import json
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator

import pytest
from django.conf import settings

from deployments import jobs, logstore
from deployments.clusters.catalogue import THIS_MACHINE, ensure_skus
from deployments.clusters.drivers import driver_for
from deployments.clusters.models import Cluster, Sku
from deployments.controller import Controller
from deployments.drivers import kube_file
from deployments.environments.changes import create_environment
from deployments.environments.models import Environment
from deployments.images import attempt, builder_script, registries
from deployments.images.models import ImageBuild
from deployments.kube.api import Kube
from deployments.services import changes, sources
from deployments.services.changes import DeployRequest
from deployments.services.models import Deployment
from deployments.types import KubeSettings, Purpose
from tests.deployments.conftest import make_model  # noqa: F401  a fixture
from tests.deployments.images.builder import small_script
from tests.deployments.images.conftest import builds, engine, env, tidy  # noqa: F401  fixtures
from tests.docker.engines import IMAGE, ensure_image
from tests.kubernetes import cluster, images
from tests.kubernetes.files import portal  # noqa: F401  a fixture

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(240),
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("builds", "quickly"),
]

SCORE = """
import os

def init():
    global model
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.pkl")) as file:
        model = file.read()

def run(data):
    return model + " " + data
"""


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base image has the scoring server already: a small file takes the packages' place."""
    monkeypatch.setattr(builder_script, "script", lambda plan, settings: small_script(0.1))
    monkeypatch.setattr(attempt.ImageAttempt, "_look_into", lambda self, image: None)
    monkeypatch.setattr(changes, "enqueue_deployment", lambda pk: None)


@pytest.fixture
def east(portal: str, db: None) -> Iterator[Cluster]:  # noqa: F811
    """An attached cluster, in a namespace of this test's."""
    kube = Kube(cluster.spec())
    ensure_skus()
    with cluster.namespace(kube, "pods") as space:
        made = Cluster.objects.create(
            name="east",
            kind="kubernetes",
            sku=Sku.objects.get(name=THIS_MACHINE),
            router_url="http://router",
            kube_namespace=space,
            kube_blob_url=portal,
        )
        file = kube_file.KubeFile(
            cluster.spec(),
            KubeSettings(space, Purpose.DEV_TEST, router_image=images.pod(), blob_url=portal),
        )
        kube_file.write(settings.HOME.cluster("east"), file)
        yield made
        driver_for(made).close()
        kube_file.forget(settings.HOME.cluster("east"))
    kube.close()


@pytest.fixture
def environment(tidy: Callable[[str], None]) -> Environment:  # noqa: F811
    """One that nobody has built before."""
    ensure_image(IMAGE)
    base = images._pushed(IMAGE, f"{images.REGISTRY}/{IMAGE}")
    made = create_environment(
        None,
        name="pulled",
        base_image=base,
        conda_yaml="dependencies: [numpy]",  # no look at the base image's Python
        pip_requirements=f"six=={uuid.uuid4().int % 10**9}",
    )
    tidy(made.hash)
    return made


def follow(deployment: Deployment, controller: Controller) -> list[str]:
    """Until it has succeeded; what its log says."""

    def done() -> bool:
        controller.cycle()
        deployment.refresh_from_db()
        assert deployment.state != "failed", deployment.cause_message
        return deployment.state == "succeeded"

    cluster.until(done, 120)
    entries, _ = logstore.read(settings.HOME.deployment_log(deployment.pk))
    return [entry.text for entry in entries]


def test_an_image_is_pushed_once_and_pulled_by_its_digest(
    east: Cluster,
    environment: Environment,
    make_model: Callable,  # noqa: F811
) -> None:
    registries.add(
        None,
        name="workspace",
        role="workspace",
        address=images.REGISTRY,
        repository="slipway-tests",
        plain_http=True,
        username="",
    )
    controller = Controller()
    took, said = [], []
    for name, model in (("first", b"hello"), ("second", b"good evening")):
        began = time.monotonic()
        request = DeployRequest(
            name=name,
            cluster=east,
            source=sources.from_text({"score.py": SCORE}),
            entry_script="score.py",
            environment=environment,
            model_versions=(make_model(name, model),),
            config={"cpu_cores": 0.1, "memory_gb": 0.25, "autoscale_max_replicas": 1},
        )
        deployment = changes.deploy(None, request)
        assert jobs.run_deployment(deployment.pk) == "applied"
        said.append("\n".join(follow(deployment, controller)))
        took.append(time.monotonic() - began)
        observed = driver_for(east).observe()
        (replica,) = [
            replica
            for service in observed.services
            if service.spec.name == name
            for replica in service.replicas
        ]
        asked = urllib.request.Request(
            f"http://{replica.address}/score",
            data=json.dumps("world").encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert json.loads(answer.read()) == model.decode() + ' "world"'
    (build,) = ImageBuild.objects.all()
    assert build.reference == f"{images.REGISTRY}/slipway-tests/env@{build.digest}"
    for service in driver_for(east).observe().services:
        assert service.spec.versions[0].revision.environment.location == build.reference
    # the one waited for its image, the other found it
    assert f"It is in the registry workspace as {build.digest}" in said[0]
    assert "Use the existing image." in said[1]
    print(f"\nsubmit to healthy: {took[0]:.1f} s with its image's build, {took[1]:.1f} s without")
