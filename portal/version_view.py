"""A service's versions as a page shows them: rows, replicas and figures put together. Reads rows only.

Unknown stays unknown: a version nobody has observed has no replica count, one that was not measured no
figures.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from deployments.services import versions
from deployments.services.models import Deployment, Revision, Service, ServiceVersion
from portal.replicas import counts
from router.telemetry.queries import Figures, latest_of_versions

_LAST = 60  # seconds of figures


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version. `share` is the percent of the requests it gets now, `given` the one it was given."""

    row: ServiceVersion
    share: int
    control: bool
    revision: Revision | None
    ready: int | None  # None: never observed
    desired: int | None
    starting: int
    crashed: int
    draining: int
    figures: Figures | None
    deployment: Deployment | None  # its latest
    caution: str = ""  # before all requests go to it

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def given(self) -> int:
        return self.row.traffic_percent

    @property
    def deploying(self) -> bool:
        return self.deployment is not None and not self.deployment.finished

    @property
    def failed(self) -> bool:
        """Its latest deployment failed."""
        return self.deployment is not None and self.deployment.state == "failed"

    @property
    def may_have_traffic(self) -> bool:
        return self.row.proven and self.revision is not None


def views(service: Service, now: float) -> list[VersionView]:
    """The versions of a service, the default one first; a fixed number of queries."""
    rows = versions.rows_of(service)
    shares = versions.shares(rows)
    control = versions.control_of(rows)
    figures = latest_of_versions(service.name, now, _LAST)
    latest = _latest_deployments(service)
    seen = service.observed_at is not None
    found = []
    for row in rows:
        own = [
            replica
            for replica in service.replicas
            if isinstance(replica, dict) and replica.get("version") == row.name
        ]
        count = counts(own)
        found.append(
            VersionView(
                row=row,
                share=shares[row.name],
                control=row.name == control,
                revision=row.current,
                ready=count["ready"] if seen else None,
                desired=row.desired_replicas,
                starting=count["starting"],
                crashed=count["crashed"],
                draining=count["draining"],
                figures=figures.get(row.name),
                deployment=latest.get(row.name),
            )
        )
    return [replace(view, caution=caution(view, found)) for view in found]


def caution(view: VersionView, every: Iterable[VersionView]) -> str:
    """What to know before all requests go to this version at once; "" for nothing."""
    if view.ready is None:
        return ""
    if not view.ready:
        return "No replica of it is ready now: requests would get 503."
    serving = sum(other.ready or 0 for other in every if other.share)
    if serving <= view.ready:
        return ""
    has = "1 replica is" if view.ready == 1 else f"{view.ready} replicas are"
    return (
        f"{has} ready in it, and {serving} serve these requests now: until it has scaled up, some may "
        "get 503. Raising its share in steps avoids that."
    )


def _latest_deployments(service: Service) -> dict[str, Deployment]:
    """The newest deployment of each version; one query."""
    rows: Iterable[Deployment] = (
        service.deployments.select_related("revision")
        .defer("evidence", "log_cursors")
        .order_by("-pk")[:100]
    )
    found: dict[str, Deployment] = {}
    for row in rows:
        found.setdefault(row.version_name, row)
    return found


def going_back(rows: Iterable[ServiceVersion]) -> str:
    """What undoing the last promotion brings back, in words; "" where there is nothing to undo."""
    known = {row.name: row for row in rows}
    name = versions.can_undo(known.values())
    if not name:
        return ""
    before = next(row.before_promotion for row in known.values() if row.is_default) or {}
    shares = {
        other: int(percent)
        for other, percent in before.get("shares", {}).items()
        if percent and other in known and other != name
    }
    rest = 100 - sum(shares.values())
    return ", ".join(f"{other} {percent} %" for other, percent in ({name: rest} | shares).items())
