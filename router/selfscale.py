"""How large a cluster's router should be: HAProxy's threads first, then its pods.

PURE. One second's figures, the size now, the limits, the free room and the state of the last verdict go in;
a verdict with its reason and the next state come out. The order is Azure's: up with more threads to the
cores given, then with one more pod; down with fewer threads, and fewer pods only when one thread is left.

    slow and busy      routing takes over UP_MS (median of 15 s), and HAProxy itself uses the time
      -> a dev-test cluster never; a thread or a pod only where a place for it is free
    calm for 10 min    so little CPU that the next smaller size would be calm as well
      -> one thread less; with one thread, one pod less
    anything else      as it is

Safety: a second that was not measured is neither slow nor calm, and after a change, or when the size is
another one than the last verdict left, everything is measured anew. So a loop that starts again changes
nothing before it has seen as much as ever. The thresholds are measured: docs/scaling-the-router.md.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from deployments.types import Purpose

EXACT_THREADS = (3, 2)  # of HAProxy: from here on several threads keep to a replica's limit
UP_MS = 3.0  # routing time, median of the window
WINDOW_SECONDS = 15.0
LEAST_SECONDS = 10  # of the window that must be measured
BUSY = 0.6  # share of its threads that HAProxy uses; below that its threads are not what is short
TARGET = 0.6  # of its threads, what a size is chosen for
CALM = 0.3  # share of the next smaller size's threads
CALM_SECONDS = 600.0
GAP_SECONDS = 30.0  # so much unmeasured time ends a calm
SETTLE_SECONDS = 60.0  # between two changes
THREAD_CORES = 0.5  # free room in which another thread is worth starting


class Code(StrEnum):
    """What a verdict comes to."""

    STEADY = "steady"
    MORE_THREADS = "more_threads"
    FEWER_THREADS = "fewer_threads"
    MORE_PODS = "more_pods"
    FEWER_PODS = "fewer_pods"
    SETTLING = "settling"  # changed a moment ago
    NO_DATA = "no_data"
    # it would grow, and is kept from it:
    DEV_TEST = "dev_test"
    NOT_ITS_WORK = "not_its_work"  # slow for another reason than too few threads
    INEXACT = "inexact"  # this HAProxy miscounts with several threads, and nothing makes up for it
    NO_ROOM = "no_room"
    AT_MOST = "at_most"


PREVENTED = frozenset({Code.DEV_TEST, Code.NOT_ITS_WORK, Code.INEXACT, Code.NO_ROOM, Code.AT_MOST})
CHANGES = frozenset({Code.MORE_THREADS, Code.FEWER_THREADS, Code.MORE_PODS, Code.FEWER_PODS})


@dataclass(frozen=True, slots=True)
class Size:
    """`threads` of each pod's HAProxy, and how many pods there are."""

    threads: int = 1
    pods: int = 1


