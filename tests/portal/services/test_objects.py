"""The objects of a service on a Kubernetes cluster, as a file to take away."""

from typing import Any

import pytest
import yaml
from django.test import Client
from django.urls import reverse

from deployments.audit.models import AuditEntry
from deployments.clusters.models import Cluster
from deployments.environments.models import BuildState, Environment
from deployments.images.models import ImageBuild, Registry
from deployments.registry.models import Blob, ModelVersion
from deployments.services.models import Deployment, Revision, Service
from portal.models import User

PREVIEW = "/services/_deploy/objects/"


@pytest.fixture
def desk(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


@pytest.fixture
def on_kubernetes(service: Service, kubernetes: Cluster) -> Service:
    service.refresh_from_db()
    return service


@pytest.fixture
def maker(deployer: User, kubernetes: Cluster) -> Client:
    """One who may deploy, to a cluster of Kubernetes."""
    client = Client()
    client.force_login(deployer)
    return client


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


def _form(**more: str | list[str]) -> dict[str, str | list[str]]:
    return {
        "name": "risk",
        "cluster": "local",
        "models": ["diabetes:1"],
        "serving": "no_code",
        "replicas_mode": "fixed",
        "num_replicas": "2",
        "auth_enabled": "on",
        **more,
    }


def _rows() -> list[int]:
    kinds = (Service, Revision, Deployment, Environment, AuditEntry)
    return [kind.objects.count() for kind in kinds]


def test_a_form_shows_what_it_would_make_and_keeps_nothing(
    maker: Client, diabetes: ModelVersion, django_capture_on_commit_callbacks: Any
) -> None:
    before = _rows()
    with django_capture_on_commit_callbacks() as news:
        answer = maker.post(PREVIEW, _form())
    made = list(yaml.safe_load_all(answer.context["preview"].text))
    assert {item["kind"] for item in made} == {
        "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Secret", "Service", "ServiceAccount"
    }  # fmt: skip
    assert answer.context["preview"].count == len(made)
    (deployment,) = [item for item in made if item["kind"] == "Deployment"]
    (image,) = [item["image"] for item in deployment["spec"]["template"]["spec"]["containers"]]
    assert answer.context["preview"].unbuilt == (image,)
    assert image.startswith("registry.example:5000/slipway/env:")
    assert all(
        set(item["stringData"].values()) == {"(not shown)"}
        for item in made
        if item["kind"] == "Secret"
    )
    assert b"not built yet" in answer.content
    assert (_rows(), news) == (before, [])


def test_what_is_filled_in_stays_and_then_deploys(maker: Client, diabetes: ModelVersion) -> None:
    script = {"serving": "entry_script", "source_kind": "editor", "entry_script": "score.py"}
    asked = _form(**script, score_py="def init(): ...\ndef run(data): ...\n", memory_gb="0.7")
    answer = maker.post(PREVIEW, asked)
    assert answer.context["form"]["score_py"].value() == asked["score_py"]
    (deployment,) = [
        item
        for item in yaml.safe_load_all(answer.context["preview"].text)
        if item["kind"] == "Deployment"
    ]
    (model,) = deployment["spec"]["template"]["spec"]["containers"]
    assert model["resources"]["requests"]["memory"] == "717Mi"
    assert maker.post("/services/_deploy/", asked).status_code == 302


def test_what_is_wrong_stands_beside_its_field_as_when_it_is_deployed(
    maker: Client, diabetes: ModelVersion
) -> None:
    for wrong in ({"cpu_cores": "0"}, {"models": []}, {"name": "x"}, {"memory_gb": "9000"}):
        shown, deployed = (
            maker.post(path, _form(**wrong)) for path in (PREVIEW, "/services/_deploy/")
        )
        assert shown.context["preview"] is None
        assert shown.context["form"].errors == deployed.context["form"].errors != {}
    assert b"nothing to show yet" in shown.content


def test_a_next_revision_is_shown_with_the_other_versions(
    maker: Client, on_kubernetes: Service, diabetes: ModelVersion
) -> None:
    rest = {key: value for key, value in _form().items() if key not in ("name", "cluster")}
    answer = maker.post(PREVIEW, {**rest, "service": "diabetes", "version": "next"})
    names = [
        item["metadata"]["name"]
        for item in yaml.safe_load_all(answer.context["preview"].text)
        if item["kind"] == "Deployment"
    ]
    assert names == ["diabetes-default", "diabetes-next"]
    assert (on_kubernetes.revisions.count(), on_kubernetes.versions.count()) == (1, 1)


def test_an_image_that_is_built_stands_under_its_own_name(
    maker: Client, diabetes: ModelVersion, environment: Environment
) -> None:
    ImageBuild.objects.create(
        hash=environment.hash,
        state=BuildState.READY,
        reference="registry.example:5000/env@sha256:1",
        registry=Registry.objects.get(),
    )
    answer = maker.post(PREVIEW, _form(environment="sklearn:1"))
    assert answer.context["preview"].unbuilt == ()
    assert "registry.example:5000/env@sha256:1" in answer.context["preview"].text


def test_only_clusters_of_kubernetes_offer_it(
    maker: Client, viewer: User, cluster: Cluster, diabetes: ModelVersion
) -> None:
    offered = b"Show the Kubernetes objects"
    assert offered in maker.post("/services/_deploy/plan/", _form()).content
    Cluster.objects.update(kind="process")
    assert offered not in maker.post("/services/_deploy/plan/", _form()).content
    answer = maker.post(PREVIEW, _form())
    assert "no Kubernetes cluster" in answer.context["form"].errors["cluster"][0]
    maker.force_login(viewer)
    assert maker.post(PREVIEW, _form()).status_code == 403


def test_versions_of_a_service_on_kubernetes_can_be_named(
    maker: Client, on_kubernetes: Service
) -> None:
    assert (
        "version"
        in maker.get(reverse("service-settings", args=["diabetes"])).context["form"].fields
    )
    assert "version" not in maker.get("/services/_deploy/").context["form"].fields
