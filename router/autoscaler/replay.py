"""Recorded figures as requests again: what the simulator needs of a past hour.

PURE and deterministic. The store keeps counts and histograms, not requests, so these are made up in their
likeness: each block's arrivals fall evenly at random inside it, each takes a time drawn from the block's own
histogram of the time at the replica. The same blocks always give the same requests.

What counts cannot tell is lost: bursts shorter than a block are smoothed, so coarser blocks make a kinder
replay. The histogram's buckets are wide; where enough was measured, the drawn times are stretched until the
work of the requests that reached a replica is the work that was measured inside replicas (Little's law).
"""

import math
import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from router.samples import BUCKET_BOUNDS_US, BUCKETS

SEED = 20
# `busy` is read four times a second: with so many busy seconds it was seen a few hundred times
_ENOUGH_BUSY_SECONDS = 25.0
# Further than this a bucket's middle is not from what is in it: then the figures do not fit together.
_STRETCH = (0.4, 2.5)


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a recording. Times are seconds from the replay's beginning."""

    at: float
    seconds: float
    arrivals: int
    refused: int = 0  # of them, those that never reached a replica: 503
    timeouts: int = 0  # of them, those that took longer than is allowed: 504
    busy_seconds: float = 0.0  # requests inside replicas, times how long
    histogram: tuple[int, ...] = (0,) * BUCKETS  # of the time at the replica


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests for `simulate`: when each came, and how long it is inside a replica."""

    arrivals: "array[float]"
    services: "array[float]"
    stretch: float  # what drawn times were multiplied by


class UnknownServiceTime(ValueError):
    """Nothing was answered, so nobody knows how long an answer takes."""


def requests(
    blocks: Sequence[Block], *, seed: int = SEED, progress: Callable[[float], None] | None = None
) -> Traffic:
    """Make the requests of the blocks, which are in order and do not overlap.

    A block without answers takes its times from the last one before it that has some, else from the first
    one after it. Raises UnknownServiceTime where no block has any, although something arrived.
    """
    if not any(block.arrivals for block in blocks):
        return Traffic(array("d"), array("d"), 1.0)
    shapes = _shapes(blocks)
    random_ = random.Random(seed)  # noqa: S311  nothing here is a secret
    draw = random_.random
    arrivals, services = array("d"), array("d")
    for index, block in enumerate(blocks):
        if progress is not None and index % 100 == 99:
            progress(index / len(blocks))
        if not block.arrivals:
            continue
        arrivals.extend(sorted(block.at + draw() * block.seconds for _ in range(block.arrivals)))
        sums, lows, widths = shapes[index]
        total = sums[-1]
        for _ in range(block.arrivals):
            rank = draw() * total
            bucket = bisect_left(sums, rank)
            below = sums[bucket - 1] if bucket else 0
            share = (rank - below) / (sums[bucket] - below)
            services.append(lows[bucket] + widths[bucket] * share)
        if block.timeouts:
            first = len(services) - block.arrivals
            late = random_.sample(range(block.arrivals), min(block.timeouts, block.arrivals))
            for number in late:
                services[first + number] = math.inf
    stretch = _stretch(blocks, services)
    if stretch != 1.0:
        services = array("d", (service * stretch for service in services))
    return Traffic(arrivals, services, stretch)


_Shape = tuple[list[int], list[float], list[float]]  # counts added up, lower bounds, widths


def _shapes(blocks: Sequence[Block]) -> list[_Shape]:
    """Each block's distribution, or its neighbour's."""
    first = next((block.histogram for block in blocks if any(block.histogram)), None)
    if first is None:
        raise UnknownServiceTime
    known, found = _shape(first), []
    for block in blocks:
        if any(block.histogram):
            known = _shape(block.histogram)
        found.append(known)
    return found


def _shape(histogram: Sequence[int]) -> _Shape:
    bounds = [0.0, *(bound / 1e6 for bound in BUCKET_BOUNDS_US), BUCKET_BOUNDS_US[-1] / 1e6]
    filled = [index for index, count in enumerate(histogram) if count]
    return (
        list(accumulate(histogram[index] for index in filled)),
        [bounds[index] for index in filled],
        [bounds[index + 1] - bounds[index] for index in filled],
    )


def _stretch(blocks: Sequence[Block], services: Sequence[float]) -> float:
    """The measured work over the drawn work, of the requests that reached a replica and came back."""
    busy = sum(block.busy_seconds for block in blocks)
    reached = sum(block.arrivals - block.refused - block.timeouts for block in blocks)
    if busy < _ENOUGH_BUSY_SECONDS or reached <= 0 or any(block.timeouts for block in blocks):
        return 1.0
    drawn = sum(services) / len(services) * reached
    return min(max(busy / drawn, _STRETCH[0]), _STRETCH[1]) if drawn else 1.0
