"""How a deployment ends. The one place that writes a final state, for the job and the controller.

Each ending is a compare-and-set on the state: whoever comes second changes nothing. What was serving
in the version before a failed update is applied again; the failed first deployment of a version is
taken out of the cluster, and its cause and evidence stay. Other versions are never touched.
"""

from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from deployments.pipeline import timeline
from deployments.pipeline.log import DeploymentLog
from deployments.rollout import Standing
from deployments.services import versions
from deployments.services.apply import apply_on_commit
from deployments.services.models import Deployment, DeploymentState, Service, ServiceVersion
from deployments.services.removal import remove_on_commit
from deployments.signals import announce
from deployments.types import Cause, ServiceState

_LONGEST_EVIDENCE = 64 * 1024
_WELL = Standing(ServiceState.HEALTHY)


def succeed(
    deployment: Deployment, log: DeploymentLog, reason: str, service: Standing = _WELL
) -> bool:
    """ROLLING -> SUCCEEDED. False when it ended otherwise meanwhile.

    `service` is how the service stands with all of its versions.
    """
    now = timezone.now()
    with transaction.atomic():
        if not Deployment.objects.filter(pk=deployment.pk, state=DeploymentState.ROLLING).update(
            state=DeploymentState.SUCCEEDED, step="healthy", finished_at=now
        ):
            return False
        timeline.begin(deployment, "healthy", now)
        timeline.end(deployment, "healthy", reason, now=now)
        Service.objects.filter(pk=deployment.service_id, deleting=False).update(
            state=service.state.value, state_cause=service.reason, updated_at=now
        )
        versions.prove(deployment)
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
    """Make the version want what it wanted before; what was done, in words. No other is touched."""
    service = Service.objects.select_for_update().get(pk=deployment.service_id)
    version = versions.find(service, deployment.version_name)
    if service.deleting or version is None:
        return ""
    if version.current_id == deployment.revision_id:
        versions.set_current(service, version, deployment.previous)
        if service.current_id is None:
            remove_on_commit(service.pk)
        else:
            apply_on_commit(service.pk)
    if version.current is not None:
        return f"Revision {version.current.number} keeps serving."
    why = {"state": state.value, "state_cause": f"{cause.code}: {cause.message}"}
    ServiceVersion.objects.filter(pk=version.pk).update(
        **why, traffic_percent=0, desired_replicas=None
    )
    if service.current_id is None:
        Service.objects.filter(pk=service.pk).update(**why, updated_at=timezone.now())
        return ""
    return f"Version {version.name} is taken out; the other versions go on."


def _tell(deployment: Deployment) -> None:
    announce("deployment", deployment.pk)
    announce("service", deployment.service.name)
