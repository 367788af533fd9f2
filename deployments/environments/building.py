"""What building a virtual environment and building an image have in common.

One builds, under a claim that it keeps renewing; whoever else needs the same hash waits and reads along.
Both kinds write one log a hash, each under a source of its own. Reads and writes rows and logs; runs
nothing by itself.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from django.conf import settings
from django.db import OperationalError
from django.utils import timezone

from deployments import logstore
from deployments.environments import claims
from deployments.environments.causes import FAILED_CODE, UNREACHABLE_CODE
from deployments.environments.claims import Build, Next
from deployments.environments.models import BuildState, EnvironmentBuild
from deployments.errors import PermanentError, SlipwayError, TemporaryError
from deployments.signals import announce

if TYPE_CHECKING:
    from deployments.images.models import ImageBuild

logger = logging.getLogger(__name__)

_POLL = 0.5  # seconds between two looks at somebody else's build
_RENEW = 5.0  # seconds between two signs of life; the lease is 30
_EVIDENCE = 40  # last lines that go with a failure
Log = Callable[[str], None]
Row = TypeVar("Row", EnvironmentBuild, "ImageBuild")


class ClaimLost(Exception):
    """Somebody else builds this hash now."""


def ensure(
    kind: type[Row],
    hash_: str,
    *,
    what: str,
    source: str,
    complete: Callable[[Row], bool],
    build: Callable[[Row, str], Row],
    log: Log,
    check: Callable[[], None] = lambda: None,
    temporary: frozenset[str] = frozenset({UNREACHABLE_CODE}),
) -> Row:
    """The READY row of this hash; builds it with `build(row, claim)`, or waits for whoever does.

    `what` ("Environment") names it in lines, `source` is what its lines in the hash's log are under,
    `complete` says whether what a READY row speaks of still stands, `check` is called while waiting and
    may raise. A stored failure whose code is in `temporary` is raised as a TemporaryError, others as a
    PermanentError. Call it outside a transaction: other processes must see the claim.
    """
    row, _ = kind.objects.get_or_create(hash=hash_)
    patience = time.monotonic() + settings.ENV.build_timeout + 60
    reader: _Follower | None = None
    while True:
        seen: Row = kind.objects.get(pk=row.pk)
        now = timezone.now()
        step = claims.decide(
            seen.state,
            complete=seen.state == BuildState.READY and complete(seen),
            running=claims.is_running(seen, now),
            waited=reader is not None,
        )
        if reader is not None:
            reader.forward(log)
        if step is Next.USE:
            if _touch(seen):
                return kind.objects.get(pk=row.pk)
        elif step is Next.FAIL:
            raise _stored_failure(seen, source, temporary)
        elif step is Next.WAIT:
            if reader is None:
                log(f"{what} {seen.hash[:12]} is being built already; waiting for it.")
                reader = _Follower(seen, source)
            if time.monotonic() > patience:
                raise TemporaryError(
                    f"{what} {seen.hash[:12]} is still being built elsewhere; try again later.",
                    delay=30,
                )
            check()
            time.sleep(_POLL)
        elif name := claims.claim(seen, now):
            try:
                return build(row, name)
            except ClaimLost:
                log("Another process took this build over; waiting for it.")
                reader = _Follower(kind.objects.get(pk=row.pk), source)


def _touch(build: Build) -> bool:
    """Note the use; fails when it was removed meanwhile, which is decided by this row."""
    seen = type(build).objects.filter(pk=build.pk, state=build.state, finished_at=build.finished_at)
    return seen.update(last_used_at=timezone.now()) == 1


class _Follower:
    """Reads on in the log of a build that somebody else runs, from that build's first line."""

    def __init__(self, build: Build, source: str) -> None:
        self._path = settings.HOME.environment_log(build.hash)
        self._source = source
        self._since = build.started_at.timestamp() - 0.001 if build.started_at else 0.0
        self._cursor = 0

    def forward(self, log: Log) -> None:
        while True:
            entries, self._cursor = logstore.read(self._path, self._cursor)
            if not entries:
                return
            for entry in entries:
                if entry.at >= self._since and entry.source == self._source:
                    log(entry.text)


def _stored_failure(build: Build, source: str, temporary: frozenset[str]) -> SlipwayError:
    lines: list[str] = []
    _Follower(build, source).forward(lines.append)
    evidence = "\n".join(lines[-_EVIDENCE:])
    if build.error_code in temporary:
        return TemporaryError(build.error, delay=30, code=build.error_code, evidence=evidence)
    return PermanentError(build.error, code=build.error_code or FAILED_CODE, evidence=evidence)


class Attempt:
    """One attempt at one hash under a claim: what it says, and that it lives."""

    def __init__(self, row: Build, name: str, log: Log, *, source: str) -> None:
        self.row = row
        self.name = name
        self.lines: list[str] = []
        self._log = log
        self._source = source
        self._path = settings.HOME.environment_log(row.hash)
        self._renewed = time.monotonic()

    @property
    def evidence(self) -> str:
        """The last lines, which go with a failure."""
        return "\n".join(self.lines[-_EVIDENCE:])

    def error(self, message: str, code: str = FAILED_CODE) -> PermanentError:
        return PermanentError(message, code=code, evidence=self.evidence)

    def say(self, text: str) -> None:
        self.say_all([text])

    def say_all(self, lines: list[str]) -> None:
        """To the hash's own log, to whoever asked for the build, and kept as evidence."""
        self.lines += lines
        now = time.time()
        try:
            logstore.append(
                self._path, [logstore.LogEntry(now, self._source, line) for line in lines]
            )
        except OSError as error:
            # a full disk must not hide the cause it is about to be given
            logger.warning("The build log %s cannot be written: %s", self._path, error)
        for line in lines:
            self._log(line)

    def beat(self) -> None:
        """A sign of life every few seconds. Raises ClaimLost."""
        if time.monotonic() - self._renewed < _RENEW:
            return
        self.must_hold()

    def must_hold(self) -> None:
        """Renew the claim now: before what only its holder may do. Raises ClaimLost."""
        try:
            if not claims.renew(self.row, self.name, timezone.now()):
                raise ClaimLost
        except OperationalError as error:
            # the lease outlives some missed renewals; the next beat tries again
            logger.warning("The lease of build %s was not renewed: %s", self.row.pk, error)
            return
        self._renewed = time.monotonic()

    def failed(self, error: SlipwayError) -> None:
        """Write the failure down, where pages and those who wait find it."""
        self.say(f"Failed: {error.message}")
        code = error.code or FAILED_CODE
        claims.fail(self.row, self.name, code=code, message=error.message, now=timezone.now())
        announce("environment", self.row.hash)

    def given_back(self) -> None:
        """Stopped from outside: the next one need not wait for the lease."""
        claims.give_back(self.row, self.name)
        announce("environment", self.row.hash)
