"""Content is stored once, and leaves only when nothing refers to it."""

import hashlib
import os
from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.utils import timezone

from deployments.errors import InvalidInput, NotFound
from deployments.registry import blobs
from deployments.registry.models import Blob, Model, ModelFile, ModelVersion

pytestmark = pytest.mark.django_db
HELLO = hashlib.sha256(b"hello").hexdigest()


def _source(tmp_path, data=b"hello", name="source"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_a_file_is_moved_into_the_store_and_made_read_only(store, tmp_path):
    source = _source(tmp_path)
    inode = source.stat().st_ino
    blob = blobs.store_path(source, HELLO, 5)
    kept = store / "sha256" / HELLO[:2] / HELLO
    assert (blob.sha256, blob.size) == (HELLO, 5)
    assert kept.stat().st_ino == inode
    assert kept.stat().st_mode & 0o777 == 0o444
    assert blobs.local_path(HELLO) == kept
    assert not source.exists()


def test_a_file_from_another_file_system_is_copied_beside_and_renamed(store, tmp_path, monkeypatch):
    source = _source(tmp_path)
    real = type(source).stat
    monkeypatch.setattr(
        type(source),
        "stat",
        lambda self, **kw: (
            os.stat_result([*real(self)[:2], 4242, *real(self)[3:]])
            if self == source
            else real(self, **kw)
        ),
    )
    blobs.store_path(source, HELLO, 5)
    assert [file.name for file in (store / "sha256" / HELLO[:2]).iterdir()] == [HELLO]
    assert blobs.local_path(HELLO).read_bytes() == b"hello"
    assert not source.exists()


def test_the_same_content_is_stored_once(store, tmp_path):
    blobs.store_path(_source(tmp_path), HELLO, 5)
    kept = blobs.local_path(HELLO)
    inode = kept.stat().st_ino
    blobs.store_path(_source(tmp_path, name="again"), HELLO, 5)
    blobs.store_bytes(b"hello")
    assert Blob.objects.count() == 1
    assert kept.stat().st_ino == inode
    assert [file for file in store.rglob("*") if file.is_file()] == [kept]


def test_a_file_that_is_cut_short_in_the_store_is_stored_anew(store, tmp_path):
    blobs.store_bytes(b"hello")
    kept = blobs.local_path(HELLO)
    kept.chmod(0o644)
    kept.write_bytes(b"he")
    blobs.store_path(_source(tmp_path), HELLO, 5)
    assert kept.read_bytes() == b"hello"


def test_a_size_that_differs_is_refused(store, tmp_path):
    with pytest.raises(InvalidInput, match="5 bytes, not 6"):
        blobs.store_path(_source(tmp_path), HELLO, 6)
    assert not Blob.objects.exists()


def test_what_is_no_hash_never_becomes_a_path(store, tmp_path):
    for name in ("../../etc/passwd", "A" * 64, "a" * 63, ""):
        with pytest.raises(InvalidInput):
            blobs.storage_name(name)


@pytest.mark.parametrize("size", [0, 5])
def test_bytes_are_stored_and_read_back(store, size):
    data = b"hello"[:size]
    blob = blobs.store_bytes(data)
    with blobs.open_blob(blob.sha256) as file:
        assert file.read() == data


def test_a_remote_storage_streams_and_has_no_paths(remote, tmp_path):
    blobs.store_path(_source(tmp_path), HELLO, 5)
    blobs.store_path(_source(tmp_path), HELLO, 5)
    assert default_storage.contents == {f"sha256/{HELLO[:2]}/{HELLO}": b"hello"}
    assert default_storage.saves == 1
    assert blobs.local_path(HELLO) is None
    source = blobs.StorageBlobs()
    assert source.local_path(HELLO) is None
    with source.open(HELLO) as file:
        assert file.read() == b"hello"


@pytest.mark.parametrize("kind", ["store", "remote"])
def test_content_that_is_not_there_is_not_found(kind, request):
    request.getfixturevalue(kind)
    with pytest.raises(NotFound):
        blobs.open_blob(HELLO)


def test_a_missing_file_has_no_local_path(store):
    with pytest.raises(NotFound):
        blobs.local_path(HELLO)


def test_a_held_content_stays_until_its_hold_runs_out(store):
    blobs.store_bytes(b"hello")
    now = timezone.now()
    assert blobs.remove_unreferenced(now, among=[HELLO]) == 0
    assert blobs.remove_unreferenced(now + blobs.HOLD - timedelta(minutes=1)) == 0
    assert blobs.remove_unreferenced(now + blobs.HOLD + timedelta(minutes=1)) == 1
    assert not Blob.objects.exists()
    assert not [file for file in store.rglob("*") if file.is_file()]


def test_a_released_content_goes_when_nothing_refers_to_it(store):
    blob = blobs.store_bytes(b"hello")
    blobs.release([blob])
    assert blobs.remove_unreferenced(timezone.now(), among=[HELLO]) == 1


def test_a_hold_somebody_else_took_since_is_not_released(store):
    first = blobs.store_bytes(b"hello")
    blobs.store_bytes(b"hello")
    blobs.release([first])
    assert blobs.remove_unreferenced(timezone.now(), among=[HELLO]) == 0


def _refer(blob):
    model = Model.objects.create(name="m")
    version = ModelVersion.objects.create(model=model, version=1, size=5, file_count=1)
    return ModelFile.objects.create(version=version, path="f", blob=blob)


def test_a_content_that_a_model_refers_to_stays(store):
    blob = blobs.store_bytes(b"hello")
    file = _refer(blob)
    late = timezone.now() + 2 * blobs.HOLD
    assert blobs.remove_unreferenced(late, among=[HELLO]) == 0
    assert Blob.objects.get().held_until is None
    file.delete()
    assert blobs.remove_unreferenced(late, among=[HELLO]) == 1


@pytest.mark.parametrize("column", ["source", "package"])
def test_a_content_that_a_revision_refers_to_stays(store, column, a_revision):
    blob = blobs.store_bytes(b"hello")
    blobs.release([blob])
    setattr(a_revision, column, blob)
    a_revision.save(update_fields=[column])
    assert blobs.remove_unreferenced(timezone.now(), among=[HELLO]) == 0
    a_revision.delete()
    assert blobs.remove_unreferenced(timezone.now(), among=[HELLO]) == 1


def test_a_sweep_of_all_finds_what_a_deleted_service_left(store, a_revision):
    sources = [blobs.store_bytes(data) for data in (b"used", b"left", b"held")]
    blobs.release(sources[:2])
    a_revision.source = sources[0]
    a_revision.save(update_fields=["source"])
    assert blobs.remove_unreferenced(timezone.now()) == 1
    assert set(Blob.objects.all()) == {sources[0], sources[2]}
    a_revision.service.delete()
    assert blobs.remove_unreferenced(timezone.now()) == 1


def test_many_contents_are_removed_in_batches(store, monkeypatch):
    monkeypatch.setattr(blobs, "_BATCH", 3)
    kept = [blobs.store_bytes(str(number).encode()) for number in range(8)]
    blobs.release(kept)
    assert blobs.remove_unreferenced(timezone.now(), among=[blob.sha256 for blob in kept]) == 8
