"""The agent of a cluster that is a folder: brings what runs to what is wanted, one cycle at a time.

    read what is wanted -> look at every replica -> advance each one's life -> plan -> act -> heartbeat

All deciding is in `life` and `plan`; what a replica is, a process or a container, is the `host`'s affair.
This module reads files, looks and does as told. Where the host cannot see, nothing is decided.
A record is written before what it says is done, so whoever comes after a kill finds it. Ending the
agent ends no replica. One agent a cluster, by a lock; it never touches a scoring request.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from deployments.agent import life, plan, store
from deployments.agent.host import Host
from deployments.agent.hosts import host_for
from deployments.agent.prober import Prober
from deployments.agent.record import PACE, Pace, Process, Record, Sighting, Wanted
from deployments.codec import from_json, to_json
from deployments.drivers import process_checks, process_logs
from deployments.drivers.folder import ServiceScale, VersionScale, wanted
from deployments.drivers.process_layout import (
    Cached,
    ClusterFolder,
    locked,
    revision_key,
    write_json,
)
from deployments.errors import Unavailable
from deployments.types import Cause, ClusterKind, Exit, Phase, RouteReport, ServiceSpec

logger = logging.getLogger(__name__)

_IDLE = 0.5  # seconds between cycles while nothing changes
_BUSY = 0.1  # and while something is on its way
_WAKE = 0.05  # how often files are looked at in between
_TIDY = 60.0
_START_PROBE = 0.25
_START_DEADLINE = 10.0
_ON_THE_WAY = (Phase.SCHEDULING, Phase.PULLING, Phase.STARTING, Phase.LOADING, Phase.DRAINING)
_STARTING = (Phase.STARTING, Phase.LOADING)


class Agent:
    """One cluster's agent."""

    def __init__(
        self,
        root: Path,
        host: Host | None = None,
        *,
        pace: Pace = PACE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = ClusterFolder(root)
        self.folder.ensure()
        self.pace, self.clock = pace, clock
        self.host = host_for(self.folder, ClusterKind.PROCESS) if host is None else host
        self.records: dict[str, Record] = {}
        self.prober = Prober()
        self._copiers = ThreadPoolExecutor(max_workers=self.host.copiers, thread_name_prefix="copy")
        self._copies: dict[tuple[str, int], Future[Cause | None]] = {}
        self._specs: Cached[ServiceSpec] = Cached()
        self._scales: Cached[ServiceScale] = Cached()
        self._report: Cached[RouteReport] = Cached()
        self._keys: dict[str, tuple[ServiceSpec, dict[str, str]]] = {}
        self._asked_to_end: set[tuple[str, int]] = set()
        self._killed: set[tuple[str, int]] = set()  # whose kill was said; it is sent until it shows
        self._trouble = ""  # why nothing can be seen, as it was said
        self._stop = threading.Event()
        self._beat_at = self._tidied_at = 0.0

    def load(self) -> None:
        """Find the replicas of whoever was the agent before."""
        self.records = store.load(self.folder)
        logger.info("limits: %s", self.host.powers().said)
        for record in self.records.values():
            logger.info("%s: found again, %s", record.id, record.phase)

    def stop(self, *_: object) -> None:
        """End after this cycle; replicas stay."""
        self._stop.set()

    def run(self) -> None:
        """Cycle until `stop`. Raises Unavailable when another agent has this cluster."""
        with locked(self.folder.agent_lock, deadline=15.0):
            self.load()
            while not self._stop.is_set():
                busy = True
                try:
                    busy = self.cycle()
                except Exception:  # the loop outlives whatever one cycle meets
                    logger.exception("cycle failed; the next one begins in a second")
                    self._stop.wait(1.0)
                self._pause(busy)
        self.close()

    def close(self) -> None:
        self.prober.close()
        self.host.close()
        self._copiers.shutdown(wait=False, cancel_futures=True)

    def _pause(self, busy: bool) -> None:
        """Until the next cycle is due, or a file says that something is wanted."""
        until = time.monotonic() + (_BUSY if busy else _IDLE)
        before = self._stamps()
        while time.monotonic() < until and not self._stop.wait(_WAKE):
            if self._stamps() != before or self.host.woken():
                return

    def _stamps(self) -> list[int]:
        stamps = []
        for path in (self.folder.services, self.folder.scales):
            try:
                stamps.append(path.stat().st_mtime_ns)
            except FileNotFoundError:
                stamps.append(0)
        return stamps

    # One cycle

    def cycle(self) -> bool:
        """Do what there is to do now; True while something is on its way."""
        now = self.clock()
        try:
            self.host.begin()
            self._trouble = ""
        except Unavailable as error:
            if error.message != self._trouble:
                self._trouble = error.message
                logger.error("%s Nothing is decided until it can be seen.", error.message)
            self._heartbeat(now)
            return False
        wishes, unreadable = self._wanted()
        report = self._route_report()
        sightings = {record.id: self._look(record) for record in self.records.values()}
        for record in list(self.records.values()):
            note = sightings[record.id].note
            if record.phase is Phase.PULLING and note != record.note:
                self._save(record := replace(record, note=note))
            step = life.advance(record, sightings[record.id], now, self.pace)
            if step.record != record:
                self._tell(record, step.record)
                self._save(step.record)
            if step.signal is not None:
                self._signal(step.record, step.signal)
        known = [item for item in self.records.values() if item.service not in unreadable]
        actions = plan.plan(wishes, known, sightings, report, self.host.room(), now, self.pace)
        for action in actions:
            self._act(action)
        self.prober.forget_all_but(set(self.records))
        self.host.others(self.records.values())
        self._heartbeat(now)
        if now - self._tidied_at >= _TIDY:
            self._tidied_at = now
            store.tidy(self.folder, self.records.values(), wishes, whole=not unreadable, now=now)
        return bool(actions) or any(item.phase in _ON_THE_WAY for item in self.records.values())

    def _wanted(self) -> tuple[list[Wanted], set[str]]:
        """What is wanted, and the services whose wish cannot be read: those are left alone."""
        wishes: list[Wanted] = []
        unreadable: set[str] = set()
        for path in sorted(self.folder.services.glob("[!.]*.json")):
            name = path.stem
            try:
                spec = self._specs.get(path, lambda data: from_json(ServiceSpec, data))
                scale = self._scale(name)
            except FileNotFoundError:
                continue  # removed meanwhile
            except (OSError, ValueError) as error:
                logger.error("%s cannot be read: %s; %s is left as it is", path, error, name)
                unreadable.add(name)
                continue
            keys = self._revision_keys(spec)
            for version in spec.versions:
                asked = scale.get(version.name)
                wishes.append(
                    Wanted(
                        service=name,
                        version=version.name,
                        revision=version.revision,
                        key=keys[version.name],
                        count=wanted(version.scaling, asked),
                        prefer_removing=asked.prefer_removing if asked else (),
                    )
                )
        return wishes, unreadable

    def _scale(self, service: str) -> dict[str, VersionScale]:
        try:
            path = self.folder.scale(service)
            return self._scales.get(path, lambda data: from_json(ServiceScale, data)).versions
        except FileNotFoundError:
            return {}

    def _revision_keys(self, spec: ServiceSpec) -> dict[str, str]:
        kept = self._keys.get(spec.name)
        if kept is None or kept[0] is not spec:
            keys = {version.name: revision_key(version.revision) for version in spec.versions}
            kept = self._keys[spec.name] = (spec, keys)
        return kept[1]

    def _route_report(self) -> RouteReport | None:
        """The router's last word; None is unknown, and nothing is stopped on it."""
        try:
            return self._report.get(self.folder.routes, lambda data: from_json(RouteReport, data))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.error("%s cannot be read: %s", self.folder.routes, error)
            return None

    # Looking

    def _look(self, record: Record) -> Sighting:
        folder = self.folder.replica(record.id)
        if record.phase is Phase.PULLING:
            return self._look_at_copy(record)
        if not record.run:
            return Sighting()
        run = self.host.look(record)
        log = ""
        if run.process in (Process.ENDED, Process.VANISHED):
            if record.phase in (*_STARTING, Phase.READY):
                said = process_logs.tail(folder / "log", run=record.run), run.said
                log = "\n".join(filter(None, said))
            return Sighting(run.process, exit=run.exit, log=log)
        if run.process is Process.NONE:
            return Sighting()
        if record.phase in _STARTING:
            log = process_logs.tail(folder / "log", run=record.run)
        note = "; ".join(filter(None, (self.host.note(record), run.note)))
        seen = Sighting(Process.RUNNING, log=log, note=note)
        if record.phase not in (*_STARTING, Phase.READY):
            self.prober.forget(record.id)
            return seen
        starting = record.phase in _STARTING
        probe = record.revision.probe
        answers = self.prober.watch(
            record.id,
            record.run,
            folder,
            every=_START_PROBE if starting else probe.period_seconds,
            deadline=_START_DEADLINE if starting else probe.timeout_seconds,
        )
        return replace(
            seen,
            good_at=answers.since if answers.good_at is None else answers.good_at,
            streak=answers.streak,
            refused=answers.refused,
        )

    def _look_at_copy(self, record: Record) -> Sighting:
        key = (record.id, record.run + 1)
        copy = self._copies.get(key)
        if copy is None:
            self._copies[key] = self._copiers.submit(self.host.prepare, record)
        elif copy.done():
            trouble = copy.result()
            if trouble is not None:
                del self._copies[key]
            return Sighting(prepared=trouble is None, trouble=trouble)
        return Sighting(note=self.host.progress(record))

    # Acting

    def _act(self, action: plan.Action) -> None:
        if isinstance(action, plan.Create):
            record = store.create(self.folder, action.wanted, self.host.node, self.clock())
            self.records[record.id] = record
            logger.info("%s: created: %s", record.id, action.reason)
            return
        record = self.records[action.replica]
        if isinstance(action, plan.Refuse):
            logger.warning("%s: waits: %s", record.id, action.cause.message)
            self._save(replace(record, cause=action.cause))
            return
        if isinstance(action, plan.Place):
            self._place(record, action.reason)
            return
        logger.info("%s: %s: %s", record.id, type(action).__name__.lower(), action.reason)
        now = self.clock()
        if isinstance(action, plan.Start):
            self._start(record, now)
        elif isinstance(action, plan.Drain):
            self._save(replace(record, phase=Phase.DRAINING, drain_at=now))
        elif isinstance(action, plan.Stop):
            self._save(replace(record, term_at=now))
            self._signal(self.records[record.id], life.Signal.TERM)
        else:
            self._forget(record)

    def _place(self, record: Record, reason: str) -> None:
        logger.info("%s: placed: %s", record.id, reason)
        placed = replace(
            record,
            phase=Phase.PULLING,
            address=self.host.address(record),
            term_at=None,
            restarts=record.restarts + (record.phase is Phase.CRASHED),
            cause=None if _waited(record) else record.cause,
        )
        self._save(placed)
        self._look_at_copy(placed)

    def _start(self, record: Record, now: float) -> None:
        self._copies.pop((record.id, record.run + 1), None)
        started = replace(
            record,
            phase=Phase.STARTING,
            run=record.run + 1,
            started_at=now,
            ready_at=None,
            term_at=None,
            note=self.host.note(record),
        )
        self.host.write(started)
        # Saved before it is started: after a kill between the two, the run that never spoke
        # is given up; the other way round a second one would be started beside it.
        self._save(started)
        self.host.start(started)

    def _forget(self, record: Record) -> None:
        copy = self._copies.get((record.id, record.run + 1))
        if copy is not None and not copy.done():
            return  # it would write into a folder that has moved away; the next cycle asks again
        self._copies.pop((record.id, record.run + 1), None)
        ended = replace(record, phase=Phase.STOPPED, last_exit=self._end(record))
        self.host.forget(record)
        store.forget(self.folder, ended)
        del self.records[record.id]
        self.prober.forget(record.id)
        self._asked_to_end = {item for item in self._asked_to_end if item[0] != record.id}
        self._killed = {item for item in self._killed if item[0] != record.id}

    def _end(self, record: Record) -> Exit | None:
        if not record.run:
            return record.last_exit
        return self.host.look(record).exit or record.last_exit

    def _signal(self, record: Record, what: life.Signal) -> None:
        run = (record.id, record.run)
        if what is life.Signal.KILL:
            if self.host.kill(record) and run not in self._killed:
                self._killed.add(run)
                grace = self.pace.term_grace
                logger.warning("%s: did not end within %g s: killed", record.id, grace)
        elif run not in self._asked_to_end:
            self._asked_to_end.add(run)
            self.host.terminate(record)

    def _save(self, record: Record) -> None:
        store.save(self.folder, record)
        self.records[record.id] = record

    def _tell(self, before: Record, after: Record) -> None:
        if after.phase is before.phase:
            return
        cause = f": {after.cause.message}" if after.phase is Phase.CRASHED and after.cause else ""
        level = logging.WARNING if after.phase is Phase.CRASHED else logging.INFO
        logger.log(level, "%s: %s%s", after.id, after.phase, cause)

    def _heartbeat(self, now: float) -> None:
        if now - self._beat_at < process_checks.HEARTBEAT_PERIOD:
            return
        self._beat_at = now
        powers = self.host.powers()
        beat = process_checks.Heartbeat(
            at=now,
            pid=os.getpid(),
            limits=powers.said,
            memory_enforced=powers.memory,
            cpu_enforced=powers.cpu,
            trouble=self._trouble,
        )
        write_json(self.folder.agent, to_json(beat), sync=False)


def _waited(record: Record) -> bool:
    """It had no room until now: that is no cause any more. A crash's cause stays until it is well."""
    if record.phase is Phase.CRASHED or record.cause is None:
        return False
    return record.cause.code == "PodUnschedulable"


def run_until_told(agent: Agent) -> None:
    """Run in the main thread; SIGTERM and SIGINT end the agent and leave the replicas."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, agent.stop)
    agent.run()
