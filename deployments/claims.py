"""Who has a piece of work, and whether they still live.

A holder is "host:pid:start", and may go on after another colon. A claim is believed until its lease
runs out; on the same host it is known to be dead as soon as the process is gone, so work killed here
is taken up again at once.
"""

import os
import socket

import psutil


def holder() -> str:
    """This process."""
    pid = os.getpid()
    return f"{socket.gethostname()}:{pid}:{_started(pid)}"


def known_dead(claimed_by: str) -> bool:
    """True when the holder ran on this host and is gone; False when it lives or cannot be told."""
    host, pid, started, *_ = [*claimed_by.split(":"), "", "", ""]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """When the process started, as text that differs when a pid is used again; empty when gone."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return ""
