"""Giving up a Kubernetes cluster, as a job that a person can watch.

    asked -> Detaching: listed -> each object removed -> waited for -> its row goes      detached
                     \\-> it does not answer, or something does not go -> failed, with what is left

While it is Detaching nothing is deployed to it and the controller leaves it alone. Safety rule: the row goes
last, when nothing of ours is left in the cluster (or was to be left there), so a job that is killed anywhere
is taken up again and finds the rest. A failure that changed nothing gives the cluster back.
"""

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from redis.exceptions import RedisError

from deployments.audit.record import record
from deployments.claims import holder, known_dead
from deployments.clusters import attaching
from deployments.clusters.drivers import forget
from deployments.clusters.models import Cluster, Detachment
from deployments.errors import Conflict, NotFound, SlipwayError, Unavailable
from deployments.queue import enqueue_detachment, queued_detachments
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

    from deployments.drivers.kubernetes_belongings import Belonging

log = logging.getLogger(__name__)

TOPIC = "detachment"
MOST_ATTEMPTS = 5  # workers that died over it
LEASE = timedelta(seconds=30)
_BEAT = 8.0  # seconds between renewals
_TRY_FOR = 90.0  # seconds for which a cluster that does not answer is asked again
_PAUSE = 3.0
_JUST_MADE = timedelta(seconds=3)  # it is being put on the queue by whoever wrote it down
_KEPT = timedelta(days=30)


def begin(
    actor: "AbstractBaseUser | None", cluster: Cluster, *, leave_objects: bool = False
) -> Detachment:
    """Write it down and queue the job. One that runs already is what is returned.

    Raises Conflict while services run on it, NotFound when it is gone.
    """
    with transaction.atomic():
        locked = Cluster.objects.select_for_update().filter(pk=cluster.pk).first()
        if locked is None:
            raise NotFound(f"{cluster.name} was detached meanwhile.")
        refuse_with_services(locked)
        before = Detachment.objects.filter(name=locked.name).first()
        checking = locked.checking_at
        if checking and checking > timezone.now() - attaching.LONGEST and not leave_objects:
            raise Conflict(
                f"The checks of {locked.name} run, and make things there; detach it when they have ended."
            )
        if before is not None and before.state == Detachment.State.RUNNING:
            return before
        again = locked.state == Cluster.State.DETACHING
        row = Detachment.objects.create(
            name=locked.name,
            server=locked.kube_server,
            namespace=locked.kube_namespace,
            leave_objects=leave_objects,
            steps=before.steps if again and before is not None else [],
            doing="waiting for a worker",
            created_by_id=actor.pk if actor else None,
        )
        Cluster.objects.filter(pk=locked.pk).update(state=Cluster.State.DETACHING)
        announce("cluster", locked.name)
        transaction.on_commit(lambda: _queue(row))
    return row


def _queue(row: Detachment) -> None:
    forget(row.name)  # this process's watches of it
    enqueue_detachment(row.pk)


def refuse_with_services(cluster: Cluster) -> None:
    """Raises Conflict, naming some of them."""
    names = list(cluster.services.values_list("name", flat=True)[:6])
    if names:
        shown = ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
        raise Conflict(
            f"{cluster.name} still runs {shown}; delete the services before detaching it."
        )


def run(pk: int) -> str:
    """The job. Returns what came of it, for the queue."""
    work = _Work.take(pk)
    if work is None:
        return "nothing to do"
    with work:
        try:
            if work.row.attempts > MOST_ATTEMPTS:
                raise SlipwayError(
                    f"The job was taken up {MOST_ATTEMPTS} times and its worker died each time. See the "
                    "worker's log, then detach again."
                )
            cluster = Cluster.objects.filter(name=work.row.name).first()
            if cluster is not None:
                if not work.row.leave_objects:
                    _remove_all(work, cluster)
                _finish(work, cluster)
            else:
                work.end(Detachment.State.DETACHED)  # killed after its row went
        except _Lost:
            return "stopped"
        except Exception as error:
            log.exception("detaching %s failed", work.row.name)
            words = (
                error.message
                if isinstance(error, SlipwayError)
                else f"Slipway itself failed: {type(error).__name__}: {error}."
            )
            _fail(work, words)
            return "failed"
    return "detached"


def _remove_all(work: "_Work", cluster: Cluster) -> None:
    """Raises SlipwayError. What does not answer is asked again for a while."""
    until = time.monotonic() + _TRY_FOR
    while True:
        try:
            attaching.remove(cluster, watcher=work)
            # what somebody put right between the listing and its end
            attaching.remove(cluster)
            return
        except Unavailable as error:
            if time.monotonic() > until or error.code == "NotGone":
                raise
            work.say(f"trying again: {error.message}")
            time.sleep(_PAUSE)


def _finish(work: "_Work", cluster: Cluster) -> None:
    work.say("giving up its row")
    shutil.rmtree(settings.HOME.cluster(cluster.name), ignore_errors=True)
    forget(cluster.name)
    row = work.row
    with transaction.atomic():
        refuse_with_services(cluster)
        record(
            row.created_by,
            "cluster.detach",
            "cluster",
            cluster.name,
            before={"kind": cluster.kind, "purpose": cluster.purpose, "sku": cluster.sku.name},
            **({"after": {"left": "its objects"}} if row.leave_objects else {}),
        )
        Cluster.objects.filter(pk=cluster.pk).delete()
        work.end(Detachment.State.DETACHED)
        announce("cluster", cluster.name)


