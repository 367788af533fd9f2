"""Load at a constant rate, and the replica that answers it: one process, see `replica.lua`.

The replica listens from the start, so a router that has its address finds it; the load begins with `run`.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from bench.routing.load import REPLICA, Target
from bench.routing.processes import BenchError, free_port

_STARTS = 20  # seconds


class OpenLoop:
    """`rounds` rounds of `seconds` for each target in turn. A target of port 0 is the replica itself."""

    def __init__(self, core: int, rounds: int, seconds: float) -> None:
        self.port = free_port()
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *REPLICA],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "REPLICA": f"load {self.port} {rounds} {seconds:g}"},
        )
        self._seconds = rounds * (seconds + 6)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "listening":
            raise BenchError(f"the load at a constant rate does not start: {self._last_words()}")

    def run(self, targets: Sequence[Target], rate: float) -> dict[str, list[dict[str, Any]]]:
        """By target: rate reached, `p50_ms`, `p99_ms`, `failed`, and `late`: the share of requests that
        left more than 1 ms after they were due though a connection was free."""
        lines = [f"{item.name} {item.port} {item.path} {item.token}\n" for item in targets]
        try:
            told, trouble = self._process.communicate(
                "".join(lines) + f"go {rate:.0f}\n", timeout=_STARTS + self._seconds * len(targets)
            )
        except subprocess.TimeoutExpired as error:
            self.close()
            raise BenchError("the load at a constant rate did not end") from error
        if self._process.returncode:
            raise BenchError(f"the load at a constant rate failed: {trouble[-400:]}")
        found: dict[str, list[dict[str, Any]]] = {item.name: [] for item in targets}
        for line in told.splitlines():
            result = json.loads(line)
            if not result["timed"]:
                raise BenchError(f"{result['target']} answered nothing at a constant rate")
            found[result["target"]].append(result)
        return found

    def close(self) -> None:
        """Also when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(10)

    def _last_words(self) -> str:
        self.close()
        assert self._process.stderr is not None
        return self._process.stderr.read()[-400:]
