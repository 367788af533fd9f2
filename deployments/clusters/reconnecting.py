"""Changing how an attached Kubernetes cluster is reached and used: new credentials, another router image.

New credentials must lead to the namespace that was attached: its marker says so. What changed is written for
the driver at once, and the checks that follow bring the router to it.
"""

from contextlib import closing
from typing import TYPE_CHECKING

from django.db import transaction

from deployments.audit.record import record
from deployments.clusters import kubes, rechecks, router_addresses
from deployments.clusters.models import Cluster
from deployments.errors import InvalidInput, SlipwayError
from deployments.signals import announce
from deployments.types import KubeSpec

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

_SHOWN = (
    "kube_server",
    "kube_service_type",
    "kube_node_port",
    "kube_pull_secret",
    "kube_router_image",
    "kube_blob_url",
    "router_url",
)
_MOVES = ("kube_service_type", "kube_node_port")


def reconnect(
    actor: "AbstractBaseUser | None",
    cluster: Cluster,
    use: kubes.Use,
    *,
    router_url: str,
    spec: KubeSpec | None = None,
) -> None:
    """`spec` None keeps the credentials. Raises InvalidInput with its field."""
    given = kubes.use(use)
    router_addresses.check(given.service_type, router_url)
    if given.namespace != cluster.kube_namespace:
        raise InvalidInput(
            "A cluster stays in its namespace; attach another cluster.", field=kubes.NAMESPACE
        )
    if spec is not None:
        _same(cluster, spec)
    with transaction.atomic():
        locked = Cluster.objects.select_for_update().select_related("sku").get(pk=cluster.pk)
        before = {name: getattr(locked, name) for name in _SHOWN}
        mark = locked.kube_mark
        kubes.give(locked, spec or kubes.spec_of(locked), given)
        locked.kube_mark = (
            mark  # what stands in the cluster, also when its address is another one now
        )
        locked.router_url = router_url.rstrip("/")
        if any(before[name] != getattr(locked, name) for name in _MOVES):
            # another Service's; they are learnt anew
            locked.kube_router_address, locked.kube_tls_port = "", None
        learnt = ["kube_router_address", "kube_tls_port"]
        locked.save(update_fields=[*_SHOWN, "kube_spec", *learnt])
        after = {name: getattr(locked, name) for name in _SHOWN}
        changed = {name for name in _SHOWN if before[name] != after[name]}
        record(
            actor,
            "cluster.reconnect",
            "cluster",
            cluster.name,
            before={name: before[name] for name in changed},
            after={
                **{name: after[name] for name in changed},
                **({"credentials": "new"} if spec else {}),
            },
        )
        announce("cluster", cluster.name)
    kubes.write_file(locked)
    rechecks.look_again(locked)


def _same(cluster: Cluster, spec: KubeSpec) -> None:
    """Raises InvalidInput unless these credentials lead to the namespace that is attached."""
    from deployments.drivers import kubernetes_belongings as ours
    from deployments.kube.api import Kube

    try:
        with closing(Kube(spec, seconds=5.0)) as kube:
            found = ours.marker(kube, cluster.kube_namespace)
    except SlipwayError as error:
        raise InvalidInput(error.message, field="kubeconfig") from error
    if found is None or found.get("mark") != cluster.kube_mark:
        raise InvalidInput(
            f"It leads to another cluster: the namespace {cluster.kube_namespace} there does not say that it "
            f"is {cluster.name}.",
            field="kubeconfig",
        )
