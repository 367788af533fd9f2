"""Versions over the API: deployed to, split, promoted, deleted, in Azure's names."""

import json
from typing import Any

import pytest
from django.test import Client

from deployments.environments.models import Environment
from deployments.registry.models import ModelVersion
from deployments.services import changes, versions
from deployments.services.models import Deployment, Service, ServiceVersion
from portal.models import User
from tests.portal.services.conftest import add_revision
from tests.serving import serve

URL = "/api/v1/services/diabetes"


@pytest.fixture(autouse=True)
def no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "enqueue_deployment", lambda pk: True)


@pytest.fixture
def api(deployer: User) -> Client:
    client = Client()
    client.force_login(deployer)
    return client


@pytest.fixture
def two(service: Service, environment: Environment, diabetes: ModelVersion) -> Service:
    """`diabetes` with a second version, `green`, that runs revision 2."""
    serve(service, add_revision(service, environment, [diabetes], {"cpu_cores": 0.5}), "green")
    return service


def send(api: Client, method: str, path: str = "", body: Any = None) -> Any:
    text = "" if body is None else json.dumps(body)
    return api.generic(method, f"{URL}{path}", text, content_type="application/json")


def split() -> dict[str, int]:
    return versions.shares(versions.rows_of(Service.objects.get(name="diabetes")))


def test_a_service_holds_its_versions_in_azures_names(two: Service, api: Client) -> None:
    versions.set_traffic(None, two, {"green": 30})
    found = api.get(URL).json()["versions"]
    assert list(found) == ["default", "green"]
    assert found["default"]["isDefault"] is True
    assert found["default"]["type"] == "Control"
    assert found["default"]["trafficPercentile"] == 70
    assert found["green"]["type"] == "Treatment"
    assert found["green"]["trafficPercentile"] == 30
    assert found["green"]["revision"] == 2
    assert found["default"]["deploymentStatus"]["availableReplicas"] == 1
    assert found["green"]["deploymentStatus"]["currentReplicas"] == 0
    listed = api.get(f"{URL}/versions").json()["value"]
    assert [row["name"] for row in listed] == ["default", "green"]
    assert api.get(f"{URL}/versions/green").json() == found["green"]
    assert api.get(f"{URL}/versions/pink").status_code == 404


@pytest.mark.parametrize("name", ["trafficPercentile", "traffic_percentile"])
def test_a_share_is_changed_under_either_name(name: str, two: Service, api: Client) -> None:
    answer = send(api, "PATCH", "/versions/green", {name: 40})
    assert answer.status_code == 200
    assert answer.json()["trafficPercentile"] == 40
    assert split() == {"default": 60, "green": 40}


@pytest.mark.parametrize("percent", [101, -1, "40", True, 1.5])
def test_a_share_that_cannot_be_is_400_with_its_field(
    percent: Any, two: Service, api: Client
) -> None:
    answer = send(api, "PATCH", "/versions/green", {"trafficPercentile": percent})
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == "trafficPercentile"
    assert split() == {"default": 100, "green": 0}


def test_all_shares_at_once(two: Service, api: Client) -> None:
    assert send(api, "PUT", "/traffic", {"green": 25}).status_code == 200
    assert split() == {"default": 75, "green": 25}
    answer = send(api, "PUT", "/traffic", {"pink": 25})
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == "pink"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/versions/green/promote", None),
        ("PATCH", "/versions/green", {"isDefault": True}),
        ("PATCH", "/versions/green", {"is_default": True}),
    ],
)
def test_promoting_and_undoing(
    method: str, path: str, body: Any, two: Service, api: Client
) -> None:
    versions.set_traffic(None, two, {"green": 30})
    assert send(api, method, path, body).status_code == 200
    assert split() == {"green": 100, "default": 0}
    assert send(api, "POST", "/undoPromotion").status_code == 200
    assert split() == {"default": 70, "green": 30}
    assert send(api, "POST", "/undoPromotion").status_code == 400


@pytest.mark.parametrize(
    "body", [{"isControlVersionType": True}, {"is_control_version_type": True}, {"type": "Control"}]
)
def test_the_control_is_named(body: Any, two: Service, api: Client) -> None:
    assert send(api, "PATCH", "/versions/green", body).json()["type"] == "Control"
    assert api.get(f"{URL}/versions/default").json()["type"] == "Treatment"


@pytest.mark.parametrize(
    "body", [{"type": "Placebo"}, {"isDefault": "yes"}, {"cpu": 1}, {"isDefault": False}]
)
def test_what_cannot_be_changed_is_400(body: Any, two: Service, api: Client) -> None:
    target = "default" if body == {"isDefault": False} else "green"
    assert send(api, "PATCH", f"/versions/{target}", body).status_code == 400


def test_deleting_a_version_and_not_the_default(two: Service, api: Client) -> None:
    assert send(api, "DELETE", "/versions/default").status_code == 400
    assert send(api, "DELETE", "/versions/green").status_code == 200
    assert not ServiceVersion.objects.filter(name="green").exists()
    assert send(api, "DELETE", "/versions/green").status_code == 404


