"""End every replica of a cluster, gradedly and in bounded time, with its agent gone.

Holds the agent's lock meanwhile, so that no agent starts them again. What was wanted stays wanted: the
next agent places each replica anew, without counting this as a crash.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from deployments.agent import store
from deployments.agent.host import Host
from deployments.agent.hosts import host_for, kind_of
from deployments.agent.record import Process, Record
from deployments.drivers.process_layout import ClusterFolder, locked
from deployments.types import Phase

AGENT_SECONDS = 5.0  # for an agent that was just told to end
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Stopped:
    """How many replicas were running, and how many of them had to be killed."""

    asked: int
    killed: int


def stop_replicas(root: Path, *, grace: float = 8.0, wait: float = AGENT_SECONDS) -> Stopped:
    """Stop all of them; `grace` and `wait` are seconds, for the replicas and for a living agent.

    Raises Unavailable when an agent lives on, or a Docker cluster's Engine cannot be asked.
    """
    folder = ClusterFolder(root)
    if not folder.replicas.is_dir():
        return Stopped(0, 0)
    with locked(folder.agent_lock, deadline=wait):
        records = list(store.load(folder).values())
        host = host_for(folder, kind_of(folder))
        host.begin()
        running = [record for record in records if _runs(host, record)]
        for record in running:
            host.terminate(record)
        until = time.monotonic() + grace
        left = running
        while left and time.monotonic() < until:
            time.sleep(_POLL)
            host.begin()
            left = [record for record in left if _runs(host, record)]
        for record in left:
            host.kill(record)
        until = time.monotonic() + 2.0
        while any(_runs(host, record) for record in left) and time.monotonic() < until:
            time.sleep(_POLL)
            host.begin()
        for record in records:
            if not record.leaving:
                store.save(folder, _waiting(record))
        host.close()
        return Stopped(len(running), len(left))


def _runs(host: Host, record: Record) -> bool:
    return bool(record.run) and host.look(record).process is Process.RUNNING


def _waiting(record: Record) -> Record:
    """As if it had never been placed."""
    return replace(
        record,
        phase=Phase.SCHEDULING,
        address="",
        started_at=None,
        ready_at=None,
        term_at=None,
        crashes=0,
        next_start_at=0.0,
        cause=None,
    )
