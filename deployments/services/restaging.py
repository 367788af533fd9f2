"""Give clusters that fetch files by themselves new addresses before the ones they have run out.

The pods of a Kubernetes cluster fetch a revision's files when they start, be that a week after the
deployment: the addresses in the revision's Secret must be good then. `driver.stage` writes what there is to
write, and changes nothing while the addresses are the same (`registry.addresses`). Reads rows; the cluster is
told by its driver. What this forgets is done once more.
"""

import logging
from collections.abc import Iterable

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


class Restaging:
    """Of all clusters. Times are epoch seconds."""

    def __init__(self) -> None:
        self._done: dict[int, dict[tuple[int, int], float]] = {}

    def turn(
        self, cluster: Cluster, services: Iterable[Service], driver: Driver, now: float
    ) -> int:
        """Renew what is due, and return how many. `services` come with their versions."""
        if cluster.kind != Cluster.Kind.KUBERNETES:
            return 0
        every = settings.ENV.blob_url_seconds / 4
        before = self._done.get(cluster.pk, {})
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
