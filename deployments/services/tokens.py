"""Tokens of a service: JWTs (ES256) that its cluster's router lets in until they expire or are revoked.

    header  {"alg": "ES256", "typ": "JWT", "kid": <signing key>}
    claims  {"iss": "slipway", "aud": <service>, "sub": <who>, "jti", "iat", "exp"}

A token is made here, shown once and kept nowhere: its row has its id (jti), which is what a revocation
tells the router. Who asks for one is answered after the commit, so a token that a client holds always
has a row that can revoke it.
"""

import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import jwt
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from deployments.audit.record import record
from deployments.clusters import signing
from deployments.clusters.router_settings import CLOCKS_DIFFER, apply_router_on_commit
from deployments.errors import Conflict, InvalidInput, NotFound
from deployments.services.models import IssuedToken, Service
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

ISSUER = "slipway"
DEFAULT_LIFETIME = timedelta(hours=12)
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=30)
_REFRESH_AT = 0.8  # of its lifetime
# So that revoking all of them stays a small file and a moment's work for the router.
MOST_LIVE = 5000
# It travels in HAProxy's map and in the request log: nothing that could break a line there.
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh token. The only place that ever holds the whole of it; `repr` leaves it out."""

    token: str = field(repr=False)
    jti: str
    subject: str
    issued_at: datetime
    refresh_after: datetime
    expires_at: datetime


def issue(
    actor: "AbstractBaseUser | None",
    service: Service,
    *,
    lifetime: timedelta = DEFAULT_LIFETIME,
    subject: str = "",
    now: datetime | None = None,
) -> Issued:
    """Make a token that opens `service` for `lifetime`.

    `subject` names whoever will use it, the actor by default. Raises InvalidInput (with its field) or
    Conflict: tokens are switched off, the service is being deleted, or too many are valid.
    """
    if not SHORTEST <= lifetime <= LONGEST:
        raise InvalidInput(
            f"A token lives 1 minute to {LONGEST.days} days; {_words(lifetime)} is not in between.",
            field="lifetime",
        )
    subject = subject.strip() or default_subject(actor)
    if not _SUBJECT.fullmatch(subject):
        raise InvalidInput(
            "A subject takes 1 to 100 of A-Z, a-z, 0-9 and . _ @ + -, beginning with a letter or "
            "digit.",
            field="subject",
        )
    # whole seconds: that is all a JWT's times have room for
    at = (now or timezone.now()).replace(microsecond=0)
    with transaction.atomic():
        locked = (
            Service.objects.select_for_update(of=("self",))
            .select_related("cluster")
            .get(pk=service.pk)
        )
        _refuse_unless_open(locked, at)
        key = signing.signer(locked.cluster, at)
        expires = at + timedelta(seconds=round(lifetime.total_seconds()))
        jti = uuid.uuid4().hex
        claims = {
            "iss": ISSUER,
            "aud": locked.name,
            "sub": subject,
            "jti": jti,
            "iat": int(at.timestamp()),
            "exp": int(expires.timestamp()),
        }
        token = jwt.encode(
            claims, signing.private_pem(key), algorithm="ES256", headers={"kid": key.kid}
        )
        made = IssuedToken.objects.create(
            cluster=locked.cluster,
            service=locked,
            jti=jti,
            kid=key.kid,
            subject=subject,
            issued_at=at,
            refresh_after=at + (expires - at) * _REFRESH_AT,
            expires_at=expires,
            created_by_id=actor.pk if actor is not None else None,
        )
        record(
            actor,
            "service.tokens.issue",
            "service",
            locked.name,
            after={"jti": jti, "subject": subject, "expires_at": expires.isoformat()},
        )
        announce("service", locked.name)
    return Issued(token, jti, subject, at, made.refresh_after, expires)


def default_subject(actor: "AbstractBaseUser | None") -> str:
    """Who a token is for when nobody says: the person, under a name that a router's map can hold."""
    if actor is None:
        return ISSUER
    name = actor.get_username()
    return name if _SUBJECT.fullmatch(name) else f"user-{actor.pk}"


def _refuse_unless_open(service: Service, now: datetime) -> None:
    if service.deleting:
        raise Conflict(f"{service.name} is being deleted; it gets no more tokens.", code="Conflict")
    if not service.token_auth_enabled:
        raise Conflict(
            f"{service.name} takes no tokens. Switch them on under Access in its settings, or use "
            "one of its keys.",
            code="TokenAuthDisabled",
        )
    if live(service, now).count() >= MOST_LIVE:
        raise Conflict(
            f"{service.name} has {MOST_LIVE:,} valid tokens already. Use a token again until it "
            "expires, or revoke those that nobody needs.",
            code="TooManyTokens",
        )


def live(service: Service, now: datetime | None = None) -> QuerySet[IssuedToken]:
    """The tokens that open the service, newest first."""
    return IssuedToken.objects.filter(
        service=service, revoked_at=None, expires_at__gt=now or timezone.now()
    )


def revoke(actor: "AbstractBaseUser | None", service: Service, jti: str) -> IssuedToken:
    """Have a token refused from now on; the router follows within two seconds.

    Revoking twice is not an error. Raises NotFound.
    """
    with transaction.atomic():
        token = IssuedToken.objects.filter(service=service, jti=jti).first()
        if token is None:
            raise NotFound(f"{service.name} has no token {jti}; it may have expired.")
        if _revoke(IssuedToken.objects.filter(pk=token.pk)):
            record(
                actor,
                "service.tokens.revoke",
                "service",
                service.name,
                before={"jti": jti, "subject": token.subject},
            )
            _tell(service)
        token.refresh_from_db(fields=["revoked_at"])
    return token


def revoke_all(actor: "AbstractBaseUser | None", service: Service) -> int:
    """Have every valid token of a service refused from now on. Returns how many there were."""
    with transaction.atomic():
        count = _revoke(live(service))
        if count:
            record(
                actor,
                "service.tokens.revoke_all",
                "service",
                service.name,
                before={"tokens": count},
            )
            _tell(service)
    return count


def forget(service: Service) -> None:
    """Revoke what is valid of a service that goes; the rows stay until they expire."""
    if _revoke(live(service)):
        apply_router_on_commit(service.cluster_id)


def prune(now: datetime) -> int:
    """Forget tokens that expired. Returns how many rows went."""
    expired = IssuedToken.objects.filter(expires_at__lt=now - CLOCKS_DIFFER)
    named = set(expired.exclude(revoked_at=None).values_list("cluster_id", flat=True))
    with transaction.atomic():
        count, _ = expired.delete()
        for cluster_id in sorted(named):
            apply_router_on_commit(cluster_id)  # it need not name them any more
    return count


def _revoke(tokens: QuerySet[IssuedToken]) -> int:
    return tokens.filter(revoked_at=None).update(revoked_at=timezone.now())


def _tell(service: Service) -> None:
    apply_router_on_commit(service.cluster_id)
    announce("service", service.name)


def _words(lifetime: timedelta) -> str:
    seconds = lifetime.total_seconds()
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{seconds / 86400:g} days" if seconds >= 86400 else f"{seconds / 60:g} minutes"
