"""The process driver: what is wanted and what is seen go through files whole, or not at all."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from deployments.codec import to_json
from deployments.drivers.folder import StoredReplica, VersionScale, wanted
from deployments.drivers.process import ProcessDriver
from deployments.drivers.process_layout import write_json
from deployments.errors import InvalidInput, NotFound, PermanentError, TemporaryError, Unavailable
from deployments.types import (
    CheckStatus,
    EnvironmentSpec,
    FileSpec,
    ModelSpec,
    ObservedVersion,
    Phase,
    Replica,
    ReplicaRoute,
    Resources,
    RevisionSpec,
    RouteReport,
    RouteState,
    Scaling,
    ServiceSpec,
    VersionSpec,
)

PLAIN = Scaling()
SMALL = Resources()


class FolderBlobs:
    """Blobs in a folder, each under its digest; `local` says whether they count as local files."""

    def __init__(self, folder: Path, *, local: bool = True) -> None:
        self.folder, self.local = folder, local
        folder.mkdir(exist_ok=True)

    def put(self, data: bytes, path: str) -> FileSpec:
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / digest).write_bytes(data)
        return FileSpec(path, digest, len(data))

    def local_path(self, sha256: str) -> Path | None:
        return self.folder / sha256 if self.local else None

    def open(self, sha256: str) -> BinaryIO:
        return (self.folder / sha256).open("rb")


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


@pytest.fixture
def driver(tmp_path: Path) -> ProcessDriver:
    return ProcessDriver(tmp_path / "local")


@pytest.fixture
def revision(blobs: FolderBlobs) -> RevisionSpec:
    return RevisionSpec(
        service="diabetes",
        number=1,
        source=blobs.put(zipped({"score.py": b"x = 1\n", "lib/help.py": b""}), "source.zip"),
        entry_script="score.py",
        models=(ModelSpec("ridge", 3, (blobs.put(b"weights", "a/model.pkl"),)),),
        environment=EnvironmentSpec("e" * 64, "/venv"),
    )


def service(revision: RevisionSpec, scaling: Scaling = PLAIN, generation: int = 1) -> ServiceSpec:
    return ServiceSpec(
        "diabetes", (VersionSpec("default", revision, scaling),), generation=generation
    )


def put_replica(driver: ProcessDriver, replica: Replica, resources: Resources = SMALL) -> Path:
    path = driver.folder.replica_record(replica.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**to_json(StoredReplica(replica, resources)), "agent": {"port": 1}})
    return path


# What should run


def test_a_new_cluster_shows_nothing_and_no_agent(driver):
    seen = driver.observe()
    assert (seen.services, seen.orphans, seen.supervisor_at) == ((), (), None)


def test_an_applied_service_is_observed_with_its_minimum_wanted(driver, revision):
    spec = service(revision, Scaling(minimum=2))
    driver.apply(spec)
    (seen,) = driver.observe().services
    assert seen.spec == spec
    assert seen.desired == (ObservedVersion("default", 2),)


def test_applying_again_keeps_the_autoscalers_count(driver, revision):
    driver.apply(service(revision))
    driver.scale("diabetes", "default", 7)
    driver.apply(service(replace(revision, number=2), generation=2))
    (seen,) = driver.observe().services
    assert seen.desired == (ObservedVersion("default", 7),)
    assert seen.spec.versions[0].revision.number == 2


def test_a_count_is_brought_into_the_new_limits(driver, revision):
    driver.apply(service(revision))
    driver.scale("diabetes", "default", 7)
    driver.apply(service(revision, Scaling(minimum=1, maximum=4), generation=2))
    assert driver.observe().services[0].desired[0].desired == 4


@pytest.mark.parametrize(
    ("scaling", "scale", "count"),
    [
        (Scaling(minimum=2, maximum=5), None, 2),
        (Scaling(minimum=2, maximum=5), VersionScale(1), 2),
        (Scaling(minimum=2, maximum=5), VersionScale(2), 2),
        (Scaling(minimum=2, maximum=5), VersionScale(5), 5),
        (Scaling(minimum=2, maximum=5), VersionScale(6), 5),
        (Scaling(autoscale=False, minimum=3, maximum=3), VersionScale(6), 3),
    ],
)
def test_the_wanted_count_stays_in_its_limits(scaling, scale, count):
    assert wanted(scaling, scale) == count


def test_an_older_generation_does_not_undo_a_later_one(driver, revision):
    driver.apply(service(replace(revision, number=2), generation=2))
    driver.apply(service(revision, generation=1))
    assert driver.observe().services[0].spec.generation == 2


def test_a_removed_service_leaves_its_replicas_as_orphans(driver, revision):
    driver.apply(service(revision))
    replica = Replica("diabetes-r1-abcde", "diabetes", "default", 1, Phase.READY)
    put_replica(driver, replica)
    driver.remove("diabetes")
    driver.remove("diabetes")
    seen = driver.observe()
    assert (seen.services, seen.orphans) == ((), (replica,))


def test_a_service_made_again_begins_at_its_minimum(driver, revision):
    driver.apply(service(revision))
    driver.scale("diabetes", "default", 7)
    driver.remove("diabetes")
    driver.apply(service(revision))
    assert driver.observe().services[0].desired[0].desired == 1


def test_what_is_not_there_cannot_be_scaled(driver, revision):
    with pytest.raises(NotFound, match="no service diabetes"):
        driver.scale("diabetes", "default", 2)
    driver.apply(service(revision))
    with pytest.raises(NotFound, match="no version blue"):
        driver.scale("diabetes", "blue", 2)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a\n"])
def test_a_name_that_is_a_path_is_refused(driver, name):
    with pytest.raises(InvalidInput):
        driver.remove(name)
    with pytest.raises(InvalidInput):
        driver.logs(name)


# What runs


def test_a_replica_is_observed_as_the_agent_wrote_it(driver, revision):
    driver.apply(service(revision))
    replica = Replica(
        "diabetes-r1-abcde", "diabetes", "default", 1, Phase.STARTING, "127.0.0.1:23000"
    )
    put_replica(driver, replica)
    assert driver.observe().services[0].replicas == (replica,)
    ready = replace(replica, phase=Phase.READY, ready_at=5.0)
    put_replica(driver, ready)
    assert driver.observe().services[0].replicas == (ready,)


def test_a_damaged_file_is_unavailable_and_never_a_smaller_answer(driver, revision):
    driver.apply(service(revision))
    path = put_replica(driver, Replica("r", "diabetes", "default", 1, Phase.READY))
    path.write_text('{"replica": ')
    with pytest.raises(Unavailable, match="cannot be read"):
        driver.observe()
    path.unlink()
    with pytest.raises(Unavailable):
        driver.observe()
    path.parent.rmdir()
    driver.folder.service("diabetes").write_text("[]")
    with pytest.raises(Unavailable):
        driver.observe()


def test_a_replica_that_is_being_made_is_not_seen_yet(driver):
    driver.folder.ensure()
    (driver.folder.replicas / ".new-x").mkdir()
    assert driver.observe().orphans == ()


def test_observing_reads_no_file_that_did_not_change(driver, revision, monkeypatch):
    driver.apply(service(revision))
    put_replica(driver, Replica("r", "diabetes", "default", 1, Phase.READY))
    driver.observe()
    read = []
    from deployments.drivers import process_layout

    monkeypatch.setattr(process_layout, "read_json", lambda path: read.append(path))
    driver.observe()
    assert read == []


def test_the_routers_word_is_stored_whole(driver):
    driver.folder.ensure()
    report = RouteReport(4.0, (ReplicaRoute("r", RouteState.DRAINING, 2),))
    driver.publish_routes(report)
    assert json.loads(driver.folder.routes.read_text()) == to_json(report)


def test_room_is_the_machine_less_what_replicas_ask_for(driver):
    whole = driver.capacity().nodes[0]
    put_replica(
        driver, Replica("r", "s", "default", 1, Phase.READY), Resources(cpu=0.5, memory_gb=0.25)
    )
    left = driver.capacity().nodes[0]
    assert whole.cpu_free == whole.cpu_total
    assert left.cpu_free == pytest.approx(whole.cpu_total - 0.5)
    assert left.memory_gb_free == pytest.approx(whole.memory_gb_total - 0.25, abs=0.02)


def test_checks_say_that_no_agent_runs_and_how_to_start_it(driver):
    checks = {check.name: check for check in driver.check()}
    assert checks["cluster folder can be written"].status is CheckStatus.PASS
    assert checks["agent is alive"].status is CheckStatus.FAIL
    assert "run_agent local" in checks["agent is alive"].remedy


# Staging


def test_staged_files_stand_where_replicas_read_them(driver, blobs, revision):
    driver.stage(revision, blobs)
    folder = driver.folder.revision(revision)
    assert (folder / "app/score.py").read_bytes() == b"x = 1\n"
    assert (folder / "app/lib/help.py").exists()
    assert (folder / "models/ridge/3/a/model.pkl").read_bytes() == b"weights"


def test_a_local_blob_is_linked_and_a_remote_one_copied(driver, blobs, revision):
    file = revision.models[0].files[0]
    driver.stage(revision, blobs)
    linked = driver.folder.revision(revision) / "models/ridge/3/a/model.pkl"
    assert linked.samefile(blobs.folder / file.sha256)
    remote = replace(revision, number=2)
    driver.stage(remote, FolderBlobs(blobs.folder, local=False))
    copied = driver.folder.revision(remote) / "models/ridge/3/a/model.pkl"
    assert copied.read_bytes() == b"weights"
    assert not copied.samefile(linked)


def test_staging_twice_changes_nothing_and_needs_no_store(driver, blobs, revision):
    driver.stage(revision, blobs)
    for blob in blobs.folder.iterdir():
        blob.unlink()
    driver.stage(revision, blobs)


def test_an_interrupted_staging_leaves_nothing_with_the_final_name(driver, blobs, revision):
    class Dying(FolderBlobs):
        def local_path(self, sha256: str) -> Path | None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.stage(revision, Dying(blobs.folder))
    assert not driver.folder.revision(revision).exists()
    driver.stage(revision, blobs)
    assert driver.folder.revision(revision).exists()


def test_the_same_number_with_other_content_stands_beside(driver, blobs, revision):
    other = replace(revision, source=blobs.put(zipped({"score.py": b"x = 2\n"}), "source.zip"))
    driver.stage(revision, blobs)
    driver.stage(other, blobs)
    assert (driver.folder.revision(revision) / "app/score.py").read_bytes() == b"x = 1\n"
    assert (driver.folder.revision(other) / "app/score.py").read_bytes() == b"x = 2\n"


@pytest.mark.parametrize(
    "name",
    ["../out.py", "/out.py", "a/../../out.py", "a\\..\\out.py", "c:/out.py", "a\x01b", "./x"],
)
def test_an_archive_that_leads_elsewhere_is_refused(driver, blobs, revision, name, tmp_path):
    bad = replace(revision, source=blobs.put(zipped({name: b"x"}), "source.zip"))
    with pytest.raises(InvalidInput):
        driver.stage(bad, blobs)
    assert not driver.folder.revision(bad).exists()
    assert not list(tmp_path.rglob("out.py"))


def test_a_link_in_an_archive_is_refused(driver, blobs, revision):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("score.py")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    bad = replace(revision, source=blobs.put(buffer.getvalue(), "source.zip"))
    with pytest.raises(InvalidInput, match="link"):
        driver.stage(bad, blobs)


def test_an_archive_that_grows_too_large_is_refused(driver, blobs, revision, monkeypatch):
    from deployments.drivers import process_stage

    monkeypatch.setattr(process_stage, "MAX_SOURCE_BYTES", 3)
    with pytest.raises(InvalidInput, match="unpacks to more"):
        driver.stage(revision, blobs)


def test_a_file_where_a_folder_should_be_is_refused(driver, blobs, revision):
    bad = replace(revision, source=blobs.put(zipped({"a": b"", "a/b": b""}), "source.zip"))
    with pytest.raises(InvalidInput, match="twice"):
        driver.stage(bad, blobs)


def test_what_is_no_zip_is_said_plainly(driver, blobs, revision):
    bad = replace(revision, source=blobs.put(b"nothing", "source.zip"))
    with pytest.raises(PermanentError, match="not a readable zip"):
        driver.stage(bad, blobs)


def test_a_damaged_remote_file_stops_the_staging(driver, blobs, revision):
    file = revision.models[0].files[0]
    (blobs.folder / file.sha256).write_bytes(b"cut")
    with pytest.raises(TemporaryError, match="should be 7 bytes"):
        driver.stage(revision, FolderBlobs(blobs.folder, local=False))
