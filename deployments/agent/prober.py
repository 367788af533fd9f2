"""Ask replicas' gates `GET /`, all at once, each at its own pace, without ever holding the agent up.

A gate answers at once, however busy its replica is, and says in `x-slipway-silent` for how long (seconds)
a worker has given no sign of life: the last good moment was that long ago.

One thread with an event loop of its own. `watch` says whom to ask and how often; `look` returns what
was answered. A probe that is still waiting is not doubled.
"""

import asyncio
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from deployments.sockets import HEALTH, within

_REQUEST = b"GET / HTTP/1.1\r\nHost: replica\r\nConnection: close\r\n\r\n"
_SILENT = b"x-slipway-silent:"


@dataclass(frozen=True, slots=True)
class Answers:
    """What one run of a replica has answered. Times are epoch seconds."""

    since: float  # when asking began
    good_at: float | None = None
    streak: int = 0
    refused: bool = False


@dataclass(slots=True)
class _Watch:
    run: int
    answers: Answers
    next_at: float = 0.0
    pending: "Future[_Answer] | None" = None


@dataclass(frozen=True, slots=True)
class _Answer:
    good: bool = False
    silent: float = 0.0  # seconds
    refused: bool = False


class Prober:
    """Made once by the agent; `close` ends its thread."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watch] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="prober", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_finish())
            self._loop.close()

    def watch(self, replica: str, run: int, folder: Path, every: float, deadline: float) -> Answers:
        """Ask when it is time to, and return what is known. `every` and `deadline` in seconds, `folder`
        is the replica's."""
        now = time.time()
        watch = self._watched.get(replica)
        if watch is None or watch.run != run:
            if watch is not None:
                self.forget(replica)
            watch = self._watched[replica] = _Watch(run, Answers(since=now))
        if watch.pending is not None and watch.pending.done():
            answer = watch.pending.result()
            before = watch.answers
            watch.answers = Answers(
                since=before.since,
                good_at=now - answer.silent if answer.good else before.good_at,
                streak=before.streak + 1 if answer.good else 0,
                refused=answer.refused,
            )
            watch.pending = None
        if watch.pending is None and now >= watch.next_at:
            watch.next_at = now + every
            watch.pending = asyncio.run_coroutine_threadsafe(_ask(folder, deadline), self._loop)
        return watch.answers

    def forget(self, replica: str) -> None:
        watch = self._watched.pop(replica, None)
        if watch is not None and watch.pending is not None:
            watch.pending.cancel()

    def forget_all_but(self, replicas: set[str]) -> None:
        for replica in self._watched.keys() - replicas:
            self.forget(replica)

    def close(self) -> None:
        for replica in list(self._watched):
            self.forget(replica)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)


async def _finish() -> None:
    """Let every probe that still waits close its connection."""
    waiting = asyncio.all_tasks() - {asyncio.current_task()}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(0)  # closed transports tell their sockets in the loop's next round


async def _ask(folder: Path, deadline: float) -> _Answer:
    writer = None
    try:
        async with asyncio.timeout(deadline):
            with within(folder / HEALTH) as path:
                reader, writer = await asyncio.open_unix_connection(path)
            writer.write(_REQUEST)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        silent = next((line for line in head if line.startswith(_SILENT)), _SILENT + b"0")
        return _Answer(head[0].split(b" ")[1:2] == [b"200"], float(silent[len(_SILENT) :]))
    except (ConnectionRefusedError, FileNotFoundError):
        return _Answer(refused=True)
    except (OSError, TimeoutError, ValueError, EOFError, asyncio.LimitOverrunError):
        return _Answer()
    finally:
        if writer is not None:
            writer.close()
