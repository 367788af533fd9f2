"""Virtual environments of process clusters: one a hash, built once, shared by all who need it.

    environments/<hash>/<attempt>/            the environment, built in its final place
    environments/<hash>/<attempt>/.complete   written last; without it the folder is nothing
    environments/<hash>/installer.json        the running uv or pip, so that an orphan can be stopped

Safety rule: only the holder of the row's claim writes here, each attempt in a folder of its own, and the
row says READY only after `.complete` is on disk. Kill -9 at any point leaves a row whose lease runs out
and a folder that the next builder clears. Never loads a package into this process.
"""

import contextlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.db import OperationalError
from django.utils import timezone

from deployments import logstore
from deployments.environments import causes, claims, installer, interpreters
from deployments.environments.claims import Next
from deployments.environments.definition import parse
from deployments.environments.mapping import ProcessPlan, process_plan
from deployments.environments.models import Environment, EnvironmentBuild
from deployments.errors import PermanentError, SlipwayError, TemporaryError
from deployments.signals import announce

logger = logging.getLogger(__name__)

FAILED_CODE = "EnvironmentBuildFailed"
UNREACHABLE_CODE = "PackageIndexUnreachable"
_COMPLETE = ".complete"
_POLL = 0.5  # seconds between two looks at somebody else's build
_RENEW = 5.0  # seconds between two signs of life; the lease is 30
_EVIDENCE = 40  # last lines that go with a failure
Log = Callable[[str], None]


class _ClaimLost(Exception):
    """Somebody else builds this hash now."""


def ensure_built(environment: Environment, *, log: Log) -> EnvironmentBuild:
    """The READY build of this environment's hash; builds it, or waits for whoever does.

    `log` gets the build's output line by line, whoever builds. Raises PermanentError
    (EnvironmentBuildFailed, the last lines as evidence) or TemporaryError. Call it outside a
    transaction: other processes must see the claim.
    """
    row, _ = EnvironmentBuild.objects.get_or_create(hash=environment.hash)
    patience = time.monotonic() + settings.ENV.build_timeout + 60
    reader: _Follower | None = None
    while True:
        build = EnvironmentBuild.objects.get(pk=row.pk)
        now = timezone.now()
        step = claims.decide(
            build.state,
            complete=is_complete(build.location),
            running=claims.is_running(build, now),
            waited=reader is not None,
        )
        if reader is not None:
            reader.forward(log)
        if step is Next.USE:
            if _touch(build):
                return EnvironmentBuild.objects.get(pk=row.pk)
        elif step is Next.FAIL:
            raise _stored_failure(build)
        elif step is Next.WAIT:
            if reader is None:
                log(f"Environment {build.hash[:12]} is being built already; waiting for it.")
                reader = _Follower(build)
            if time.monotonic() > patience:
                raise TemporaryError(
                    f"Environment {build.hash[:12]} is still being built elsewhere; try again later.",
                    delay=30,
                )
            time.sleep(_POLL)
        elif name := claims.claim(build, now):
            try:
                return _Builder(environment, row, name, log).build()
            except _ClaimLost:
                log("Another process took this build over; waiting for it.")
                reader = _Follower(EnvironmentBuild.objects.get(pk=row.pk))


def is_complete(location: str) -> bool:
    """Whether a whole environment stands at this path."""
    return bool(location) and (Path(location) / _COMPLETE).exists()


def remove_files(environment_hash: str) -> None:
    """Delete a hash's folder. The marker goes first: a half-removed environment is never used."""
    folder = settings.HOME.environments / environment_hash
    installer.kill_left_over(folder / "installer.json")
    for marker in folder.glob(f"*/{_COMPLETE}"):
        marker.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def plan_for(environment: Environment) -> ProcessPlan:
    """What a process cluster on this machine makes of the environment. Raises InvalidInput."""
    definition = parse(
        base_image=environment.base_image,
        docker_steps=environment.docker_steps,
        conda_yaml=environment.conda_yaml,
        pip_requirements=environment.pip_requirements,
    )
    return process_plan(definition, tuple(interpreters.find()))


