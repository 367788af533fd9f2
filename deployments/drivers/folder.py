"""What the drivers of clusters that are a folder of this machine share: an agent reads what they write.

The folder (`Home.cluster(name)`) is the cluster's source of truth. Each file has one writer:

    services/<service>.json         driver   ServiceSpec
    scale/<service>.json            driver   {"versions": {name: {"desired": n, "prefer_removing": []}}}
    router.json                     driver   RouterSpec (holds the TLS key: mode 600)
    routes.json                     router   RouteReport, through `publish_routes`
    revisions/<service>-r<N>-<key>/ driver   app/  models/<name>/<version>/
    replicas/<id>/replica.json      agent    {"replica": Replica, "resources": Resources, "agent": ...}
                 /revision.json     agent    the RevisionSpec it is started from
                 /listen.sock       agent    where it takes requests
                 /health.sock       agent    where its gate answers GET /
                 /log/              agent    output, see `process_logs`
    gone/<id>/                      agent    replica.json and log/ of stopped replicas
    agent.json                      agent    heartbeat, what it can enforce
    wanted.lock  agent.lock         held while wanted files change; held while an agent lives

`services` and `scale` are apart so that applying a new revision never undoes the autoscaler's count:
the wanted count of a version is the one in `scale`, or its minimum, brought into its limits.
What runs is the agent's affair (`deployments.agent`); nothing here starts or stops anything.
"""

import operator
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.codec import from_json, to_json
from deployments.drivers import process_checks, process_logs, process_stage
from deployments.drivers.base import BlobSource, Driver, LogPage
from deployments.drivers.process_layout import (
    Cached,
    ClusterFolder,
    locked,
    read_json,
    sync_folder,
    write_json,
)
from deployments.drivers.process_records import Records
from deployments.errors import InvalidInput, NotFound, TemporaryError, Unavailable
from deployments.types import (
    Observation,
    ObservedService,
    ObservedVersion,
    Replica,
    Resources,
    RevisionSpec,
    RouteReport,
    RouterSpec,
    Scaling,
    ServiceSpec,
)

_NO_SETTINGS = RouterSpec()
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class VersionScale:
    """What the router asked for: a count, and whom to let go first."""

    desired: int
    prefer_removing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceScale:
    versions: dict[str, VersionScale]


@dataclass(frozen=True, slots=True)
class StoredReplica:
    """The part of `replica.json` that is not the agent's own."""

    replica: Replica
    resources: Resources


def wanted(scaling: Scaling, scale: VersionScale | None) -> int:
    """A version's wanted count: what was asked for, else the minimum, brought into the limits."""
    if scale is None or not scaling.autoscale:
        return scaling.minimum
    return min(max(scale.desired, scaling.minimum), scaling.maximum)


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is not the name of a {what}.")
    return name


