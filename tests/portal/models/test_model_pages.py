"""The models' pages: who may see and do what, what is shown, and what it costs."""

import asyncio
import io
import json
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext

from deployments.registry.models import ModelVersion
from portal import downloads

pytestmark = pytest.mark.django_db
LIST = "/models/"
REGISTER = "/models/_register/"
CHECK = "/models/_register/check/"


def _file(name="model.pkl", data=b"weights"):
    return SimpleUploadedFile(name, data)


def _form(**given):
    return {"name": "churn", "files": [_file()], **given}


# Who may ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [LIST, "/models/_rows/", "/models/diabetes/", "/models/diabetes/versions/",
     "/models/diabetes/versions/1/", "/models/diabetes/versions/1/used/",
     "/models/diabetes/versions/1/download/", "/models/diabetes/versions/1/files/model.pkl"],
)  # fmt: skip
def test_a_viewer_may_look_and_a_stranger_is_sent_to_sign_in(client, viewer, register, url):
    register()
    assert client.get(url).status_code == 302
    client.force_login(viewer)
    response = client.get(url)
    assert response.status_code == 200
    if response.streaming:
        response.getvalue()


@pytest.mark.parametrize(
    ("method", "url"),
    [("get", REGISTER), ("post", REGISTER), ("post", CHECK), ("post", "/models/diabetes/delete/"),
     ("post", "/models/diabetes/versions/1/delete/")],
)  # fmt: skip
def test_a_viewer_may_change_nothing(client, viewer, register, url, method):
    register()
    client.force_login(viewer)
    assert getattr(client, method)(url, _form() if url == REGISTER else {}).status_code == 403
    assert ModelVersion.objects.count() == 1


def test_a_viewer_sees_no_buttons_that_would_be_refused(client, viewer, deployer, register):
    register()
    for person, shown in ((viewer, False), (deployer, True)):
        client.force_login(person)
        assert (b"Register a model" in client.get(LIST).content) == shown
        page = client.get("/models/diabetes/versions/1/").content
        assert (b"Deploy this model" in page) == shown
        assert (b"/delete/" in page) == shown


@pytest.mark.parametrize("name", ["register", "rows", "check", "versions"])
def test_a_model_called_like_a_page_has_its_own_page(client, viewer, register, name):
    register(name=name)
    client.force_login(viewer)
    page = client.get(f"/models/{name}/")
    assert page.status_code == 200
    assert page.context["model"].name == name


@pytest.mark.parametrize("url", ["/models/diabetes/delete/", "/models/diabetes/versions/1/delete/"])
def test_deleting_is_never_a_link(client, deployer, register, url):
    register()
    client.force_login(deployer)
    assert client.get(url).status_code == 405


# The list -----------------------------------------------------------------------------------------


@pytest.fixture
def some(register, deployed_in):
    first = register("diabetes", description="Ridge regression", tags={"team": "health"})
    register("diabetes", {"model.pkl": b"more weights"}, tags={"team": "health", "prod": ""})
    register("resnet", {"net.onnx": b"x"}, tags={"team": "vision"})
    deployed_in(first, "live")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["diabetes", "resnet"]),
        ("?q=DIAB", ["diabetes"]),
        ("?q=ridge", ["diabetes"]),
        ("?framework=Onnx", ["resnet"]),
        ("?framework=Nonsense", ["diabetes", "resnet"]),
        ("?tag=team", ["diabetes", "resnet"]),
        ("?tag=team=vision", ["resnet"]),
        ("?tag=prod", ["diabetes"]),
        ("?tag=prod=x", []),
        ("?tag=%22%27__in", []),
        ("?q=nothing", []),
    ],
)
def test_the_list_finds_by_name_framework_and_tag(client, viewer, some, query, names):
    client.force_login(viewer)
    response = client.get(LIST + query)
    assert [row.newest.model.name for row in response.context["rows"]] == names
    if not names:
        assert b"No model matches" in response.content


def test_the_list_shows_the_newest_version_and_where_each_is_deployed(client, viewer, some):
    client.force_login(viewer)
    row = client.get(LIST).context["rows"][0]
    assert (row.newest.version, row.versions, row.size) == (2, 2, len(b"weightsmore weights"))
    assert [(place.service, place.version) for place in row.deployed] == [("live", 1)]


