"""The first process of a router's pod: starts the control loop, and starts it again when it dies.

HAProxy is started by the loop and serves on without it, as on a machine: so the pod, and all requests in it,
outlive the loop. `python -m router.pod_init CLUSTER ...`: the arguments are `run_router`'s. SIGTERM is the
loop's to act on (it drains the pod); when it has ended after that, so does this.

Standard library only.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

_COMMAND = ("manage.py", "run_router", "--settings", "portal.settings_rowless")
_KIND = ("--kind", "kubernetes")
_AGAIN_SECONDS = 1.0  # between two starts
_STEADY_SECONDS = 60.0  # a run shorter than this counts as a failed start
_MOST_FAILED = 10  # failed starts in a row: let Kubernetes start the pod anew, where all can see it


class Init:
    """One pod's."""

    def __init__(self, arguments: list[str]) -> None:
        self.command = [sys.executable, *_COMMAND, *arguments, *_KIND]
        self.asked = False
        self.child: int | None = None

    def terminate(self, *_: object) -> None:
        self.asked = True
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGTERM)

    def main(self) -> int:
        """The exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.terminate)
        failed = 0
        while True:
            began = time.monotonic()
            process = subprocess.Popen(self.command)
            self.child = process.pid
            if self.asked:
                self.terminate()
            code = self.wait(process.pid)
            process.returncode, self.child = code, None  # it was waited for here, with all orphans
            if self.asked:
                return 0
            failed = failed + 1 if time.monotonic() - began < _STEADY_SECONDS else 0
            print(f"the loop ended ({code}) and is started again", file=sys.stderr, flush=True)  # noqa: T201
            if failed >= _MOST_FAILED:
                return 1
            time.sleep(_AGAIN_SECONDS)

    def wait(self, child: int) -> int:
        """Until the child ends. Process 1 inherits HAProxy from a loop that died, and buries whoever ends."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                return 1
            if pid == child:
                return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    raise SystemExit(Init(sys.argv[1:]).main())
