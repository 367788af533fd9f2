"""The job of a deployment: takes it from queued to applied. The controller follows the rest.

    queued -> running (zipping, hashing, image, applying) -> rolling    or failed

Safety rule: only the holder of the row's claim works on it. A claim is a lease that a thread renews;
it is free again when the lease has run out or its process is known to be dead. Finished steps are not
repeated. Killed at any point, the controller finds the row and queues the job anew.
"""

import errno
import logging
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta

from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from rq.timeouts import JobTimeoutException

from deployments.claims import holder, known_dead
from deployments.errors import SlipwayError, TemporaryError
from deployments.outcome import fail
from deployments.pipeline import steps, timeline
from deployments.pipeline.log import DeploymentLog
from deployments.pipeline.steps import ClaimLost, Run
from deployments.services.models import Deployment, DeploymentState
from deployments.signals import announce
from deployments.types import Cause

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=30)
_BEAT = 8.0  # seconds between renewals
_TRIES = 5  # of one step, when what is in the way may pass
_LONGEST_WAIT = 60.0
MOST_ATTEMPTS = 5
_WORKING = (DeploymentState.QUEUED, DeploymentState.RUNNING)


def run_deployment(deployment_id: int) -> str:
    """Bring one deployment to `rolling`, or to its failure. Returns what came of it, for the queue."""
    claim = Claim.take(deployment_id)
    if claim is None:
        return "nothing to do"
    deployment = Deployment.objects.select_related(
        "service__cluster",
        "revision__service",
        "revision__environment",
        "revision__source",
        "revision__package",
        "previous",
    ).get(pk=deployment_id)
    journal = DeploymentLog(deployment_id)
    run = Run(deployment, deployment.service, deployment.revision, journal, claim.check)
    with claim:
        try:
            if deployment.attempts > MOST_ATTEMPTS:
                raise SlipwayError(
                    f"The deployment was taken up {MOST_ATTEMPTS} times and its worker died each "
                    "time. See the worker's log, then deploy again.",
                    code="WorkerLost",
                )
            _take_steps(run, claim)
            _hand_over(run)
        except ClaimLost as lost:
            log.info("deployment %s stops here: %s", deployment_id, lost)
            return "stopped"
        except Exception as error:  # noqa: BLE001 - the one place that turns any failure into a cause
            cause = cause_of(error)
            log.warning("deployment %s failed: %s: %s", deployment_id, cause.code, cause.message)
            fail(deployment, journal, cause, among=[DeploymentState.RUNNING])
            return f"failed: {cause.code}"
        finally:
            journal.flush()
    return "applied"


def _take_steps(run: Run, claim: "Claim") -> None:
    deployment = run.deployment
    timeline.end(deployment, "queued")
    finished = timeline.done(deployment)
    run.log.write("Running" if deployment.attempts <= 1 else "Taken up again.")
    for name, step in steps.STEPS:
        if name in finished:
            continue
        timeline.begin(deployment, name)
        done = _with_patience(run, claim, name, step)
        state = deployment.steps.model.State
        timeline.end(deployment, name, done.detail, state.SKIPPED if done.skipped else state.DONE)


def _with_patience(
    run: Run, claim: "Claim", name: str, step: Callable[[Run], steps.Done]
) -> steps.Done:
    """The step's result; what may pass is waited for, a bounded number of times."""
    for attempt in range(1, _TRIES + 1):
        claim.check()
        try:
            return step(run)
        except (TemporaryError, OperationalError) as error:
            if attempt == _TRIES:
                raise
            delay = min(getattr(error, "delay", 2.0), _LONGEST_WAIT)
            run.log.write(
                f"{name}: {error} Trying again in {delay:.0f} s ({attempt} of {_TRIES - 1})."
            )
            claim.wait(delay)
    raise AssertionError("the loop returns or raises")


def _hand_over(run: Run) -> None:
    """RUNNING -> ROLLING; from here on the controller has it."""
    with transaction.atomic():
        if not Deployment.objects.filter(
            pk=run.deployment.pk,
            state=DeploymentState.RUNNING,
            claimed_by=run.deployment.claimed_by,
        ).update(state=DeploymentState.ROLLING, claimed_by="", claimed_until=None):
            raise ClaimLost("the deployment is another's")
        timeline.begin(run.deployment, "scheduling")
    run.log.write(f"Checking the status of deployment {run.service.name}..")


def cause_of(error: BaseException) -> Cause:
    """What a person is told of an exception. The one table."""
    evidence = "".join(traceback.format_exception(error))
    if isinstance(error, SlipwayError):
        return Cause(error.code or "DeploymentFailed", error.message, error.evidence)
    if isinstance(error, JobTimeoutException):
        return Cause(
            "DeploymentTimedOut",
            f"The job ran out of time ({error}). Raise SLIPWAY_BUILD_TIMEOUT for slow builds.",
            evidence,
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Cause(
            "DiskFull",
            "The disk is full. Free some space (old environments, models nobody uses) and deploy "
            "again.",
            evidence,
        )
    if isinstance(error, DatabaseError):
        return Cause("DatabaseError", f"The portal's database failed: {error}", evidence)
    return Cause(
        "InternalError",
        f"Slipway itself failed: {type(error).__name__}: {error}. The traceback is attached; please "
        "report it.",
        evidence,
    )


class Claim:
    """The right to work on one deployment, renewed by a thread for as long as it is entered."""

    def __init__(self, deployment_id: int, claimed_by: str) -> None:
        self.deployment_id = deployment_id
        self.claimed_by = claimed_by
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)

    @classmethod
    def take(cls, deployment_id: int) -> "Claim | None":
        """Compare-and-set on the row; None when it is finished, rolling, or another's."""
        row = Deployment.objects.filter(pk=deployment_id, state__in=_WORKING).first()
        if row is None:
            return None
        now = timezone.now()
        if (
            row.claimed_until is not None
            and row.claimed_until > now
            and not known_dead(row.claimed_by)
        ):
            return None
        # the thread's number as well: two threads of one process are two holders
        me = f"{holder()}:{threading.get_ident()}:{time.monotonic_ns()}"
        with transaction.atomic():
            won = Deployment.objects.filter(
                pk=deployment_id,
                state=row.state,
                claimed_by=row.claimed_by,
                claimed_until=row.claimed_until,
            ).update(
                state=DeploymentState.RUNNING,
                claimed_by=me,
                claimed_until=now + LEASE,
                attempts=row.attempts + 1,
            )
            if not won:
                return None
            announce("deployment", deployment_id)
        return cls(deployment_id, me)

    def __enter__(self) -> "Claim":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def check(self) -> None:
        """Raise ClaimLost unless the deployment is still this holder's."""
        if self._lost.is_set() or not self._mine().exists():
            raise ClaimLost("it was cancelled, or another process has it")

    def wait(self, seconds: float) -> None:
        """Sleep while the claim holds."""
        self._lost.wait(seconds)
        self.check()

    def _mine(self) -> QuerySet[Deployment]:
        return Deployment.objects.filter(
            pk=self.deployment_id, state=DeploymentState.RUNNING, claimed_by=self.claimed_by
        )

    def _beat(self) -> None:
        try:
            while not self._stop.wait(_BEAT):
                try:
                    if not self._mine().update(claimed_until=timezone.now() + LEASE):
                        self._lost.set()
                        return
                except DatabaseError:
                    # the lease outlasts a few missed beats; the next one may get through
                    log.warning("the claim on deployment %s was not renewed", self.deployment_id)
        finally:
            connection.close()
