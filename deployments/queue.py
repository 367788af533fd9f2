"""Putting deployments on the job queue.

A job carries the deployment's id and nothing else; the row is the truth. A job too many is harmless
(it finds the row claimed or finished), a job lost is found by the controller.
"""

import logging
import secrets

import django_rq
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

_FUNCTION = "deployments.jobs.run_deployment"


def enqueue_deployment(deployment_id: int) -> bool:
    """Queue the deployment's job. False when the queue cannot be reached; the controller tries again."""
    try:
        django_rq.get_queue("default").enqueue(
            _FUNCTION,
            deployment_id,
            job_id=f"{_prefix(deployment_id)}{secrets.token_hex(4)}",
            result_ttl=3600,
            failure_ttl=7 * 86400,
            description=f"deployment {deployment_id}",
        )
    except (RedisError, OSError) as error:
        log.warning(
            "deployment %s waits: the job queue cannot be reached: %s", deployment_id, error
        )
        return False
    return True


def queued_deployments() -> set[int]:
    """Ids of the deployments that have a job waiting. Raises RedisError or OSError."""
    found = set()
    for job_id in django_rq.get_queue("default").get_job_ids():
        kind, _, rest = str(job_id).partition("-")
        number = rest.partition("-")[0]
        if kind == "deployment" and number.isdigit():
            found.add(int(number))
    return found


def _prefix(deployment_id: int) -> str:
    return f"deployment-{deployment_id}-"
