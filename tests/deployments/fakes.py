"""A cluster in memory: what is applied is kept, replicas are what the test says they are."""

import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

from deployments.drivers.base import BlobSource, Driver, LogLine, LogPage
from deployments.errors import NotFound, Unavailable
from deployments.types import (
    Capacity,
    Check,
    CheckStatus,
    ClusterKind,
    NodeCapacity,
    Observation,
    ObservedService,
    ObservedVersion,
    Phase,
    Replica,
    ReplicaRoute,
    RevisionSpec,
    RouteReport,
    RouterSpec,
    RouteState,
    ServiceSpec,
)


class FakeDriver(Driver):
    kind: ClassVar[ClusterKind] = ClusterKind.PROCESS

    def __init__(self) -> None:
        self.specs: dict[str, ServiceSpec] = {}
        self.staged: list[tuple[str, int]] = []
        self.applied: list[tuple[str, int, int]] = []  # service, revision, generation
        self.replicas: list[Replica] = []
        self.output: dict[str, list[str]] = {}
        self.report: RouteReport | None = None
        self.router = RouterSpec()
        self.away = False
        self.nodes = (NodeCapacity("here", 4, 4, 16, 16),)

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("The cluster does not answer.", delay=0.01)

    def stage(self, revision: RevisionSpec, blobs: BlobSource) -> None:
        self._reach()
        for file in (revision.source, *(f for model in revision.models for f in model.files)):
            blobs.open(file.sha256).close()
        self.staged.append((revision.service, revision.number))

    def apply(self, spec: ServiceSpec) -> None:
        self._reach()
        standing = self.specs.get(spec.name)
        if standing is not None and standing.generation > spec.generation:
            return
        self.specs[spec.name] = spec
        self.applied.append((spec.name, spec.versions[0].revision.number, spec.generation))

    def remove(self, name: str) -> None:
        self._reach()
        self.specs.pop(name, None)

    def scale(
        self, service: str, version: str, replicas: int, prefer_removing: Sequence[str] = ()
    ) -> None:
        raise NotImplementedError

    def apply_router(self, spec: RouterSpec) -> None:
        self._reach()
        if self.router.generation <= spec.generation:
            self.router = spec

    def router_spec(self) -> RouterSpec:
        self._reach()
        return self.router

    def observe(self) -> Observation:
        self._reach()
        services = tuple(
            ObservedService(
                spec,
                tuple(ObservedVersion(v.name, v.scaling.minimum) for v in spec.versions),
                tuple(r for r in self.replicas if r.service == name),
            )
            for name, spec in self.specs.items()
        )
        orphans = tuple(r for r in self.replicas if r.service not in self.specs)
        now = time.time()
        return Observation(now, services, orphans, now)

    def publish_routes(self, report: RouteReport) -> None:
        self.report = report

    def routes(self) -> RouteReport | None:
        return self.report

    def logs(
        self, replica: str, *, cursor: str = "", limit: int = 1000, previous: bool = False
    ) -> LogPage:
        if replica not in self.output:
            raise NotFound(f"no {replica}")
        start = int(cursor or 0)
        texts = self.output[replica][start : start + limit]
        lines = tuple(LogLine(1.0, replica, "stdout", text) for text in texts)
        return LogPage(lines, str(start + len(texts)))

    def log_replicas(self, service: str) -> Sequence[str]:
        return list(self.output)

    def capacity(self) -> Capacity:
        return Capacity(1.0, self.nodes)

    def check(self) -> Iterator[Check]:
        yield Check("Folder is writable", CheckStatus.PASS, "yes")

    # What a test does to it

    def show(self, service: str, revision: int, phase: Phase = Phase.READY, **values) -> Replica:
        """One replica of this revision beside those that are there; a ready one is in rotation."""
        now = time.time()
        values.setdefault("version", "default")
        shown = Replica(
            id=f"{service}-r{revision}-{len(self.replicas)}",
            service=service,
            revision=revision,
            phase=phase,
            created_at=now,
            ready_at=now if phase is Phase.READY else None,
            **values,
        )
        self.replicas.append(shown)
        ready = [r.id for r in self.replicas if r.phase is Phase.READY]
        self.report = RouteReport(
            now + 5, tuple(ReplicaRoute(name, RouteState.IN_ROTATION, 0) for name in ready)
        )
        return shown

    def gone(self, revision: int) -> None:
        self.replicas = [r for r in self.replicas if r.revision != revision]
