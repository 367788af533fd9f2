"""What a deployment needs of a cluster is said before it begins."""

import dataclasses

import pytest

from deployments.clusters.models import Cluster
from deployments.environments.models import Environment
from deployments.images.models import Registry
from deployments.services import placement

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("role", "address", "said"),
    [
        ("", "", ["from a registry", "SLIPWAY_NODE_URL"]),
        ("base", "https://portal", ["from a registry"]),
        ("workspace", "", ["SLIPWAY_NODE_URL"]),
        ("global", "https://portal", []),
    ],
)
def test_nodes_that_could_get_neither_image_nor_files_are_a_reason_to_refuse(
    environment: Environment, role: str, address: str, said: list[str]
) -> None:
    if role:
        Registry.objects.create(name="one", role=role, address="registry.example:5000")
    cluster = Cluster(name="east", kind="kubernetes", kube_blob_url=address)
    found = placement.unbuildable(environment, cluster)
    assert len(found) == len(said)
    assert all(words in item.message for words, item in zip(said, found, strict=True))
    assert {item.field for item in found} <= {"cluster"}
    assert placement.unbuildable(None, cluster) == []  # an image that somebody brings


def test_one_address_for_all_clusters_is_enough(settings, environment: Environment) -> None:
    Registry.objects.create(name="one", role="workspace", address="registry.example:5000")
    settings.ENV = dataclasses.replace(settings.ENV, node_url="https://portal")
    assert placement.unbuildable(environment, Cluster(name="east", kind="kubernetes")) == []
    assert placement.unbuildable(environment, Cluster(name="west", kind="docker")) == []
