"""What stands on an API server under one path, kept up to date by a thread that lists and then watches.

A reader gets what was seen last at once, and Unavailable when that may be old: what cannot be seen is never
taken for gone. The thread goes on through everything; it ends when it is closed.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping

from urllib3.response import BaseHTTPResponse

from deployments.errors import SlipwayError, Unavailable
from deployments.kube.api import Expired, Kube, Object

log = logging.getLogger(__name__)

_STALE = 30.0  # seconds without a word
_SPAN = 15.0  # of one watch: its end is a word too
_AGAIN = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between attempts


class Watched:
    """`keep` makes of an object what is kept of it, None to keep nothing; it is nobody's to change."""

    def __init__(
        self,
        kube: Kube,
        path: str,
        *,
        labels: str = "",
        fields: str = "",
        keep: Callable[[Object], Object | None] = lambda found: found,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._kube, self._path = kube, path
        self._labels, self._fields = labels, fields
        self._keep, self._on_change = keep, on_change
        self._objects: dict[str, Object] = {}
        self._shown: Mapping[str, Object] = {}
        self._changed = False
        self._moved = 0
        self._version = ""  # how far it came; "" is to be listed
        self._heard_at: float | None = None
        self._error: SlipwayError | None = None
        self._synced = threading.Event()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._answer: BaseHTTPResponse | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)
        self._thread.start()

    def objects(self, wait: float = 5.0) -> Mapping[str, Object]:
        """By uid; the same mapping as long as nothing changed. Waits for the first listing. Raises
        Unavailable when nothing was heard for 30 s, or what the API server refused us."""
        if not self._synced.is_set():
            until = time.monotonic() + wait
            while not self._synced.wait(0.02) and time.monotonic() < until and self._error is None:
                pass
        with self._lock:
            heard = self._heard_at
            if heard is None or time.monotonic() - heard > _STALE:
                if self._error is not None:
                    raise self._error
                raise Unavailable(f"{self._path} has not been seen for a while, or not yet.")
            if self._changed:
                self._shown, self._changed = dict(self._objects), False
            return self._shown

    def moved(self) -> int:
        """Another number when `objects` shows something else."""
        return self._moved

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(Exception):
            if (answer := self._answer) is not None:
                answer.shutdown()

    def _run(self) -> None:
        failed = 0
        while not self._closed.is_set():
            try:
                if not self._version:
                    self._version = self._list()
                self._watch()
                failed = 0
                self._error = None
            except Expired:
                self._version = ""
            except Exception as error:
                if not isinstance(error, SlipwayError):
                    log.exception("the watch of %s failed", self._path)
                    error = Unavailable(f"The watch of {self._path} failed: {error!r}.")
                if not failed and not self._closed.is_set():
                    log.warning("%s is not seen: %s", self._path, error.message)
                self._error = error
                if not isinstance(error, Unavailable):
                    self._version = ""
                self._closed.wait(_AGAIN[min(failed, len(_AGAIN) - 1)])
                failed += 1

    def _list(self) -> str:
        listing = self._kube.items(
            self._path, labels=self._labels, fields=self._fields, keep=self._taken
        )
        found: dict[str, Object] = dict(listing.items)
        with self._lock:
            different = found != self._objects
            self._objects = found
            self._changed |= different
            self._moved += different or not self._synced.is_set()
            self._heard_at = time.monotonic()
        self._synced.set()
        if different:
            self._on_change()
        return listing.version

    def _taken(self, item: Object) -> tuple[str, Object] | None:
        kept = self._keep(item)
        return None if kept is None else (item["metadata"]["uid"], kept)

    def _watch(self) -> None:
        """Until the server ends it."""
        events = self._kube.watch(
            self._path,
            self._version,
            _SPAN,
            labels=self._labels,
            fields=self._fields,
            opened=self._opened,
        )
        for event in events:
            meta = event.object["metadata"]
            # a bookmark's object is but a version
            kept = None if event.kind in ("DELETED", "BOOKMARK") else self._keep(event.object)
            with self._lock:
                self._version = meta["resourceVersion"]
                self._heard_at = time.monotonic()
                if event.kind == "BOOKMARK":
                    continue
                if kept is not None:
                    self._objects[meta["uid"]] = kept
                elif self._objects.pop(meta["uid"], None) is None:
                    continue
                self._changed = True
                self._moved += 1
            self._on_change()
        self._heard()

    def _opened(self, answer: BaseHTTPResponse) -> None:
        self._answer = answer
        self._heard()
        if self._closed.is_set():
            answer.shutdown()

    def _heard(self) -> None:
        with self._lock:
            self._heard_at = time.monotonic()
