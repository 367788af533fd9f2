"""Attach, refresh and detach clusters. Talks to the cluster through its driver only."""

import logging
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments.audit.record import record
from deployments.clusters import attaching, detaching, engines, kubes, ports, rechecks
from deployments.clusters.drivers import available_kinds, driver_for
from deployments.clusters.models import Attachment, Cluster, Detachment, Sku
from deployments.clusters.router_settings import apply_router_on_commit
from deployments.codec import from_json, to_json
from deployments.drivers import engine_file
from deployments.errors import Conflict, InvalidInput, SlipwayError
from deployments.services.fits import purpose_problems
from deployments.signals import announce
from deployments.types import Capacity, Check, CheckStatus, EngineSpec, KubeSpec

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

log = logging.getLogger(__name__)

# The agent and the router of a process cluster are started under this name.
PROCESS_CLUSTER = "local"


def attach(
    actor: "AbstractBaseUser | None",
    *,
    name: str,
    sku: Sku,
    router_url: str,
    kind: str = Cluster.Kind.PROCESS.value,
    purpose: str = Cluster.Purpose.DEV_TEST.value,
    description: str = "",
    engine: EngineSpec | None = None,
    router_port: int | None = None,
) -> Cluster:
    """Take a cluster into use. Its checks and its capacity are read and stored on the way.

    `engine` and `router_port` are a Docker cluster's. Raises InvalidInput (with its field), or Conflict
    when it is attached already. A Kubernetes cluster is attached by `attach_kubernetes`.
    """
    if kind == Cluster.Kind.KUBERNETES.value and kind in available_kinds():
        raise InvalidInput("Give the cluster's kubeconfig.", field="kubeconfig")
    cluster = _new(
        actor,
        name=name,
        kind=kind,
        purpose=purpose,
        sku=sku,
        description=description,
        router_url=router_url,
    )
    if kind == Cluster.Kind.DOCKER.value:
        _prepare_engine(cluster, engine, router_port)
    try:
        return _attach(actor, cluster)
    except Exception:
        if kind == Cluster.Kind.DOCKER.value:
            engine_file.mark_detached(settings.HOME.cluster(name))
        raise


def attach_kubernetes(
    actor: "AbstractBaseUser | None",
    *,
    name: str,
    sku: Sku,
    purpose: str,
    description: str,
    router_url: str,
    spec: KubeSpec,
    use: kubes.Use,
    asked: dict[str, Any],
) -> Attachment:
    """Begin to take a Kubernetes cluster into use; its row comes when every check is good.

    `asked` is the form as it was filled in, without credentials. Raises InvalidInput, Conflict.
    """
    cluster = _new(
        actor,
        name=name,
        kind=Cluster.Kind.KUBERNETES.value,
        purpose=purpose,
        sku=sku,
        description=description,
        router_url=router_url,
    )
    return attaching.begin(actor, cluster, spec, use, asked)


def _new(
    actor: "AbstractBaseUser | None",
    *,
    name: str,
    kind: str,
    purpose: str,
    sku: Sku,
    description: str,
    router_url: str,
) -> Cluster:
    """The row, not saved. Raises InvalidInput (with its field), Conflict."""
    if kind not in available_kinds():
        raise InvalidInput(
            f"Clusters of the kind {kind} cannot be attached; choose "
            f"{' or '.join(available_kinds())}.",
            field="kind",
        )
    taken = Cluster.objects.filter(name=name).first()
    if taken is not None:
        raise Conflict(
            f"{name} is attached already (since {taken.created_at:%Y-%m-%d}); a cluster is attached "
            "once. Detach it first to attach it anew."
        )
    if kind == Cluster.Kind.PROCESS.value and name != PROCESS_CLUSTER:
        raise InvalidInput(
            f"This machine is attached as {PROCESS_CLUSTER!r}, the name its agent and its router "
            "run under.",
            field="name",
        )
    if kind != Cluster.Kind.PROCESS.value and name == PROCESS_CLUSTER:
        raise InvalidInput(
            f"{PROCESS_CLUSTER!r} is the name of this machine itself; choose another one.",
            field="name",
        )
    if not router_url and kind != Cluster.Kind.KUBERNETES.value:  # these may say it themselves
        raise InvalidInput("Say where clients reach its router.", field="router_url")
    cluster = Cluster(
        name=name,
        kind=kind,
        purpose=purpose,
        sku=sku,
        description=description,
        router_url=router_url.rstrip("/"),
        created_by_id=actor.pk if actor else None,
    )
    try:
        cluster.clean_fields(exclude=["created_by"])
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise InvalidInput(messages[0], field=field) from error
    return cluster


