"""Signing in and out, passwords, and the people's pages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client

from deployments.audit.models import AuditEntry
from deployments.errors import InvalidInput
from portal import people, sign_in_limit
from portal.models import Role, User

PASSWORD = "correct horse battery"
NEW = "a quite new harbour"


@pytest.fixture(autouse=True)
def _no_tries_yet() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def one_time_file() -> Iterator[Path]:
    path = settings.HOME.admin_password
    path.write_text(PASSWORD + "\n")
    yield path
    path.unlink(missing_ok=True)


def _sign_in(client: Client, username: str, password: str = PASSWORD):
    return client.post("/login/", {"username": username, "password": password})


# Signing in ---------------------------------------------------------------------------------


def test_every_page_asks_a_stranger_to_sign_in(client: Client, db: None) -> None:
    for url in ("/", "/people/", "/audit/", "/password/", "/overview/services/"):
        response = client.get(url)
        assert response.status_code == 302
        assert response["Location"].startswith("/login/?next=")


def test_the_right_password_leads_to_the_page_that_was_asked_for(
    client: Client, viewer: User
) -> None:
    response = client.post(
        "/login/?next=/password/", {"username": "vera", "password": PASSWORD, "next": "/password/"}
    )
    assert response["Location"] == "/password/"


def test_signing_in_never_leads_to_another_site(client: Client, viewer: User) -> None:
    response = client.post(
        "/login/", {"username": "vera", "password": PASSWORD, "next": "https://evil.example/"}
    )
    assert response["Location"] == "/"


@pytest.mark.parametrize("username", ["vera", "nobody"])
def test_a_wrong_password_and_an_unknown_name_sound_the_same(
    username: str, client: Client, viewer: User
) -> None:
    response = _sign_in(client, username, "wrong")
    assert response.status_code == 200
    assert "The username or the password is not right." in response.content.decode()


def test_a_deactivated_person_cannot_sign_in(client: Client, viewer: User) -> None:
    User.objects.filter(pk=viewer.pk).update(is_active=False)
    _sign_in(client, "vera")
    assert "_auth_user_id" not in client.session


def test_after_too_many_tries_even_the_right_password_waits(client: Client, viewer: User) -> None:
    for _ in range(sign_in_limit.MOST_OF_A_NAME):
        _sign_in(client, "vera", "wrong")
    response = _sign_in(client, "vera")
    assert "Too many tries" in response.content.decode()
    assert "_auth_user_id" not in client.session


def test_the_last_allowed_try_may_still_succeed_and_forgets_the_count(
    client: Client, viewer: User
) -> None:
    for _ in range(2):
        for _ in range(sign_in_limit.MOST_OF_A_NAME - 1):
            _sign_in(client, "vera", "wrong")
        assert _sign_in(client, "vera").status_code == 302
        client.logout()


def test_one_persons_wrong_tries_do_not_lock_another_out(
    client: Client, viewer: User, deployer: User
) -> None:
    for _ in range(sign_in_limit.MOST_OF_A_NAME + 1):
        _sign_in(client, "vera", "wrong")
    assert _sign_in(client, "dan").status_code == 302


def test_an_address_that_tries_many_names_is_stopped() -> None:
    for number in range(sign_in_limit.MOST_OF_AN_ADDRESS):
        assert sign_in_limit.may_try(f"name{number}", "10.0.0.9")
    assert not sign_in_limit.may_try("yet another", "10.0.0.9")
    assert sign_in_limit.may_try("yet another", "10.0.0.10")


def test_signing_out_takes_a_post(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/").status_code == 302
    assert "_auth_user_id" not in client.session


def test_the_sign_in_page_says_where_the_first_password_is_only_while_it_is_there(
    client: Client, one_time_file: Path, db: None
) -> None:
    page = client.get("/login/").content.decode()
    assert "SLIPWAY_HOME/admin_password" in page
    assert PASSWORD not in page
    one_time_file.unlink()
    assert "admin_password" not in client.get("/login/").content.decode()


# One's own password -------------------------------------------------------------------------


def _change(client: Client, old: str = PASSWORD, new: str = NEW, again: str = NEW):
    return client.post("/password/", {"old_password": old, "password": new, "again": again})


@pytest.mark.django_db(transaction=True)
def test_the_first_change_removes_the_one_time_file_and_its_banner(
    client: Client, administrator: User, one_time_file: Path
) -> None:
    client.force_login(administrator)
    assert "one-time administrator password" in client.get("/people/").content.decode()
    assert _change(client).status_code == 302
    assert not one_time_file.exists()
    assert "one-time administrator password" not in client.get("/people/").content.decode()


@pytest.mark.django_db(transaction=True)
def test_somebody_elses_change_leaves_the_one_time_file(
    client: Client, viewer: User, one_time_file: Path
) -> None:
    one_time_file.write_text("not the viewer's\n")
    client.force_login(viewer)
    _change(client)
    assert one_time_file.exists()


def test_a_viewer_sees_no_banner(client: Client, viewer: User, one_time_file: Path) -> None:
    client.force_login(viewer)
    assert "one-time" not in client.get("/password/").content.decode()


def test_a_change_keeps_this_session_and_ends_the_others(client: Client, viewer: User) -> None:
    other = Client()
    other.force_login(viewer)
    client.force_login(viewer)
    _change(client)
    assert client.get("/password/").status_code == 200
    assert other.get("/password/").status_code == 302


@pytest.mark.parametrize(
    ("values", "message"),
    [({"old": "wrong"}, "This is not your present password."),
     ({"again": "something else"}, "The two new passwords differ."),
     ({"new": "short", "again": "short"}, "too short")],
)  # fmt: skip
def test_a_change_that_does_not_fit_says_why(
    values: dict[str, str], message: str, client: Client, viewer: User
) -> None:
    client.force_login(viewer)
    response = _change(client, **values)
    assert response.status_code == 200
    assert message in response.content.decode()
    viewer.refresh_from_db()
    assert viewer.check_password(PASSWORD)


def test_passwords_reach_neither_the_audit_nor_the_page(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    assert NEW not in _change(client, old="wrong").content.decode()
    _change(client)
    entry = AuditEntry.objects.get(action="person.password")
    assert (entry.actor_name, entry.before, entry.after) == ("vera", None, None)


# Managing people ----------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["viewer", "deployer"])
def test_only_administrators_manage_people(
    role: str, client: Client, administrator: User, request: pytest.FixtureRequest
) -> None:
    client.force_login(request.getfixturevalue(role))
    for url in ("/people/", "/people/add/", f"/people/{administrator.pk}/", "/audit/"):
        response = client.get(url)
        assert response.status_code == 403
        assert "needs the role administrator" in response.content.decode()
    assert client.post("/people/add/", {"username": "eve"}).status_code == 403
    assert not User.objects.filter(username="eve").exists()


def _new(**values: str) -> dict[str, str]:
    return {"username": "eve", "password": NEW, "role": "deployer", "is_active": "on", **values}


def test_an_added_person_may_sign_in_and_is_in_the_audit(
    client: Client, administrator: User
) -> None:
    client.force_login(administrator)
    assert client.post("/people/add/", _new()).status_code == 302
    assert Client().login(username="eve", password=NEW)
    entry = AuditEntry.objects.get(action="person.add")
    assert entry.object_name == "eve"
    assert entry.after["role"] == "deployer"
    assert NEW not in str(entry.after)


@pytest.mark.parametrize("username", ["ada", "ADA"])
def test_a_taken_name_is_refused_beside_its_field(
    username: str, client: Client, administrator: User
) -> None:
    client.force_login(administrator)
    response = client.post("/people/add/", _new(username=username))
    assert "is taken" in response.content.decode()
    assert 'id="id_username_error"' in response.content.decode()


def test_a_changed_role_is_audited_with_both_values(
    client: Client, administrator: User, viewer: User
) -> None:
    client.force_login(administrator)
    client.post(f"/people/{viewer.pk}/", {"role": "administrator", "is_active": "on"})
    viewer.refresh_from_db()
    assert viewer.role == Role.ADMINISTRATOR
    assert viewer.is_superuser
    entry = AuditEntry.objects.get(action="person.change")
    assert (entry.before["role"], entry.after["role"]) == ("viewer", "administrator")


def test_saving_without_a_change_leaves_no_audit_row(administrator: User, viewer: User) -> None:
    people.change_person(administrator, viewer.pk, people.Details("viewer", email=viewer.email))
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    ("details", "field"),
    [(people.Details(Role.VIEWER), "role"),
     (people.Details(Role.ADMINISTRATOR, is_active=False), "is_active")],
)  # fmt: skip
def test_the_last_active_administrator_stays(
    details: people.Details, field: str, administrator: User, viewer: User
) -> None:
    User.objects.create(username="asleep", role=Role.ADMINISTRATOR, is_active=False)
    with pytest.raises(InvalidInput) as refusal:
        people.change_person(administrator, administrator.pk, details)
    assert refusal.value.field == field
    administrator.refresh_from_db()
    assert administrator.role == Role.ADMINISTRATOR
    assert administrator.is_active


def test_one_of_two_administrators_may_step_down(administrator: User, viewer: User) -> None:
    people.change_person(administrator, viewer.pk, people.Details(Role.ADMINISTRATOR))
    people.change_person(administrator, administrator.pk, people.Details(Role.VIEWER))
    administrator.refresh_from_db()
    assert administrator.role == Role.VIEWER
    assert not administrator.is_staff


def test_a_refusal_is_shown_beside_the_field(client: Client, administrator: User) -> None:
    client.force_login(administrator)
    page = client.post(f"/people/{administrator.pk}/", {"role": "viewer", "is_active": "on"})
    assert "is the last active administrator" in page.content.decode()
    assert 'id="id_role_error"' in page.content.decode()


def test_deactivating_ends_the_persons_session(
    client: Client, administrator: User, viewer: User
) -> None:
    theirs = Client()
    theirs.force_login(viewer)
    client.force_login(administrator)
    client.post(f"/people/{viewer.pk}/", {"role": "viewer"})
    assert theirs.get("/password/").status_code == 302


def test_an_administrator_sets_a_forgotten_password(
    client: Client, administrator: User, viewer: User
) -> None:
    client.force_login(administrator)
    client.post(f"/people/{viewer.pk}/", {"set-password": "1", "password": NEW})
    assert Client().login(username="vera", password=NEW)
    viewer.refresh_from_db()
    assert viewer.role == Role.VIEWER
