"""The objects of a service on a Kubernetes cluster, as a file to take away."""

import pytest
import yaml
from django.test import Client
from django.urls import reverse

from deployments.clusters.models import Cluster
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.environments.models import BuildState
from deployments.errors import Unavailable
from deployments.images.models import ImageBuild
from deployments.registry.models import Blob
from deployments.services.models import Service
from deployments.types import KubeSettings, Purpose
from portal.models import User
from portal.views import services_objects


class Away:
    """An API server that does not answer."""

    def has(self, group_version: str, resource: str) -> bool:
        raise Unavailable("nobody there")


@pytest.fixture
def desk(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


@pytest.fixture
def on_kubernetes(service: Service, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Service:
    Cluster.objects.update(kind="kubernetes")
    driver = KubernetesDriver(Away(), KubeSettings("models", Purpose.FAST_PROD, router_image="r:1"))
    monkeypatch.setattr(services_objects, "driver_for", lambda cluster: driver)
    return service


def test_a_viewer_takes_the_objects_along_without_a_secret(
    desk: Client, on_kubernetes: Service
) -> None:
    environment = on_kubernetes.current.environment
    environment.variables = {"TOKEN": "hidden"}
    environment.save()
    on_kubernetes.current.package = Blob.objects.create(sha256="a" * 64, size=1)
    on_kubernetes.current.save()
    ImageBuild.objects.create(
        hash=environment.hash, state=BuildState.READY, reference="registry/env:1"
    )
    answer = desk.get(reverse("service-objects", args=["diabetes"]))
    assert answer.status_code == 200, answer.content
    kinds = [item["kind"] for item in yaml.safe_load_all(answer.content)]
    assert {"Deployment", "Service", "Secret", "NetworkPolicy"} <= set(kinds)
    assert b"hidden" not in answer.content
    assert b"registry/env:1" in answer.content


def test_before_it_is_built_that_is_said(desk: Client, on_kubernetes: Service) -> None:
    answer = desk.get(reverse("service-objects", args=["diabetes"]))
    assert (answer.status_code, b"not built yet" in answer.content) == (409, True)
    assert b"Show the YAML" in desk.get(reverse("service-settings", args=["diabetes"])).content


def test_other_clusters_have_none(desk: Client, service: Service) -> None:
    assert desk.get(reverse("service-objects", args=["diabetes"])).status_code == 404
    assert b"Show the YAML" not in desk.get(reverse("service-settings", args=["diabetes"])).content
