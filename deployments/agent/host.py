"""What runs replicas: the one thing in which an agent of this machine's processes and one of an Engine's
containers differ.

The loop keeps the records and decides through `plan` and `life`; a host looks, prepares and acts. A call
on the loop's own thread is short, and long work goes on behind it: what became of it is seen in a later
cycle. No Django, no decision about how many there should be.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from deployments.agent.record import Process, Record, Room
from deployments.types import Cause, Exit


@dataclass(frozen=True, slots=True)
class Run:
    """What there is of a replica's current run."""

    process: Process
    exit: Exit | None = None
    note: str = ""  # said to a person
    said: str = ""  # by whoever could not start it; goes with its output to find the cause


@dataclass(frozen=True, slots=True)
class Powers:
    """What a host can hold replicas to, for the heartbeat and the cluster's checks."""

    said: str
    cpu: bool
    memory: bool


class Host(Protocol):
    """One cluster's hands. Its folder's records are the loop's."""

    node: str
    copiers: int  # how many replicas are prepared at a time

    def begin(self) -> None:
        """Look at all there is, once a cycle. Raises Unavailable: then nothing is decided."""

    def room(self) -> Room:
        """All of it, taken or not, as it was at the last `begin`."""

    def powers(self) -> Powers: ...

    def note(self, record: Record) -> str:
        """What of a replica's limits is not held, for people; "" when all is."""

    def address(self, record: Record) -> str:
        """Where the router will reach it."""

    def prepare(self, record: Record) -> Cause | None:
        """Make what its next run is started from; on a thread of its own, and may take long.
        None is done; a cause is why not."""

    def progress(self, record: Record) -> str:
        """How far that is, for people; "" is unknown."""

    def look(self, record: Record) -> Run:
        """The current run. ENDED and VANISHED only once nothing of it lives and its output is in."""

    def write(self, record: Record) -> None:
        """Write down what `start` will start. The record is saved between the two."""

    def start(self, record: Record) -> None:
        """Begin `record.run`."""

    def terminate(self, record: Record) -> None:
        """Ask it to end; once a run is enough."""

    def kill(self, record: Record) -> bool:
        """End it; True when there was something to end. Comes again until nothing lives."""

    def forget(self, record: Record) -> None:
        """Let go of all that is not its folder."""

    def others(self, records: Collection[Record]) -> None:
        """End and clear away what carries this cluster's mark and belongs to no record."""

    def woken(self) -> bool:
        """Whether something happened since the last cycle that the next one should not wait for."""

    def close(self) -> None: ...
