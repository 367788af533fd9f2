"""One replica's life, state by state, with both sides of every boundary."""

from dataclasses import replace

import pytest

from deployments.agent.life import Signal, advance, backoff, silence_allowed
from deployments.agent.record import Process, Record, Sighting, from_stored, to_stored
from deployments.types import Cause, Exit, Phase, Probe
from tests.deployments.agent.conftest import LOGS, a_revision

NOW = 1000.0
RUNNING = Sighting(Process.RUNNING)
GONE = Exit(3, 0, NOW)


def a_record(phase: Phase, **changes: object) -> Record:
    plain = Record(
        id="diabetes-r1-abcde",
        service="diabetes",
        version="default",
        revision=a_revision(),
        key="k1",
        phase=phase,
        created_at=NOW - 10,
        address="unix:/replicas/a/listen.sock",
        run=1,
        started_at=NOW - 5,
    )
    return replace(plain, **changes)


def ready(**changes: object) -> Record:
    return a_record(Phase.READY, ready_at=NOW - 3, **changes)


def after(record: Record, seen: Sighting, now: float = NOW) -> Record:
    return advance(record, seen, now).record


def test_a_record_survives_its_file():
    record = ready(cause=Cause("a", "b"), last_exit=GONE, note="n", crashes=2, drain_at=4.0)
    assert from_stored(to_stored(record), record.revision) == record


def test_a_start_goes_through_loading_to_ready_by_evidence():
    record = a_record(Phase.STARTING)
    assert after(record, RUNNING) == record
    log = (LOGS / "slow_init.txt").read_text()
    loading = after(record, replace(RUNNING, log=log))
    assert loading.phase is Phase.LOADING
    good = after(loading, replace(RUNNING, log=log, streak=1, good_at=NOW))
    assert (good.phase, good.ready_at) == (Phase.READY, NOW)


def test_being_ready_takes_as_many_good_answers_as_asked_for():
    record = a_record(Phase.LOADING, revision=a_revision(probe=Probe(success_threshold=3)))
    assert after(record, replace(RUNNING, streak=2)).phase is Phase.LOADING
    assert after(record, replace(RUNNING, streak=3)).phase is Phase.READY


def test_a_cause_stays_until_the_replica_is_ready():
    record = a_record(Phase.STARTING, cause=Cause("a", "b"))
    assert after(record, RUNNING).cause == Cause("a", "b")
    assert after(record, replace(RUNNING, streak=1)).cause is None


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.LOADING, Phase.READY])
def test_a_run_that_ended_is_a_crash_with_its_exit_and_cause(phase):
    record = a_record(phase, ready_at=NOW - 3 if phase is Phase.READY else None)
    crashed = after(record, Sighting(Process.ENDED, exit=GONE))
    assert crashed.phase is Phase.CRASHED
    assert (crashed.last_exit, crashed.crashes, crashed.next_start_at) == (GONE, 1, NOW + 1)
    assert crashed.cause is not None
    assert crashed.ready_at is None


def test_a_run_whose_keeper_was_killed_is_a_crash_by_signal_nine():
    crashed = after(ready(), Sighting(Process.VANISHED, log="last words"))
    assert crashed.phase is Phase.CRASHED
    assert crashed.last_exit == Exit(137, 9, NOW, "last words")


@pytest.mark.parametrize(("seconds", "phase"), [(10.0, Phase.STARTING), (10.1, Phase.CRASHED)])
def test_a_shim_that_never_spoke_is_given_up_after_a_while(seconds, phase):
    record = a_record(Phase.STARTING, started_at=NOW - seconds)
    assert after(record, Sighting()).phase is phase


@pytest.mark.parametrize(("seconds", "phase"), [(310.0, Phase.LOADING), (310.1, Phase.CRASHED)])
def test_a_start_has_its_timeout(seconds, phase):
    step = advance(a_record(Phase.LOADING, started_at=NOW - seconds), RUNNING, NOW)
    assert step.record.phase is phase
    if phase is Phase.CRASHED:
        assert step.record.cause.code == "StartTimedOut"
        assert step.signal is Signal.TERM


