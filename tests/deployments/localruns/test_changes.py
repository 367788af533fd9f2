"""Local runs as rows: who may have how many, what an edit is, and what is cleared away."""

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from deployments.clusters.models import Cluster
from deployments.environments.models import Environment
from deployments.errors import Conflict, InvalidInput
from deployments.localruns import changes
from deployments.localruns.models import LocalRun
from deployments.services import sources
from deployments.services.config import DeploymentConfig
from portal.models import User

SCRIPT = "def init(): ...\ndef run(data): return data\n"


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(changes, "spawn", found.append)
    return found


@pytest.fixture
def begin(cluster: Cluster, environment: Environment, spawned: list[int], deployer: User):
    def start(actor: User = deployer, kind: str = "process") -> LocalRun:
        cluster.kind = kind
        return changes.start(
            actor,
            name="words",
            service="",
            cluster=cluster,
            environment=environment,
            source=sources.from_text({"score.py": SCRIPT, "data/notes.txt": "hello"}),
            entry_script="score.py",
            model_versions=(),
            config=DeploymentConfig(),
            form={"name": "words"},
        )

    return start


def test_a_run_is_written_down_and_its_runner_spawned_on_commit(
    begin, spawned: list[int], django_capture_on_commit_callbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        run = begin()
    assert (run.state, run.claimed_by, spawned) == ("queued", "", [run.pk])


def test_a_person_may_have_so_many_and_another_their_own(
    begin, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "ENV", dataclasses.replace(settings.ENV, local_runs=2))
    begin(), begin()
    with pytest.raises(Conflict, match="You have 2 local runs"):
        begin()
    begin(viewer)
    LocalRun.objects.filter(owner__username="dan").update(state="stopped")
    begin()


def test_a_kubernetes_clusters_environment_is_not_run_here(begin) -> None:
    with pytest.raises(InvalidInput, match="choose a cluster"):
        begin(kind="kubernetes")


def test_one_runner_claims_a_run(begin) -> None:
    run = begin()
    assert changes.claim(run.pk, "a:1:1") is not None
    assert changes.claim(run.pk, "b:1:1") is None


def test_a_run_that_was_stopped_first_is_not_claimed(begin) -> None:
    run = begin()
    changes.stop(run)
    assert changes.claim(run.pk, "a:1:1") is None
    run.refresh_from_db()
    assert run.state == "stopped"


def test_edits_add_up_and_make_the_source(begin) -> None:
    run = begin()
    assert changes.save(run, "score.py", "a = 1\r\n") == 1
    assert changes.save(run, "new/helper.py", "b = 2\n") == 2
    run.refresh_from_db()
    source = changes.edited_source(run)
    assert sources.read_text(source, "score.py") == "a = 1\n"
    assert sources.read_text(source, "new/helper.py") == "b = 2\n"
    assert sources.read_text(source, "data/notes.txt") == "hello"


@pytest.mark.parametrize("path", ["../score.py", "/etc/passwd", "a\\b.py", ""])
def test_an_edit_stays_in_the_folder(begin, path: str) -> None:
    with pytest.raises(InvalidInput):
        changes.save(begin(), path, "x")


def test_an_ended_run_takes_no_edit(begin) -> None:
    run = begin()
    LocalRun.objects.update(state="stopped")
    with pytest.raises(Conflict, match="has ended"):
        changes.save(run, "score.py", "x")


def test_a_run_whose_runner_is_gone_is_ended_and_its_folder_removed(begin) -> None:
    import socket

    run = begin()
    folder: Path = settings.HOME.local_run(run.pk)
    folder.mkdir(parents=True)
    LocalRun.objects.update(state="running", claimed_by=f"{socket.gethostname()}:99999999:1")
    changes.settle(timezone.now())
    run.refresh_from_db()
    assert (run.state, run.cause_code) == ("failed", "RunnerLost")
    assert not folder.exists()


def test_a_runner_on_another_machine_is_not_taken_for_dead(begin) -> None:
    run = begin()
    LocalRun.objects.update(state="running", claimed_by="elsewhere:1:1")
    changes.settle(timezone.now())
    run.refresh_from_db()
    assert run.state == "running"


@pytest.mark.parametrize(("age", "state"), [(25, "queued"), (35, "failed")])
def test_a_run_that_nobody_takes_up_fails_after_half_a_minute(begin, age: int, state: str) -> None:
    run = begin()
    changes.settle(run.created_at + timedelta(seconds=age))
    run.refresh_from_db()
    assert run.state == state


@pytest.mark.parametrize(("hours", "left"), [(23, 1), (25, 0)])
def test_an_ended_run_is_kept_for_a_day(begin, hours: int, left: int) -> None:
    run = begin()
    changes.stop(run)
    now = timezone.now() + timedelta(hours=hours)
    changes.settle(now)
    assert LocalRun.objects.count() == left