def _touch(build: EnvironmentBuild) -> bool:
    """Note the use; fails when the environment was removed meanwhile, which is decided by this row."""
    seen = EnvironmentBuild.objects.filter(pk=build.pk, state=build.state, location=build.location)
    return seen.update(last_used_at=timezone.now()) == 1


class _Follower:
    """Reads on in the log of a build that somebody else runs, from that build's first line."""

    def __init__(self, build: EnvironmentBuild) -> None:
        self._path = settings.HOME.environment_log(build.hash)
        self._since = build.started_at.timestamp() - 0.001 if build.started_at else 0.0
        self._cursor = 0

    def forward(self, log: Log) -> None:
        while True:
            entries, self._cursor = logstore.read(self._path, self._cursor)
            if not entries:
                return
            for entry in entries:
                if entry.at >= self._since:
                    log(entry.text)


def _stored_failure(build: EnvironmentBuild) -> SlipwayError:
    lines: list[str] = []
    _Follower(build).forward(lines.append)
    evidence = "\n".join(lines[-_EVIDENCE:])
    if build.error_code == UNREACHABLE_CODE:
        return TemporaryError(build.error, delay=30, code=build.error_code, evidence=evidence)
    return PermanentError(build.error, code=FAILED_CODE, evidence=evidence)


