"""How a deployment ends. The one place that writes a final state, for the job and the controller.

Each ending is a compare-and-set on the state: whoever comes second changes nothing. What was serving
before a failed update is applied again; a failed first deployment is taken out of the cluster, and
its cause and evidence stay.
"""

from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from deployments.pipeline import timeline
from deployments.pipeline.log import DeploymentLog
from deployments.services.apply import apply_on_commit
from deployments.services.models import Deployment, DeploymentState, Service
from deployments.services.removal import remove_on_commit
from deployments.signals import announce
from deployments.types import Cause, ServiceState

_LONGEST_EVIDENCE = 64 * 1024


def succeed(deployment: Deployment, log: DeploymentLog, reason: str) -> bool:
    """ROLLING -> SUCCEEDED. False when it ended otherwise meanwhile."""
    now = timezone.now()
    with transaction.atomic():
        if not Deployment.objects.filter(pk=deployment.pk, state=DeploymentState.ROLLING).update(
            state=DeploymentState.SUCCEEDED, step="healthy", finished_at=now
        ):
            return False
        timeline.begin(deployment, "healthy", now)
        timeline.end(deployment, "healthy", reason, now=now)
        Service.objects.filter(pk=deployment.service_id, deleting=False).update(
            state=ServiceState.HEALTHY.value, state_cause="", updated_at=now
        )
        _tell(deployment)
        # before the commit: whoever sees a final state has all of the log
        log.write("Succeeded")
        log.write('AKS service creation operation finished, operation "Succeeded"')
    log.flush()
    return True


def fail(
    deployment: Deployment,
    log: DeploymentLog,
    cause: Cause,
    *,
    among: Iterable[str],
    state: ServiceState = ServiceState.FAILED,
) -> bool:
    """One of the states `among` -> FAILED. False when it is in none of them any more.

    `state` is the service's when nothing was serving before (Failed or Unschedulable).
    """
    now = timezone.now()
    with transaction.atomic():
        if not Deployment.objects.filter(pk=deployment.pk, state__in=list(among)).update(
            state=DeploymentState.FAILED,
            cause_code=cause.code[:60],
            cause=cause.message,
            evidence=cause.evidence[-_LONGEST_EVIDENCE:],
            finished_at=now,
        ):
            return False
        timeline.fail_open(deployment, cause.message, now)
        back = _go_back(deployment, cause, state)
        _tell(deployment)
        # before the commit: whoever sees a final state has all of the log
        log.write(f"{cause.code}: {cause.message}")
        if cause.evidence:
            log.write(cause.evidence[-_LONGEST_EVIDENCE:])
        if back:
            log.write(back)
        log.write('AKS service creation operation finished, operation "Failed"')
    log.flush()
    return True


def _go_back(deployment: Deployment, cause: Cause, state: ServiceState) -> str:
    """Make the service want what it wanted before; what was done, in words."""
    service = Service.objects.select_for_update().get(pk=deployment.service_id)
    if service.deleting:
        return ""
    fields = ["updated_at"]
    said = ""
    if service.current_id == deployment.revision_id:
        service.current = deployment.previous
        service.generation += 1
        fields += ["current", "generation"]
        if deployment.previous is None:
            remove_on_commit(service.pk)
        else:
            apply_on_commit(service.pk)
    if service.current_id is None:
        service.state, service.state_cause = state.value, f"{cause.code}: {cause.message}"
        fields += ["state", "state_cause"]
    elif service.current is not None:
        said = f"Revision {service.current.number} keeps serving."
    service.save(update_fields=fields)
    return said


def _tell(deployment: Deployment) -> None:
    announce("deployment", deployment.pk)
    announce("service", deployment.service.name)
