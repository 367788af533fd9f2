"""Putting what-ifs on the job queue. A job carries the row's id and nothing else; the row is the truth.

A job too many is harmless (it finds the row claimed or over), a job lost is found by `what_if.revive`.
"""

import logging
import secrets

import django_rq
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

_FUNCTION = "router.telemetry.what_if.run"
_KIND = "whatif"
_TIMEOUT_SECONDS = 3_600


def enqueue(pk: int) -> bool:
    """Queue its job. False when the queue cannot be reached."""
    try:
        django_rq.get_queue("default").enqueue(
            _FUNCTION,
            pk,
            job_id=f"{_KIND}-{pk}-{secrets.token_hex(4)}",
            job_timeout=_TIMEOUT_SECONDS,
            result_ttl=3600,
            failure_ttl=7 * 86400,
            description=f"what-if {pk}",
        )
    except (RedisError, OSError) as error:
        log.warning("what-if %s waits: the job queue cannot be reached: %s", pk, error)
        return False
    return True


def waiting() -> set[int] | None:
    """Ids of the rows that have a job waiting; None when the queue cannot be reached."""
    try:
        ids = django_rq.get_queue("default").get_job_ids()
    except (RedisError, OSError) as error:
        log.warning("the job queue cannot be reached: %s", error)
        return None
    parts = (str(job_id).split("-") for job_id in ids)
    return {int(part[1]) for part in parts if part[0] == _KIND and part[1].isdigit()}
