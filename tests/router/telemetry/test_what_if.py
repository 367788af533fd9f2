"""What-ifs: a recorded range run again, by whoever has the claim, once."""

import time
from dataclasses import replace

import pytest

from deployments.claims import holder
from deployments.errors import Conflict, InvalidInput, NotFound
from router.telemetry import recording, what_if, what_if_queue
from router.telemetry.models import Decision, Hour, Minute, Second, Series, WhatIf
from router.telemetry.rollups import LEVELS, roll_up
from router.telemetry.what_if import Question, Settings, ask, cancel, check, find, revive, run
from tests.router.telemetry.recorded import record

NOW = 1_800_000_000.0
BEGIN = int(NOW) - 1_000
SECONDS = 300
SET = Settings(minimum=4, maximum=10, target=70, concurrency=1, start_seconds=20.0)
pytestmark = pytest.mark.django_db


@pytest.fixture
def series() -> Series:
    return Series.objects.create(cluster="local", service="diabetes", version="default")


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids that were put on the queue."""
    found: list[int] = []
    monkeypatch.setattr(what_if_queue, "enqueue", lambda pk: found.append(pk) is None)
    monkeypatch.setattr(what_if_queue, "waiting", lambda: set())
    return found


def question(**values: object) -> Question:
    asked = Question("local", "diabetes", "default", BEGIN, BEGIN + SECONDS, SET, SET)
    return replace(asked, **values)  # type: ignore[arg-type]


class TestRecording:
    @pytest.mark.parametrize(
        ("age", "step"),
        [
            (0, 1),
            (7_194, 1),
            (7_195, 10),
            (172_740, 10),
            (172_741, 60),
            (2_591_940, 60),
            (2_591_941, 3_600),
            (400 * 86_400 - 60, 3_600),
        ],
    )
    def test_the_finest_resolution_that_is_still_kept(self, age: int, step: int) -> None:
        level = recording.level_for(int(NOW) - age, NOW)
        assert level is not None
        assert level.step == step

    def test_what_is_older_than_everything_is_not_kept(self) -> None:
        assert recording.level_for(int(NOW) - 400 * 86_400, NOW) is None

    def test_figures_are_those_that_were_measured(self, series: Series) -> None:
        for at in range(100):
            if not 40 <= at < 50:  # ten seconds that nobody measured
                Second.objects.create(
                    series=series, at=BEGIN + at, arrivals=5, ok=3, rejected=2, unready=1,
                    ready=2, starting=1, draining=1, busy=1.5,
                )  # fmt: skip
        Decision.objects.create(
            series=series, at=BEGIN + 5, before=1, after=2, code="up", reason="B.", applied=True
        )
        Decision.objects.create(
            series=series, at=BEGIN + 6, before=2, after=2, code="stale", reason="S.", applied=False
        )
        found = recording.read([series.pk], BEGIN, BEGIN + 100, LEVELS[0])
        figures = recording.figures(found, [series.pk])
        assert found.measured == 90
        assert (figures.requests, figures.rejected, figures.overloaded) == (450, 180, 90)
        assert figures.replica_hours == pytest.approx(90 * 4 / 3600)
        assert (figures.actions, figures.peak, figures.wait_p95) == (1, 4, None)

    def test_a_range_of_coarser_figures_has_the_same_counts(self, series: Series) -> None:
        record(series, BEGIN, SECONDS)
        roll_up(NOW)
        fine = recording.read([series.pk], BEGIN, BEGIN + SECONDS, LEVELS[0])
        coarse = recording.read([series.pk], BEGIN, BEGIN + SECONDS, LEVELS[2])
        assert (coarse.step, coarse.since, coarse.until) == (60, BEGIN - 20, BEGIN + SECONDS + 40)
        assert coarse.total("arrivals") == fine.total("arrivals")
        assert sum(block.arrivals for block in recording.blocks(coarse)) == fine.total("arrivals")


class TestAsking:
    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"until": BEGIN}, "until"),
            ({"until": int(NOW) + 1}, "until"),
            ({"until": BEGIN + 59}, "since"),
            ({"since": int(NOW) - 7 * 86_400 - 1, "until": int(NOW)}, "since"),
            ({"since": 1_000, "until": 2_000}, "since"),
        ],
    )
    def test_a_range_that_cannot_be_run_is_refused(
        self, series: Series, values: dict[str, int], field: str
    ) -> None:
        with pytest.raises(InvalidInput) as caught:
            check(question(**values), NOW)
        assert caught.value.field == field

    def test_a_range_without_requests_is_refused(self, series: Series) -> None:
        Second.objects.create(series=series, at=BEGIN, ready=1)
        with pytest.raises(InvalidInput, match="No request came"):
            check(question(), NOW)

    def test_more_requests_than_fit_are_refused_with_their_number(self, series: Series) -> None:
        row = Second.objects.create(series=series, at=BEGIN, arrivals=what_if.MOST_REQUESTS)
        check(question(), NOW)
        Second.objects.filter(pk=row.pk).update(arrivals=what_if.MOST_REQUESTS + 1)
        with pytest.raises(InvalidInput, match="2,000,001 requests"):
            check(question(), NOW)

    def test_only_so_many_wait_and_only_so_many_are_kept(
        self, series: Series, queued: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(what_if, "KEPT", 2)
        Second.objects.create(series=series, at=BEGIN, arrivals=1)
        rows = [ask("vera", question(), NOW) for _ in range(what_if.MOST_WAITING)]
        with pytest.raises(Conflict, match="wait already"):
            ask("vera", question(), NOW)
        for row in rows:
            assert cancel(row, NOW)
        newest = ask("vera", question(), NOW)
        assert list(WhatIf.objects.values_list("pk", flat=True)) == [
            newest.pk, rows[-1].pk, rows[-2].pk,
        ]  # fmt: skip

    def test_one_of_another_service_is_not_found(self, series: Series, queued: list[int]) -> None:
        Second.objects.create(series=series, at=BEGIN, arrivals=1)
        row = ask("vera", question(), NOW)
        assert find("diabetes", row.pk) == row
        with pytest.raises(NotFound):
            find("other", row.pk)


class TestRunning:
    @pytest.fixture
    def row(self, series: Series, queued: list[int]) -> WhatIf:
        record(series, BEGIN, SECONDS)
        tried = replace(SET, maximum=30, start_seconds=2.0)
        return ask("vera", question(settings=tried), NOW)

    def test_the_three_runs_stand_beside_each_other(self, row: WhatIf) -> None:
        assert run(row.pk, lambda: NOW) == "done"
        row.refresh_from_db()
        assert (row.state, row.progress, row.claimed_by) == (WhatIf.State.DONE, 1.0, "")
        result = row.result
        assert result is not None
        was, same, would = (result[name] for name in ("recorded", "as_set", "settings"))
        assert was["requests"] == same["requests"] == would["requests"] > 0
        # the recording is the simulator's own, so it must find it again
        assert same["replica_hours"] == pytest.approx(was["replica_hours"], rel=0.08)
        assert same["rejected_share"] == pytest.approx(was["rejected_share"], abs=0.03)
        assert would["rejected"] < same["rejected"] / 2
        chart = result["chart"]
        assert (result["step"], result["measured"], result["seconds"]) == (1, SECONDS, SECONDS)
        for line in ("recorded", "as_set", "settings"):
            assert len(chart[line]["replicas"]) == len(chart["at"]) == len(chart["arrivals"])

    def test_the_same_question_has_the_same_answer(self, row: WhatIf, queued: list[int]) -> None:
        again = ask("vera", question(settings=Settings(**row.inputs["settings"])), NOW)
        run(row.pk, lambda: NOW)
        run(again.pk, lambda: NOW)
        results = WhatIf.objects.order_by("pk").values_list("result", flat=True)
        assert results[0] == results[1]

    def test_a_gap_stays_a_gap_and_its_hours_are_nobodys(self, row: WhatIf) -> None:
        Second.objects.filter(at__gte=BEGIN + 150, at__lt=BEGIN + 200).delete()
        run(row.pk, lambda: NOW)
        result = WhatIf.objects.get().result
        assert result is not None
        assert result["measured"] == SECONDS - 50
        chart = result["chart"]
        index = 175 // chart["width"]
        assert chart["recorded"]["replicas"][index] is None
        assert chart["arrivals"][index] is None
        measured = sum(1 for at in range(SECONDS) if not 150 <= at < 200)
        assert result["recorded"]["replica_hours"] <= 10.5 * measured / 3600
        assert result["as_set"]["replica_hours"] <= 10.5 * measured / 3600

    def test_it_is_run_once_and_a_second_job_finds_nothing(self, row: WhatIf) -> None:
        assert run(row.pk, lambda: NOW) == "done"
        assert run(row.pk, lambda: NOW) == "nothing to do"

    def test_a_run_that_is_cancelled_stops_and_keeps_nothing(
        self, row: WhatIf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter(range(10_000))
        monkeypatch.setattr(what_if._Turn, "part", _cancelling(row))
        assert run(row.pk, lambda: NOW + next(clock)) == "stopped"
        row.refresh_from_db()
        assert (row.state, row.result) == (WhatIf.State.CANCELLED, None)
        assert not cancel(row, NOW)

    def test_progress_is_written_as_it_goes_on(
        self, row: WhatIf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[float] = []
        write = what_if._Turn._write

        def note(turn: what_if._Turn, **values: float) -> None:
            told.append(values["progress"])
            write(turn, **values)

        monkeypatch.setattr(what_if._Turn, "_write", note)
        clock = iter(range(10_000))
        run(row.pk, lambda: NOW + next(clock))
        assert told == sorted(told)
        assert len(told) > 5
        assert told[-1] == 1.0

    def test_nothing_answered_is_a_failure_in_words(
        self, series: Series, queued: list[int]
    ) -> None:
        Second.objects.create(series=series, at=BEGIN, arrivals=5, rejected=5, unready=5)
        row = ask("vera", question(), NOW)
        assert run(row.pk, lambda: NOW) == "failed"
        row.refresh_from_db()
        assert row.state == WhatIf.State.FAILED
        assert "No request was answered" in row.cause

    def test_another_run_goes_first_and_the_next_is_queued_as_it_ends(
        self, row: WhatIf, queued: list[int]
    ) -> None:
        second = ask("vera", question(), NOW)
        WhatIf.objects.filter(pk=row.pk).update(
            state=WhatIf.State.RUNNING, claimed_by=holder(), claimed_until=NOW + 60
        )
        assert run(second.pk, lambda: NOW) == "nothing to do"
        assert run(row.pk, lambda: NOW) == "nothing to do"
        queued.clear()
        assert run(second.pk, lambda: NOW + 61) == "done"
        assert queued == []
        assert run(row.pk, lambda: NOW + 61) == "done"


def _cancelling(row: WhatIf) -> object:
    part = what_if._Turn.part

    def cancels(turn: what_if._Turn, begin: float, share: float) -> object:
        if begin:
            cancel(row, NOW)
        return part(turn, begin, share)

    return cancels


class TestReviving:
    @pytest.fixture
    def row(self, series: Series, queued: list[int]) -> WhatIf:
        Second.objects.create(series=series, at=BEGIN, arrivals=1)
        row = ask("vera", question(), NOW)
        queued.clear()
        return row

    def test_a_killed_workers_run_is_taken_up_again(self, row: WhatIf, queued: list[int]) -> None:
        host = holder().partition(":")[0]
        WhatIf.objects.update(
            state=WhatIf.State.RUNNING, claimed_by=f"{host}:1999999:1.00", claimed_until=NOW + 60
        )
        assert revive(NOW + 5.1) == 1
        assert queued == [row.pk]
        assert run(row.pk, lambda: NOW + 6) == "failed"  # it has no service times
        row.refresh_from_db()
        assert row.attempts == 1

    def test_a_living_run_is_left_alone(self, row: WhatIf, queued: list[int]) -> None:
        WhatIf.objects.update(
            state=WhatIf.State.RUNNING, claimed_by=holder(), claimed_until=NOW + 60
        )
        assert revive(NOW + 59) == 0
        assert revive(NOW + 61) == 1  # its lease is over

    def test_a_job_that_was_just_queued_is_given_a_moment(
        self, row: WhatIf, queued: list[int]
    ) -> None:
        assert revive(NOW + 4.9) == 0
        assert revive(NOW + 5.1) == 1

    def test_one_that_waits_in_the_queue_or_a_queue_that_is_away_needs_nothing(
        self, row: WhatIf, queued: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(what_if_queue, "waiting", lambda: {row.pk})
        assert revive(NOW + 60) == 0
        monkeypatch.setattr(what_if_queue, "waiting", lambda: None)
        assert revive(NOW + 60) == 0

    def test_one_that_kills_each_worker_is_given_up(self, row: WhatIf) -> None:
        WhatIf.objects.update(attempts=what_if.MOST_ATTEMPTS)
        assert run(row.pk, lambda: NOW) == "failed"
        row.refresh_from_db()
        assert "its worker died each time" in row.cause


def test_older_ranges_are_run_from_what_is_still_kept(series: Series, queued: list[int]) -> None:
    record(series, BEGIN, SECONDS)
    later = time.time()
    roll_up(NOW)
    Second.objects.all().delete()
    Hour.objects.all().delete()
    assert Minute.objects.exists()
    row = ask("vera", question(), NOW + 10 * 86_400)
    assert run(row.pk, lambda: NOW + 10 * 86_400) == "done"
    row.refresh_from_db()
    assert row.result is not None
    assert row.result["step"] == 60
    assert time.time() - later < 60
