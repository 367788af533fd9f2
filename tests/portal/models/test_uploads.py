"""Uploads are on disk, hashed, limited with words, and leave nothing behind."""

import dataclasses
import hashlib
import io
import os
import time
import zipfile
from pathlib import Path

import pytest
from django.http import HttpRequest
from django.test import RequestFactory

from deployments.registry.archives import LONGEST_PATH
from portal import uploads

_BOUNDARY = "b0undary"


def _part(name, data, filename=None):
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    head = f"--{_BOUNDARY}\r\nContent-Disposition: {disposition}\r\n"
    if filename:  # as long as a browser's
        head += f"Content-Type: application/{'x' * 70}\r\n"
    head += "\r\n"
    return head.encode() + data + b"\r\n"


def _request(*parts, cut=0) -> HttpRequest:
    body = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
    body = body[: len(body) - cut]
    return RequestFactory().post(
        "/", body, content_type=f"multipart/form-data; boundary={_BOUNDARY}"
    )


def _left(settings):
    return sorted(Path(settings.FILE_UPLOAD_TEMP_DIR).iterdir())


@pytest.fixture
def limit(settings):
    """Set the largest upload in bytes."""

    def set_limit(size):
        settings.ENV = dataclasses.replace(settings.ENV, max_upload_gb=size / 2**30)

    return set_limit


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_every_file_is_on_disk_with_its_hash(settings, size):
    data = os.urandom(size)
    request = _request(_part("x", b"1"), _part("files", data, "m.pkl"))
    file = request.FILES["files"]
    assert (file.name, file.size) == ("m.pkl", size)
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert file.path.parent == settings.FILE_UPLOAD_TEMP_DIR
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.read() == data
    assert b"".join(file.chunks()) == data
    request.close()
    assert _left(settings) == []


def test_a_folder_keeps_its_paths():
    request = _request(
        _part("files", b"1", "m/a/x"), _part("files", b"2", "m/b/x"), _part("files", b"3", "y")
    )
    files = request.FILES.getlist("files")
    assert [file.relative_path for file in files] == ["m/a/x", "m/b/x", "y"]
    assert [file.name for file in files] == ["x", "x", "y"]
    request.close()


def test_the_longest_path_that_is_allowed_arrives():
    path = "/".join(["a" * 199] * 4)
    assert len(path) == LONGEST_PATH - 1
    request = _request(_part("files", b"1", path + "b"))
    assert request.FILES["files"].relative_path == path + "b"
    request.close()


def test_path_tricks_arrive_as_they_came_for_the_registry_to_judge():
    request = _request(_part("files", b"1", "../../etc/passwd"))
    assert request.FILES["files"].relative_path == "../../etc/passwd"
    assert request.FILES["files"].name == "passwd"
    request.close()


def test_an_upload_reads_as_any_file_does():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"1")
    request = _request(_part("source", buffer.getvalue(), "source.zip"))
    file = request.FILES["source"]
    assert (file.readable(), file.seekable()) == (True, True)
    assert zipfile.ZipFile(file).read("a") == b"1"
    assert file.open().read(2) == b"PK"
    request.close()


def test_thousands_of_files_keep_no_file_open():
    before = len(list(Path("/proc/self/fd").iterdir()))
    request = _request(*(_part("files", b"x", f"f{i}") for i in range(2000)))
    assert len(request.FILES.getlist("files")) == 2000
    assert len(list(Path("/proc/self/fd").iterdir())) - before < 10
    request.close()


def test_the_largest_upload_is_taken_and_one_byte_more_is_refused_with_words(settings, limit):
    limit(1000)
    parts = [_part("name", b"churn"), _part("files", b"a" * 600, "a")]
    request = _request(*parts, _part("files", b"b" * 400, "b"))
    assert len(request.FILES.getlist("files")) == 2
    assert uploads.problem(request) == ""
    request.close()
    request = _request(*parts, _part("files", b"b" * 401, "b"))
    assert request.POST["name"] == "churn"
    assert "larger than 1000 B together" in uploads.problem(request)
    request.close()
    assert _left(settings) == []


def test_too_many_files_are_refused_with_words(settings, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_FILES", 3)
    request = _request(_part("name", b"m"), *(_part("files", b"x", f"f{i}") for i in range(4)))
    assert request.POST["name"] == "m"
    assert "at most 3" in uploads.problem(request)
    request.close()
    assert _left(settings) == []


def test_an_upload_cut_off_in_a_file_leaves_nothing(settings):
    request = _request(_part("files", b"a", "a"), _part("files", b"b" * 5000, "b"), cut=3000)
    assert len(request.FILES.getlist("files")) <= 2
    request.close()
    assert _left(settings) == []


class _Broken(io.BytesIO):
    """A body whose connection breaks half-way."""

    def read(self, size=-1):
        if self.tell() > 4000:
            raise OSError("connection reset")
        return super().read(min(size, 2000) if size > 0 else 2000)


def test_a_connection_that_breaks_leaves_nothing(settings):
    request = _request(_part("files", b"a" * 1000, "a"), _part("files", b"b" * 9000, "b"))
    request._read_started = False
    request._stream = _Broken(request._stream.read())
    with pytest.raises(OSError, match="connection reset"):
        _ = request.POST
    request.close()
    assert _left(settings) == []


def test_stale_files_are_removed_and_young_ones_stay(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    old, young, other = (folder / name for name in ("a.upload", "b.upload", "c.txt"))
    now = time.time()
    for path, age in ((old, 24 * 3600 + 5), (young, 24 * 3600 - 5), (other, 10**6)):
        path.write_bytes(b"x")
        os.utime(path, (now - age, now - age))
    assert uploads.remove_stale(folder, now) == 1
    assert sorted(folder.iterdir()) == [young, other]


def test_an_upload_clears_what_a_killed_process_left(settings):
    left = settings.FILE_UPLOAD_TEMP_DIR / "dead.upload"
    left.write_bytes(b"x")
    os.utime(left, (1, 1))
    request = _request(_part("files", b"1", "a"))
    assert len(request.FILES) == 1
    request.close()
    assert not left.exists()
