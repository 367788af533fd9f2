"""Runs uv or pip: the commands that make a virtual environment, line by line, with a deadline.

Talks to child processes only; knows no rows. A child gets a session of its own, so that it can be
stopped with all it started, and none of Slipway's own settings or secrets.
"""

import codecs
import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import uv

from deployments.environments.mapping import SCORING_SERVER

REQUIREMENTS = "slipway-requirements.txt"
_TICK = 0.5  # seconds between two beats, at most
_KEPT_PRIVATE = ("SLIPWAY_", "DATABASE_URL", "REDIS_URL", "DJANGO_")
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT")


class TimedOut(Exception):
    """The deadline passed; the child was stopped."""


def commands(installer: str, *, python: Path, venv: Path) -> list[list[str]]:
    """What to run in order to fill `venv`, whose requirements file is written already.

    Made in its final place: a script's first line holds the environment's absolute path, and a
    renamed environment's scripts would run the old one.
    """
    target, requirements = str(venv / "bin/python"), str(venv / REQUIREMENTS)
    if installer == "uv":
        tool = uv.find_uv_bin()
        make = [tool, "venv", "--allow-existing", "--no-project", "--no-python-downloads"]
        make += ["--python", str(python), str(venv)]
        install = [tool, "pip", "install", "--no-progress", "--color", "never"]
        install += ["--python", target, "-r", requirements]
    else:
        make = [str(python), "-m", "venv", str(venv)]
        install = [target, "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
        install += ["--disable-pip-version-check", "--no-color", "-r", requirements]
    # what is never imported is not known to work: a missing setuptools shows here, not in a replica
    check = [target, "-c", f"import {SCORING_SERVER.replace('-', '_')}.amlserver"]
    return [make, install, check]


def run(
    command: Sequence[str],
    *,
    pid_file: Path,
    deadline: float,
    on_lines: Callable[[list[str]], None],
    beat: Callable[[], None],
) -> int:
    """Run to the end and give the exit code. `deadline` is on the monotonic clock.

    `beat` is called at least each second; whatever it raises stops the child and passes through.
    Raises TimedOut.
    """
    child = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=_environment(),
        bufsize=0,
    )
    try:
        _remember(child.pid, pid_file)
        _follow(child, deadline, on_lines, beat)
        return child.wait(timeout=max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise TimedOut from error
    finally:
        _kill_group(child.pid)
        child.wait()
        if child.stdout:
            child.stdout.close()
        pid_file.unlink(missing_ok=True)


def kill_left_over(pid_file: Path) -> None:
    """Stop a child whose parent was killed, if the recorded process is still that very one."""
    try:
        recorded = json.loads(pid_file.read_text(encoding="utf-8"))
        process = psutil.Process(recorded["pid"])
        if process.create_time() == recorded["started"]:
            _kill_group(recorded["pid"])
            process.wait(timeout=5)
    except (FileNotFoundError, ValueError, KeyError, psutil.Error):
        pass
    pid_file.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_KEPT_PRIVATE) and name not in _NOT_INHERITED
    }
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1"}


def _remember(pid: int, pid_file: Path) -> None:
    fresh = pid_file.with_suffix(".new")
    fresh.write_text(
        json.dumps({"pid": pid, "started": psutil.Process(pid).create_time()}), encoding="utf-8"
    )
    fresh.replace(pid_file)


def _follow(
    child: "subprocess.Popen[bytes]",
    deadline: float,
    on_lines: Callable[[list[str]], None],
    beat: Callable[[], None],
) -> None:
    """Read the output until its end. A child that closed it is waited for by the caller."""
    if child.stdout is None:
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            beat()
            if time.monotonic() > deadline:
                raise TimedOut
            if not selector.select(timeout=_TICK):
                if child.poll() is not None:
                    return  # something it started still holds the pipe
                continue
            data = os.read(child.stdout.fileno(), 65536)
            *lines, rest = (rest + decoder.decode(data, final=not data)).split("\n")
            if not data and rest:
                lines.append(rest)
            if lines:
                on_lines([line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines])
            if not data:
                return


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
