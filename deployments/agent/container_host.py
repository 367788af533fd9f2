"""Replicas as containers of a Docker Engine.

What runs is what the Engine lists: one call a cycle, of all containers that carry this cluster's mark.
Events only wake the agent earlier. The Engine starts nothing again by itself; the agent's own back-off
does, and the container of the run before the last is removed only then, so its output can be looked at.

    <cluster>/runtime-<hash>/   inside.py  gate*.py  gunicorn_conf.py, for every container, read-only
    <cluster>/doors/<revision>/ where gates of one revision hand connections on
    <replica>/told/run.json     what it starts
    <replica>/run/              listen.sock and health.sock, made by the container
    <replica>/listen.sock       hard links to these, made here: the container cannot lead them elsewhere
             /health.sock
    <replica>/front/            what stands before a person's own image, and before a container of an
                                Engine elsewhere (`front`), under a shim of its own
    <replica>/log/              the container's output, copied from the Engine

Safety: a run's container has a name of its own, so a start that was cut off is found again and never
doubled; what cannot be listed is not known, and nothing is decided (`begin` raises).

An Engine on another machine sees none of these folders: `container_far` says what it has instead.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from deployments.agent import causes, command, life, processes
from deployments.agent.container_far import Far
from deployments.agent.container_logs import Follower
from deployments.agent.host import Powers, Run
from deployments.agent.record import Process, Record, Room
from deployments.drivers import engine_file
from deployments.drivers.docker_checks import SANDBOX_ID, gpus_of, network_of, sandbox_user
from deployments.drivers.process_layout import ClusterFolder, revision_key, write_json
from deployments.drivers.process_logs import tail
from deployments.engine import containers
from deployments.engine.containers import BROKEN, Asked, Container, Engine
from deployments.errors import NotFound, SlipwayError
from deployments.sockets import HEALTH, LISTEN, address_of
from deployments.types import Cause, Exit, RevisionSpec

logger = logging.getLogger(__name__)

_RUNTIME = ("inside.py", "gate.py", "gate_guest.py", "gate_sockets.py", "gunicorn_conf.py")
_ABOUT_EVERY = 30.0
_TIDY_EVERY = 60.0
_OUTPUT_SECONDS = 5.0  # for the last of an ended container's output
_TMPFS = "size=256m,mode=1777"
_KEPT_RUNS = 1  # ended runs before the current one whose containers stay


class ContainerHost:
    """One Engine, for one cluster."""

    copiers = 8  # most of a preparation is the Engine's work

    def __init__(self, folder: ClusterFolder) -> None:
        self.folder = folder
        self.file = engine_file.read(folder.root)
        self.engine = Engine(self.file.engine)
        self.network = network_of(folder.root.name, self.file.id)
        self.runtime = install_runtime(folder.root)
        self.far = (
            None if self.engine.local else Far(self.engine, self.file.id, self._labels())
        )  # where it has no folder of this machine
        self.node = ""
        self._about: containers.About | None = None
        self._about_at = 0.0
        self._listed: dict[tuple[str, int], Container] = {}
        self._of: dict[str, list[Container]] = {}
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="engine")
        self._starts: dict[tuple[str, int], Future[None]] = {}
        self._settled: frozenset[tuple[str, int]] = frozenset()  # starts over before the listing
        self._failed: dict[tuple[str, int], Exit] = {}
        self._seen: set[tuple[str, int]] = set()
        self._ends: dict[str, Exit] = {}
        self._ended_at: dict[str, float] = {}  # container -> when it was first seen so (monotonic)
        self._followers: dict[str, Follower] = {}
        self._progress: dict[str, str] = {}
        self._fronts: list[subprocess.Popen[bytes]] = []
        self._removing: dict[str, Future[None]] = {}
        self._tidied_at = 0.0
        self._woken = threading.Event()
        self._closed = False
        threading.Thread(target=self._listen, name="events", daemon=True).start()

    # ---- looking ------------------------------------------------------------------------------

    def begin(self) -> None:
        self._woken.clear()
        self._fronts = [front for front in self._fronts if front.poll() is None]
        now = time.monotonic()
        if self._about is None or now - self._about_at > _ABOUT_EVERY:
            self._about = self.engine.about()
            self._about_at = now
            self.node = self._about.name
        self._settled = frozenset(key for key, start in self._starts.items() if start.done())
        listed = self.engine.containers(self.file.id)
        self._listed = {(item.replica, item.run): item for item in listed}
        self._seen.update(self._listed)
        self._of = {}
        for item in listed:
            self._of.setdefault(item.replica, []).append(item)
        there = {item.id for item in listed}
        self._ends = {name: item for name, item in self._ends.items() if name in there}
        self._ended_at = {name: at for name, at in self._ended_at.items() if name in there}
        self._followers = {name: item for name, item in self._followers.items() if name in there}
        self._removing = {name: item for name, item in self._removing.items() if name in there}

    def room(self) -> Room:
        about = self._about
        return Room(about.cpu, about.memory_gb, self._gpu_total()) if about else Room(0, 0)

    def _gpu_total(self) -> int:
        return gpus_of(self._about, local=self.engine.local) if self._about else 0

    def powers(self) -> Powers:
        return Powers(f"by the Docker Engine at {self.file.engine.url}", cpu=True, memory=True)

    def note(self, record: Record) -> str:
        return ""

    def address(self, record: Record) -> str:
        return address_of(self.folder.replica(record.id))

    def look(self, record: Record) -> Run:
        key = (record.id, record.run)
        start = self._starts.get(key)
        if start is not None and not start.done():
            return Run(Process.RUNNING)
        if start is not None and (error := start.exception()) is not None:
            return self._not_started(record, error)
        found = self._listed.get(key)
        if found is None:
            if start is not None and key not in self._settled:
                return Run(
                    Process.RUNNING
                )  # made after this cycle's listing: the next one shows it
            gone = start is not None or key in self._seen
            self._end_front(record)
            return Run(Process.VANISHED, said=causes.REMOVED) if gone else Run(Process.NONE)
        if found.state == "created":
            if start is None:  # an agent was killed between making it and starting it
                self._starts[key] = self._pool.submit(self._run, record, self._asked(record))
            return Run(Process.RUNNING)
        self._starts.pop(key, None)
        self._follow(record, found)
        if found.running:
            self._link_sockets(record)
            return Run(Process.RUNNING)
        if self._end_front(record):
            return Run(Process.RUNNING)  # what stood before it is gone by the next cycle
        since = self._ended_at.setdefault(found.id, time.monotonic())
        follower = self._followers[found.id]
        if not follower.done.is_set() and time.monotonic() - since < _OUTPUT_SECONDS:
            return Run(Process.RUNNING)  # its last words are still on their way
        return Run(Process.ENDED, exit=self._end(record, found))

    def _not_started(self, record: Record, error: BaseException) -> Run:
        words = error.message if isinstance(error, SlipwayError) else repr(error)
        found = self._listed.get((record.id, record.run))
        if found is not None and found.running:
            return Run(Process.RUNNING)  # it was, all the same: the Engine's word was lost
        said = causes.NOT_STARTED + words
        ended = self._failed.setdefault(
            (record.id, record.run), Exit(code=127, signal=0, at=time.time(), log_tail=said)
        )
        return Run(Process.ENDED, exit=ended, said=said)

    def _end(self, record: Record, found: Container) -> Exit:
        kept = self._ends.get(found.id)
        if kept is None:
            end = self.engine.end(found.id)
            said = tail(self._log(record), run=record.run)[-16_384:]
            kept = self._ends[found.id] = Exit(
                code=end.code,
                signal=end.code - 128 if 128 < end.code < 160 else 0,
                at=end.at,
                log_tail=said or end.error,
                oom=end.oom,
            )
        return kept

    def _log(self, record: Record) -> Path:
        return self.folder.replica(record.id) / "log"

    def _follow(self, record: Record, found: Container) -> None:
        if found.id not in self._followers:
            self._followers[found.id] = Follower(
                self.engine, found.id, self._log(record), record.run
            )

    def _link_sockets(self, record: Record) -> None:
        """Names of the container's sockets that only this machine's user can change."""
        folder = self.folder.replica(record.id)
        source = self._front(record) if self._has_front(record) else folder / "run"
        for name in (LISTEN, HEALTH):
            target = folder / name
            if target.exists():
                continue
            with contextlib.suppress(OSError):
                os.link(source / name, target, follow_symlinks=False)
                if not stat.S_ISSOCK(target.lstat().st_mode):
                    target.unlink()

    # ---- preparing ----------------------------------------------------------------------------

    def prepare(self, record: Record) -> Cause | None:
        revision = record.revision
        if self.far is not None and revision.container is not None:
            return causes.not_far(revision)
        staged = self.folder.revision(revision)
        try:
            if revision.container is None:
                os.utime(staged)
                make_readable(staged)
            self._make_folders(record)
        except FileNotFoundError:
            return causes.not_staged(revision)
        except OSError as error:
            return causes.of_preparing(error, revision)
        image = causes.image_of(revision)
        try:
            self.engine.ensure_network(self.network, self._labels())
            if not self.engine.has_image(image):
                if image.startswith("sha256:"):
                    return causes.of_pull("the Engine does not have it", revision)
                logger.info("%s: pulls %s", record.id, image)
                self.engine.pull(
                    image,
                    # read anew: a password may have changed since this agent began
                    login_for(image, engine_file.read(self.folder.root)),
                    lambda said: self._progress.__setitem__(record.id, said),
                )
        except SlipwayError as error:
            return causes.of_pull(error.message, revision)
        finally:
            self._progress.pop(record.id, None)
        return self._bring(self.far, record, image, staged) if self.far is not None else None

    def _bring(self, far: Far, record: Record, image: str, staged: Path) -> Cause | None:
        """Have a revision's files where its containers run."""
        self._progress[record.id] = "bringing its files to the Engine's machine"
        try:
            far.prepare(record.revision, image, self.runtime, staged)
        except FileNotFoundError:
            return causes.not_staged(record.revision)
        except (OSError, SlipwayError) as error:
            return causes.of_bringing(str(error), record.revision)
        finally:
            self._progress.pop(record.id, None)
        return None

    def _make_folders(self, record: Record) -> None:
        folder = self.folder.replica(record.id)
        doors = self._doors(record)
        for name in ("told", "front"):
            (folder / name).mkdir(exist_ok=True)
        for path in (folder / "run", doors):
            path.mkdir(parents=True, exist_ok=True)
            if os.getuid() == 0:
                os.chown(path, SANDBOX_ID, SANDBOX_ID)
            path.chmod(0o700)

    def _doors(self, record: Record) -> Path:
        return self.folder.root / "doors" / revision_key(record.revision)

    def progress(self, record: Record) -> str:
        return self._progress.get(record.id, "")

    # ---- acting -------------------------------------------------------------------------------

    def write(self, record: Record) -> None:
        folder = self.folder.replica(record.id)
        for name in (LISTEN, HEALTH):
            # of the run before: one that was killed leaves its own behind, and a link to that one would stay
            for place in (folder, folder / "run", folder / "front"):
                (place / name).unlink(missing_ok=True)
        if self._has_front(record):
            return  # where it will be reached is known once it runs
        told = command.build_inside(
            record.revision,
            replica=record.id,
            run=record.run,
            silence=life.longest_silence(record.revision),
        )
        path = folder / "told" / "run.json"
        write_json(path, told)
        if os.getuid() == 0:
            os.chown(path, SANDBOX_ID, SANDBOX_ID)  # holds variables: its reader's alone

    def start(self, record: Record) -> None:
        for old in self._of.get(record.id, ()):
            if old.run < record.run - _KEPT_RUNS:
                self._remove(old)
        asked = self._asked(record)
        self._starts[record.id, record.run] = self._pool.submit(self._run, record, asked)

    def _run(self, record: Record, asked: Asked) -> None:
        try:
            made = self.engine.create(asked)
        except NotFound as error:
            if "network" not in error.message.lower():
                raise
            self.engine.ensure_network(self.network, self._labels())
            made = self.engine.create(asked)
        if self.far is not None:
            told = command.build_far(
                record.revision,
                replica=record.id,
                run=record.run,
                silence=life.longest_silence(record.revision),
            )
            self.far.tell(made, told, sandbox_user(), self._front(record))
        self.engine.start(made)
        if self._has_front(record):
            self._start_front(record, made)
        self._woken.set()

    def _start_front(self, record: Record, made: str) -> None:
        folder, container = self._front(record), record.revision.container
        if self.far is not None:
            target = self.far.target(made)
        else:
            target = self.engine.address(made).ip, container.port if container else 0
        told = command.build_front(
            record.revision,
            container,
            run=record.run,
            silence=life.longest_silence(record.revision),
            folder=folder,
            target=target,
        )
        write_json(folder / "run.json", told)
        self._fronts.append(processes.spawn_shim(folder))

    def _has_front(self, record: Record) -> bool:
        """Whether a process of this machine stands before its container."""
        return self.far is not None or record.revision.container is not None

    def _end_front(self, record: Record) -> bool:
        """True when there was one."""
        return self._has_front(record) and processes.kill_all_of(self._front(record))

    def _front(self, record: Record) -> Path:
        return self.folder.replica(record.id) / "front"

    def _asked(self, record: Record) -> Asked:
        folder = self.folder.replica(record.id)
        resources = record.revision.resources
        most = self._about.cpu if self._about else 0.0
        gpus = self._free_gpus(resources.gpu)
        plain = Asked(
            name=f"slipway-{self.folder.root.name}-{record.id}-{record.run}-{self.file.id[:6]}",
            image=causes.image_of(record.revision),
            labels=self._labels()
            | {
                containers.REPLICA: record.id,
                containers.RUN: str(record.run),
                containers.SERVICE: record.service,
                containers.VERSION: record.version,
                containers.REVISION: f"{record.revision.number}-{record.key}",
                containers.GPUS: ",".join(gpus),
            },
            tmpfs={"/tmp": _TMPFS},  # noqa: S108  inside the container
            network=self.network,
            cpu=resources.cpu,
            # the Engine refuses more than there is
            cpu_limit=min(resources.cpu_limit, most) if resources.cpu_limit and most else None,
            memory_gb_limit=resources.memory_gb_limit,
            gpus=gpus,
        )
        if record.revision.container is not None:
            # as its maker built it: with its own program, user and files that it may write
            variables = dict(record.revision.environment.variables)
            return replace(plain, environment=variables, read_only=False)
        entry = ("python", "-I", "-S", str(command.INSIDE / "runtime" / "inside.py"))
        if self.far is not None:
            return self.far.asked(plain, record.revision, self.runtime, entry, sandbox_user())
        return replace(
            plain,
            entrypoint=entry,
            user=f"{sandbox_user()}:{sandbox_user()}",
            folder="/",
            binds={
                str(self.runtime): (str(command.INSIDE / "runtime"), False),
                str(self.folder.revision(record.revision)): (str(command.INSIDE / "staged"), False),
                str(folder / "told"): (str(command.INSIDE / "told"), False),
                str(folder / "run"): (str(command.INSIDE / "run"), True),
                str(self._doors(record)): (str(command.INSIDE / "doors"), True),
            },
        )

    def _labels(self) -> dict[str, str]:
        return {containers.CLUSTER: self.file.id, containers.NAME: self.folder.root.name}

    def _free_gpus(self, count: int) -> tuple[str, ...]:
        if not count:
            return ()
        taken = {
            gpu
            for item in self._listed.values()
            if item.running
            for gpu in item.labels.get(containers.GPUS, "").split(",")
        }
        free = [str(number) for number in range(self._gpu_total()) if str(number) not in taken]
        return tuple(free[:count])

    def terminate(self, record: Record) -> None:
        self._send(record, "SIGTERM")

    def kill(self, record: Record) -> bool:
        return self._send(record, "SIGKILL")

    def _send(self, record: Record, signal: str) -> bool:
        found = self._listed.get((record.id, record.run))
        if found is None or not found.running:
            return False
        self._pool.submit(self._quietly, self.engine.kill, found.id, signal)
        return True

    def forget(self, record: Record) -> None:
        self._end_front(record)
        for item in self._of.get(record.id, ()):
            if (follower := self._followers.get(item.id)) is not None:
                follower.stop()
            self._remove(item)
        self._starts = {key: item for key, item in self._starts.items() if key[0] != record.id}
        self._failed = {key: item for key, item in self._failed.items() if key[0] != record.id}
        self._seen = {key for key in self._seen if key[0] != record.id}
        doors = self._doors(record) / f"{record.id}.sock"
        doors.unlink(missing_ok=True)

    def others(self, records: Collection[Record]) -> None:
        known = {record.id: record for record in records}
        for item in self._listed.values():
            record = known.get(item.replica)
            if record is not None and item.run >= record.run - _KEPT_RUNS:
                continue
            if record is None and item.running and item.id not in self._removing:
                logger.warning("%s belongs to no replica: stopped and removed", item.name)
            self._remove(item)

        now = time.monotonic()
        if now - self._tidied_at > _TIDY_EVERY:
            self._tidied_at = now
            self._tidy({revision_key(record.revision) for record in known.values()})
            if self.far is not None:
                revisions = [record.revision for record in known.values()]
                self._pool.submit(self._tidy_far, self.far, revisions)

    def _tidy_far(self, far: Far, revisions: Collection[RevisionSpec]) -> None:
        try:
            far.tidy(self.runtime, revisions)
        except SlipwayError as error:
            logger.warning("%s It is tried again.", error.message)

    def _tidy(self, keys: set[str]) -> None:
        """Folders of revisions that no replica has any more."""
        with contextlib.suppress(FileNotFoundError):
            for path in (self.folder.root / "doors").iterdir():
                if path.name not in keys:
                    shutil.rmtree(path, ignore_errors=True)

    def _remove(self, item: Container) -> None:
        pending = self._removing.get(item.id)
        if pending is None or (pending.done() and pending.exception() is not None):
            self._removing[item.id] = self._pool.submit(self._quietly, self.engine.remove, item.id)

    def _quietly(self, do: Callable[..., None], *arguments: str) -> None:
        try:
            do(*arguments)
        except SlipwayError as error:
            logger.warning("%s It is tried again.", error.message)
            raise

    # ---- waking -------------------------------------------------------------------------------

    def woken(self) -> bool:
        return self._woken.is_set()

    def _listen(self) -> None:
        while not self._closed:
            try:
                for word in self.engine.events(self.file.id):
                    if word in ("die", "start", "oom", "destroy"):
                        self._woken.set()
            except (*BROKEN, SlipwayError, ValueError):
                time.sleep(1.0)  # the listing goes on telling what is

    def close(self) -> None:
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.engine.close()


