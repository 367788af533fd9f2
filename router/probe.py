"""How long the router takes to answer a request by itself: the routing time.

One connection through the frontend that clients use, and a few requests on it for `/healthz`, which
HAProxy answers before any route or replica. The least of their times counts: a pause of this process
(another thread's turn, the machine's scheduler) makes one request slow, a router that is short of time
makes all of them slow. Blocking; runs in a thread, because an event loop that is busy would be measured
along.
"""

import socket
import time

from deployments.errors import Unavailable

REQUESTS = 3
DEADLINE = 2.0
_ASKED = b"GET /healthz HTTP/1.1\r\nHost: slipway\r\n\r\n"
_END = b"Healthy"
_EVERYWHERE = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def routing_ms(bind: str, port: int, deadline: float = DEADLINE) -> float:
    """Milliseconds. `bind` is where the frontend listens. Raises Unavailable."""
    try:
        with socket.create_connection((_EVERYWHERE.get(bind, bind), port), deadline) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return 1000 * min(_ask(connection) for _ in range(REQUESTS))
    except OSError as error:
        raise Unavailable(f"The router did not answer its probe: {error}.") from error


def _ask(connection: socket.socket) -> float:
    began = time.perf_counter()
    connection.sendall(_ASKED)
    answer = b""
    while not answer.endswith(_END):
        part = connection.recv(4096)
        if not part:
            raise ConnectionResetError("it closed the connection")
        answer += part
    return time.perf_counter() - began
