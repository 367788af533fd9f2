"""Two uploads register versions of one model at once, on a real database file."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connection, connections

from deployments.registry.models import Blob, ModelVersion
from deployments.registry.versions import delete_version, register_version

_TIMES = 10


@pytest.fixture
def database_file(db, tmp_path, monkeypatch):
    """Connections that other threads open go to a file with the same tables.

    The test database is in memory, where SQLite locks tables and not the database, so a race there
    would prove nothing.
    """
    if connection.vendor != "sqlite":
        pytest.skip("about the locks of SQLite")
    file = tmp_path / "db.sqlite3"
    target = sqlite3.connect(file)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%'"
        )
        for (statement,) in cursor.fetchall():
            target.execute(statement)
    target.execute("PRAGMA journal_mode=WAL")
    target.close()
    monkeypatch.setitem(
        connections.settings,
        "default",
        {**connections.settings["default"], "NAME": str(file)},
    )
    return file


def _at_once(*tasks):
    barrier = Barrier(len(tasks))

    def run(task):
        try:
            assert connection.settings_dict["NAME"].endswith("db.sqlite3")
            barrier.wait(timeout=60)
            return task()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run, t) for t in tasks]]


def test_two_uploads_at_once_get_two_versions(database_file, new_file, store):
    # both store the same contents, so they also race for the blobs
    files = [[new_file("f", f"{i}".encode()) for i in range(_TIMES)] for _ in range(2)]

    def upload(own):
        return [register_version(None, name="m", files=[file]).version for file in own]

    first, second = _at_once(lambda: upload(files[0]), lambda: upload(files[1]))
    assert first == sorted(first)
    assert second == sorted(second)
    assert sorted(first + second) == list(range(1, 2 * _TIMES + 1))
    assert len([file for file in store.rglob("*") if file.is_file()]) == _TIMES


def test_deleting_and_registering_the_same_content_at_once_loses_nothing(
    database_file, new_file, store
):
    files = [[new_file("f", b"same") for _ in range(_TIMES)] for _ in range(2)]

    def churn(name, own):
        for file in own:
            version = register_version(None, name=name, files=[file])
            blob = version.files.get().blob_id
            assert (store / "sha256" / blob[:2] / blob).read_bytes() == b"same"
            if file is not own[-1]:
                delete_version(None, version)
        return name

    def left():
        version = ModelVersion.objects.get(model__name="two")
        return version.version, Blob.objects.count()

    _at_once(lambda: churn("one", files[0]), lambda: churn("two", files[1]))
    assert _at_once(left) == [(_TIMES, 1)]
    assert len([file for file in store.rglob("*") if file.is_file()]) == 1
