"""Gunicorn's configuration inside a replica, read by the environment's own Python.

A replica of several workers is ready when all of them are: the router sends as many requests at a time
as there are workers, and none may wait inside the replica. Until then `GET /` is answered 503.

Not imported by Slipway. Standard library only; it must load under every Python and gunicorn an
environment may have (gunicorn passes over settings it does not know).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A socket that takes commands has no business in a replica (gunicorn 25 and later open one).
control_socket_disable = True

_WORKERS = int(os.environ["WORKER_COUNT"])
_UP = Path(os.environ["TMPDIR"]) / ".slipway-up"  # holds one file for each worker that loaded
_ALL_UP = Path(os.environ["TMPDIR"]) / ".slipway-all-up"
_NOISE = (
    # The server reads AZUREML_MODEL_DIR as if several models were there, and says so with a traceback.
    "Error while fetching model IDs",
    # It warns of the variables it documents itself.
    "Found extra keys in the config file",
)


class _WithoutNoise(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_NOISE)


for _name in ("azmlinfsrv", "azmlinfsrv.trace"):
    logging.getLogger(_name).addFilter(_WithoutNoise())


def post_fork(server: object, worker: object) -> None:
    """Die with the master: a worker that outlives it would hold the port."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def post_worker_init(worker: Any) -> None:
    """The entry script is loaded in this worker."""
    _UP.mkdir(exist_ok=True)
    (_UP / str(os.getpid())).touch()
    if len(list(_UP.iterdir())) >= _WORKERS:
        _ALL_UP.touch()
    else:
        worker.wsgi = _unready_before_all_are(worker.wsgi)


def _unready_before_all_are(application: Callable[..., Any]) -> Callable[..., Any]:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ.get("PATH_INFO") == "/" and not _ALL_UP.exists():
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"not all workers are ready"]
        return application(environ, start_response)

    return answer


def child_exit(server: object, worker: object) -> None:
    """Before all were ready, a dead worker is a failed start, not one to be replaced."""
    if not _ALL_UP.exists():
        logging.shutdown()
        os._exit(3)
