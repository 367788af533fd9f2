"""The key pairs that tokens are signed with."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from django.utils import timezone

from deployments.audit.models import AuditEntry
from deployments.clusters import signing
from deployments.clusters.models import SigningKey
from deployments.errors import PermanentError
from deployments.services.models import IssuedToken


def token_of(key: SigningKey, expires_in: timedelta = timedelta(hours=1)) -> IssuedToken:
    now = timezone.now()
    return IssuedToken.objects.create(
        cluster=key.cluster,
        jti=f"{key.kid}-{IssuedToken.objects.count()}",
        kid=key.kid,
        subject="someone",
        issued_at=now,
        refresh_after=now,
        expires_at=now + expires_in,
    )


def test_the_first_need_makes_a_pair_and_the_next_one_finds_it(
    cluster, fake, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        made = signing.ensure(cluster)
    assert signing.ensure(cluster) == made
    assert [key.kid for key in fake.router.token_keys] == [made.kid]
    public = load_pem_public_key(made.public_pem.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"


def test_the_private_half_is_sealed_and_stays_here(
    cluster, fake, settings, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        made = signing.ensure(cluster)
    assert "PRIVATE" not in made.private_key
    pem = signing.private_pem(made)
    assert load_pem_private_key(pem.encode(), None).public_key() == load_pem_public_key(
        made.public_pem.encode()
    )
    assert "PRIVATE" not in repr(fake.router)
    said = [f"{row.before}{row.after}" for row in AuditEntry.objects.all()]
    assert not any("PRIVATE" in text or made.private_key in text for text in said)
    settings.SECRET_KEY = "another"
    with pytest.raises(PermanentError, match="rotate the cluster's signing key"):
        signing.private_pem(made)


def test_rotating_keeps_the_key_before_and_says_who_did_it(
    cluster, fake, administrator, django_capture_on_commit_callbacks
):
    first = signing.ensure(cluster)
    with django_capture_on_commit_callbacks(execute=True):
        second = signing.rotate(administrator, cluster)
    assert [key.kid for key in fake.router.token_keys] == [second.kid, first.kid]
    entry = AuditEntry.objects.get(action="cluster.signing_key.rotate")
    assert (entry.actor, entry.after) == (administrator, {"kids": [second.kid, first.kid]})


def test_an_older_third_key_is_dropped_and_its_tokens_are_revoked(
    cluster, fake, administrator, django_capture_on_commit_callbacks
):
    first = signing.ensure(cluster)
    oldest = token_of(first)
    second = signing.rotate(administrator, cluster)
    older = token_of(second)
    with django_capture_on_commit_callbacks(execute=True):
        third = signing.rotate(administrator, cluster)
    assert [key.kid for key in fake.router.token_keys] == [third.kid, second.kid]
    assert fake.router.revoked_tokens == (oldest.jti,)
    older.refresh_from_db()
    assert older.revoked_at is None
    assert not SigningKey.objects.filter(kid=first.kid).exists()


def test_a_fresh_pair_signs_once_its_router_had_time_to_take_it_up(cluster, administrator):
    first = signing.ensure(cluster)
    assert signing.signer(cluster, first.created_at) == first  # nothing else could
    second = signing.rotate(administrator, cluster)
    settled = second.created_at + signing.SETTLE
    assert signing.signer(cluster, settled - timedelta(microseconds=1)) == first
    assert signing.signer(cluster, settled) == second


def test_the_key_before_is_retired_once_its_last_token_is_gone(
    cluster, fake, administrator, django_capture_on_commit_callbacks
):
    first = signing.ensure(cluster)
    token = token_of(first)
    second = signing.rotate(administrator, cluster)
    later = timezone.now() + timedelta(minutes=10)
    assert signing.retire(later) == 0  # its token is valid
    assert signing.retire(timezone.now()) == 0
    IssuedToken.objects.filter(pk=token.pk).update(revoked_at=timezone.now())
    assert signing.retire(timezone.now()) == 0  # it may have signed a moment ago
    with django_capture_on_commit_callbacks(execute=True):
        assert signing.retire(later) == 1
    assert [key.kid for key in fake.router.token_keys] == [second.kid]
    assert signing.retire(later) == 0  # the one that signs stays, tokens or not
