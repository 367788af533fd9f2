"""The agents and routers of Docker clusters, kept under the supervisor as their rows say.

A row that came, changed or went is followed by whoever comes by: the page that did it, and the controller
every few seconds. What was detached is taken apart here too, in this order: its agent and its router's
loop, its HAProxy, what it has on its Engine, its folder. Each step may be cut off and is then repeated.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.management import call_command

from deployments.clusters import changes, engines
from deployments.clusters.models import Cluster
from deployments.codec import from_json
from deployments.drivers import engine_file, process_checks
from deployments.drivers.process_layout import ClusterFolder
from deployments.errors import SlipwayError
from deployments.types import Check, CheckStatus
from portal.supervision import NO_ANSWER, Program, Supervisor, included, of_cluster, render_cluster

if TYPE_CHECKING:
    from deployments.agent.dismantling import Belongings

log = logging.getLogger(__name__)

_AGENT = "agent is alive"
_BEING_ATTACHED = 300.0  # seconds between a cluster's file and its row at the most


def write_files() -> bool:
    """Bring the supervisor's files to what the rows say; True when one changed."""
    folder = included(settings.HOME.run)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = {
        f"{cluster.name}.conf": render_cluster(programs_of(cluster), logs=_logs())
        for cluster in Cluster.objects.filter(kind=Cluster.Kind.DOCKER)
    }
    changed = False
    for path in folder.glob("*.conf"):
        if path.name not in wanted:
            path.unlink(missing_ok=True)
            changed = True
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            fresh = path.with_suffix(f".{os.getpid()}")
            fresh.write_text(text)
            fresh.rename(path)
            changed = True
    return changed


def programs_of(cluster: Cluster) -> tuple[Program, ...]:
    return of_cluster(
        cluster.name,
        cluster.kind,
        python=sys.executable,
        checkout=settings.CHECKOUT,
        port=cluster.router_port or settings.ENV.router_port,
        tls_port=cluster.tls_port,
    )


class ClusterPrograms:
    """Keeps between calls only when something was done last."""

    def __init__(self) -> None:
        self._supervisor = Supervisor(settings.HOME.run)
        self._said: dict[str, str] = {}

    def follow(self) -> None:
        """One round; what fails is said once and tried again in the next."""
        write_files()
        self.take_in()
        rows = {item.name: item for item in Cluster.objects.filter(kind=Cluster.Kind.DOCKER)}
        for root in sorted(settings.HOME.clusters.iterdir()):
            if root.name not in rows and engine_file.path_of(root).exists():
                self._attempt(root.name, partial(_take_apart, root))
        for cluster in rows.values():
            self._attempt(cluster.name, partial(_keep, cluster))

    def take_in(self) -> None:
        if self._supervisor.pid() is None:
            return  # somebody runs the processes by hand
        try:
            self._supervisor.take_in()
        except NO_ANSWER as error:
            log.warning("the supervisor could not be told of clusters: %s", error)

    def _attempt(self, name: str, do: Callable[[], None]) -> None:
        try:
            do()
            self._said.pop(name, None)
        except (SlipwayError, OSError) as error:
            if self._said.get(name) != str(error):
                self._said[name] = str(error)
                log.warning("cluster %s: %s It is tried again.", name, error)


def dismantle(root: Path) -> "Belongings":
    """See `deployments.agent.dismantling`; the client library is slow to import, and seldom needed here."""
    from deployments.agent import dismantling

    return dismantling.dismantle(root)


def _take_apart(root: Path) -> None:
    if not engine_file.is_abandoned(root, time.time(), _BEING_ATTACHED):
        return  # its row is about to be written
    call_command("stop_router", root.name)
    gone = dismantle(root)
    log.info(
        "cluster %s was taken apart: %d containers, %d volumes, %d networks removed",
        root.name,
        len(gone.containers),
        len(gone.volumes),
        len(gone.networks),
    )


def follow_now() -> None:
    """After a page attached or detached a cluster: so that a person need not wait for the controller."""
    write_files()
    ClusterPrograms().take_in()


def _keep(cluster: Cluster) -> None:
    """The file that its agent reads, and its checks once the agent has begun to live."""
    engines.write_file(cluster)
    beat = process_checks.heartbeat(ClusterFolder(settings.HOME.cluster(cluster.name)))
    if beat is None or time.time() - beat > process_checks.HEARTBEAT_STALE:
        return
    stored = [from_json(Check, item) for item in cluster.checks]
    if any(item.name == _AGENT and item.status is not CheckStatus.PASS for item in stored):
        changes.refresh(cluster)


def _logs() -> Path:
    return Path(settings.HOME.logs) / "processes"