def login_for(image: str, file: engine_file.EngineFile) -> tuple[str, str] | None:
    """The user and password for the registry that a reference names."""
    login = file.logins.get(image.partition("/")[0])
    return (login.username, login.password) if login else None


def install_runtime(root: Path) -> Path:
    """What every container needs of Slipway, under a name of its content: a newer version of Slipway
    changes nothing under a container that runs."""
    source = Path(__file__).parent
    parts = [(name, (source / name).read_bytes()) for name in _RUNTIME]
    digest = hashlib.sha256(b"\0".join(content for _, content in parts)).hexdigest()[:12]
    final = root / f"runtime-{digest}"
    if final.is_dir():
        return final
    beside = root / f".runtime-{digest}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    for name, content in parts:
        (beside / name).write_bytes(content)
        (beside / name).chmod(0o644)
    beside.chmod(0o755)
    with contextlib.suppress(OSError):  # somebody else was quicker
        beside.rename(final)
    shutil.rmtree(beside, ignore_errors=True)
    return final


def make_readable(staged: Path) -> None:
    """Let the container's user read a revision's files, whatever umask they were made under.

    Model files are links to stored content and readable to all already.
    """
    if staged.stat().st_mode & 0o005 == 0o005 and (staged / "app").stat().st_mode & 0o005 == 0o005:
        return
    for path in (staged, *staged.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            path.chmod(stat.S_IMODE(mode) | 0o755)
        elif stat.S_ISREG(mode):
            path.chmod(stat.S_IMODE(mode) | 0o444)
