"""Reloads to grow are told shortly, and pause for as long as they are dear."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.errors import PermanentError
from router import installer
from router.haproxy.pool import Assignment
from router.installer import Installer


class Reloads:
    """An Installer whose reload takes `takes` seconds of a clock of its own."""

    def __init__(self, takes: float) -> None:
        self.now, self.takes, self.count = 0.0, takes, 0
        self.refused = False
        made: Any = Installer.__new__(Installer)
        made.known = SimpleNamespace(threads=1, threads_wanted=1)
        made.following = SimpleNamespace(spec=None)
        made._monotonic, made._not_before, made._reload = lambda: self.now, 0.0, self._reload
        self.installer: Installer = made

    async def _reload(self, *_: object) -> None:
        self.now += self.takes
        self.count += 1
        if self.refused:
            raise PermanentError("no")

    def grow_at(self, now: float) -> int:
        """How many reloads there were after a wish to grow at that moment."""
        self.now = now
        asyncio.run(self.installer.grow(Assignment({}, (), ())))
        return self.count


def test_after_a_reload_there_is_a_pause_of_three_times_its_length() -> None:
    reloads = Reloads(takes=2.0)
    assert reloads.grow_at(10.0) == 1
    assert reloads.grow_at(17.9) == 1
    assert reloads.grow_at(18.0) == 2


def test_a_reload_that_took_no_time_is_done_again_at_once() -> None:
    reloads = Reloads(takes=0.0)
    assert [reloads.grow_at(10.0), reloads.grow_at(10.0)] == [1, 2]


def test_a_refused_one_is_tried_again_after_half_a_minute() -> None:
    reloads = Reloads(takes=2.0)
    reloads.refused = True
    assert reloads.grow_at(10.0) == 1
    assert reloads.grow_at(39.9) == 1
    assert reloads.grow_at(40.0) == 2


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, ""),
        (2, "0; 1"),
        (5, "0; 1; 2; 3; 4"),
        (6, "0; 1; 2; 3; 4; and 1 more"),
        (900, "0; 1; 2; 3; 4; and 895 more"),
    ],
)
def test_of_many_reasons_five_are_told(count: int, told: str) -> None:
    assert installer._told([str(number) for number in range(count)]) == told