def test_a_version_is_made_by_deploying_to_it(service: Service, api: Client) -> None:
    answer = send(
        api,
        "PUT",
        "/versions/green",
        {"trafficPercentile": 20, "containerResourceRequirements": {"cpu": 0.5}, "note": "try"},
    )
    assert answer.status_code == 202
    found = answer.json()
    assert (found["version"], found["operationType"], found["state"]) == (
        "green",
        "Create",
        "NotStarted",
    )
    row = Deployment.objects.get(pk=found["id"])
    assert row.revision.config["cpu_cores"] == 0.5
    assert row.revision.note == "try"
    assert split() == {"default": 100, "green": 0}  # until it has succeeded
    assert ServiceVersion.objects.get(name="green").traffic_percent == 20


def test_a_version_as_aksendpoint_sends_it(service: Service, api: Client) -> None:
    body = {"versions": {"green": {"type": "Control", "cpu_cores": 0.3, "num_replicas": 2}}}
    answer = send(api, "PUT", "", body)
    assert answer.status_code == 202
    row = Deployment.objects.get(pk=answer.json()["id"])
    assert (row.version, row.revision.config["num_replicas"]) == ("green", 2)
    assert versions.control_of(versions.rows_of(service)) == "green"


def test_an_update_without_a_version_is_of_the_default(two: Service, api: Client) -> None:
    answer = send(api, "PUT", "", {"maxConcurrentRequestsPerContainer": 4})
    assert answer.json()["version"] == "default"
    second = send(api, "PUT", "/versions/green", {})
    assert second.status_code == 409  # one operation on a service at a time


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"versions": {"a": {}, "b": {}}}, "versions"),
        ({"versions": []}, "versions"),
        ({"nonsense": 1}, "nonsense"),
        ({"models": ["diabetes"]}, "models"),
        ({"models": ["diabetes:9"]}, "models"),
        ({"models": "diabetes:1"}, "models"),
        ({"environment": {"name": "nobody"}}, "environment"),
        ({"computeType": "ACI"}, "computeType"),
        ({"computeName": "elsewhere"}, "computeName"),
        ({"cpu_cores": "many"}, "cpu_cores"),
        ({"numReplicas": 0}, "num_replicas"),
        ({"description": 5}, "description"),
        ({"kvTags": ["a"]}, "kvTags"),
        ({"versionName": "Not A Name"}, "version"),
        ({"versionName": "green", "isDefault": True}, "isDefault"),
        ({"keys": {"primaryKey": "p" * 20}}, "keys"),
        ({"authEnabled": True, "tokenAuthEnabled": True}, "authEnabled"),
        ({"name": "other"}, "name"),
    ],
)
def test_each_problem_of_a_body_names_its_field(
    body: Any, field: str, service: Service, api: Client
) -> None:
    answer = send(api, "PUT", "", body)
    assert answer.status_code == 400, answer.content
    assert answer.json()["error"]["field"] == field
    assert Deployment.objects.count() == 1


def test_a_service_is_made_with_its_first_version_named(
    cluster: Any, diabetes: ModelVersion, api: Client
) -> None:
    body = {
        "name": "endpoint",
        "computeType": "AKSENDPOINT",
        "computeName": "local",
        "models": ["diabetes:1"],
        "versions": {"blue": {"isDefault": True, "type": "Control", "trafficPercentile": 20}},
        "kvTags": {"team": "risk"},
        "numReplicas": 1,
    }
    answer = api.post("/api/v1/services", body, content_type="application/json")
    assert answer.status_code == 202, answer.content
    service = Service.objects.get(name="endpoint")
    (row,) = service.versions.all()
    assert (row.name, row.is_default, row.is_control) == ("blue", True, True)
    assert service.tags == {"team": "risk"}
    again = api.post("/api/v1/services", body, content_type="application/json")
    assert again.status_code == 400
    assert again.json()["error"]["field"] == "name"


def test_a_script_is_sent_as_text(
    cluster: Any, diabetes: ModelVersion, environment: Environment, api: Client
) -> None:
    body = {
        "name": "scripted",
        "computeName": "local",
        "models": [{"id": "diabetes:1"}],
        "environment": {"name": "sklearn", "version": "1"},
        "entryScript": "score.py",
        "files": {"score.py": "def init():\n    pass\n\n\ndef run(data):\n    return data\n"},
    }
    answer = api.post("/api/v1/services", body, content_type="application/json")
    assert answer.status_code == 202, answer.content
    assert Deployment.objects.get().revision.entry_script == "score.py"


def test_a_service_is_deleted(service: Service, api: Client) -> None:
    answer = send(api, "DELETE")
    assert answer.status_code == 202
    assert answer.json()["state"] == "Deleting"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", ""),
        ("DELETE", ""),
        ("PUT", "/versions/green"),
        ("PATCH", "/versions/green"),
        ("DELETE", "/versions/green"),
        ("POST", "/versions/green/promote"),
        ("POST", "/undoPromotion"),
        ("PUT", "/traffic"),
    ],
)
def test_a_viewer_changes_nothing(
    method: str, path: str, two: Service, viewer: User, client: Client
) -> None:
    assert send(client, method, path, {}).status_code == 401
    client.force_login(viewer)
    assert send(client, method, path, {}).status_code == 403
    assert Deployment.objects.count() == 1
    assert split() == {"default": 100, "green": 0}
