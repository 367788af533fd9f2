"""Versions count up, never change, and are deleted only when nobody needs them."""

import pytest
from django.utils import timezone

from deployments.audit.models import AuditEntry
from deployments.errors import Conflict, InvalidInput, Unavailable
from deployments.registry import blobs
from deployments.registry.models import Blob, Model, ModelFile, ModelVersion
from deployments.registry.versions import (
    delete_model,
    delete_version,
    kept_by,
    register_version,
    used_by,
    where_used,
)
from deployments.services.models import Deployment, Revision, RevisionModel
from deployments.signals import changed
from tests.serving import serve

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("store")]


@pytest.fixture
def news():
    """(topic, key) of what was announced."""
    heard = []

    def hear(topic, key, **_):
        heard.append((topic, key))

    changed.connect(hear)
    yield heard
    changed.disconnect(hear)


def test_a_version_has_what_was_given(deployer, new_file, news, django_capture_on_commit_callbacks):
    files = [new_file("m/model.pkl", b"abc"), new_file("m/notes.txt", b"")]
    with django_capture_on_commit_callbacks(execute=True):
        version = register_version(
            deployer,
            name="churn",
            files=files,
            framework="ScikitLearn",
            framework_version="1.9.1",
            description="first",
            tags={"team": "x"},
            sample_input='{"data": [[1]]}',
        )
    version = ModelVersion.objects.get(pk=version.pk)
    assert str(version) == "churn:1"
    assert (version.size, version.file_count, version.framework) == (3, 2, "ScikitLearn")
    assert (version.tags, version.created_by) == ({"team": "x"}, deployer)
    assert version.model.description == "first"
    assert [(file.path, file.blob.size) for file in version.files.select_related("blob")] == [
        ("m/model.pkl", 3),
        ("m/notes.txt", 0),
    ]
    assert blobs.local_path(files[0].sha256).read_bytes() == b"abc"
    assert not files[0].source.exists()
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.object_name) == (deployer, "model.register", "churn:1")
    assert entry.after["files"] == 2
    assert news == [("model", "churn")]


def test_versions_count_up_and_numbers_are_never_used_twice(deployer, new_file):
    first, second = (
        register_version(deployer, name="m", files=[new_file("f", bytes([i]))]) for i in (1, 2)
    )
    assert (first.version, second.version) == (1, 2)
    delete_version(deployer, second)
    delete_version(deployer, first)
    assert register_version(deployer, name="m", files=[new_file("f")]).version == 3


