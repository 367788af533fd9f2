"""The controller process: its loop goes on, and there is one of it."""

import os
import threading

import pytest
from django.core.management.base import CommandError
from django.db import OperationalError

from deployments.controller import Controller
from portal.management.commands import run_controller as module


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No telemetry thread, and connections stay the test's own."""
    monkeypatch.setattr(module, "_collect_until", lambda stop: None)
    monkeypatch.setattr(module, "close_old_connections", lambda: None)


@pytest.mark.parametrize("error", [KeyError("bug"), OperationalError("database is locked")])
def test_a_cycle_that_fails_does_not_end_the_loop(monkeypatch, error):
    stop = threading.Event()
    cycles: list[int] = []

    def cycle(self):
        cycles.append(1)
        if len(cycles) == 3:
            stop.set()
        raise error

    monkeypatch.setattr(Controller, "cycle", cycle)
    module.run(stop, period=0.001)
    assert len(cycles) == 3


def test_a_second_controller_is_refused(monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    first = module._lock()
    try:
        with pytest.raises(CommandError, match="Another controller"):
            module._lock()
    finally:
        os.close(first)
    os.close(module._lock())
