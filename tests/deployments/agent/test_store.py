"""The agent's files: made whole, found again, cleared away and never more than that."""

import os
import shutil

import pytest

from deployments.agent import store
from deployments.agent.record import Wanted
from deployments.drivers.process import ProcessDriver
from deployments.drivers.process_layout import ClusterFolder
from deployments.errors import Unavailable
from deployments.types import Phase
from tests.deployments.agent.conftest import a_revision

NOW = 1_000_000.0


@pytest.fixture
def folder(tmp_path) -> ClusterFolder:
    folder = ClusterFolder(tmp_path / "local")
    folder.ensure()
    return folder


def want(number: int = 1) -> Wanted:
    return Wanted("diabetes", "default", a_revision(number), f"k{number}", 1)


def staged(folder: ClusterFolder, number: int = 1):
    app = folder.revision(a_revision(number)) / "app"
    app.mkdir(parents=True)
    (app / "score.py").write_text("x = 1")
    return app.parent


def test_a_created_replica_is_found_again_and_seen_by_the_driver(folder):
    record = store.create(folder, want(), "host", NOW)
    assert record.id.startswith("diabetes-r1-")
    assert store.load(folder) == {record.id: record}
    (seen,) = ProcessDriver(folder.root).observe().orphans
    assert (seen.id, seen.phase, seen.node) == (record.id, Phase.SCHEDULING, "host")


def test_a_half_made_replica_is_swept_away(folder):
    (folder.replicas / ".new-x").mkdir()
    assert store.load(folder) == {}
    assert list(folder.replicas.iterdir()) == []


def test_a_damaged_record_is_put_aside_and_stops_nobody(folder, caplog):
    good = store.create(folder, want(), "host", NOW)
    bad = store.create(folder, want(), "host", NOW)
    folder.replica_record(bad.id).write_text("{")
    with pytest.raises(Unavailable):
        ProcessDriver(folder.root).observe()
    assert set(store.load(folder)) == {good.id}
    assert "is damaged" in caplog.text
    assert len(ProcessDriver(folder.root).observe().orphans) == 1
    assert ProcessDriver(folder.root).log_replicas("diabetes") == [good.id]


def test_a_working_copy_is_fresh_for_each_run(folder):
    record = store.create(folder, want(), "host", NOW)
    staged(folder)
    assert store.prepare(folder, record)
    work = folder.replica(record.id) / "work"
    (work / "app" / "left over").touch()
    assert store.prepare(folder, record)
    assert sorted(path.name for path in (work / "app").iterdir()) == ["score.py"]
    assert {path.name for path in work.iterdir()} == {"app", "home", "tmp"}


def test_files_that_are_not_staged_are_no_working_copy(folder):
    record = store.create(folder, want(), "host", NOW)
    assert store.prepare(folder, record) is False


def test_a_forgotten_replica_keeps_its_record_and_log_alone(folder):
    record = store.create(folder, want(), "host", NOW)
    staged(folder)
    store.prepare(folder, record)
    (folder.replica(record.id) / "log").mkdir()
    store.forget(folder, record)
    store.forget(folder, record)
    assert {path.name for path in (folder.gone / record.id).iterdir()} == {"replica.json", "log"}
    assert not folder.replica(record.id).exists()
    assert ProcessDriver(folder.root).log_replicas("diabetes") == [record.id]


def test_the_last_twenty_stopped_replicas_keep_their_logs_for_a_week(folder):
    for number in range(store.KEPT_GONE + 2):
        path = folder.gone / f"diabetes-r1-{number:05}"
        (path / "log").mkdir(parents=True)
        os.utime(path, (NOW + number, NOW + number))
    (folder.gone / "other-r1-aaaaa").mkdir()
    os.utime(folder.gone / "other-r1-aaaaa", (NOW, NOW))
    store.tidy(folder, (), (), whole=True, now=NOW + 100)
    left = sorted(path.name for path in folder.gone.iterdir())
    assert len(left) == store.KEPT_GONE + 1
    assert "diabetes-r1-00001" not in left
    store.tidy(folder, (), (), whole=True, now=NOW + store.KEPT_GONE_SECONDS + 50)
    assert list(folder.gone.iterdir()) == []


@pytest.mark.parametrize(
    ("age", "whole", "stays"),
    [(store.REVISION_AGE, True, True), (store.REVISION_AGE + 1, True, False), (10**6, False, True)],
)
def test_an_unused_revision_goes_after_a_day(folder, age, whole, stays):
    used, unused, running = staged(folder, 1), staged(folder, 2), staged(folder, 3)
    record = store.create(folder, want(3), "host", NOW)
    for path in (used, unused, running):
        os.utime(path, (NOW - age, NOW - age))
    store.tidy(folder, [record], [want(1)], whole=whole, now=NOW)
    assert used.exists()
    assert running.exists()
    assert unused.exists() is stays


def test_tidying_a_folder_that_others_change_is_no_error(folder):
    record = store.create(folder, want(), "host", NOW)
    shutil.rmtree(folder.replica(record.id))
    store.forget(folder, record)
    store.tidy(folder, [], [], whole=True, now=NOW)
