"""Learning where the routers of Kubernetes clusters are reached, where the cluster gives the address itself.

A load balancer's address comes minutes after its Service was made, a node's changes with the nodes. So it is
asked for again and again: often while there is none, then seldom. What a person gave stands before it
(`Cluster.router_url`). A cluster that does not answer keeps what is known; one that says that there is no
address has none.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deployments.clusters.drivers import driver_for
from deployments.clusters.models import Cluster
from deployments.drivers import kubernetes_router as shapes
from deployments.drivers import kubernetes_router_address as addresses
from deployments.errors import InvalidInput, NotFound, SlipwayError
from deployments.signals import announce

if TYPE_CHECKING:
    from deployments.kube.api import Kube

log = logging.getLogger(__name__)

_PENDING_EVERY, _KNOWN_EVERY = 3.0, 20.0  # seconds


def check(service_type: str, router_url: str) -> None:
    """Raises InvalidInput where nobody would ever know where the router is reached."""
    if not router_url and not addresses.pending(service_type):
        raise InvalidInput("Say where clients reach its router.", field="router_url")


class AddressLearner:
    """Keeps between rounds only when each cluster is asked next. One thread uses it."""

    def __init__(
        self,
        *,
        kube_of: Callable[[Cluster], "Kube"] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube_of = kube_of or _kube_of
        self._clock = clock
        self._due: dict[int, float] = {}

    def round(self) -> None:
        """Ask each cluster whose turn it is."""
        rows = list(
            Cluster.objects.filter(kind=Cluster.Kind.KUBERNETES, state=Cluster.State.ATTACHED)
        )
        self._due = {row.pk: self._due.get(row.pk, 0.0) for row in rows}
        for cluster in rows:
            if self._clock() < self._due[cluster.pk]:
                continue
            found = cluster.kube_router_address
            try:
                found = learn(cluster, self._kube_of(cluster))
            except SlipwayError as error:
                log.info("the address of the router of %s: %s", cluster.name, error.message)
            waits = not found and addresses.pending(cluster.kube_service_type)
            wait = _PENDING_EVERY if waits else _KNOWN_EVERY
            self._due[cluster.pk] = self._clock() + wait


def learn(cluster: Cluster, kube: "Kube") -> str:
    """The address that the cluster gives its router now. Kept with the row, as is its port for TLS. Raises
    SlipwayError."""
    space = cluster.kube_namespace
    known = cluster.kube_router_address
    found, tls_port = "", None
    if addresses.pending(cluster.kube_service_type):
        try:
            service = kube.get(f"/api/v1/namespaces/{space}/services/{shapes.NAME}")
        except NotFound:
            service = {}
        nodes: list[Any] = []
        if cluster.kube_service_type == addresses.NODE_PORT:
            nodes = kube.items("/api/v1/nodes", newest=False).items
        found, tls_port = addresses.found(service, nodes, known), addresses.tls_port(service)
    if (found, tls_port) == (known, cluster.kube_tls_port):
        return found
    # a type that was changed meanwhile makes what was found another's
    own = Cluster.objects.filter(pk=cluster.pk, kube_service_type=cluster.kube_service_type)
    if own.update(kube_router_address=found, kube_tls_port=tls_port):
        cluster.kube_router_address, cluster.kube_tls_port = found, tls_port
        log.info("the router of %s is reached at %s", cluster.name, found or "no address (yet)")
        announce("cluster", cluster.name)
        for name in cluster.services.values_list("name", flat=True):
            announce("service", name)
    return found


def _kube_of(cluster: Cluster) -> "Kube":
    from deployments.drivers.kubernetes import KubernetesDriver

    driver = driver_for(cluster)
    assert isinstance(driver, KubernetesDriver)  # noqa: S101  the kind says so
    return driver.kube
