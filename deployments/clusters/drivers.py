"""From a cluster's row to its driver: the one table by kind, each imported on first use."""

import threading
from collections.abc import Callable, Collection
from functools import cache
from typing import TYPE_CHECKING

from django.conf import settings

from deployments.clusters.models import Cluster
from deployments.drivers.base import Driver
from deployments.errors import PermanentError

if TYPE_CHECKING:
    from deployments.drivers.kube_file import KubeFile


def _process(name: str) -> Driver:
    from deployments.drivers.process import ProcessDriver

    return ProcessDriver(settings.HOME.cluster(name))


def _docker(name: str) -> Driver:
    from deployments.drivers.docker import DockerDriver

    return DockerDriver(settings.HOME.cluster(name))


def _kubernetes(name: str) -> Driver:
    from deployments.drivers import kube_file

    return _kube_driver(name, kube_file.read(settings.HOME.cluster(name)))


_kube_drivers: dict[str, tuple[object, Driver]] = {}
_kube_lock = threading.Lock()


def _kube_driver(name: str, file: "KubeFile") -> Driver:
    """Made anew when the portal has told other credentials or settings; the watches of the old one end."""
    from deployments.drivers.kubernetes import KubernetesDriver
    from deployments.kube.api import Kube

    with _kube_lock:
        known = _kube_drivers.get(name)
        if known is not None and known[0] == file:
            return known[1]
        made = KubernetesDriver(Kube(file.kube), file.settings, cluster=name, logins=file.logins)
        _kube_drivers[name] = (file, made)
    if known is not None and isinstance(known[1], KubernetesDriver):
        known[1].close()
    return made


def forget(name: str) -> None:
    """End what watches a cluster that is attached no more. Not an error when nothing does."""
    from deployments.drivers.kubernetes import KubernetesDriver

    with _kube_lock:
        known = _kube_drivers.pop(name, None)
    if known is not None and isinstance(known[1], KubernetesDriver):
        known[1].close()


def keep_only(names: Collection[str]) -> None:
    """`forget` all but these: another process may have detached them."""
    for name in [name for name in tuple(_kube_drivers) if name not in names]:
        forget(name)


_BY_KIND: dict[str, Callable[[str], Driver]] = {
    Cluster.Kind.PROCESS.value: _process,
    Cluster.Kind.DOCKER.value: _docker,
    Cluster.Kind.KUBERNETES.value: _kubernetes,
}
# Of these the driver goes by a file that changes: it is looked at each time.
_LIVELY = frozenset({Cluster.Kind.KUBERNETES.value})


def available_kinds() -> tuple[str, ...]:
    """The kinds a cluster can be attached as."""
    return tuple(_BY_KIND)


def driver_for(cluster: Cluster) -> Driver:
    """The cluster's driver; one object a process, kind and name. Drivers keep nothing themselves.

    Raises Unavailable where how a cluster is reached is not written down.
    """
    if cluster.kind in _LIVELY:
        return _BY_KIND[cluster.kind](cluster.name)
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
