"""What stands before a person's own image: paths, and one request at a time for each worker."""

import os
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments.agent.container_far import make_pair
from deployments.agent.front import AUTHORITY, PAIR, Front, context_of


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


class Far(BaseHTTPRequestHandler):
    """Answers when it is told to, and says when it has."""

    protocol_version = "HTTP/1.1"
    release, done = threading.Event(), threading.Event()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"break":
            self.close_connection = True
            return
        if body == b"wait":
            self.release.wait(10)
        answer = b"far " + body
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = True
        self.done.set()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        return


@pytest.fixture
def far(monkeypatch, tmp_path):
    """A front before a container elsewhere, with the keys of one run; and that container's port."""
    replica, router = make_pair("replica"), make_pair("router")
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for folder, own, other in ((theirs, replica, router), (ours, router, replica)):
        folder.mkdir()
        (folder / PAIR).write_text(own.key + own.certificate)
        (folder / AUTHORITY).write_text(other.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(theirs / PAIR)
    context.load_verify_locations(theirs / AUTHORITY)
    context.verify_mode = ssl.CERT_REQUIRED
    Far.release.clear()
    Far.done.clear()
    server = Quiet(("127.0.0.1", 0), Far)
    server.daemon_threads = True
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    memory = os.memfd_create("cells", 0)
    os.truncate(memory, 16)
    monkeypatch.setenv("WORKER_COUNT", "1")
    monkeypatch.setenv("SLIPWAY_CELLS", str(memory))
    listener = socket.socket(socket.AF_UNIX)
    made = Front(("127.0.0.1", server.server_port), ("/score", "/", "/"), listener.detach(), ours)
    yield made
    Far.release.set()
    made.listener.close()
    made.cells.release()
    os.close(memory)
    server.shutdown()
    thread.join()
    server.server_close()


def ask(body: bytes) -> bytes:
    return b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def test_a_container_elsewhere_is_reached_with_its_runs_keys_alone(far, tmp_path):
    assert far.reaches() is True
    assert far.answers("/") is True
    here, there = socket.socketpair()
    with here, there:
        here.sendall(ask(b"x" * 50_000))
        assert far.carry(there) is True
        assert here.recv(100).startswith(b"HTTP/1.1 200")
    stranger = make_pair("router")
    (tmp_path / "ours" / PAIR).write_text(stranger.key + stranger.certificate)
    far.tls = context_of(tmp_path / "ours")
    assert far.answers("/") is False


def test_another_key_than_the_replicas_is_not_trusted(far, tmp_path):
    (tmp_path / "ours" / AUTHORITY).write_text(make_pair("replica").certificate)
    far.tls = context_of(tmp_path / "ours")
    assert far.answers("/") is False


def test_a_place_elsewhere_is_free_only_when_its_request_has_ended(far):
    here, there = socket.socketpair()
    said = []
    carrying = threading.Thread(target=lambda: said.append(far.carry(there)))
    with here, there:
        here.sendall(ask(b"wait"))
        carrying.start()
        here.shutdown(socket.SHUT_WR)  # the client leaves
        carrying.join(0.2)
        assert carrying.is_alive()
        Far.release.set()
        carrying.join(5)
    assert said == [True]
    assert Far.done.is_set()


def test_an_answer_that_never_came_is_told_from_one_that_did(far):
    here, there = socket.socketpair()
    with here, there:
        here.sendall(ask(b"break"))
        assert far.carry(there) is False
