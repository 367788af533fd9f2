"""Runs of replicas that ended before the present one: which there are to look at, and what they said.

A run that crashed is looked for in what Slipway keeps first, as that is there while a cluster is away; what
was not copied (an attachment is new, the controller was down) is asked of the cluster, which knows the last
run of each pod that lives. What is read here grows no more. Blocking; changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from deployments.clusters.drivers import driver_for
from deployments.clusters.models import Cluster
from deployments.drivers.base import Driver
from deployments.errors import NotFound, SlipwayError
from deployments.pod_logs import Kept
from deployments.services.models import Service
from portal.log_merge import Line, shown
from portal.replicas import ReplicaView, replica_views

KIND = "previous"
MOST = 20  # offered at a time
_ASKED = "asked:"  # cursors of what the cluster was asked for: how many lines were shown


@dataclass(frozen=True, slots=True)
class Offered:
    """A replica whose run before can be looked at. `words` say how it ended, where that is known."""

    replica: str
    words: str = ""
    at: datetime | None = None
    restarts: int = 0
    gone: bool = False


@dataclass(frozen=True, slots=True)
class PreviousRun:
    """One of them as a log. A driver's cursor, or how far the cluster's own answer was shown."""

    key: str
    driver: Driver | Kept
    replica: str
    cluster: Cluster
    ended: float | None

    def read(self, cursor: str, limit: int) -> tuple[list[Line], str]:
        """Raises Unavailable where nothing is kept and the cluster cannot be asked."""
        if not cursor.startswith(_ASKED):
            lines, after = self._kept(cursor, limit)
            if lines or cursor or not isinstance(self.driver, Kept):
                return lines, after
        start = int(cursor.removeprefix(_ASKED) or 0)
        try:
            page = driver_for(self.cluster).logs(self.replica, limit=start + limit, previous=True)
        except NotFound:
            return [], f"{_ASKED}{start}"  # the pod is gone, and nothing of it is kept
        lines = shown(page)[start:]
        return lines, f"{_ASKED}{start + len(lines)}"

    def _kept(self, cursor: str, limit: int) -> tuple[list[Line], str]:
        more = {"ended": self.ended} if isinstance(self.driver, Kept) else {}
        try:
            page = self.driver.logs(self.replica, cursor=cursor, limit=limit, previous=True, **more)
        except NotFound:
            return [], cursor
        return shown(page), page.cursor


def log_of(service: Service, replica: str) -> PreviousRun:
    """The run before of a replica; also of one that is gone or never was, which said nothing."""
    seen = {view.replica.id: view for view in replica_views(service.replicas)}
    last = seen[replica].replica.last_exit if replica in seen else None
    return PreviousRun(
        f"{KIND}:{replica}",
        _logs_of(service.cluster),
        replica,
        service.cluster,
        last.at if last is not None else None,
    )


def offered(service: Service) -> list[Offered]:
    """Replicas of which a run has ended, the last one first, then pods that are gone; at most `MOST`."""
    views = [view for view in replica_views(service.replicas) if view.exit_at is not None]
    views.sort(key=_ended, reverse=True)
    found = [
        Offered(view.replica.id, view.exit_words, view.exit_at, view.replica.restarts)
        for view in views
    ]
    known = {item.replica for item in found} | {_id(row) for row in service.replicas}
    gone = [Offered(name, gone=True) for name in _started_again(service) if name not in known]
    return (found + gone)[:MOST]


def _ended(view: ReplicaView) -> float:
    return view.replica.last_exit.at if view.replica.last_exit is not None else 0.0


def _id(row: object) -> str:
    return str(row.get("id", "")) if isinstance(row, dict) else ""


def _started_again(service: Service) -> Sequence[str]:
    kept = _logs_of(service.cluster) if service.cluster.kind == Cluster.Kind.KUBERNETES else None
    try:
        return kept.started_again(service.name) if isinstance(kept, Kept) else ()
    except (OSError, SlipwayError):
        return ()


def _logs_of(cluster: Cluster) -> Driver | Kept:
    if cluster.kind == Cluster.Kind.KUBERNETES:
        return Kept(settings.HOME.pod_logs, cluster.name)
    return driver_for(cluster)
