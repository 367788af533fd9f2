"""From a cluster's row to its driver: the one table by kind, each imported on first use."""

from collections.abc import Callable
from functools import cache

from django.conf import settings

from deployments.clusters.models import Cluster
from deployments.drivers.base import Driver
from deployments.errors import PermanentError


def _process(name: str) -> Driver:
    from deployments.drivers.process import ProcessDriver

    return ProcessDriver(settings.HOME.cluster(name))


def _docker(name: str) -> Driver:
    from deployments.drivers.docker import DockerDriver

    return DockerDriver(settings.HOME.cluster(name))


_BY_KIND: dict[str, Callable[[str], Driver]] = {
    Cluster.Kind.PROCESS.value: _process,
    Cluster.Kind.DOCKER.value: _docker,
}


def available_kinds() -> tuple[str, ...]:
    """The kinds a cluster can be attached as."""
    return tuple(_BY_KIND)


def driver_for(cluster: Cluster) -> Driver:
    """The cluster's driver; one object a process, kind and name. Drivers keep nothing themselves."""
    return _driver(cluster.kind, cluster.name)


@cache
def _driver(kind: str, name: str) -> Driver:
    make = _BY_KIND.get(kind)
    if make is None:
        raise PermanentError(
            f"Clusters of the kind {kind} cannot be used by this version of Slipway; "
            f"it knows {', '.join(_BY_KIND)}."
        )
    return make(name)
