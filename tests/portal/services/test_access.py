"""Keys, access and deletion as a deployer meets them."""

import pytest
from django.test import Client
from django.urls import reverse

from deployments.audit.models import AuditEntry
from deployments.environments.models import Environment
from deployments.registry.models import ModelVersion
from deployments.services import keys
from deployments.services.models import Deployment, Service
from portal.models import User
from tests.portal.services.conftest import add_revision
from tests.serving import serve

PRIMARY, SECONDARY = "primary-key-of-the-test", "secondary-key-of-the-test"


@pytest.fixture
def desk(deployer: User) -> Client:
    client = Client()
    client.force_login(deployer)
    return client


@pytest.mark.parametrize("tab", ["overview", "test", "consume", "settings", "history", "keys"])
def test_no_page_holds_a_key(tab: str, service: Service, desk: Client) -> None:
    text = desk.get(reverse(f"service-{tab}", args=["diabetes"])).content.decode()
    assert PRIMARY not in text
    assert SECONDARY not in text


def test_revealing_shows_both_keys_uncached_and_leaves_an_audit_row(
    service: Service, desk: Client
) -> None:
    answer = desk.post(reverse("service-keys-reveal", args=["diabetes"]))
    assert PRIMARY in answer.content.decode()
    assert SECONDARY in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    assert AuditEntry.objects.get(action="service.keys.reveal").actor_name == "dan"


def test_revealed_keys_hide_by_themselves(service: Service, desk: Client) -> None:
    text = desk.post(reverse("service-keys-reveal", args=["diabetes"])).content.decode()
    assert 'hx-trigger="load delay:60s"' in text
    assert f'hx-get="{reverse("service-keys", args=["diabetes"])}"' in text


def test_keys_that_cannot_be_decrypted_are_said_and_not_a_broken_page(
    service: Service, desk: Client
) -> None:
    Service.objects.update(primary_key="of another SECRET_KEY")
    answer = desk.post(reverse("service-keys-reveal", args=["diabetes"]))
    assert answer.status_code == 200
    assert "cannot be decrypted" in answer.content.decode()


@pytest.mark.parametrize(("which", "stays"), [("primary", SECONDARY), ("secondary", PRIMARY)])
def test_either_key_is_regenerated_alone(
    which: str, stays: str, service: Service, desk: Client
) -> None:
    desk.post(reverse("service-keys-regenerate", args=["diabetes"]), {"which": which})
    service.refresh_from_db()
    now = keys.read(service)
    assert stays in now
    assert len({PRIMARY, SECONDARY} & set(now)) == 1


def test_only_the_two_keys_can_be_regenerated(service: Service, desk: Client) -> None:
    desk.post(reverse("service-keys-regenerate", args=["diabetes"]), {"which": "third"})
    service.refresh_from_db()
    assert keys.read(service) == (PRIMARY, SECONDARY)


def test_access_changes_without_a_new_revision(service: Service, desk: Client) -> None:
    answer = desk.post(
        reverse("service-access", args=["diabetes"]),
        {"cors_origins": "https://a.example.com\nhttps://b.example.com"},
    )
    assert answer.status_code == 302
    service.refresh_from_db()
    assert service.auth_enabled is False
    assert service.cors_origins == ["https://a.example.com", "https://b.example.com"]
    assert service.next_revision == 2


@pytest.mark.parametrize("origin", ["a.example.com", "https://a.example.com/path", "ftp://a.com"])
def test_what_is_no_origin_is_refused_beside_its_field(
    origin: str, service: Service, desk: Client
) -> None:
    answer = desk.post(
        reverse("service-access", args=["diabetes"]), {"auth_enabled": "on", "cors_origins": origin}
    )
    assert answer.status_code == 422
    assert answer.context["access"].errors["cors_origins"]
    service.refresh_from_db()
    assert service.cors_origins == []


def test_consume_warns_loudly_when_no_key_is_asked_for(
    service: Service, failed: Service, desk: Client
) -> None:
    words = "Anyone who reaches the router can score this service."
    assert words in desk.get(reverse("service-consume", args=["broken"])).content.decode()
    assert words not in desk.get(reverse("service-consume", args=["diabetes"])).content.decode()


def test_consume_has_working_samples_of_the_models_own_input(
    service: Service, desk: Client
) -> None:
    samples = desk.get(reverse("service-consume", args=["diabetes"])).context["samples"]
    by_id = {sample.id: sample.text for sample in samples}
    uri = "http://127.0.0.1:27999/api/v1/service/diabetes/score"
    assert all(uri in text for text in by_id.values())
    compile(by_id["python"], "sample", "exec")
    assert """-d '{"data": [[1, 2]]}'""" in by_id["curl"]
    assert "$SLIPWAY_KEY" in by_id["curl"]


@pytest.mark.parametrize("typed", ["", "Diabetes", "diabete", "other"])
def test_deleting_needs_the_name_typed(typed: str, service: Service, desk: Client) -> None:
    answer = desk.post(reverse("service-delete", args=["diabetes"]), {"confirm": typed})
    assert answer.status_code == 422
    service.refresh_from_db()
    assert service.deleting is False


def test_deleting_begins_and_says_so(service: Service, desk: Client) -> None:
    answer = desk.post(
        reverse("service-delete", args=["diabetes"]), {"confirm": "diabetes"}, follow=True
    )
    assert "diabetes is being deleted" in answer.content.decode()
    service.refresh_from_db()
    assert service.deleting is True


def test_rolling_back_deploys_the_earlier_revision(
    service: Service, environment: Environment, diabetes: ModelVersion, desk: Client
) -> None:
    serve(service, add_revision(service, environment, [diabetes], {"cpu_cores": 0.5}))
    answer = desk.post(reverse("service-roll-back", args=["diabetes"]), {"revision": "1"})
    assert answer.url == reverse("service-overview", args=["diabetes"])
    newest = Deployment.objects.first()
    assert newest is not None
    assert (newest.kind, newest.revision.number, newest.state) == ("rollback", 1, "queued")


@pytest.mark.parametrize("revision", ["1", "9", "x", ""])
def test_rolling_back_to_what_serves_or_does_not_exist_changes_nothing(
    revision: str, service: Service, desk: Client
) -> None:
    answer = desk.post(
        reverse("service-roll-back", args=["diabetes"]), {"revision": revision}, follow=True
    )
    assert "toast-error" in answer.content.decode()
    assert Deployment.objects.count() == 1
