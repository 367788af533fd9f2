"""How a version was set in a past range, for what-ifs. Only reads.

What served then is told by the deployments; how long replicas take to start by the ledger, which writes down
what the autoscaler had learnt. What nobody knows is said.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from deployments.services.config import DeploymentConfig
from deployments.services.models import Deployment, DeploymentState, Revision, Service
from deployments.services.specs import config_of
from router.telemetry.models import Decision
from router.telemetry.what_if import Settings

USUAL_START_SECONDS = 20.0  # where nobody knows
_ROWS_LOOKED_AT = 100


@dataclass(frozen=True, slots=True)
class AsSet:
    """`notes` are sentences for a person."""

    config: DeploymentConfig
    settings: Settings
    notes: tuple[str, ...]


def as_set(
    service: Service, version: str, ids: Sequence[int], since: float, until: float
) -> AsSet | None:
    """What was set as the range began; None when nothing of the version was ever deployed."""
    notes: list[str] = []
    revision = _revision(service, version, since, until, notes)
    if revision is None:
        return None
    config = config_of(revision)
    scaling = config.to_scaling()
    start = start_seconds(service, version, ids, until)
    if start is None:
        start = USUAL_START_SECONDS
        notes.append(f"How long a replica takes to start is not known: {start:.0f} s is assumed.")
    settings = Settings(
        minimum=scaling.minimum,
        maximum=scaling.maximum,
        target=scaling.target_utilization,
        concurrency=config.replica_max_concurrent_requests,
        start_seconds=round(start, 1),
        autoscale=scaling.autoscale,
        refresh_seconds=scaling.refresh_seconds,
    )
    return AsSet(config, settings, tuple(notes))


def _revision(
    service: Service, version: str, since: float, until: float, notes: list[str]
) -> Revision | None:
    own = service.versions.select_related("current").filter(name=version).first()
    names = [version, ""] if own is not None and own.is_default else [version]
    done = Deployment.objects.filter(
        service=service, version__in=names, state=DeploymentState.SUCCEEDED
    ).select_related("revision")
    begin, end = datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(until, UTC)
    before = done.filter(finished_at__lte=begin).order_by("-finished_at").first()
    inside = list(done.filter(finished_at__gt=begin, finished_at__lt=end).order_by("finished_at"))
    first = before or (inside[0] if inside else None)
    if len(inside) > (before is None):
        notes.append(
            f"{len(inside)} deployment{'' if len(inside) == 1 else 's'} ended in this range; the settings "
            "are those from before." if before is not None else
            f"{len(inside)} deployments ended in this range; the settings are those of the first."
        )  # fmt: skip
    if first is not None:
        return first.revision
    return own.current if own is not None else None


def start_seconds(service: Service, version: str, ids: Sequence[int], until: float) -> float | None:
    """From asking for a replica to its being ready, as learnt by then; None when nobody knows."""
    rows = Decision.objects.filter(series__in=list(ids), at__lt=until).order_by("-at")
    for inputs in rows.values_list("inputs", flat=True)[:_ROWS_LOOKED_AT]:
        learnt = inputs.get("start_seconds")
        if isinstance(learnt, int | float) and learnt > 0:
            return float(learnt)
    took = [
        replica["ready_at"] - replica["created_at"]
        for replica in service.replicas
        if replica.get("version") == version
        and replica.get("ready_at")
        and replica.get("created_at")
        and not replica.get("restarts")
        and replica["ready_at"] > replica["created_at"]
    ]
    return statistics.median(took) if took else None
