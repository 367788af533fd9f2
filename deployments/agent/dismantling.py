"""Take a Docker cluster apart once it was detached: its containers, volumes and network, then its folder.

Runs when its agent and router were ended; holds the agent's lock meanwhile. Every step may be repeated, and
the folder goes last: as long as it stands, whoever comes by knows that there is something left to do.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from deployments.agent import processes
from deployments.agent.container_far import remove_left_over
from deployments.drivers import engine_file
from deployments.drivers.process_layout import ClusterFolder, locked
from deployments.engine.containers import Engine

_AGENT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a cluster has on its Engine, by name."""

    containers: tuple[str, ...]
    volumes: tuple[str, ...]
    networks: tuple[str, ...]


def belongings(root: Path) -> Belongings:
    """Raises Unavailable when the Engine cannot be asked."""
    file = engine_file.read(root)
    with closing(Engine(file.engine)) as engine:
        return Belongings(
            containers=tuple(sorted(item.name for item in engine.containers(file.id))),
            volumes=tuple(engine.volumes(file.id)),
            networks=tuple(sorted(engine.networks(file.id).values())),
        )


def dismantle(root: Path) -> Belongings:
    """What was removed. Raises Unavailable while its agent lives or its Engine is away."""
    file = engine_file.read(root)
    with locked(ClusterFolder(root).agent_lock, deadline=_AGENT_SECONDS):
        with closing(Engine(file.engine)) as engine:
            listed = engine.containers(file.id)
            for item in listed:
                engine.remove(item.id)
            remove_left_over(engine, file.id)
            for front in ClusterFolder(root).replicas.glob("*/front"):
                processes.kill_all_of(front)  # what stood before a container, here
            volumes, networks = engine.volumes(file.id), engine.networks(file.id)
            _each(engine.remove_volume, volumes)
            _each(engine.remove_network, tuple(networks))
        # The mark last of all: a folder with it is one that is not done.
        for entry in root.iterdir():
            if entry.name != engine_file.NAME:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.rmtree(root)
    names = tuple(sorted(item.name for item in listed))
    return Belongings(names, tuple(volumes), tuple(networks.values()))


def _each(remove: Callable[[str], None], names: Sequence[str]) -> None:
    for name in names:
        remove(name)
