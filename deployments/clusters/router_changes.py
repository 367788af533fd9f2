"""What administrators change of a cluster's router: certificate, plain port, own lines, cores.

Each function takes the actor first, is one transaction, leaves an audit row and announces; the router
follows through `router_settings`. The certificate's key goes into the row sealed, and comes out of it
for the cluster only: no page, log or audit row ever shows it.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from deployments import sealed
from deployments.audit.record import record
from deployments.clusters import custom, tls
from deployments.clusters.models import Cluster
from deployments.clusters.router_settings import apply_router_on_commit
from deployments.codec import from_json, to_json
from deployments.errors import InvalidInput, NotFound
from deployments.signals import announce
from deployments.types import CustomLines

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


def set_tls(
    actor: "AbstractBaseUser | None",
    cluster: Cluster,
    *,
    cname: str,
    chain: str,
    key: str,
    passphrase: str = "",
    plain_http: bool = False,
    now: datetime | None = None,
) -> Cluster:
    """Have the router show this certificate, in the place of the one it has if any.

    Raises InvalidInput (the first problem; `tls.problems` lists all).
    """
    cname = cname.strip().lower().rstrip(".")
    if found := tls.problems(chain, key, cname, now or timezone.now(), passphrase):
        raise found[0]
    kept_chain, kept_key = tls.normalised(chain, key, passphrase)
    facts = tls.certificate(kept_chain)
    values = {
        "tls_cname": cname,
        "tls_chain": kept_chain,
        "tls_key": sealed.seal(kept_key, sealed.TLS_KEYS),
        "tls_not_after": facts.not_after,
        "tls_plain_http": plain_http,
    }
    after = {
        "cname": cname,
        "fingerprint": facts.fingerprint,
        "not_after": facts.not_after.isoformat(),
        "plain_http": plain_http,
    }
    return _change(actor, cluster, "cluster.tls.set", lambda locked: (values, after))


def set_plain_http(actor: "AbstractBaseUser | None", cluster: Cluster, plain_http: bool) -> Cluster:
    """Whether the plain port goes on scoring beside TLS. Raises InvalidInput without TLS."""

    def change(locked: Cluster) -> tuple[dict[str, Any], dict[str, Any]] | None:
        if not locked.tls_chain:
            raise InvalidInput(
                f"{locked.name} has no certificate, so its plain port is the only one it has."
            )
        if locked.tls_plain_http == plain_http:
            return None
        return {"tls_plain_http": plain_http}, {"plain_http": plain_http}

    return _change(actor, cluster, "cluster.tls.plain_http", change)


def remove_tls(actor: "AbstractBaseUser | None", cluster: Cluster) -> Cluster:
    """Go back to plain HTTP; the certificate and its key are forgotten. Asking twice is no error."""

    def change(locked: Cluster) -> tuple[dict[str, Any], dict[str, Any]] | None:
        if not locked.tls_chain:
            return None
        values = {
            "tls_cname": "",
            "tls_chain": "",
            "tls_key": "",
            "tls_not_after": None,
            "tls_plain_http": False,
        }
        return values, {"cname": ""}

    return _change(actor, cluster, "cluster.tls.remove", change)


def custom_lines_of(cluster: Cluster) -> CustomLines:
    """The administrator's own lines; none where another version of the product wrote them."""
    try:
        return from_json(CustomLines, cluster.custom_lines)
    except ValueError:
        return CustomLines()


def set_custom_lines(
    actor: "AbstractBaseUser | None", cluster: Cluster, lines: CustomLines
) -> Cluster:
    """Take over lines that HAProxy agreed to. Raises InvalidInput for one that Slipway refuses.

    The router checks once more before it uses them, and goes on as it was when they are refused.
    """
    if found := custom.problems(lines):
        raise InvalidInput(str(found[0]), field=found[0].area)

    def change(locked: Cluster) -> tuple[dict[str, Any], dict[str, Any]] | None:
        if custom_lines_of(locked) == lines:
            return None
        value = to_json(lines)
        # lines may hold credentials of a log server: the audit says how many, not which
        return {"custom_lines": value}, {area: len(value[area]) for area in custom.AREAS}

    return _change(actor, cluster, "cluster.custom_lines", change)


MOST_CORES = 64


def set_cores(actor: "AbstractBaseUser | None", cluster: Cluster, cores: int | None) -> Cluster:
    """How many cores, and so threads, the router may use; None is all of its machine's.

    Raises InvalidInput.
    """
    if cores is not None and not 1 <= cores <= MOST_CORES:
        raise InvalidInput(f"Give the router 1 to {MOST_CORES} cores.", field="cores")

    def change(locked: Cluster) -> tuple[dict[str, Any], dict[str, Any]] | None:
        if locked.router_cores == cores:
            return None
        return {"router_cores": cores}, {"cores": cores}

    return _change(actor, cluster, "cluster.router_cores", change)


_Change = Callable[[Cluster], tuple[dict[str, Any], dict[str, Any]] | None]


def _change(
    actor: "AbstractBaseUser | None", cluster: Cluster, action: str, change: _Change
) -> Cluster:
    """Write what `change` says of the locked row; nothing where it says None."""
    with transaction.atomic():
        locked = Cluster.objects.select_for_update().filter(pk=cluster.pk).first()
        if locked is None:
            raise NotFound(f"{cluster.name} was detached meanwhile.")
        made = change(locked)
        if made is None:
            return locked
        values, after = made
        before = {"cname": locked.tls_cname} if "tls_cname" in values else None
        for name, value in values.items():
            setattr(locked, name, value)
        locked.save(update_fields=list(values))
        record(actor, action, "cluster", locked.name, before=before, after=after)
        apply_router_on_commit(locked.pk)
        announce("cluster", locked.name)
    return locked
