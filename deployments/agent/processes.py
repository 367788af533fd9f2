"""The agent's eyes and hands for processes: is this the one I mean, start a shim, send a signal.

A process is known by pid, start time and command line together, so a pid that was given to another
program is never taken for a replica.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.agent.record import Process
from deployments.drivers.process_layout import read_json
from deployments.types import Exit

SHIM = Path(__file__).with_name("shim.py")


@dataclass(frozen=True, slots=True)
class Run:
    """What the shim's files say of one run."""

    process: Process
    shim_pid: int = 0
    child_pid: int = 0
    exit: Exit | None = None
    note: str = ""


def start_ticks(pid: int) -> int | None:
    """The kernel's start time of a process, or None when there is none (a zombie counts as none)."""
    try:
        after = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after[0] == b"Z" else int(after[19])


def spawn_shim(folder: Path) -> subprocess.Popen[bytes]:
    """Start a replica's shim, apart from this process's group, and go on at once."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(SHIM), str(folder)],
        env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def look(folder: Path, run: int) -> Run:
    """What there is of a run. Raises OSError, ValueError when its files cannot be read."""
    told = _read(folder / "shim.json")
    ended = _read(folder / "exit.json")
    exit_ = _exit(ended) if ended is not None and ended["run"] == run else None
    if told is None or told["run"] != run:
        return Run(Process.ENDED, exit=exit_) if exit_ else Run(Process.NONE)
    shim, child = told["shim"], told["child"]
    alive = is_shim(shim["pid"], shim["start"], folder)
    known = Run(
        Process.RUNNING if alive else Process.VANISHED,
        shim_pid=shim["pid"] if alive else 0,
        child_pid=child["pid"] if child else 0,
        exit=exit_,
        note=told["note"],
    )
    if exit_ is not None:
        # Written last of all: the shim has nothing left to do, whether it is gone yet or not.
        return Run(Process.ENDED, 0, known.child_pid, exit_, known.note)
    return known


def is_shim(pid: int, start: int, folder: Path) -> bool:
    """Whether this pid is still the shim of that folder."""
    if start_ticks(pid) != start:
        return False
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.fsencode(folder) in arguments


def terminate(run: Run) -> None:
    """Ask the replica to end; its shim passes that on."""
    _send(run.shim_pid, signal.SIGTERM)


def kill_all_of(folder: Path) -> bool:
    """Kill every process of the replica in that folder, wherever it went; True if there was one.

    The shim is none of them: it lives on to write down how the run ended.
    """
    mark = b"SLIPWAY_REPLICA_FOLDER=" + os.fsencode(folder)
    found = False
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            belongs = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if belongs:
            _send(int(entry.name), signal.SIGKILL)
            found = True
    return found


def _send(pid: int, number: signal.Signals) -> None:
    if pid > 1:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = read_json(path)
    except FileNotFoundError:
        return None
    return found


def _exit(raw: dict[str, Any]) -> Exit:
    return Exit(
        code=raw["code"],
        signal=raw["signal"],
        at=raw["at"],
        log_tail=raw["log_tail"],
        oom=raw["oom"],
    )
