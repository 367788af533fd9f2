"""Where an image must be for a cluster's nodes to pull it."""

import pytest

from deployments.clusters.models import Cluster
from deployments.environments.changes import create_environment
from deployments.errors import PermanentError
from deployments.images import builds, causes
from deployments.images.engines import Place, place_of
from deployments.images.models import ImageBuild, Registry
from deployments.types import EngineSpec

pytestmark = pytest.mark.django_db
NODES = Place(EngineSpec("unix:///nowhere/docker.sock"), needs_registry=True)


def test_nodes_of_a_kubernetes_cluster_pull_and_an_engine_elsewhere_builds():
    place = place_of(Cluster(kind="kubernetes"))
    assert place.needs_registry
    assert not place.runs_there


@pytest.mark.parametrize("others", [False, True], ids=["no registry", "a global one without it"])
def test_without_a_registry_to_push_to_nothing_is_built_for_nodes(monkeypatch, others):
    environment = create_environment(None, name="plain", pip_requirements="numpy\n")
    if others:
        Registry.objects.create(name="world", role=Registry.Role.GLOBAL, address="127.0.0.1:1")
        monkeypatch.setattr(builds, "look_for", lambda registry, tag, log: None)
    with pytest.raises(PermanentError, match="under Registries") as refused:
        builds.ensure_image(environment, NODES, log=lambda line: None)
    assert refused.value.code == causes.NO_REGISTRY
    assert not ImageBuild.objects.filter(state="ready").exists()
