"""Tokens as people meet them on the Consume page, and as clients meet them over the API."""

import re
from datetime import timedelta

import jwt
import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.audit.models import AuditEntry
from deployments.services import keys, tokens
from deployments.services.models import IssuedToken, Service
from portal.models import User

FORM = {"subject": "nightly-batch", "lifetime": "12", "unit": "hours"}


@pytest.fixture
def desk(deployer: User) -> Client:
    client = Client()
    client.force_login(deployer)
    return client


@pytest.fixture
def open_to_tokens(service: Service) -> Service:
    service.token_auth_enabled = True
    service.save(update_fields=["token_auth_enabled"])
    return service


def url(name: str) -> str:
    return reverse(f"service-tokens{name}", args=["diabetes"])


def consume(client: Client) -> str:
    return client.get(reverse("service-consume", args=["diabetes"])).content.decode()


def shown_token(text: str) -> str:
    found = re.search(r"<code data-token>([^<]+)</code>", text)
    assert found is not None
    return found[1]


def test_a_token_is_shown_once_uncached_with_a_command_that_works(
    open_to_tokens: Service, desk: Client
) -> None:
    answer = desk.post(url("-issue"), FORM)
    text = answer.content.decode()
    token = shown_token(text)
    assert "no-store" in answer["Cache-Control"]
    assert f"Bearer {token}" in text
    assert open_to_tokens.scoring_uri in text
    assert jwt.get_unverified_header(token)["alg"] == "ES256"
    row = IssuedToken.objects.get()
    assert row.expires_at - row.issued_at == timedelta(hours=12)
    signature = token.rpartition(".")[2]
    for page in (consume(desk), desk.get(url("")).content.decode()):
        assert "nightly-batch" in page
        assert signature not in page


@pytest.mark.parametrize(
    ("lifetime", "unit", "good"),
    [
        ("1", "minutes", True),
        ("0", "minutes", False),
        ("30", "days", True),
        ("31", "days", False),
        ("720", "hours", True),
        ("721", "hours", False),
        ("x", "hours", False),
        ("1", "years", False),
    ],
)
def test_a_lifetime_is_checked_beside_its_field(
    lifetime: str, unit: str, good: bool, open_to_tokens: Service, desk: Client
) -> None:
    answer = desk.post(url("-issue"), {**FORM, "lifetime": lifetime, "unit": unit})
    assert answer.status_code == (200 if good else 422)
    assert IssuedToken.objects.exists() is good
    assert ("field-error" in answer.content.decode()) is not good


def test_a_subject_that_would_break_a_line_is_refused_with_a_reason(
    open_to_tokens: Service, desk: Client
) -> None:
    answer = desk.post(url("-issue"), {**FORM, "subject": "two words"})
    assert answer.status_code == 422
    assert "A subject takes" in answer.content.decode()


def test_tokens_are_switched_on_and_off(service: Service, desk: Client) -> None:
    assert "takes no tokens" in consume(desk)
    assert desk.post(url("-issue"), FORM).status_code == 422
    desk.post(url("-switch"), {"enabled": "1"})
    service.refresh_from_db()
    assert service.token_auth_enabled
    assert service.auth_enabled  # both may be on
    assert "Issue a token" in consume(desk)
    desk.post(url("-switch"))
    service.refresh_from_db()
    assert not service.token_auth_enabled


def test_the_settings_switch_tokens_too(service: Service, desk: Client) -> None:
    page = reverse("service-access", args=["diabetes"])
    desk.post(page, {"token_auth_enabled": "on"})
    service.refresh_from_db()
    assert (service.auth_enabled, service.token_auth_enabled) == (False, True)


def test_one_token_or_all_of_them_are_revoked(
    open_to_tokens: Service, desk: Client, deployer: User
) -> None:
    first, *_ = [tokens.issue(deployer, open_to_tokens) for _ in range(3)]
    desk.post(url("-revoke"), {"jti": first.jti})
    assert tokens.live(open_to_tokens).count() == 2
    desk.post(url("-revoke"), {"jti": "'; drop"})
    assert tokens.live(open_to_tokens).count() == 2
    desk.post(url("-revoke-all"))
    assert tokens.live(open_to_tokens).count() == 0
    assert "No token is valid" in consume(desk)


