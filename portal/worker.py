"""The worker of the job queue. Each job runs in a process that is forked off; what most jobs need is imported
before that, once, and shared: a deployment to a cluster with a registry begins about a second sooner on a
small machine. Costs a worker some 20 MB.

A worker that begins while Redis is away waits for it, as one does that works already.
"""

import importlib
import logging
import time
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as Away
from rq import Worker

log = logging.getLogger(__name__)

# With them come the clients of Docker and Kubernetes. None of these starts a thread or opens anything.
NEEDED = ("deployments.jobs", "deployments.images.builds", "deployments.drivers.kubernetes")
_WAIT_SECONDS = 60.0
_AGAIN_SECONDS = 0.5


class PreparedWorker(Worker):
    """Named in the settings; `manage.py rqworker` takes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if isinstance(connection := kwargs.get("connection"), Redis):
            wait_for(connection)
        super().__init__(*args, **kwargs)

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        for name in NEEDED:
            importlib.import_module(name)
        wait_for(self.connection)  # that took seconds
        super().bootstrap(*args, **kwargs)


def wait_for(connection: Redis, seconds: float = _WAIT_SECONDS) -> None:
    """Until it answers. Raises redis' ConnectionError where it does not in that time."""
    until, said = time.monotonic() + seconds, False
    while True:
        try:
            connection.ping()
            return
        except Away as error:
            if time.monotonic() > until:
                raise
            if not said:
                log.warning("the job queue cannot be reached yet: %s", error)
                said = True
            time.sleep(_AGAIN_SECONDS)
