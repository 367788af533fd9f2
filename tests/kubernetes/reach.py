"""Pods reach the API server at the address that it advertises: on a test's machine nobody may listen there.

The cluster of `kube up` serves on 127.0.0.1 alone and advertises the machine's own address. For as long as a
test needs it, bytes are passed on from there, as they come: TLS ends at the API server as ever.
"""

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from deployments.kube.api import Kube
from router.haproxy.process import find_binary

_CONFIG = """\
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
listen api
    bind {host}:{port}
    server api {target}
"""


@contextmanager
def api_server(kube: Kube) -> Iterator[None]:
    """Nothing is done where pods reach it anyway, as on every cluster of a user's."""
    subsets = kube.get("/api/v1/namespaces/default/endpoints/kubernetes")["subsets"]
    host, port = subsets[0]["addresses"][0]["ip"], subsets[0]["ports"][0]["port"]
    target = urlsplit(kube.spec.server)
    if not _own(host) or _answers(host, port):
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "haproxy.cfg"
        config.write_text(_CONFIG.format(host=host, port=port, target=target.netloc))
        process = subprocess.Popen([find_binary(), "-db", "-f", config], stderr=subprocess.DEVNULL)
        try:
            while not _answers(host, port) and process.poll() is None:
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(10)


def _own(host: str) -> bool:
    with contextlib.suppress(OSError), socket.socket() as tried:
        tried.bind((host, 0))
        return True
    return False


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False
