"""A scaling decision in words: what it did, how the count was reckoned, what came of it.

Values and `now` in, sentences out; asks nobody. Unknown is said, never shown as zero.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

from portal.templatetags.slipway import duration

# A hindrance that goes on is told once a minute: silent for longer, nobody knows how it went on.
HEARD_SECONDS = 150.0
# As long as the collector waits for replicas to become ready.
WAITED_SECONDS = 3_600.0

_KEPT = {
    "at_maximum": "that is the maximum",
    "cluster_full": "the cluster has no room",
    "crashing": "replicas crash while they start",
    "holding": "holding, a busier time is not long enough ago",
    "no_data": "nothing was measured",
    "stale": "there were no fresh figures",
    "conflict": "somebody else scales it too",
    "not_applied": "the cluster refused the change",
}


class Decision(Protocol):
    """What is needed of `router.telemetry.models.Decision`."""

    at: float
    before: int
    after: int
    code: str
    ready_at: float | None
    until: float | None
    over: bool
    inputs: dict[str, Any]

    @property
    def direction(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a decision. `state` is for colours, tests and the CSV; `seconds` is how long it
    took or lasted, None where that is not known or not over."""

    state: str  # ready, superseded, waiting, missed | over, lasting, unknown
    words: str
    seconds: float | None = None


def title(decision: Decision) -> str:
    """ "Scaled up from 5 to 7", "Kept at 7: that is the maximum"."""
    if decision.direction == "prevented":
        why = _KEPT.get(decision.code)
        return f"Kept at {decision.before}{f': {why}' if why else ''}"
    limits = ", to new limits" if decision.code == "limits" else ""
    return f"Scaled {decision.direction} from {decision.before} to {decision.after}{limits}"


def outcome(decision: Decision, then: Decision | None, ready: int | None, now: float) -> Outcome:
    """What came of it. `then` is the version's next change, `ready` the replicas in rotation now."""
    if decision.direction == "prevented":
        return _lasted(decision, now)
    count, up = decision.after, decision.direction == "up"
    if decision.ready_at is not None:
        # replicas are counted once a second
        took = max(round(decision.ready_at - decision.at), 1.0)
        what = f"{count} ready" if up else f"No more than {count} ready"
        return Outcome("ready", f"{what} after {duration(took)}", float(took))
    if then is not None:
        took = then.at - decision.at
        words = f"Superseded after {duration(took)} by {then.before} → {then.after}"
        return Outcome("superseded", words)
    if now - decision.at < WAITED_SECONDS:
        if ready is None:
            return Outcome("waiting", "Not yet; how many are ready is not known")
        words = f"{ready} of {count} ready" if up else f"{ready} still ready"
        return Outcome("waiting", f"Not yet: {words} after {duration(now - decision.at)}")
    return Outcome("missed", "Not seen ready within an hour" if up else "Not seen within an hour")


def _lasted(decision: Decision, now: float) -> Outcome:
    if decision.until is None:
        return Outcome("unknown", "How long is not known")
    lasted = decision.until - decision.at
    if decision.over:
        words = f"Lasted {duration(lasted)}" if lasted >= 1 else "Lasted a second"
        return Outcome("over", words, lasted)
    if now - decision.until < HEARD_SECONDS:
        return Outcome("lasting", f"Still so, for {duration(max(now - decision.at, 0.0))}")
    words = f"At least {duration(lasted)}" if lasted >= 1 else "When it began is all"
    return Outcome("unknown", f"{words}; what came after is not known")


def formula(inputs: dict[str, Any]) -> str:
    """How the count was reckoned from its inputs; "" when they do not say.

    "12 busy + 3 queued + 2 rejected x 0.1 s = 15.2 at a time; 15.2 / (70 % x 1) = 21.7: 22 needed"
    """
    demand, wanted = _number(inputs, "demand"), _number(inputs, "needed")
    if demand is None:
        return ""
    parts, total = [], 0.0
    for name in ("busy", "queued", "rejected"):
        count = _number(inputs, name)
        if count is None or (name == "rejected" and not count):
            continue
        each = _number(inputs, "service_seconds") if name == "rejected" else None
        parts.append(f"{count:.4g} {name}" + ("" if each is None else f" × {each:.3g} s"))
        total += count if each is None else count * each
    # where another rule weighed them, their plain sum would be a wrong explanation
    sign = " = " if abs(total - demand) <= 0.01 * max(demand, 1.0) else ": "
    text = (
        f"{' + '.join(parts)}{sign}{demand:.4g} at a time" if parts else f"{demand:.4g} at a time"
    )
    if wanted is None:
        return text
    target, each_takes = _number(inputs, "target"), _number(inputs, "concurrency")
    if target and each_takes:
        share = demand / (target / 100 * each_takes)
        if ceil(round(share, 2)) == wanted or ceil(round(share, 6)) == wanted:
            text += f"; {demand:.4g} / ({target:.4g} % × {each_takes:.4g}) = {share:.4g}"
    text += f": {wanted:.0f} needed"
    if (suffice := _number(inputs, "peak_needed")) is not None:
        back, peak = _number(inputs, "kept_seconds"), _number(inputs, "peak_demand")
        text += f"; the busiest of the last {60 if back is None else back:.0f} s"
        text += "" if peak is None else f", {peak:.4g} at a time,"
        text += f" needs {suffice:.0f}"
    least, most = _number(inputs, "minimum"), _number(inputs, "maximum")
    if least is not None and most is not None:
        text += f"; allowed are {least:.0f} to {most:.0f}"
    return text


def _number(inputs: dict[str, Any], name: str) -> float | None:
    value = inputs.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
