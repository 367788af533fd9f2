"""A hindrance is one row: told when it begins, once a minute, and when it is over."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.errors import Unavailable
from deployments.types import Scaling
from router.dataplane import DataPlane, Settings
from router.haproxy.process import HAProxy, Paths
from router.hindrances import Hindrance, end, is_hindrance, note
from router.loop import RouterLoop
from router.ring import Ring
from router.samples import DecisionRecord, Sample
from tests.router.fakes import MemoryDriver, replica, service

NOW = 1_800_000_000.0
AT_MAX = DecisionRecord(NOW, "diabetes", "default", 4, 4, "at_maximum", "At 4.", False, {"a": 1})


def record(code: str, now: float) -> DecisionRecord:
    return replace(AT_MAX, at=now, code=code)


def play(codes: dict[int, str]) -> tuple[tuple[Hindrance, ...], list[DecisionRecord]]:
    """One verdict each second from the first to the last; a code stays until the next one."""
    stories: tuple[Hindrance, ...] = ()
    told: list[DecisionRecord] = []
    code = ""
    for second in range(max(codes) + 1):
        code = codes.get(second, code)
        stories, rows = note(stories, record(code, NOW + second), NOW + second)
        told += rows
    return stories, told


def test_it_is_told_when_it_begins_with_its_figures() -> None:
    stories, rows = note((), AT_MAX, NOW)
    assert rows == (replace(AT_MAX, until=NOW, over=False),)
    assert note(stories, record("at_maximum", NOW + 1), NOW + 1)[1] == ()


@pytest.mark.parametrize("code", ["steady", "up", "down", "fixed", "between", "limits", "starting"])
def test_what_is_none_is_not_told(code: str) -> None:
    assert note((), record(code, NOW), NOW) == ((), ())
    assert not is_hindrance(code)


@pytest.mark.parametrize(("ends", "told"), [(44, 1), (45, 2)])
def test_its_end_is_told_when_it_was_not_met_for_five_seconds(ends: int, told: int) -> None:
    _, rows = play({0: "at_maximum", 40: "steady", ends: "steady"})
    assert len(rows) == told
    if told == 2:
        assert (rows[1].at, rows[1].until, rows[1].over) == (NOW, NOW + 40, True)


@pytest.mark.parametrize(("last", "told"), [(59, 1), (60, 2), (119, 2), (120, 3)])
def test_one_that_goes_on_is_told_once_a_minute(last: int, told: int) -> None:
    _, rows = play({0: "at_maximum", last: "at_maximum"})
    assert len(rows) == told
    assert {row.at for row in rows} == {NOW}
    assert not any(row.over for row in rows)


@pytest.mark.parametrize(("again", "rows_of_their_own"), [(99, 1), (101, 2)])
def test_a_break_under_a_minute_is_the_same_story(again: int, rows_of_their_own: int) -> None:
    _, rows = play({0: "at_maximum", 40: "steady", again: "at_maximum"})
    assert len({row.at for row in rows}) == rows_of_their_own
    assert (rows[-1].until, rows[-1].over) == (NOW + again, False)


def test_without_data_nothing_else_is_over() -> None:
    _, rows = play({0: "at_maximum", 10: "stale", 40: "stale"})
    assert [row.code for row in rows] == ["at_maximum", "stale"]
    _, rows = play({0: "at_maximum", 10: "stale", 30: "at_maximum", 40: "at_maximum"})
    assert [(row.code, row.over) for row in rows][1:] == [("stale", False), ("stale", True)]
    assert rows[-1].until == NOW + 30


def test_between_two_looks_nothing_is_over_but_blindness() -> None:
    _, rows = play({0: "at_maximum", 1: "between", 40: "steady", 45: "steady"})
    assert [(row.over, row.until) for row in rows] == [(False, NOW), (True, NOW + 40)]
    _, rows = play({0: "stale", 4: "between", 9: "between"})
    assert (rows[-1].over, rows[-1].until) == (True, NOW + 4)


@pytest.mark.parametrize(("lasts", "told"), [(4, 0), (5, 1)])
def test_a_loop_that_has_just_begun_is_no_story(lasts: int, told: int) -> None:
    _, rows = play({0: "no_data", lasts: "no_data"})
    assert len(rows) == told
    stories, rows = play({0: "no_data", 3: "steady", 20: "steady"})
    assert (stories, rows) == ((), [])


def test_several_at_once_are_told_apart() -> None:
    _, rows = play({0: "holding", 1: "cluster_full", 2: "holding", 3: "cluster_full", 8: "steady"})
    assert [(row.code, row.over) for row in rows] == [
        ("holding", False), ("cluster_full", False), ("holding", True),
    ]  # fmt: skip


def test_a_version_that_is_gone_has_no_open_story() -> None:
    stories, _ = play({0: "at_maximum", 10: "at_maximum"})
    assert end(stories, NOW + 11) == (replace(AT_MAX, until=NOW + 11, over=True),)
    over, _ = play({0: "at_maximum", 10: "steady", 20: "steady"})
    assert end(over, NOW + 21) == ()


class TestLoop:
    """The router's loop writes a change once, and a hindrance once however long it goes on."""

    @pytest.fixture
    def driver(self) -> MemoryDriver:
        driver = MemoryDriver()
        scaling = Scaling(autoscale=True, minimum=1, maximum=3)
        driver.put(service("demo", scaling=scaling), replica("a", "demo", "127.0.0.1:1"))
        return driver

    def seconds(
        self, tmp_path: Path, driver: MemoryDriver, busy: list[float]
    ) -> list[DecisionRecord]:
        now = [NOW]
        haproxy = HAProxy(Path(), Paths.of(tmp_path, tmp_path, "local"))
        loop = RouterLoop(
            driver,
            DataPlane(haproxy, Settings("127.0.0.1", 1)),
            Ring("e"),
            tmp_path / "state.json",
            clock=lambda: now[0],
        )

        async def turns() -> None:
            loop._take_in(driver.observe())
            for count in busy:
                sample = Sample(int(now[0]) - 1, "demo", "default", busy=count, ready=1)
                await loop._scaler.second([sample])
                now[0] += 1

        asyncio.run(turns())
        return list(loop.ring.page(0).decisions)

    def test_a_change_and_then_the_maximum(self, tmp_path: Path, driver: MemoryDriver) -> None:
        up, at_max = self.seconds(tmp_path, driver, [9.0] * 30)
        assert (up.code, up.before, up.after, up.applied, up.until) == ("up", 1, 3, True, None)
        assert (at_max.code, at_max.before, at_max.after) == ("at_maximum", 3, 3)
        assert (at_max.applied, at_max.until, at_max.over) == (False, NOW + 1, False)

    def test_a_cluster_that_refuses_is_one_row_with_what_it_said(
        self, tmp_path: Path, driver: MemoryDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuses(*_: object) -> None:
            raise Unavailable("The disk is full.")

        monkeypatch.setattr(driver, "scale", refuses)
        (row,) = self.seconds(tmp_path, driver, [9.0] * 30)
        assert (row.code, row.before, row.after, row.applied) == ("not_applied", 1, 3, False)
        assert "3 was asked for and the cluster refused it: The disk is full." in row.reason
        assert row.inputs["needed"] == 13
