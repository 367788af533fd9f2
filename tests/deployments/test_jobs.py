"""The job: from queued to applied, killed anywhere and gone on with."""

import errno
import io
import zipfile
from datetime import timedelta

import pytest
from django.utils import timezone

from deployments import jobs, logstore
from deployments.claims import holder, known_dead
from deployments.environments.models import EnvironmentBuild
from deployments.errors import PermanentError, TemporaryError, Unavailable
from deployments.pipeline import steps
from deployments.registry.blobs import open_blob
from deployments.services import changes, sources
from deployments.services.changes import DeployRequest
from deployments.services.models import Deployment, DeploymentStep, Revision, Service

pytestmark = pytest.mark.usefixtures("ready_environments")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the job catches it."""


@pytest.fixture(autouse=True)
def no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "enqueue_deployment", lambda pk: True)


@pytest.fixture
def deployment(request_for) -> Deployment:
    return changes.deploy(None, request_for())


def texts(settings, deployment: Deployment) -> list[str]:
    entries, _ = logstore.read(settings.HOME.deployment_log(deployment.pk))
    return [entry.text for entry in entries]


def forget(deployment: Deployment) -> None:
    """As the kernel does with a killed process: its claim names nobody who lives."""
    Deployment.objects.filter(pk=deployment.pk).update(
        claimed_by=f"{holder().split(':')[0]}:999999999:0"
    )


@pytest.fixture(autouse=True)
def fresh_logs(settings):
    """Ids start again in each test's database; their logs must not."""
    for path in (settings.HOME.logs / "deployments").glob("*.jsonl"):
        path.unlink()


def test_all_steps_to_the_cluster(deployment, fake, settings):
    assert jobs.run_deployment(deployment.pk) == "applied"
    deployment.refresh_from_db()
    assert (deployment.state, deployment.step) == ("rolling", "scheduling")
    assert (deployment.claimed_by, deployment.claimed_until) == ("", None)
    assert deployment.applied_at is not None
    service = Service.objects.get()
    assert service.current == deployment.revision
    spec = fake.specs["diabetes"]
    assert spec.generation == service.generation == 1
    revision = spec.versions[0].revision
    assert (revision.number, revision.entry_script) == (1, "score.py")
    assert [model.name for model in revision.models] == ["diabetes"]
    assert len(spec.auth.key_digests) == 2
    states = dict(DeploymentStep.objects.values_list("name", "state"))
    assert states == {
        **dict.fromkeys(("queued", "zipping", "hashing", "image", "applying"), "done"),
        "scheduling": "running",
    }
    said = texts(settings, deployment)
    lines = [
        "Running",
        "Creating Container Registry if not exists.",
        "Registering the environment.",
        "Use the existing image.",
        "Creating resources in AKS.",
        "Submitting deployment to compute.",
        "Checking the status of deployment diabetes..",
    ]
    assert [line for line in said if line in lines] == lines
    assert any(line.startswith("Project folder: 1 file, 54 bytes") for line in said)


def test_a_finished_deployment_is_left_alone(deployment, fake):
    jobs.run_deployment(deployment.pk)
    assert jobs.run_deployment(deployment.pk) == "nothing to do"
    assert len(fake.applied) == 1


def test_ignored_files_do_not_travel(request_for, settings):
    source = sources.from_text(
        {"score.py": "x", ".amlignore": "*.csv\n", "big.csv": "1,2", ".gitignore": "*.py\n"}
    )
    deployment = changes.deploy(None, request_for(source=source))
    assert jobs.run_deployment(deployment.pk) == "applied"
    package = Revision.objects.get().package
    with open_blob(package.sha256) as file:
        names = zipfile.ZipFile(io.BytesIO(file.read())).namelist()
    assert names == [".amlignore", ".gitignore", "score.py"]
    assert any("1 left out by .amlignore" in line for line in texts(settings, deployment))


def test_an_ignored_entry_script_fails_with_the_file_that_does_it(request_for):
    source = sources.from_text({"score.py": "x", ".amlignore": "*.py\n"})
    deployment = changes.deploy(None, request_for(source=source))
    assert jobs.run_deployment(deployment.pk) == "failed: EntryScriptIgnored"
    deployment.refresh_from_db()
    assert ".amlignore leaves out score.py" in deployment.cause


def test_no_code_gets_its_script(request_for, make_model, fake):
    version = make_model("iris", framework="ScikitLearn", framework_version="1.9.1")
    deployment = changes.deploy(
        None,
        request_for(source=None, entry_script="", environment=None, model_versions=(version,)),
    )
    assert jobs.run_deployment(deployment.pk) == "applied"
    revision = fake.specs["diabetes"].versions[0].revision
    with open_blob(revision.source.sha256) as file:
        archive = zipfile.ZipFile(io.BytesIO(file.read()))
    assert archive.namelist() == [revision.entry_script]
    assert b"def init()" in archive.read(revision.entry_script)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["zipping", "hashing", "image", "applying"])
def test_killed_around_any_step_it_goes_on_and_repeats_nothing(
    deployment, fake, monkeypatch, step, when
):
    calls: list[str] = []
    originals = dict(steps.STEPS)

    def counted(name):
        def run(a_run):
            calls.append(name)
            if name == step and calls.count(name) == 1 and when == "before":
                raise Killed
            done = originals[name](a_run)
            if name == step and calls.count(name) == 1:
                raise Killed
            return done

        return run

    monkeypatch.setattr(steps, "STEPS", tuple((name, counted(name)) for name in originals))
    with pytest.raises(Killed):
        jobs.run_deployment(deployment.pk)
    forget(deployment)
    assert jobs.run_deployment(deployment.pk) == "applied"
    assert {name: calls.count(name) for name in calls} == {
        name: 2 if name == step else 1 for name in originals
    }
    deployment.refresh_from_db()
    assert (deployment.state, deployment.attempts) == ("rolling", 2)
    assert Service.objects.get().generation == fake.specs["diabetes"].generation
    assert Revision.objects.get().package is not None
    assert not DeploymentStep.objects.filter(state="running").exclude(name="scheduling").exists()


