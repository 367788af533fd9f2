"""What every kind of cluster can do.

A driver talks to one cluster and keeps nothing itself: the cluster is the source of truth. No Django
in here. Siblings do not know each other; `deployments.drivers.load` is the one table by kind.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

from deployments.errors import PermanentError
from deployments.types import (
    Capacity,
    Check,
    ClusterKind,
    Observation,
    RevisionSpec,
    RouteReport,
    RouterPods,
    RouterSpec,
    ServiceSpec,
)


class BlobSource(Protocol):
    """Where stored content comes from, by its lower-case hex SHA-256."""

    def local_path(self, sha256: str) -> Path | None:
        """The blob as a file on this machine, or None where the store is remote."""

    def open(self, sha256: str) -> BinaryIO:
        """The blob as a stream; the caller closes it. Raises NotFound."""

    def url(self, sha256: str, base: str = "") -> str:
        """An address of the blob that runs out, for who is not on this machine. `base` is where they reach
        the portal; "" is its setting. Raises PermanentError (NoAddressForNodes)."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a replica's output. `stream` is "stdout" or "stderr"."""

    at: float
    replica: str
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in order and the cursor after the last of them; reading on from it repeats nothing."""

    lines: tuple[LogLine, ...]
    cursor: str
    lost: int = 0  # lines that rotated away between the given cursor and the first line here
    run: int = 0  # of the replica, counting from 1: no page has lines of two. 0 is unknown


class Driver(ABC):
    """One cluster's hands. Every call has a deadline of its own and raises `errors.Unavailable`
    when the cluster cannot be reached; an answer is never partial."""

    kind: ClassVar[ClusterKind]

    @abstractmethod
    def stage(self, revision: RevisionSpec, blobs: BlobSource) -> None:
        """Bring a revision's files to where its replicas can read them. Idempotent; safe to kill."""

    @abstractmethod
    def apply(self, spec: ServiceSpec) -> None:
        """Make the cluster want this service. Replaces the whole spec in one step; idempotent.

        A version that is new starts with `scaling.minimum` wanted; one that is known keeps its
        count, brought into the limits.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Stop wanting a service. Not an error when it is not there."""

    @abstractmethod
    def scale(
        self, service: str, version: str, replicas: int, prefer_removing: Sequence[str] = ()
    ) -> None:
        """Set a version's wanted count. `prefer_removing` names the replicas to drain first."""

    @abstractmethod
    def apply_router(self, spec: RouterSpec) -> None:
        """Give the cluster's router its settings; replaces all of them in one step, idempotent.

        An older generation than the cluster has changes nothing.
        """

    @abstractmethod
    def router_spec(self) -> RouterSpec:
        """The settings the cluster's router should have; the defaults where none were given."""

    def router_pods(self) -> RouterPods | None:
        """How many pods the router has and may have; None where it is one beside its loop, which
        `resize_router` cannot change."""
        return None

    def resize_router(self, pods: int) -> None:
        """Have the cluster run so many pods of the router. Idempotent; no request is lost.

        Raises PermanentError where a router is not made of pods.
        """
        raise PermanentError(
            f"A router of a {self.kind.value} cluster is one process; only its threads can change.",
            code="RouterPodsNotHere",
        )

    @abstractmethod
    def observe(self) -> Observation:
        """All services and replicas as they are now.

        A service of which nothing changed should be the same object as last time: the router takes
        what `is` the same for known.
        """

    def stamp(self) -> object:
        """Something cheap that is another one when what `observe` shows may have changed: the router
        asks some twenty times a second. None where there is nothing of the kind."""
        return None

    def foreign_scalers(self) -> Mapping[tuple[str, str], str]:
        """Who else changes the count of a version, such as a HorizontalPodAutoscaler's name, by service and
        version: that one is not scaled by us until the other is gone. Cheap; asked each second."""
        return {}

    def drifted(self) -> frozenset[str]:
        """Services that do not stand in the cluster as their specs there say; `apply` puts it right."""
        return frozenset()

    @abstractmethod
    def publish_routes(self, report: RouteReport) -> None:
        """The router's word on which replicas are in rotation, draining and safe to stop."""

    def routes(self) -> RouteReport | None:
        """What `publish_routes` was told last; None when the router never said anything, or where the
        driver cannot tell. A rollout asks, so that "healthy" means that requests arrive."""
        return None

    @abstractmethod
    def logs(
        self, replica: str, *, cursor: str = "", limit: int = 1000, previous: bool = False
    ) -> LogPage:
        """A replica's output after `cursor` ("" is the beginning of what is kept)."""

    @abstractmethod
    def log_replicas(self, service: str) -> Sequence[str]:
        """Ids of all replicas of a service whose output is kept, those gone included, oldest first."""

    @abstractmethod
    def capacity(self) -> Capacity:
        """Total and free room by node."""

    @abstractmethod
    def check(self) -> Iterator[Check]:
        """Connectivity and health checks, in the order they are needed, as they finish."""
