r"""Attaching a Kubernetes cluster, step by step, where a person can watch; and looking at one again.

    asked -> looked at from outside -> marked as ours -> tried from inside -> its row written     attached
          \-> a check fails ------------------------------\-> all that was made is removed        refused

Safety rule: nothing is made in the cluster before all that can be known without making anything is good, and
what was made is removed unless the row is written. A try that was killed is refused when its page is looked
at, and what it left is known by its mark: the next try, or the cleaning up here, takes it away.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from deployments.audit.record import record
from deployments.claims import holder, known_dead
from deployments.clusters import kubes, router_addresses
from deployments.clusters.drivers import driver_for, forget
from deployments.clusters.models import Attachment, Cluster
from deployments.clusters.router_settings import apply_router_on_commit
from deployments.codec import to_json
from deployments.drivers import kube_file, kubernetes_checks
from deployments.errors import Conflict, InvalidInput, SlipwayError
from deployments.signals import announce
from deployments.types import Check, CheckStatus, KubeSpec

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

    from deployments.drivers.kubernetes_belongings import Belonging
    from deployments.drivers.kubernetes_looking import Looking
    from deployments.kube.api import Kube

log = logging.getLogger(__name__)

TOPIC = "attachment"
_KEPT = timedelta(days=7)  # the row of a try
LONGEST = timedelta(minutes=10)  # a look that takes longer was cut off
_REMOVING_SECONDS = 120.0
# The form's field that a failed check belongs to.
_FIELDS = {
    kubernetes_checks.RESOLVES: "kubeconfig",
    kubernetes_checks.ANSWERS: "kubeconfig",
    kubernetes_checks.VERSION: "kubeconfig",
    kubernetes_checks.FREE: kubes.NAMESPACE,
    kubernetes_checks.ALLOWED: "kubeconfig",
    kubernetes_checks.PURPOSE: "purpose",
    kubernetes_checks.SIZE: "sku",
    kubernetes_checks.DEVICES: "sku",
    kubernetes_checks.STORE: kubes.BLOB_URL,
    kubernetes_checks.ROUTER_STARTS: kubes.ROUTER_IMAGE,
}


def begin(
    actor: "AbstractBaseUser | None",
    cluster: Cluster,
    spec: KubeSpec,
    use: kubes.Use,
    asked: dict[str, Any],
) -> Attachment:
    """Write a try down and start it. `cluster` is not saved; `asked` is the form's plain values.

    Raises InvalidInput with its field, or Conflict.
    """
    given = kubes.use(use)
    router_addresses.check(given.service_type, cluster.router_url)
    kubes.give(cluster, spec, given)
    settle()
    same = Cluster.objects.filter(kube_server=spec.server, kube_namespace=given.namespace).first()
    if same is not None:
        raise Conflict(
            f"The namespace {given.namespace} of {spec.server} is attached already, as {same.name}, since "
            f"{same.created_at:%Y-%m-%d}. Choose another namespace, or detach {same.name} first."
        )
    running = Attachment.objects.filter(name=cluster.name, state=Attachment.State.RUNNING)
    if running.exists():
        raise Conflict(f"{cluster.name} is being attached at this moment.")
    attachment = Attachment.objects.create(
        name=cluster.name,
        asked=asked,
        kube_spec=cluster.kube_spec,
        doing="about to begin",
        claimed_by=holder(),
        created_by_id=actor.pk if actor else None,
    )
    transaction.on_commit(lambda: apart(f"attach-{attachment.pk}", run, attachment.pk, cluster))
    return attachment


def run(pk: int, cluster: Cluster) -> Attachment:
    """Look at the cluster and take it into use, or refuse it and leave nothing there."""
    from deployments.kube.api import Kube

    attachment = Attachment.objects.select_related("created_by").get(pk=pk)
    progress = _Progress(attachment)
    try:
        with closing(Kube(kubes.spec_of(cluster))) as kube:
            _attach(progress, cluster, kube)
    except SlipwayError as error:
        field = error.field if isinstance(error, InvalidInput) else ""
        progress.refuse(error.message, field)
    except Exception as error:  # a try must end, whatever happens
        log.exception("attaching %s failed", cluster.name)
        progress.refuse(
            f"Slipway itself failed: {type(error).__name__}. See the web process's log."
        )
    return attachment


def _attach(progress: "_Progress", cluster: Cluster, kube: "Kube") -> None:
    from deployments.drivers import kubernetes_belongings as ours
    from deployments.drivers.kubernetes_looking import Looking

    looking = Looking(
        kube,
        kubes.settings_of(cluster),
        kubes.wanted_of(cluster),
        cluster=cluster.name,
        mark=cluster.kube_mark,
        say=progress.say,
    )
    progress.take(looking.outside())
    if failed := progress.failed():
        progress.refuse_for(failed)
        return
    attachment = progress.attachment
    person = attachment.created_by.get_username() if attachment.created_by else "slipway"
    mark = ours.Mark(
        cluster.kube_mark,
        cluster.name,
        portal_name(),
        person,
        f"{timezone.now():%Y-%m-%d %H:%M} UTC",
    )
    progress.say(f"marking the namespace {cluster.kube_namespace}")
    ours.take(kube, cluster.kube_namespace, mark)
    try:
        progress.take(looking.inside())
        if failed := progress.failed():
            raise _Failed(failed)
        _into_use(attachment, cluster, looking, progress)
    except BaseException as error:
        progress.say("removing what was made")
        _undo(kube, cluster)
        if isinstance(error, _Failed):
            progress.refuse_for(error.check)
            return
        raise


def _into_use(
    attachment: Attachment, cluster: Cluster, looking: "Looking", progress: "_Progress"
) -> None:
    kubes.write_file(cluster)
    network = looking.network()
    cluster.kube_network = to_json(network) if network is not None else None
    cluster.checks = attachment.checks
    cluster.checked_at = timezone.now()
    cluster.capacity = capacity_json(cluster)
    try:
        with transaction.atomic():
            cluster.save(force_insert=True)
            record(
                attachment.created_by,
                "cluster.attach",
                "cluster",
                cluster.name,
                after={
                    "kind": cluster.kind,
                    "purpose": cluster.purpose,
                    "sku": cluster.sku.name,
                    "router_url": cluster.router_url,
                    "server": cluster.kube_server,
                    "namespace": cluster.kube_namespace,
                },
            )
            apply_router_on_commit(cluster.pk)
            progress.attached()
            announce("cluster", cluster.name)
    except IntegrityError as error:
        raise Conflict(
            f"{cluster.name} was attached by someone else at the same moment."
        ) from error


def capacity_json(cluster: Cluster) -> Any:
    """As JSON; None is unknown."""
    try:
        return to_json(driver_for(cluster).capacity())
    except SlipwayError as error:
        log.warning("capacity of %s is unknown: %s", cluster.name, error.message)
        return None


def _undo(kube: "Kube", cluster: Cluster) -> None:
    from deployments.drivers import kubernetes_belongings as ours

    kube_file.forget(settings.HOME.cluster(cluster.name))
    forget(cluster.name)
    try:
        ours.remove(
            kube,
            cluster.kube_namespace,
            cluster.name,
            cluster.kube_mark,
            seconds=_REMOVING_SECONDS,
        )
    except SlipwayError as error:
        log.warning("what attaching %s made may still be there: %s", cluster.name, error.message)


def portal_name() -> str:
    """How this portal calls itself where others read it."""
    host: str = settings.ENV.node_url or f"http://{settings.ENV.bind}:{settings.ENV.port}"
    return host


class _Failed(Exception):
    def __init__(self, check: Check) -> None:
        super().__init__(check.name)
        self.check = check


class _Progress:
    """Writes each result into the try's row as it comes, and tells who watches."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self.checks: list[Check] = []

    def say(self, words: str) -> None:
        self._keep(doing=words[:200])

    def take(self, found: Iterator[Check]) -> None:
        for check in found:
            self.checks.append(check)
            self._keep(checks=to_json(self.checks))

    def failed(self) -> Check | None:
        return next((check for check in self.checks if check.status is CheckStatus.FAIL), None)

    def refuse_for(self, check: Check) -> None:
        words = f"{check.name}: {check.evidence}"
        self.refuse(f"{words} {check.remedy}".strip(), _FIELDS.get(check.name, ""))

    def refuse(self, words: str, field: str = "") -> None:
        self._keep(
            state=Attachment.State.REFUSED,
            problem=words,
            field=field,
            doing="",
            finished_at=timezone.now(),
        )

    def attached(self) -> None:
        self._keep(
            state=Attachment.State.ATTACHED,
            doing="",
            kube_spec="",  # the cluster's row has it now
            finished_at=timezone.now(),
        )

    def _keep(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self.attachment, name, value)
        self.attachment.save(update_fields=list(fields))
        announce(TOPIC, self.attachment.pk)


