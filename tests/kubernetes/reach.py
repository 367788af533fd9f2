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


class Passage:
    """Passes on what comes to the advertised address; `process` is None where nobody has to."""

    def __init__(self, host: str, port: int, target: str) -> None:
        self._where = (host, port)
        self._config = _CONFIG.format(host=host, port=port, target=target)
        self.process: subprocess.Popen[bytes] | None = None

    def open(self, folder: Path) -> None:
        config = folder / "haproxy.cfg"
        config.write_text(self._config)
        self.process = subprocess.Popen(
            [find_binary(), "-db", "-f", config], stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 0.5  # one that cannot listen ends at once
        while self.runs() and not (_answers(*self._where) and time.monotonic() > until):
            time.sleep(0.05)

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def shut(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    @contextmanager
    def away(self) -> Iterator[None]:
        """As long as this lasts no pod reaches the API server."""
        self.shut()
        try:
            yield
        finally:
            with tempfile.TemporaryDirectory() as folder:
                self.open(Path(folder))


@contextmanager
def api_server(kube: Kube) -> Iterator[Passage | None]:
    """None where pods reach it anyway, as on every cluster of a user's."""
    subsets = kube.get("/api/v1/namespaces/default/endpoints/kubernetes")["subsets"]
    host, port = subsets[0]["addresses"][0]["ip"], subsets[0]["ports"][0]["port"]
    if not _own(host):
        yield None
        return
    made = Passage(host, port, urlsplit(kube.spec.server).netloc)
    try:
        with tempfile.TemporaryDirectory() as folder:
            made.open(Path(folder))
        yield (
            made if made.runs() else None
        )  # an API server that listens there shares its port with nobody
    finally:
        made.shut()


def _own(host: str) -> bool:
    with contextlib.suppress(OSError), socket.socket() as tried:
        tried.bind((host, 0))
        return True
    return False


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False
