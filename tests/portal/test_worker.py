import importlib
from typing import Any

import pytest
from django_rq.workers import get_worker_class
from redis.exceptions import ConnectionError as Away

from portal import worker
from portal.worker import NEEDED, PreparedWorker, wait_for


def test_jobs_are_done_by_a_worker_that_has_what_they_need(monkeypatch) -> None:
    assert get_worker_class() is PreparedWorker
    imported: list[str] = []
    monkeypatch.setattr(importlib, "import_module", imported.append)
    monkeypatch.setattr(PreparedWorker.__bases__[0], "bootstrap", lambda self, *_: None)
    bare = object.__new__(PreparedWorker)
    bare.connection = Returning(0)
    bare.bootstrap()
    assert tuple(imported) == NEEDED
    monkeypatch.undo()
    for name in NEEDED:
        importlib.import_module(name)


class Returning:
    """A connection that is refused so many times."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.asked = refusals, 0

    def ping(self) -> None:
        self.asked += 1
        if self.asked <= self.refusals:
            raise Away("refused")


def test_a_worker_waits_for_a_queue_that_is_away(monkeypatch) -> None:
    monkeypatch.setattr(worker, "_AGAIN_SECONDS", 0.001)
    connection: Any = Returning(3)
    wait_for(connection)
    assert connection.asked == 4


def test_a_worker_gives_a_queue_up_that_stays_away(monkeypatch) -> None:
    monkeypatch.setattr(worker, "_AGAIN_SECONDS", 0.001)
    connection: Any = Returning(10**6)
    with pytest.raises(Away):
        wait_for(connection, 0.01)
