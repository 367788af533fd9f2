"""The registries' pages and the image part of an environment's page: who may do what, and no passwords."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments import sealed
from deployments.audit.models import AuditEntry
from deployments.claims import holder
from deployments.environments.changes import create_environment
from deployments.environments.models import BuildState, Environment
from deployments.errors import PermanentError
from deployments.images import jobs, registries
from deployments.images.models import ImageBuild, Registry
from portal.models import User

FORM = {
    "name": "company",
    "role": "workspace",
    "address": "127.0.0.1:5999",
    "repository": "slipway",
    "plain_http": "on",
    "username": "pusher",
    "password": "a-secret-word",
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No registry is really asked."""
    seen: list[str] = []

    def test(self: object, push_to: str = "") -> str:
        seen.append(push_to)
        return "It answers as pusher."

    monkeypatch.setattr("deployments.images.registry_api.RegistryApi.test", test)
    return seen


@pytest.fixture
def as_administrator(client: Client, administrator: User) -> Client:
    client.force_login(administrator)
    return client


@pytest.fixture
def environment(db: None) -> Environment:
    return create_environment(None, name="sklearn", pip_requirements="numpy")


def test_a_registry_is_added_tested_and_its_password_never_shown(
    as_administrator: Client, asked: list[str]
) -> None:
    page = as_administrator.post(reverse("registry-add"), FORM, follow=True)
    assert "It answers as pusher." in page.text
    row = Registry.objects.get()
    assert (row.test_passed, asked) == (True, ["slipway/env"])
    assert "a-secret-word" not in row.password
    assert registries.password_of(row) == "a-secret-word"
    edit = as_administrator.get(reverse("registry-edit", args=[row.pk]))
    assert "a-secret-word" not in page.text + edit.text
    assert row.password not in page.text + edit.text
    assert "a-secret-word" not in str(list(AuditEntry.objects.values()))
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {
        "registry.add",
        "registry.test",
    }


def test_a_stored_password_stays_and_is_sent_nowhere_else(
    as_administrator: Client, asked: list[str]
) -> None:
    as_administrator.post(reverse("registry-add"), FORM)
    row = Registry.objects.get()
    url = reverse("registry-edit", args=[row.pk])
    renamed = {**FORM, "name": "renamed", "password": ""}
    assert as_administrator.post(url, renamed).status_code == 302
    assert registries.password_of(Registry.objects.get()) == "a-secret-word"
    for other in ({"address": "127.0.0.1:6000"}, {"username": "other"}):
        page = as_administrator.post(url, {**renamed, **other})
        assert page.status_code == 422
        assert "Enter the password again" in page.text
    assert Registry.objects.get().address == "127.0.0.1:5999"
    as_administrator.post(url, {**renamed, "forget_password": "on"})
    assert Registry.objects.get().password == ""


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"address": "registry.example.com/x"}, "is not an address"),
        ({"address": "192.0.2.1:5000"}, "is not this machine"),
        ({"repository": "Upper Case"}, "Use lower-case letters"),
        ({"address": ""}, "This field is required"),
    ],
)
def test_what_cannot_be_is_said_beside_its_field(
    as_administrator: Client, asked: list[str], values: dict[str, str], said: str
) -> None:
    page = as_administrator.post(reverse("registry-add"), {**FORM, **values})
    assert page.status_code == 422
    assert said in page.text
    assert not Registry.objects.exists()


def test_there_is_one_workspace_registry(as_administrator: Client, asked: list[str]) -> None:
    as_administrator.post(reverse("registry-add"), FORM)
    page = as_administrator.post(reverse("registry-add"), {**FORM, "name": "second"})
    assert "is the workspace&#x27;s registry already" in page.text


def test_one_that_is_removed_takes_its_images_rows_with_it(
    as_administrator: Client, asked: list[str], environment: Environment
) -> None:
    as_administrator.post(reverse("registry-add"), FORM)
    row = Registry.objects.get()
    ImageBuild.objects.create(
        hash=environment.hash, state=BuildState.READY, registry=row, reference="x"
    )
    as_administrator.post(reverse("registry-remove", args=[row.pk]))
    assert not Registry.objects.exists()
    assert ImageBuild.objects.get().state == BuildState.REMOVED


def test_a_test_that_fails_is_kept_in_the_registrys_words(
    as_administrator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, push_to: str = "") -> str:
        raise PermanentError("DENIED: quota used up")

    monkeypatch.setattr("deployments.images.registry_api.RegistryApi.test", refuse)
    page = as_administrator.post(reverse("registry-add"), FORM, follow=True)
    assert "DENIED: quota used up" in page.text
    assert Registry.objects.get().test_passed is False


@pytest.mark.parametrize("name", ["registry-list", "registry-add"])
def test_registries_are_for_administrators(client: Client, deployer: User, name: str) -> None:
    client.force_login(deployer)
    assert client.get(reverse(name)).status_code == 403


def test_another_secret_key_is_said_and_not_an_error_page(db: None) -> None:
    row = Registry(name="old", address="127.0.0.1:1", password=sealed.seal("x", "another purpose"))
    with pytest.raises(PermanentError, match="enter it again under Registries"):
        registries.password_of(row)


def test_an_environments_page_shows_its_dockerfile_before_it_is_built(
    client: Client, viewer: User, environment: Environment
) -> None:
    client.force_login(viewer)
    page = client.get(environment.get_absolute_url()).text
    assert "FROM python:3.11-slim AS steps" in page
    assert "Build now" not in page.partition('id="image"')[2].partition("</section>")[0]


def test_a_deployer_builds_cancels_and_removes_an_image(
    client: Client,
    deployer: User,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: object,
) -> None:
    queued: list[int] = []
    monkeypatch.setattr(jobs, "enqueue_build", queued.append)
    client.force_login(deployer)
    at = [environment.name, environment.version]
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        client.post(reverse("environment-image-build", args=at))
    assert queued == [environment.pk]
    page = client.post(reverse("environment-image-cancel", args=at), follow=True)
    assert "is not being built now" in page.text
    ImageBuild.objects.update(
        state=BuildState.BUILDING,
        claimed_by=f"{holder()}#1",
        claimed_until=timezone.now() + timedelta(minutes=1),
        started_at=timezone.now(),
    )
    assert "Cancel the build" in client.get(reverse("environment-image", args=at)).text
    client.post(reverse("environment-image-cancel", args=at))
    assert ImageBuild.objects.get().cancel_asked is True
    assert "It is being cancelled" in client.get(reverse("environment-image", args=at)).text


def test_a_failed_image_shows_its_cause_and_can_be_built_again(
    client: Client, deployer: User, environment: Environment
) -> None:
    ImageBuild.objects.create(
        hash=environment.hash, state=BuildState.FAILED, error="The base image has no Python."
    )
    client.force_login(deployer)
    page = client.get(reverse("environment-image", args=[environment.name, 1])).text
    assert "The base image has no Python." in page
    assert "Build again" in page
