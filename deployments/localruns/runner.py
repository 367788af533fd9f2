"""One local run's runner: builds the environment, brings the files, keeps the process, loads edits.

    claimed (queued -> preparing) -> starting -> running <-> broken -> stopped | failed

Safety rule: everything a run has is this process's own: its folder `local-runs/<id>/`, and a shim that dies
with it. It ends when it is asked to, when its row goes, when nobody used it for the idle time, on SIGTERM;
killed, the kernel ends the shim, the shim's child and its workers, and `changes.settle` does the rest. No
service is made and nothing is written into a cluster's folder.
"""

import ctypes
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from deployments import logstore
from deployments.agent import cgroups, command, processes
from deployments.agent.record import Process
from deployments.claims import holder
from deployments.drivers import process_logs
from deployments.drivers.process_layout import ClusterFolder, write_json
from deployments.drivers.process_stage import stage
from deployments.environments.venvs import ensure_built
from deployments.errors import InvalidInput, SlipwayError
from deployments.jobs import cause_of
from deployments.localruns import changes
from deployments.localruns.models import LIVE, LocalRun, LocalRunState
from deployments.logstore import LogEntry
from deployments.pipeline.ignore import select
from deployments.pipeline.log import Announcer
from deployments.registry.blobs import StorageBlobs
from deployments.registry.models import ModelVersion
from deployments.services.config import from_values
from deployments.services.specs import PACKAGE_NAME
from deployments.signals import announce, changed
from deployments.types import EnvironmentSpec, FileSpec, ModelSpec, RevisionSpec

if TYPE_CHECKING:
    from deployments.localruns.containers import ContainerProcess

logger = logging.getLogger(__name__)

CONFIGURATION = Path(__file__).with_name("gunicorn_local.py")
SLIPWAY, BUILD, PROCESS = "slipway", "build", "process"  # who wrote a line
_TICK = 0.1
_WATCH = 0.5
_BLIND = 60.0  # seconds the database may be away before the run ends
_TERM = 3.0  # seconds for the process to end by itself
_KILL = 2.0


class Ended(Exception):
    """The run is over; the message says why, empty when it was asked for."""


