"""What a person's script does wrong, told by its pods on a real cluster."""

from collections.abc import Iterator

import pytest

from deployments import rollout
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.kube.api import Kube
from deployments.rollout import Goal, Limits
from deployments.types import KubeSettings, Phase, Purpose, Replica, Resources
from tests.deployments.drivers.test_process import zipped
from tests.kubernetes import cluster, images
from tests.kubernetes.files import portal  # noqa: F401  a fixture
from tests.kubernetes.test_model_pod import deploy, image, spec, stored  # noqa: F401

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(240)]

BROKEN = b"""
def init():
    raise RuntimeError("the table is empty")
def run(data):
    return 1
"""
HUNGRY = b"""
def init():
    kept = []
    while True:
        kept.append(b"x" * 2**24)
def run(data):
    return 1
"""
SLOW = b"""
import time
def init():
    time.sleep(600)
def run(data):
    return 1
"""


@pytest.fixture(scope="module")
def driver(portal: str) -> Iterator[KubernetesDriver]:  # noqa: F811
    kube = Kube(cluster.spec())
    with cluster.namespace(kube, "core") as space:
        settings = KubeSettings(space, Purpose.DEV_TEST, router_image=images.pod(), blob_url=portal)
        made = KubernetesDriver(kube, settings, cluster="test")
        yield made
        made.close()
    kube.close()


def failing(driver: KubernetesDriver, name: str, image: str, script: bytes, **more: object) -> Goal:  # noqa: F811
    wanted = spec(name, image, source=stored("p.zip", zipped({"score.py": script})), **more)
    deploy(driver, wanted)
    cluster.until(lambda: replicas(driver, name), 30)
    return Goal(1, 1, min(item.created_at for item in replicas(driver, name)))


def replicas(driver: KubernetesDriver, name: str) -> list[Replica]:
    for item in driver.observe().services:
        if item.spec.name == name:
            return list(item.replicas)
    return []


def verdict(driver: KubernetesDriver, name: str, goal: Goal) -> rollout.RolloutVerdict:
    """As the controller comes to it."""

    def look() -> rollout.RolloutVerdict | None:
        seen = driver.observe()
        service = next(item for item in seen.services if item.spec.name == name)
        found = rollout.follow(goal, service, None, None, Limits(), seen.at)
        return found if found.finished else None

    try:
        return cluster.until(look, 90)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{replicas(driver, name)}") from error


@pytest.mark.parametrize(
    ("name", "script", "more", "code", "said"),
    [
        ("broken", BROKEN, {}, "UserScriptInitFailed", "the table is empty"),
        (
            "hungry",
            HUNGRY,
            {"resources": Resources(cpu=0.1, memory_gb=0.2, memory_gb_limit=0.2)},
            "PodOutOfMemory",
            "its limit is 0.2 GiB",
        ),
        ("slow", SLOW, {"start_timeout_seconds": 10}, "StartTimedOut", "init() in score.py"),
    ],
)
def test_a_rollout_fails_with_what_the_script_did(
    driver: KubernetesDriver,
    image: str,  # noqa: F811
    name: str,
    script: bytes,
    more: dict,
    code: str,
    said: str,
) -> None:
    goal = failing(driver, name, image, script, **more)
    found = verdict(driver, name, goal)
    assert found.cause is not None
    assert found.cause.code == code, found
    assert said in f"{found.cause.message} {found.cause.evidence}"
    assert {item.phase for item in replicas(driver, name)} <= {Phase.CRASHED, Phase.LOADING}
    driver.remove(name)
