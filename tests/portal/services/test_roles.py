"""Who may do what: a viewer looks, a deployer changes; nobody else sees anything."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from deployments.audit.models import AuditEntry
from deployments.services.models import Deployment, Service
from portal.models import User

CHANGES = (
    "service-keys-reveal",
    "service-keys-regenerate",
    "service-tokens-issue",
    "service-tokens-switch",
    "service-tokens-revoke",
    "service-tokens-revoke-all",
    "service-access",
    "service-delete",
    "service-roll-back",
    "service-test-send",
    "service-settings",
)


@pytest.mark.parametrize("name", CHANGES)
def test_a_viewer_changes_nothing_and_sees_no_key(
    name: str, service: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    data = {"confirm": "diabetes", "which": "primary", "revision": "1", "body": "{}"}
    answer = client.post(reverse(name, args=["diabetes"]), data)
    assert answer.status_code == 403
    before = (service.primary_key, service.deleting, service.auth_enabled)
    service.refresh_from_db()
    assert (service.primary_key, service.deleting, service.auth_enabled) == before
    assert Deployment.objects.count() == 1
    assert not AuditEntry.objects.filter(object_type="service").exists()


@pytest.mark.parametrize("name", CHANGES)
def test_a_stranger_is_led_to_the_sign_in_page(name: str, service: Service, client: Client) -> None:
    answer = client.post(reverse(name, args=["diabetes"]))
    assert answer.status_code == 302
    assert answer.url.startswith(reverse("login"))


@pytest.mark.parametrize(
    "name", ["service-deploy", "service-deploy-models", "service-deploy-capacity"]
)
def test_the_deployment_form_is_not_for_viewers(
    name: str, viewer: User, deployer: User, sign_in: Callable[[User], Client]
) -> None:
    assert sign_in(viewer).get(reverse(name)).status_code == 403
    assert sign_in(deployer).get(reverse(name)).status_code == 200


@pytest.mark.parametrize("name", ["service-deploy", "service-deploy-plan", "service-deploy-fill"])
def test_a_viewer_may_not_post_to_the_deployment_form(
    name: str, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    assert client.post(reverse(name)).status_code == 403


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "service-settings"])
def test_what_changes_something_is_never_a_get(
    name: str, service: Service, deployer: User, client: Client
) -> None:
    client.force_login(deployer)
    assert client.get(reverse(name, args=["diabetes"])).status_code == 405


def test_a_post_without_its_csrf_token_is_refused(service: Service, deployer: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(deployer)
    answer = client.post(reverse("service-delete", args=["diabetes"]), {"confirm": "diabetes"})
    assert answer.status_code == 403
    service.refresh_from_db()
    assert service.deleting is False