def test_an_empty_registry_says_how_to_begin(client, viewer):
    client.force_login(viewer)
    assert b"No models yet" in client.get(LIST).content


@pytest.mark.parametrize("url", [LIST, "/models/m0/", "/models/m0/versions/1/", "/api/v1/models",
                                 "/api/v1/models/m0/versions"])  # fmt: skip
def test_more_rows_cost_no_more_queries(client, viewer, register, deployed_in, url):
    client.force_login(viewer)

    def cost():
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert client.get(url).status_code == 200
        return len(queries)

    deployed_in(register("m0"), "s0")
    cost()
    few = cost()
    for i in range(1, 6):
        deployed_in(register(f"m{i}", {f"f{n}": b"x" for n in range(i)}), f"s{i}")
        deployed_in(register("m0", {"f": bytes([i])}), f"t{i}")
    assert cost() == few
    assert few <= 9


# Registering --------------------------------------------------------------------------------------


def test_a_deployer_registers_a_version(client, deployer, store):
    client.force_login(deployer)
    response = client.post(
        REGISTER,
        _form(
            description="d", framework_version="1.9.1", tags="a=b\nc", sample_input='{"data": []}'
        ),
    )
    assert (response.status_code, response.url) == (302, "/models/churn/versions/1/")
    version = ModelVersion.objects.get()
    assert (version.framework, version.framework_version) == ("ScikitLearn", "1.9.1")
    assert (version.tags, version.created_by) == ({"a": "b", "c": ""}, deployer)
    page = client.get(response.url).content.decode()
    assert "churn:1 is registered." in page
    assert "model.pkl" in page
    assert version.files.get().blob_id in page


def test_the_script_is_told_where_to_go(client, deployer, settings):
    client.force_login(deployer)
    response = client.post(REGISTER, _form(), headers={"Accept": "application/json"})
    assert response.status_code == 201
    assert response.json() == {"location": "/models/churn/versions/1/"}
    assert list(settings.FILE_UPLOAD_TEMP_DIR.iterdir()) == []


def test_a_second_upload_under_a_name_is_its_next_version(client, deployer):
    client.force_login(deployer)
    client.post(REGISTER, _form())
    assert client.post(REGISTER, _form()).url == "/models/churn/versions/2/"


def test_errors_stand_beside_their_fields_and_what_was_typed_stays(client, deployer, settings):
    client.force_login(deployer)
    response = client.post(
        REGISTER,
        _form(name="two words", description="typed", tags="=x", sample_input='{\n"a": }'),
    )
    assert response.status_code == 422
    errors = response.context["form"].errors
    assert set(errors) == {"name", "tags", "sample_input"}
    assert "line 2, column 6" in errors["sample_input"][0]
    page = response.content.decode()
    for text in ("two words", "typed", "=x", "Choose the files again"):
        assert text in page
    assert list(settings.FILE_UPLOAD_TEMP_DIR.iterdir()) == []


def test_the_script_gets_the_fields_with_their_errors(client, deployer):
    client.force_login(deployer)
    response = client.post(REGISTER, {"name": "a b"}, headers={"Accept": "application/json"})
    assert response.status_code == 422
    assert response.json()["files"] == ["Choose at least one file or a folder."]
    assert "has-error" in response.json()["html"]
    assert "<html" not in response.json()["html"]


def test_a_refused_upload_says_why_beside_the_files(client, deployer, monkeypatch):
    monkeypatch.setattr("portal.uploads.max_bytes", lambda: 3)
    client.force_login(deployer)
    response = client.post(REGISTER, _form())
    assert response.status_code == 422
    assert "larger than 3 B together" in response.content.decode()
    assert response.context["form"]["name"].value() == "churn"
    assert not ModelVersion.objects.exists()


def _check(client, paths, total=1, **fields):
    data = {"name": "churn", "paths": json.dumps(paths), "total": total, **fields}
    return client.post(CHECK, data)


