"""Signing keys on the cluster's page: anyone may look, an administrator rotates."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.audit.models import AuditEntry
from deployments.clusters import signing
from deployments.clusters.models import Cluster, Sku
from deployments.services import tokens
from deployments.services.models import Service
from portal.models import User


@pytest.fixture
def cluster(db: None) -> Cluster:
    sku, _ = Sku.objects.get_or_create(name="this machine", defaults={"family": "CPU"})
    return Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:27999")


@pytest.fixture
def service(cluster: Cluster) -> Service:
    return Service.objects.create(name="diabetes", cluster=cluster, token_auth_enabled=True)


def page(client: Client) -> str:
    return client.get(reverse("cluster-detail", args=["local"])).content.decode()


ROTATE = "cluster-signing-rotate"


def test_a_cluster_without_tokens_says_so(cluster: Cluster, viewer: User, client: Client) -> None:
    client.force_login(viewer)
    assert "None yet" in page(client)


def test_what_signs_and_what_is_still_valid_is_shown(
    service: Service, deployer: User, viewer: User, client: Client
) -> None:
    tokens.issue(deployer, service)
    [key] = signing.standings(service.cluster, timezone.now())
    client.force_login(viewer)
    text = page(client)
    assert key.kid in text
    assert "PRIVATE" not in text
    assert reverse(ROTATE, args=["local"]) not in text


def test_only_an_administrator_rotates(
    service: Service, deployer: User, administrator: User, client: Client
) -> None:
    first = signing.ensure(service.cluster)
    client.force_login(deployer)
    assert client.post(reverse(ROTATE, args=["local"])).status_code == 403
    assert service.cluster.signing_keys.count() == 1
    client.force_login(administrator)
    assert client.post(reverse(ROTATE, args=["local"])).status_code == 302
    assert service.cluster.signing_keys.count() == 2
    assert AuditEntry.objects.get(action="cluster.signing_key.rotate").actor == administrator
    assert first.kid in page(client)


def test_the_question_says_how_many_tokens_a_second_rotation_ends(
    service: Service, administrator: User, client: Client
) -> None:
    client.force_login(administrator)
    tokens.issue(administrator, service)
    assert "stops working now" not in page(client)
    signing.rotate(administrator, service.cluster)
    assert "1 valid token of the key before it stops working now" in page(client)


def test_the_fresh_key_is_said_to_sign_once_it_does(service: Service, administrator: User) -> None:
    signing.ensure(service.cluster)
    made = signing.rotate(administrator, service.cluster)
    just_now = made.created_at + signing.SETTLE - timedelta(milliseconds=1)
    later = made.created_at + signing.SETTLE
    signs = [
        [key.signs for key in signing.standings(service.cluster, at)] for at in (just_now, later)
    ]
    assert signs == [[False, True], [True, False]]
