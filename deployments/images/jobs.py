"""Jobs of images: building one that somebody asked for on its page, and keeping Engines tidy."""

import logging

import django_rq
from redis.exceptions import RedisError

from deployments.environments.models import BuildState, Environment
from deployments.errors import SlipwayError
from deployments.images.models import ImageBuild
from deployments.signals import announce

logger = logging.getLogger(__name__)

_TIDY_JOB = "images-tidy"


def enqueue_build(environment_id: int) -> None:
    """Queue the build. Where the queue cannot be reached the build fails with that as its cause."""
    try:
        django_rq.get_queue("default").enqueue(
            build_image, environment_id, description=f"image of environment {environment_id}"
        )
    except (RedisError, OSError) as error:
        logger.warning("The image of environment %s was not queued: %s", environment_id, error)
        environment = Environment.objects.get(pk=environment_id)
        ImageBuild.objects.filter(hash=environment.hash, state=BuildState.QUEUED).update(
            state=BuildState.FAILED,
            error_code="QueueUnreachable",
            error="The job queue could not be reached. Check that Redis runs, and build again.",
        )
        announce("environment", environment.hash)


def build_image(environment_id: int) -> None:
    """Build it if it is not built. A second job for the same hash waits for the first."""
    from deployments.images.builds import ensure_image
    from deployments.images.engines import default_place

    environment = Environment.objects.filter(pk=environment_id).first()
    if environment is None:
        return
    try:
        ensure_image(environment, default_place(), log=lambda line: None)
    except SlipwayError as error:
        # the cause is in the row and the log, where the page shows it
        logger.info("The image of %s was not built: %s", environment, error.message)


def enqueue_tidy() -> None:
    """Queue a look at the Engines, where images were ever built. One that waits already is enough."""
    if not ImageBuild.objects.exists():
        return
    try:
        queue = django_rq.get_queue("default")
        if _TIDY_JOB not in queue.get_job_ids():
            queue.enqueue(tidy_engines, job_id=_TIDY_JOB, result_ttl=60, description="tidy images")
    except (RedisError, OSError) as error:
        logger.warning("Images are not tidied: the job queue cannot be reached: %s", error)


def tidy_engines() -> int:
    """Remove old images and what killed builders left, Engine by Engine."""
    from deployments.images.retention import tidy

    return tidy()
