"""Give clusters that fetch files by themselves new addresses before the ones they have run out.

The pods of a Kubernetes cluster fetch a revision's files when they start, be that a week after the
deployment: the addresses in the revision's Secret must be good then. `driver.stage` writes what there is to
write, and changes nothing while the addresses are the same (`registry.addresses`). When the nodes' caches are
others than they were, pods are told at once. Reads rows; the cluster is told by its driver. What this forgets
is done once more.
"""

import logging
from collections.abc import Callable, Iterable

from django.conf import settings

from deployments.clusters.models import Cluster
from deployments.drivers.base import Driver
from deployments.errors import SlipwayError
from deployments.registry.blobs import StorageBlobs
from deployments.services.models import Service, ServiceVersion
from deployments.services.specs import location_of, revision_spec

log = logging.getLogger(__name__)

_AT_ONCE = 10  # a cycle: what is left is due in the next one
_AGAIN = 60.0  # seconds after one that failed
_CACHES_EVERY = 30.0  # seconds for which the caches are taken to be the same


def caches_of(driver: Driver) -> object:
    """Another value when the nodes' caches are others; None where it is not known. Asks the cluster."""
    from deployments.drivers import kubernetes_caches
    from deployments.drivers.kubernetes import KubernetesDriver

    if not isinstance(driver, KubernetesDriver):
        return None
    try:
        return kubernetes_caches.stamp(driver.kube, driver.settings)
    except SlipwayError:
        return None


class Restaging:
    """Of all clusters. Times are epoch seconds."""

    def __init__(self, caches: Callable[[Driver], object] = caches_of) -> None:
        self._done: dict[int, dict[tuple[int, int], float]] = {}
        self._caches = caches
        self._known: dict[int, tuple[float, object]] = {}

    def turn(
        self, cluster: Cluster, services: Iterable[Service], driver: Driver, now: float
    ) -> int:
        """Renew what is due, and return how many. `services` come with their versions."""
        if cluster.kind != Cluster.Kind.KUBERNETES:
            return 0
        every = settings.ENV.blob_url_seconds / 4
        before = {} if self._others(cluster, driver, now) else self._done.get(cluster.pk, {})
        wanted = {
            (version.pk, version.current_id): version
            for service in services
            if not service.deleting
            for version in service.versions.all()
            if version.current_id is not None
        }
        done = {key: before.get(key, 0.0) for key in wanted}
        due = [key for key in sorted(wanted, key=lambda key: done[key]) if now - done[key] >= every]
        renewed = 0
        for key in due[:_AT_ONCE]:
            good = self._renew(wanted[key], cluster, driver)
            done[key] = now if good else now - every + _AGAIN
            renewed += good
        self._done[cluster.pk] = done
        return renewed

    def _others(self, cluster: Cluster, driver: Driver, now: float) -> bool:
        """Whether the caches are others than they were known to be."""
        looked_at, known = self._known.get(cluster.pk, (float("-inf"), None))
        if now - looked_at < _CACHES_EVERY:
            return False
        found = self._caches(driver)
        self._known[cluster.pk] = (now, known if found is None else found)
        return found is not None and known is not None and found != known

    def _renew(self, version: ServiceVersion, cluster: Cluster, driver: Driver) -> bool:
        revision = version.current
        if revision is None:
            return False
        try:
            location = location_of(revision, kind=cluster.kind)
            driver.stage(revision_spec(revision, location=location), StorageBlobs())
        except SlipwayError as error:
            log.warning("%s: its files' addresses are not renewed: %s", version, error.message)
            return False
        return True
