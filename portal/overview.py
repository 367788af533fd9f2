"""What the first page shows, read in a fixed number of queries whatever the number of services.

Unknown stays unknown: a service nobody has observed has no replica count, a service nobody measured has
no figures, and what was seen too long ago is marked stale.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q

from deployments.clusters.models import Cluster
from deployments.registry.models import Model
from deployments.services.models import Deployment, Service
from deployments.types import Phase, ServiceState
from portal.cluster_view import cluster_state
from portal.replicas import is_stale, seen_at
from router.telemetry import queries

SPARK_SECONDS = 600
MOST_SERVICES = 50
MOST_DEPLOYMENTS = 8
_TROUBLE = (ServiceState.FAILED, ServiceState.UNHEALTHY, ServiceState.UNSCHEDULABLE)


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service with its replicas and figures. None is unknown."""

    service: Service
    state: str  # the state word to show; "deleting" while it goes
    ready: int | None
    desired: int | None
    starting: int
    crashed: int
    seen_at: datetime | None
    stale: bool
    figures: queries.Figures | None
    spark: list[float | None]

    @property
    def short(self) -> bool:
        """Fewer replicas serve than are wanted."""
        return self.ready is not None and self.desired is not None and self.ready < self.desired


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all services shown; None where not a single one is known."""

    services: int
    healthy: int
    trouble: int
    ready: int | None
    desired: int | None
    requests_per_second: float | None
    bad_percent: float | None


@dataclass(frozen=True, slots=True)
class Room:
    """One resource of a cluster: what is used of what there is."""

    label: str
    used: float
    total: float
    unit: str

    @property
    def percent(self) -> int:
        return round(100 * self.used / self.total) if self.total else 0

    @property
    def tone(self) -> str:
        return "bad" if self.percent >= 95 else "warn" if self.percent >= 80 else ""


@dataclass(frozen=True, slots=True)
class ClusterRow:
    cluster: Cluster
    state: str  # "connected", "stale" or "not seen yet"
    rooms: list[Room]  # empty: capacity unknown
    services: int
    failing: int  # connectivity checks that failed


def replica_counts(replicas: list[dict[str, Any]]) -> Counter[str]:
    """Replicas by phase."""
    return Counter(str(replica.get("phase", "")) for replica in replicas)


def service_rows(now: datetime) -> list[ServiceRow]:
    """All services, those in trouble first."""
    services = list(Service.objects.select_related("cluster", "current").order_by("name"))
    names = [service.name for service in services]
    figures = queries.latest(names, now.timestamp())
    sparks = queries.spark(names, SPARK_SECONDS, now.timestamp())
    rows = [
        _service_row(service, figures.get(service.name), sparks.get(service.name, []), now)
        for service in services
    ]
    return sorted(rows, key=lambda row: (row.state not in _TROUBLE, row.service.name))


def _service_row(
    service: Service, figures: queries.Figures | None, spark: list[float | None], now: datetime
) -> ServiceRow:
    seen = service.observed_at is not None
    counts = replica_counts(service.replicas if seen else [])
    waking = (Phase.SCHEDULING, Phase.PULLING, Phase.STARTING, Phase.LOADING)
    return ServiceRow(
        service=service,
        state="deleting" if service.deleting else service.state,
        ready=counts[Phase.READY] if seen else None,
        desired=service.desired_replicas,
        starting=sum(counts[phase] for phase in waking),
        crashed=counts[Phase.CRASHED],
        seen_at=seen_at(service),
        stale=is_stale(seen_at(service), now),
        figures=figures,
        spark=spark,
    )


def totals(rows: list[ServiceRow]) -> Totals:
    """What all services do together."""
    ready = [row.ready for row in rows if row.ready is not None]
    desired = [row.desired for row in rows if row.desired is not None]
    measured = [row.figures for row in rows if row.figures is not None]
    requests = sum(figures.requests_per_second for figures in measured)
    bad = sum(figures.requests_per_second * figures.bad_percent / 100 for figures in measured)
    return Totals(
        services=len(rows),
        healthy=sum(row.state == ServiceState.HEALTHY for row in rows),
        trouble=sum(row.state in _TROUBLE for row in rows),
        ready=sum(ready) if ready else None,
        desired=sum(desired) if desired else None,
        requests_per_second=requests if measured else None,
        bad_percent=100 * bad / requests if requests else (0.0 if measured else None),
    )


def cluster_rows(now: datetime, services: list[Service] | None = None) -> list[ClusterRow]:
    """All clusters with their room."""
    clusters = Cluster.objects.select_related("sku").prefetch_related("services")
    return [
        ClusterRow(
            cluster=cluster,
            state=cluster_state(cluster, now),
            rooms=rooms(cluster.capacity),
            services=len(cluster.services.all()),
            failing=sum(check.get("status") == "fail" for check in cluster.checks or []),
        )
        for cluster in clusters
    ]


def rooms(capacity: dict[str, Any] | None) -> list[Room]:
    """CPU, memory and accelerators of all nodes together; empty when capacity is unknown."""
    nodes = (capacity or {}).get("nodes") or []
    found = []
    for label, key, unit in (
        ("CPU", "cpu", "cores"),
        ("Memory", "memory_gb", "GiB"),
        ("GPU", "gpu", ""),
    ):
        total = sum(float(node.get(f"{key}_total") or 0) for node in nodes)
        free = sum(float(node.get(f"{key}_free") or 0) for node in nodes)
        if total:
            found.append(Room(label, max(total - free, 0.0), total, unit))
    return found


def recent_deployments() -> list[Deployment]:
    """The newest deployments with their steps."""
    return list(
        Deployment.objects.select_related("service", "revision", "created_by")
        .prefetch_related("steps")
        .order_by("-created_at")[:MOST_DEPLOYMENTS]
    )


@dataclass(frozen=True, slots=True)
class FirstStep:
    title: str
    text: str
    url_name: str
    action: str
    done: bool
    role: str  # who may do it


def first_steps() -> list[FirstStep]:
    """What is left to do before the first answer; empty when a service has been deployed."""
    if Service.objects.exists():
        return []
    return [
        FirstStep(
            "Attach a cluster",
            "Where services run: this machine is one, without any setup.",
            "cluster-attach",
            "Attach",
            Cluster.objects.exists(),
            "administrator",
        ),
        FirstStep(
            "Register a model",
            "Files under a name. Versions count up and never change.",
            "model-register",
            "Register",
            Model.objects.filter(Q(versions__isnull=False)).exists(),
            "deployer",
        ),
        FirstStep(
            "Deploy it as a service",
            "A scoring URI with keys, replicas that follow the load, and figures from the first request on.",
            "service-deploy",
            "Deploy",
            False,
            "deployer",
        ),
    ]
