"""What was measured of each version: its samples, its newest one, and its counts since this run began.

Remembers the readings of the current second and the counters at its beginning; `router.sampling` makes the
samples of them. No I/O, no clock: the loop says which second it is.
"""

from collections.abc import Iterable, Mapping

from router import sampling
from router.haproxy.pool import Key
from router.haproxy.stats import NOTHING, BackendFigures, Counters, added
from router.reader import Reading
from router.samples import Sample
from router.sampling import Count, Mark


class Measuring:
    """One router's. `totals` and `latest` are for /metrics."""

    def __init__(self) -> None:
        self.totals: dict[Key, Counters] = {}
        self.latest: dict[Key, Sample] = {}
        self._second: int | None = None
        self._readings: list[Mapping[Key, BackendFigures]] = []
        self._mark: Mark | None = None

    def turned(self, second: int) -> bool:
        """Whether this second has not begun yet."""
        return second != self._second

    def note(self, reading: Reading) -> None:
        """A reading in the current second."""
        self._readings.append(reading.figures)

    def turn(
        self,
        second: int,
        reading: Reading,
        backends: Mapping[Key, str],
        counts: Mapping[Key, Count],
    ) -> tuple[Sample, ...]:
        """The samples of the second that ended with this reading; `second` begins with it. `counts` is
        how the replicas of every version stand."""
        made: tuple[Sample, ...] = ()
        if reading.counted is not None:
            mark = Mark(reading.at, reading.worker.pid, reading.counted, backends)
            changed = sampling.change(self._mark, mark)
            self._mark = mark
            for key, part in changed.by_version.items():
                if part is not NOTHING and key in counts:
                    self.totals[key] = added(self.totals.get(key, NOTHING), part)
            for key in counts:
                self.totals.setdefault(key, NOTHING)
            if self._second is not None:
                made = sampling.samples(self._second, self._readings, changed, counts)
                self.latest = {Key(item.service, item.version): item for item in made}
        self._second, self._readings = second, []
        return made

    def only(self, versions: Iterable[Key]) -> None:
        """Forget those that are gone."""
        for key in self.totals.keys() - set(versions):
            del self.totals[key]

    def expire(self, before: float) -> None:
        """Samples that began before this moment tell nothing of now."""
        if self.latest and next(iter(self.latest.values())).at < before:
            self.latest = {}
