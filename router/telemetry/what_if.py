"""What-ifs: recorded requests of a version, run again with other settings, as a job.

    queued -> running -> done | failed        queued, running -> cancelled

Safety rule: only the holder of the row's claim writes to it, by compare-and-set; a claim is a lease that each
sign of progress renews, and free again when its process is known to be dead. One run at a time in all: the
other worker stays free for deployments. Killed at any point, `revive` queues it anew, and it begins from the
start: the same rows give the same result.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from rq import get_current_job

from deployments.claims import holder, known_dead
from deployments.errors import Conflict, InvalidInput, NotFound
from deployments.signals import announce
from deployments.types import Scaling
from router.autoscaler import replay
from router.autoscaler.policy import Limits
from router.autoscaler.simulate import Result, Setup, simulate, slipway
from router.telemetry import recording, what_if_queue
from router.telemetry.models import WhatIf
from router.telemetry.what_if_result import answer

log = logging.getLogger(__name__)

MOST_REQUESTS = 2_000_000  # as many as fit a worker's memory, and some ten seconds of a core
MOST_SECONDS = 7 * 86_400
LEAST_SECONDS = 60
MOST_WAITING = 5  # of one service
KEPT = 50  # of one service
MOST_ATTEMPTS = 3
LEASE_SECONDS = 120.0
_SAY_EVERY = 0.5  # seconds between two signs of progress
_REVIVE_AFTER = 5.0  # a job that was just queued may take a moment to be taken
_POLITE = 10  # the run gives way to everything else on the machine

State = WhatIf.State
_OPEN = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the simulator is told. `target` is percent, `start_seconds` how long a replica takes to start."""

    minimum: int
    maximum: int
    target: int
    concurrency: int
    start_seconds: float
    autoscale: bool = True
    refresh_seconds: int = 1

    def limits(self) -> Limits:
        scaling = Scaling(
            autoscale=self.autoscale,
            minimum=self.minimum,
            maximum=self.maximum,
            target_utilization=self.target,
            refresh_seconds=self.refresh_seconds,
        )
        return Limits(scaling, self.concurrency)


@dataclass(frozen=True, slots=True)
class Question:
    """A range (epoch seconds), the settings to try, and those that were set then."""

    cluster: str
    service: str
    version: str
    since: int
    until: int
    settings: Settings
    as_set: Settings
    queue_seconds: float = 0.5
    scoring_seconds: float = 60.0
    price: float | None = None  # of a replica-hour, in whatever currency
    notes: tuple[str, ...] = ()  # what a person should know of `as_set`


class ClaimLost(Exception):
    """Cancelled, or another process has it."""


def check(question: Question, now: float) -> None:
    """Raise InvalidInput, with the field, for what cannot be run."""
    since, until = question.since, question.until
    if until <= since:
        raise InvalidInput("The end is not after the beginning.", field="until")
    if until > now:
        raise InvalidInput("The end is in the future.", field="until")
    if until - since < LEAST_SECONDS:
        raise InvalidInput("Choose at least a minute.", field="since")
    if until - since > MOST_SECONDS:
        raise InvalidInput("Choose at most 7 days.", field="since")
    level = recording.level_for(since, now)
    ids = recording.series(question.cluster, question.service, question.version)
    if level is None:
        raise InvalidInput("Figures that old are not kept any more.", field="since")
    rows = level.model._default_manager.filter(series__in=ids, at__gte=since, at__lt=until)
    count = rows.aggregate(count=Sum("arrivals"))["count"]
    if count is not None and count > MOST_REQUESTS:
        raise InvalidInput(
            f"{count:,} requests came in this range; at most {MOST_REQUESTS:,} can be run again. Choose "
            "a shorter one.",
            field="since",
        )
    if not count and not recording.read(ids, since, until, level).total("arrivals"):
        raise InvalidInput("No request came in this range.", field="since")


def ask(actor: str, question: Question, now: float | None = None) -> WhatIf:
    """Write the question down and queue its job. Raises InvalidInput, or Conflict when too many wait."""
    now = time.time() if now is None else now
    check(question, now)
    with transaction.atomic():
        mine = WhatIf.objects.filter(service=question.service)
        if mine.filter(state__in=_OPEN).count() >= MOST_WAITING:
            raise Conflict(
                f"{MOST_WAITING} what-ifs of {question.service} wait already; cancel one, or wait."
            )
        values = asdict(question)
        named = {name: values.pop(name) for name in ("cluster", "service", "version")}
        row = WhatIf.objects.create(
            **named,
            since=values.pop("since"),
            until=values.pop("until"),
            inputs=values,
            asked_by=actor,
            created_at=now,
        )
        old = mine.exclude(state__in=_OPEN).values_list("pk", flat=True)[KEPT:]
        WhatIf.objects.filter(pk__in=list(old)).delete()
        transaction.on_commit(lambda: what_if_queue.enqueue(row.pk))
    return row


def cancel(row: WhatIf, now: float | None = None) -> bool:
    """Queued or running -> cancelled. False when it had ended before. A run notices within a second."""
    now = time.time() if now is None else now
    with transaction.atomic():
        open_ = WhatIf.objects.filter(pk=row.pk, state__in=_OPEN)
        if not open_.update(state=State.CANCELLED, ended_at=now, claimed_by="", claimed_until=None):
            return False
        announce("whatif", row.pk)
    return True


def find(service: str, pk: int) -> WhatIf:
    """Raises NotFound."""
    row = WhatIf.objects.filter(service=service, pk=pk).first()
    if row is None:
        raise NotFound(f"{service} has no what-if {pk}; it may have been forgotten.")
    return row