def test_a_viewer_sees_who_has_tokens_and_no_button(
    open_to_tokens: Service, deployer: User, viewer: User, client: Client
) -> None:
    tokens.issue(deployer, open_to_tokens, subject="nightly-batch")
    client.force_login(viewer)
    text = consume(client)
    assert "nightly-batch" in text
    for name in ("-issue", "-revoke", "-revoke-all", "-switch"):
        assert url(name) not in text


def test_a_token_due_for_its_next_says_so(
    open_to_tokens: Service, deployer: User, desk: Client
) -> None:
    issued = timezone.now() - timedelta(hours=10)
    tokens.issue(deployer, open_to_tokens, now=issued)
    assert "refresh due" in consume(desk)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_service_open_to_everyone_says_so_wherever_it_is_shown(
    guarded: bool, service: Service, desk: Client
) -> None:
    Service.objects.update(auth_enabled=guarded, token_auth_enabled=False)
    pages = {
        "header": desk.get(reverse("service-header", args=["diabetes"])).content.decode(),
        "list": desk.get(reverse("service-rows")).content.decode(),
    }
    for name, text in pages.items():
        assert ("No authentication" in text) is not guarded, name
    assert ("Anyone who reaches the router can score" in consume(desk)) is not guarded
    Service.objects.update(token_auth_enabled=True)
    assert "Anyone who reaches the router can score" not in consume(desk)


def test_opening_a_service_to_everyone_is_asked_about_first(service: Service, desk: Client) -> None:
    page = reverse("service-settings", args=["diabetes"])
    asked = 'data-confirm-unless="auth_enabled token_auth_enabled"'
    assert asked in desk.get(page).content.decode()
    Service.objects.update(auth_enabled=False)
    assert asked not in desk.get(page).content.decode()  # it is open already


# ---- the API --------------------------------------------------------------------------------------


def api(name: str) -> str:
    return f"/api/v1/services/diabetes{name}"


def test_the_api_answers_in_azures_words_and_times(open_to_tokens: Service, desk: Client) -> None:
    answer = desk.post(api("/token"))
    found = answer.json()
    assert set(found) == {"accessToken", "tokenType", "refreshAfter", "expiryOn"}
    assert "no-store" in answer["Cache-Control"]
    claims = jwt.decode(found["accessToken"], options={"verify_signature": False})
    assert claims["sub"] == "dan"
    assert (found["tokenType"], found["expiryOn"]) == ("Bearer", claims["exp"])
    assert claims["exp"] - claims["iat"] == 12 * 3600
    assert found["refreshAfter"] - claims["iat"] == 12 * 3600 * 0.8


def test_our_clients_may_say_how_long_and_for_whom(open_to_tokens: Service, desk: Client) -> None:
    asked = {"lifetimeSeconds": 600, "subject": "robot"}
    found = desk.post(api("/token"), asked, content_type="application/json").json()
    claims = jwt.decode(found["accessToken"], options={"verify_signature": False})
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("robot", 600)
    [row] = desk.get(api("/tokens")).json()["value"]
    assert (row["subject"], row["expiryOn"], row["createdBy"]) == ("robot", claims["exp"], "dan")
    assert found["accessToken"] not in str(row)


