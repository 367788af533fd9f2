"""The key pairs that a cluster's tokens are signed with (ES256 on P-256).

The newest pair signs, the one before it is accepted until its last token has expired; its router knows
the public halves of both. A private half is a Fernet text in its row and leaves the process never.

    ensure      makes the first pair, when a service's tokens are switched on
    rotate      makes the next one; an older third is dropped, and its tokens with it
    retire      drops the one before, once nothing that it signed is valid any more
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from django.db import transaction
from django.db.models import Count, Exists, Max, OuterRef
from django.utils import timezone

from deployments import sealed
from deployments.audit.record import record
from deployments.clusters.models import Cluster, SigningKey
from deployments.clusters.router_settings import ACCEPTED_KEYS, apply_router_on_commit
from deployments.services.models import IssuedToken
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

# A fresh pair signs only once its router had time to take it up: nobody's token comes too early.
SETTLE = timedelta(seconds=5)
_RETIRE_AFTER = timedelta(minutes=5)  # well after the former pair signed last


def ensure(cluster: Cluster) -> SigningKey:
    """The cluster's newest pair; made now where there is none."""
    newest = cluster.signing_keys.first()
    if newest is not None:
        return newest
    with transaction.atomic():
        locked = Cluster.objects.select_for_update().get(pk=cluster.pk)
        newest = locked.signing_keys.first()  # somebody else's, made while we waited
        if newest is None:
            newest = _make(locked)
            record(None, "cluster.signing_key", "cluster", locked.name, after={"kid": newest.kid})
        return newest


def signer(cluster: Cluster, now: datetime) -> SigningKey:
    """The pair that signs at this moment: the newest, but for its first seconds beside another."""
    newest = ensure(cluster)
    before = cluster.signing_keys.exclude(pk=newest.pk).first()
    if before is not None and now - newest.created_at < SETTLE:
        return before
    return newest


def rotate(actor: "AbstractBaseUser | None", cluster: Cluster) -> SigningKey:
    """Make the next pair. Tokens of the present one go on until they expire; those of the pair before
    it, should there be any still, are revoked."""
    with transaction.atomic():
        locked = Cluster.objects.select_for_update().get(pk=cluster.pk)
        before = list(locked.signing_keys.values_list("kid", flat=True))
        fresh = _make(locked)
        kept = list(locked.signing_keys.values_list("pk", flat=True)[:ACCEPTED_KEYS])
        dropped = locked.signing_keys.exclude(pk__in=kept)
        kids = list(dropped.values_list("kid", flat=True))
        # its tokens would be refused by the router as well; so the list of tokens says the same
        IssuedToken.objects.filter(cluster=locked, kid__in=kids, revoked_at=None).update(
            revoked_at=timezone.now()
        )
        dropped.delete()
        record(
            actor,
            "cluster.signing_key.rotate",
            "cluster",
            locked.name,
            before={"kids": before},
            after={"kids": [fresh.kid, *(kid for kid in before if kid not in kids)]},
        )
        announce("cluster", locked.name)
    return fresh


def retire(now: datetime) -> int:
    """Drop every pair that signs no more and whose tokens are all gone. Returns how many.

    A key that nobody needs is one that nobody can steal.
    """
    newer = SigningKey.objects.filter(
        cluster=OuterRef("cluster"), created_at__gt=OuterRef("created_at")
    ).filter(created_at__lt=now - _RETIRE_AFTER)
    alive = IssuedToken.objects.filter(
        cluster=OuterRef("cluster"),
        kid=OuterRef("kid"),
        revoked_at=None,
        expires_at__gt=now,
    )
    found = SigningKey.objects.filter(Exists(newer), ~Exists(alive)).select_related("cluster")
    count = 0
    for key in found:
        with transaction.atomic():
            key.delete()
            apply_router_on_commit(key.cluster_id)
            record(
                None,
                "cluster.signing_key.retire",
                "cluster",
                key.cluster.name,
                before={"kid": key.kid},
            )
            announce("cluster", key.cluster.name)
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class Standing:
    """How a pair stands: whether it signs, and what it signed that is still valid."""

    kid: str
    created_at: datetime
    signs: bool
    tokens: int
    last_expiry: datetime | None


def standings(cluster: Cluster, now: datetime) -> list[Standing]:
    """The cluster's pairs, newest first; empty where no service ever took tokens."""
    signed: dict[str, tuple[int, datetime]] = {
        row["kid"]: (row["count"], row["last"])
        for row in IssuedToken.objects.filter(
            cluster=cluster, revoked_at=None, expires_at__gt=now, service__isnull=False
        )
        .order_by()
        .values("kid")
        .annotate(count=Count("pk"), last=Max("expires_at"))
    }
    rows = list(cluster.signing_keys.only("kid", "created_at"))
    fresh = len(rows) > 1 and now - rows[0].created_at < SETTLE
    return [
        Standing(
            kid=row.kid,
            created_at=row.created_at,
            signs=index == (1 if fresh else 0),
            tokens=signed.get(row.kid, (0, None))[0],
            last_expiry=signed.get(row.kid, (0, None))[1],
        )
        for index, row in enumerate(rows)
    ]


def private_pem(key: SigningKey) -> str:
    """The private half (PKCS 8). Raises PermanentError when SECRET_KEY is another one now."""
    return sealed.unseal(
        key.private_key,
        sealed.SIGNING_KEYS,
        what=f"The key that {key.cluster.name}'s tokens are signed with",
        remedy="rotate the cluster's signing key",
    )


def _make(cluster: Cluster) -> SigningKey:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key()
    thumb = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    made = SigningKey.objects.create(
        cluster=cluster,
        kid=hashlib.sha256(thumb).hexdigest()[:16],
        public_pem=public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        private_key=sealed.seal(pem.decode(), sealed.SIGNING_KEYS),
    )
    apply_router_on_commit(cluster.pk)
    return made