def test_no_framework_is_taken_from_the_names(deployer, new_file):
    assert register_version(deployer, name="m", files=[new_file("a.onnx")]).framework == "Onnx"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": "no spaces"}, "name"),
        ({"files": []}, "files"),
        ({"tags": {"": "x"}}, "tags"),
        ({"sample_input": "{"}, "sample_input"),
        ({"framework": "x"}, "framework"),
        ({"framework_version": "a b"}, "framework_version"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_stored(deployer, new_file, given, field):
    file = new_file("f")
    with pytest.raises(InvalidInput) as caught:
        register_version(deployer, **{"name": "m", "files": [file], **given})
    assert caught.value.field == field
    assert file.source.exists()
    assert not Model.objects.exists()
    assert not Blob.objects.exists()


def test_paths_that_leave_the_folder_are_refused(deployer, new_file):
    with pytest.raises(InvalidInput, match=r"\.\.") as caught:
        register_version(deployer, name="m", files=[new_file("../f")])
    assert caught.value.field == "files"


def test_equal_files_of_a_version_are_stored_once(deployer, new_file):
    register_version(deployer, name="m", files=[new_file("a", b"x"), new_file("b", b"x")])
    assert ModelFile.objects.count() == 2
    assert Blob.objects.count() == 1


def test_a_registered_content_is_no_longer_held(deployer, new_file):
    register_version(deployer, name="m", files=[new_file("a")])
    assert Blob.objects.get().held_until is None


def test_a_failed_registration_leaves_no_content(deployer, new_file, monkeypatch, store):
    def broken(*args, **kwargs):
        raise RuntimeError("power cut")

    monkeypatch.setattr("deployments.registry.versions.record", broken)
    with pytest.raises(RuntimeError):
        register_version(deployer, name="m", files=[new_file("a")])
    assert not Blob.objects.exists()
    assert not Model.objects.exists()
    assert not [file for file in store.rglob("*") if file.is_file()]


def test_a_second_file_that_cannot_be_stored_takes_the_first_with_it(deployer, new_file, store):
    lost = new_file("b", b"2")
    lost.source.unlink()
    with pytest.raises(FileNotFoundError):
        register_version(deployer, name="m", files=[new_file("a", b"1"), lost])
    assert not [file for file in store.rglob("*") if file.is_file()]


def test_a_content_that_went_meanwhile_is_said_not_crashed_on(deployer, new_file, monkeypatch):
    # somebody with the same content gave up the hold, and the content was removed
    def store_and_lose(path, sha256, size):
        blob = Blob(sha256=sha256, size=size, held_until=timezone.now())
        return blob

    monkeypatch.setattr(blobs, "store_path", store_and_lose)
    monkeypatch.setattr(
        ModelFile.objects.__class__, "bulk_create", _raise_integrity_error, raising=True
    )
    with pytest.raises(Unavailable, match="upload it again"):
        register_version(deployer, name="m", files=[new_file("a")])
    assert not ModelVersion.objects.exists()


def _raise_integrity_error(*args, **kwargs):
    from django.db import IntegrityError

    raise IntegrityError("FOREIGN KEY constraint failed")


def test_deleting_a_version_removes_the_contents_only_it_had(deployer, new_file, store):
    first = register_version(
        deployer, name="m", files=[new_file("own", b"own"), new_file("both", b"both")]
    )
    second = register_version(deployer, name="n", files=[new_file("f", b"both")])
    delete_version(deployer, first)
    assert {blob.size for blob in Blob.objects.all()} == {4}
    with blobs.open_blob(second.files.get().blob_id) as file:
        assert file.read() == b"both"
    assert len([file for file in store.rglob("*") if file.is_file()]) == 1
    entry = AuditEntry.objects.filter(action="model.delete").get()
    assert (entry.object_name, entry.before["files"]) == ("m:1", 2)


@pytest.fixture
def version(deployer, new_file):
    return register_version(deployer, name="m", files=[new_file("f")])


def _make_current(revision):
    serve(revision.service, revision)


def test_a_version_in_a_current_revision_is_used(version, a_revision):
    RevisionModel.objects.create(revision=a_revision, model_version=version, position=0)
    assert where_used(version) == []
    _make_current(a_revision)
    assert where_used(version) == ["live"]
    assert used_by([version.pk, -1]) == {version.pk: ["live"]}


@pytest.mark.parametrize(
    ("state", "used"),
    [("queued", True), ("running", True), ("rolling", True), ("succeeded", False),
     ("failed", False), ("cancelled", False)],
)  # fmt: skip
def test_a_version_in_an_unfinished_deployment_is_used(version, a_revision, state, used):
    RevisionModel.objects.create(revision=a_revision, model_version=version, position=0)
    Deployment.objects.create(service=a_revision.service, revision=a_revision, state=state)
    assert where_used(version) == (["live"] if used else [])


def test_deleting_a_deployed_version_is_refused_with_where(deployer, version, a_revision):
    RevisionModel.objects.create(revision=a_revision, model_version=version, position=0)
    _make_current(a_revision)
    with pytest.raises(Conflict, match="m:1 is deployed in live"):
        delete_version(deployer, version)
    assert ModelVersion.objects.filter(pk=version.pk).exists()
    assert version.files.count() == 1
    assert not AuditEntry.objects.filter(action="model.delete").exists()


def test_deleting_a_version_that_a_roll_back_needs_is_refused_with_where(
    deployer, version, a_revision
):
    RevisionModel.objects.create(revision=a_revision, model_version=version, position=0)
    _make_current(Revision.objects.create(
        service=a_revision.service, number=2, environment=a_revision.environment
    ))  # fmt: skip
    assert kept_by(version) == ["live r1"]
    with pytest.raises(Conflict, match="rolling back to live r1"):
        delete_version(deployer, version)
    a_revision.service.delete()
    delete_version(deployer, version)
    assert not ModelVersion.objects.exists()


def test_deleting_a_model_deletes_all_versions_or_none(deployer, new_file, version, a_revision):
    register_version(deployer, name="m", files=[new_file("f", b"2")])
    link = RevisionModel.objects.create(revision=a_revision, model_version=version, position=0)
    _make_current(a_revision)
    with pytest.raises(Conflict):
        delete_model(deployer, version.model)
    assert ModelVersion.objects.count() == 2
    link.delete()
    assert delete_model(deployer, version.model) == 2
    assert not Blob.objects.exists()
