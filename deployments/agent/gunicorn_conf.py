"""Gunicorn's configuration inside a replica, read by the environment's own Python.

Not imported by Slipway. Standard library only; it must load under every Python and gunicorn an
environment may have (gunicorn passes over settings it does not know).
"""

import contextlib
import ctypes
import logging
import os
import signal
from pathlib import Path

# A socket that takes commands has no business in a replica (gunicorn 25 and later open one).
control_socket_disable = True

_UP = Path(os.environ["TMPDIR"]) / ".slipway-up"
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


def post_worker_init(worker: object) -> None:
    _UP.touch()


def child_exit(server: object, worker: object) -> None:
    """Before anything was ever ready, a dead worker is a failed start, not one to be replaced."""
    if not _UP.exists():
        logging.shutdown()
        os._exit(3)
