"""A router's own figures and the verdicts on its size: the wire between router and portal.

PURE. As `router.samples`, of the router itself: one row a second, and none of a second that was not
measured. The page is small, so it is plain JSON by name.
"""

from dataclasses import dataclass, field
from typing import Any

from deployments.codec import from_json, to_json


@dataclass(frozen=True, slots=True)
class RouterSample:
    """One second of one router. Rates are of that second, the others as at its end."""

    at: int  # the second it covers begins here, epoch seconds
    routing_ms: float | None  # None: the probe got no answer
    idle: float  # HAProxy's own word on its threads, percent
    cpu: float  # cores that HAProxy used, its old workers included
    threads: int
    pods: int
    cores: int  # given
    connections: int  # of clients
    requests: float  # a second, of clients, refused ones included


@dataclass(frozen=True, slots=True)
class SizeDecision:
    """A verdict that changed the router's size, or was prevented from it."""

    at: float
    code: str  # `router.selfscale.Code`, or `router.sizing.NOT_APPLIED`
    reason: str  # a sentence with its figures
    threads_before: int
    threads_after: int
    pods_before: int
    pods_after: int
    applied: bool
    inputs: dict[str, Any] = field(default_factory=dict)
    done_at: float | None = None  # when the router had that size
    # Of what was prevented: the last moment it was so, and whether that was its end. A row (by `at`) is
    # told again with later values.
    until: float | None = None
    over: bool = False


@dataclass(frozen=True, slots=True)
class SizePage:
    """Answer of the router's `/size?after=N`; numbers as in `router.samples.TelemetryPage`."""

    epoch: str
    next: int
    samples: tuple[RouterSample, ...] = ()
    decisions: tuple[SizeDecision, ...] = ()


def to_wire(page: SizePage) -> dict[str, Any]:
    made: dict[str, Any] = to_json(page)
    return made


def from_wire(data: Any) -> SizePage:
    """The inverse. Raises ValueError."""
    return from_json(SizePage, data)
