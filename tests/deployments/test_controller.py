"""One cycle: follow rollouts, show states, put right what drifted."""

from datetime import timedelta

import pytest
from django.utils import timezone

from deployments import controller as module
from deployments import jobs, logstore, upkeep
from deployments.claims import holder
from deployments.controller import Controller
from deployments.errors import Unavailable
from deployments.rollout import Limits
from deployments.services import changes, keys, versions
from deployments.services.changes import DeployRequest
from deployments.services.models import (
    Deployment,
    DeploymentStep,
    Revision,
    Service,
    ServiceVersion,
)
from deployments.signals import changed
from deployments.types import Cause, Exit, Phase

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ready_environments")]

IMPORT = Cause("UserScriptImportError", "score.py: No module named 'nope'", "Traceback: nope")


@pytest.fixture(autouse=True)
def queued(monkeypatch: pytest.MonkeyPatch, settings) -> list[int]:
    """Ids put on the queue; no Redis. Logs start empty, since ids start again."""
    found: list[int] = []
    monkeypatch.setattr(changes, "enqueue_deployment", found.append)
    monkeypatch.setattr(upkeep, "enqueue_deployment", found.append)
    monkeypatch.setattr(upkeep, "queued_deployments", lambda: set(found))
    for path in (settings.HOME.logs / "deployments").glob("*.jsonl"):
        path.unlink()
    return found


@pytest.fixture
def controller(fake) -> Controller:
    return Controller(limits=Limits())


@pytest.fixture
def heard():
    """What was announced."""
    said: list[tuple[str, str]] = []

    def hear(sender, topic, key, **_):
        said.append((topic, key))

    changed.connect(hear)
    yield said
    changed.disconnect(hear)


@pytest.fixture
def applied(request_for) -> Deployment:
    """A first deployment the job has handed over."""
    deployment = changes.deploy(None, request_for())
    assert jobs.run_deployment(deployment.pk) == "applied"
    return deployment


@pytest.fixture
def serving(applied, controller, fake) -> Service:
    """A service whose first revision is healthy."""
    fake.show("diabetes", 1)
    controller.cycle()
    return Service.objects.get()


def update(**values) -> Deployment:
    deployment = changes.deploy(None, DeployRequest(name="diabetes", update=True, **values))
    assert jobs.run_deployment(deployment.pk) == "applied"
    return deployment


def log_of(settings, deployment) -> list[tuple[str, str]]:
    entries, _ = logstore.read(settings.HOME.deployment_log(deployment.pk))
    return [(entry.source, entry.text) for entry in entries]


def test_a_rollout_is_followed_to_healthy(applied, controller, fake, settings):
    controller.cycle()
    assert Service.objects.get().state == "Transitioning"
    shown = fake.show("diabetes", 1, Phase.LOADING)
    fake.output[shown.id] = ["importing", "init() runs"]
    controller.cycle()
    applied.refresh_from_db()
    assert (applied.state, applied.step) == ("rolling", "loading")
    fake.gone(1)
    fake.show("diabetes", 1)
    controller.cycle()
    applied.refresh_from_db()
    service = Service.objects.get()
    assert (applied.state, applied.step, service.state) == ("succeeded", "healthy", "Healthy")
    assert service.replicas[0]["phase"] == "ready"
    assert service.desired_replicas == 1
    names = list(DeploymentStep.objects.values_list("name", flat=True))
    assert names == [
        "queued", "zipping", "hashing", "image", "applying",
        "scheduling", "pulling", "starting", "loading", "healthy",
    ]  # fmt: skip
    assert set(DeploymentStep.objects.values_list("state", flat=True)) == {"done"}
    said = log_of(settings, applied)
    assert (shown.id, "importing") in said
    assert said[-2:] == [
        ("pipeline", "Succeeded"),
        ("pipeline", 'AKS service creation operation finished, operation "Succeeded"'),
    ]
    assert ("pipeline", "Checking the status of inference endpoint diabetes.") in said


