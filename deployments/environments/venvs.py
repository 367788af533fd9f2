"""Virtual environments of process clusters: one a hash, built once, shared by all who need it.

    environments/<hash>/<attempt>/            the environment, built in its final place
    environments/<hash>/<attempt>/.complete   written last; without it the folder is nothing
    environments/<hash>/installer.json        the running uv or pip, so that an orphan can be stopped

Safety rule: only the holder of the row's claim writes here, each attempt in a folder of its own, and the
row says READY only after `.complete` is on disk. Kill -9 at any point leaves a row whose lease runs out
and a folder that the next builder clears. Never loads a package into this process.
"""

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from deployments.environments import building, causes, claims, installer, interpreters
from deployments.environments.building import Attempt, ClaimLost, Log
from deployments.environments.causes import FAILED_CODE, UNREACHABLE_CODE
from deployments.environments.definition import parse
from deployments.environments.mapping import ProcessPlan, process_plan
from deployments.environments.models import Environment, EnvironmentBuild
from deployments.errors import PermanentError, SlipwayError, TemporaryError
from deployments.signals import announce

_COMPLETE = ".complete"
_SOURCE = "build"  # of its lines in the hash's log


def ensure_built(environment: Environment, *, log: Log) -> EnvironmentBuild:
    """The READY build of this environment's hash; builds it, or waits for whoever does.

    `log` gets the build's output line by line, whoever builds. Raises PermanentError
    (EnvironmentBuildFailed, the last lines as evidence) or TemporaryError. Call it outside a
    transaction: other processes must see the claim.
    """
    return building.ensure(
        EnvironmentBuild,
        environment.hash,
        what="Environment",
        source=_SOURCE,
        complete=lambda build: is_complete(build.location),
        build=lambda row, name: _Builder(environment, row, name, log).build(),
        log=log,
    )


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


class _Builder(Attempt):
    """One attempt at one hash under a claim."""

    def __init__(
        self, environment: Environment, row: EnvironmentBuild, name: str, log: Log
    ) -> None:
        super().__init__(row, name, log, source=_SOURCE)
        self._environment = environment
        self._folder = settings.HOME.environments / environment.hash
        self._venv = self._folder / secrets.token_hex(4)

    def build(self) -> EnvironmentBuild:
        """Build and mark READY; on failure mark FAILED and raise; when stopped give the claim back."""
        started = time.monotonic()
        try:
            venv = self._make(started + settings.ENV.build_timeout)
            size = _size(venv)
            _mark_complete(venv)
            finished = claims.finish(
                self.row, self.name, location=str(venv), size=size, now=timezone.now()
            )
            if not finished:
                raise ClaimLost
        except ClaimLost:
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
            self.given_back()
            raise
        self.say(
            f"Environment {self._environment.hash[:12]} is ready: {size / 2**20:,.0f} MiB in "
            f"{time.monotonic() - started:.1f} s."
        )
        announce("environment", self._environment.hash)
        return EnvironmentBuild.objects.get(pk=self.row.pk)

    def _make(self, deadline: float) -> Path:
        """Run the installer in a new attempt's folder. Raises SlipwayError, ClaimLost."""
        tool = settings.ENV.installer
        self.say(f"Building environment {self._environment.hash[:12]} with {tool}.")
        python, lines = self._plan()
        # what a killed builder left; the claim is asked for once more, since this removes everything
        self.must_hold()
        installer.kill_left_over(self._folder / "installer.json")
        shutil.rmtree(self._folder, ignore_errors=True)
        venv = self._venv
        venv.mkdir(parents=True)
        (venv / installer.REQUIREMENTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.say(f"Python: {python}")
        self.say("Packages: " + ", ".join(lines))
        steps = installer.commands(tool, python=python, venv=venv)
        for number, command in enumerate(steps, start=1):
            try:
                code = installer.run(
                    command,
                    pid_file=self._folder / "installer.json",
                    deadline=deadline,
                    on_lines=self.say_all,
                    beat=self.beat,
                )
            except installer.TimedOut as error:
                raise self.error(
                    f"The build took longer than {settings.ENV.build_timeout} s and was stopped. Ask "
                    "for fewer packages, or raise SLIPWAY_BUILD_TIMEOUT."
                ) from error
            if code != 0:
                raise self._explained(tool, code, checking=number == len(steps))
        return venv

    def _plan(self) -> tuple[Path, tuple[str, ...]]:
        plan = plan_for(self._environment)
        for note in plan.notes:
            self.say(note)
        if plan.problems or plan.python is None:
            reasons = " ".join(problem.message for problem in plan.problems)
            raise self.error(f"This machine cannot make this environment. {reasons}".strip())
        return interpreters.find()[plan.python], plan.lines

    def _explained(self, tool: str, code: int, *, checking: bool) -> SlipwayError:
        if checking:
            last = next((line for line in reversed(self.lines) if line.strip()), "no reason given")
            return self.error(
                f"The packages were installed, but the scoring server does not start with them: {last}"
            )
        if code < 0:
            self.say(f"{tool} was ended by signal {-code}.")
        explained = causes.explain(self.lines, installer=tool, folder=str(self._folder))
        if explained.temporary:
            return TemporaryError(
                explained.message, delay=30, code=UNREACHABLE_CODE, evidence=self.evidence
            )
        return self.error(explained.message)

    def _fail(self, error: SlipwayError) -> None:
        """Leave nothing half-made; the log and the cause stay."""
        shutil.rmtree(self._venv, ignore_errors=True)
        with contextlib.suppress(OSError):  # it was never made, or is on a disk that fails
            self._folder.rmdir()
        self.failed(error)


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
