"""How a process cluster's machine is: its room, its agent, its folder, its disk, its limits.

Reads the machine; decides nothing and changes nothing but one file it makes and removes again.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from deployments.drivers.process_layout import ClusterFolder, read_json
from deployments.types import Check, CheckStatus, NodeCapacity, Resources

HEARTBEAT_PERIOD = 1.0  # seconds between an agent's heartbeats
HEARTBEAT_STALE = 10.0  # seconds after which it is taken for gone
_LEAST_DISK = 2 * 2**30
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`agent.json`: that the agent lives, and what it found it can do."""

    at: float
    pid: int
    limits: str = ""  # how cpu and memory limits are enforced, or why they are not
    memory_enforced: bool = False
    cpu_enforced: bool = False
    trouble: str = ""  # why nothing is decided at the moment


def read_heartbeat(folder: ClusterFolder) -> dict[str, Any] | None:
    """The agent's last word as JSON, or None when there never was an agent or it cannot be read."""
    try:
        return dict(read_json(folder.agent))
    except (OSError, ValueError, TypeError):
        return None


def heartbeat(folder: ClusterFolder) -> float | None:
    """When the agent was last alive."""
    found = read_heartbeat(folder)
    return None if found is None else float(found["at"])


def this_machine(asked: Sequence[Resources]) -> NodeCapacity:
    """The machine's room, less what replicas ask for."""
    cpu = float(len(os.sched_getaffinity(0)))
    memory = psutil.virtual_memory().total / _GIB
    return NodeCapacity(
        name=socket.gethostname(),
        cpu_total=cpu,
        cpu_free=max(0.0, cpu - sum(item.cpu for item in asked)),
        memory_gb_total=round(memory, 2),
        memory_gb_free=round(max(0.0, memory - sum(item.memory_gb for item in asked)), 2),
    )


def run(folder: ClusterFolder) -> Iterator[Check]:
    """The checks, in the order they are needed."""
    yield folder_check(folder)
    yield _disk(folder)
    beat = read_heartbeat(folder)
    yield agent_check(folder)
    if beat is not None:
        yield _limits(beat)


def folder_check(folder: ClusterFolder) -> Check:
    """Whether what is wanted can be written down."""
    name = "cluster folder can be written"
    probe = folder.root / f".check.{os.getpid()}"
    try:
        folder.ensure()
        probe.write_bytes(b"x")
        probe.unlink()
        _read_services(folder)
    except (OSError, ValueError) as error:
        return Check(
            name,
            CheckStatus.FAIL,
            f"{folder.root}: {error}",
            "Make the folder writable for the user that runs Slipway.",
        )
    return Check(name, CheckStatus.PASS, str(folder.root))


def _read_services(folder: ClusterFolder) -> None:
    """Read every service's file once. Raises OSError, ValueError with the file's name."""
    for path in folder.services.glob("*.json"):
        try:
            read_json(path)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error


def _disk(folder: ClusterFolder) -> Check:
    name = "disk has room"
    try:
        free = shutil.disk_usage(folder.root).free
    except OSError as error:
        return Check(name, CheckStatus.UNKNOWN, str(error))
    evidence = f"{free / _GIB:.1f} GiB free"
    if free < _LEAST_DISK:
        return Check(name, CheckStatus.FAIL, evidence, "Free some space, or move SLIPWAY_HOME.")
    return Check(name, CheckStatus.PASS, evidence)


def agent_check(folder: ClusterFolder) -> Check:
    """Whether its agent lives, and sees what it needs to."""
    beat = read_heartbeat(folder)
    name = "agent is alive"
    remedy = f"Start it: `python manage.py run_agent {folder.root.name}`."
    if beat is None:
        return Check(name, CheckStatus.FAIL, "no agent has ever run here", remedy)
    age = time.time() - float(beat["at"])
    evidence = f"pid {beat['pid']}, last heartbeat {age:.1f} s ago"
    if age > HEARTBEAT_STALE:
        return Check(name, CheckStatus.FAIL, evidence, remedy)
    if trouble := beat.get("trouble"):
        return Check(name, CheckStatus.FAIL, f"{evidence}; it waits: {trouble}")
    return Check(name, CheckStatus.PASS, evidence)


def _limits(beat: dict[str, Any]) -> Check:
    name = "cpu and memory limits are enforced"
    if beat["cpu_enforced"] and beat["memory_enforced"]:
        return Check(name, CheckStatus.PASS, beat["limits"])
    return Check(
        name,
        CheckStatus.UNKNOWN,
        beat["limits"],
        "Replicas run all the same. Limits need cgroups this user may write: run Slipway as root, "
        "or as a systemd service with Delegate=yes.",
    )
