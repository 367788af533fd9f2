"""What is read in which turn, and what is told of where replicas stand: only what changed is looked at."""

from dataclasses import replace

from deployments.types import Phase, RouteState
from router.haproxy.pool import Key
from router.haproxy.slots import Slot, State, Wanted
from router.haproxy.stats import BackendFigures, Server
from router.look import Look
from router.standing import Standing
from tests.router.fakes import replica

KEY = Key("demo", "default")
HOME = {KEY: "be_0001"}
WANTED = {KEY: (Wanted("a", "127.0.0.1:1", 1),)}
JOINED = Slot("be_0001", "s1", State.JOINED, "a", "127.0.0.1:1", since=1.0)
ROWS = {"be_0001": (JOINED, Slot("be_0001", "s2"))}


def server(*, up: bool = True, used: int = 0) -> Server:
    return Server("be_0001", "s1", "127.0.0.1:1", False, False, up, used)


def read(look: Look, at: float, up: int = 1) -> None:
    figures = {"be_0001": BackendFigures(0, 0, 0, 0, up)}
    look.took(figures, ("be_0001",), at, whole=True)


SEEN = {"be_0001": {"s1": server()}}


def test_a_backend_that_stands_is_read_about_once_a_second() -> None:
    look = Look()
    read(look, 10.0)
    assert look.due(ROWS, SEEN, HOME, WANTED, 10.89) == ()
    assert look.due(ROWS, SEEN, HOME, WANTED, 10.9) == ("be_0001",)


def test_a_backend_in_which_something_is_pending_is_read_at_once() -> None:
    leaving = {"be_0001": (replace(JOINED, state=State.DRAINING),)}
    told = {"be_0001": (replace(JOINED, since=10.0),)}
    for rows, wanted in ((leaving, WANTED), (told, WANTED), (ROWS, {KEY: ()}), (ROWS, {})):
        look = Look()
        read(look, 10.0)
        assert look.due(rows, SEEN, HOME, wanted, 10.1) == ("be_0001",)


def test_another_number_of_replicas_up_is_a_reason_to_look() -> None:
    look = Look()
    read(look, 10.0)
    look.took({"be_0001": BackendFigures(0, 0, 0, 0, 0)}, (), 10.2, whole=True)
    assert look.due(ROWS, SEEN, HOME, WANTED, 10.3) == ("be_0001",)
    read(look, 10.3, up=0)
    assert look.due(ROWS, {"be_0001": {"s1": server(up=False)}}, HOME, WANTED, 10.4) == ()


def test_a_large_cluster_is_read_in_turn_and_what_is_pending_never_waits() -> None:
    look, slots = Look(), 32
    rows = {
        f"be_{number:04d}": tuple(
            Slot(f"be_{number:04d}", f"s{index}", State.JOINED, f"{number}-{index}", "x:1")
            for index in range(slots)
        )
        for number in range(100)
    }
    homes = {Key(name, "default"): name for name in rows}
    wanted = {
        key: tuple(Wanted(slot.replica, slot.address, 1) for slot in rows[name])
        for key, name in homes.items()
    }
    for name in rows:
        look.took({}, (name,), 10.0, whole=False)
    seen: set[str] = set()
    for turn in range(7):
        due = look.due(rows, {}, homes, wanted, 20.0 + turn / 4)
        assert len(due) <= 512 / slots
        look.took({}, due, 20.0 + turn / 4, whole=False)
        seen |= set(due)
    assert seen == rows.keys()
    wanted[Key("be_0042", "default")] = ()
    assert "be_0042" in look.due(rows, {}, homes, wanted, 20.1)


def test_between_seconds_only_what_is_in_use_is_asked_of_many_backends() -> None:
    look = Look()
    many = [f"be_{number:04d}" for number in range(201)]
    assert look.figures(many, whole=False) == ("show stat -1 2 -1",)  # nothing is known yet
    figures = {name: BackendFigures(0, 0, 0, 0) for name in many}
    figures["be_0007"] = BackendFigures(1, 0, 5, 5)
    look.took(figures, (), 10.0, whole=True)
    assert look.figures(many, whole=False) == ("show stat be_0007 2 -1",)
    assert look.figures(many, whole=True) == ("show stat -1 2 -1",)
    assert look.figures(many[:200], whole=False) == ("show stat -1 2 -1",)


def test_everybody_is_in_the_report_and_only_moves_are_news() -> None:
    standing = Standing()
    ready, coming = replica("a", "demo", "x:1"), replica("b", "demo", "", Phase.LOADING)
    replicas = {KEY: (ready, coming)}
    standing.update(ROWS, SEEN, replicas)
    assert standing.news
    told = {item.replica: item.state for item in standing.report()}
    assert told == {"a": RouteState.IN_ROTATION, "b": RouteState.OUT}
    standing.update(ROWS, {"be_0001": {"s1": server(used=3)}}, replicas)
    assert not standing.news  # busier is no news, but it is told
    assert {item.replica: item.busy for item in standing.report()}["a"] == 3
    standing.update(ROWS, {"be_0001": {"s1": server(up=False)}}, replicas)
    assert standing.news
    assert {item.replica: item.state for item in standing.report()}["a"] is RouteState.DRAINING
    standing.update({"be_0001": (Slot("be_0001", "s1"),)}, SEEN, replicas)
    assert standing.news
    assert {item.replica: item.state for item in standing.report()}["a"] is RouteState.OUT
    standing.update({}, {}, {})
    assert standing.news
    assert standing.report() == ()


def test_who_is_inside_and_who_is_leaving_is_counted_by_backend() -> None:
    standing = Standing()
    row = (JOINED, replace(JOINED, name="s2", state=State.SETTLING), Slot("be_0001", "s3"))
    standing.update({"be_0001": row}, SEEN, {})
    assert (standing.place("be_0001").ready, standing.place("be_0001").leaving) == (1, 1)
    assert standing.busy("be_0001") == {"a": 0}
    assert standing.place("be_0009").ready == 0
