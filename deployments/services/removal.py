"""Taking a service out of its cluster. Its row goes when nothing of it runs any more."""

import logging

from django.db import transaction

from deployments.audit.record import record
from deployments.clusters.drivers import driver_for
from deployments.errors import SlipwayError
from deployments.services import tokens
from deployments.services.models import Service
from deployments.signals import announce
from deployments.types import Observation

log = logging.getLogger(__name__)


def remove_on_commit(service_id: int) -> None:
    """Tell the cluster once the transaction holds; a failure is left to the controller."""

    def act() -> None:
        service = Service.objects.select_related("cluster").filter(pk=service_id).first()
        if service is None:
            return
        try:
            driver_for(service.cluster).remove(service.name)
        except SlipwayError as error:
            log.warning("service %s is removed later: %s", service.name, error.message)

    transaction.on_commit(act, robust=True)


def still_there(name: str, observation: Observation) -> tuple[bool, int]:
    """(whether the cluster still wants the service, how many of its replicas still run)."""
    wanted = [service for service in observation.services if service.spec.name == name]
    running = sum(len(service.replicas) for service in wanted)
    running += sum(1 for replica in observation.orphans if replica.service == name)
    return bool(wanted), running


def finish_removal(service: Service) -> None:
    """Delete the row of a service nothing runs for any more.

    Its tokens name it, so they would open the next service of that name: they are revoked.
    """
    name = service.name
    with transaction.atomic():
        tokens.forget(service)
        deleted, _ = Service.objects.filter(pk=service.pk, deleting=True).delete()
        if deleted:
            record(None, "service.deleted", "service", name)
            announce("service", name)
