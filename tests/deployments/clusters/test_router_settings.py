"""A cluster's router settings: from rows into the cluster."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from deployments import sealed
from deployments.clusters import router_settings, signing
from deployments.clusters.models import Cluster
from deployments.codec import to_json
from deployments.controller import Controller
from deployments.errors import PermanentError
from deployments.services.models import IssuedToken
from deployments.types import CustomLines, RouterSpec, TlsSpec

CUSTOM = CustomLines(frontend=("http-response set-header x-site one",))


def revoked(cluster: Cluster, name: str, expires_in: timedelta) -> IssuedToken:
    now = timezone.now()
    return IssuedToken.objects.create(
        cluster=cluster,
        jti=name,
        kid="k",
        subject="someone",
        issued_at=now - timedelta(days=1),
        refresh_after=now,
        expires_at=now + expires_in,
        revoked_at=now,
    )


def test_a_cluster_nobody_touched_has_the_defaults(cluster):
    assert router_settings.router_spec(cluster) == RouterSpec()


def test_all_settings_travel_together_and_the_tls_key_is_opened(cluster):
    Cluster.objects.update(
        tls_cname="models.example.com",
        tls_chain="CHAIN",
        tls_key=sealed.seal("KEY", sealed.TLS_KEYS),
        tls_plain_http=True,
        custom_lines=to_json(CUSTOM),
        router_generation=7,
    )
    first, second = signing.ensure(cluster), signing.rotate(None, cluster)
    revoked(cluster, "b", timedelta(hours=1))
    revoked(cluster, "a", timedelta(hours=1))
    spec = router_settings.router_spec(Cluster.objects.get())
    assert spec.tls == TlsSpec("models.example.com", "CHAIN", "KEY", plain_http=True)
    assert spec.custom == CUSTOM
    assert [key.kid for key in spec.token_keys] == [second.kid, first.kid]
    assert spec.revoked_tokens == ("a", "b")
    assert spec.generation == 9


def test_an_expired_token_is_named_for_as_long_as_clocks_may_differ(cluster):
    margin, second = router_settings.CLOCKS_DIFFER, timedelta(seconds=30)
    revoked(cluster, "a", second - margin)
    revoked(cluster, "b", -second - margin)
    assert router_settings.router_spec(cluster).revoked_tokens == ("a",)


def test_another_secret_key_is_said_and_nothing_is_written(cluster, fake, settings):
    Cluster.objects.update(
        tls_chain="CHAIN", tls_key=sealed.seal("PRIVATE", sealed.TLS_KEYS), router_generation=1
    )
    settings.SECRET_KEY = "another"
    with pytest.raises(PermanentError, match="upload the certificate") as caught:
        router_settings.apply_router(cluster.pk)
    assert "PRIVATE" not in caught.value.message
    assert fake.router == RouterSpec()


def test_a_secret_opens_for_its_purpose_only():
    text = sealed.seal("KEY", sealed.TLS_KEYS)
    with pytest.raises(PermanentError):
        sealed.unseal(text, sealed.SIGNING_KEYS, what="It", remedy="go")


def test_a_change_counts_up_and_is_applied_when_it_holds(
    cluster, fake, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        Cluster.objects.update(custom_lines=to_json(CUSTOM))
        router_settings.apply_router_on_commit(cluster.pk)
        assert fake.router == RouterSpec()
    assert fake.router == RouterSpec(generation=1, custom=CUSTOM)


def test_a_cluster_that_was_away_is_told_by_the_controller(
    cluster, fake, django_capture_on_commit_callbacks
):
    controller = Controller()
    fake.away = True
    with django_capture_on_commit_callbacks(execute=True):
        router_settings.apply_router_on_commit(cluster.pk)
    controller.cycle()
    fake.away = False
    controller.cycle()
    assert fake.router.generation == 0  # whoever changed the row may be applying it right now
    controller.cycle()
    assert fake.router.generation == 1


def test_a_restored_database_takes_the_clusters_number(cluster, fake):
    fake.router = RouterSpec(generation=12, custom=CUSTOM)
    Controller().cycle()
    assert Cluster.objects.get().router_generation == 12
    assert fake.router.custom == CUSTOM


def test_a_router_that_cannot_be_set_up_stops_nothing_else(cluster, fake, settings, caplog):
    Cluster.objects.update(tls_chain="CHAIN", tls_key="broken", router_generation=1)
    controller = Controller()
    controller.cycle()
    controller.cycle()
    assert "its router is not set up" in caplog.text
    assert Cluster.objects.get().observed_at is not None


def test_a_cluster_that_is_gone_has_no_router(db):
    assert router_settings.apply_router(4711) is False
