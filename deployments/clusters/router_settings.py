"""What a cluster's router is set up with: from the rows into the cluster.

TLS, custom lines, the keys that tokens are signed with, the tokens that were revoked and what the router's
own size goes by travel together as one `RouterSpec`. The row's `router_generation` is the truth: what fails
here is seen by the controller, which finds the cluster's copy older than the row and applies it again.

To change any of it: write the rows and call `apply_router_on_commit`, in one transaction.
"""

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from deployments import sealed
from deployments.clusters.drivers import driver_for
from deployments.clusters.models import Cluster
from deployments.codec import from_json
from deployments.drivers.base import Driver
from deployments.errors import SlipwayError
from deployments.services.models import IssuedToken
from deployments.types import CustomLines, Purpose, RouterSpec, TlsSpec, TokenKey

log = logging.getLogger(__name__)

ACCEPTED_KEYS = 2  # the signing key that signs, and the one before it
# A cluster's clock may be behind ours: a revoked token is named for this long after it expired.
CLOCKS_DIFFER = timedelta(minutes=10)


def router_spec(cluster: Cluster, now: datetime | None = None) -> RouterSpec:
    """The cluster's router as its rows say, secrets decrypted.

    Raises PermanentError when the TLS key cannot be decrypted.
    """
    expired = (now or timezone.now()) - CLOCKS_DIFFER
    revoked = (
        IssuedToken.objects.filter(
            cluster=cluster, revoked_at__isnull=False, expires_at__gt=expired
        )
        .order_by("jti")
        .values_list("jti", flat=True)
    )
    return RouterSpec(
        generation=cluster.router_generation,
        tls=_tls(cluster),
        custom=from_json(CustomLines, cluster.custom_lines),
        token_keys=tuple(
            TokenKey(key.kid, key.public_pem)
            for key in cluster.signing_keys.only("kid", "public_pem")[:ACCEPTED_KEYS]
        ),
        revoked_tokens=tuple(revoked),
        purpose=Purpose(cluster.purpose),
        cores=cluster.router_cores or 0,
    )


def _tls(cluster: Cluster) -> TlsSpec | None:
    if not cluster.tls_chain:
        return None
    return TlsSpec(
        cname=cluster.tls_cname,
        chain=cluster.tls_chain,
        key=sealed.unseal(
            cluster.tls_key,
            sealed.TLS_KEYS,
            what=f"The TLS key of {cluster.name}",
            remedy="upload the certificate and its key again",
        ),
        plain_http=cluster.tls_plain_http,
    )


def bump(cluster_id: int) -> None:
    """Count the router's settings up: to be called in the transaction that changes any of them."""
    Cluster.objects.filter(pk=cluster_id).update(router_generation=F("router_generation") + 1)


def apply_router(cluster_id: int) -> bool:
    """Write the rows' settings into the cluster. False when it is gone, or on its way.

    Raises Unavailable when the cluster cannot be reached.
    """
    # The generation is read first: what changes while the rest is read is then written under a number
    # that is too low, and written again by whoever changed it.
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    if cluster is None or cluster.state == Cluster.State.DETACHING:
        return False
    driver_for(cluster).apply_router(router_spec(cluster))
    return True


def apply_router_on_commit(cluster_id: int) -> None:
    """`bump` now, `apply_router` once the transaction holds; a failure is left to the controller."""
    bump(cluster_id)

    def act() -> None:
        try:
            apply_router(cluster_id)
        except SlipwayError as error:
            log.warning("the router of cluster %s is set up later: %s", cluster_id, error.message)

    transaction.on_commit(act, robust=True)


def repair_drift(cluster: Cluster, driver: Driver, seen_before: bool) -> bool:
    """Put right what the cluster and the row disagree on. Returns whether it has to be looked at again.

    A copy that is older than the row is applied anew when it was older the last time too
    (`seen_before`): the row may have been changed just now, and is applied by whoever changed it. A
    newer copy means a restored database: the row takes its number, so that what people change next
    counts as newer than what runs.
    """
    seen = driver.router_spec().generation
    if seen > cluster.router_generation:
        Cluster.objects.filter(pk=cluster.pk, router_generation=cluster.router_generation).update(
            router_generation=seen
        )
        return False
    if seen == cluster.router_generation:
        return False
    if not seen_before:
        return True
    log.info(
        "cluster %s: its router has generation %s, the row %s; applied again",
        cluster.name,
        seen,
        cluster.router_generation,
    )
    apply_router(cluster.pk)
    return False
