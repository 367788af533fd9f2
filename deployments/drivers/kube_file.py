"""How the portal's processes reach a Kubernetes cluster: `kube.json` in the cluster's folder.

The driver has no rows. The portal writes the file when a cluster is attached and whenever its settings or a
registry's credentials change; it holds secrets (tokens, keys, passwords) and is its owner's alone (mode 600).
"""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from deployments.codec import from_json, to_json
from deployments.drivers.process_layout import read_json, write_json
from deployments.errors import Unavailable
from deployments.types import KubeSettings, KubeSpec

NAME = "kube.json"


@dataclass(frozen=True, slots=True)
class Login:
    """For one registry, by its address (host and port)."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KubeFile:
    kube: KubeSpec
    settings: KubeSettings
    logins: dict[str, Login] = field(default_factory=dict)


def path_of(root: Path) -> Path:
    return root / NAME


def read(root: Path) -> KubeFile:
    """Raises Unavailable when it is not there or cannot be read."""
    try:
        return from_json(KubeFile, read_json(path_of(root)))
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"{path_of(root)} cannot be read: {error}. Run the cluster's checks in the portal; they "
            "write it anew."
        ) from error


def write(root: Path, value: KubeFile) -> None:
    """Replace it, unless it is this already. Raises OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        if from_json(KubeFile, read_json(path_of(root))) == value:
            return
    except (OSError, ValueError):
        pass  # not there yet, or damaged: written anew
    write_json(path_of(root), to_json(value))


def forget(root: Path) -> None:
    """Not an error when it is gone."""
    with contextlib.suppress(FileNotFoundError):
        path_of(root).unlink()