def test_lines_of_a_replica_are_copied_once_even_by_a_new_controller(
    applied, controller, fake, settings
):
    shown = fake.show("diabetes", 1, Phase.LOADING)
    fake.output[shown.id] = ["one"]
    controller.cycle()
    fake.output[shown.id].append("two")
    Controller(limits=Limits()).cycle()
    Controller(limits=Limits()).cycle()
    assert [text for source, text in log_of(settings, applied) if source == shown.id] == [
        "one",
        "two",
    ]


def test_a_cycle_that_changes_nothing_says_and_writes_nothing(
    serving, controller, heard, django_assert_max_num_queries, django_capture_on_commit_callbacks
):
    controller.cycle()
    before = Service.objects.get()
    with django_assert_max_num_queries(5), django_capture_on_commit_callbacks(execute=True) as said:
        controller.cycle()
    after = Service.objects.get()
    assert (before.observed_at, before.updated_at) == (after.observed_at, after.updated_at)
    assert said == []


def test_a_failed_first_deployment_is_taken_out_with_its_evidence_kept(
    applied, controller, fake, settings, django_capture_on_commit_callbacks
):
    shown = fake.show("diabetes", 1, Phase.CRASHED, cause=IMPORT)
    fake.output[shown.id] = ["ModuleNotFoundError: nope"]
    with django_capture_on_commit_callbacks(execute=True):
        controller.cycle()
    applied.refresh_from_db()
    assert (applied.state, applied.cause_code) == ("failed", "UserScriptImportError")
    assert applied.evidence == "Traceback: nope"
    service = Service.objects.get()
    assert (service.state, service.current) == ("Failed", None)
    assert "No module named 'nope'" in service.state_cause
    assert fake.specs == {}
    said = [text for _, text in log_of(settings, applied)]
    assert "ModuleNotFoundError: nope" in said
    assert "Traceback: nope" in said
    assert DeploymentStep.objects.get(state="failed").name == "loading"
    fake.gone(1)
    controller.cycle()
    assert Service.objects.get().state == "Failed"


def test_a_failed_update_goes_back_to_what_served(
    serving, controller, fake, django_capture_on_commit_callbacks
):
    deployment = update(note="bad")
    assert fake.specs["diabetes"].versions[0].revision.number == 2
    fake.show("diabetes", 2, Phase.CRASHED, cause=IMPORT)
    with django_capture_on_commit_callbacks(execute=True):
        controller.cycle()
    deployment.refresh_from_db()
    service = Service.objects.get()
    assert (deployment.state, service.current.number) == ("failed", 1)
    assert fake.specs["diabetes"].versions[0].revision.number == 1
    assert fake.specs["diabetes"].generation == service.generation == 3
    fake.gone(2)
    controller.cycle()
    service.refresh_from_db()
    assert service.state == "Healthy"
    assert service.state_cause == (
        "The latest deployment failed (UserScriptImportError); revision 1 keeps serving."
    )
    assert update(note="good").revision.number == 3


def test_evidence_is_the_replicas_own_words_where_the_cause_has_none(applied, controller, fake):
    ended = Exit(code=3, signal=0, at=timezone.now().timestamp() + 1)
    shown = fake.show("diabetes", 1, Phase.CRASHED, restarts=1, last_exit=ended)
    fake.output[shown.id] = ["last words"]
    controller.cycle()
    applied.refresh_from_db()
    assert (applied.cause_code, applied.evidence) == ("CrashLoopBackOff", "last words")


def test_a_deployment_out_of_time_fails(applied, fake):
    Controller(limits=Limits(deploy_seconds=0)).cycle()
    applied.refresh_from_db()
    assert applied.cause_code == "DeploymentTimedOut"


