"""PID 1 of a container, as a process of this machine: how it ends."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployments.agent.test_gate import TCP, TOLD

SERVER = """
import signal, sys, time
def end(*_):
    print("bye", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
if sys.argv[1] == "stays":
    time.sleep(60)
"""
RUN = """
import json, sys
from pathlib import Path
from deployments.agent.inside import Inside
sys.exit(Inside(json.loads(sys.argv[1]), Path(sys.argv[2])).main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="i-") as made:  # a socket's path has to be short
        yield Path(made)


def begin(folder: Path, what: str, last_words: float) -> subprocess.Popen[str]:
    told = {
        "command": [sys.executable, "-c", SERVER, what],
        "cwd": str(folder),
        "environment": {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")},
        "gate": {**TOLD, "tcp": TCP},
        "last_words": last_words,
    }
    command = [sys.executable, "-c", RUN, json.dumps(told), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_it_stays_a_moment_after_the_last_words_of_one_that_was_asked_to_end(folder: Path) -> None:
    with begin(folder, "stays", 0.6) as inside:
        assert inside.stdout is not None
        assert inside.stdout.readline() == "up\n"
        inside.send_signal(signal.SIGTERM)
        assert inside.stdout.readline() == "bye\n"
        said = time.monotonic()
        assert inside.wait(20) == 3
        assert time.monotonic() - said >= 0.5


def test_one_that_ends_by_itself_is_not_waited_for(folder: Path) -> None:
    with begin(folder, "ends", 60.0) as inside:
        assert inside.stdout is not None
        assert inside.stdout.readline() == "up\n"
        assert inside.wait(30) == 0
