"""What comes out of a what-if, as JSON: figures of three runs, and lines for a chart.

The three are `recorded` (as it was), `as_set` (what the simulator makes of the settings as they were, so that
its own error can be seen) and `settings` (as it would be). No queries, no clock.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from router.autoscaler.simulate import Result
from router.telemetry.columns import COLUMNS
from router.telemetry.recording import Figures, Recording

MOST_POINTS = 480
_AT, _SECONDS = COLUMNS.index("at"), COLUMNS.index("seconds")
_READY, _STARTING = COLUMNS.index("ready"), COLUMNS.index("starting")
_ARRIVALS, _REJECTED = COLUMNS.index("arrivals"), COLUMNS.index("rejected")


def answer(
    recorded: Recording, figures: Figures, results: Mapping[str, Result], stretch: float
) -> dict[str, Any]:
    """The row's `result`. Simulated replica-hours are of the measured seconds alone, as the recorded ones."""
    width = _width(recorded)
    at = list(range(recorded.since, recorded.until, width))
    shares = {row[_AT]: row[_SECONDS] / recorded.step for row in recorded.rows}
    return {
        "step": recorded.step,
        "seconds": recorded.until - recorded.since,
        "measured": recorded.measured,
        "stretch": round(stretch, 3),
        "recorded": {**asdict(figures), "rejected_share": figures.rejected_share},
        **{name: _figures(result, recorded, shares) for name, result in results.items()},
        "chart": {
            "width": width,
            "at": at,
            **_recorded_lines(recorded, width, len(at)),
            **{name: _lines(result, width, len(at)) for name, result in results.items()},
        },
    }


def _width(recorded: Recording) -> int:
    """Seconds of a point of the chart: whole buckets, and not too many points."""
    span = recorded.until - recorded.since
    return recorded.step * max(math.ceil(span / recorded.step / MOST_POINTS), 1)


def _figures(result: Result, recorded: Recording, shares: Mapping[int, float]) -> dict[str, Any]:
    everything = measured = 0.0
    for point in result.points:
        at = recorded.since + point.at
        here = point.ready + point.starting
        everything += here
        measured += here * shares.get(at - at % recorded.step, 0.0)
    hours = result.replica_hours * (measured / everything if everything else 1.0)
    return {
        "requests": result.requests,
        "rejected": result.rejected,
        "rejected_share": result.rejected_share,
        "timeouts": result.timeouts,
        "wait_p95": result.wait_p95,
        "replica_hours": hours,
        "actions": len(result.actions),
        "peak": max((point.ready + point.starting for point in result.points), default=0),
    }


def _recorded_lines(recorded: Recording, width: int, count: int) -> dict[str, Any]:
    """Means over the measured seconds of each point; None where there were none."""
    seconds, sums = [0] * count, [[0.0] * count for _ in range(3)]
    for row in recorded.rows:
        index, measured = (row[_AT] - recorded.since) // width, row[_SECONDS]
        seconds[index] += measured
        sums[0][index] += (row[_READY] + row[_STARTING]) * measured
        sums[1][index] += row[_ARRIVALS]
        sums[2][index] += row[_REJECTED]
    replicas, arrivals, rejected = (_means(values, seconds) for values in sums)
    return {"arrivals": arrivals, "recorded": {"replicas": replicas, "rejected": rejected}}


def _lines(result: Result, width: int, count: int) -> dict[str, Any]:
    seconds, sums = [0] * count, [[0.0] * count for _ in range(2)]
    for point in result.points:
        index = min(point.at // width, count - 1)
        seconds[index] += 1
        sums[0][index] += point.ready + point.starting
        sums[1][index] += point.rejected
    replicas, rejected = (_means(values, seconds) for values in sums)
    return {"replicas": replicas, "rejected": rejected}


def _means(values: Iterable[float], seconds: Sequence[int]) -> list[float | None]:
    pairs = zip(values, seconds, strict=True)
    return [round(value / count, 3) if count else None for value, count in pairs]
