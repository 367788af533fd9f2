"""One trace at one load and start time under every scaler."""

import math
from dataclasses import dataclass
from pathlib import Path

from bench.scaling import traces
from deployments.types import Scaling
from router.autoscaler.policy import Limits
from router.autoscaler.rivals import SCALERS
from router.autoscaler.simulate import Setup, simulate

LOADS, START_SECONDS = (5, 50, 500), (2, 20, 60)
_WARM_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Task:
    """What one process works off. `source` is a file, or the name of a generated shape."""

    source: Path | str
    load: int
    start_seconds: int
    seconds: float  # length of a generated shape; a file's requests after it are left out
    seed: int = 0  # of a generated shape; other than 0 varies it
    half: str = ""  # of a file: "first", "second", or all of it


@dataclass(frozen=True, slots=True)
class Row:
    """How one scaler fared. Waits are seconds, of requests that reached a replica."""

    trace: str
    load: int
    start_s: int
    policy: str
    rejected_share: float
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    replica_hours: float
    vs_oracle: float
    actions: int
    how: str


def trace_of(task: Task) -> traces.Trace:
    if isinstance(task.source, str):
        return traces.generated(task.source, task.load, task.seconds, task.seed)
    whole = traces.read(task.source)
    if task.half:
        whole = traces.part(whole, task.half)
    if whole.seconds > task.seconds:
        kept = sum(1 for at in whole.arrivals if at < task.seconds)
        whole = traces.Trace(
            whole.name, whole.arrivals[:kept], whole.services[:kept], float(int(task.seconds))
        )
    return traces.brought_to(whole, task.load)


def setup_of(trace: traces.Trace, start_seconds: float) -> Setup:
    """The service ran before: it begins with what the first minute needs at the target."""
    limits = Limits(Scaling(minimum=1, maximum=100_000, target_utilization=70))
    first = sum(
        took for at, took in zip(trace.arrivals, trace.services, strict=True) if at < _WARM_SECONDS
    )
    warm = math.ceil(first / min(_WARM_SECONDS, trace.seconds) / 0.7)
    return Setup(limits, start_seconds=start_seconds, initial=max(warm, 1), seconds=trace.seconds)


def run(task: Task) -> list[Row]:
    trace = trace_of(task)
    setup = setup_of(trace, task.start_seconds)
    results = {
        name: simulate(
            trace.arrivals, trace.services, setup, make(trace.arrivals, trace.services, setup)
        )
        for name, make in SCALERS.items()
    }
    best = results["oracle"].replica_hours
    return [
        Row(
            trace=trace.name,
            load=task.load,
            start_s=task.start_seconds,
            policy=name,
            rejected_share=result.rejected_share,
            wait_p50_s=result.wait_p50,
            wait_p95_s=result.wait_p95,
            wait_p99_s=result.wait_p99,
            replica_hours=result.replica_hours,
            vs_oracle=result.replica_hours / best,
            actions=len(result.actions),
            how=trace.how,
        )
        for name, result in results.items()
    ]
