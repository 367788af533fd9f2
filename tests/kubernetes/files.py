"""The portal's part of fetching files, which its middleware does alone: served by this process, for pods."""

import os
import socket
import threading
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from django.core.wsgi import get_wsgi_application

from tests.kubernetes import cluster


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        return


class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def portal() -> Iterator[str]:
    """Where pods reach this machine: SLIPWAY_TEST_ADDRESS, else as it is seen on the way to the cluster."""
    server = make_server("", 0, get_wsgi_application(), Threaded, Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://{_address()}:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _address() -> str:
    """Of this machine, as the cluster's nodes see it."""
    if named := os.environ.get("SLIPWAY_TEST_ADDRESS"):
        return named
    host = urlsplit(cluster.spec().server).hostname or ""
    for target in (host, "192.0.2.1"):  # nothing is sent to it
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            asked.connect((target, 9))
            found = str(asked.getsockname()[0])
        if not found.startswith("127."):
            return found
    pytest.skip("set SLIPWAY_TEST_ADDRESS to this machine's address")
