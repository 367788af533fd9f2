"""Bringing an image onto an Engine, with lines about how far it is and a cause when it cannot be."""

import time
from collections.abc import Callable
from typing import Protocol

from deployments.engine import images
from deployments.engine.streaming import EngineSaid
from deployments.environments.building import Log
from deployments.errors import PermanentError, SlipwayError, TemporaryError
from deployments.images import causes, progress, references, registries
from deployments.images.causes import Failure

_LOOK = 1.0  # seconds between two checks


class Teller(Protocol):
    """Who pulls: where lines go, and what is called meanwhile and may raise."""

    def say_all(self, lines: list[str]) -> None: ...

    def beat(self) -> None: ...


def pull_image(teller: Teller, client: images.Client, reference: str, *, deadline: float) -> None:
    """Bring an image onto the Engine. Raises SlipwayError, TimedOut."""
    parts = references.parse(reference)
    seen = progress.Progress("Pulling", time.monotonic())
    stream = images.pull(
        client,
        parts.name,
        parts.digest or parts.tag or "latest",
        registries.credentials(reference),
    )
    try:
        stream.call().follow(
            on_events=lambda events: teller.say_all(seen.lines(events, time.monotonic())),
            beat=teller.beat,
            deadline=deadline,
        )
    except EngineSaid as error:
        failure = causes.of_pull(error.message, reference, parts.host)
        raise failure_error(failure, error.message) from error
    except SlipwayError as error:
        if not error.evidence or error.code:
            raise
        failure = causes.of_pull(error.evidence, reference, parts.host)
        raise failure_error(failure, error.evidence) from error


class Follower:
    """Whoever pulls without building: where lines go, and what is asked meanwhile."""

    def __init__(self, log: Log, check: Callable[[], None]) -> None:
        self._log = log
        self._check = check
        self._checked = time.monotonic()

    def say_all(self, lines: list[str]) -> None:
        for line in lines:
            self._log(line)

    def beat(self) -> None:
        if time.monotonic() - self._checked >= _LOOK:
            self._checked = time.monotonic()
            self._check()


def failure_error(failure: Failure, evidence: str) -> SlipwayError:
    if failure.temporary:
        return TemporaryError(failure.message, delay=15, code=failure.code, evidence=evidence)
    return PermanentError(failure.message, code=failure.code, evidence=evidence)