def test_only_one_of_two_jobs_gets_it(deployment):
    first = jobs.Claim.take(deployment.pk)
    assert first is not None
    assert jobs.Claim.take(deployment.pk) is None
    # the lease has run out, wherever its holder is
    Deployment.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    second = jobs.Claim.take(deployment.pk)
    assert second is not None
    with pytest.raises(steps.ClaimLost):
        first.check()
    second.check()


def test_a_holder_is_dead_when_its_process_is_not_there():
    host, pid, start = holder().split(":")[:3]
    assert known_dead(holder()) is False
    assert known_dead(f"{host}:{pid}:{start}:and:more") is False
    assert known_dead(f"{host}:{pid}:1.00") is True
    assert known_dead(f"{host}:999999999:1.00") is True
    # another host's processes cannot be seen from here
    assert known_dead("elsewhere:999999999:1.00") is False
    assert known_dead("") is False


def test_a_deployment_that_kills_its_worker_each_time_is_given_up(deployment):
    Deployment.objects.update(attempts=jobs.MOST_ATTEMPTS)
    assert jobs.run_deployment(deployment.pk) == "failed: WorkerLost"


def test_what_may_pass_is_tried_again(deployment, fake, settings, monkeypatch):
    fake.away = True
    waits: list[float] = []

    def wait(self, seconds):
        waits.append(seconds)
        fake.away = len(waits) < 3

    monkeypatch.setattr(jobs.Claim, "wait", wait)
    assert jobs.run_deployment(deployment.pk) == "applied"
    assert waits == [0.01] * 3
    assert any("Trying again" in line for line in texts(settings, deployment))


def test_what_does_not_pass_fails_after_a_bounded_number_of_times(deployment, fake, monkeypatch):
    fake.away = True
    waits: list[float] = []
    monkeypatch.setattr(jobs.Claim, "wait", lambda self, seconds: waits.append(seconds))
    assert jobs.run_deployment(deployment.pk) == "failed: DeploymentFailed"
    assert len(waits) == 4
    service = Service.objects.get()
    assert (service.state, service.current) == ("Failed", None)
    assert "does not answer" in service.state_cause


def test_an_environment_that_cannot_be_built_fails_with_its_last_lines(
    deployment, monkeypatch, settings
):
    def broken(environment, *, log):
        log("ERROR: no matching distribution")
        raise PermanentError(
            "nonsense==1 is not on PyPI.", code="EnvironmentBuildFailed", evidence="last lines"
        )

    EnvironmentBuild.objects.all().delete()
    monkeypatch.setattr(steps, "ensure_built", broken)
    assert jobs.run_deployment(deployment.pk) == "failed: EnvironmentBuildFailed"
    deployment.refresh_from_db()
    assert (deployment.cause, deployment.evidence) == ("nonsense==1 is not on PyPI.", "last lines")
    assert deployment.finished_at is not None
    assert DeploymentStep.objects.get(name="image").state == "failed"
    said = texts(settings, deployment)
    assert "Building image.." in said
    assert said[-1] == 'AKS service creation operation finished, operation "Failed"'


def test_a_failed_update_leaves_what_serves(deployment, fake, monkeypatch):
    jobs.run_deployment(deployment.pk)
    Deployment.objects.update(state="succeeded")
    Service.objects.update(state="Healthy")
    update = changes.deploy(None, DeployRequest(name="diabetes", update=True))
    monkeypatch.setattr(steps, "ensure_built", lambda *a, **k: 1 / 0)
    assert jobs.run_deployment(update.pk) == "failed: InternalError"
    update.refresh_from_db()
    assert "ZeroDivisionError" in update.evidence
    service = Service.objects.get()
    assert service.current.number == 1
    assert service.state != "Failed"
    assert fake.specs["diabetes"].versions[0].revision.number == 1


def test_a_service_deleted_meanwhile_is_not_applied(deployment, fake, monkeypatch):
    original = steps.image

    def delete(run):
        changes.delete_service(None, deployment.service)
        return original(run)

    monkeypatch.setattr(
        steps, "STEPS", tuple((n, delete if n == "image" else f) for n, f in steps.STEPS)
    )
    assert jobs.run_deployment(deployment.pk) == "stopped"
    assert fake.specs == {}
    deployment.refresh_from_db()
    assert deployment.state == "cancelled"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermanentError("x", code="NamespaceNotFound"), "NamespaceNotFound"),
        (TemporaryError("x"), "DeploymentFailed"),
        (Unavailable("x", code="KubernetesUnaccessible"), "KubernetesUnaccessible"),
        (OSError(errno.ENOSPC, "No space left on device"), "DiskFull"),
        (OSError(errno.EACCES, "Permission denied"), "InternalError"),
        (KeyError("x"), "InternalError"),
        (jobs.OperationalError("database is locked"), "DatabaseError"),
        (jobs.JobTimeoutException("2400 seconds"), "DeploymentTimedOut"),
    ],
)
def test_every_failure_has_a_cause(error, code):
    assert jobs.cause_of(error).code == code
