"""From the name of a log to its lines: what a viewer, a download and a poll all read.

    deployment:<id>      one deployment's log
    environment:<hash>   one environment's build log
    local:<id>           one local run's log (its owner's and administrators': `local_runs.may_read_log`)
    service:<name>       the latest deployment's log and all replicas, merged by time
    previous:<service>:<replica>   what a replica said before it was last started again (`previous_runs`)

A cursor is opaque text that says how far each log has been read. Reading on from it leaves nothing out
and repeats nothing: also across a reconnect, a change from websocket to polling, and a replica that
appears later. Blocking: callers on the event loop use a thread. Reads rows, files and drivers; changes
nothing.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from deployments import logstore
from deployments.clusters.drivers import driver_for
from deployments.clusters.models import Cluster
from deployments.drivers.base import Driver
from deployments.environments.models import Environment, EnvironmentBuild
from deployments.errors import InvalidInput, NotFound
from deployments.localruns.models import LocalRun
from deployments.pod_logs import Kept
from deployments.services.models import Deployment, Service
from portal import previous_runs
from portal.log_merge import Line, Part, merge, plain, shown
from portal.previous_runs import PreviousRun
from portal.replicas import replica_views

PAGE = 2000  # lines of a page, at most
_FEWEST = 100  # lines read of one log at a time, at least
_LONGEST_CURSOR = 64 * 1024
# A log that is not listed for a moment (it is being moved) must not begin anew when it is back, so its
# place is kept; with this many, those of logs that are gone are forgotten.
_MOST_POSITIONS = 300
_HASH = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Page:
    """Lines in order, the cursor after them, whether that is the end for now, and whether it is for ever."""

    lines: list[Line]
    cursor: str
    at_end: bool
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _File:
    """A log in Slipway's own folder; its cursor is a byte offset. Lines of `without` are left out."""

    key: str
    path: Path
    without: frozenset[str] = frozenset()

    def read(self, cursor: str, limit: int) -> tuple[list[Line], str]:
        offset = int(cursor) if cursor.isdecimal() else 0
        lines: list[Line] = []
        while len(lines) < limit:
            entries, offset = logstore.read(self.path, offset, limit - len(lines))
            if not entries:
                break
            lines += [
                Line(e.at, e.source, "", plain(e.text))
                for e in entries
                if e.source not in self.without
            ]
        return lines, str(offset)


@dataclass(frozen=True, slots=True)
class _Replica:
    """A replica's output; its cursor is the driver's."""

    key: str
    driver: Driver | Kept
    replica: str

    def read(self, cursor: str, limit: int) -> tuple[list[Line], str]:
        try:
            page = self.driver.logs(self.replica, cursor=cursor, limit=limit)
        except NotFound:
            return [], cursor  # its output was cleaned up a moment ago
        lines = shown(page)
        if page.lost and lines:
            note = f"{page.lost:,} lines are gone: the log was rotated."
            lines[0] = Line(lines[0].at, self.replica, "stderr", f"[{note}] {lines[0].text}")
        return lines, page.cursor


def read_page(source: str, cursor: str = "", limit: int = PAGE) -> Page:
    """The next lines of a source. Raises NotFound, InvalidInput, Unavailable."""
    seen = _decode(cursor)
    logs = _logs(source, seen)
    share = max(_FEWEST, limit // max(1, len(logs)))
    read = [log.read(seen.get(log.key, ""), share) for log in logs]
    parts = [Part(lines, ended=len(lines) < share) for lines, _ in read]
    merged, taken = merge(parts, limit)
    after = dict(seen)
    for log, (lines, end), count in zip(logs, read, taken, strict=True):
        if count == len(lines):
            after[log.key] = end
        elif count:
            # part of what was read: the place after these lines is what reading just them ends at
            after[log.key] = log.read(seen.get(log.key, ""), count)[1]
    finished = all(
        part.ended and count == len(part.lines) for part, count in zip(parts, taken, strict=True)
    )
    if len(after) > _MOST_POSITIONS:
        known = {log.key for log in logs}
        after = {key: at for key, at in after.items() if key in known}
    ended = finished and source.startswith(f"{previous_runs.KIND}:")
    return Page(merged, _encode(after), finished, ended)


def topics(source: str) -> list[str]:
    """The announcements that say there may be more to read."""
    return [source]


def _logs(source: str, seen: dict[str, str]) -> Sequence[_File | _Replica | PreviousRun]:
    kind, _, key = source.partition(":")
    if kind == "deployment" and key.isdecimal():
        if not Deployment.objects.filter(pk=int(key)).exists():
            raise NotFound(f"There is no deployment {key}; its service may have been deleted.")
        return [_deployment(int(key))]
    if kind == "environment" and _HASH.match(key):
        if not (
            Environment.objects.filter(hash=key).exists()
            or EnvironmentBuild.objects.filter(hash=key).exists()
        ):
            raise NotFound(f"There is no environment with the hash {key[:12]}.")
        return [_File(source, settings.HOME.environment_log(key))]
    if kind == "local" and key.isdecimal():
        if not LocalRun.objects.filter(pk=int(key)).exists():
            raise NotFound(f"There is no local run {key}; they are kept for a day.")
        return [_File(source, settings.HOME.local_log(int(key)))]
    if kind == "service":
        return _service_logs(key, seen)
    if kind == previous_runs.KIND:
        service, _, replica = key.partition(":")
        return [previous_runs.log_of(_service(service), replica)]
    raise NotFound(f"There is no log named {source[:80]}.")


def _service_logs(name: str, seen: dict[str, str]) -> list[_File | _Replica]:
    service = _service(name)
    deployments = service.deployments.order_by("-pk")
    latest = deployments.values_list("pk", flat=True).first()
    # one that was followed is read to its end, also when a newer one has begun
    followed = [int(key.partition(":")[2]) for key in seen if re.match(r"^deployment:\d+$", key)]
    earlier = deployments.filter(pk__in=followed).values_list("pk", flat=True) if followed else []
    ids = sorted({*earlier, *([latest] if latest else [])})
    kept = _kept(service.cluster)
    names = kept.log_replicas(name)
    replicas = [_Replica(f"replica:{replica}", kept, replica) for replica in names]
    # a deployment's log holds what its replicas said as they started: not twice, where they are read
    read = frozenset({*names, *(view.replica.id for view in replica_views(service.replicas))})
    return [*(_deployment(pk, read) for pk in ids), *replicas]


def _service(name: str) -> Service:
    service = Service.objects.select_related("cluster").filter(name=name).first()
    if service is None:
        raise NotFound(f"There is no service named {name[:40]}; it may have been deleted.")
    return service


def _kept(cluster: Cluster) -> Driver | Kept:
    """Who has replicas' output: pods' is copied, as a cluster forgets what is gone."""
    if cluster.kind == Cluster.Kind.KUBERNETES:
        return Kept(settings.HOME.pod_logs, cluster.name)
    return driver_for(cluster)


def _deployment(pk: int, without: frozenset[str] = frozenset()) -> _File:
    return _File(f"deployment:{pk}", settings.HOME.deployment_log(pk), without)


def _encode(positions: dict[str, str]) -> str:
    text = json.dumps(positions, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str) -> dict[str, str]:
    """Positions by log. Raises InvalidInput for text that was not made here."""
    if not cursor:
        return {}
    wrong = InvalidInput("The cursor is not one that was given out.", field="cursor")
    if len(cursor) > _LONGEST_CURSOR:
        raise wrong
    try:
        positions = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise wrong from error
    if not isinstance(positions, dict) or not all(isinstance(x, str) for x in positions.values()):
        raise wrong
    return positions