@dataclass(frozen=True, slots=True)
class Second:
    """One second of one pod. `routing_ms` None: the probe got no answer that tells."""

    at: float
    routing_ms: float | None
    idle: float  # HAProxy's own word on its threads, percent
    cpu: float  # cores it used


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cluster allows. `cores` is how many threads a pod may have."""

    purpose: Purpose
    cores: int
    exact: bool  # HAProxy 3.2 or newer: several threads keep to a replica's limit
    gated: bool  # replicas have gates, which hold that limit whatever HAProxy does
    least_pods: int = 1
    most_pods: int = 1


@dataclass(frozen=True, slots=True)
class Room:
    """What is free now: cores on the router's node, and pods that would find one. None is unknown."""

    cores: float | None = None
    pods: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What one verdict leaves to the next."""

    size: Size | None = None
    window: tuple[Second, ...] = ()
    calm_since: float | None = None
    seen_at: float | None = None
    changed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """`size` is what there should be; `valid` is false when nothing can be said."""

    size: Size
    code: Code
    reason: str
    state: State
    valid: bool = True
    inputs: dict[str, Any] = field(default_factory=dict)


def decide(
    second: Second | None, size: Size, limits: Limits, room: Room, state: State, now: float
) -> Decision:
    """The verdict of this second. `second` is None when it was not measured."""
    state = _seen(second, size, state, now)
    if size.threads > limits.cores:
        to = replace(size, threads=max(limits.cores, 1))
        why = f"The router may use {_cores(limits.cores)} and has {_threads(size.threads)}."
        return _change(Code.FEWER_THREADS, to, why, state, {}, now)
    figures = _figures(state.window)
    if figures is None:
        measured = len(state.window)
        why = f"Only {measured} of the last {WINDOW_SECONDS:.0f} seconds were measured; nothing changes."
        return Decision(size, Code.NO_DATA, why, state, valid=False)
    state = _calm(figures, size, limits, state, now)
    inputs = figures.inputs(size, limits, room)
    slow = figures.routing_ms is not None and figures.routing_ms > UP_MS
    if not slow and state.calm_since is None:
        return Decision(size, Code.STEADY, f"{figures.words(size)}.", state, inputs=inputs)
    if state.changed_at is not None and now - state.changed_at < SETTLE_SECONDS:
        ago = now - state.changed_at
        why = f"{figures.words(size)}; the size was changed {ago:.0f} s ago."
        return Decision(size, Code.SETTLING, why, state, inputs=inputs)
    if slow:
        return _up(figures, size, limits, room, state, inputs, now)
    return _down(figures, size, limits, state, inputs, now)


# ---- what was measured ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Figures:
    routing_ms: float | None  # median
    idle: float  # mean, percent
    cpu: float  # mean, cores

    def words(self, size: Size) -> str:
        routing = "unknown" if self.routing_ms is None else f"{self.routing_ms:.1f} ms"
        return (
            f"Routing took {routing} (median of {WINDOW_SECONDS:.0f} s, limit {UP_MS:g} ms) and HAProxy "
            f"used {self.cpu:.2f} of {_cores(size.threads)} ({self.idle:.0f} % idle)"
        )

    def inputs(self, size: Size, limits: Limits, room: Room) -> dict[str, Any]:
        return {
            "routing_ms": None if self.routing_ms is None else round(self.routing_ms, 2),
            "limit_ms": UP_MS,
            "idle": round(self.idle, 1),
            "cpu": round(self.cpu, 3),
            "threads": size.threads,
            "pods": size.pods,
            "cores": limits.cores,
            "free_cores": None if room.cores is None else round(room.cores, 2),
        }


def _seen(second: Second | None, size: Size, state: State, now: float) -> State:
    """The state with this second in it. Of another size it tells nothing of this one."""
    if state.size != size:
        first = state.size is None
        state = State(size=size, changed_at=None if first else now)
    window = tuple(item for item in state.window if now - item.at < WINDOW_SECONDS)
    if second is not None:
        return replace(state, window=(*window, second), seen_at=now)
    if state.seen_at is None or now - state.seen_at > GAP_SECONDS:
        return replace(state, window=window, calm_since=None)
    return replace(state, window=window)


def _figures(window: tuple[Second, ...]) -> _Figures | None:
    if len(window) < LEAST_SECONDS:
        return None
    routing = [item.routing_ms for item in window if item.routing_ms is not None]
    return _Figures(
        _median(routing) if len(routing) >= LEAST_SECONDS else None,
        sum(item.idle for item in window) / len(window),
        sum(item.cpu for item in window) / len(window),
    )


def _median(values: list[float]) -> float:
    ordered, middle = sorted(values), len(values) // 2
    if len(values) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def _calm(figures: _Figures, size: Size, limits: Limits, state: State, now: float) -> State:
    """Since when the next smaller size would do. A size that cannot shrink is never calm."""
    room = _smaller(size, limits)
    calm = (
        room is not None
        and figures.routing_ms is not None
        and figures.routing_ms <= UP_MS
        and figures.cpu * size.pods <= CALM * room.threads * room.pods
    )
    if not calm:
        return replace(state, calm_since=None)
    return state if state.calm_since is not None else replace(state, calm_since=now)


def _smaller(size: Size, limits: Limits) -> Size | None:
    """First smaller, then fewer."""
    if size.threads > 1:
        return replace(size, threads=size.threads - 1)
    if size.pods > max(limits.least_pods, 1):
        return replace(size, pods=size.pods - 1)
    return None


# ---- up and down ----------------------------------------------------------------------------------


def _up(
    figures: _Figures,
    size: Size,
    limits: Limits,
    room: Room,
    state: State,
    inputs: dict[str, Any],
    now: float,
) -> Decision:
    words = figures.words(size)

    def prevented(code: Code, why: str) -> Decision:
        return Decision(size, code, f"{words}: {why}", state, inputs=inputs)

    if figures.cpu < BUSY * size.threads:
        waits = figures.idle < 100 * (1 - BUSY)
        cause = (
            "it waits for the machine's cores, which others have"
            if waits
            else "it is not HAProxy that takes the time"
        )
        return prevented(Code.NOT_ITS_WORK, f"{cause}; more threads would not help.")
    if limits.purpose is Purpose.DEV_TEST:
        return prevented(Code.DEV_TEST, "a dev-test cluster's router does not scale itself.")
    threads, code, why = _more_threads(figures, size, limits, room)
    if threads > size.threads:
        given = f"of {_cores(limits.cores)} given"
        return _change(
            Code.MORE_THREADS,
            replace(size, threads=threads),
            f"{words}: {_threads(threads)} {given}.",
            state,
            inputs,
            now,
        )
    if size.pods < limits.most_pods:
        if room.pods is not None and room.pods > 0:
            return _change(
                Code.MORE_PODS,
                replace(size, pods=size.pods + 1),
                f"{words}: {why}, so {size.pods + 1} pods.",
                state,
                inputs,
                now,
            )
        full = "is not known to find a place" if room.pods is None else "finds no place"
        return prevented(Code.NO_ROOM, f"{why}, and another pod {full}.")
    return prevented(code, f"{why}, and there is no further pod.")


def _more_threads(
    figures: _Figures, size: Size, limits: Limits, room: Room
) -> tuple[int, Code, str]:
    """How many threads, and why not more than now."""
    if size.threads >= limits.cores:
        return (
            size.threads,
            Code.AT_MOST,
            f"it has a thread on each of {_cores(limits.cores)} given",
        )
    if not (limits.exact or limits.gated):
        return (
            size.threads,
            Code.INEXACT,
            "below 3.2, HAProxy with several threads sends a replica more than it takes at a time, and "
            "these replicas have no gate that refuses it",
        )
    if room.cores is None:
        return size.threads, Code.NO_ROOM, "the free room of its machine is not known"
    place = int(room.cores / THREAD_CORES)
    if place < 1:
        free = f"{max(room.cores, 0.0):.1f} cores are free on its machine"
        return size.threads, Code.NO_ROOM, f"{free}, and a thread needs {THREAD_CORES:g}"
    needed = max(math.ceil(figures.cpu / TARGET), size.threads + 1)
    return min(needed, limits.cores, size.threads + place), Code.MORE_THREADS, ""


def _down(
    figures: _Figures, size: Size, limits: Limits, state: State, inputs: dict[str, Any], now: float
) -> Decision:
    words = figures.words(size)
    smaller = _smaller(size, limits)
    since = state.calm_since
    if smaller is None or since is None or limits.purpose is Purpose.DEV_TEST:
        return Decision(size, Code.STEADY, f"{words}.", state, inputs=inputs)
    calm = now - since
    if calm < CALM_SECONDS:
        why = f"{words}; calm for {calm:.0f} of {CALM_SECONDS:.0f} s."
        return Decision(size, Code.STEADY, why, state, inputs=inputs)
    fewer = smaller.threads < size.threads
    to = _threads(smaller.threads) if fewer else f"{smaller.pods} pod{'s' * (smaller.pods > 1)}"
    code = Code.FEWER_THREADS if fewer else Code.FEWER_PODS
    why = f"{words}, calm for {calm / 60:.0f} min: {to} will do."
    return _change(code, smaller, why, state, inputs, now)


def _change(
    code: Code, size: Size, reason: str, state: State, inputs: dict[str, Any], now: float
) -> Decision:
    """With what comes after it measured anew. Where the change fails, the next second finds another
    size than this and begins anew as well: a failure is tried again after SETTLE_SECONDS."""
    return Decision(size, code, reason, State(size=size, changed_at=now), inputs=inputs)


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _cores(count: int) -> str:
    return f"{count} core{'s' * (count != 1)}"
