"""Services, clusters and the audit trail in the admin panel: seen by administrators, changed by none."""

import pytest
from django.urls import reverse

from deployments import jobs
from deployments.audit.models import AuditEntry
from deployments.clusters.models import Cluster, SigningKey, Sku
from deployments.services import changes, tokens
from deployments.services.models import Deployment, IssuedToken, Revision, Service

pytestmark = pytest.mark.usefixtures("ready_environments")


@pytest.fixture
def rows(administrator, request_for, monkeypatch) -> dict[type, object]:
    monkeypatch.setattr(changes, "enqueue_deployment", lambda pk: True)
    deployment = changes.deploy(administrator, request_for())
    jobs.run_deployment(deployment.pk)
    changes.update_access(administrator, deployment.service, token_auth_enabled=True)
    tokens.issue(administrator, deployment.service)
    return {kind: kind.objects.first() for kind in KINDS}


def url(kind: type, page: str, *args: object) -> str:
    return reverse(f"admin:deployments_{kind._meta.model_name}_{page}", args=args)


KINDS = [AuditEntry, Cluster, Sku, Service, Revision, Deployment, IssuedToken, SigningKey]


@pytest.mark.parametrize("kind", KINDS)
def test_an_administrator_finds_and_opens_every_row(client, administrator, rows, kind):
    client.force_login(administrator)
    assert client.get(url(kind, "changelist"), {"q": "a"}).status_code == 200
    page = client.get(url(kind, "change", rows[kind].pk))
    assert page.status_code == 200
    service = Service.objects.get()
    sealed = SigningKey.objects.get().private_key
    for secret in (service.primary_key, service.secondary_key, sealed, "PRIVATE"):
        assert secret not in page.content.decode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("person", ["viewer", "deployer"])
def test_nobody_else_gets_in(client, request, rows, kind, person):
    client.force_login(request.getfixturevalue(person))
    assert client.get(url(kind, "changelist")).status_code in (302, 403)


@pytest.mark.parametrize("kind", [AuditEntry, Revision, Deployment, IssuedToken, SigningKey])
def test_what_is_a_record_cannot_be_changed_or_removed(client, administrator, rows, kind):
    client.force_login(administrator)
    assert client.post(url(kind, "change", rows[kind].pk), {}).status_code == 403
    assert client.post(url(kind, "delete", rows[kind].pk), {"post": "yes"}).status_code == 403
    assert client.get(url(kind, "add")).status_code == 403


def test_services_are_removed_by_draining_them(client, administrator, rows):
    client.force_login(administrator)
    service = rows[Service]
    answer = client.post(
        url(Service, "changelist"), {"action": "remove", "_selected_action": [service.pk]}
    )
    assert answer.status_code == 302
    assert Service.objects.get().deleting is True
    assert AuditEntry.objects.filter(action="service.delete", actor=administrator).exists()


def test_checks_of_a_cluster_are_run_on_request(client, administrator, rows):
    client.force_login(administrator)
    client.post(
        url(Cluster, "changelist"),
        {"action": "run_checks", "_selected_action": [rows[Cluster].pk]},
    )
    assert Cluster.objects.get().checks[0]["status"] == "pass"


def test_tokens_are_revoked_from_their_list(client, administrator, rows):
    client.force_login(administrator)
    token = rows[IssuedToken]
    client.post(
        url(IssuedToken, "changelist"),
        {"action": "revoke_them", "_selected_action": [token.pk]},
    )
    token.refresh_from_db()
    assert token.revoked_at is not None
    assert AuditEntry.objects.get(action="service.tokens.revoke").actor == administrator
