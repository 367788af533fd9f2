"""Recorded and generated requests: when each comes, and how long it is inside a replica.

The generated ones are drawn from a seeded generator, so every run and every machine has the same. A file's
requests are never kept in the checkout.
"""

import csv
import math
import random
from collections.abc import Callable
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


def _step(x: float) -> float:
    return 0.4 if x < 1 / 2 else 1.6


def _spike(x: float) -> float:
    """Twice a minute's five-fold spike."""
    spikes = ((0.3, 0.3 + 1 / 60), (0.7, 0.7 + 1 / 60))
    base = 1 / (1 + 4 * 2 / 60)
    return base * (5 if any(begin <= x < end for begin, end in spikes) else 1)


def _ramp(x: float) -> float:
    return 0.2 + 1.6 * x


def _wave(x: float) -> float:
    """Two days, each in half an hour."""
    return 1 - 0.8 * math.cos(4 * math.pi * x)


def _square(x: float) -> float:
    """Five minutes low, five minutes high."""
    return 0.4 if int(x * 12) % 2 == 0 else 1.6


SHAPES: dict[str, Shape] = {
    "step": _step,
    "spike": _spike,
    "ramp": _ramp,
    "wave": _wave,
    "square": _square,
}


def generated(name: str, load: float, seconds: float, seed: int = SEED) -> Trace:
    """A shape with requests at random moments (Poisson) and log-normal service times."""
    shape = SHAPES[name]
    rng = random.Random(f"{seed} {name} {load}")
    mu = math.log(SERVICE_SECONDS) - SERVICE_SIGMA**2 / 2
    arrivals: list[float] = []
    for second in range(int(seconds)):
        rate = load / SERVICE_SECONDS * shape(second / seconds)
        at = rng.expovariate(rate)
        while at < 1:
            arrivals.append(second + at)
            at += rng.expovariate(rate)
    services = [rng.lognormvariate(mu, SERVICE_SIGMA) for _ in arrivals]
    return Trace(name, arrivals, services, float(int(seconds)), "generated")
