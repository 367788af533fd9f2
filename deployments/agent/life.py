"""One replica's life: what its next state is, from what is remembered and what is seen.

    scheduling -> pulling -> starting -> loading -> ready -> draining -> (forgotten)
         ^ placed by the plan             |  any of starting, loading, ready
         |                                v
         +-- pulling <- back-off over -- crashed

Safety: a new run begins only when nothing is left of the one before. Silence of a busy replica is not
death: its gate answers for it, and says for how long a worker has been in one request or gone. That counts
only when it is longer than the longest score plus the probe's patience. PURE.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from deployments.agent import causes
from deployments.agent.record import PACE, Pace, Process, Record, Sighting
from deployments.types import Cause, Exit, Phase, RevisionSpec

_RUNNING = (Phase.STARTING, Phase.LOADING, Phase.READY)


class Signal(StrEnum):
    TERM = "term"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Step:
    """The record as it should be now, and what to send its process, if anything."""

    record: Record
    signal: Signal | None = None


def advance(record: Record, seen: Sighting, now: float, pace: Pace = PACE) -> Step:
    """The next state. Nothing changes when nothing new is seen."""
    if record.phase in _RUNNING:
        record = _running(record, seen, now, pace)
    elif record.phase is Phase.CRASHED:
        record = _crashed(record, seen, now)
    elif record.phase is Phase.PULLING and seen.trouble is not None:
        record = _with_crash(record, seen.trouble, None, now, pace)
    return Step(record, _signal(record, seen, now, pace))


def silence_allowed(record: Record) -> float:
    """Seconds without a sign of life after which a ready replica counts as dead."""
    return longest_silence(record.revision)


def longest_silence(revision: RevisionSpec) -> float:
    """The same, before there is a record: scoring timeout and the probe's patience, in seconds."""
    probe = revision.probe
    patience = probe.period_seconds * probe.failure_threshold + probe.timeout_seconds
    return revision.scoring_timeout_ms / 1000 + patience


def backoff(crashes: int, pace: Pace = PACE) -> float:
    """Seconds to wait after the given crash in a row: 1, 2, 4 ... 60."""
    return min(pace.backoff_first * 2.0 ** min(crashes - 1, 30), pace.backoff_most)


def _running(record: Record, seen: Sighting, now: float, pace: Pace) -> Record:
    started = record.started_at or record.created_at
    if seen.process in (Process.ENDED, Process.VANISHED):
        cause = causes.of_end(seen.log, seen.exit, record.revision, record.ready_at is not None)
        return _with_crash(record, cause, seen.exit or _unknown_exit(seen, now), now, pace)
    if seen.process is Process.NONE:
        if now - started <= pace.silent_start:
            return record
        return _with_crash(record, causes.never_began(), None, now, pace)
    if seen.note != record.note:
        record = replace(record, note=seen.note)
    if record.phase is Phase.READY:
        return _ready(record, seen, now, pace)
    if seen.streak >= record.revision.probe.success_threshold:
        return replace(record, phase=Phase.READY, ready_at=now, cause=None)
    if now - started > record.revision.start_timeout_seconds:
        cause = causes.of_start_timeout(seen.log, record.revision)
        return replace(_with_crash(record, cause, None, now, pace), term_at=now)
    if record.phase is Phase.STARTING and causes.is_loading(seen.log):
        return replace(record, phase=Phase.LOADING)
    return record


def _ready(record: Record, seen: Sighting, now: float, pace: Pace) -> Record:
    if seen.good_at is None:
        return record  # nobody has asked it yet
    silence = now - seen.good_at
    if seen.refused or silence > silence_allowed(record):
        cause = causes.of_silence(seen.log, silence, refused=seen.refused)
        return replace(_with_crash(record, cause, None, now, pace), term_at=now)
    if record.crashes and now - (record.ready_at or now) >= pace.healthy_reset:
        return replace(record, crashes=0)
    return record


def _crashed(record: Record, seen: Sighting, now: float) -> Record:
    """A run that was given up must end, and how it ended is known only then."""
    if seen.process is Process.RUNNING and record.term_at is None:
        return replace(record, term_at=now)
    exit_ = seen.exit
    if exit_ is None or (record.last_exit is not None and record.last_exit.at >= exit_.at):
        return record
    if exit_.oom:  # it was silent for want of memory
        cause = causes.of_end(seen.log, exit_, record.revision, was_ready=True)
        return replace(record, last_exit=exit_, cause=cause)
    return replace(record, last_exit=exit_)


def _with_crash(record: Record, cause: Cause, exit_: Exit | None, now: float, pace: Pace) -> Record:
    healthy = record.ready_at is not None and now - record.ready_at >= pace.healthy_reset
    crashes = 1 if healthy else record.crashes + 1
    return replace(
        record,
        phase=Phase.CRASHED,
        ready_at=None,
        term_at=None,
        crashes=crashes,
        next_start_at=now + backoff(crashes, pace),
        last_exit=exit_ or record.last_exit,
        cause=cause,
    )


def _unknown_exit(seen: Sighting, now: float) -> Exit:
    return Exit(code=137, signal=9, at=now, log_tail=seen.log[-16_384:])


def _signal(record: Record, seen: Sighting, now: float, pace: Pace) -> Signal | None:
    if seen.process is not Process.RUNNING or record.term_at is None:
        return None
    return Signal.KILL if now - record.term_at > pace.term_grace else Signal.TERM
