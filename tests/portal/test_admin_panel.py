"""The admin panel: for administrators, through the portal's own sign-in."""

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import resolve

from portal.models import User


def test_each_model_of_ours_is_there_and_its_list_opens(
    client: Client, administrator: User
) -> None:
    client.force_login(administrator)
    opened = 0
    for model in admin.site._registry:
        if model._meta.app_label in ("portal", "deployments", "telemetry"):
            response = client.get(f"/admin/{model._meta.app_label}/{model._meta.model_name}/")
            assert response.status_code == 200, model
            opened += 1
    assert opened >= 12


@pytest.mark.parametrize("role", ["viewer", "deployer"])
def test_others_are_told_which_role_it_takes(
    role: str, client: Client, request: pytest.FixtureRequest
) -> None:
    client.force_login(request.getfixturevalue(role))
    response = client.get("/admin/", follow=True)
    assert response.status_code == 403
    assert "needs the role administrator" in response.content.decode()


def test_its_sign_in_is_the_portals_with_the_portals_limit(client: Client, db: None) -> None:
    response = client.get("/admin/deployments/service/", follow=True)
    assert response.redirect_chain[-1][0].startswith("/login/?next=")


def test_people_are_changed_where_it_is_audited(client: Client, administrator: User) -> None:
    client.force_login(administrator)
    page = client.get(f"/admin/portal/user/{administrator.pk}/change/").content.decode()
    assert f"/people/{administrator.pk}/" in page
    assert (
        client.post(
            f"/admin/portal/user/{administrator.pk}/change/", {"role": "viewer"}
        ).status_code
        == 403
    )
    assert client.get("/admin/portal/user/add/").status_code == 403
    assert client.get("/admin/password_change/").headers["Location"] == "/password/"


def test_signing_out_there_signs_out_here(client: Client, administrator: User) -> None:
    client.force_login(administrator)
    client.post("/admin/logout/")
    assert client.get("/people/").status_code == 302


def test_it_wears_the_houses_colours_and_leads_back(client: Client, administrator: User) -> None:
    client.force_login(administrator)
    html = client.get("/admin/").content.decode()
    assert "admin-slipway" in html
    assert "Back to the portal" in html
    assert "Groups" not in html


def test_the_job_queue_is_there(client: Client, administrator: User) -> None:
    client.force_login(administrator)
    assert "/admin/django_rq/dashboard/" in client.get("/admin/").content.decode()
    assert resolve("/admin/django_rq/dashboard/").url_name == "django_rq_home"
