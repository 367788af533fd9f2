"""Gunicorn's configuration inside a local run, read by the environment's own Python.

SIGHUP loads the entry script anew, in a worker that is forked with the libraries already imported: what the
first worker had imported, the master imports too while nobody waits. A script that does not load is no end:
its traceback is the answer until the next edit. What a worker loaded is said in `loaded.json`.

Not imported by Slipway. Standard library only.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import mmap
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

control_socket_disable = True

_FOLDER = Path(os.environ["SLIPWAY_REPLICA_FOLDER"])
_LATE = 2.0  # seconds an old worker has for the request it is in
_LOOK = 0.1
_PATIENCE = 600.0
_SILENCE = 60.0  # seconds without a sign of life
_imports = threading.Lock()  # no fork in the midst of an import
_forking = threading.Event()  # somebody waits for a reload: it comes before the next import


def on_starting(server: Any) -> None:
    """No fork while a library is half imported: the child would wait for it for ever."""
    os.register_at_fork(before=_begin_fork, after_in_parent=_end_fork, after_in_child=_end_fork)
    _import("azureml_inference_server_http.server.create_app")
    threading.Thread(target=_warm, name="warm", daemon=True).start()
    if "SLIPWAY_SIGN_OF_LIFE" in os.environ:
        threading.Thread(target=_watch, name="watch", daemon=True).start()


def _begin_fork() -> None:
    _forking.set()
    _imports.acquire()


def _end_fork() -> None:
    _imports.release()
    _forking.clear()


def when_ready(server: Any) -> None:
    """The listening socket is the shim's: gunicorn, as under systemd, must not remove it."""
    server.systemd = "SLIPWAY_CELLS" in os.environ


def on_reload(server: Any) -> None:
    """A worker that hangs in the code of before must not go on in the background."""
    old = list(server.WORKERS)

    def end() -> None:
        for pid in old:
            if pid in server.WORKERS:
                os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(_LATE, end)
    timer.daemon = True
    timer.start()


def post_fork(server: object, worker: Any) -> None:
    """Die with the master, and load with patience."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    load = worker.load_wsgi

    def load_or_tell() -> None:
        began, edit, error = time.monotonic(), _edit(), ""
        try:
            load()
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - a script may raise anything
            error = _told(raised)
            sys.stderr.write(error)
            sys.stderr.flush()
            worker.wsgi = _failing(error)
        _open_gate()
        seconds = round(time.monotonic() - began, 3)
        _write("loaded.json", {"edit": edit, "seconds": seconds, "error": error})
        if not error:
            _write("modules.json", _libraries())

    worker.load_wsgi = load_or_tell


def worker_exit(server: object, worker: object) -> None:
    """At once: threads that libraries had in the master are not here, and their farewell waits for them."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _told(raised: BaseException) -> str:
    """The script's own exception, from its own code on: the server makes an exit of it."""
    while isinstance(raised, SystemExit) and raised.__context__ is not None:
        raised = raised.__context__
    own = type(raised).__module__.startswith("azureml_inference_server_http")
    if own and raised.__cause__ is not None:
        raised = raised.__cause__
    frames, root = raised.__traceback__, os.environ["AML_APP_ROOT"] + os.sep
    while frames is not None and not frames.tb_frame.f_code.co_filename.startswith(root):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(raised), raised, frames))


def _edit() -> int:
    try:
        return int((_FOLDER / "edit").read_text())
    except (OSError, ValueError):
        return 0


def _failing(error: str) -> Any:
    body = ("The entry script does not load:\n\n" + error).encode()

    def answer(environ: object, start_response: Any) -> list[bytes]:
        headers = [
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", str(len(body))),
        ]
        start_response("500 Internal Server Error", headers)
        return [body]

    return answer


def _open_gate() -> None:
    """All workers are idle, as far as the gate has to know: what comes may wait for the one there is."""
    if "SLIPWAY_CELLS" not in os.environ:
        return  # in a container, which has no gate
    workers = int(os.environ["WORKER_COUNT"])
    descriptor = int(os.environ["SLIPWAY_CELLS"])
    cells = memoryview(mmap.mmap(descriptor, 8 * (workers + 1))).cast("Q")
    for number in range(workers + 1):
        cells[number] = 1


def _libraries() -> list[str]:
    """What is imported out of the environment, and not out of the work copy."""
    prefix = sys.prefix + os.sep
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(prefix) and not name.startswith(("__", "gunicorn")):
            found.append(name)
    return [name for name in found if name != "azureml_inference_server_http.server.entry"]


def _warm() -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        try:
            names = json.loads((_FOLDER / "modules.json").read_text())
        except (OSError, ValueError):
            time.sleep(_LOOK)
            continue
        for name in names:
            while _forking.is_set():
                time.sleep(_LOOK)
            if name not in sys.modules:
                _import(name)
        return


def _watch() -> None:
    """In a container: end when whoever started it gives no sign of life."""
    while True:
        time.sleep(5)
        try:
            age = time.time() - (_FOLDER / "alive").stat().st_mtime
        except OSError:
            age = _SILENCE + 1
        if age > _SILENCE:
            os.kill(os.getpid(), signal.SIGTERM)


def _import(name: str) -> None:
    with _imports:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit):  # noqa: BLE001 - a script may raise anything
            return  # whoever needs it will say so


def _write(name: str, value: Any) -> None:
    beside = _FOLDER / f".{name}.{os.getpid()}"
    beside.write_text(json.dumps(value))
    beside.replace(_FOLDER / name)
