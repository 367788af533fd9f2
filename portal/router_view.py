"""A cluster's router as pages show it: its certificate, its own lines, how far it follows them.

Reads the row, and asks the router's admin API where it says so, for at most a second; a router that does
not answer is "unknown", never "fine".
"""

from dataclasses import dataclass
from datetime import datetime

from deployments.clusters import custom, tls
from deployments.clusters.models import Cluster
from deployments.clusters.router_changes import custom_lines_of
from deployments.errors import InvalidInput, Unavailable
from portal.router_doors import doors
from router import admin_client


@dataclass(frozen=True, slots=True)
class TlsView:
    """What a page says of a cluster's TLS. `tone` is empty, "warn" (30 days or less) or "bad"."""

    cluster: str
    cname: str
    not_after: datetime
    tone: str
    expiry: str
    plain_http: bool


@dataclass(frozen=True, slots=True)
class SetupView:
    """Whether HAProxy runs with the settings of the row.

    `state` is "applied", "applying", "refused" or "unknown"; `words` say why it is not the first.
    """

    state: str
    words: str = ""


def tls_view(cluster: Cluster, now: datetime) -> TlsView | None:
    """None without TLS."""
    if cluster.tls_not_after is None:
        return None
    return TlsView(
        cluster=cluster.name,
        cname=cluster.tls_cname,
        not_after=cluster.tls_not_after,
        tone=tls.expiry_tone(cluster.tls_not_after, now),
        expiry=tls.expiry(cluster.tls_not_after, now),
        plain_http=cluster.tls_plain_http,
    )


def certificate_of(cluster: Cluster) -> tls.Certificate | None:
    """What the chain on the row says; None without one."""
    try:
        return tls.certificate(cluster.tls_chain)
    except InvalidInput:
        return None


def line_counts(cluster: Cluster) -> int:
    """How many lines of HAProxy's configuration are an administrator's own; empty ones are none."""
    lines = custom_lines_of(cluster)
    return sum(bool(line.strip()) for area in custom.AREAS for line in getattr(lines, area))


def setup_view(cluster: Cluster) -> SetupView:
    """Asks the router, for at most a second."""
    try:
        status = admin_client.status_of_all([*doors(cluster).pods.values()])
    except Unavailable as error:
        return SetupView("unknown", error.message)
    return judged(status.generation, status.wanted, status.problem, cluster.router_generation)


def judged(generation: int, wanted: int, problem: str, row: int) -> SetupView:
    """What the three generations mean: HAProxy's, the cluster's copy's, and the row's."""
    if problem:
        return SetupView("refused", problem)
    if generation < wanted or wanted < row:
        return SetupView("applying", "The router follows within a few seconds.")
    return SetupView("applied")


def expiring(now: datetime) -> list[TlsView]:
    """The certificates that a person has to do something about, the nearest first. One query."""
    rows = Cluster.objects.filter(tls_not_after__lte=now + tls.SOON).order_by("tls_not_after")
    return [view for row in rows if (view := tls_view(row, now)) is not None]
