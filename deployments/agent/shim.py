"""One replica's keeper: starts it, writes its output down, and knows how it ended.

Run by the agent as `python -I -S shim.py <replica folder>`; standard library only, so it stays small
and needs nothing from the checkout but the gate beside it. It keeps the replica's sockets (`gate.py`),
and it outlives the agent: an agent that comes back finds the shim by
`shim.json`, and a run's end in `exit.json`, whoever was looking at the time.

    run.json   -> what to start (written by the agent)
    shim.lock  -> locked for as long as a shim lives: a second one for the same replica ends at once
    shim.json  -> {"run", "shim": {"pid", "start"}, "child": {"pid", "start"} or null, "note"}
    listen.sock, health.sock   for requests, which the child takes, and for GET / (`gate.py`)
    log/       -> output, as `deployments.drivers.process_logs` describes
    exit.json  -> {"run", "code", "signal", "at", "oom", "log_tail", "asked"}

The child leads a session and process group of its own and dies with the shim (PR_SET_PDEATHSIG); what
is left of its group when it ends is killed. SIGTERM to the shim is passed on to the child.
"""

import contextlib
import ctypes
import fcntl
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

if __package__:
    from deployments.agent.gate import Gate
else:  # run by its path: nothing else of the checkout can be imported
    sys.path.append(str(Path(__file__).parent))
    from gate import Gate  # type: ignore[import-not-found, no-redef]

LONGEST_LINE = 64 * 1024
TAIL_LINES = 200
TAIL_BYTES = 16 * 1024
DRAIN_SECONDS = 2.0  # for output that is still in the pipes when the child has ended
LOCK_SECONDS = 3.0
MOST_SEGMENTS = 40
PR_SET_PDEATHSIG = 1


def start_ticks(pid: int) -> int:
    """The kernel's start time of a process: with the pid it names one process and no other."""
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])


def write_json(path: Path, value: Any) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


class Log:
    """Numbered lines in segments. A full disk loses lines and says how many; it stops nothing."""

    def __init__(self, folder: Path, run: int, segment_bytes: int, segment_count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.run = folder, run
        self.segment_bytes, self.segment_count = segment_bytes, segment_count
        self.number = self._last_number()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.descriptor, self.size = -1, 0
        self.rest = {"o": b"", "e": b""}
        self.lost = 0

    def _segments(self) -> list[Path]:
        return sorted(
            self.folder.glob("*.jsonl"), key=lambda path: int(path.stem.partition("-")[2])
        )

    def _last_number(self) -> int:
        for path in reversed(self._segments()):
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - 8 * LONGEST_LINE))
                whole = file.read().split(b"\n")[:-1]  # what follows the last newline is torn
            if whole:
                number: int = json.loads(whole[-1])["n"]
                return number
        return 0

    def feed(self, stream: str, data: bytes) -> None:
        """Take what came out of one pipe; `data` is b"" at its end."""
        pieces = (self.rest[stream] + data).split(b"\n")
        self.rest[stream] = pieces.pop()
        while len(self.rest[stream]) > LONGEST_LINE:
            pieces.append(self.rest[stream][:LONGEST_LINE])
            self.rest[stream] = self.rest[stream][LONGEST_LINE:]
        if not data and self.rest[stream]:
            pieces.append(self.rest[stream])
            self.rest[stream] = b""
        lines: list[str] = []
        for piece in pieces:
            for begin in range(0, max(len(piece), 1), LONGEST_LINE):
                text = piece[begin : begin + LONGEST_LINE].decode("utf-8", "replace")
                lines.append(text.rstrip("\r"))
        self.write(stream, lines)

    def write(self, stream: str, lines: list[str]) -> None:
        at = round(time.time(), 3)
        if self.lost and lines:
            said = f"slipway: {self.lost} lines were lost: the log could not be written"
            if self._append(self._encode("e", [said], at)):
                self.lost = 0
        self.tail.extend(lines)
        if lines and not self._append(self._encode(stream, lines, at)):
            self.lost += len(lines)

    def _encode(self, stream: str, lines: list[str], at: float) -> bytes:
        encoded = []
        for text in lines:
            self.number += 1
            raw = {"n": self.number, "at": at, "s": stream, "t": text}
            encoded.append(json.dumps(raw, separators=(",", ":")).encode() + b"\n")
        return b"".join(encoded)

    def _append(self, data: bytes) -> bool:
        try:
            if self.descriptor < 0 or self.size >= self.segment_bytes:
                self._rotate(self.number - data.count(b"\n") + 1)
            if os.write(self.descriptor, data) == len(data):
                self.size += len(data)
                return True
            os.ftruncate(self.descriptor, self.size)  # a torn line must not meet the next one
        except OSError:
            if self.descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.ftruncate(self.descriptor, self.size)
        return False

    def _rotate(self, first: int) -> None:
        kept = self._segments()
        sizes = {path: path.stat().st_size for path in kept}
        room = self.segment_bytes * (self.segment_count - 1)
        while kept and (sum(sizes[path] for path in kept) > room or len(kept) >= MOST_SEGMENTS):
            kept.pop(0).unlink()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        path = self.folder / f"{self.run}-{first}.jsonl"
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.size = os.fstat(self.descriptor).st_size

    def last_lines(self) -> str:
        text = "\n".join(self.tail)
        return text[-TAIL_BYTES:]


