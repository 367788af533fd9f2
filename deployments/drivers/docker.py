"""The driver of a Docker cluster: replicas are containers of an Engine, what is wanted is a folder here.

The folder is the process cluster's (see `folder`), and beside what stands there:

    engine.json                     portal   how the Engine is reached (`engine_file`; mode 600)
    runtime-<hash>/  doors/         agent    what containers are given (`deployments.agent.container_host`)
    replicas/<id>/told/ run/        agent    what a container starts; where it makes its sockets

What runs is told by the Engine alone, and kept in the replicas' records by the agent. This module
asks the Engine for its room and whether it works; it never starts a replica.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

from deployments.drivers import docker_checks, engine_file
from deployments.drivers.folder import FolderDriver
from deployments.engine.containers import Engine
from deployments.types import Capacity, Check, ClusterKind


class DockerDriver(FolderDriver):
    """One Docker cluster."""

    kind: ClassVar[ClusterKind] = ClusterKind.DOCKER

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self.root = Path(root)

    def capacity(self) -> Capacity:
        file = engine_file.read(self.root)
        with closing(Engine(file.engine)) as engine:
            about = engine.about()
        return Capacity(time.time(), (docker_checks.node(about, engine.local, self.asked()),))

    def check(self) -> Iterator[Check]:
        yield from docker_checks.run(self.folder)
