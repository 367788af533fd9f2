"""The constant rate: who is asked, and what is told of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.routing import latency
from bench.routing.context import FULL, QUICK, Context, Length
from bench.routing.load import Target
from bench.routing.processes import Cores, CpuTimes, Programs

P99 = {"direct": 0.5, "ours": 2.0, "bare": 1.5}


class Load:
    """Answers as many as it was asked for, each target as slowly as P99 says."""

    port = 1

    def __init__(self, core: int, rounds: int, seconds: float) -> None:
        self.rounds = rounds

    def run(self, targets: Sequence[Target], rate: float) -> dict[str, list[dict[str, Any]]]:
        return {
            target.name: [
                {"rate": rate, "p50_ms": 0.1, "p99_ms": P99[target.name], "late": 0.0, "failed": 0}
            ]
            * self.rounds
            for target in targets
        }

    def close(self) -> None: ...


class Product:
    port = 2

    def __init__(self, *_: object) -> None: ...

    def start(self) -> tuple[int, ...]:
        return (1,)

    def steady(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def measured(length: Length) -> Context:
        monkeypatch.setattr(latency, "OpenLoop", Load)
        monkeypatch.setattr(latency.ours, "Ours", Product)
        monkeypatch.setattr(latency.peers, "bare_haproxy", lambda *_: (3, (2,)))
        product: Any = Product()
        run = Context(
            Programs(tmp_path), Cores(1, 0), length, latency.ADDED, print, product, (1,), 1,
            measured={"rps_ours": 40_000.0},
        )  # fmt: skip
        latency.added(run)
        return run

    return measured


def test_bare_haproxy_is_asked_at_the_same_rate_so_the_machines_part_is_seen(measure) -> None:
    run = measure(FULL)
    (rows,) = run.tables.values()
    assert [row[0] for row in rows] == ["target", "direct", "ours", "bare"]
    assert (run.measured["added_p99_ms"], run.measured["added_by_bare_p99_ms"]) == (1.5, 1.0)


@pytest.mark.parametrize("length", [QUICK, replace(FULL, beside=False)])
def test_what_no_goal_speaks_of_is_left_out_of_a_short_run(measure, length: Length) -> None:
    run = measure(length)
    (rows,) = run.tables.values()
    assert [row[0] for row in rows] == ["target", "direct", "ours"]
    assert run.measured["added_p99_ms"] == 1.5
    assert "added_by_bare_p99_ms" not in run.measured


def test_what_the_host_took_and_what_was_used_are_shares_of_all_the_time_between() -> None:
    # user, nice, system, idle, iowait, irq, softirq, steal, and guests, which are in user already
    before = CpuTimes.read("cpu  100 0 50 800 50 0 0 10 7 0\ncpu0 1 2 3\n")
    after = CpuTimes.read("cpu  150 0 60 820 60 0 0 20 9 0\ncpu0 1 2 3\n")
    assert after.stolen_since(before) == pytest.approx(0.1)
    assert after.busy_since(before) == pytest.approx(0.7)
    assert (after.stolen_since(after), after.busy_since(after)) == (0.0, 0.0)