class FolderDriver(Driver):
    """One cluster's folder. Cheap to make; keeps only parsed files that have not changed since."""

    def __init__(self, root: Path | str) -> None:
        self.folder = ClusterFolder(Path(root))
        self._spec: Cached[ServiceSpec] = Cached()
        self._specs = Records(self.folder.services, _service_spec)
        self._scales = Records(self.folder.scales, _service_scale)
        self._stored = Records(self.folder.replicas, _stored_replica, "replica.json")
        self._replicas: Cached[StoredReplica] = Cached()
        self._seen: _Seen | None = None
        self._routes: Cached[RouteReport] = Cached()
        self._router: Cached[RouterSpec] = Cached()

    # What should run

    def stage(self, revision: RevisionSpec, blobs: BlobSource) -> None:
        _checked(revision.service, "service")
        process_stage.stage(self.folder, revision, blobs)

    def apply(self, spec: ServiceSpec) -> None:
        path = self.folder.service(_checked(spec.name, "service"))
        with self._writing(f"Service {spec.name} could not be written"):
            try:
                standing = from_json(ServiceSpec, read_json(path))
            except FileNotFoundError:
                standing = None
            if standing == spec:
                return
            if standing is not None and standing.generation > spec.generation:
                return  # a job that was held up must not undo a later one
            write_json(path, to_json(spec))

    def remove(self, name: str) -> None:
        _checked(name, "service")
        with self._writing(f"Service {name} could not be removed"):
            self.folder.scale(name).unlink(missing_ok=True)
            self.folder.service(name).unlink(missing_ok=True)
            sync_folder(self.folder.services)

    def scale(
        self, service: str, version: str, replicas: int, prefer_removing: Sequence[str] = ()
    ) -> None:
        path = self.folder.scale(_checked(service, "service"))
        with self._writing(f"The replica count of {service} could not be written"):
            try:
                spec = self._spec.get(self.folder.service(service), _service_spec)
            except FileNotFoundError as error:
                raise NotFound(f"There is no service {service} on this cluster.") from error
            known = {item.name for item in spec.versions}
            if version not in known:
                raise NotFound(f"Service {service} has no version {version}.")
            try:
                versions = dict(from_json(ServiceScale, read_json(path)).versions)
            except FileNotFoundError:
                versions = {}
            asked = VersionScale(replicas, tuple(prefer_removing))
            if versions.get(version) == asked:
                return
            versions[version] = asked
            kept = {name: item for name, item in versions.items() if name in known}
            # Not synced: the autoscaler decides anew each second, and its tick must stay short.
            write_json(path, to_json(ServiceScale(kept)), sync=False)

    def apply_router(self, spec: RouterSpec) -> None:
        with self._writing("The router's settings could not be written"):
            standing = self.router_spec()
            if standing == spec or standing.generation > spec.generation:
                return
            write_json(self.folder.router, to_json(spec))

    def router_spec(self) -> RouterSpec:
        try:
            return self._router.get(self.folder.router, _router_spec)
        except FileNotFoundError:
            return _NO_SETTINGS
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.folder.router} cannot be read: {error}.") from error

    def publish_routes(self, report: RouteReport) -> None:
        # by hand: a large cluster's router says this of ten thousand replicas
        routes = [
            {"replica": item.replica, "state": item.state.value, "busy": item.busy}
            for item in report.routes
        ]
        try:
            write_json(self.folder.routes, {"at": report.at, "routes": routes}, sync=False)
        except OSError as error:
            raise Unavailable(f"{self.folder.routes} cannot be written: {error}.") from error

    def routes(self) -> RouteReport | None:
        try:
            return self._routes.get(self.folder.routes, _route_report)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.folder.routes} cannot be read: {error}.") from error

    def _writing(self, what: str) -> "_Writing":
        return _Writing(self.folder, what)

    # What runs

    def observe(self) -> Observation:
        at = time.time()
        try:
            specs = self.specs()
            scales = self.scales()
            stored = self.stored_replicas()
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"The cluster in {self.folder.root} cannot be read: {error}. "
                "Look at that file's rights and content.",
                evidence=str(error),
            ) from error
        seen = self._seen
        if seen is None or not seen.still(specs, scales, stored):
            seen = self._seen = _seen(specs, scales, stored, seen)
        return Observation(at, seen.services, seen.orphans, process_checks.heartbeat(self.folder))

    def stamp(self) -> object:
        return tuple(records.moved() for records in (self._specs, self._scales, self._stored))

    def specs(self) -> dict[str, ServiceSpec]:
        """All services by name. Raises OSError, ValueError."""
        return self._specs.read()

    def scales(self) -> dict[str, ServiceScale]:
        """What was asked for by service. Raises OSError, ValueError."""
        return self._scales.read()

    def stored_replicas(self) -> dict[str, StoredReplica]:
        """All replicas that are not gone, by id. Raises OSError, ValueError."""
        return self._stored.read()

    # What was said

    def logs(
        self, replica: str, *, cursor: str = "", limit: int = 1000, previous: bool = False
    ) -> LogPage:
        _checked(replica, "replica")
        for parent in (self.folder.replicas, self.folder.gone):
            folder = parent / replica
            if folder.is_dir():
                try:
                    return process_logs.read(
                        folder / "log",
                        replica,
                        cursor=cursor,
                        limit=limit,
                        previous=previous,
                        ended=_ended_at(folder) if previous else None,
                    )
                except FileNotFoundError:
                    continue  # it was moved from replicas/ to gone/ meanwhile
                except (OSError, ValueError) as error:
                    raise Unavailable(f"The log of {replica} cannot be read: {error}.") from error
        raise NotFound(f"Nothing is kept of a replica {replica}.")

    def log_replicas(self, service: str) -> Sequence[str]:
        found = []
        paths = set()
        try:
            for parent in (self.folder.gone, self.folder.replicas):
                for name in _names(parent):
                    path = parent / name / "replica.json"
                    paths.add(path)
                    try:
                        replica = self._replicas.get(path, _stored_replica).replica
                    except FileNotFoundError:
                        continue
                    if replica.service == service:
                        found.append((replica.created_at, replica.id))
        except (OSError, ValueError) as error:
            raise Unavailable(f"Logs in {self.folder.root} cannot be read: {error}.") from error
        self._replicas.forget_all_but(paths)
        return [name for _, name in sorted(set(found))]

    def asked(self) -> list[Resources]:
        """What all replicas ask for. Raises Unavailable."""
        try:
            return [item.resources for item in self.stored_replicas().values()]
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"The cluster in {self.folder.root} cannot be read: {error}."
            ) from error


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was put together from what was read: a service that did not change is the same object."""

    specs: dict[str, ServiceSpec]
    scales: dict[str, ServiceScale]
    stored: dict[str, StoredReplica]
    services: tuple[ObservedService, ...]
    orphans: tuple[Replica, ...]

    def still(self, specs: Any, scales: Any, stored: Any) -> bool:
        return self.specs is specs and self.scales is scales and self.stored is stored


def _seen(
    specs: dict[str, ServiceSpec],
    scales: dict[str, ServiceScale],
    stored: dict[str, StoredReplica],
    before: _Seen | None,
) -> _Seen:
    by_service: dict[str, list[Replica]] = {}
    for item in stored.values():
        by_service.setdefault(item.replica.service, []).append(item.replica)
    known = {} if before is None else {item.spec.name: item for item in before.services}
    services = []
    for name, spec in specs.items():
        replicas = tuple(sorted(by_service.pop(name, ()), key=_oldest_first))
        desired = tuple(
            ObservedVersion(item.name, wanted(item.scaling, _of(scales, name, item.name)))
            for item in spec.versions
        )
        old = known.get(name)
        if (
            old is not None
            and old.spec is spec
            and old.desired == desired
            and len(old.replicas) == len(replicas)
            and all(map(operator.is_, old.replicas, replicas))
        ):
            services.append(old)
        else:
            services.append(ObservedService(spec, desired, replicas))
    orphans = [replica for rest in by_service.values() for replica in rest]
    return _Seen(specs, scales, stored, tuple(services), tuple(sorted(orphans, key=_oldest_first)))


def _oldest_first(replica: Replica) -> tuple[float, str]:
    return replica.created_at, replica.id


class _Writing:
    """The cluster's folders, and its lock for as long as wanted files are changed."""

    def __init__(self, folder: ClusterFolder, what: str) -> None:
        self._folder, self._what = folder, what

    def __enter__(self) -> None:
        try:
            self._folder.ensure()
            self._lock = locked(self._folder.wanted_lock)
            self._lock.__enter__()
        except OSError as error:
            raise self._unavailable(error) from error

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._lock.__exit__(None, None, None)
        if isinstance(error, (OSError, ValueError)):
            raise self._unavailable(error) from error

    def _unavailable(self, error: BaseException) -> TemporaryError:
        return Unavailable(f"{self._what}: {error}.", evidence=str(error))


def _names(folder: Path) -> list[str]:
    """Names in a folder without those that are being made; none when the cluster is new."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return []


def _of(scales: dict[str, ServiceScale], service: str, version: str) -> VersionScale | None:
    scale = scales.get(service)
    return None if scale is None else scale.versions.get(version)


def _route_report(data: Any) -> RouteReport:
    return from_json(RouteReport, data)


def _router_spec(data: Any) -> RouterSpec:
    return from_json(RouterSpec, data)


def _service_spec(data: Any) -> ServiceSpec:
    return from_json(ServiceSpec, data)


def _service_scale(data: Any) -> ServiceScale:
    return from_json(ServiceScale, data)


def _ended_at(folder: Path) -> float | None:
    """When the last run of a replica that ended did, as its agent wrote it down."""
    last = _stored_replica(read_json(folder / "replica.json")).replica.last_exit
    return last.at if last is not None else None


def _stored_replica(data: Any) -> StoredReplica:
    return from_json(StoredReplica, data)