def _attach(actor: "AbstractBaseUser | None", cluster: Cluster) -> Cluster:
    name, kind, purpose, sku = cluster.name, cluster.kind, cluster.purpose, cluster.sku
    capacity, checks = _look(cluster)
    if wrong := purpose_problems(capacity, purpose):
        raise InvalidInput(wrong[0].message, field="purpose")
    _keep(cluster, capacity, checks)
    try:
        with transaction.atomic():
            cluster.save(force_insert=True)
            record(
                actor,
                "cluster.attach",
                "cluster",
                name,
                after={
                    "kind": kind,
                    "purpose": purpose,
                    "sku": sku.name,
                    "router_url": cluster.router_url,
                    **({"engine": cluster.engine_url} if cluster.engine_url else {}),
                },
            )
            if purpose != Cluster.Purpose.DEV_TEST.value:
                apply_router_on_commit(cluster.pk)  # its router may scale itself
            announce("cluster", name)
    except IntegrityError as error:
        raise Conflict(f"{name} was attached by someone else at the same moment.") from error
    return cluster


def _prepare_engine(cluster: Cluster, engine: EngineSpec | None, router_port: int | None) -> None:
    """Look at its Engine, and write down for its agent how that is reached."""
    if engine is None:
        raise InvalidInput("Give the Engine's address.", field=engines.URL)
    spec = engines.checked(engine)
    if router_port is None:
        raise InvalidInput("Give the port of the cluster's router.", field="router_port")
    ports.check(router_port)
    if engine_file.path_of(settings.HOME.cluster(cluster.name)).exists():
        raise Conflict(
            f"A cluster {cluster.name} that was detached is still being taken apart; try again in a "
            "moment, or choose another name."
        )
    engines.look(spec)
    engines.give(cluster, spec)
    cluster.router_port = router_port
    engines.write_file(cluster)


def detach(
    actor: "AbstractBaseUser | None", cluster: Cluster, *, leave_objects: bool = False
) -> Detachment | None:
    """Give a cluster up. Raises Conflict while services run on it.

    What a Docker cluster has on its Engine is removed soon after by the portal, which ends its agent and
    its router first. What a Kubernetes cluster has is removed by a job before its row goes: what is
    returned tells how far that is. `leave_objects` leaves it there: a cluster that is gone for good
    answers nobody.
    """
    if cluster.kind == Cluster.Kind.KUBERNETES.value:
        return detaching.begin(actor, cluster, leave_objects=leave_objects)
    with transaction.atomic():
        detaching.refuse_with_services(cluster)
        record(
            actor,
            "cluster.detach",
            "cluster",
            cluster.name,
            before={"kind": cluster.kind, "purpose": cluster.purpose, "sku": cluster.sku.name},
        )
        Cluster.objects.filter(pk=cluster.pk).delete()
        if cluster.kind == Cluster.Kind.DOCKER.value:
            root = settings.HOME.cluster(cluster.name)
            transaction.on_commit(lambda: engine_file.mark_detached(root))
        announce("cluster", cluster.name)
    return None


def refresh(cluster: Cluster) -> list[Check]:
    """Run the checks and read the capacity anew; both are stored with the row."""
    if cluster.kind == Cluster.Kind.KUBERNETES.value:
        return rechecks.look(cluster.pk)
    if cluster.kind == Cluster.Kind.DOCKER.value:
        engines.write_file(cluster)
    capacity, checks = _look(cluster)
    _keep(cluster, capacity, checks)
    cluster.save(update_fields=["checks", "checked_at", "capacity"])
    announce("cluster", cluster.name)
    return checks


def capacity_of(cluster: Cluster) -> Capacity | None:
    """The latest capacity that was read; None is unknown."""
    return from_json(Capacity, cluster.capacity) if cluster.capacity else None


def _look(cluster: Cluster) -> tuple[Capacity | None, list[Check]]:
    driver = driver_for(cluster)
    try:
        checks = list(driver.check())
    except SlipwayError as error:
        checks = [Check("Cluster answers", CheckStatus.FAIL, error.message)]
    try:
        capacity = driver.capacity()
    except SlipwayError as error:
        log.warning("capacity of %s is unknown: %s", cluster.name, error.message)
        capacity = None
    return capacity, checks


def _keep(cluster: Cluster, capacity: Capacity | None, checks: list[Check]) -> None:
    cluster.checks = to_json(checks)
    cluster.checked_at = timezone.now()
    if capacity is not None:
        cluster.capacity = to_json(capacity)
