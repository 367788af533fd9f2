"""How often a hindrance of the autoscaler is written down: when it begins, and how long it lasted.

PURE. The policy says each second what it would do; a hindrance that goes on is one row of the ledger and
not one a second. The row is told when it begins, once a minute while it goes on, and when it is over; each
time whole, under the time it began, so that whoever missed one telling has it with the next.

What nobody looked at is not over: between two looks of a slow policy, and while there is no data, the
other hindrances stay as they are. A break shorter than a minute belongs to the same story.
"""

from dataclasses import dataclass, replace

from router.autoscaler.policy import INVALID, PREVENTED, REPEAT_SECONDS, Code
from router.samples import DecisionRecord

NOT_APPLIED = "not_applied"  # the policy's count was right and the cluster did not take it
HEARTBEAT_SECONDS = 60.0  # a hindrance that goes on is told again
_GONE_SECONDS = 5.0  # not met for so long: over
# A loop that has just begun has measured nothing yet, which is no story before it lasts.
_LEAST = {Code.NO_DATA.value: 5.0}
_CODES = frozenset(code.value for code in PREVENTED) | {NOT_APPLIED}
_BLIND = frozenset(code.value for code in INVALID)


@dataclass(frozen=True, slots=True)
class Hindrance:
    """One story of one version: how it began, and how it goes on. Times are epoch seconds."""

    record: DecisionRecord  # as it began
    left_at: float | None = None  # the first look since then that did not meet it
    told_at: float | None = None  # None: not told yet
    over: bool = False


Told = tuple[tuple[Hindrance, ...], tuple[DecisionRecord, ...]]


def is_hindrance(code: str) -> bool:
    return code in _CODES


def note(open_: tuple[Hindrance, ...], record: DecisionRecord, now: float) -> Told:
    """Take in one verdict. Returns the stories that are still remembered, and the rows to tell."""
    kept: list[Hindrance] = []
    rows: list[DecisionRecord] = []
    met = False
    for story in open_:
        if story.record.code == record.code:
            met = True
            story = _goes_on(story, now, rows)
        elif _looked(story.record.code, record.code):
            story = _not_met(story, now, rows)
            if story.over and (story.told_at is None or _break(story, now) >= REPEAT_SECONDS):
                continue
        kept.append(story)
    if not met and is_hindrance(record.code):
        kept.append(_goes_on(Hindrance(record), now, rows))
    return tuple(kept), tuple(rows)


def end(open_: tuple[Hindrance, ...], now: float) -> tuple[DecisionRecord, ...]:
    """The last rows of a version that is gone."""
    return tuple(
        _row(story, now if story.left_at is None else story.left_at, over=True)
        for story in open_
        if story.told_at is not None and not story.over
    )


def _break(story: Hindrance, now: float) -> float:
    return 0.0 if story.left_at is None else now - story.left_at


def _looked(story: str, code: str) -> bool:
    """Whether a verdict of this code shows that a story of another one did not go on."""
    if story in _BLIND:
        return True  # any other verdict had data
    return code not in _BLIND and code != Code.BETWEEN


def _goes_on(story: Hindrance, now: float, rows: list[DecisionRecord]) -> Hindrance:
    again = story.over
    story = replace(story, left_at=None, over=False)
    if story.told_at is None:
        due = now - story.record.at >= _LEAST.get(story.record.code, 0.0)
    else:
        due = again or now - story.told_at >= HEARTBEAT_SECONDS
    if due:
        rows.append(_row(story, now, over=False))
        story = replace(story, told_at=now)
    return story


def _not_met(story: Hindrance, now: float, rows: list[DecisionRecord]) -> Hindrance:
    left_at = now if story.left_at is None else story.left_at
    over = story.over or now - left_at >= _GONE_SECONDS
    if over and not story.over and story.told_at is not None:
        rows.append(_row(story, left_at, over=True))
        story = replace(story, told_at=now)
    return replace(story, left_at=left_at, over=over)


def _row(story: Hindrance, until: float, *, over: bool) -> DecisionRecord:
    return replace(story.record, until=max(until, story.record.at), over=over)
