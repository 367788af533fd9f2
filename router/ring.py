"""The last samples and decisions, numbered, for whoever asks "everything after N".

In memory only: the portal keeps the history. A new run of the loop has a new epoch and counts anew.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice

from router.samples import DecisionRecord, Sample, TelemetryPage


class Ring:
    """`limit` rows; the oldest fall out. Not thread-safe: it lives on the event loop."""

    def __init__(self, epoch: str, limit: int = 100_000) -> None:
        self.epoch = epoch
        self._rows: deque[Sample | DecisionRecord] = deque(maxlen=limit)
        self._next = 0

    def add(self, rows: Iterable[Sample | DecisionRecord]) -> None:
        for row in rows:
            self._rows.append(row)
            self._next += 1

    def page(self, after: int, limit: int = 2000) -> TelemetryPage:
        """Rows from number `after` on, at most `limit`; those that fell out are skipped."""
        first = self._next - len(self._rows)
        start = min(max(after - first, 0), len(self._rows))
        rows = list(islice(self._rows, start, start + limit))
        return TelemetryPage(
            epoch=self.epoch,
            next=first + start + len(rows),
            samples=tuple(row for row in rows if isinstance(row, Sample)),
            decisions=tuple(row for row in rows if isinstance(row, DecisionRecord)),
        )
