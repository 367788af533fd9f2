"""Which Pythons this machine has to build virtual environments with.

Looks at the path and at uv's own folder; runs nothing and downloads nothing.
"""

import shutil
import sys
from pathlib import Path

_OLDEST, _NEWEST = 8, 20  # minor versions of Python 3 that are looked for


def own() -> tuple[int, int]:
    """The Python that runs Slipway; the preferred one."""
    return sys.version_info[0], sys.version_info[1]


def find() -> dict[tuple[int, int], Path]:
    """(major, minor) to executable, Slipway's own first, then the newest."""
    executable = Path(getattr(sys, "_base_executable", "") or sys.executable)
    found = {own(): executable}
    for minor in range(_NEWEST, _OLDEST - 1, -1):
        version = (3, minor)
        path = shutil.which(f"python3.{minor}") or _uv_managed(minor)
        if path and version not in found:
            found[version] = Path(path)
    return found


def _uv_managed(minor: int) -> str | None:
    try:
        folder = Path.home() / ".local/share/uv/python"
    except RuntimeError:  # a service user without a home
        return None
    candidates = sorted(folder.glob(f"cpython-3.{minor}.*/bin/python3.{minor}"))
    return str(candidates[-1]) if candidates else None