def test_a_service_without_room_is_unschedulable(applied, fake):
    cause = Cause("PodUnschedulable", "asks for 8 cores; 1 left")
    fake.show("diabetes", 1, Phase.SCHEDULING, cause=cause)
    Controller(limits=Limits()).cycle()
    assert Service.objects.get().state == "Unschedulable"
    Controller(limits=Limits(unschedulable_seconds=0)).cycle()
    applied.refresh_from_db()
    service = Service.objects.get()
    assert (applied.cause_code, service.state) == ("PodUnschedulable", "Unschedulable")


def test_a_cluster_that_is_not_seen_keeps_its_states(serving, controller, fake, cluster):
    fake.away = True
    outcome = controller.cycle()
    assert outcome.unseen == ("local",)
    assert Service.objects.get().state == "Healthy"
    fake.away = False
    assert controller.cycle().unseen == ()


def test_a_replica_that_dies_later_is_shown_with_its_cause(serving, controller, fake):
    fake.gone(1)
    fake.show("diabetes", 1, Phase.CRASHED, cause=Cause("CrashLoopBackOff", "signal 9"))
    controller.cycle()
    service = Service.objects.get()
    assert service.state == "Unhealthy"
    assert "signal 9" in service.state_cause


def test_a_spec_that_is_missing_or_older_is_applied_again(serving, controller, fake):
    del fake.specs["diabetes"]
    controller.cycle()
    assert fake.specs == {}  # it may have been read between two writes
    controller.cycle()
    assert fake.specs["diabetes"].generation == 1
    keys.regenerate(None, serving, "primary")  # no commit here: as if the cluster had been away
    controller.cycle()
    controller.cycle()
    assert fake.specs["diabetes"].generation == 2


def test_what_somebody_else_changed_in_the_cluster_is_put_right(
    serving, controller, fake, monkeypatch
):
    applied = len(fake.applied)
    controller.cycle()
    assert len(fake.applied) == applied
    monkeypatch.setattr(fake, "drifted", lambda: frozenset({serving.name}))
    controller.cycle()  # once may be an apply that is still on its way
    assert len(fake.applied) == applied
    controller.cycle()
    assert len(fake.applied) == applied + 1


def test_a_service_that_something_else_scales_says_so(serving, controller, fake, monkeypatch):
    others = {(serving.name, "default"): "HorizontalPodAutoscaler cpu"}
    monkeypatch.setattr(fake, "foreign_scalers", lambda: others)
    controller.cycle()
    serving.refresh_from_db()
    assert serving.state == "Healthy"
    assert "HorizontalPodAutoscaler cpu scales version default too" in serving.state_cause

    def refused():
        raise Unavailable("not allowed")

    monkeypatch.setattr(fake, "foreign_scalers", refused)
    controller.cycle()
    serving.refresh_from_db()
    assert "HorizontalPodAutoscaler" not in serving.state_cause


def test_a_cluster_ahead_of_a_restored_database_is_caught_up_with(serving, controller, fake):
    Service.objects.update(generation=0)
    controller.cycle()
    assert Service.objects.get().generation == 1
    assert len(fake.applied) == 1


def test_a_deleted_service_goes_when_its_last_replica_has_gone(serving, controller, fake):
    changes.delete_service(None, serving)
    controller.cycle()
    assert "diabetes" not in fake.specs
    assert Service.objects.filter(deleting=True).exists()
    controller.cycle()
    assert Service.objects.exists()
    fake.gone(1)
    controller.cycle()
    assert not Service.objects.exists()
    assert not Revision.objects.exists()


def test_a_person_who_changes_the_row_meanwhile_wins(serving, controller, fake, monkeypatch):
    original = module.rollout.together

    def slow(*args):
        Service.objects.update(state="Transitioning", updated_at=timezone.now())
        return original(*args)

    monkeypatch.setattr(module.rollout, "together", slow)
    fake.gone(1)
    controller.cycle()
    assert Service.objects.get().state == "Transitioning"


def test_one_broken_service_does_not_stop_the_others(
    serving, request_for, controller, fake, monkeypatch
):
    other = changes.deploy(None, request_for("other"))
    jobs.run_deployment(other.pk)
    fake.show("other", 1)
    original = Controller._service

    def broken(self, service, *rest):
        if service.name == "diabetes":
            raise KeyError("poisoned")
        original(self, service, *rest)

    monkeypatch.setattr(Controller, "_service", broken)
    controller.cycle()
    other.refresh_from_db()
    assert other.state == "succeeded"


