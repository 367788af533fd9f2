"""What the agent remembers about one replica, and what it can see of it.

PURE. A `Record` is the agent's own file (`replica.json` with `revision.json` beside it); a `Sighting`
is made anew each cycle from the process, its shim's files and its probes.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deployments.codec import from_json, to_json
from deployments.types import Cause, Exit, Phase, Replica, Resources, RevisionSpec


class Process(StrEnum):
    """What there is of a replica's current run."""

    NONE = "none"  # its shim has not said a word
    RUNNING = "running"
    ENDED = "ended"  # its shim wrote down how
    VANISHED = "vanished"  # its shim was killed; nobody knows how it ended


@dataclass(frozen=True, slots=True)
class Record:
    """One replica. Times are epoch seconds; None is "has not happened in this run"."""

    id: str
    service: str
    version: str
    revision: RevisionSpec
    key: str  # `revision_key(revision)`: tells revisions apart
    phase: Phase
    created_at: float
    node: str = ""
    address: str = ""  # once it has a place
    run: int = 0  # runs so far; 0 is never started
    restarts: int = 0  # runs that were begun because the one before had crashed
    started_at: float | None = None
    ready_at: float | None = None
    drain_at: float | None = None  # since when it takes no new request
    term_at: float | None = None  # since when its process is asked to end
    crashes: int = 0  # in a row; sets the back-off
    next_start_at: float = 0.0
    last_exit: Exit | None = None
    cause: Cause | None = None
    note: str = ""

    @property
    def leaving(self) -> bool:
        """On its way out for good."""
        return self.phase in (Phase.DRAINING, Phase.STOPPED)

    @property
    def placed(self) -> bool:
        """Holds room on the machine."""
        return self.phase is not Phase.SCHEDULING

    def seen(self) -> Replica:
        """As everybody else sees it."""
        return Replica(
            id=self.id,
            service=self.service,
            version=self.version,
            revision=self.revision.number,
            phase=self.phase,
            address=self.address,
            node=self.node,
            created_at=self.created_at,
            started_at=self.started_at,
            ready_at=self.ready_at,
            restarts=self.restarts,
            last_exit=self.last_exit,
            cause=self.cause,
            note=self.note,
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """What of a record is in no other part of `replica.json`."""

    key: str
    run: int
    drain_at: float | None
    term_at: float | None
    crashes: int
    next_start_at: float


@dataclass(frozen=True, slots=True)
class _Stored:
    replica: Replica
    resources: Resources
    agent: _Kept


def to_stored(record: Record) -> dict[str, Any]:
    """The content of `replica.json`."""
    kept = _Kept(
        key=record.key,
        run=record.run,
        drain_at=record.drain_at,
        term_at=record.term_at,
        crashes=record.crashes,
        next_start_at=record.next_start_at,
    )
    stored: dict[str, Any] = to_json(_Stored(record.seen(), record.revision.resources, kept))
    return stored


def from_stored(data: Any, revision: RevisionSpec) -> Record:
    """The inverse of `to_stored`. Raises ValueError."""
    stored = from_json(_Stored, data)
    replica, kept = stored.replica, stored.agent
    return Record(
        id=replica.id,
        service=replica.service,
        version=replica.version,
        revision=revision,
        key=kept.key,
        phase=replica.phase,
        created_at=replica.created_at,
        node=replica.node,
        address=replica.address,
        run=kept.run,
        restarts=replica.restarts,
        started_at=replica.started_at,
        ready_at=replica.ready_at,
        drain_at=kept.drain_at,
        term_at=kept.term_at,
        crashes=kept.crashes,
        next_start_at=kept.next_start_at,
        last_exit=replica.last_exit,
        cause=replica.cause,
        note=replica.note,
    )


@dataclass(frozen=True, slots=True)
class Sighting:
    """One look at a replica's current run."""

    process: Process = Process.NONE
    exit: Exit | None = None  # when ENDED
    log: str = ""  # the end of this run's output; read only while it starts or when it has ended
    # Last good GET / of this run; where there was none, since when this agent has asked.
    good_at: float | None = None
    streak: int = 0  # good answers in a row
    refused: bool = False  # the last probe found nobody listening
    prepared: bool = False  # its working copy is there
    trouble: Cause | None = None  # why its working copy could not be made
    note: str = ""


@dataclass(frozen=True, slots=True)
class Pace:
    """The agent's own times, seconds."""

    term_grace: float = 10.0  # from SIGTERM to SIGKILL
    silent_start: float = 10.0  # a shim that has said nothing by then is not there
    backoff_first: float = 1.0
    backoff_most: float = 60.0
    healthy_reset: float = 300.0  # ready for this long: the back-off begins anew
    removed_deadline: float = 300.0  # a removed service waits this long for the router's word


PACE = Pace()


@dataclass(frozen=True, slots=True)
class Room:
    """The machine's whole room: cores, GiB and accelerators."""

    cpu: float
    memory_gb: float
    gpu: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """One version as it should be."""

    service: str
    version: str
    revision: RevisionSpec
    key: str
    count: int
    prefer_removing: tuple[str, ...] = field(default=())