@pytest.mark.parametrize(
    ("crashes", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (6, 32), (7, 60), (500, 60)]
)
def test_back_off_doubles_up_to_a_minute(crashes, seconds):
    assert backoff(crashes) == seconds


@pytest.mark.parametrize(("healthy", "crashes"), [(299.9, 5), (300.0, 1)])
def test_five_healthy_minutes_begin_the_back_off_anew(healthy, crashes):
    record = a_record(Phase.READY, ready_at=NOW - healthy, crashes=4)
    assert after(record, Sighting(Process.ENDED, exit=GONE)).crashes == crashes
    kept = after(record, replace(RUNNING, good_at=NOW))
    assert kept.crashes == (4 if crashes == 5 else 0)


def test_a_busy_replica_may_be_silent_for_a_score_and_the_probes_patience():
    record = ready()
    allowed = silence_allowed(record)
    assert allowed == 60 + 10 * 3 + 2
    assert after(record, replace(RUNNING, good_at=NOW - allowed)).phase is Phase.READY
    step = advance(record, replace(RUNNING, good_at=NOW - allowed - 0.1), NOW)
    assert step.record.phase is Phase.CRASHED
    assert step.record.cause.code == "Unresponsive"
    assert step.signal is Signal.TERM


def test_a_replica_nobody_has_asked_yet_is_not_dead():
    assert after(ready(), RUNNING) == ready()


def test_a_closed_port_counts_at_once():
    step = advance(ready(), replace(RUNNING, good_at=NOW, refused=True), NOW)
    assert step.record.phase is Phase.CRASHED
    assert step.signal is Signal.TERM


@pytest.mark.parametrize(("asked", "signal"), [(10.0, Signal.TERM), (10.1, Signal.KILL)])
@pytest.mark.parametrize("phase", [Phase.CRASHED, Phase.DRAINING])
def test_a_process_that_does_not_end_when_asked_is_killed(asked, signal, phase):
    record = a_record(phase, term_at=NOW - asked)
    assert advance(record, RUNNING, NOW).signal is signal
    assert advance(record, Sighting(Process.ENDED, exit=GONE), NOW).signal is None


def test_a_crashed_replica_with_a_process_left_has_it_ended():
    step = advance(a_record(Phase.CRASHED), RUNNING, NOW)
    assert (step.record.term_at, step.signal) == (NOW, Signal.TERM)


def test_how_a_run_that_was_given_up_ended_is_filled_in_later():
    record = a_record(Phase.CRASHED, cause=Cause("StartTimedOut", "x"), term_at=NOW)
    later = after(record, Sighting(Process.ENDED, exit=GONE))
    assert (later.last_exit, later.cause) == (GONE, record.cause)


def test_a_run_that_was_silent_for_want_of_memory_ran_out_of_memory():
    record = a_record(Phase.CRASHED, cause=Cause("Unresponsive", "x"), term_at=NOW)
    later = after(record, Sighting(Process.ENDED, exit=replace(GONE, oom=True)))
    assert later.cause is not None
    assert later.cause.code == "PodOutOfMemory"


def test_files_that_cannot_be_prepared_are_a_crash_with_back_off():
    trouble = Cause("DiskFull", "full")
    crashed = after(a_record(Phase.PULLING, run=0), Sighting(trouble=trouble))
    assert (crashed.phase, crashed.cause, crashed.next_start_at) == (
        Phase.CRASHED,
        trouble,
        NOW + 1,
    )


@pytest.mark.parametrize("phase", [Phase.SCHEDULING, Phase.PULLING, Phase.DRAINING])
def test_what_is_not_running_yet_or_leaves_is_left_to_the_plan(phase):
    record = a_record(phase, run=0, started_at=None)
    assert advance(record, Sighting(), NOW).record == record
