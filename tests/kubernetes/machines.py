"""Machines of a test's own on this machine: each a set of namespaces, with daemons in it that can be killed.

A machine has its own processes, mounts and network. Its first process ends with this one, however that ends,
and takes all that is in it along. What others run here is never touched.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.kubernetes import cluster

# reaps what its daemons leave behind, and ends when nobody holds the other end of its input
_FIRST = "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); sys.stdin.read()"
_CGROUPS = Path("/sys/fs/cgroup")


class Daemon:
    """A program on a machine, that is started again as it was. Its log goes on in the same file."""

    def __init__(self, machine: "Machine", name: str, command: Sequence[str | Path]) -> None:
        self.name = name
        self._machine, self._command = machine, [str(word) for word in command]
        self._log = machine.folder / f"{name}.log"
        self._door: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._door = subprocess.Popen(
                [*self._machine.enter, *self._command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def runs(self) -> bool:
        return self._door is not None and self._door.poll() is None

    def kill(self) -> None:
        """kill -9, of the daemon alone."""
        assert self._door is not None
        assert self.runs(), f"{self.name} ended by itself: {self.said()}"
        for pid in _children(self._door.pid):
            os.kill(pid, signal.SIGKILL)
        self.ended()

    def ended(self) -> None:
        """Wait until it has."""
        assert self._door is not None
        self._door.wait(10)

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


class Machine:
    """`own` are folders of the system that it has for itself, each empty at first."""

    def __init__(self, name: str, folder: Path, own: Sequence[str] = ()) -> None:
        self.name, self.folder = name, folder / name
        self.folder.mkdir(parents=True)
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             sys.executable, "-I", "-S", "-c", _FIRST],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        [self.pid] = cluster.until(lambda: _children(self._holder.pid), 10)
        self.enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid"]
        cluster.until(lambda: Path(f"/proc/{self.pid}/comm").read_text() != "unshare\n", 10)
        self._daemons: list[Daemon] = []
        self.run("ip", "link", "set", "lo", "up")
        for place in own:
            there = self.folder / place.strip("/").replace("/", "-")
            there.mkdir()
            self.bind(there, place)

    def bind(self, source: Path, place: str) -> None:
        """Show a folder of this machine there."""
        self.run("mkdir", "-p", place)
        self.run("mount", "--bind", str(source), place)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [*self.enter, *command], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def set(self, name: str, value: str) -> None:
        """A setting of its kernel's network."""
        self.run("sh", "-c", f"echo {value} > /proc/sys/net/{name}")

    def daemon(self, name: str, *command: str | Path) -> Daemon:
        made = Daemon(self, name, command)
        self._daemons.append(made)
        return made

    def end(self) -> None:
        """All of its processes at once, as when its power is cut."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._holder.wait(30)
        if self._holder.stdin is not None:
            self._holder.stdin.close()
        for daemon in self._daemons:
            daemon.ended()


def wire(one: Machine, other: Machine | None, name: str, there: str) -> None:
    """A cable between two machines, or to this one (None): `name` here, `there` at the other end."""
    subprocess.run(
        ["ip", "link", "add", name, "netns", str(one.pid), "type", "veth", "peer", "name", there,
         *(("netns", str(other.pid)) if other else ())],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip


def forget_cgroups(name: str) -> None:
    """Remove the empty groups that runc made for a cluster's containers."""
    for top in (_CGROUPS / name, *(place / name for place in _CGROUPS.iterdir() if place.is_dir())):
        if not top.is_dir():
            continue
        deepest = sorted(
            (Path(found) for found, _, _ in os.walk(top)), key=lambda place: -len(place.parts)
        )
        for place in deepest:
            end = time.monotonic() + 10
            while place.is_dir() and time.monotonic() < end:
                with contextlib.suppress(OSError):  # a process in it is still ending
                    place.rmdir()
                    break
                time.sleep(0.05)


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
