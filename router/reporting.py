"""What the loop writes down: where replicas stand, for the cluster, and its own state, for its next run.

News goes out in the turn it is found; what only repeats goes out now and then, and the more rarely the
longer it takes. Files and calls only; nothing is decided here.
"""

import asyncio
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.drivers.base import Driver
from deployments.errors import SlipwayError
from deployments.types import Observation, Phase, RouteReport
from router import state
from router.dataplane import DataPlane
from router.standing import Standing
from router.versions import Version, Versions

# A report or a state file that took this long is not written again before so many times as long.
_PAUSE_TIMES, _PAUSE_FROM, _PAUSE_MOST = 40.0, 0.02, 5.0
_LEARNT_EVERY = 1.0  # seconds between looks at what verdicts have learnt
_LEAVING = frozenset({Phase.DRAINING, Phase.STOPPED})


@dataclass(frozen=True, slots=True)
class _Pause:
    """When something was done last and how long that took: what takes long is done more rarely."""

    at: float = 0.0
    took: float = 0.0

    def over(self, now: float, most: float) -> bool:
        if self.took < _PAUSE_FROM:
            return True
        return now - self.at >= min(self.took * _PAUSE_TIMES, most)


class Reporter:
    """Tells the cluster where each replica stands."""

    def __init__(self, driver: Driver, standing: Standing, clock: Callable[[], float]) -> None:
        self.driver = driver
        self.standing = standing
        self._clock = clock
        self._last = _Pause()

    async def publish(self, observation: Observation, versions: Iterable[Version]) -> None:
        """Where each replica stands. `at` is when the cluster was seen, not now: a drain that the
        cluster began after that is not answered by this report.

        News goes out at once; while a replica is on its way out, the cluster waits for a later report;
        else it is a sign of life.
        """
        awaited = any(
            item.phase in _LEAVING
            for version in versions
            if not version.calm
            for item in version.replicas
        )
        now = self._clock()
        if not self.standing.news and not self._last.over(now, 1.0 if awaited else _PAUSE_MOST):
            return
        report = RouteReport(at=observation.at, routes=self.standing.report())
        try:
            await asyncio.to_thread(self.driver.publish_routes, report)
        except SlipwayError:
            self.standing.news = True
            raise
        self._last = _Pause(now, self._clock() - now)


class Keeper:
    """Keeps the state file at what the next run has to know. `kept` is what stands in it."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.kept = state.load(path)
        self._path = path
        self._clock = clock
        self._last = _Pause()
        self._kept_from: tuple[object, ...] = ()
        self._looked_at = 0.0

    def keep(self, plane: DataPlane, versions: Versions, *, final: bool = False) -> None:
        now = self._clock()
        if not final and not self._last.over(now, _PAUSE_MOST):
            return
        source = (plane.backends, plane.shapes, plane.threads, *plane.slots.values())
        if _same(source, self._kept_from):
            if not final and now - self._looked_at < _LEARNT_EVERY:
                return
            self._looked_at = now
            if versions.learnt() == self.kept.start_seconds:
                return
        kept = state.RouterState(
            backends={str(key): name for key, name in plane.backends.items()},
            shapes=plane.shapes,
            slots=plane.held(),
            start_seconds=versions.learnt(),
            concurrency=versions.concurrency(),
            threads=plane.threads,
        )
        self._kept_from = source
        if kept != self.kept:
            state.save(self._path, kept)
            self.kept = kept
        self._last = _Pause(now, self._clock() - now)


def _same(some: Sequence[object], others: Sequence[object]) -> bool:
    """Whether these are the very same objects."""
    return len(some) == len(others) and all(map(operator.is_, some, others))
