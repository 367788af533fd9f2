"""What a Kubernetes cluster's page shows beside what every cluster's does: its network, the hosts and ports
that must be reachable, and whether its checks run now."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deployments.clusters import kubes
from deployments.clusters.models import Cluster
from deployments.codec import from_json
from deployments.drivers import kubernetes_network, kubernetes_router
from deployments.drivers.kubernetes_network import Network, Way
from deployments.images.models import Registry
from deployments.types import Check
from portal.cluster_view import checks_of

_CUT_OFF = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class WayView:
    """One line of the table; `state` is the latest check of it, "" where none tries it."""

    way: Way
    state: str


def network_of(cluster: Cluster) -> Network | None:
    """What was found; None is unknown, also when another version of the product wrote it."""
    if not cluster.kube_network:
        return None
    try:
        return from_json(Network, cluster.kube_network)
    except (ValueError, TypeError, KeyError):
        return None


def _ways(cluster: Cluster, network: Network | None, checks: list[Check]) -> list[WayView]:
    states = {check.name: check.status.value for check in checks}
    registries = Registry.objects.exclude(role=Registry.Role.BASE).values_list("address", flat=True)
    found = kubernetes_network.ways(
        network,
        kubes.settings_of(cluster),
        cluster.kube_server,
        list(registries),
        router_ports=(80, 443),
        peer_port=kubernetes_router.PEER_PORT,
    )
    return [WayView(way, states.get(way.check, "")) for way in found]


def kubernetes_context(cluster: Cluster, now: datetime) -> dict[str, Any]:
    """Nothing for other kinds."""
    if cluster.kind != Cluster.Kind.KUBERNETES:
        return {}
    network = network_of(cluster)
    checking = cluster.checking_at is not None and cluster.checking_at > now - _CUT_OFF
    return {
        "kubernetes": True,
        "network": network,
        "ways": _ways(cluster, network, checks_of(cluster)),
        "checking": checking,
    }
