"""Which ways lead to a cluster's router: one socket, or the pods of a router inside its cluster.

Asks the API server where the router is made of pods. No rows are changed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings

from deployments.clusters.drivers import driver_for
from deployments.clusters.models import Cluster
from deployments.errors import SlipwayError, Unavailable
from router.doors import Door, PodDoor, UnixDoor

if TYPE_CHECKING:
    from deployments.drivers.kubernetes import KubernetesDriver


@dataclass(frozen=True, slots=True)
class Doors:
    """`leader` is whose figures are the whole router's; `pods` are all that take requests, by name. A
    router that is one process has one door, and no name."""

    leader: Door
    pods: dict[str, Door]


def doors(cluster: Cluster) -> Doors:
    """Raises Unavailable where the router, or who leads it, cannot be found."""
    if cluster.kind != Cluster.Kind.KUBERNETES:
        way = UnixDoor(Path(settings.HOME.run) / f"router-{cluster.name}.sock")
        return Doors(way, {"": way})
    from deployments.drivers import kubernetes_routers as routers

    found = pod_doors(cluster)
    try:
        driver = _driver(cluster)
        leader = routers.leader(driver.kube, driver.settings.namespace)
    except SlipwayError as error:
        raise Unavailable(f"The router's pods are not known: {error.message}") from error
    if leader not in found:
        who = f"its leader {leader} does not" if leader else "none of them leads"
        raise Unavailable(f"{len(found)} pods of the router take requests, and {who} (yet).")
    return Doors(found[leader], dict(found))


def pod_doors(cluster: Cluster) -> dict[str, PodDoor]:
    """The pods that take requests of a router inside its cluster, by name. Raises Unavailable."""
    from deployments.drivers import kubernetes_router as shapes
    from deployments.drivers import kubernetes_routers as routers

    try:
        driver = _driver(cluster)
        kube, space = driver.kube, driver.settings.namespace
        return {
            pod["metadata"]["name"]: PodDoor(kube, space, pod["metadata"]["name"])
            for pod in routers.pods(kube, space)
            if shapes.pod_ready(pod)
        }
    except SlipwayError as error:
        raise Unavailable(f"The router's pods are not known: {error.message}") from error


def _driver(cluster: Cluster) -> "KubernetesDriver":
    from deployments.drivers.kubernetes import KubernetesDriver

    driver = driver_for(cluster)
    assert isinstance(driver, KubernetesDriver)  # noqa: S101  the kind says so
    return driver