def _fail(work: "_Work", words: str) -> None:
    """Said with what is left. Where nothing was removed the cluster is as it was."""
    row = work.row
    touched = any(step["state"] != "waiting" for step in row.steps)
    with transaction.atomic():
        if not touched:
            Cluster.objects.filter(name=row.name).update(state=Cluster.State.ATTACHED)
            words = f"{words} Nothing was removed; {row.name} is still attached."
        work.end(Detachment.State.FAILED, words)
        announce("cluster", row.name)


def requeue_lost(now: datetime) -> list[int]:
    """Queue those again that nobody works on and no job waits for. Raises Unavailable without a queue."""
    lost = [
        row.pk
        for row in Detachment.objects.filter(state=Detachment.State.RUNNING)
        if (row.claimed_until is None and row.created_at < now - _JUST_MADE)
        or (
            row.claimed_until is not None
            and (row.claimed_until < now or known_dead(row.claimed_by))
        )
    ]
    if not lost:
        return []
    try:
        waiting = queued_detachments()
    except (RedisError, OSError) as error:
        raise Unavailable(f"The job queue cannot be reached ({error}).") from error
    found = [pk for pk in lost if pk not in waiting]
    for pk in found:
        log.info("detachment %s has nobody who works on it; its job is queued again", pk)
        enqueue_detachment(pk)
    return found


def prune(now: datetime) -> int:
    """Forget those of long ago. Returns how many."""
    old = Detachment.objects.exclude(state=Detachment.State.RUNNING)
    return old.filter(created_at__lt=now - _KEPT).delete()[0]


class _Lost(Exception):
    """The row is another's now."""


class _Work:
    """The right to work on one detachment, renewed by a thread, and its progress in its row."""

    def __init__(self, row: Detachment) -> None:
        self.row = row
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)

    @classmethod
    def take(cls, pk: int) -> "_Work | None":
        """Compare-and-set; None when it is over, or another's."""
        row = Detachment.objects.filter(pk=pk, state=Detachment.State.RUNNING).first()
        now = timezone.now()
        if row is None:
            return None
        if (
            row.claimed_until is not None
            and row.claimed_until > now
            and not known_dead(row.claimed_by)
        ):
            return None
        me = f"{holder()}:{threading.get_ident()}:{time.monotonic_ns()}"
        won = Detachment.objects.filter(
            pk=pk,
            state=Detachment.State.RUNNING,
            claimed_by=row.claimed_by,
            claimed_until=row.claimed_until,
        ).update(claimed_by=me, claimed_until=now + LEASE, attempts=row.attempts + 1)
        if not won:
            return None
        return cls(Detachment.objects.select_related("created_by").get(pk=pk))

    def __enter__(self) -> "_Work":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    # ---- what the removing tells -------------------------------------------------------------------

    def listed(self, items: Sequence["Belonging"]) -> None:
        """What was removed before stays in the list, as removed."""
        new = [_step(item) for item in items]
        paths = {step["path"] for step in new}
        gone = [
            {**step, "state": "removed"} for step in self.row.steps if step["path"] not in paths
        ]
        self._keep(steps=[*gone, *new], doing="")

    def asked(self, item: "Belonging") -> None:
        self._mark(lambda step: step["path"] == item.path, "removing", f"{item.kind} {item.name}")

    def left(self, items: Iterable["Belonging"]) -> None:
        there = {item.path for item in items}
        self._mark(lambda step: step["path"] not in there, "removed")

    def say(self, words: str) -> None:
        self._keep(doing=words[:200])

    def end(self, state: Detachment.State, problem: str = "") -> None:
        if state == Detachment.State.DETACHED and not self.row.leave_objects:
            self.left(())
        self._keep(state=state, problem=problem, doing="", finished_at=timezone.now())

    def _mark(self, which: Callable[[dict[str, Any]], bool], state: str, doing: str = "") -> None:
        steps = [{**step, "state": state} if which(step) else step for step in self.row.steps]
        if steps != self.row.steps or doing:
            self._keep(steps=steps, **({"doing": f"removing {doing}"[:200]} if doing else {}))

    def _keep(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self.row, name, value)
        if not self._mine().update(**fields):
            raise _Lost
        announce(TOPIC, self.row.pk)

    def _mine(self) -> Any:
        return Detachment.objects.filter(
            pk=self.row.pk, state=Detachment.State.RUNNING, claimed_by=self.row.claimed_by
        )

    def _beat(self) -> None:
        try:
            while not self._stop.wait(_BEAT):
                with contextlib.suppress(Exception):  # the lease outlasts a few missed beats
                    self._mine().update(claimed_until=timezone.now() + LEASE)
        finally:
            connection.close()


def _step(item: "Belonging") -> dict[str, str]:
    return {"kind": item.kind, "name": item.name, "path": item.path, "state": "waiting"}