def settle(now: datetime | None = None) -> None:
    """End the tries whose process is gone, and forget those of long ago with their credentials."""
    now = now or timezone.now()
    for row in Attachment.objects.filter(state=Attachment.State.RUNNING):
        if known_dead(row.claimed_by) or row.created_at < now - LONGEST:
            Attachment.objects.filter(pk=row.pk, state=Attachment.State.RUNNING).update(
                state=Attachment.State.REFUSED,
                problem="The process that attached it was ended. Try again: what it made is taken over.",
                doing="",
                finished_at=now,
            )
            announce(TOPIC, row.pk)
    Attachment.objects.filter(created_at__lt=now - _KEPT).delete()


# ---- shared with `rechecks` ----------------------------------------------------------------------


def apart(name: str, do: Callable[..., object], *arguments: object) -> None:
    """In a thread of its own: it mostly waits, and a page is to be answered meanwhile."""

    def body() -> None:
        try:
            do(*arguments)
        except Exception:
            log.exception("%s failed", name)
        finally:
            connection.close()

    threading.Thread(target=body, name=name, daemon=True).start()


# ---- giving it up -----------------------------------------------------------------------------------


def belongings(cluster: Cluster) -> tuple[Any, ...]:
    """What detaching removes, in the order it goes. Raises Unavailable, PermanentError."""
    from deployments.drivers import kubernetes_belongings as ours
    from deployments.kube.api import Kube

    with closing(Kube(kubes.spec_of(cluster), seconds=5.0)) as kube:
        return ours.belongings(kube, cluster.kube_namespace, cluster.name)


class Watcher(Protocol):
    """Who is told how far the removing is; see `kubernetes_belongings.remove`."""

    def listed(self, items: "Sequence[Belonging]") -> None: ...

    def asked(self, item: "Belonging") -> None: ...

    def left(self, items: "Sequence[Belonging]") -> None: ...


class _Nobody:
    def listed(self, items: "Sequence[Belonging]") -> None: ...

    def asked(self, item: "Belonging") -> None: ...

    def left(self, items: "Sequence[Belonging]") -> None: ...


def remove(cluster: Cluster, watcher: Watcher | None = None) -> None:
    """Take apart what is in the cluster, and wait for it. Idempotent. Raises Conflict, Unavailable."""
    from deployments.drivers import kubernetes_belongings as ours
    from deployments.kube.api import Kube

    told = watcher or _Nobody()
    with closing(Kube(kubes.spec_of(cluster))) as kube:
        ours.remove(
            kube,
            cluster.kube_namespace,
            cluster.name,
            cluster.kube_mark,
            seconds=_REMOVING_SECONDS,
            listed=told.listed,
            asked=told.asked,
            left=told.left,
        )
