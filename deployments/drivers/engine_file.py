"""How the agent and the driver of a Docker cluster reach its Engine: `engine.json` in the cluster's folder.

They have no rows. The portal writes the file when a cluster is attached and whenever a registry's
credentials change; it holds secrets (a TLS key, passwords) and is its owner's alone (mode 600).
"""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from deployments.codec import from_json, to_json
from deployments.drivers.process_layout import read_json, write_json
from deployments.errors import Unavailable
from deployments.types import EngineSpec

NAME = "engine.json"
DETACHED = "detached"  # beside it once the cluster's row is gone: what is left is to be taken apart


@dataclass(frozen=True, slots=True)
class Login:
    """For one registry, by its address (host and port)."""

    username: str
    password: str


@dataclass(frozen=True, slots=True)
class EngineFile:
    """`id` marks this cluster's containers, volumes and networks: two Slipways may share an Engine."""

    id: str
    engine: EngineSpec
    logins: dict[str, Login] = field(default_factory=dict)
    registries: tuple[str, ...] = ()  # base URLs that the Engine should reach


def path_of(root: Path) -> Path:
    return root / NAME


def mark_detached(root: Path) -> None:
    """Says that nobody wants this cluster any more. Not an error when it is gone."""
    with contextlib.suppress(FileNotFoundError):
        (root / DETACHED).touch()


def is_abandoned(root: Path, now: float, seconds: float) -> bool:
    """Whether a cluster without a row is one that was detached, rather than being attached just now:
    its mark says so, or its age (`seconds`), where whoever detached it was killed before."""
    try:
        return (root / DETACHED).exists() or now - path_of(root).stat().st_mtime > seconds
    except FileNotFoundError:
        return False


def read(root: Path) -> EngineFile:
    """Raises Unavailable when it is not there or cannot be read."""
    try:
        return from_json(EngineFile, read_json(path_of(root)))
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"{path_of(root)} cannot be read: {error}. Run the cluster's checks in the portal; they "
            "write it anew."
        ) from error


def write(root: Path, value: EngineFile) -> None:
    """Replace it, unless it is this already. Raises OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        if from_json(EngineFile, read_json(path_of(root))) == value:
            return
    except (OSError, ValueError):
        pass  # not there yet, or damaged: written anew
    write_json(path_of(root), to_json(value))
