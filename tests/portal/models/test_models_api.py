"""The registry over the API: roles, shapes and errors."""

import pytest

from deployments.errors import Conflict, InvalidInput, NotFound, PermanentError, Unavailable
from portal.api.responses import endpoint, from_exception
from portal.models import Role

pytestmark = pytest.mark.django_db
URLS = ["/api/v1/models", "/api/v1/models/diabetes/versions", "/api/v1/models/diabetes/versions/1"]


@pytest.mark.parametrize("url", URLS)
def test_a_stranger_gets_401_and_no_redirect(client, register, url):
    register()
    response = client.get(url)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "Unauthorized"


@pytest.mark.parametrize("url", URLS)
def test_a_viewer_may_read(client, viewer, register, url):
    register()
    client.force_login(viewer)
    assert client.get(url).status_code == 200


def test_somebody_who_was_deactivated_is_refused(client, viewer):
    client.force_login(viewer)
    viewer.is_active = False
    viewer.save(update_fields=["is_active"])
    assert client.get(URLS[0]).status_code == 401


def test_models_are_listed_with_the_newest_version(client, viewer, register, deployed_in):
    deployed_in(register(), "live")
    register(files={"net.onnx": b"12"}, tags={"a": "b"})
    client.force_login(viewer)
    (model,) = client.get(URLS[0]).json()["value"]
    assert model["id"] == "diabetes:2"
    assert (model["framework"], model["kvTags"], model["sizeInBytes"]) == ("Onnx", {"a": "b"}, 2)
    assert model["versions"] == 2
    assert model["deployedIn"] == [{"service": "live", "version": 1}]


def test_versions_are_listed_newest_first(client, viewer, register, deployed_in):
    deployed_in(register(), "live")
    register(files={"f": b"2"})
    client.force_login(viewer)
    value = client.get(URLS[1]).json()["value"]
    assert [(row["version"], row["deployedIn"]) for row in value] == [(2, []), (1, ["live"])]


def test_a_version_has_its_files(client, viewer, register):
    version = register(files={"a/model.pkl": b"abc"}, sample_input="[1]")
    client.force_login(viewer)
    body = client.get(URLS[2]).json()
    assert body["sampleInput"] == "[1]"
    (file,) = body["files"]
    assert (file["path"], file["sizeInBytes"]) == ("a/model.pkl", 3)
    assert file["sha256"] == version.files.get().blob_id
    assert client.get(file["url"]).getvalue() == b"abc"


def test_long_lists_have_a_next_link(client, viewer, register, monkeypatch):
    monkeypatch.setattr("portal.api.models._A_PAGE", 2)
    for i in range(3):
        register(f"m{i}", tags={"t": ""})
    client.force_login(viewer)
    first = client.get("/api/v1/models?tag=t").json()
    second = client.get(first["nextLink"]).json()
    assert [m["name"] for m in first["value"] + second["value"]] == ["m0", "m1", "m2"]
    assert "nextLink" not in second


def test_a_wrong_filter_is_said(client, viewer):
    client.force_login(viewer)
    response = client.get("/api/v1/models?framework=Nonsense")
    assert response.status_code == 400
    assert response.json()["error"]["field"] == "framework"


@pytest.mark.parametrize(
    "url",
    ["/api/v1/models/no/versions", "/api/v1/models/no/versions/1", "/api/v1/nothing", "/api/"],
)
def test_what_is_not_there_is_404_in_the_one_shape(client, viewer, url):
    client.force_login(viewer)
    response = client.get(url)
    if url == "/api/":
        assert response.status_code == 404
        return
    assert response.status_code == 404
    assert set(response.json()["error"]) == {"code", "message"}


def test_another_method_is_405(client, viewer):
    client.force_login(viewer)
    response = client.post(URLS[0])
    assert (response.status_code, response["Allow"]) == (405, "GET")
    assert response.json()["error"]["code"] == "MethodNotAllowed"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (InvalidInput("x", field="name"), 400, "InvalidInput"),
        (NotFound("x"), 404, "NotFound"),
        (Conflict("x", code="ModelInUse"), 409, "ModelInUse"),
        (Unavailable("x", delay=7), 503, "Unavailable"),
        (PermanentError("x"), 400, "BadRequest"),
    ],
)
def test_errors_of_the_tree_become_answers(failure, status, code):
    answer = from_exception(failure)
    assert answer.status_code == status
    assert f'"code": "{code}"'.encode() in answer.content
    assert answer.headers.get("Retry-After") == ("7" if status == 503 else None)


@endpoint(Role.DEPLOYER, "GET", "POST")
def _view(request):
    return 202, {"done": True}


def test_an_endpoint_asks_for_its_role(rf, viewer, deployer):
    for person, status in ((viewer, 403), (deployer, 202)):
        request = rf.get("/")
        request.user = person
        assert _view(request).status_code == status


def test_a_change_from_another_site_is_refused_in_the_one_shape(rf, deployer):
    request = rf.post("/")
    request.user = deployer
    request._dont_enforce_csrf_checks = False
    answer = _view(request)
    assert answer.status_code == 403
    assert b'"code": "CsrfFailed"' in answer.content
