"""What the controller keeps in order beside the clusters: lost jobs, and files nothing needs."""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from redis.exceptions import RedisError

from deployments.claims import known_dead
from deployments.clusters import detaching, signing
from deployments.errors import Unavailable
from deployments.images import jobs as image_jobs
from deployments.localruns import changes as local_runs
from deployments.queue import enqueue_deployment, queued_deployments
from deployments.registry.blobs import remove_unreferenced
from deployments.services import tokens
from deployments.services.models import Deployment, DeploymentState

log = logging.getLogger(__name__)

# A deployment this young is being put on the queue by whoever wrote it down.
_JUST_MADE = timedelta(seconds=3)
_LOG_WITHOUT_ROW = timedelta(days=7)


def requeue_lost(now: datetime) -> list[int]:
    """Queue the deployments again that nobody works on and no job waits for. Returns their ids.

    Raises Unavailable while the job queue cannot be asked.
    """
    unfinished = list(
        Deployment.objects.filter(state__in=[DeploymentState.QUEUED, DeploymentState.RUNNING]).only(
            "pk", "state", "created_at", "claimed_by", "claimed_until"
        )
    )
    lost = [row.pk for row in unfinished if is_lost(row, now)]
    if not lost:
        return []
    try:
        waiting = queued_deployments()
    except (RedisError, OSError) as error:
        raise Unavailable(
            f"The job queue cannot be reached ({error}); deployments {lost} wait for it."
        ) from error
    found = [pk for pk in lost if pk not in waiting]
    for pk in found:
        log.info("deployment %s has nobody who works on it; its job is queued again", pk)
        enqueue_deployment(pk)
    return found


def is_lost(row: Deployment, now: datetime) -> bool:
    """Whether nobody works on a deployment that is queued or running."""
    if row.state == DeploymentState.QUEUED:
        return row.created_at < now - _JUST_MADE
    return row.claimed_until is None or row.claimed_until < now or known_dead(row.claimed_by)


def prune(now: datetime) -> int:
    """Remove what nothing needs any more. Returns how many.

    A job looks for old images on the Engines, which may be slow to answer. Local runs whose runner is gone
    are ended. Logs whose deployment is gone, stored content nothing refers to, tokens that expired, and
    signing keys that sign no more and whose tokens are gone.
    """
    image_jobs.enqueue_tidy()
    removed = _prune_logs(now) + tokens.prune(now) + signing.retire(now) + local_runs.settle(now)
    removed += detaching.prune(now)
    return removed + remove_unreferenced(now)


def _prune_logs(now: datetime) -> int:
    oldest = (now - _LOG_WITHOUT_ROW).timestamp()
    candidates = {
        int(path.stem): path
        for path in (settings.HOME.logs / "deployments").glob("*.jsonl")
        if path.stem.isdigit() and path.stat().st_mtime < oldest
    }
    known = set(Deployment.objects.filter(pk__in=candidates).values_list("pk", flat=True))
    for pk, path in candidates.items():
        if pk not in known:
            path.unlink(missing_ok=True)
    return len(candidates.keys() - known)
