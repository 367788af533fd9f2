"""Recorded and generated requests: when each comes, and how long it is inside a replica.

The generated ones are drawn from a seeded generator, so every run and every machine has the same. A file's
requests are never kept in the checkout.
"""

import csv
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

SEED = 20240611
# A generated request: log-normal around half a second, as a small model's are.
SERVICE_SECONDS, SERVICE_SIGMA = 0.5, 0.5


class TraceError(Exception):
    """A file that is not a trace; the message is for the person who named it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order. `how` says how a file was brought to its load."""

    name: str
    arrivals: list[float]  # seconds from the beginning
    services: list[float]  # seconds
    seconds: float  # how long it lasts
    how: str = ""

    @property
    def load(self) -> float:
        """Busy replicas on average, had no request ever waited and each replica one place."""
        return sum(self.services) / self.seconds


def service_seconds(input_tokens: int, output_tokens: int) -> float:
    return 0.05 + 0.0001 * input_tokens + 0.01 * output_tokens


def read(path: Path) -> Trace:
    """A trace of one of two kinds: TIMESTAMP, ContextTokens, GeneratedTokens; or timestamp_ms,
    input_tokens, output_tokens. Raises TraceError."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise TraceError(f"{path}: no requests in it")
        if "TIMESTAMP" in rows[0]:
            found = [
                (
                    _epoch(row["TIMESTAMP"]),
                    service_seconds(int(row["ContextTokens"]), int(row["GeneratedTokens"])),
                )
                for row in rows
            ]
        else:
            found = [
                (
                    int(row["timestamp_ms"]) / 1000,
                    service_seconds(int(row["input_tokens"]), int(row["output_tokens"])),
                )
                for row in rows
            ]
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise TraceError(
            f"{path}: {error!r} in it; the columns are TIMESTAMP, ContextTokens, GeneratedTokens"
            " or timestamp_ms, input_tokens, output_tokens"
        ) from error
    found.sort()
    first = found[0][0]
    arrivals = [at - first for at, _ in found]
    return Trace(path.stem, arrivals, [took for _, took in found], math.floor(arrivals[-1]) + 1.0)


def _epoch(text: str) -> float:
    # seven digits of a second: one more than Python reads
    whole, _, part = text.partition(".")
    moment = datetime.fromisoformat(whole)
    days = (
        (moment.toordinal() - 719_163) * 86400
        + moment.hour * 3600
        + moment.minute * 60
        + moment.second
    )
    return days + float(f"0.{part or 0}")


def brought_to(trace: Trace, load: float) -> Trace:
    """The trace overlaid with copies of itself until its mean load is about `load` or just above.

    Copy i begins i/k of the spread later (what passes the end comes in at the beginning). The spread
    is one minute, so bursts stay bursts: copies spread over the whole trace would flatten it.
    """
    copies = max(round(load / trace.load), 1)
    spread = min(60.0, trace.seconds)
    merged = [
        ((at + spread * copy / copies) % trace.seconds, took)
        for copy in range(copies)
        for at, took in zip(trace.arrivals, trace.services, strict=True)
    ]
    merged.sort()
    times, services = [at for at, _ in merged], [took for _, took in merged]
    how = f"{copies} copies over {spread:.0f} s" if copies > 1 else "as recorded"
    return Trace(trace.name, times, services, trace.seconds, how)


# Load as a share of its mean, at a share of the time. Each has the mean 1.
Shape = Callable[[float], float]


def _step(change: float = 0.5, low: float = 0.4, high: float = 1.6) -> Shape:
    return lambda x: low if x < change else high


def _spike(
    begins: Sequence[float] = (0.3, 0.7), length: float = 1 / 60, height: float = 5.0
) -> Shape:
    """A minute's five-fold spike, twice."""
    base = 1 / (1 + (height - 1) * len(begins) * length)
    return lambda x: base * (height if any(b <= x < b + length for b in begins) else 1)


def _ramp(begin: float = 0.2, end: float = 1.8) -> Shape:
    return lambda x: begin + (end - begin) * x


def _wave(days: float = 2, depth: float = 0.8, phase: float = 0.0) -> Shape:
    """Two days, each in half an hour."""
    return lambda x: 1 - depth * math.cos(2 * math.pi * (days * x + phase))


def _square(times: int = 6, low: float = 0.4, high: float = 1.6, share: float = 0.5) -> Shape:
    """Five minutes low, five minutes high."""
    return lambda x: low if times * x % 1 < 1 - share else high


SHAPES: dict[str, Shape] = {
    "step": _step(),
    "spike": _spike(),
    "ramp": _ramp(),
    "wave": _wave(),
    "square": _square(),
}


def varied(name: str, seed: int) -> Shape:
    """The shape with moments, heights and lengths of its own, so that nobody can know them."""
    rng = random.Random(f"{seed} {name}")
    if name == "step":
        change, times = rng.uniform(0.3, 0.7), rng.uniform(2, 6)
        low = 1 / (change + times * (1 - change))
        return _step(change, low, times * low)
    if name == "spike":
        length, count = rng.uniform(30, 120) / 3600, rng.randint(1, 3)
        begins = [(i + rng.uniform(0.1, 0.9)) / count for i in range(count)]
        return _spike([min(b, 1 - length) for b in begins], length, rng.uniform(3, 8))
    if name == "ramp":
        begin = rng.choice((rng.uniform(0.1, 0.6), rng.uniform(1.4, 1.9)))
        return _ramp(begin, 2 - begin)
    if name == "wave":
        return _wave(rng.randint(1, 5), rng.uniform(0.4, 0.9), rng.random())
    share, times = rng.uniform(0.3, 0.7), rng.uniform(2, 6)
    low = 1 / (1 - share + times * share)
    return _square(rng.randint(4, 12), low, times * low, share)


def generated(name: str, load: float, seconds: float, seed: int = 0) -> Trace:
    """A shape with requests at random moments (Poisson) and log-normal service times. Seed 0 is
    the shape as it is described; any other varies it too."""
    shape = varied(name, seed) if seed else SHAPES[name]
    rng = random.Random(f"{SEED + seed} {name} {load}")
    mu = math.log(SERVICE_SECONDS) - SERVICE_SIGMA**2 / 2
    arrivals: list[float] = []
    for second in range(int(seconds)):
        rate = load / SERVICE_SECONDS * shape(second / seconds)
        at = rng.expovariate(rate)
        while at < 1:
            arrivals.append(second + at)
            at += rng.expovariate(rate)
    services = [rng.lognormvariate(mu, SERVICE_SIGMA) for _ in arrivals]
    label = f"{name}-{seed}" if seed else name
    return Trace(label, arrivals, services, float(int(seconds)), "generated")


def part(trace: Trace, which: str) -> Trace:
    """Its first or second half, by time."""
    half = trace.seconds / 2
    begin = 0.0 if which == "first" else half
    kept = [
        (at - begin, took)
        for at, took in zip(trace.arrivals, trace.services, strict=True)
        if begin <= at < begin + half
    ]
    return Trace(
        f"{trace.name}-{which}", [at for at, _ in kept], [took for _, took in kept],
        float(math.ceil(half)), trace.how,
    )  # fmt: skip
