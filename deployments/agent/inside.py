"""PID 1 of a replica's container: keeps its gate, starts the scoring server, and ends as that did.

Run by the image's own Python as `python -I -S inside.py`, from a folder that the agent mounts read-only
(beside it `gate.py` and `gunicorn_conf.py`); standard library only. What `shim.py` is on a process cluster,
less what the Engine does itself: output goes to the container's own, limits and how it ended are
the Engine's to hold and to tell.

    /slipway/told/run.json  -> what to start (written by the agent; read only)
    /slipway/run            listen.sock and health.sock, for the host; leave.sock where these are TCP ports
    /slipway/doors          for connections from gates of this revision whose workers are gone

`inside.py --drain [seconds]` in the same container (a pod's preStop) has that PID 1 leave: it comes back when
everybody had time to see it and nobody is inside, and after so many seconds at the latest.

SIGTERM is passed on to the scoring server. When it ends, what is left in the container ends with it; the
exit code is its own, 128 and the signal's number where one ended it. After a SIGTERM that is `run.json`'s
"last_words" seconds later: a pod's output is gone with it, and whoever copies it looks twice a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if __package__:
    from deployments.agent.gate import Gate
    from deployments.agent.gate_sockets import LEAVE
else:  # run by its path: nothing else can be imported
    sys.path.append(str(Path(__file__).parent))
    from gate import Gate  # type: ignore[import-not-found, no-redef]
    from gate_sockets import LEAVE  # type: ignore[import-not-found, no-redef]

ROOT = Path("/slipway")
_OOM_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
_OOM_LOOK = 1.0  # seconds between looks
_LONGEST_DRAIN = 90.0


class Inside:
    """One run."""

    def __init__(self, told: dict[str, Any], run: Path) -> None:
        self.told = told
        self.gate = Gate(run, told["gate"])
        self.child = 0
        self.code: int | None = None
        self.asked = False
        self.oom_before = oom_kills()

    def main(self) -> int:
        """The exit code."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self.terminate)
        environment = {**os.environ, **self.told["environment"]}
        for name in ("HOME", "TMPDIR"):
            Path(environment[name]).mkdir(mode=0o700, parents=True, exist_ok=True)
        listener = self.gate.listener.fileno()
        try:
            child = subprocess.Popen(
                [*self.told["command"], "-b", f"fd://{listener}"],
                cwd=self.told["cwd"],
                env={**environment, "SLIPWAY_CELLS": str(self.gate.memory)},
                pass_fds=(listener, self.gate.memory),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.say(f"{self.told['command'][0]} could not be started: {error}")
            self.gate.end()
            return 127
        self.child = child.pid
        if self.asked:
            self.terminate()
        self.watch(wake_read)
        self.gate.end()
        child.returncode = self.code  # it was waited for here, with all that PID 1 inherits
        if self.asked:
            time.sleep(self.told.get("last_words", 0.0))
        return self.code or 0

    def terminate(self, *_: object) -> None:
        self.asked = True
        if self.child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGTERM)

    def watch(self, wake_read: int) -> None:
        """Give the gate its turns until the scoring server has ended."""
        due, oom_at = 0.0, time.monotonic() + _OOM_LOOK
        self.reap()
        while self.code is None:
            poller = select.poll()
            poller.register(wake_read, select.POLLIN)
            of_gate = self.gate.waiting()
            for descriptor, mask in of_gate.items():
                poller.register(descriptor, mask)
            timeout = min(due, oom_at) - time.monotonic()
            ready = dict(poller.poll(max(0.0, 1000 * timeout)))
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                self.reap()
            now = time.monotonic()
            if ready.keys() & of_gate.keys() or now >= due:
                self.gate.turn(ready)
                wait = self.gate.timeout()
                due = float("inf") if wait is None else time.monotonic() + wait
            if now >= oom_at:
                oom_at = now + _OOM_LOOK
                if oom_kills() > self.oom_before:
                    # the kernel took one process; what is left of a replica is none
                    self.say("out of memory: a process of this replica was killed")
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(-1, signal.SIGKILL)

    def reap(self) -> None:
        """PID 1 inherits whoever loses its parent."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else 128 - code

    def say(self, text: str) -> None:
        print(f"slipway: {text}", file=sys.stderr, flush=True)  # noqa: T201  the container's output


def oom_kills() -> int:
    """How many processes of this container the kernel has killed for its memory limit."""
    for name in _OOM_FILES:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(name).read_text().splitlines():
                word, _, count = line.partition(" ")
                if word == "oom_kill":
                    return int(count)
    return 0


def drain(run: Path, seconds: float) -> bool:
    """Have the PID 1 whose folder this is leave, and wait until it has; False when it had not in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(seconds)
        try:
            asked.connect(str(run / LEAVE))
            return bool(asked.recv(16))
        except TimeoutError:
            return False
        except OSError:
            return True  # nobody is there: nothing is inside


def main() -> None:
    if sys.argv[1:2] == ["--drain"]:
        seconds = float(sys.argv[2]) if len(sys.argv) > 2 else _LONGEST_DRAIN
        sys.exit(0 if drain(ROOT / "run", seconds) else 1)
    told = json.loads((ROOT / "told" / "run.json").read_text())
    code = Inside(told, ROOT / "run").main()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