def test_the_check_knows_the_next_version_before_the_upload(client, deployer, register):
    register("churn")
    client.force_login(deployer)
    response = _check(client, ["m/model.pkl"])
    assert (response.status_code, response.json()) == (200, {"name": "churn", "version": 2})
    assert ModelVersion.objects.count() == 1


@pytest.mark.parametrize(
    ("paths", "total", "message"),
    [
        ([], 0, "at least one file"),
        (["a", "a"], 2, "'a'"),
        (["../a"], 1, "'..'"),
        (["a"], 2**60, "larger than"),
    ],
)
def test_the_check_refuses_files_that_registering_would(client, deployer, paths, total, message):
    client.force_login(deployer)
    response = _check(client, paths, total)
    assert response.status_code == 422
    assert message in response.json()["files"][0]


@pytest.mark.parametrize("paths", ["", "{", "{}", "[1]"])
def test_a_check_that_makes_no_sense_is_refused(client, deployer, paths):
    client.force_login(deployer)
    assert client.post(CHECK, {"name": "m", "paths": paths, "total": 1}).status_code == 422


def test_a_new_version_starts_with_the_words_of_the_newest(client, deployer, register):
    register(description="d", tags={"a": "b"}, sample_input="[1]", framework_version="1.0")
    client.force_login(deployer)
    response = client.get(REGISTER + "?name=diabetes")
    initial = response.context["form"].initial
    assert initial["tags"] == "a=b"
    assert (initial["description"], initial["framework_version"]) == ("d", "1.0")
    assert "Register version 2 of diabetes" in response.content.decode()


# A version ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["/models/no/", "/models/no/versions/", "/models/no/versions/1/", "/models/diabetes/versions/2/",
     "/models/diabetes/versions/1/files/no", "/models/diabetes/versions/2/download/"],
)  # fmt: skip
def test_what_is_not_there_is_404(client, viewer, register, url):
    register()
    client.force_login(viewer)
    assert client.get(url).status_code == 404


def test_names_and_paths_cannot_bring_markup_into_a_page(client, viewer, register):
    register(files={"<b>x</b>.pkl": b"1"}, tags={"<i>": "</script>"}, sample_input='"<u>"')
    client.force_login(viewer)
    for url in ("/models/diabetes/versions/1/", "/models/diabetes/", LIST):
        page = client.get(url).content.decode()
        for markup in ("<b>x", "<i>", "<u>"):
            assert markup not in page


def test_one_file_is_downloaded_with_its_name_and_size(client, viewer, register):
    register(files={"m/päth 1.pkl": b"weights"})
    client.force_login(viewer)
    response = client.get("/models/diabetes/versions/1/files/m/p%C3%A4th%201.pkl")
    assert response.getvalue() == b"weights"
    assert response["Content-Length"] == "7"
    assert response["Content-Disposition"] == "attachment; filename*=utf-8''p%C3%A4th%201.pkl"
    assert response["X-Content-Type-Options"] == "nosniff"


def test_a_version_is_downloaded_as_a_zip(client, viewer, register, monkeypatch):
    monkeypatch.setattr(downloads, "_CHUNK", 1000)
    files = {"m/model.pkl": b"w" * 5500, "m/empty": b"", "readme": b"hi"}
    register(files=files)
    client.force_login(viewer)
    response = client.get("/models/diabetes/versions/1/download/")
    assert response["Content-Disposition"] == 'attachment; filename="diabetes-1.zip"'
    chunks = list(response.streaming_content)
    assert max(map(len, chunks)) < 2000
    with zipfile.ZipFile(io.BytesIO(b"".join(chunks))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files


@pytest.mark.django_db(transaction=True)
async def test_under_asgi_a_download_comes_in_chunks_too(viewer, register, monkeypatch):
    monkeypatch.setattr(downloads, "_CHUNK", 10)
    await asyncio.to_thread(register, files={"f": b"x" * 95})
    client = AsyncClient()
    await client.aforce_login(viewer)
    response = await client.get("/models/diabetes/versions/1/files/f")
    assert response.is_async
    assert [len(chunk) async for chunk in response.streaming_content] == [10] * 9 + [5]
    response = await client.get("/models/diabetes/versions/1/download/")
    data = b"".join([chunk async for chunk in response.streaming_content])
    assert zipfile.ZipFile(io.BytesIO(data)).read("f") == b"x" * 95


def test_a_version_is_deleted_and_the_last_one_leads_to_the_list(client, deployer, register):
    register()
    register(files={"f": b"2"})
    client.force_login(deployer)
    assert client.post("/models/diabetes/versions/1/delete/").url == "/models/diabetes/"
    assert client.post("/models/diabetes/versions/2/delete/").url == LIST
    assert "diabetes:2 was deleted." in client.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("url", "back"),
    [("/models/diabetes/versions/1/delete/", "/models/diabetes/versions/1/"),
     ("/models/diabetes/delete/", "/models/diabetes/")],
)  # fmt: skip
def test_a_deployed_version_is_not_deleted_and_the_page_says_where(
    client, deployer, register, deployed_in, url, back
):
    deployed_in(register(), "live")
    client.force_login(deployer)
    response = client.post(url)
    assert response.url == back
    page = client.get(back).content.decode()
    assert "diabetes:1 is deployed in live" in page
    assert ModelVersion.objects.count() == 1


