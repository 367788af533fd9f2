"""What a person set, what the policy remembers, and the codes of its answers.

PURE. Plain values; the rules are in `policy`.
"""

from dataclasses import dataclass
from enum import StrEnum

from deployments.types import Scaling


class Code(StrEnum):
    """Why. Tests and charts go by the code; the sentence beside it may change its wording."""

    UP = "up"
    DOWN = "down"
    STEADY = "steady"
    FIXED = "fixed"
    LIMITS = "limits"  # the count was outside new limits
    STARTING = "starting"  # enough is on its way
    BETWEEN = "between"  # between two looks, when the refresh period is longer than a second
    # prevented
    AT_MAXIMUM = "at_maximum"
    CLUSTER_FULL = "cluster_full"
    CRASHING = "crashing"
    HOLDING = "holding"
    # invalid
    NO_DATA = "no_data"
    STALE = "stale"
    CONFLICT = "conflict"


INVALID = frozenset({Code.NO_DATA, Code.STALE, Code.CONFLICT})
PREVENTED = frozenset({Code.AT_MAXIMUM, Code.CLUSTER_FULL, Code.CRASHING, Code.HOLDING}) | INVALID


@dataclass(frozen=True, slots=True)
class Limits:
    """What a person set for the version."""

    scaling: Scaling = Scaling()
    concurrency: int = 1  # requests a replica takes at a time


# (moment, replicas wanted then, not rounded), the largest first, each one newer than the last
Peaks = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Course:
    """How demand went: its mean of each ten seconds, and what was found in that."""

    until: int = 0  # where the newest ten seconds end, epoch seconds
    means: tuple[float, ...] = ()  # requests at a time, the oldest first, without a gap
    period: int = 0  # it comes again after so many times ten seconds; 0: it does not
    since: float = -1.0  # when that was found


@dataclass(frozen=True, slots=True)
class State:
    """What the policy remembers of one version. A new loop begins with an empty one."""

    looked_at: float | None = None
    stepped_down_at: float | None = None
    service_seconds: float | None = None  # learnt: how long a request is inside a replica
    start_seconds: float | None = None  # learnt: from asking for a replica to its being ready
    starts_until: float = -1.0  # replicas that became ready up to here have been learnt from
    peaks: Peaks = ()  # of all that was wanted, in the last three minutes
    levels: Peaks = ()  # of what three minutes' mean demand needs, as long as it may be kept
    course: Course = Course()
    # What prevented a change lately, and when each was said last: to tell news from repetition.
    prevented: tuple[tuple[Code, float], ...] = ()
