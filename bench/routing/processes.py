"""Programs on one core each: started, watched and ended by their own pid.

Every program is the leader of a session of its own, so that Ctrl-C reaches the bench alone, which then
ends all of them. Nothing is ever ended by its name.
"""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Something the bench needs is missing or does not run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the proxies run on, and which the load and what answers it."""

    proxy: int
    load: int

    @classmethod
    def choose(cls) -> "Cores":
        """The last core for the proxy: the first one usually has the machine's interrupts."""
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            raise BenchError("Two cores are needed: one for the proxy, one for the load.")
        return cls(proxy=usable[-1], load=usable[0])


def pin(pid: int, core: int) -> None:
    """A running process, all of its threads."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})


def family(pid: int) -> list[psutil.Process]:
    """A process and everything below it."""
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pids: Iterable[int]) -> float:
    """What these processes have used since they began, in user and system mode."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            # the name in brackets may hold blanks; what follows it may not
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


class Programs:
    """What the bench started. Leaving the `with` ends all of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # for their output
        self._running: dict[str, subprocess.Popen] = {}
        self._closers: list[Callable[[], object]] = []

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *_: object) -> None:
        for close in reversed(self._closers):
            close()
        for name in list(self._running):
            self.stop(name)

    def on_exit(self, close: Callable[[], object]) -> None:
        """For what ends otherwise than by a signal to a pid."""
        self._closers.append(close)

    def start(
        self,
        name: str,
        command: Sequence[object],
        core: int,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """The pid of the program; its output goes to a file of its name."""
        with (self.folder / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._running[name] = process  # taskset becomes the program itself
        return process.pid

    def answering(self, name: str, port: int, seconds: float = 20) -> None:
        """Wait until somebody listens; raises with the program's last words when it ends instead."""
        end = time.monotonic() + seconds
        while not _listens(port):
            ended = self._running[name].poll() is not None
            if ended or time.monotonic() > end:
                raise BenchError(
                    f"{name} {'ended' if ended else f'did not listen within {seconds:g} s'}: "
                    f"{self.last_words(name)}"
                )
            time.sleep(0.05)

    def last_words(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-800:].strip()

    def stop(self, name: str, patience: float = 5) -> None:
        process = self._running.pop(name, None)
        if process is None:
            return
        everyone = family(process.pid)
        for signal_all in (psutil.Process.terminate, psutil.Process.kill):
            for member in everyone if signal_all is psutil.Process.kill else everyone[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    signal_all(member)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        psutil.wait_procs(everyone, patience)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
