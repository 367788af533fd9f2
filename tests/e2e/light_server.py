"""A scoring server as small as can be, for tests of what is around it: gunicorn's `app`.

`POST /score` gives the body's text to `run()` of AZUREML_ENTRY_SCRIPT; what that returns is the
answer, sent piece by piece when it is an iterator. `GET /` says that it is healthy. It stands in for
`azureml_inference_server_http.server.entry` and runs in a replica's environment: standard library and
gunicorn only.

A script that has a function `taken()` is told of each connection as soon as the worker has it, before
anything of it is read: from then on a request is inside this replica.
"""

import importlib.util
import os
from pathlib import Path

from gunicorn.workers.sync import SyncWorker

_path = Path(os.environ["AML_APP_ROOT"]) / os.environ["AZUREML_ENTRY_SCRIPT"]
_spec = importlib.util.spec_from_file_location("score", _path)
_script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_script)
_script.init()

if hasattr(_script, "taken"):
    _handle = SyncWorker.handle

    def handle(self, *connection):
        _script.taken()
        _handle(self, *connection)

    SyncWorker.handle = handle


def app(environ, start_response):
    if environ["PATH_INFO"] != "/score":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7")])
        return [b"Healthy"]
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    said = _script.run(body.decode())
    if isinstance(said, str):
        answer = said.encode()
        head = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
        start_response("200 OK", head)
        return [answer]
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return (piece.encode() for piece in said)
