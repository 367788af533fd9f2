"""The job that builds an environment somebody asked for on its page."""

import logging

import django_rq
from redis.exceptions import RedisError

from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.environments.venvs import ensure_built
from deployments.errors import SlipwayError
from deployments.signals import announce

logger = logging.getLogger(__name__)


def enqueue_build(environment_id: int) -> None:
    """Queue the build. Where the queue cannot be reached the build fails with that as its cause."""
    try:
        django_rq.get_queue("default").enqueue(
            build_environment, environment_id, description=f"environment {environment_id}"
        )
    except (RedisError, OSError) as error:
        logger.warning("Environment %s was not queued: %s", environment_id, error)
        environment = Environment.objects.get(pk=environment_id)
        EnvironmentBuild.objects.filter(hash=environment.hash, state=BuildState.QUEUED).update(
            state=BuildState.FAILED,
            error_code="QueueUnreachable",
            error="The job queue could not be reached. Check that Redis runs, and build again.",
        )
        announce("environment", environment.hash)


def build_environment(environment_id: int) -> None:
    """Build it if it is not built. A second job for the same hash waits for the first."""
    environment = Environment.objects.filter(pk=environment_id).first()
    if environment is None:
        return
    try:
        ensure_built(environment, log=lambda line: None)
    except SlipwayError as error:
        # the cause is in the row and the log, where the page shows it
        logger.info("Environment %s was not built: %s", environment, error.message)
