"""Replicas as a page shows them: the stored JSON read back, times made ready for `ago`.

Decides only; the rows' JSON comes in, frozen views go out. What cannot be read is left out and counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deployments.codec import from_json
from deployments.services.models import Service
from deployments.types import Phase, Replica

STALE = timedelta(seconds=20)  # the controller reads clusters every second or two
_ORDER = {
    Phase.CRASHED: 0,
    Phase.SCHEDULING: 1,
    Phase.PULLING: 2,
    Phase.STARTING: 3,
    Phase.LOADING: 4,
    Phase.READY: 5,
    Phase.DRAINING: 6,
    Phase.STOPPED: 7,
}


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One row of the replica table."""

    replica: Replica
    created_at: datetime | None
    started_at: datetime | None
    ready_at: datetime | None
    exit_at: datetime | None
    exit_words: str  # "exit code 1", "killed by signal 9 (out of memory)"


def _moment(at: float | None) -> datetime | None:
    return datetime.fromtimestamp(at, tz=UTC) if at else None


def _exit_words(replica: Replica) -> str:
    last = replica.last_exit
    if last is None:
        return ""
    words = f"killed by signal {last.signal}" if last.signal else f"exit code {last.code}"
    return f"{words} (out of memory)" if last.oom else words


def replica_views(rows: Iterable[Any]) -> list[ReplicaView]:
    """Replicas in trouble first, then by how far they are, then the oldest first."""
    found: list[Replica] = []
    for row in rows:
        try:
            found.append(from_json(Replica, row))
        except (ValueError, TypeError, KeyError):
            continue  # written by another version of the product; the next observation mends it
    found.sort(key=lambda replica: (_ORDER[replica.phase], replica.created_at, replica.id))
    return [
        ReplicaView(
            replica=replica,
            created_at=_moment(replica.created_at),
            started_at=_moment(replica.started_at),
            ready_at=_moment(replica.ready_at if replica.phase == Phase.READY else None),
            exit_at=_moment(replica.last_exit.at if replica.last_exit else None),
            exit_words=_exit_words(replica),
        )
        for replica in found
    ]


def seen_at(service: Service) -> datetime | None:
    """When this service was last seen on its cluster; None is never.

    Its row is written only when something changed, and the cluster is read as a whole: so once it was
    seen, the cluster's time counts.
    """
    if service.observed_at is None:
        return None
    return max(service.observed_at, service.cluster.observed_at or service.observed_at)


def is_stale(seen: datetime | None, now: datetime) -> bool:
    """Whether what was seen then says nothing about now. Never seen is stale."""
    return seen is None or now - seen > STALE


def counts(rows: Iterable[Any]) -> dict[str, int]:
    """How many replicas are ready, on their way, draining and crashed."""
    result = {"ready": 0, "starting": 0, "draining": 0, "crashed": 0}
    for row in rows:
        phase = row.get("phase") if isinstance(row, dict) else None
        if phase == Phase.READY:
            result["ready"] += 1
        elif phase == Phase.CRASHED:
            result["crashed"] += 1
        elif phase == Phase.DRAINING:
            result["draining"] += 1
        elif phase != Phase.STOPPED:
            result["starting"] += 1
    return result