def test_a_model_is_deleted_with_all_versions(client, deployer, register):
    register()
    register(files={"f": b"2"})
    client.force_login(deployer)
    assert client.post("/models/diabetes/delete/").url == LIST
    assert not ModelVersion.objects.exists()


def test_where_a_version_is_deployed_is_live(client, viewer, register, deployed_in):
    deployed_in(register(), "live")
    client.force_login(viewer)
    page = client.get("/models/diabetes/versions/1/used/").content.decode()
    assert 'data-live="model:diabetes service:live"' in page
    assert "/services/live/" in page


# The admin ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["model", "modelversion", "blob"])
def test_the_admin_lists_and_searches(client, administrator, register, deployed_in, rows):
    deployed_in(register(), "live")
    client.force_login(administrator)
    response = client.get(f"/admin/deployments/{rows}/?q=model")
    assert response.status_code == 200
    assert client.get(f"/admin/deployments/{rows}/add/").status_code == 403


def test_the_admin_changes_no_version_and_deletes_by_the_rule(
    client, administrator, register, deployed_in
):
    used, unused = register(), register(files={"f": b"2"})
    deployed_in(used, "live")
    client.force_login(administrator)
    page = f"/admin/deployments/modelversion/{used.pk}/"
    assert client.get(page + "change/").status_code == 200
    assert client.post(page + "change/", {"version": 7}).status_code == 403
    assert client.post(page + "delete/", {"post": "yes"}).status_code == 403
    response = client.post(
        "/admin/deployments/modelversion/",
        {"action": "delete_unused", "_selected_action": [used.pk, unused.pk]},
        follow=True,
    )
    page = response.content.decode().lower()  # the admin begins messages with a capital
    assert "diabetes:1 is deployed in live" in page
    assert "diabetes:2 was deleted." in page
    assert list(ModelVersion.objects.values_list("pk", flat=True)) == [used.pk]


def test_the_admin_changes_a_description_and_nothing_else_of_a_model(
    client, administrator, register
):
    model = register().model
    client.force_login(administrator)
    client.post(
        f"/admin/deployments/model/{model.pk}/change/",
        {"description": "new", "name": "other", "next_version": 9,
         "versions-TOTAL_FORMS": 0, "versions-INITIAL_FORMS": 0},
    )  # fmt: skip
    model.refresh_from_db()
    assert (model.description, model.name, model.next_version) == ("new", "diabetes", 2)


def test_the_admin_removes_contents_nothing_refers_to(client, administrator, register, store):
    from deployments.registry import blobs

    kept = register().files.get().blob_id
    loose = blobs.store_bytes(b"loose")
    blobs.release([loose])
    client.force_login(administrator)
    listed = client.get("/admin/deployments/blob/?referenced=no").content.decode()
    assert loose.sha256 in listed
    assert kept not in listed
    client.post(
        "/admin/deployments/blob/",
        {"action": "remove_unreferenced", "_selected_action": [loose.sha256, kept]},
    )
    assert [file.name for file in store.rglob("*") if file.is_file()] == [kept]
