"""Looking at an attached Kubernetes cluster again: when a person asks, and after a deployment failed there.

Each result is stored as it comes, in the place of the one before. One look at a time; one that was cut off
is as good as none after a while. After a failed deployment the checks of what it was doing are run: the
cluster's page then says whether it was the cluster.
"""

from contextlib import closing
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from deployments.clusters import attaching, kubes
from deployments.clusters.models import Cluster
from deployments.codec import from_json, to_json
from deployments.drivers import kubernetes_checks
from deployments.errors import SlipwayError
from deployments.services.models import Deployment, DeploymentState
from deployments.signals import announce
from deployments.types import Check, CheckStatus

_INSIDE = kubernetes_checks.NAMES[kubernetes_checks.NAMES.index(kubernetes_checks.REGISTRY) :]


def look_again(cluster: Cluster, *, only: tuple[str, ...] = ()) -> bool:
    """Start the checks of an attached cluster; each result is stored as it comes. `only` names those to
    run (a registry's by `REGISTRY`). False when they run already, and while it is being detached."""
    now = timezone.now()
    free = Q(checking_at=None) | Q(checking_at__lt=now - attaching.LONGEST)
    attached = Cluster.objects.filter(free, pk=cluster.pk, state=Cluster.State.ATTACHED)
    if not attached.update(checking_at=now):
        return False
    announce("cluster", cluster.name)
    transaction.on_commit(lambda: attaching.apart(f"look-{cluster.name}", look, cluster.pk, only))
    return True


def look(pk: int, only: tuple[str, ...] = ()) -> list[Check]:
    """Run the checks now; returns what stands in the row after them."""
    from deployments.drivers.kubernetes_looking import Looking
    from deployments.kube.api import Kube

    cluster = Cluster.objects.select_related("sku").get(pk=pk)
    before = [from_json(Check, item) for item in cluster.checks]
    found: list[Check] = []

    def keep(check: Check) -> None:
        if only and not any(_is(check.name, name) for name in only):
            return
        found.append(check)
        _store(cluster, checks=to_json(merged(before, found)))

    try:
        kubes.write_file(cluster)
        with closing(Kube(kubes.spec_of(cluster))) as kube:
            looking = Looking(
                kube,
                kubes.settings_of(cluster),
                kubes.wanted_of(cluster),
                cluster=cluster.name,
                mark=cluster.kube_mark,
            )
            for check in looking.outside():
                keep(check)
            within = not only or any(_is(name, each) for name in _INSIDE for each in only)
            if looking.nodes is not None and within:
                for check in looking.inside():
                    keep(check)
                network = looking.network()
                if network is not None:
                    _store(cluster, kube_network=to_json(network))
        capacity = attaching.capacity_json(cluster)
        if capacity is not None:
            _store(cluster, capacity=capacity)
        if not only:
            before = []  # what was not asked any more is no result of this look
    except SlipwayError as error:
        found.append(Check(kubernetes_checks.ANSWERS, CheckStatus.FAIL, error.message))
    finally:
        result = merged(before, found)
        _store(cluster, checks=to_json(result), checked_at=timezone.now(), checking_at=None)
    return result


def merged(before: list[Check], found: list[Check]) -> list[Check]:
    """What was found now, in the places of what was known before; what is new goes where it was asked."""
    fresh = {check.name: check for check in found}
    kept = [fresh.pop(check.name, check) for check in before]
    ranks = {name: rank for rank, name in enumerate(kubernetes_checks.NAMES)}

    def rank(check: Check) -> int:
        return next((place for name, place in ranks.items() if _is(check.name, name)), len(ranks))

    return sorted([*kept, *fresh.values()], key=rank)


def _is(name: str, wanted: str) -> bool:
    """Whether it is that check; a registry's has the registry's address in it."""
    begin, brace, _ = wanted.partition("{")
    return name.startswith(begin) if brace else name == wanted


def _store(cluster: Cluster, **fields: Any) -> None:
    Cluster.objects.filter(pk=cluster.pk).update(**fields)
    for name, value in fields.items():
        setattr(cluster, name, value)
    announce("cluster", cluster.name)


def after_failures(cluster: Cluster) -> bool:
    """Start them where a deployment failed since the last look. Whether that was so."""
    if cluster.kind != Cluster.Kind.KUBERNETES or cluster.checking_at is not None:
        return False
    failed = (
        Deployment.objects.filter(
            service__cluster=cluster,
            state=DeploymentState.FAILED,
            finished_at__gt=cluster.checked_at or cluster.created_at,
        )
        .order_by("-finished_at")
        .first()
    )
    if failed is None:
        return False
    return look_again(cluster, only=kubernetes_checks.after(failed.step))