def revive(now: float) -> int:
    """Queue what has no job: its worker was killed, or the queue was away. Returns how many."""
    rows = WhatIf.objects.filter(state__in=_OPEN, created_at__lt=now - _REVIVE_AFTER)
    lost = [row.pk for row in rows.order_by("pk") if not _held(row, now)]
    if not lost or _running(now):
        return 0  # whoever runs queues the next one as it ends
    waiting = what_if_queue.waiting()
    if waiting is None or waiting & set(lost):
        return 0
    return int(what_if_queue.enqueue(lost[0]))


def run(pk: int, now: Callable[[], float] = time.time) -> str:
    """The job: take the row, simulate, write the result. Returns what came of it, for the queue."""
    claimed = _claim(pk, now())
    if claimed is None:
        return "nothing to do"
    if get_current_job() is not None:
        os.nice(_POLITE)
    turn = _Turn(claimed, now)
    try:
        if claimed.attempts > MOST_ATTEMPTS:
            turn.end(
                State.FAILED,
                cause=f"It was taken up {MOST_ATTEMPTS} times and its worker died each time. Choose a "
                "shorter range, and see the worker's log.",
            )
            return "failed"
        result = _simulated(claimed, turn)
        turn.end(State.DONE, result=result, progress=1.0)
        return "done"
    except ClaimLost:
        log.info("what-if %s stops here: it was cancelled, or another has it", pk)
        return "stopped"
    except replay.UnknownServiceTime:
        turn.end(
            State.FAILED,
            cause="No request was answered in this range, so nobody knows how long an answer takes. "
            "Choose a range in which some were.",
        )
        return "failed"
    except Exception as error:
        log.exception("what-if %s failed", pk)
        turn.end(State.FAILED, cause=f"Slipway itself failed: {type(error).__name__}: {error}.")
        return "failed"
    finally:
        _next()


def _simulated(row: WhatIf, turn: "_Turn") -> dict[str, Any]:
    inputs = row.inputs
    ids = recording.series(row.cluster, row.service, row.version)
    level = recording.level_for(row.since, row.created_at)
    if level is None:
        raise replay.UnknownServiceTime
    found = recording.read(ids, row.since, row.until, level)
    traffic = replay.requests(recording.blocks(found), progress=turn.part(0.0, 0.1))
    initial = recording.initial(found)
    results: dict[str, Result] = {}
    for name, begin in (("as_set", 0.1), ("settings", 0.55)):
        settings = Settings(**inputs[name])
        limits = settings.limits()
        setup = Setup(
            limits,
            start_seconds=settings.start_seconds,
            initial=min(max(initial, settings.minimum), settings.maximum),
            queue_seconds=inputs["queue_seconds"],
            scoring_seconds=inputs["scoring_seconds"],
            seconds=float(found.until - found.since),
        )
        results[name] = simulate(
            traffic.arrivals,
            traffic.services,
            setup,
            slipway(limits),
            progress=turn.part(begin, 0.45),
        )
    return answer(found, recording.figures(found, ids), results, traffic.stretch)


class _Turn:
    """One run's claim: says how far it is, and stops it when the claim is lost."""

    def __init__(self, row: WhatIf, now: Callable[[], float]) -> None:
        self._row, self._now = row, now
        self._said = now()

    def part(self, begin: float, share: float) -> Callable[[float], None]:
        return lambda done: self.say(begin + share * min(done, 1.0))

    def say(self, progress: float) -> None:
        now = self._now()
        if now - self._said < _SAY_EVERY:
            return
        self._said = now
        self._write(progress=progress, claimed_until=now + LEASE_SECONDS)

    def end(self, state: str, **values: Any) -> None:
        self._write(state=state, ended_at=self._now(), claimed_by="", claimed_until=None, **values)

    def _write(self, **values: Any) -> None:
        with transaction.atomic():
            if _mine(self._row).update(**values) != 1:
                raise ClaimLost
            announce("whatif", self._row.pk)


def _mine(row: WhatIf) -> QuerySet[WhatIf]:
    return WhatIf.objects.filter(pk=row.pk, state=State.RUNNING, claimed_by=row.claimed_by)


def _claim(pk: int, now: float) -> WhatIf | None:
    """The row with our claim; None when it is over, another's, or another one runs."""
    row = WhatIf.objects.filter(pk=pk, state__in=_OPEN).first()
    if row is None or _held(row, now) or _running(now):
        return None
    me = f"{holder()}:{time.monotonic_ns()}"
    claim: Mapping[str, Any] = {
        "state": State.RUNNING,
        "progress": 0.0,
        "claimed_by": me,
        "claimed_until": now + LEASE_SECONDS,
        "attempts": row.attempts + 1,
    }
    with transaction.atomic():
        same = WhatIf.objects.filter(pk=pk, state=row.state, claimed_by=row.claimed_by)
        if same.update(**claim) != 1:
            return None
        announce("whatif", pk)
    row.refresh_from_db()
    return row


def _held(row: WhatIf, now: float) -> bool:
    return (
        row.claimed_until is not None and row.claimed_until > now and not known_dead(row.claimed_by)
    )


def _running(now: float) -> bool:
    rows = WhatIf.objects.filter(Q(state=State.RUNNING), claimed_until__gt=now)
    return any(_held(row, now) for row in rows.defer("result"))


def _next() -> None:
    """Queue the one that waits longest."""
    pk = (
        WhatIf.objects.filter(state=State.QUEUED)
        .order_by("pk")
        .values_list("pk", flat=True)
        .first()
    )
    if pk is not None:
        what_if_queue.enqueue(pk)
