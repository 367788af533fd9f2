"""From which severity of known vulnerabilities on a cluster refuses what would run there."""

from typing import TYPE_CHECKING

from django.db import transaction

from deployments.audit.record import record
from deployments.clusters.models import Cluster, Severity
from deployments.errors import InvalidInput
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


def set_refused(actor: "AbstractBaseUser | None", cluster: Cluster, severity: str) -> None:
    """`severity` "" refuses nothing. What runs already goes on; the next deployment is judged by it."""
    if severity and severity not in Severity.values:
        raise InvalidInput(f"{severity} is no severity.", field="refuse_severity")
    with transaction.atomic():
        locked = Cluster.objects.select_for_update().get(pk=cluster.pk)
        before = locked.refuse_severity
        if before == severity:
            return
        locked.refuse_severity = severity
        locked.save(update_fields=["refuse_severity"])
        record(
            actor,
            "cluster.refuse_severity",
            "cluster",
            locked.name,
            before={"refuse_severity": before},
            after={"refuse_severity": severity},
        )
        announce("cluster", locked.name)
