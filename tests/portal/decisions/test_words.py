"""What is said of a decision: its title, its formula, its outcome. Unknown is said, never zero."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from portal.ledger import formula, outcome, title

NOW = 1_800_000_000.0


@dataclass
class Row:
    before: int = 5
    after: int = 7
    code: str = "up"
    at: float = NOW - 100
    ready_at: float | None = None
    until: float | None = None
    over: bool = False
    inputs: dict[str, Any] = field(default_factory=dict)
    direction: str = "up"


def down(**values: Any) -> Row:
    return Row(7, 3, "down", direction="down", **values)


def held(code: str = "at_maximum", **values: Any) -> Row:
    return Row(4, 4, code, direction="prevented", **values)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (Row(), "Scaled up from 5 to 7"),
        (down(), "Scaled down from 7 to 3"),
        (Row(5, 3, "limits", direction="down"), "Scaled down from 5 to 3, to new limits"),
        (held(), "Kept at 4: that is the maximum"),
        (held("cluster_full"), "Kept at 4: the cluster has no room"),
        (held("something_new"), "Kept at 4"),
    ],
)
def test_the_title_says_what_it_did(row: Row, words: str) -> None:
    assert title(row) == words


@pytest.mark.parametrize(
    ("row", "then", "ready", "state", "words"),
    [
        (Row(ready_at=NOW - 80), None, None, "ready", "7 ready after 20 s"),
        (Row(ready_at=NOW - 80), Row(at=NOW - 90), 1, "ready", "7 ready after 20 s"),
        (down(ready_at=NOW - 96), None, None, "ready", "No more than 3 ready after 4 s"),
        (down(ready_at=NOW - 99.8), None, None, "ready", "No more than 3 ready after 1 s"),
        (Row(), Row(7, 9, at=NOW - 88), 5, "superseded", "Superseded after 12 s by 7 → 9"),
        (Row(), None, 6, "waiting", "Not yet: 6 of 7 ready after 1 min 40 s"),
        (Row(), None, 0, "waiting", "Not yet: 0 of 7 ready after 1 min 40 s"),
        (Row(), None, None, "waiting", "Not yet; how many are ready is not known"),
        (down(), None, 5, "waiting", "Not yet: 5 still ready after 1 min 40 s"),
        (Row(at=NOW - 3_599), None, 6, "waiting", "Not yet: 6 of 7 ready after 59 min 59 s"),
        (Row(at=NOW - 3_600), None, 6, "missed", "Not seen ready within an hour"),
    ],
)
def test_the_outcome_of_a_change_is_when_its_replicas_were_ready(
    row: Row, then: Row | None, ready: int | None, state: str, words: str
) -> None:
    found = outcome(row, then, ready, NOW)
    assert (found.state, found.words) == (state, words)
    assert (found.seconds is not None) == (state == "ready")


@pytest.mark.parametrize(
    ("row", "state", "words", "seconds"),
    [
        (held(until=NOW - 59, over=True), "over", "Lasted 41 s", 41.0),
        (held(until=NOW - 99.5, over=True), "over", "Lasted a second", 0.5),
        (held(until=NOW - 40), "lasting", "Still so, for 1 min 40 s", None),
        (
            held(at=NOW - 500, until=NOW - 149), "lasting", "Still so, for 8 min 20 s", None,
        ),
        (
            held(at=NOW - 500, until=NOW - 150), "unknown",
            "At least 5 min 50 s; what came after is not known", None,
        ),
        (held(until=None), "unknown", "How long is not known", None),
    ],
)  # fmt: skip
def test_the_outcome_of_a_hindrance_is_how_long_it_lasted(
    row: Row, state: str, words: str, seconds: float | None
) -> None:
    found = outcome(row, None, None, NOW)
    assert (found.state, found.words, found.seconds) == (state, words, seconds)


INPUTS = {
    "busy": 12.0, "queued": 3.0, "rejected": 2, "service_seconds": 0.1, "demand": 15.2,
    "target": 70, "concurrency": 1, "needed": 22, "minimum": 1, "maximum": 30,
}  # fmt: skip


def test_the_formula_is_the_one_that_was_reckoned_with() -> None:
    assert formula(INPUTS) == (
        "12 busy + 3 queued + 2 rejected × 0.1 s = 15.2 at a time; 15.2 / (70 % × 1) = 21.71: "
        "22 needed; allowed are 1 to 30"
    )
    step_down = INPUTS | {"peak_demand": 18.6, "peak_needed": 30}
    assert "; the busiest of the last 60 s, 18.6 at a time, needs 30;" in formula(step_down)
    kept = INPUTS | {"peak_needed": 30, "kept_seconds": 300}
    assert "; the busiest of the last 300 s needs 30;" in formula(kept)


def test_a_sum_that_is_not_the_demand_is_not_claimed() -> None:
    text = formula(INPUTS | {"demand": 13.5, "needed": 20})
    assert text.startswith("12 busy + 3 queued + 2 rejected × 0.1 s: 13.5 at a time; 13.5 / (70 %")


def test_a_division_that_does_not_give_what_was_needed_is_not_claimed() -> None:
    assert "/" not in formula(INPUTS | {"needed": 25})
    assert "25 needed" in formula(INPUTS | {"needed": 25})


def test_what_is_unknown_is_left_out_of_the_formula_and_not_zero() -> None:
    assert formula({}) == ""
    assert formula(INPUTS | {"demand": None}) == ""
    unknown = formula(INPUTS | {"service_seconds": None, "demand": 17.0, "needed": None})
    assert unknown == "12 busy + 3 queued + 2 rejected = 17 at a time"
    assert formula({"demand": 4}) == "4 at a time"
