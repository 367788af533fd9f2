"""How far HAProxy follows its cluster's `RouterSpec`: asked for, in force, refused.

What ran last is kept in a file of its own (mode 600: it holds the TLS key), so that a HAProxy that has
to be started anew has what it had when what the cluster asks for is refused. Decides nothing about
HAProxy itself; `router.dataplane` acts.
"""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from deployments.clusters import tls
from deployments.codec import from_json, to_json
from deployments.errors import InvalidInput, SlipwayError
from deployments.types import RouterSpec
from router import setup

log = logging.getLogger(__name__)

_AGAIN = 60.0  # seconds until refused settings are tried, and said, again


class Following:
    """One router's settings. `monotonic` is a clock in seconds."""

    def __init__(self, path: Path, monotonic: Callable[[], float]) -> None:
        self.asked: RouterSpec | None = None  # None: not read yet
        self.kept = _load(path)
        self.spec = self.kept or RouterSpec()  # what HAProxy runs with
        self.problem = ""
        self._path = path
        self._monotonic = monotonic
        self._settled: RouterSpec | None = None  # was looked at, and nothing is left to do
        self._certified = False  # whether HAProxy is known to have the certificate of `spec`
        self._refused: RouterSpec | None = None
        self._not_before = 0.0

    def ask(self, spec: RouterSpec | None) -> None:
        """What the cluster says now; None is that it cannot be read, and changes nothing."""
        if spec is not None:
            self.asked = spec

    def due(self) -> RouterSpec | None:
        """What HAProxy is to be brought to now; None when there is nothing to do."""
        asked = self.asked
        if asked is None or asked is self._settled:
            return None
        if asked == self._refused and self._monotonic() < self._not_before:
            return None
        return asked

    def certificate_due(self, spec: RouterSpec) -> bool:
        """Whether HAProxy has to be told the certificate of `spec`."""
        return spec.tls is not None and not (
            self._certified and setup.site(spec) == setup.site(self.spec)
        )

    def adopt(self, spec: RouterSpec) -> None:
        """A HAProxy was found that was started with this; its certificate may be an older one, so no
        generation of it counts as reached yet."""
        self.spec, self._certified, self._settled = replace(spec, generation=0), False, None

    def took(self, spec: RouterSpec) -> None:
        """HAProxy runs with all of this now."""
        self.spec, self._certified = spec, True
        if spec is self.asked or spec == self.asked:
            self._settled = self.asked
            if self.problem:
                log.info("the router follows its settings again")
            self.problem, self._refused = "", None
        kept = replace(spec, generation=0, revoked_tokens=())
        if kept != self.kept:
            _save(self._path, kept)
            self.kept = kept

    def refuse(self, spec: RouterSpec, error: SlipwayError) -> None:
        """HAProxy would not have this; what ran goes on. Said once a minute."""
        now = self._monotonic()
        self.problem = setup.told(error.message, error.evidence)
        if spec == self._refused and now < self._not_before:
            return
        self._refused, self._not_before = spec, now + _AGAIN
        log.error(
            "the router's settings (generation %d) are refused, it goes on as it was: %s %s",
            spec.generation,
            error.message,
            error.evidence,
        )

    def status(self) -> setup.Status:
        asked = self.asked or self.spec
        return setup.Status(
            generation=self.spec.generation,
            wanted=asked.generation,
            problem=self.problem if asked == self._refused else "",
            tls_not_after=_not_after(self.spec),
        )


def _not_after(spec: RouterSpec) -> float | None:
    if spec.tls is None:
        return None
    try:
        return tls.certificate(spec.tls.chain).not_after.timestamp()
    except InvalidInput:
        return None


def _load(path: Path) -> RouterSpec | None:
    try:
        return from_json(RouterSpec, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s cannot be read (%s); the cluster says it again", path, error)
        return None


def _save(path: Path, spec: RouterSpec) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(to_json(spec), file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
