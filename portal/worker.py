"""The worker of the job queue. Each job runs in a process that is forked off; what most jobs need is imported
before that, once, and shared: a deployment to a cluster with a registry begins about a second sooner on a
small machine. Costs a worker some 20 MB.
"""

import importlib
from typing import Any

from rq import Worker

# With them come the clients of Docker and Kubernetes. None of these starts a thread or opens anything.
NEEDED = ("deployments.jobs", "deployments.images.builds", "deployments.drivers.kubernetes")


class PreparedWorker(Worker):
    """Named in the settings; `manage.py rqworker` takes it."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        for name in NEEDED:
            importlib.import_module(name)
        super().bootstrap(*args, **kwargs)
