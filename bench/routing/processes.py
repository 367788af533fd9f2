"""Programs on one core each: started, watched and ended by their own pid.

Every program is the leader of a session of its own, so that Ctrl-C reaches the bench alone, which then
ends all of them. Nothing is ever ended by its name.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).resolve().parent.parent.parent
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
    """What the bench started. Leaving the `with` ends all of it, whatever ended the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # for their output and their files
        self._running: dict[str, subprocess.Popen] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *_: object) -> None:
        # somebody who presses Ctrl-C twice is not to leave half of them behind
        ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ends}
        try:
            self._stack.close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_exit(self, close: Callable[[], object]) -> None:
        """For what ends otherwise than by a signal to a pid."""
        self._stack.callback(close)

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
                ["taskset", "-c", str(core), *map(str, command)],  # which becomes the program
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=CHECKOUT,
                env={**os.environ, **(environment or {})},
            )
        self._running[name] = process
        self._stack.callback(self.stop, name)
        return process.pid

    def answering(self, name: str, port: int, seconds: float = 20) -> None:
        """Wait until somebody listens."""
        self.wait(name, seconds, "did not listen", lambda: _listens(port))

    def wait(self, name: str, seconds: float, failing: str, until: Callable[[], bool]) -> None:
        """Raises with the program's last words when it ends, or `failing` within `seconds`."""
        end = time.monotonic() + seconds
        while not until():
            if self._running[name].poll() is not None:
                raise BenchError(f"{name} ended: {self.last_words(name)}")
            if time.monotonic() > end:
                raise BenchError(f"{name} {failing} within {seconds:g} s: {self.last_words(name)}")
            time.sleep(0.05)

    def last_words(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-800:].strip()

    def stop(self, name: str, patience: float = 5) -> None:
        """End it and what it started: asked first, then killed. Nothing when it is gone."""
        process = self._running.pop(name, None)
        if process is None:
            return
        everyone = family(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        for member in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
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


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """What all cores have done since the machine started, in ticks. `stolen`: the host gave it to others."""

    total: int
    idle: int
    stolen: int

    @classmethod
    def now(cls) -> "CpuTimes":
        return cls.read(Path("/proc/stat").read_text())

    @classmethod
    def read(cls, text: str) -> "CpuTimes":
        """`text`: /proc/stat, whose first line is user, nice, system, idle, iowait, irq, softirq, steal."""
        values = [int(word) for word in text.split("\n")[0].split()[1:9]]
        return cls(sum(values), values[3] + values[4], values[7])

    def busy_since(self, before: "CpuTimes") -> float:
        """Share of the cores that was in use, 0 to 1; what the host took is in it."""
        total = self.total - before.total
        return 1 - (self.idle - before.idle) / total if total else 0.0

    def stolen_since(self, before: "CpuTimes") -> float:
        """Share of the cores' time in which the host let something else run, 0 to 1."""
        total = self.total - before.total
        return (self.stolen - before.stolen) / total if total else 0.0


def busy_share(seconds: float = 1.0) -> float:
    """How much of all cores is in use right now, 0 to 1."""
    before = CpuTimes.now()
    time.sleep(seconds)
    return CpuTimes.now().busy_since(before)
