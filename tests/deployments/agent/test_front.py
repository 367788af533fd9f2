"""What stands before a person's own image: paths, and one request at a time for each worker."""

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments.agent.front import Front


class Own(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = f"{self.path} {self.headers['Connection']} ".encode() + body
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/alive" else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def front(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    memory = os.memfd_create("cells", 0)
    os.truncate(memory, 16)
    monkeypatch.setenv("WORKER_COUNT", "1")
    monkeypatch.setenv("SLIPWAY_CELLS", str(memory))
    listener = socket.socket(socket.AF_UNIX)
    made = Front(
        ("127.0.0.1", server.server_port), ("/predict", "/alive", "/ready"), listener.detach()
    )
    yield made
    made.listener.close()
    made.cells.release()
    os.close(memory)
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_head_gets_the_containers_path_and_an_end(front):
    head = b"POST /score?a=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nx-slipway-retry: 5"
    assert front.rewritten(head) == (
        b"POST /predict?a=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert front.rewritten(b"GET / HTTP/1.1\r\nHost: x").startswith(b"GET /alive HTTP/1.1")
    assert front.rewritten(b"GET /other HTTP/1.1\r\nHost: x").startswith(b"GET /other HTTP/1.1")


def test_a_path_that_does_not_answer_200_is_not_well(front):
    assert front.answers("/alive") is True
    assert front.answers("/ready") is False


def test_a_request_and_its_answer_are_carried(front):
    here, there = socket.socketpair()
    carrying = threading.Thread(target=front.carry, args=(there,))
    with here, there:
        carrying.start()
        # the body in two pieces, as a slow client sends it
        here.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf")
        here.sendall(b"half")
        answer = b""
        while b"halfhalf" not in answer:
            answer += here.recv(4096)
        carrying.join(5)
    assert b"/predict close halfhalf" in answer


def test_a_client_that_says_nothing_whole_gets_nothing(front):
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"POST /score HTTP/1.1\r\n")
        here.shutdown(socket.SHUT_WR)
        front.carry(there)


def test_an_image_that_scores_at_its_root_is_asked_there(front):
    front.scoring = "/"
    assert front.rewritten(b"POST / HTTP/1.1\r\nHost: x").startswith(b"POST / HTTP/1.1")
    assert front.rewritten(b"POST /score HTTP/1.1\r\nHost: x").startswith(b"POST / HTTP/1.1")
