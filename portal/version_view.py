"""A service's versions as a page shows them: rows, replicas and figures put together. Reads rows only.

Unknown stays unknown: a version nobody has observed has no replica count, one that was not measured no
figures.
"""

from collections.abc import Iterable
from dataclasses import dataclass

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
    return found


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
