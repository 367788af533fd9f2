"""Gunicorn's configuration inside a replica, read by the environment's own Python.

Each worker says in a cell of shared memory whether it is loading (0), idle (1) or in a request (since
when, monotonic microseconds); the shim's gate goes by that (`gate.py`). The cell after the last is 1 once
all workers were loaded: the router sends as many requests at a time as there are workers, and none may
wait inside the replica.

Not imported by Slipway. Standard library only; it must load under every Python and gunicorn an
environment may have (gunicorn passes over settings it does not know).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import mmap
import os
import signal
import time
from collections.abc import Callable
from typing import Any

# A socket that takes commands has no business in a replica (gunicorn 25 and later open one).
control_socket_disable = True

LOADING, IDLE = 0, 1
_HANDSHAKE = 5.0  # seconds; who takes longer is not the router
_WORKERS = int(os.environ["WORKER_COUNT"])
_ALL_UP = _WORKERS  # the cell that says so
_NOISE = (
    # The server reads AZUREML_MODEL_DIR as if several models were there, and says so with a traceback.
    "Error while fetching model IDs",
    # It warns of the variables it documents itself.
    "Found extra keys in the config file",
)


def _shared() -> memoryview:
    """The cells, from the shim. The descriptor stays for a reload of this file, and goes to no program
    that a script starts."""
    descriptor = int(os.environ.get("SLIPWAY_CELLS", "-1"))
    if descriptor >= 0:
        os.set_inheritable(descriptor, False)
    return memoryview(mmap.mmap(descriptor, 8 * (_WORKERS + 1))).cast("Q")


_cells = _shared()
_taken: set[int] = set()


class _WithoutNoise(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_NOISE)


for _name in ("azmlinfsrv", "azmlinfsrv.trace"):
    logging.getLogger(_name).addFilter(_WithoutNoise())


def when_ready(server: Any) -> None:
    """The listening socket is the shim's: gunicorn, as under systemd, must not remove it."""
    server.systemd = True


def ssl_context(config: object, default: Callable[[], Any]) -> Any:
    """Where requests come over TLS, anybody on the network may connect: whoever does not finish a handshake
    must not hold a worker. (gunicorn 20 passes over this.)"""
    import ssl  # nobody else needs it, and an odd Python has none

    class Prompt(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            before = self.gettimeout()
            self.settimeout(_HANDSHAKE)
            try:
                super().do_handshake(block)
            except TimeoutError as error:
                raise ConnectionResetError(errno.ECONNRESET, "no handshake in time") from error
            self.settimeout(before)

    context = default()
    context.sslsocket_class = Prompt
    return context


def pre_fork(server: object, worker: Any) -> None:
    """A free cell for the worker that is about to be."""
    worker.slipway_cell = next(number for number in range(_WORKERS + 1) if number not in _taken)
    _taken.add(worker.slipway_cell)


def post_fork(server: object, worker: object) -> None:
    """Die with the master: a worker that outlives it would hold the socket."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def post_worker_init(worker: Any) -> None:
    """The entry script is loaded in this worker."""
    worker.wsgi = _with_signs_of_life(worker, _with_status_told_apart(worker.wsgi))
    _say(worker, IDLE)
    if all(_cells[:_WORKERS]):
        _cells[_ALL_UP] = 1


def pre_request(worker: Any, request: object) -> None:
    _say(worker, time.monotonic_ns() // 1000)


def post_request(worker: Any, request: object, environ: object, response: object) -> None:
    _say(worker, IDLE)


def child_exit(server: object, worker: Any) -> None:
    """Before all were ready, a dead worker is a failed start, not one to be replaced."""
    _say(worker, LOADING)
    _taken.discard(worker.slipway_cell)
    if not _cells[_ALL_UP]:
        logging.shutdown()
        os._exit(3)


def _say(worker: Any, what: int) -> None:
    if worker.slipway_cell < _WORKERS:
        _cells[worker.slipway_cell] = what


def _with_status_told_apart(application: Callable[..., Any]) -> Callable[..., Any]:
    """425 is the gate's word for "take it to another replica"; a script's own goes as 449 to the router,
    which makes it 425 again: what a script has begun is never sent twice."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        environ.pop("HTTP_X_SLIPWAY_RETRY", None)

        def begin(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            if status.startswith("425"):
                status, headers = "449 Too Early", [*headers, ("x-slipway-status", "425")]
            return start_response(status, headers, *rest)

        return application(environ, begin)

    return answer


def _with_signs_of_life(worker: Any, application: Callable[..., Any]) -> Callable[..., Any]:
    """A worker that streams an answer lives for as long as pieces come: neither the gate nor gunicorn's own
    timeout may take it for one that hangs."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        pieces = application(environ, start_response)
        if isinstance(pieces, (list, tuple, environ["wsgi.file_wrapper"])):
            return pieces
        return _Streamed(worker, pieces)

    return answer


class _Streamed:
    """An answer's pieces; with each of them the worker says that it lives, at most once a second."""

    def __init__(self, worker: Any, pieces: Any) -> None:
        self._worker, self._pieces, self._iterator = worker, pieces, iter(pieces)
        self._said_at = time.monotonic()

    def __iter__(self) -> _Streamed:
        return self

    def __next__(self) -> Any:
        piece = next(self._iterator)
        now = time.monotonic()
        if now - self._said_at >= 1.0:
            self._said_at = now
            _say(self._worker, int(now * 1e6))
            self._worker.notify()
        return piece

    def close(self) -> None:
        if hasattr(self._pieces, "close"):
            self._pieces.close()