class Groups:
    """The replica's cgroups, where the agent found that it may make some."""

    def __init__(self, wanted: list[dict[str, Any]]) -> None:
        self.joined: list[Path] = []
        self.oom_file: Path | None = None
        self.notes: list[str] = []
        for group in wanted:
            try:
                path = Path(group["path"])
                path.mkdir(parents=True, exist_ok=True)
                for name, value in group["files"].items():
                    (path / name).write_text(value)
            except OSError as error:
                self.notes.append(f"{group['what']} not enforced: {error}")
                continue
            self.joined.append(path)
            if group.get("oom"):
                self.oom_file = path / group["oom"]
        self.kills_before = self._oom_kills()

    def join(self) -> None:
        """In the child, before it becomes the replica."""
        for path in self.joined:
            with contextlib.suppress(OSError):
                (path / "cgroup.procs").write_text(str(os.getpid()))

    def _oom_kills(self) -> int:
        if self.oom_file is not None:
            with contextlib.suppress(OSError, ValueError):
                for line in self.oom_file.read_text().splitlines():
                    word, _, count = line.partition(" ")
                    if word == "oom_kill":
                        return int(count)
        return 0

    def out_of_memory(self) -> bool:
        return self._oom_kills() > self.kills_before

    def members(self) -> set[int]:
        found: set[int] = set()
        for path in self.joined:
            with contextlib.suppress(OSError):
                found.update(int(line) for line in (path / "cgroup.procs").read_text().split())
        return found - {os.getpid()}

    def remove(self) -> None:
        until = time.monotonic() + 1.0
        for path in self.joined:
            while time.monotonic() < until:
                try:
                    path.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)


def before_exec(groups: Groups, parent: int) -> None:
    """In the child: a group of limits, and death together with the shim."""
    groups.join()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def kill_group(pid: int, groups: Groups) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for member in groups.members():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)


def lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > until:
                return None
            time.sleep(0.05)


