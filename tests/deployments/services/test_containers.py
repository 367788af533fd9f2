"""A brought image: what may be said of it, and what a deployment of one is made of."""

import json
from dataclasses import replace

import pytest

from deployments.clusters.models import Cluster
from deployments.errors import InvalidInput
from deployments.services import changes, containers, inference, specs
from deployments.services.models import Deployment, Revision
from deployments.types import ContainerSpec

GOOD = ContainerSpec("registry.example.com/team/scorer:1.4", 8000, "/v1/predict", "/live", "/ready")


@pytest.mark.parametrize(
    "image",
    [
        "scorer",
        "team/scorer:1.4",
        "127.0.0.1:5000/base/python:3.11",
        "registry.example.com/a/b@sha256:" + "0" * 64,
        "a.b/c__d:V1@sha256:" + "f" * 64,
    ],
)
def test_references_that_docker_takes_are_taken(image: str) -> None:
    assert containers.problems(replace(GOOD, image=image)) == []


@pytest.mark.parametrize(
    "image",
    [
        "",
        "Team/scorer",
        "a b",
        "-x",
        "scorer:",
        "scorer@sha256:12",
        "http://x/scorer",
        "a;b",
        "$(x)",
    ],
)
def test_other_references_are_refused(image: str) -> None:
    (found,) = containers.problems(replace(GOOD, image=image))
    assert found.field == "container_image"


@pytest.mark.parametrize(("port", "good"), [(0, False), (1, True), (65535, True), (65536, False)])
def test_a_port_has_bounds(port: int, good: bool) -> None:
    assert (containers.problems(replace(GOOD, port=port)) == []) is good


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("/", True),
        ("/v2/models/iris/infer", True),
        ("/score-1_a~b:c@d.e", True),
        ("score", False),
        ("", False),
        ("/a b", False),
        ("/a%20b", False),
        ("/a?b=1", False),
        ('/a"b', False),
        ("/a\nb", False),
        ("//a", False),
        ("/a/../b", False),
        ("/a/..", False),
        ("/" + "a" * 200, True),
        ("/" + "a" * 201, False),
    ],
)
def test_a_path_can_stand_in_the_routers_text(path: str, good: bool) -> None:
    assert (containers.problems(replace(GOOD, scoring_path=path)) == []) is good


def test_azures_words_come_back_as_they_were() -> None:
    said = containers.to_azure(GOOD)
    assert containers.from_azure(said["image"], said["inferenceConfig"], "x") == GOOD
    assert containers.from_row(containers.to_row(GOOD)) == GOOD
    assert containers.from_row(None) is None


def test_two_ports_are_one_too_many() -> None:
    routes = {"scoringRoute": {"port": 1}, "livenessRoute": {"port": 2}}
    with pytest.raises(InvalidInput, match="the ports 1, 2"):
        containers.from_azure("x", routes, "environment.inferenceConfig")


@pytest.mark.parametrize("routes", [[], {"scoringRoute": "x"}, {"scoringRoute": {"port": "a"}}])
def test_other_shapes_are_refused(routes: object) -> None:
    with pytest.raises(InvalidInput):
        containers.from_azure("x", routes, "environment.inferenceConfig")


@pytest.mark.parametrize("name", ["inferenceConfig", "inferenceContainerProperties"])
def test_an_inference_configuration_may_bring_an_image(name: str) -> None:
    text = json.dumps(
        {"environment": {"image": "team/scorer", name: {"scoringRoute": {"port": 80}}}}
    )
    said, unknown = inference.from_azure_json(text)
    assert said.container == ContainerSpec("team/scorer", 80)
    assert unknown == []


def request(cluster: Cluster, **more: object) -> changes.DeployRequest:
    values = {"name": "brought", "cluster": cluster, "container": GOOD, **more}
    return changes.DeployRequest(**values)


def test_a_process_cluster_runs_no_image(cluster: Cluster) -> None:
    with pytest.raises(InvalidInput, match="no containers"):
        changes.deploy(None, request(cluster))


@pytest.fixture
def docker(cluster: Cluster) -> Cluster:
    cluster.kind = "docker"
    cluster.save()
    return cluster


def test_a_docker_cluster_gets_it_as_it_is(docker: Cluster) -> None:
    deployment = changes.deploy(None, request(docker))
    revision = deployment.revision
    assert (revision.environment, revision.source, revision.entry_script) == (None, None, "")
    spec = specs.revision_spec(revision, location=specs.location_of(revision, kind="docker"))
    assert spec.container == GOOD
    assert (spec.environment.location, spec.environment.hash, spec.models) == (GOOD.image, "", ())


def test_an_image_and_a_script_are_one_too_many(docker: Cluster) -> None:
    with pytest.raises(InvalidInput, match="not both"):
        changes.deploy(None, request(docker, entry_script="score.py"))


def test_an_update_keeps_the_image_until_it_is_given_another_way(docker: Cluster) -> None:
    first = changes.deploy(None, request(docker))
    Deployment.objects.update(state="succeeded")
    again = changes.DeployRequest(name="brought", update=True, config={"memory_gb": 2})
    second = changes.deploy(None, again)
    assert second.revision.container == first.revision.container
    Deployment.objects.update(state="succeeded")
    with pytest.raises(InvalidInput, match="Choose a model"):
        changes.deploy(None, changes.DeployRequest(name="brought", update=True, entry_script=""))
    assert Revision.objects.count() == 2


def test_a_cluster_whose_engine_is_elsewhere_takes_no_brought_image():
    assert containers.cluster_problems("docker", "docks", "unix:///var/run/docker.sock") == []
    assert containers.cluster_problems("docker", "docks", "tcp://127.0.0.1:2376") == []
    (found,) = containers.cluster_problems("docker", "docks", "tcp://10.0.0.5:2376")
    assert found.field == "cluster"
    assert "another machine" in found.message