@pytest.mark.parametrize(
    ("state", "age", "claimed_by", "lease", "lost"),
    [
        ("queued", 2, "", None, False),
        ("queued", 4, "", None, True),
        ("running", 9, "elsewhere:1:1", 5, False),
        ("running", 9, "elsewhere:1:1", -1, True),
        ("running", 9, "here-dead", 5, True),
        ("running", 9, "me", 5, False),
        ("rolling", 9, "", None, False),
        ("failed", 9, "", None, False),
    ],
)
def test_what_nobody_works_on_is_queued_again(
    request_for, controller, queued, state, age, claimed_by, lease, lost
):
    deployment = changes.deploy(None, request_for())
    queued.clear()
    now = timezone.now()
    named = {"me": holder(), "here-dead": holder().split(":")[0] + ":999999999:1.00"}
    Deployment.objects.update(
        state=state,
        created_at=now - timedelta(seconds=age),
        claimed_by=named.get(claimed_by, claimed_by),
        claimed_until=now + timedelta(seconds=lease) if lease is not None else None,
    )
    controller.cycle()
    controller.cycle()  # it waits in the queue now, so it is not queued twice
    assert queued == ([deployment.pk] if lost else [])


def test_a_queue_that_is_away_is_said_once_and_stops_nothing(
    applied, request_for, controller, fake, monkeypatch, caplog
):
    waiting = changes.deploy(None, request_for("waiting"))
    Deployment.objects.filter(pk=waiting.pk).update(created_at=timezone.now() - timedelta(hours=1))

    def gone():
        raise ConnectionRefusedError("no socket")

    monkeypatch.setattr(upkeep, "queued_deployments", gone)
    fake.show("diabetes", 1)
    controller.cycle()
    controller.cycle()
    assert [r.levelname for r in caplog.records if "job queue" in r.getMessage()] == ["WARNING"]
    applied.refresh_from_db()
    assert applied.state == "succeeded"


def test_logs_without_a_deployment_are_removed_after_a_while(applied, settings):
    folder = settings.HOME.logs / "deployments"
    (folder / "999999.jsonl").write_text("")
    known = settings.HOME.deployment_log(applied.pk)
    upkeep.prune(timezone.now())
    assert (folder / "999999.jsonl").exists()
    upkeep.prune(timezone.now() + timedelta(days=8))
    assert not (folder / "999999.jsonl").exists()
    assert known.exists()


@pytest.fixture
def two(serving, controller, fake) -> Service:
    """A service with a second version, `green`, whose first revision is healthy."""
    update(version="green")
    fake.show("diabetes", 2, version="green")
    controller.cycle()
    versions.set_traffic(None, serving, {"green": 20})
    return Service.objects.get()


def version(name: str) -> ServiceVersion:
    return ServiceVersion.objects.select_related("current").get(name=name)


def test_a_second_version_comes_beside_the_first(two, controller, fake):
    assert [(v.name, v.revision.number) for v in fake.specs["diabetes"].versions] == [
        ("default", 1),
        ("green", 2),
    ]
    assert (two.state, two.current.number, two.desired_replicas) == ("Healthy", 1, 2)
    green = version("green")
    assert (green.state, green.current.number, green.proven) == ("Healthy", 2, True)
    assert green.desired_replicas == 1
    assert Deployment.objects.first().state == "succeeded"


def test_only_its_own_versions_replicas_make_a_rollout_healthy(serving, controller, fake):
    deployment = update(version="green")
    fake.show("diabetes", 2)  # of that revision, but in the default version
    controller.cycle()
    deployment.refresh_from_db()
    assert deployment.state == "rolling"


