"""The steps of a deployment as rows: when each began and ended, and how long it usually takes."""

from collections.abc import Iterable
from datetime import datetime
from statistics import median

from django.db.models import F, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from deployments.services.models import Deployment, DeploymentStep
from deployments.signals import announce

STEPS = (
    "queued",
    "zipping",
    "hashing",
    "image",
    "applying",
    "scheduling",
    "pulling",
    "starting",
    "loading",
    "healthy",
)
_LEARNT_FROM = 20


def begin(deployment: Deployment, name: str, now: datetime | None = None) -> DeploymentStep:
    """Open a step; one that was left open by a killed job goes on with its first start."""
    at = now or timezone.now()
    step, made = DeploymentStep.objects.get_or_create(
        deployment=deployment, name=name, defaults={"started_at": at}
    )
    if not made and step.state != DeploymentStep.State.RUNNING:
        step.state, step.ended_at, step.started_at = DeploymentStep.State.RUNNING, None, at
        step.save(update_fields=["state", "ended_at", "started_at"])
    Deployment.objects.filter(pk=deployment.pk).exclude(step=name).update(step=name)
    announce("deployment", deployment.pk)
    announce("service", deployment.service.name)
    return step


def end(
    deployment: Deployment,
    name: str,
    detail: str = "",
    state: str = DeploymentStep.State.DONE,
    now: datetime | None = None,
) -> None:
    """Close a step that is open."""
    changed = DeploymentStep.objects.filter(
        deployment=deployment, name=name, state=DeploymentStep.State.RUNNING
    ).update(state=state, detail=detail, ended_at=now or timezone.now())
    if changed:
        announce("deployment", deployment.pk)


def fail_open(deployment: Deployment, detail: str, now: datetime | None = None) -> None:
    """Mark whatever step is open as the one that failed."""
    DeploymentStep.objects.filter(deployment=deployment, state=DeploymentStep.State.RUNNING).update(
        state=DeploymentStep.State.FAILED, detail=detail, ended_at=now or timezone.now()
    )


def done(deployment: Deployment) -> set[str]:
    """Names of the steps that need not be done again."""
    finished = (DeploymentStep.State.DONE, DeploymentStep.State.SKIPPED)
    return set(
        DeploymentStep.objects.filter(deployment=deployment, state__in=finished).values_list(
            "name", flat=True
        )
    )


def usual_durations(
    steps: Iterable[str] = STEPS, excluding: Deployment | None = None
) -> dict[str, float]:
    """Seconds each step usually takes: the median of its last 20 successes. One query.

    `excluding` is the deployment that is compared with the others. A step without a success is not
    in the answer: unknown is not zero.
    """
    rows = (
        DeploymentStep.objects.filter(
            name__in=list(steps), state=DeploymentStep.State.DONE, ended_at__isnull=False
        )
        .exclude(deployment_id=excluding.pk if excluding else 0)
        .annotate(
            recency=Window(RowNumber(), partition_by=F("name"), order_by=F("ended_at").desc())
        )
        .filter(recency__lte=_LEARNT_FROM)
        .values_list("name", "started_at", "ended_at")
    )
    taken: dict[str, list[float]] = {}
    for name, started_at, ended_at in rows:
        if ended_at is not None:
            taken.setdefault(name, []).append((ended_at - started_at).total_seconds())
    return {name: median(seconds) for name, seconds in taken.items()}


def usual_seconds(step: str) -> float | None:
    """What one step usually takes; None before its first success."""
    return usual_durations([step]).get(step)
