"""How long gates may refuse."""

from router.haproxy import gates

TIMEOUTS = {"be_0001": "60000", "be_0002": "1000"}
BOTH = ["be_0001", "be_0002"]


def told(present: dict[str, str], *, overlap: bool = False, now: float = 1000.4) -> tuple[str, ...]:
    return gates.commands(present, BOTH, TIMEOUTS, overlap=overlap, now=now)


def test_a_mark_stays_for_as_long_as_a_request_may_take() -> None:
    assert told({}) == ()
    assert told({"be_0001": "936", "be_0002": "995"}) == ()
    assert told({"be_0001": "934", "be_0002": "993"}) == (
        "del map gates.map be_0001",
        "del map gates.map be_0002",
    )


def test_marks_of_nobody_and_of_no_time_go() -> None:
    assert told({"be_0009": "1000"}) == ("del map gates.map be_0009",)
    assert told({"be_0001": "soon"}) == ("del map gates.map be_0001",)
    assert told({"be_0001": "2000"}) == ("del map gates.map be_0001",)


def test_all_are_marked_while_an_old_worker_lives() -> None:
    assert told({"be_0001": "995"}, overlap=True) == ("add map gates.map be_0002 1000",)
    assert told({"be_0001": "989", "be_0002": "1000"}, overlap=True) == (
        "set map gates.map be_0001 1000",
    )


def test_a_new_worker_begins_with_all_marked() -> None:
    assert gates.entries(BOTH, 1000.9) == {"be_0001": "1000", "be_0002": "1000"}
