"""Bringing an image on the deployment form, over the API and out of Azure's file."""

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from deployments.clusters.models import Cluster
from deployments.services.models import Deployment, Revision, Service
from portal.models import User

NEW = "/services/_deploy/"
IMAGE = "registry.example.com/team/scorer:1.4"


@pytest.fixture
def desk(deployer: User, cluster: Cluster) -> Client:
    cluster.kind = "docker"
    cluster.save()
    client = Client()
    client.force_login(deployer)
    return client


def form(**more: Any) -> dict[str, Any]:
    return {
        "name": "brought",
        "cluster": "local",
        "serving": "container",
        "container_image": IMAGE,
        "container_port": "8000",
        "container_scoring_path": "/v1/predict",
        "replicas_mode": "autoscale",
        "auth_enabled": "on",
        **more,
    }


def test_an_image_is_deployed_without_models_or_environment(desk: Client) -> None:
    answer = desk.post(NEW, form())
    assert answer.url == reverse("service-overview", args=["brought"])
    revision = Revision.objects.get()
    assert revision.container == {
        "image": IMAGE,
        "port": 8000,
        "scoring_path": "/v1/predict",
        "liveness_path": "/",
        "readiness_path": "/",
    }
    assert (revision.environment, revision.model_links.count()) == (None, 0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("container_image", "", "Name the image"),
        ("container_image", "Not an image", "no image&#x27;s reference"),
        ("container_port", "70000", "1 to 65535"),
        ("container_scoring_path", "score", "write a path"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    desk: Client, field: str, value: str, message: str
) -> None:
    answer = desk.post(NEW, form(**{field: value}))
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert message in answer.content.decode()


def test_other_ways_of_serving_still_ask_for_a_model(desk: Client) -> None:
    answer = desk.post(NEW, form(serving="no_code"))
    assert "models" in answer.context["form"].errors


def test_a_process_cluster_says_no(desk: Client) -> None:
    Cluster.objects.update(kind="process")
    answer = desk.post(NEW, form())
    assert answer.status_code == 422
    assert not Service.objects.exists()
    plan = desk.post("/services/_deploy/plan/", form()).content.decode()
    assert "no containers" in plan


def test_the_next_revision_begins_from_the_image(desk: Client) -> None:
    desk.post(NEW, form())
    page = desk.get(reverse("service-settings", args=["brought"]))
    initial = page.context["form"].initial
    assert (initial["serving"], initial["container_image"]) == ("container", IMAGE)
    assert initial["container_port"] == 8000
    for tab in ("overview", "history"):
        assert desk.get(reverse(f"service-{tab}", args=["brought"])).status_code == 200


def test_it_is_not_run_locally(desk: Client) -> None:
    answer = desk.post(reverse("service-run-locally"), form())
    assert answer.status_code == 422
    assert "docker run" in answer.content.decode()


def test_azures_file_fills_the_form(desk: Client) -> None:
    routes = {"scoringRoute": {"path": "/infer", "port": 8001}}
    text = json.dumps({"environment": {"image": IMAGE, "inferenceConfig": routes}})
    file = SimpleUploadedFile("inferenceconfig.json", text.encode(), "application/json")
    answer = desk.post("/services/_deploy/fill/", {"inferenceconfig": file})
    initial = answer.context["form"].initial
    assert (initial["serving"], initial["container_image"]) == ("container", IMAGE)
    assert (initial["container_port"], initial["container_scoring_path"]) == (8001, "/infer")


def test_the_api_takes_it_and_tells_it_in_the_same_words(desk: Client) -> None:
    routes = {
        name: {"path": path, "port": 8000}
        for name, path in (
            ("scoringRoute", "/infer"),
            ("livenessRoute", "/live"),
            ("readinessRoute", "/ready"),
        )
    }
    said = {"image": IMAGE, "inferenceConfig": routes}
    body = {"name": "brought", "computeName": "local", "environment": said}
    answer = desk.post("/api/v1/services", json.dumps(body), content_type="application/json")
    assert answer.status_code == 202, answer.content
    Deployment.objects.update(state="succeeded")
    Service.objects.update(current=Revision.objects.get())
    found = desk.get("/api/v1/services/brought").json()
    assert found["environment"] == said
