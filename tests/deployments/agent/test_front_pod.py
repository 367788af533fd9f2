"""What stands before a person's own image in a pod: open while that one answers, closed while it does not."""

import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments.agent.front_pod import IDLE, LOADING, PodFront

REQUEST = b"POST /score HTTP/1.1\r\nHost: x\r\n%sContent-Length: 2\r\n\r\n{}"


class Own(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.path.encode() + self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


class Pod:
    """A front on TCP before a server that comes and goes."""

    def __init__(self) -> None:
        memory = os.memfd_create("cells", 0)
        os.truncate(memory, 16)
        os.environ.update(WORKER_COUNT="1", SLIPWAY_CELLS=str(memory))
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.target = free.getsockname()
        listener.setblocking(False)
        self.front = PodFront(self.target, ("/predict", "/alive", "/ready"), listener.detach())
        threading.Thread(target=self.front.main, daemon=True).start()
        self.server: ThreadingHTTPServer | None = None

    def begin(self) -> None:
        self.server = ThreadingHTTPServer(self.target, Own)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def end(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def ask(self, more: bytes = b"") -> bytes:
        with socket.create_connection(self.address, timeout=10) as asked:
            asked.sendall(REQUEST % more)
            answer = b""
            while piece := asked.recv(4096):
                answer += piece
            return answer

    def until(self, opened: int, cell: int) -> None:
        end = time.monotonic() + 10
        while list(self.front.cells) != [cell, opened]:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.fixture
def pod(monkeypatch):
    monkeypatch.setenv("WORKER_COUNT", "1")
    monkeypatch.setenv("SLIPWAY_CELLS", "-1")
    made = Pod()
    yield made
    made.end()


def test_it_opens_when_the_container_is_ready_and_again_after_it_was_gone(pod):
    assert list(pod.front.cells) == [LOADING, 0]
    pod.begin()
    pod.until(1, IDLE)
    assert pod.ask().endswith(b"/predict{}")
    pod.end()
    # nothing of these has begun: the router may take it elsewhere, where it kept a copy
    assert pod.ask(b"x-slipway-retry: 1\r\n").startswith(b"HTTP/1.1 425 ")
    pod.until(0, LOADING)
    pod.begin()
    pod.until(1, IDLE)
    assert pod.ask().endswith(b"/predict{}")


def test_what_the_router_cannot_send_again_is_told_so(pod):
    pod.begin()
    pod.until(1, IDLE)
    pod.end()
    assert pod.ask().startswith(b"HTTP/1.1 503 ")
