"""Ask a replica on its unix socket, past the router."""

import http.client
import socket
from pathlib import Path

from deployments.sockets import within


class UnixConnection(http.client.HTTPConnection):
    """HTTP to "unix:/path/of/socket", however long that path is."""

    def __init__(self, address: str, timeout: float = 30.0) -> None:
        super().__init__("replica", timeout=timeout)
        self._path = Path(address.removeprefix("unix:"))

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with within(self._path) as name:
            self.sock.connect(name)


def score(address: str, body: bytes) -> tuple[int, bytes]:
    """Status and answer of POST /score. Raises OSError, http.client.HTTPException."""
    connection = UnixConnection(address)
    try:
        connection.request("POST", "/score", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
