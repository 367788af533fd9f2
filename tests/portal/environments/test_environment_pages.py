"""The environments' pages: who may do what, what they show, and messages beside their fields."""

from collections.abc import Callable

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.clusters.models import Cluster, Sku
from deployments.environments import jobs
from deployments.environments.changes import create_environment
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.services.models import Revision, Service
from portal.models import Role, User
from tests.serving import serve

CONDA = "dependencies:\n  - python=3.11\n  - numpy\n"


@pytest.fixture
def environment(db: None) -> Environment:
    return create_environment(None, name="sklearn", conda_yaml=CONDA, variables={"A": "1"})


@pytest.fixture
def as_viewer(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


@pytest.fixture
def as_deployer(client: Client, deployer: User) -> Client:
    client.force_login(deployer)
    return client


def ready(environment: Environment) -> EnvironmentBuild:
    venv = settings.HOME.environments / environment.hash / "attempt"
    venv.mkdir(parents=True, exist_ok=True)
    (venv / ".complete").touch()
    return EnvironmentBuild.objects.create(
        hash=environment.hash,
        state=BuildState.READY,
        location=str(venv),
        size=5 * 2**20,
        started_at=timezone.now(),
        last_used_at=timezone.now(),
    )


def used(environment: Environment) -> None:
    sku = Sku.objects.create(name="This machine", family="CPU")
    cluster = Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")
    service = Service.objects.create(name="diabetes", cluster=cluster)
    serve(service, Revision.objects.create(service=service, number=1, environment=environment))


def urls(environment: Environment) -> dict[str, str]:
    place = [environment.name, environment.version]
    return {
        name: reverse(f"environment-{name}", args=place)
        for name in ("detail", "build", "build-start", "build-remove", "delete")
    }


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("get", "/environments/_create/"),
        ("post", "/environments/_create/"),
        ("post", "/environments/_preview/"),
        ("post", "/environments/sklearn/1/build/start/"),
        ("post", "/environments/sklearn/1/build/remove/"),
        ("post", "/environments/sklearn/1/delete/"),
    ],
)
def test_a_viewer_changes_nothing(
    as_viewer: Client, environment: Environment, method: str, url: str
) -> None:
    assert getattr(as_viewer, method)(url).status_code == 403
    assert Environment.objects.count() == 1


@pytest.mark.parametrize("role", [Role.VIEWER, Role.DEPLOYER, Role.ADMINISTRATOR])
def test_each_role_may_look(
    role: str, client: Client, environment: Environment, request: pytest.FixtureRequest
) -> None:
    client.force_login(request.getfixturevalue(role))
    for url in (
        "/environments/",
        "/environments/_rows/",
        *(urls(environment)[x] for x in ("detail", "build")),
    ):
        assert client.get(url).status_code == 200
    shown = client.get(urls(environment)["detail"]).content.decode()
    assert ("New version from this" in shown) is (role != Role.VIEWER)
    assert ("Build now" in shown) is (role != Role.VIEWER)


def test_nobody_looks_without_signing_in(client: Client, environment: Environment) -> None:
    assert client.get("/environments/").status_code == 302


@pytest.mark.parametrize("name", ["build-start", "build-remove", "delete"])
def test_a_change_is_never_a_get(as_deployer: Client, environment: Environment, name: str) -> None:
    assert as_deployer.get(urls(environment)[name]).status_code == 405


def test_the_list_shows_hash_state_size_use_and_the_log(
    as_viewer: Client, environment: Environment
) -> None:
    ready(environment)
    used(environment)
    page = as_viewer.get("/environments/").content.decode()
    for text in ("sklearn", environment.hash[:12], "Ready", "5.0 MiB", "diabetes", "#build-log"):
        assert text in page
    assert f"environment:{environment.hash}" in page
    assert "sklearn" not in as_viewer.get("/environments/_rows/?q=nothing").content.decode()
    by_hash = as_viewer.get("/environments/_rows/", {"q": environment.hash[:8]})
    assert "sklearn" in by_hash.content.decode()


