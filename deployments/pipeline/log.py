"""A deployment's log: lines to its file, and word of it to whoever follows.

Readers are told at most ten times a second; a line that comes in between is told of at the end of
that tenth, by a timer thread that touches neither rows nor the log.
"""

import threading
import time
from collections.abc import Callable, Iterable

from django.conf import settings

from deployments import logstore
from deployments.logstore import LogEntry
from deployments.signals import changed

_INTERVAL = 0.1
PIPELINE = "pipeline"


class Announcer:
    """Says "changed" at most once an interval, and never swallows the last word."""

    def __init__(self, send: Callable[[], None], interval: float = _INTERVAL) -> None:
        self._send = send
        self._interval = interval
        self._lock = threading.Lock()
        self._last = 0.0
        self._timer: threading.Timer | None = None

    def __call__(self) -> None:
        with self._lock:
            if self._timer is not None:
                return
            wait = self._last + self._interval - time.monotonic()
            if wait > 0:
                self._timer = threading.Timer(wait, self._late)
                self._timer.daemon = True
                self._timer.start()
                return
            self._last = time.monotonic()
        self._send()

    def _late(self) -> None:
        with self._lock:
            self._timer = None
            self._last = time.monotonic()
        self._send()

    def flush(self) -> None:
        """Say now what is waiting to be said."""
        with self._lock:
            timer, self._timer = self._timer, None
            if timer is None:
                return
            timer.cancel()
            self._last = time.monotonic()
        self._send()


class DeploymentLog:
    """Append lines to one deployment's log."""

    def __init__(self, deployment_id: int) -> None:
        self.path = settings.HOME.deployment_log(deployment_id)
        # not `announce`: that asks the database whether a transaction is open, and lines are no rows
        self._key = str(deployment_id)
        self._announcer = Announcer(self._tell)

    def write(self, text: str, source: str = PIPELINE) -> None:
        """One entry a line of text, stamped with the time it is written."""
        now = time.time()
        self.extend(LogEntry(now, source, line) for line in text.splitlines() or [""])

    def extend(self, entries: Iterable[LogEntry]) -> None:
        logstore.append(self.path, entries)
        self._announcer()

    def flush(self) -> None:
        self._announcer.flush()

    def _tell(self) -> None:
        changed.send_robust(sender=None, topic="deployment", key=self._key)
