"""Write a service's present rows into its cluster.

The row's `generation` is the truth: what fails here is seen by the controller, which finds the
cluster's copy older than the row and applies it again.
"""

import logging

from django.db import transaction

from deployments.clusters.drivers import driver_for
from deployments.errors import SlipwayError
from deployments.registry.blobs import StorageBlobs
from deployments.services.models import Service
from deployments.services.specs import service_spec

log = logging.getLogger(__name__)


def apply_service(service_id: int) -> bool:
    """Apply all versions with the present keys. False when there is nothing to apply.

    Raises Unavailable when the cluster cannot be reached.
    """
    service = Service.objects.select_related("cluster").filter(pk=service_id).first()
    if service is None or service.deleting or service.current_id is None:
        return False
    spec = service_spec(service)
    driver = driver_for(service.cluster)
    # staged files that nothing used for a while may have been cleared away
    for version in spec.versions:
        driver.stage(version.revision, StorageBlobs())
    driver.apply(spec)
    return True


def apply_on_commit(service_id: int) -> None:
    """`apply_service` once the transaction holds; a failure is left to the controller."""

    def act() -> None:
        try:
            apply_service(service_id)
        except SlipwayError as error:
            log.warning("service %s is applied later: %s", service_id, error.message)

    transaction.on_commit(act, robust=True)
