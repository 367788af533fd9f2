"""The driver of a process cluster: replicas are processes of this machine, the cluster is a folder.

What stands there beside what `folder` tells, each file with one writer:

    replicas/<id>/run.json          agent    what its shim is to start
                 /shim.json         shim     who runs: pids, start times, run number
                 /exit.json         shim     how the run ended
                 /listen.sock       shim     where it takes requests; the scoring server's
                 /health.sock       shim     where its gate answers GET /
                 /log/              shim     output, see `process_logs`
                 /work/             replica  app/ (its own working copy), home/, tmp/
"""

import time
from collections.abc import Iterator
from typing import ClassVar

from deployments.drivers import process_checks
from deployments.drivers.folder import FolderDriver
from deployments.types import Capacity, Check, ClusterKind


class ProcessDriver(FolderDriver):
    """One process cluster."""

    kind: ClassVar[ClusterKind] = ClusterKind.PROCESS

    def capacity(self) -> Capacity:
        return Capacity(time.time(), (process_checks.this_machine(self.asked()),))

    def check(self) -> Iterator[Check]:
        yield from process_checks.run(self.folder)
