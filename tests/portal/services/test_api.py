"""Services and deployments over the API: Azure's names, who may ask, what is never in an answer."""

from typing import Any

import pytest
from django.test import Client

from deployments.services.models import Deployment, Service
from portal.models import User


@pytest.fixture
def api(viewer: User) -> Client:
    client = Client()
    client.force_login(viewer)
    return client


PATHS = ("services", "services/diabetes", "services/diabetes/deployments", "deployments/1")


@pytest.mark.parametrize("path", PATHS)
def test_a_stranger_gets_401_in_the_apis_shape(path: str, service: Service, client: Client) -> None:
    answer = client.get(f"/api/v1/{path}")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "Unauthorized"


@pytest.mark.parametrize("path", PATHS[1:])
def test_what_can_only_be_read_is_not_posted_to(path: str, service: Service, api: Client) -> None:
    assert api.post(f"/api/v1/{path}").status_code == 405


def test_a_service_speaks_azures_words(service: Service, api: Client) -> None:
    found = api.get("/api/v1/services/diabetes").json()
    assert found["name"] == "diabetes"
    assert found["state"] == "Healthy"
    assert found["computeType"] == "AKS"
    assert found["scoringUri"] == "http://127.0.0.1:27999/api/v1/service/diabetes/score"
    assert found["authEnabled"] is True
    assert found["models"] == [{"id": "diabetes:1", "name": "diabetes", "version": 1}]
    assert found["containerResourceRequirements"]["cpu"] == 0.1
    assert found["maxConcurrentRequestsPerContainer"] == 1
    assert found["scoringTimeoutMs"] == 60000
    assert found["deploymentStatus"] == {
        "currentReplicas": 2,
        "desiredReplicas": 2,
        "availableReplicas": 1,
    }


def test_a_key_is_never_in_an_answer(service: Service, api: Client) -> None:
    for path in ("services", "services/diabetes"):
        text = api.get(f"/api/v1/{path}").content.decode()
        assert "key-of-the-test" not in text
        assert service.primary_key not in text


def test_replicas_nobody_has_seen_are_null_and_not_zero(failed: Service, api: Client) -> None:
    found = api.get("/api/v1/services/broken").json()
    assert set(found["deploymentStatus"].values()) == {None}
    assert found["models"] == []


def test_a_failed_deployment_carries_cause_and_evidence(failed: Service, api: Client) -> None:
    row = Deployment.objects.get(service=failed)
    found = api.get(f"/api/v1/deployments/{row.pk}").json()
    assert found["state"] == "Failed"
    assert found["error"]["code"] == "UserScriptImportError"
    assert "jsn" in found["error"]["details"][0]["message"]


def test_steps_are_told_with_their_times(service: Service, api: Client) -> None:
    row = Deployment.objects.get(service=service)
    found = api.get(f"/api/v1/deployments/{row.pk}").json()
    assert [step["name"] for step in found["steps"]] == ["loading"]
    assert found["error"] is None


@pytest.mark.parametrize(
    "path", ["services/nobody", "deployments/99999", "services/nobody/deployments"]
)
def test_what_is_not_there_is_404_with_its_name(path: str, db: None, api: Client) -> None:
    answer = api.get(f"/api/v1/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


def test_the_list_costs_the_same_for_one_service_and_for_two(
    service: Service, failed: Service, api: Client, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(8):
        value = api.get("/api/v1/services").json()["value"]
    assert [item["name"] for item in value] == ["broken", "diabetes"]