def test_an_empty_list_says_what_an_environment_is(as_viewer: Client) -> None:
    assert "No environments yet" in as_viewer.get("/environments/").content.decode()


def test_the_list_asks_for_few_rows_whatever_its_length(
    as_viewer: Client, environment: Environment, django_assert_max_num_queries: Callable
) -> None:
    for number in range(20):
        ready(create_environment(None, name="e", pip_requirements=f"six=={number}"))
    with django_assert_max_num_queries(10):
        as_viewer.get("/environments/")


def test_a_version_is_created_and_its_page_shown(as_deployer: Client) -> None:
    answer = as_deployer.post(
        "/environments/_create/",
        {"name": "new", "conda_yaml": CONDA, "variables": "A=1\nB=2", "base_image": "python:3.11"},
    )
    environment = Environment.objects.get()
    assert answer.status_code == 302
    assert answer["Location"] == environment.get_absolute_url()
    assert environment.variables == {"A": "1", "B": "2"}
    assert environment.created_by.username == "dan"


def test_an_uploaded_file_takes_the_place_of_the_text(as_deployer: Client) -> None:
    conda = SimpleUploadedFile("environment.yml", CONDA.encode())
    requirements = SimpleUploadedFile("requirements.txt", b"\xef\xbb\xbfsix==1.17.0\r\n")
    as_deployer.post(
        "/environments/_create/",
        {"name": "new", "conda_yaml": "", "conda_file": conda, "pip_file": requirements},
    )
    environment = Environment.objects.get()
    assert environment.conda_yaml == CONDA.strip("\n")
    assert environment.pip_requirements == "six==1.17.0"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"dependencies:\n - a\n  - 'b", "Line"),
        (b"\xff\xfe", "is not a text file"),
        (b"#" * 300_000, "is larger than 256 KiB"),
    ],
)
def test_a_wrong_file_is_refused_beside_its_field(
    as_deployer: Client, content: bytes, says: str
) -> None:
    file = SimpleUploadedFile("environment.yml", content)
    answer = as_deployer.post("/environments/_create/", {"name": "new", "conda_file": file})
    assert answer.status_code == 422
    assert says in answer.context["form"].errors["conda_yaml"][0]
    assert not Environment.objects.exists()


def test_every_message_stands_beside_its_field_and_what_was_typed_stays(
    as_deployer: Client,
) -> None:
    typed = {
        "name": "-",
        "conda_yaml": "dependencies: [",
        "pip_requirements": "a=1",
        "variables": "x",
        "base_image": "A B",
        "docker_steps": "FROM y",
    }
    answer = as_deployer.post("/environments/_create/", typed)
    assert answer.status_code == 422
    assert set(answer.context["form"].errors) == set(typed)
    page = answer.content.decode()
    assert "id_conda_yaml_error" in page
    assert "dependencies: [" in page


def test_the_preview_shows_the_hash_and_what_a_process_cluster_does(
    as_deployer: Client, environment: Environment
) -> None:
    shown = as_deployer.post("/environments/_preview/", {"conda_yaml": CONDA}).content.decode()
    assert environment.hash[:24] in shown
    assert "azureml-inference-server-http==1.5.1" in shown
    assert "The same packages as" in shown
    shown = as_deployer.post(
        "/environments/_preview/", {"conda_yaml": "dependencies: [cudatoolkit]"}
    ).content.decode()
    assert "cudatoolkit (line 1) is not on PyPI" in shown
    assert "needs a Docker or Kubernetes cluster" in shown


def test_the_preview_puts_each_mistake_beside_its_field(as_deployer: Client) -> None:
    shown = as_deployer.post(
        "/environments/_preview/", {"conda_yaml": "- x", "docker_steps": "FROM y"}
    ).content.decode()
    for field, says in (("conda_yaml", "Line 1"), ("docker_steps", "FROM is not allowed")):
        slot = shown.split(f'id="live-{field}"')[1].split('<div class="live-error"')[0]
        assert says in slot
    assert "Environment.objects" not in shown
    assert not Environment.objects.exists()


