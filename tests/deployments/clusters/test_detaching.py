"""A Kubernetes cluster is given up by a job; no cluster is there."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.audit.models import AuditEntry
from deployments.claims import holder
from deployments.clusters import attaching, changes, detaching, kubes, rechecks, router_settings
from deployments.clusters.catalogue import ensure_skus
from deployments.clusters.models import Cluster, Detachment, Sku
from deployments.controller import Controller
from deployments.drivers.kubernetes_belongings import Belonging
from deployments.errors import Conflict, InvalidInput, PermanentError, Unavailable
from deployments.services import rows
from deployments.services.planning import DeployRequest, check
from deployments.types import KubeSpec

ROUTER = Belonging("Deployment", "slipway-router", "/router", "models")
MARKER = Belonging("ConfigMap", "slipway-cluster", "/marker", "models")


class Far:
    """As much of a cluster as is taken apart. `breaks` is raised once the router was asked to go."""

    def __init__(self) -> None:
        self.there = [ROUTER, MARKER]
        self.before: Exception | None = None
        self.breaks: list[Exception] = []
        self.states: list[tuple[str, ...]] = []

    def remove(self, cluster: Cluster, watcher: Any = None) -> None:
        if self.before is not None:
            raise self.before
        if watcher is None:
            assert not self.there
            return
        watcher.listed(tuple(self.there))
        for item in tuple(self.there):
            watcher.asked(item)
            self.states.append(
                tuple(step["state"] for step in Detachment.objects.latest("pk").steps)
            )
            self.there.remove(item)
            watcher.left(tuple(self.there))
            if self.breaks:
                raise self.breaks.pop(0)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Far:
    made = Far()
    monkeypatch.setattr(attaching, "remove", made.remove)
    monkeypatch.setattr(detaching, "_PAUSE", 0.0)
    return made


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    found: list[int] = []
    monkeypatch.setattr(detaching, "enqueue_detachment", found.append)
    monkeypatch.setattr(detaching, "queued_detachments", lambda: set(found))
    return found


@pytest.fixture
def cluster(db: None) -> Cluster:
    ensure_skus()
    row = Cluster(name="prod", kind="kubernetes", sku=Sku.objects.get(name="this machine"))
    kubes.give(row, KubeSpec("https://one.invalid:6443", token="x"), kubes.Use("models"))
    row.save()
    return row


def begin(cluster: Cluster, capture: Any, **more: Any) -> Detachment:
    with capture(execute=True):
        row = changes.detach(None, cluster, **more)
    assert row is not None
    return row


def test_it_is_asked_for_at_once_and_done_by_a_job_step_by_step(
    cluster, far, queued, administrator, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        row = changes.detach(administrator, cluster)
    cluster.refresh_from_db()
    assert cluster.state == Cluster.State.DETACHING
    assert queued == [row.pk]
    assert far.there, "nothing is removed by whoever asked"
    assert detaching.run(row.pk) == "detached"
    row.refresh_from_db()
    assert row.state == Detachment.State.DETACHED
    assert far.states == [("removing", "waiting"), ("removed", "removing")]
    assert [step["state"] for step in row.steps] == ["removed", "removed"]
    assert not Cluster.objects.exists()
    assert AuditEntry.objects.filter(action="cluster.detach", actor=administrator).exists()
    assert detaching.run(row.pk) == "nothing to do"


def test_asking_twice_is_one_job(cluster, far, queued, django_capture_on_commit_callbacks):
    first = begin(cluster, django_capture_on_commit_callbacks)
    assert begin(cluster, django_capture_on_commit_callbacks).pk == first.pk
    assert queued == [first.pk]


def test_nothing_is_deployed_to_it_and_nobody_looks_after_it_meanwhile(
    cluster, far, queued, monkeypatch, django_capture_on_commit_callbacks
):
    begin(cluster, django_capture_on_commit_callbacks)
    stale = cluster  # as a form read it before
    cluster = Cluster.objects.get()
    assert any(
        problem.field == "cluster" and "being detached" in problem.message
        for problem in check(DeployRequest(name="late", cluster=cluster))
    )
    with pytest.raises(InvalidInput, match="being detached"):
        rows.create_service(None, DeployRequest(name="late", cluster=stale), None)  # type: ignore[arg-type]
    seen: list[Cluster] = []
    controller = Controller(driver_of=seen.append)  # type: ignore[arg-type]
    monkeypatch.setattr(controller, "_requeue", lambda: 0)
    assert controller.cycle().clusters == 0
    assert seen == []
    assert rechecks.look_again(cluster) is False
    assert router_settings.apply_router(cluster.pk) is False


def test_a_failure_that_changed_nothing_gives_the_cluster_back(
    cluster, far, queued, django_capture_on_commit_callbacks
):
    far.before = PermanentError("The marker is another's.")
    row = begin(cluster, django_capture_on_commit_callbacks)
    assert detaching.run(row.pk) == "failed"
    row.refresh_from_db()
    cluster.refresh_from_db()
    assert (row.state, cluster.state) == ("failed", "Attached")
    assert row.problem == "The marker is another's. Nothing was removed; prod is still attached."


def test_a_failure_on_the_way_says_what_is_left_and_the_next_try_ends_it(
    cluster, far, queued, django_capture_on_commit_callbacks
):
    far.breaks = [Unavailable("Pod x has not gone yet.", code="NotGone")]
    row = begin(cluster, django_capture_on_commit_callbacks)
    assert detaching.run(row.pk) == "failed"
    row.refresh_from_db()
    cluster.refresh_from_db()
    assert (row.state, row.problem) == ("failed", "Pod x has not gone yet.")
    assert [step["state"] for step in row.steps] == ["removed", "waiting"]
    assert cluster.state == Cluster.State.DETACHING
    again = begin(cluster, django_capture_on_commit_callbacks)
    assert detaching.run(again.pk) == "detached"
    again.refresh_from_db()
    assert [(step["name"], step["state"]) for step in again.steps] == [
        ("slipway-router", "removed"),
        ("slipway-cluster", "removed"),
    ]


def test_an_api_server_that_is_away_for_a_moment_is_waited_for(
    cluster, far, queued, django_capture_on_commit_callbacks
):
    far.breaks = [Unavailable("no answer"), Unavailable("no answer")]
    far.there.insert(0, Belonging("Service", "slipway-router", "/service", "models"))
    row = begin(cluster, django_capture_on_commit_callbacks)
    assert detaching.run(row.pk) == "detached"
    row.refresh_from_db()
    assert len(row.steps) == 3


def test_a_job_that_was_killed_is_queued_again_and_goes_on(
    cluster, far, queued, django_capture_on_commit_callbacks
):
    row = begin(cluster, django_capture_on_commit_callbacks)
    now = timezone.now()
    queued.clear()
    assert detaching.requeue_lost(now) == []  # it is being queued by whoever asked
    assert detaching.requeue_lost(now + timedelta(seconds=5)) == [row.pk]
    queued.clear()
    work = Detachment.objects.filter(pk=row.pk)
    work.update(claimed_by=holder(), claimed_until=now + timedelta(seconds=30), attempts=1)
    assert detaching.requeue_lost(now + timedelta(seconds=5)) == []
    assert detaching.run(row.pk) == "nothing to do"  # another worker has it
    # its process is gone
    work.update(claimed_by=holder().rpartition(":")[0] + ":0.00")
    assert detaching.requeue_lost(now + timedelta(seconds=5)) == [row.pk]
    assert detaching.run(row.pk) == "detached"


def test_a_job_that_kills_its_workers_is_not_taken_up_for_ever(
    cluster, far, queued, django_capture_on_commit_callbacks
):
    row = begin(cluster, django_capture_on_commit_callbacks)
    Detachment.objects.update(attempts=detaching.MOST_ATTEMPTS)
    assert detaching.run(row.pk) == "failed"
    row.refresh_from_db()
    assert "its worker died each time" in row.problem


def test_a_cluster_that_is_gone_for_good_is_given_up_without_being_asked(
    cluster, far, queued, django_capture_on_commit_callbacks
):
    far.before = Unavailable("no answer")
    row = begin(cluster, django_capture_on_commit_callbacks, leave_objects=True)
    assert detaching.run(row.pk) == "detached"
    assert not Cluster.objects.exists()
    assert AuditEntry.objects.get(action="cluster.detach").after == {"left": "its objects"}


def test_what_runs_there_and_checks_that_run_are_in_the_way(
    cluster, far, queued, monkeypatch, django_capture_on_commit_callbacks
):
    Cluster.objects.update(checking_at=timezone.now())
    with pytest.raises(Conflict, match="checks of prod run"):
        changes.detach(None, cluster)
    Cluster.objects.update(checking_at=timezone.now() - attaching.LONGEST)
    assert begin(cluster, django_capture_on_commit_callbacks).state == "running"
