"""Putting deployments, and clusters that are detached, on the job queue.

A job carries the row's id and nothing else; the row is the truth. A job too many is harmless
(it finds the row claimed or finished), a job lost is found by the controller.
"""

import logging
import secrets

import django_rq
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

_FUNCTIONS = {
    "deployment": "deployments.jobs.run_deployment",
    "detachment": "deployments.clusters.detaching.run",
}


def enqueue_deployment(deployment_id: int) -> bool:
    """Queue the deployment's job. False when the queue cannot be reached; the controller tries again."""
    return _enqueue("deployment", deployment_id)


def enqueue_detachment(detachment_id: int) -> bool:
    """The same of a cluster that is being detached."""
    return _enqueue("detachment", detachment_id)


def queued_deployments() -> set[int]:
    """Ids of the deployments that have a job waiting. Raises RedisError or OSError."""
    return _queued("deployment")


def queued_detachments() -> set[int]:
    """The same of clusters that are being detached."""
    return _queued("detachment")


def _enqueue(kind: str, pk: int) -> bool:
    try:
        django_rq.get_queue("default").enqueue(
            _FUNCTIONS[kind],
            pk,
            job_id=f"{kind}-{pk}-{secrets.token_hex(4)}",
            result_ttl=3600,
            failure_ttl=7 * 86400,
            description=f"{kind} {pk}",
        )
    except (RedisError, OSError) as error:
        log.warning("%s %s waits: the job queue cannot be reached: %s", kind, pk, error)
        return False
    return True


def _queued(kind: str) -> set[int]:
    found = set()
    for job_id in django_rq.get_queue("default").get_job_ids():
        named, _, rest = str(job_id).partition("-")
        number = rest.partition("-")[0]
        if named == kind and number.isdigit():
            found.add(int(number))
    return found