class Shim:
    """One run, from `run.json` to `exit.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = json.loads((folder / "run.json").read_text())
        self.groups = Groups(self.run["cgroups"])
        self.log = Log(
            folder / "log",
            self.run["run"],
            self.run["log_bytes"],
            self.run["log_segments"],
        )
        self.gate = Gate(folder, self.run["gate"])
        self.child: subprocess.Popen[bytes] | None = None
        self.asked = self.oom = False

    def main(self) -> None:
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self.terminate)
        self.say(None)
        parent = os.getpid()
        try:
            child = self.child = subprocess.Popen(
                [*self.run["command"], "-b", f"fd://{self.gate.listener.fileno()}"],
                cwd=self.run["cwd"],
                env={**self.run["environment"], "SLIPWAY_CELLS": str(self.gate.memory)},
                pass_fds=(self.gate.listener.fileno(), self.gate.memory),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                preexec_fn=lambda: before_exec(self.groups, parent),
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.log.write(
                "e", [f"slipway: {self.run['command'][0]} could not be started: {error}"]
            )
            self.gate.end()
            self.groups.remove()
            self.end(127)
            return
        with contextlib.suppress(OSError):
            self.say({"pid": child.pid, "start": start_ticks(child.pid)})
        if self.asked:
            self.terminate()
        pipes = {
            stream.fileno(): name
            for stream, name in ((child.stdout, "o"), (child.stderr, "e"))
            if stream
        }
        self.watch(child, wake_read, pipes)
        self.gate.end()
        code = child.wait()
        kill_group(child.pid, self.groups)
        self.drain(pipes)
        self.oom = self.oom or self.groups.out_of_memory()
        self.groups.remove()
        self.end(code)

    def say(self, child: dict[str, int] | None) -> None:
        write_json(
            self.folder / "shim.json",
            {
                "run": self.run["run"],
                "shim": {"pid": os.getpid(), "start": start_ticks(os.getpid())},
                "child": child,
                "note": "; ".join(self.groups.notes),
            },
        )

    def terminate(self, *_: object) -> None:
        self.asked = True
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                self.child.terminate()

    def watch(
        self, child: "subprocess.Popen[bytes]", wake_read: int, pipes: dict[int, str]
    ) -> None:
        """Write output down, and give the gate its turns, until the child has ended."""
        due = 0.0
        while child.poll() is None:
            of_gate = self.gate.waiting()
            poller = select.poll()
            for descriptor in (wake_read, *pipes):
                poller.register(descriptor, select.POLLIN)
            for descriptor, mask in of_gate.items():
                poller.register(descriptor, mask)
            timeouts = [due - time.monotonic()]
            if self.groups.oom_file:
                timeouts.append(1.0)
            timeout = min(timeouts)
            ready = dict(poller.poll(None if timeout == math.inf else max(0.0, 1000 * timeout)))
            for descriptor in ready.keys() & {wake_read, *pipes}:
                if descriptor == wake_read:
                    os.read(wake_read, 4096)
                elif not self.take(descriptor, pipes[descriptor]):
                    del pipes[descriptor]
            if ready.keys() & of_gate.keys() or time.monotonic() >= due:
                self.gate.turn(ready)
                timeout_of_gate = self.gate.timeout()
                due = math.inf if timeout_of_gate is None else time.monotonic() + timeout_of_gate
            if not self.oom and self.groups.out_of_memory():
                self.oom = True
                kill_group(child.pid, self.groups)

    def take(self, descriptor: int, stream: str) -> bool:
        data = os.read(descriptor, 65536)
        self.log.feed(stream, data)
        return bool(data)

    def drain(self, pipes: dict[int, str]) -> None:
        until = time.monotonic() + DRAIN_SECONDS
        while pipes and (left := until - time.monotonic()) > 0:
            for descriptor in select.select(list(pipes), [], [], left)[0]:
                if not self.take(descriptor, pipes[descriptor]):
                    del pipes[descriptor]

    def end(self, code: int) -> None:
        result = {
            "run": self.run["run"],
            "code": code if code >= 0 else 128 - code,
            "signal": max(0, -code),
            "at": time.time(),
            "oom": self.oom,
            "asked": self.asked,
            "log_tail": self.log.last_lines(),
        }
        until = time.monotonic() + 5.0
        while True:
            try:
                write_json(self.folder / "exit.json", result)
                return
            except OSError:  # a full disk; the agent sees a run that ended without a word
                if time.monotonic() > until:
                    return
                time.sleep(0.5)


def main() -> None:
    folder = Path(sys.argv[1])
    held = lock(folder / "shim.lock")
    if held is None:
        sys.exit(75)
    Shim(folder).main()


if __name__ == "__main__":
    main()