class _Builder:
    """One attempt at one hash under a claim."""

    def __init__(
        self, environment: Environment, row: EnvironmentBuild, name: str, log: Log
    ) -> None:
        self._environment = environment
        self._row = row
        self._name = name
        self._log = log
        self._path = settings.HOME.environment_log(environment.hash)
        self._folder = settings.HOME.environments / environment.hash
        self._venv = self._folder / secrets.token_hex(4)
        self._lines: list[str] = []
        self._renewed = time.monotonic()

    def build(self) -> EnvironmentBuild:
        """Build and mark READY; on failure mark FAILED and raise; when stopped give the claim back."""
        started = time.monotonic()
        try:
            venv = self._make(started + settings.ENV.build_timeout)
            size = _size(venv)
            _mark_complete(venv)
            finished = claims.finish(
                self._row, self._name, location=str(venv), size=size, now=timezone.now()
            )
            if not finished:
                raise _ClaimLost
        except _ClaimLost:
            raise
        except SlipwayError as error:
            self._fail(error)
            raise
        except OSError as error:
            explained = causes.explain([str(error)], installer="Slipway", folder=str(self._folder))
            failure = PermanentError(explained.message, code=FAILED_CODE, evidence=str(error))
            self._fail(failure)
            raise failure from error
        except BaseException:
            # stopped from outside (a job's timeout, Ctrl-C): the next one need not wait for the lease
            shutil.rmtree(self._venv, ignore_errors=True)
            claims.give_back(self._row, self._name)
            announce("environment", self._environment.hash)
            raise
        self._say(
            f"Environment {self._environment.hash[:12]} is ready: {size / 2**20:,.0f} MiB in "
            f"{time.monotonic() - started:.1f} s."
        )
        announce("environment", self._environment.hash)
        return EnvironmentBuild.objects.get(pk=self._row.pk)

    def _make(self, deadline: float) -> Path:
        """Run the installer in a new attempt's folder. Raises SlipwayError, _ClaimLost."""
        tool = settings.ENV.installer
        self._say(f"Building environment {self._environment.hash[:12]} with {tool}.")
        python, lines = self._plan()
        # what a killed builder left; the claim is asked for once more, since this removes everything
        self._renewed = 0.0
        self._beat()
        installer.kill_left_over(self._folder / "installer.json")
        shutil.rmtree(self._folder, ignore_errors=True)
        venv = self._venv
        venv.mkdir(parents=True)
        (venv / installer.REQUIREMENTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._say(f"Python: {python}")
        self._say("Packages: " + ", ".join(lines))
        steps = installer.commands(tool, python=python, venv=venv)
        for number, command in enumerate(steps, start=1):
            try:
                code = installer.run(
                    command,
                    pid_file=self._folder / "installer.json",
                    deadline=deadline,
                    on_lines=self._say_all,
                    beat=self._beat,
                )
            except installer.TimedOut as error:
                raise self._error(
                    f"The build took longer than {settings.ENV.build_timeout} s and was stopped. Ask "
                    "for fewer packages, or raise SLIPWAY_BUILD_TIMEOUT."
                ) from error
            if code != 0:
                raise self._explained(tool, code, checking=number == len(steps))
        return venv

    def _plan(self) -> tuple[Path, tuple[str, ...]]:
        plan = plan_for(self._environment)
        for note in plan.notes:
            self._say(note)
        if plan.problems or plan.python is None:
            reasons = " ".join(problem.message for problem in plan.problems)
            raise self._error(f"This machine cannot make this environment. {reasons}".strip())
        return interpreters.find()[plan.python], plan.lines

    def _explained(self, tool: str, code: int, *, checking: bool) -> SlipwayError:
        if checking:
            last = next((line for line in reversed(self._lines) if line.strip()), "no reason given")
            return self._error(
                f"The packages were installed, but the scoring server does not start with them: {last}"
            )
        if code < 0:
            self._say(f"{tool} was ended by signal {-code}.")
        explained = causes.explain(self._lines, installer=tool, folder=str(self._folder))
        if explained.temporary:
            evidence = "\n".join(self._lines[-_EVIDENCE:])
            return TemporaryError(
                explained.message, delay=30, code=UNREACHABLE_CODE, evidence=evidence
            )
        return self._error(explained.message)

    def _error(self, message: str) -> PermanentError:
        return PermanentError(
            message, code=FAILED_CODE, evidence="\n".join(self._lines[-_EVIDENCE:])
        )

    def _fail(self, error: SlipwayError) -> None:
        """Leave nothing half-made; the log and the cause stay."""
        shutil.rmtree(self._venv, ignore_errors=True)
        with contextlib.suppress(OSError):  # it was never made, or is on a disk that fails
            self._folder.rmdir()
        self._say(f"Failed: {error.message}")
        code = error.code or FAILED_CODE
        claims.fail(self._row, self._name, code=code, message=error.message, now=timezone.now())
        announce("environment", self._environment.hash)

    def _beat(self) -> None:
        """A sign of life every few seconds. Raises _ClaimLost."""
        if time.monotonic() - self._renewed < _RENEW:
            return
        try:
            if not claims.renew(self._row, self._name, timezone.now()):
                raise _ClaimLost
        except OperationalError as error:
            # the lease outlives some missed renewals; the next beat tries again
            logger.warning("The lease of build %s was not renewed: %s", self._row.pk, error)
            return
        self._renewed = time.monotonic()

    def _say(self, text: str) -> None:
        self._say_all([text])

    def _say_all(self, lines: list[str]) -> None:
        """To the build's own log, to whoever asked for it, and kept as evidence."""
        self._lines += lines
        now = time.time()
        try:
            logstore.append(self._path, [logstore.LogEntry(now, "build", line) for line in lines])
        except OSError as error:
            # a full disk must not hide the cause it is about to be given
            logger.warning("The build log %s cannot be written: %s", self._path, error)
        for line in lines:
            self._log(line)


def _mark_complete(venv: Path) -> None:
    descriptor = os.open(venv / _COMPLETE, os.O_WRONLY | os.O_CREAT, 0o640)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    """Bytes on disk, a file with several names counted once; links are not followed."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            status = (Path(root) / name).lstat()
            key = (status.st_dev, status.st_ino)
            if key not in seen:
                seen.add(key)
                total += status.st_blocks * 512
    return total