class Runner:
    """One run, from its claim to its end."""

    def __init__(self, run: LocalRun) -> None:
        self.pk = run.pk
        self.run = run
        self.folder = settings.HOME.local_run(run.pk)
        self.work = self.folder / "work"
        self.number = 0  # of the process
        self.edit = run.edit
        self.told = -1  # the edit that loaded.json told of last
        self.cursor = ""
        self.why = ""  # it ends
        self.log_path = settings.HOME.local_log(run.pk)
        self.announcer = Announcer(self._tell)
        self.revision: RevisionSpec | None = None
        self.staged = self.folder
        self.location = ""
        self.container: ContainerProcess | None = None

    # --- the whole ---------------------------------------------------------------------------------

    def main(self) -> None:
        signal.signal(signal.SIGTERM, self._asked)
        signal.signal(signal.SIGINT, self._asked)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        state, code, cause = LocalRunState.STOPPED, "", ""
        try:
            self.prepare()
            self.start()
            while True:
                self.cycle()
                time.sleep(_TICK)
        except Ended as ended:
            cause = str(ended)
        except Exception as error:  # noqa: BLE001 - the one place that turns any failure into a cause
            told = cause_of(error)
            state, code, cause = LocalRunState.FAILED, told.code, told.message
            self.say(f"Failed: {told.message}")
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            self.end_process()
            self.copy_output()
            self.say(f"The local run has ended. {cause}".strip())
            self.announcer.flush()
            changes.finish(self.pk, state, code=code, cause=cause)

    def _asked(self, *_: object) -> None:
        raise Ended(self.why)

    def _watch(self) -> None:
        """Ends the run from a thread: the main one may be in the midst of a build."""
        seen = time.monotonic()
        while not self.why:
            time.sleep(_WATCH)
            try:
                row = LocalRun.objects.filter(pk=self.pk, state__in=LIVE).values(
                    "stop_asked", "used_at"
                )
                if (why := self._why_end(row.first())) is not None:
                    self.why = why
                    break
                seen = time.monotonic()
            except DatabaseError:
                if time.monotonic() - seen > _BLIND:
                    self.why = "The portal's database cannot be reached."
                    break
        connection.close()
        os.kill(os.getpid(), signal.SIGTERM)

    def _why_end(self, row: Any) -> str | None:
        """None: go on."""
        if row is None:
            return "It was removed."
        if row["stop_asked"]:
            return ""
        idle = settings.ENV.local_run_idle
        if (timezone.now() - row["used_at"]).total_seconds() > idle:
            return f"Nobody used it for {idle // 60} min." if idle >= 60 else "Nobody used it."
        return None

    # --- before it runs ----------------------------------------------------------------------------

    def prepare(self) -> None:
        """The environment, and a work copy of the project folder without what is ignored."""
        run = self.run
        self.say(f"Running {run.name} locally, in environment {run.environment}.")
        self.location = self._build()
        self.revision = self._revision(self.location)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True)
        layout = ClusterFolder(self.folder)
        stage(layout, self.revision, StorageBlobs())
        self.staged = layout.revision(self.revision)
        for name in ("app", "home", "tmp"):
            (self.work / name).mkdir(parents=True)
        chosen = select(self.staged / "app")
        if run.entry_script not in chosen.files:
            raise InvalidInput(
                f"{chosen.rules} leaves out {run.entry_script}, the entry script. Change its patterns."
            )
        for name in chosen.files:
            target = self.work / "app" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.staged / "app" / name, target)
        self._write_edits()

    def _build(self) -> str:
        """Where the environment stands: a virtual environment, or for a Docker cluster an image."""
        environment, cluster = self.run.environment, self.run.cluster
        if cluster.kind != cluster.Kind.DOCKER:
            return ensure_built(environment, log=lambda text: self.say(text, BUILD)).location
        # Docker's client library is slow to import, and process clusters never need it
        from deployments.images.builds import ensure_image
        from deployments.images.engines import place_of
        from deployments.localruns.containers import ContainerProcess

        place = place_of(cluster)
        write = partial(self.say, source=PROCESS)
        name = changes.container_name(self.pk)
        self.container = ContainerProcess(place.engine, name, self.folder, write)
        image = ensure_image(environment, place, log=lambda text: self.say(text, BUILD))
        return image.reference

    def _revision(self, location: str) -> RevisionSpec:
        run, config = self.run, from_values(self.run.config)
        rows = ModelVersion.objects.select_related("model").prefetch_related("files__blob")
        by_id = rows.in_bulk(run.model_versions)
        if missing := [pk for pk in run.model_versions if pk not in by_id]:
            raise InvalidInput(f"{len(missing)} of its models were deleted; choose others.")
        models = tuple(
            ModelSpec(
                name=version.model.name,
                version=version.version,
                files=tuple(
                    FileSpec(path=file.path, sha256=file.blob_id, size=file.blob.size)
                    for file in version.files.all()
                ),
            )
            for version in (by_id[pk] for pk in run.model_versions)
        )
        variables = {str(key): str(value) for key, value in run.environment.variables.items()}
        return RevisionSpec(
            service=run.name,
            number=0,
            source=FileSpec(PACKAGE_NAME, run.source.sha256, run.source.size),
            entry_script=run.entry_script,
            models=models,
            environment=EnvironmentSpec(run.environment.hash, location, variables),
            resources=config.to_resources(),
            concurrency=1,
            scoring_timeout_ms=config.scoring_timeout_ms,
            max_request_wait_ms=config.scoring_timeout_ms,
            start_timeout_seconds=config.initial_delay_seconds,
        )

    # --- the process -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the scoring server under a shim that dies with this process."""
        revision = self.revision
        if revision is None:
            raise RuntimeError("start comes after prepare")
        self.number += 1
        for name in ("loaded.json", "exit.json", "modules.json"):
            (self.folder / name).unlink(missing_ok=True)
        ability = cgroups.discover()
        name = f"local-{self.pk}"
        if self.container is not None:
            self._start_container(self.container, revision, name)
            return
        told = command.build(
            revision,
            replica=name,
            run=self.number,
            silence=revision.scoring_timeout_ms / 1000,
            work=self.work,
            staged=self.staged,
            cgroups=ability.groups(name, revision.resources),
        )
        arguments = told["command"]
        arguments[arguments.index("-c") + 1] = str(CONFIGURATION)
        write_json(self.folder / "run.json", told)
        parent = os.getpid()
        # leaves no zombie: `processes.look` knows one as ended, and it goes with this process
        subprocess.Popen(
            [sys.executable, "-I", "-S", str(processes.SHIM), str(self.folder)],
            env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            preexec_fn=lambda: _die_with(parent),
        )
        self.update(state=LocalRunState.STARTING, note=ability.note(revision.resources))

    def _start_container(
        self, container: "ContainerProcess", revision: RevisionSpec, name: str
    ) -> None:
        from deployments.localruns.containers import INSIDE

        told = command.build(
            revision,
            replica=name,
            run=self.number,
            silence=revision.scoring_timeout_ms / 1000,
            work=INSIDE / "work",
            staged=INSIDE / self.staged.relative_to(self.folder),
            cgroups=[],
        )
        container.start(self.location, told, revision.resources, CONFIGURATION)
        self.update(state=LocalRunState.STARTING, note="")

    def look(self) -> processes.Run:
        if self.container is not None:
            return self.container.look()
        return processes.look(self.folder, self.number)

    def cycle(self) -> None:
        """One look at the row, the process and what it says."""
        try:
            row = LocalRun.objects.only("edit", "edits", "state").get(pk=self.pk)
        except LocalRun.DoesNotExist:
            raise Ended("It was removed.") from None
        except DatabaseError:
            return  # the watching thread counts how long
        self.copy_output()
        seen = self.look()
        ended = seen.process in (Process.ENDED, Process.VANISHED)
        if row.edit > self.edit:
            self.run, self.edit = row, row.edit
            self._write_edits()
            if ended:
                self.start()
            elif self.container is not None:
                self.container.reload()
            else:
                os.kill(seen.child_pid, signal.SIGHUP)
            return
        self._note_loaded()
        if ended and row.state != LocalRunState.BROKEN:
            self.copy_output()
            self._broken(seen)

    def _note_loaded(self) -> None:
        try:
            told = json.loads((self.folder / "loaded.json").read_text())
        except (OSError, ValueError):
            return
        if told["edit"] == self.told:
            return
        self.told = told["edit"]
        state = LocalRunState.BROKEN if told["error"] else LocalRunState.RUNNING
        self.say(
            f"Edit {self.told} does not load."
            if told["error"]
            else f"{self.run_script()} is loaded, in {told['seconds']:.2f} s."
        )
        self.update(
            state=state,
            loaded_edit=self.told,
            load_seconds=told["seconds"],
            load_error=told["error"][-8000:],
            cause="",
        )

    def run_script(self) -> str:
        return self.revision.entry_script if self.revision else "The entry script"

    def _broken(self, seen: processes.Run) -> None:
        """The process is gone; the next edit starts it anew."""
        self.told = -1
        exit_ = seen.exit
        if exit_ is not None and exit_.oom:
            cause = (
                "It used more memory than its limit and was killed. Raise the limit, or load less."
            )
        elif exit_ is not None:
            cause = f"The process ended with code {exit_.code}; its last lines are in the log."
        else:
            cause = "The process was ended from outside."
        self.say(cause)
        self.update(
            state=LocalRunState.BROKEN, cause=cause, load_error=cause, loaded_edit=self.edit
        )

    def _write_edits(self) -> None:
        for name, text in self.run.edits.items():
            target = self.work / "app" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.slipway")
            beside.write_text(text, encoding="utf-8", newline="\n")
            beside.replace(target)
        for cache in (self.work / "app").rglob("__pycache__"):
            # two edits in one second may have the same size and the same time
            shutil.rmtree(cache, ignore_errors=True)
        beside = self.folder / ".edit"
        beside.write_text(str(self.edit))
        beside.replace(self.folder / "edit")

    def end_process(self) -> None:
        """Ask, wait, kill. Not an error when there is none."""
        if self.container is not None:
            self.container.close()
            return
        if not self.number:
            return
        try:
            seen = processes.look(self.folder, self.number)
        except (OSError, ValueError):
            processes.kill_all_of(self.folder)
            return
        if seen.process is Process.RUNNING:
            processes.terminate(seen)
            if not self._gone(_TERM):
                processes.kill_all_of(self.folder)
                self._gone(_KILL)
        processes.kill_all_of(self.folder)  # what the script started by itself

    def _gone(self, patience: float) -> bool:
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if processes.look(self.folder, self.number).process is not Process.RUNNING:
                return True
            time.sleep(0.05)
        return False

    # --- what is said ------------------------------------------------------------------------------

    def say(self, text: str, source: str = SLIPWAY) -> None:
        now = time.time()
        logstore.append(
            self.log_path, [LogEntry(now, source, line) for line in text.splitlines() or [""]]
        )
        self.announcer()

    def copy_output(self) -> None:
        """What the process wrote since the last look goes into the run's log."""
        try:
            page = process_logs.read(self.folder / "log", "local", cursor=self.cursor)
        except OSError:
            return
        self.cursor = page.cursor
        if page.lines:
            logstore.append(
                self.log_path, [LogEntry(line.at, PROCESS, line.text) for line in page.lines]
            )
            self.announcer()

    def update(self, **values: Any) -> None:
        try:
            LocalRun.objects.filter(pk=self.pk, state__in=LIVE).update(**values)
        except DatabaseError as error:
            logger.warning("local run %s: its row was not written: %s", self.pk, error)
        announce("local", self.pk)

    def _tell(self) -> None:
        changed.send_robust(sender=None, topic="local", key=str(self.pk))


def _die_with(parent: int) -> None:
    """In the child, before it becomes the shim."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def run(pk: int) -> bool:
    """Claim and run; False when there is nothing to do."""
    claimed = changes.claim(pk, holder())
    if claimed is None:
        return False
    try:
        Runner(claimed).main()
    except (SlipwayError, Ended) as error:
        logger.info("local run %s: %s", pk, error)
    return True