@pytest.mark.parametrize(
    "body", ['{"lifetimeSeconds": "x"}', '{"lifetimeSeconds": 1}', "[1]", "{", '{"subject": "a b"}']
)
def test_a_wrong_body_is_a_400_in_the_apis_shape(
    body: str, open_to_tokens: Service, desk: Client
) -> None:
    answer = desk.post(api("/token"), body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "InvalidInput"
    assert not IssuedToken.objects.exists()


def test_a_service_without_tokens_is_a_409(service: Service, desk: Client) -> None:
    answer = desk.post(api("/token"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "TokenAuthDisabled")
    assert desk.post("/api/v1/services/nobody/token").status_code == 404


def test_tokens_are_revoked_over_the_api(open_to_tokens: Service, desk: Client) -> None:
    for _ in range(3):
        desk.post(api("/token"))
    [first, *_] = desk.get(api("/tokens")).json()["value"]
    assert desk.post(api(f"/tokens/{first['id']}/revoke")).json() == {
        "id": first["id"],
        "revoked": 1,
    }
    assert desk.post(api("/tokens/revoke")).json() == {"revoked": 2}
    assert desk.post(api("/tokens/none/revoke")).status_code == 404


def test_keys_are_listed_and_regenerated_in_azures_shape(service: Service, desk: Client) -> None:
    listed = desk.post(api("/listkeys"))
    assert listed.json() == dict(
        zip(("primaryKey", "secondaryKey"), keys.read(service), strict=True)
    )
    assert "no-store" in listed["Cache-Control"]
    made = desk.post(
        api("/regenerateKeys"), {"keyType": "Primary"}, content_type="application/json"
    ).json()
    assert made["secondaryKey"] == listed.json()["secondaryKey"]
    assert made["primaryKey"] != listed.json()["primaryKey"]
    brought = {"keyType": "Secondary", "keyValue": "one-that-was-brought-along"}
    made = desk.post(api("/regenerateKeys"), brought, content_type="application/json").json()
    assert made["secondaryKey"] == "one-that-was-brought-along"
    assert {entry.action for entry in AuditEntry.objects.all()} >= {
        "service.keys.reveal",
        "service.keys.regenerate",
    }


@pytest.mark.parametrize(
    "asked",
    [
        {"keyType": "Third"},
        {},
        {"keyType": "Primary", "keyValue": "short"},
        {"keyType": "Primary", "keyValue": 7},
        {"keyType": "Primary", "keyValue": "secondary-key-of-the-test"},
    ],
)
def test_a_key_that_will_not_do_changes_nothing(
    asked: dict[str, object], service: Service, desk: Client
) -> None:
    before = keys.read(service)
    answer = desk.post(api("/regenerateKeys"), asked, content_type="application/json")
    assert answer.status_code == 400
    assert "secondary-key-of-the-test" not in answer.content.decode()
    service.refresh_from_db()
    assert keys.read(service) == before


def patch(client: Client, **values: object) -> tuple[int, dict[str, object]]:
    operations = [
        {"op": "replace", "path": f"/{name}", "value": value} for name, value in values.items()
    ]
    answer = client.patch(api(""), operations, content_type="application/json")
    return answer.status_code, answer.json()


def test_azures_clients_know_keys_or_tokens_and_never_both(service: Service, desk: Client) -> None:
    status, found = patch(desk, aadAuthEnabled=True)
    assert status == 400
    assert "without disabling key auth" in str(found)
    status, found = patch(desk, authEnabled=False, aadAuthEnabled=True)
    assert (status, found["authEnabled"], found["aadAuthEnabled"]) == (200, False, True)
    assert patch(desk, authEnabled=True)[0] == 400
    Service.objects.update(auth_enabled=True)  # in the portal
    status, found = patch(desk, description="of both kinds")
    assert (status, found["description"]) == (200, "of both kinds")


@pytest.mark.parametrize(
    "body",
    ['{"a": 1}', '[{"op": "remove", "path": "/authEnabled"}]', '[{"op": "replace"}]', "[7]", "x"],
)
def test_what_azure_would_not_send_is_refused(body: str, service: Service, desk: Client) -> None:
    answer = desk.patch(api(""), body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "InvalidInput"


SECRETS = ("/token", "/tokens/revoke", "/tokens/x/revoke", "/listkeys", "/regenerateKeys")


@pytest.mark.parametrize("path", SECRETS)
def test_a_viewer_and_a_stranger_get_nothing(
    path: str, open_to_tokens: Service, viewer: User, client: Client
) -> None:
    assert client.post(api(path)).status_code == 401
    client.force_login(viewer)
    assert client.post(api(path)).status_code == 403
    assert client.get(api("/tokens")).status_code == 403
    assert client.patch(api(""), [], content_type="application/json").status_code == 403
    assert not IssuedToken.objects.exists()


def test_another_sites_page_cannot_spend_a_deployers_session(
    open_to_tokens: Service, deployer: User
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(deployer)
    assert client.post(api("/token")).status_code == 403
    assert client.patch(api(""), [], content_type="application/json").status_code == 403
    assert not IssuedToken.objects.exists()