def test_a_new_version_begins_with_the_old_ones_values(
    as_deployer: Client, environment: Environment
) -> None:
    page = as_deployer.get("/environments/_create/", {"from": "sklearn:1"}).content.decode()
    assert "- python=3.11" in page
    assert "A=1" in page
    for nothing in ("sklearn:9", "sklearn", ""):
        assert as_deployer.get("/environments/_create/", {"from": nothing}).status_code == 200


def test_what_a_person_wrote_is_never_markup(as_deployer: Client) -> None:
    environment = create_environment(
        None, name="e", description="<script>alert(1)</script>", variables={"A": "<b>"}
    )
    page = as_deployer.get(urls(environment)["detail"]).content.decode()
    assert "<script>alert" not in page
    assert "<b>" not in page


def test_a_build_is_queued_and_asked_for_twice_refused(
    as_deployer: Client, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "enqueue_build", lambda pk: None)
    as_deployer.post(urls(environment)["build-start"])
    assert EnvironmentBuild.objects.get().state == BuildState.QUEUED
    assert "Queued" in as_deployer.get(urls(environment)["build"]).content.decode()


def test_a_failed_build_shows_its_cause_and_can_be_built_again(
    as_deployer: Client, environment: Environment
) -> None:
    EnvironmentBuild.objects.create(
        hash=environment.hash, state=BuildState.FAILED, error="uv could not find x"
    )
    shown = as_deployer.get(urls(environment)["build"]).content.decode()
    assert "uv could not find x" in shown
    assert "Build again" in shown


def test_a_build_whose_builder_is_gone_is_stalled_and_not_building(
    as_viewer: Client, environment: Environment
) -> None:
    EnvironmentBuild.objects.create(
        hash=environment.hash, state=BuildState.BUILDING, claimed_until=timezone.now()
    )
    shown = as_viewer.get(urls(environment)["build"]).content.decode()
    assert "The process that built it has ended" in shown


def test_an_unused_build_is_removed_with_a_question_first(
    as_deployer: Client, environment: Environment
) -> None:
    ready(environment)
    shown = as_deployer.get(urls(environment)["build"]).content.decode()
    assert 'data-confirm="Remove the build of sklearn:1? It frees 5.0 MiB' in shown
    as_deployer.post(urls(environment)["build-remove"])
    assert EnvironmentBuild.objects.get().state == BuildState.REMOVED


def test_a_used_build_stays_and_the_page_says_where(
    as_deployer: Client, environment: Environment
) -> None:
    ready(environment)
    used(environment)
    assert "Remove build" not in as_deployer.get(urls(environment)["build"]).content.decode()
    page = as_deployer.post(urls(environment)["build-remove"], follow=True).content.decode()
    assert "It is used by diabetes" in page
    assert EnvironmentBuild.objects.get().state == BuildState.READY
    page = as_deployer.post(urls(environment)["delete"], follow=True).content.decode()
    assert "diabetes revision 1" in page
    assert Environment.objects.exists()


def test_an_unused_version_is_deleted(as_deployer: Client, environment: Environment) -> None:
    answer = as_deployer.post(urls(environment)["delete"], follow=True)
    assert "sklearn:1 is deleted." in answer.content.decode()
    assert as_deployer.get(urls(environment)["detail"]).status_code == 404


def test_administrators_find_environments_in_the_admin_and_cannot_edit_them(
    client: Client, administrator: User, environment: Environment
) -> None:
    client.force_login(administrator)
    ready(environment)
    assert "sklearn" in client.get("/admin/deployments/environment/?q=skl").content.decode()
    assert client.get("/admin/deployments/environmentbuild/").status_code == 200
    page = client.get(f"/admin/deployments/environment/{environment.pk}/change/")
    assert page.status_code == 200
    assert b'name="_save"' not in page.content
    answer = client.post(
        "/admin/deployments/environment/",
        {"action": "remove_builds", "_selected_action": [environment.pk], "index": "0"},
        follow=True,
    )
    assert [str(message) for message in answer.context["messages"]] == ["sklearn:1 removed."]