def test_a_new_version_that_fails_is_taken_out_and_the_others_go_on(
    serving, controller, fake, settings, django_capture_on_commit_callbacks
):
    deployment = update(version="green", traffic_percent=20)
    fake.show("diabetes", 2, Phase.CRASHED, cause=IMPORT, version="green")
    with django_capture_on_commit_callbacks(execute=True):
        controller.cycle()
    deployment.refresh_from_db()
    assert deployment.state == "failed"
    assert [v.name for v in fake.specs["diabetes"].versions] == ["default"]
    green = version("green")
    assert (green.state, green.current, green.traffic_percent) == ("Failed", None, 0)
    assert "No module named 'nope'" in green.state_cause
    said = [text for _, text in log_of(settings, deployment)]
    assert "Version green is taken out; the other versions go on." in said
    fake.gone(2)
    controller.cycle()
    service = Service.objects.get()
    assert (service.state, service.current.number) == ("Healthy", 1)
    assert service.state_cause == (
        "The latest deployment of version green failed (UserScriptImportError); "
        "the other versions go on."
    )
    assert version("green").state == "Failed"
    # it may be tried again, or deleted
    again = update(version="green")
    fake.show("diabetes", 3, version="green")
    controller.cycle()
    again.refresh_from_db()
    assert again.state == "succeeded"


def test_a_failed_update_goes_back_in_its_own_version_only(
    two, controller, fake, django_capture_on_commit_callbacks
):
    deployment = update(version="green")
    fake.show("diabetes", 3, Phase.CRASHED, cause=IMPORT, version="green")
    with django_capture_on_commit_callbacks(execute=True):
        controller.cycle()
    deployment.refresh_from_db()
    assert deployment.state == "failed"
    assert [
        (v.name, v.revision.number, v.traffic_percent) for v in fake.specs["diabetes"].versions
    ] == [("default", 1, 80), ("green", 2, 20)]
    fake.gone(3)
    controller.cycle()
    assert Service.objects.get().state_cause == (
        "The latest deployment of version green failed (UserScriptImportError); "
        "revision 2 keeps serving."
    )


@pytest.mark.parametrize(("share", "state"), [(20, "Unhealthy"), (0, "Healthy")])
def test_a_service_is_unhealthy_when_a_version_with_traffic_does_not_answer(
    two, controller, fake, share, state
):
    versions.set_traffic(None, two, {"green": share})
    controller.cycle()
    controller.cycle()  # a map's change is applied again by the second look
    fake.gone(2)
    fake.show("diabetes", 2, Phase.CRASHED, cause=IMPORT, version="green")
    controller.cycle()
    service = Service.objects.get()
    assert service.state == state
    takes = f"{share} % of the requests" if share else "no traffic"
    assert f"Version green ({takes}):" in service.state_cause
    assert "nope" in service.state_cause
    assert (version("green").state, version("default").state) == ("Unhealthy", "Healthy")


def test_a_deleted_versions_failure_is_not_spoken_of_any_more(serving, controller, fake):
    deployment = update(version="green")
    fake.show("diabetes", 2, Phase.CRASHED, cause=IMPORT, version="green")
    controller.cycle()
    deployment.refresh_from_db()
    assert deployment.state == "failed"
    versions.delete_version(None, serving, "green")
    fake.gone(2)
    for _ in range(3):  # seen older, applied again, seen
        controller.cycle()
    assert Service.objects.get().state_cause == ""


def test_a_version_deleted_while_it_rolls_out_stays_deleted(two, controller, fake):
    deployment = update(version="green")
    versions.delete_version(None, two, "green")
    fake.show("diabetes", 3, version="green")
    controller.cycle()
    deployment.refresh_from_db()
    assert deployment.state == "cancelled"
    assert not ServiceVersion.objects.filter(name="green").exists()


def test_what_a_promotion_brings_is_what_the_next_default_deployment_goes_on_from(
    two, controller, fake
):
    versions.promote(None, two, "green")
    deployment = update()
    assert (deployment.version, deployment.previous.number) == ("green", 2)
