"""What caches believe of each other."""

import json

import pytest

from deployments.runtime.cache_peers import Peers, signed


class Times:
    def __init__(self) -> None:
        self.now = 1_000_000.0


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def one(times: Times):
    def make(node: str, secret: str = "s") -> Peers:
        return Peers(
            node,
            f"{node}.addr:1",
            lambda: secret,
            clock=lambda: times.now,
            timer=lambda: times.now,
        )

    return make


def test_what_one_heard_the_others_hear_too(one) -> None:
    a, b, c = one("a"), one("b"), one("c")
    b.hear(a.message())
    c.hear(b.message())
    assert c.of("a") == "a.addr:1"
    assert c.of("b") == "b.addr:1"
    assert c.of("c") == ""  # itself
    assert sorted(c.others()) == ["a.addr:1", "b.addr:1"]


def test_who_has_another_secret_or_none_is_not_believed(one) -> None:
    a = one("a")
    a.hear(one("b", "other").message())
    assert a.others() == []
    nothing = one("a", "")
    nothing.hear(one("b", "").message())
    assert nothing.others() == []


@pytest.mark.parametrize("field", [0, 1, 2, 3])
def test_a_record_that_was_changed_is_not_believed(one, field: int, times: Times) -> None:
    row = signed("s", "b", "b.addr:1", times.now).row()
    row[field] = row[field] + 1 if field == 2 else row[field] + "0"
    a = one("a")
    a.hear(json.dumps([row]).encode())
    assert a.others() == []


def test_who_says_nothing_more_is_forgotten_whatever_others_repeat(one, times: Times) -> None:
    a, b, c = one("a"), one("b"), one("c")
    b.hear(a.message())
    for _ in range(20):
        times.now += 2
        c.hear(b.message())
        b.hear(c.message())
    assert b.of("a") == ""
    assert c.of("a") == ""
    assert c.of("b")


def test_a_pod_that_came_in_the_place_of_another_has_its_node(one, times: Times) -> None:
    a = one("a")
    old = signed("s", "b", "old:1", times.now).row()
    new = signed("s", "b", "new:1", times.now + 1).row()
    a.hear(json.dumps([new, old]).encode())
    assert a.of("b") == "new:1"


@pytest.mark.parametrize(("late", "believed"), [(119, True), (121, False), (-121, False)])
def test_a_record_of_another_time_is_not_believed(
    one, times: Times, late: int, believed: bool
) -> None:
    a = one("a")
    a.hear(json.dumps([signed("s", "b", "b:1", times.now - late).row()]).encode())
    assert bool(a.others()) is believed


@pytest.mark.parametrize(
    "message", [b"", b"{}", b"[1]", b'[["a"]]', b"\xff", b'[["b","c",null,"d"]]']
)
def test_what_is_no_message_is_no_error(one, message: bytes) -> None:
    a = one("a")
    a.hear(message)
    assert a.others() == []
