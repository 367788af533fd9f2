"""Tokens, request logging, data collection and the namespace: form, files and API say the same."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from deployments.clusters.models import Cluster
from deployments.registry.models import ModelVersion
from deployments.services import changes
from deployments.services.models import Deployment, Service
from deployments.services.specs import config_of
from portal.models import User
from tests.portal.services.test_deploy import NEW, _fill, _form

FIELDS = ("token_auth_enabled", "collect_model_data", "enable_app_insights")


@pytest.fixture
def desk(deployer: User, cluster: Cluster) -> Client:
    client = Client()
    client.force_login(deployer)
    return client


@pytest.mark.parametrize("field", FIELDS)
def test_a_tick_is_kept_with_the_revision(field: str, desk: Client, diabetes: ModelVersion) -> None:
    for name, sent in (("with", {field: "on"}), ("without", {})):
        assert desk.post(NEW, _form(name=name, **sent)).status_code == 302
        revision = Deployment.objects.get(service__name=name).revision
        assert revision.config[field] is (name == "with")
    assert Service.objects.get(name="with").token_auth_enabled is (field == "token_auth_enabled")


def test_the_next_revision_begins_with_what_the_last_one_has(
    desk: Client, diabetes: ModelVersion
) -> None:
    desk.post(NEW, _form(enable_app_insights="on", token_auth_enabled="on"))
    Deployment.objects.update(state="succeeded")
    settings = reverse("service-settings", args=["risk"])
    form = desk.get(settings).context["form"]
    assert (form.initial["enable_app_insights"], form.initial["collect_model_data"]) == (
        True,
        False,
    )
    assert "token_auth_enabled" not in form.fields  # access is changed on its own
    desk.post(settings, {**_form(collect_model_data="on"), "service": "risk"})
    config = config_of(Deployment.objects.order_by("pk").last().revision)
    assert (config.enable_app_insights, config.collect_model_data) == (False, True)
    assert config.token_auth_enabled is True


def test_a_file_fills_them_in_and_data_collection_is_not_promised(desk: Client) -> None:
    page = _fill(
        desk,
        deploymentconfig={
            "tokenAuthEnabled": True,
            "authEnabled": False,
            "appInsightsEnabled": True,
            "dataCollection": {"storageEnabled": True},
            "namespace": "ml",
        },
    )
    initial = page.context["form"].initial
    assert {name: initial[name] for name in FIELDS} == dict.fromkeys(FIELDS, True)
    assert initial["auth_enabled"] is False
    notes = " ".join(page.context["filled"].notes)
    assert "collects no model data" in notes
    assert "no Kubernetes cluster" in notes
    assert "namespace" not in initial
    plan = desk.post(
        "/services/_deploy/plan/", {**_form(token_auth_enabled="on"), "auth_enabled": ""}
    )
    assert "Only tokens let requests in" in plan.content.decode()


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({}, "Two keys are made for it."),
        ({"token_auth_enabled": "on"}, "tokens let requests in too"),
        ({"auth_enabled": ""}, "no key and no token is asked for"),
    ],
)
def test_the_plan_says_who_is_let_in(
    sent: dict[str, str], words: str, desk: Client, diabetes: ModelVersion
) -> None:
    plan = desk.post("/services/_deploy/plan/", _form(**sent)).content.decode()
    assert words in plan


def test_a_namespace_is_asked_for_where_there_is_one(
    desk: Client, diabetes: ModelVersion, cluster: Cluster
) -> None:
    assert "namespace" not in desk.get(NEW).context["form"].fields
    Cluster.objects.create(
        name="kube", kind="kubernetes", sku=cluster.sku, router_url="http://127.0.0.1:1"
    )
    assert "namespace" in desk.get(NEW).context["form"].fields
    refused = desk.post(NEW, _form(namespace="ml"))
    assert "no Kubernetes cluster" in refused.context["form"].errors["namespace"][0]
    assert desk.post(NEW, _form(namespace="")).status_code == 302
    wrong = desk.post(NEW, _form(name="other", cluster="kube", namespace="-ml"))
    assert "at most 63" in wrong.context["form"].errors["namespace"][0]
    initial: dict[str, Any] = (
        _fill(desk, deploymentconfig={"namespace": "ml"}).context["form"].initial
    )
    assert initial["namespace"] == "ml"


def test_the_api_says_what_the_form_said(desk: Client, diabetes: ModelVersion) -> None:
    desk.post(
        NEW, _form(enable_app_insights="on", collect_model_data="on", token_auth_enabled="on")
    )
    Service.objects.update(current=Deployment.objects.get().revision)
    said = desk.get(reverse("api-service", args=["risk"])).json()
    assert said["appInsightsEnabled"] is True
    assert said["dataCollection"] == {"storageEnabled": True}
    assert (said["authEnabled"], said["aadAuthEnabled"]) == (True, True)


def test_an_origin_is_kept_in_its_one_spelling(desk: Client, diabetes: ModelVersion) -> None:
    desk.post(NEW, _form())
    service = Service.objects.get()
    changes.update_access(None, service, cors_origins=("https://App.Example.com:443/",))
    service.refresh_from_db()
    assert service.cors_origins == ["https://app.example.com"]
