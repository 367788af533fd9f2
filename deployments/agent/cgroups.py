"""Which cpu and memory limits this machine lets the agent enforce, and how.

Replicas get groups of their own under `<controller>/slipway/`. That is done only where the agent itself
stands in the root group or in one of systemd's own: a group that some other supervisor made (a
container's, a job runner's) is never left, because its limits hold for the replicas too and its owner
counts on finding them there. What cannot be enforced is said, not guessed at.

Reads `/proc/self` and writes below the mounted cgroup file systems; nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.types import Resources

_SYSTEMD = ("/user.slice", "/system.slice", "/init.scope")
_PERIOD_US = 100_000
_BASE = "slipway"
_PROBE = ".probe"


@dataclass(frozen=True, slots=True)
class Ability:
    """Where groups may be made. An empty path means not at all; `said` is for people."""

    version: int  # 1 or 2; 0 is none
    cpu: str
    memory: str
    said: str

    def groups(self, name: str, resources: Resources) -> list[dict[str, Any]]:
        """What the shim makes for one replica: [{"what", "path", "files", "oom"}]."""
        if self.version == 2:
            return self._second(name, resources)
        found: list[dict[str, Any]] = []
        if self.cpu:
            files = {"cpu.shares": str(max(2, round(resources.cpu * 1024)))}
            if resources.cpu_limit:
                files["cpu.cfs_period_us"] = str(_PERIOD_US)
                files["cpu.cfs_quota_us"] = str(max(1000, round(resources.cpu_limit * _PERIOD_US)))
            found.append({"what": "cpu limit", "path": f"{self.cpu}/{name}", "files": files})
        if self.memory:
            files = {}
            if resources.memory_gb_limit:
                files["memory.limit_in_bytes"] = str(round(resources.memory_gb_limit * 2**30))
            found.append(
                {
                    "what": "memory limit",
                    "path": f"{self.memory}/{name}",
                    "files": files,
                    "oom": "memory.oom_control",
                }
            )
        return found

    def _second(self, name: str, resources: Resources) -> list[dict[str, Any]]:
        files = {}
        if self.cpu:
            files["cpu.weight"] = str(min(10_000, max(1, round(resources.cpu * 100))))
            if resources.cpu_limit:
                quota = max(1000, round(resources.cpu_limit * _PERIOD_US))
                files["cpu.max"] = f"{quota} {_PERIOD_US}"
        if self.memory:
            files["memory.oom.group"] = "1"
            if resources.memory_gb_limit:
                files["memory.max"] = str(round(resources.memory_gb_limit * 2**30))
        base = self.memory or self.cpu
        if not base:
            return []
        group = {"what": "cpu and memory limit", "path": f"{base}/{name}", "files": files}
        return [{**group, "oom": "memory.events"} if self.memory else group]

    def note(self, resources: Resources) -> str:
        """What of these limits is not enforced, for the replica's note; "" when all is."""
        missing = []
        if resources.cpu_limit and not self.cpu:
            missing.append("cpu limit")
        if resources.memory_gb_limit and not self.memory:
            missing.append("memory limit")
        return f"{' and '.join(missing)} not enforced: {self.said}" if missing else ""


def discover(
    mounts: str | None = None,
    own: str | None = None,
    try_group: Callable[[Path], str] | None = None,
) -> Ability:
    """Look at this machine. Arguments are for tests: the two files' texts and how a group is tried.

    `try_group(base)` makes the base and one group in it, removes that again, and returns "" or why not.
    """
    try:
        mounts = Path("/proc/self/mounts").read_text() if mounts is None else mounts
        own = Path("/proc/self/cgroup").read_text() if own is None else own
    except OSError as error:
        return Ability(0, "", "", f"no cgroups: {error}")
    try_group = try_group or _try_group
    first, second = _mounts(mounts)
    paths = _own_paths(own)
    if first.keys() & {"cpu", "memory"}:
        return _ability(1, first, paths, try_group)
    if second:
        return _ability(2, {"cpu": second, "memory": second}, paths, try_group)
    return Ability(0, "", "", "no cgroups on this machine")


def _ability(
    version: int,
    mounted: Mapping[str, str],
    paths: Mapping[str, str],
    try_group: Callable[[Path], str],
) -> Ability:
    found: dict[str, str] = {}
    said: list[str] = []
    for controller in ("cpu", "memory"):
        place, why = "", "not mounted"
        if controller in mounted:
            base = Path(mounted[controller]) / _BASE
            own = paths.get("" if version == 2 else controller, "/")
            if own != "/" and not own.startswith(_SYSTEMD):
                why = "this process is in a group of another supervisor"
            elif not (why := try_group(base)) and not (why := _lacks(version, controller, base)):
                place = str(base)
        found[controller] = place
        said.append(f"{controller}: cgroup v{version}" if place else f"{controller}: {why}")
    return Ability(version, found["cpu"], found["memory"], "; ".join(said))


def _lacks(version: int, controller: str, base: Path) -> str:
    """Why a version 2 base cannot hand this controller down; "" when it can."""
    if version == 1:
        return ""
    for folder in (base.parent, base):
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            return f"cannot be enabled in {folder}: {error.strerror}"
    return ""


def _try_group(base: Path) -> str:
    try:
        base.mkdir(exist_ok=True)
        probe = base / _PROBE
        probe.mkdir(exist_ok=True)
        probe.rmdir()
    except OSError as error:
        return f"{base} cannot be made: {error.strerror}"
    return ""


def _mounts(text: str) -> tuple[dict[str, str], str]:
    """Version 1 mount points by controller, and the version 2 mount point or ""."""
    first: dict[str, str] = {}
    second = ""
    for line in text.splitlines():
        parts: Sequence[str] = line.split()
        if len(parts) < 4:
            continue
        if parts[2] == "cgroup":
            for option in parts[3].split(","):
                if option in ("cpu", "memory"):
                    first[option] = parts[1]
        elif parts[2] == "cgroup2":
            second = parts[1]
    return first, second


def _own_paths(text: str) -> dict[str, str]:
    """This process's group by controller; "" is version 2's."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            paths[controller] = path
    return paths
