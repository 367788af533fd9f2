"""The pages of local runs: whose they are, from the form to a run and back."""

from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments import logstore
from deployments.clusters.models import Cluster, Sku
from deployments.environments.changes import create_environment
from deployments.environments.models import Environment
from deployments.localruns import changes
from deployments.localruns.models import LocalRun
from deployments.logstore import LogEntry
from deployments.registry.models import Model, ModelVersion
from deployments.services import sources
from deployments.services.models import Deployment, Service
from portal.local_runs import may_read_log
from portal.models import User

SCRIPT = "def init(): ...\ndef run(data): return data\n"


@pytest.fixture
def cluster(db: None) -> Cluster:
    sku, _ = Sku.objects.get_or_create(name="this machine", defaults={"family": "CPU"})
    return Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")


@pytest.fixture
def environment(db: None) -> Environment:
    return create_environment(None, name="bare", pip_requirements="six\n")


@pytest.fixture
def model(db: None) -> ModelVersion:
    row = Model.objects.create(name="words")
    return ModelVersion.objects.create(
        model=row,
        version=1,
        framework="Custom",
        content_hash="0" * 64,
        size=1,
        file_count=1,
        sample_input='{"data":[1]}',
    )


@pytest.fixture(autouse=True)
def nobody_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "spawn", lambda pk: None)


def client_of(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def form(**more: Any) -> dict[str, Any]:
    return {
        "name": "words",
        "cluster": "local",
        "models": ["words:1"],
        "serving": "entry_script",
        "source_kind": "editor",
        "entry_script": "score.py",
        "score_py": SCRIPT,
        "environment": "bare:1",
        "replicas_mode": "autoscale",
        "auth_enabled": "on",
        "memory_gb": "1.5",
        **more,
    }


@pytest.fixture
def run(
    deployer: User, cluster: Cluster, environment: Environment, model: ModelVersion
) -> LocalRun:
    answer = client_of(deployer).post(reverse("service-run-locally"), form())
    found = LocalRun.objects.get()
    assert answer.url == found.get_absolute_url()
    return found


def test_the_form_runs_locally_and_makes_no_service(run: LocalRun) -> None:
    assert (run.name, run.entry_script, str(run.environment)) == ("words", "score.py", "bare:1")
    assert run.config["memory_gb"] == 1.5
    assert sources.read_text(run.source, "score.py") == SCRIPT
    assert not Service.objects.exists()
    assert not Deployment.objects.exists()


def test_a_wrong_form_comes_back_and_runs_nothing(
    deployer: User, cluster: Cluster, environment: Environment, model: ModelVersion
) -> None:
    answer = client_of(deployer).post(reverse("service-run-locally"), form(score_py=""))
    assert answer.status_code == 422
    assert "There is no code" in answer.content.decode()
    assert not LocalRun.objects.exists()


def test_keys_of_the_form_are_not_kept_with_the_run(run: LocalRun) -> None:
    assert "brought_keys" not in run.form
    assert "csrfmiddlewaretoken" not in run.form
    assert run.form["memory_gb"] == "1.5"


def test_only_its_owner_and_administrators_see_a_run(
    run: LocalRun, deployer: User, administrator: User, viewer: User
) -> None:
    other = User.objects.create(username="olga", role="deployer")
    pages = ("service-local-run", "service-local-state")
    for person, status in ((deployer, 200), (administrator, 200), (other, 404), (viewer, 403)):
        for page in pages:
            answer = client_of(person).get(reverse(page, args=[run.pk]))
            assert answer.status_code == status, (person, page)
    for page in ("save", "send", "keep", "stop", "use"):
        answer = client_of(other).post(reverse(f"service-local-{page}", args=[run.pk]))
        assert answer.status_code == 404, page
        answer = client_of(viewer).post(reverse(f"service-local-{page}", args=[run.pk]))
        assert answer.status_code == 403, page


def test_its_log_is_no_viewers(
    run: LocalRun, deployer: User, administrator: User, viewer: User
) -> None:
    logstore.append(settings.HOME.local_log(run.pk), [LogEntry(1.0, "process", "a secret try")])
    other = User.objects.create(username="olga", role="deployer")
    source = f"local:{run.pk}"
    allowed = {
        person.username: may_read_log(person, source) for person in (deployer, administrator)
    }
    assert allowed == {"dan": True, "ada": True}
    assert not may_read_log(other, source)
    assert not may_read_log(viewer, source)
    assert not may_read_log(None, source)
    for name in ("log-data", "log-download"):
        assert client_of(other).get(reverse(name, args=[source])).status_code == 404
    answer = client_of(deployer).get(reverse("log-data", args=[source]))
    assert "a secret try" in answer.content.decode()


def test_looking_is_no_use_and_keeping_is(run: LocalRun, deployer: User) -> None:
    LocalRun.objects.update(used_at=run.created_at)
    desk = client_of(deployer)
    desk.get(reverse("service-local-state", args=[run.pk]))
    assert LocalRun.objects.get().used_at == run.created_at
    desk.post(reverse("service-local-keep", args=[run.pk]))
    assert LocalRun.objects.get().used_at > run.created_at


def test_an_edit_that_loaded_says_so(
    run: LocalRun, deployer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = changes.save

    def save(row: LocalRun, path: str, text: str) -> int:
        edit = real(row, path, text)
        LocalRun.objects.update(loaded_edit=edit, state="running")
        return edit

    monkeypatch.setattr(changes, "save", save)
    url = reverse("service-local-save", args=[run.pk])
    answer = client_of(deployer).post(url, {"path": "score.py", "text": "a = 1\n"})
    assert "Saved and loaded" in answer.content.decode()
    answer = client_of(deployer).post(url, {"path": "../x", "text": "a"})
    assert answer.status_code == 422


def test_a_file_of_the_folder_is_shown_and_no_other(run: LocalRun, deployer: User) -> None:
    url = reverse("service-local-file", args=[run.pk])
    desk = client_of(deployer)
    assert "def run" in desk.get(url, {"path": "score.py"}).content.decode()
    assert desk.get(url, {"path": "../../db.sqlite3"}).status_code == 404


def test_a_request_before_it_runs_is_told_so(run: LocalRun, deployer: User) -> None:
    url = reverse("service-local-send", args=[run.pk])
    answer = client_of(deployer).post(url, {"body": "{}"})
    assert "not started yet" in answer.content.decode()


def test_the_edited_source_goes_back_into_the_form(run: LocalRun, deployer: User) -> None:
    changes.save(run, "score.py", SCRIPT + "# edited\n")
    desk = client_of(deployer)
    answer = desk.post(reverse("service-local-use", args=[run.pk]))
    page = desk.get(answer.url)
    initial = page.context["form"].initial
    assert initial["score_py"].endswith("# edited\n")
    assert (initial["name"], initial["memory_gb"], initial["environment"]) == (
        "words",
        "1.5",
        "bare:1",
    )


def test_another_persons_note_of_the_source_is_not_taken(
    run: LocalRun, deployer: User, administrator: User
) -> None:
    answer = client_of(deployer).post(reverse("service-local-use", args=[run.pk]))
    page = client_of(administrator).get(answer.url)
    assert "score_py" in page.context["form"].initial
    assert page.context["form"].initial.get("name") is None


def test_it_says_when_it_ends_by_itself(run: LocalRun, deployer: User) -> None:
    LocalRun.objects.update(used_at=timezone.now())
    page = client_of(deployer).get(reverse("service-local-state", args=[run.pk]))
    assert "in 15 min" in page.content.decode()
