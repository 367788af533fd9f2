"""Replicas as processes of this machine, each under a shim that outlives the agent."""

import logging
import socket
import subprocess
from collections.abc import Collection

from deployments.agent import causes, cgroups, command, life, processes, store
from deployments.agent.host import Powers, Run
from deployments.agent.record import Process, Record, Room
from deployments.drivers import process_checks
from deployments.drivers.process_layout import ClusterFolder, write_json
from deployments.sockets import address_of
from deployments.types import Cause

logger = logging.getLogger(__name__)


class ProcessHost:
    """This machine, for one cluster."""

    copiers = 2

    def __init__(
        self,
        folder: ClusterFolder,
        *,
        ability: cgroups.Ability | None = None,
        log_bytes: int = command.LOG_BYTES,
    ) -> None:
        self.folder, self.log_bytes = folder, log_bytes
        self.ability = cgroups.discover() if ability is None else ability
        self.node = socket.gethostname()
        whole = process_checks.this_machine(())
        self._room = Room(whole.cpu_total, whole.memory_gb_total)
        self._shims: list[subprocess.Popen[bytes]] = []
        self._swept: dict[str, int] = {}  # replica -> run of which nothing is left

    def begin(self) -> None:
        self._shims = [shim for shim in self._shims if shim.poll() is None]

    def room(self) -> Room:
        return self._room

    def powers(self) -> Powers:
        return Powers(self.ability.said, bool(self.ability.cpu), bool(self.ability.memory))

    def note(self, record: Record) -> str:
        return self.ability.note(record.revision.resources)

    def address(self, record: Record) -> str:
        return address_of(self.folder.replica(record.id))

    def prepare(self, record: Record) -> Cause | None:
        try:
            staged = store.prepare(self.folder, record)
        except OSError as error:
            return causes.of_preparing(error, record.revision)
        return None if staged else causes.not_staged(record.revision)

    def progress(self, record: Record) -> str:
        return ""

    def look(self, record: Record) -> Run:
        folder = self.folder.replica(record.id)
        seen = processes.look(folder, record.run)
        over = seen.process in (Process.ENDED, Process.VANISHED)
        if over and self._swept.get(record.id) != record.run:
            if processes.kill_all_of(folder):
                # Something of it still lived; it is gone by the next cycle.
                return Run(Process.RUNNING, note=seen.note)
            self._swept[record.id] = record.run
        return Run(seen.process, exit=seen.exit, note=seen.note)

    def write(self, record: Record) -> None:
        folder = self.folder.replica(record.id)
        resources = record.revision.resources
        told = command.build(
            record.revision,
            replica=record.id,
            run=record.run,
            silence=life.longest_silence(record.revision),
            work=folder / "work",
            staged=self.folder.revision(record.revision),
            cgroups=self.ability.groups(f"{self.folder.root.name}-{record.id}", resources),
            log_bytes=self.log_bytes,
        )
        write_json(folder / "run.json", told)

    def start(self, record: Record) -> None:
        self._shims.append(processes.spawn_shim(self.folder.replica(record.id)))

    def terminate(self, record: Record) -> None:
        processes.terminate(processes.look(self.folder.replica(record.id), record.run))

    def kill(self, record: Record) -> bool:
        return processes.kill_all_of(self.folder.replica(record.id))

    def forget(self, record: Record) -> None:
        self._swept.pop(record.id, None)

    def others(self, records: Collection[Record]) -> None:
        """None can be: a shim without its record's folder is ended with that."""

    def woken(self) -> bool:
        return False

    def close(self) -> None:
        """Its shims live on."""
