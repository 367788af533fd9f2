"""Copies what a container says from its Engine into its replica's log, line by line and each once.

The log is the same as a shim's (`deployments.drivers.process_logs`); a line carries the Engine's own time
too (`e`), and an agent that comes back goes on after the last one it finds. A thread a container; the
Engine keeps the last 30 MB of its output, which is what may pass while no agent runs.
"""

import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from deployments.agent.shim import LONGEST_LINE, Log
from deployments.drivers import process_logs
from deployments.engine.containers import BROKEN, Engine
from deployments.errors import SlipwayError

logger = logging.getLogger(__name__)

_SEGMENT_BYTES, _SEGMENTS = 10_000_000, 3
_LAST = 256 * 1024  # bytes of a segment in which its last whole line stands
_AGAIN = 0.5  # seconds


class _Lines(Log):
    """A shim's log, with the times that the lines were said."""

    def add(self, stream: str, text: str, stamp: str) -> None:
        self.number += 1
        raw = {"n": self.number, "at": _at(stamp), "s": stream, "t": text, "e": stamp}
        self.tail.append(text)
        if not self._append(json.dumps(raw, separators=(",", ":")).encode() + b"\n"):
            self.lost += 1

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Follower:
    """Follows one run's container until it ends. `done` is set once all of its output is in."""

    def __init__(self, engine: Engine, container: str, folder: Path, run: int) -> None:
        self._engine, self._container = engine, container
        self._folder, self._run = folder, run
        self.done = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(
            target=self._follow, name=f"log {container[:12]}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Write nothing any more: its folder goes."""
        self._stopped = True

    def _follow(self) -> None:
        try:
            while not self._stopped:
                lines = _Lines(self._folder, self._run, _SEGMENT_BYTES, _SEGMENTS)
                try:
                    self._copy(lines)
                    return
                except BROKEN as error:
                    logger.info("the log of %s: %s; it is read on", self._container[:12], error)
                finally:
                    lines.close()
                threading.Event().wait(_AGAIN)
        except (SlipwayError, OSError, ValueError) as error:
            logger.warning("the log of %s cannot be read: %s", self._container[:12], error)
        finally:
            self.done.set()

    def _copy(self, lines: _Lines) -> None:
        last = last_stamp(self._folder, self._run)
        rest = {"o": "", "e": ""}
        for stream, stamp, text in self._engine.logs(self._container, since=last):
            if self._stopped:
                return
            if last and stamp <= last:
                continue
            whole = rest[stream] + text
            if not whole.endswith("\n") and len(whole) < LONGEST_LINE:
                rest[stream] = whole
                continue
            rest[stream] = ""
            lines.add(stream, whole.rstrip("\r\n"), stamp)
        for stream, text in rest.items():
            if text:
                lines.add(stream, text, last or "")


def last_stamp(folder: Path, run: int) -> str:
    """The Engine's time of the last line that this run has in its log; "" when it has none."""
    for segment in reversed([item for item in process_logs.segments(folder) if item.run == run]):
        with (folder / segment.name).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LAST))
            whole = file.read().split(b"\n")[:-1]
        for raw in reversed(whole):
            try:
                return str(json.loads(raw).get("e", ""))
            except ValueError:
                continue
    return ""


def _at(stamp: str) -> float:
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    try:
        at = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
    return round(at + float(f"0.{fraction or 0}"), 3)
