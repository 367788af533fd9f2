"""A client's TLS: every connection shows the certificate, and trusts the given authority alone."""

import json
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.utils import timezone

from deployments.engine.client import connect
from deployments.errors import Unavailable
from deployments.types import EngineSpec
from tests.deployments.clusters.authority import Issued, issue
from tests.ports import free_port

BEGAN = timezone.now() - timedelta(hours=1)
ENDS = BEGAN + timedelta(days=1)


class Engine(BaseHTTPRequestHandler):
    """Says its version, and closes after each answer."""

    def do_GET(self) -> None:
        body = json.dumps({"ApiVersion": "1.41", "Version": "20.10"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def issued(name: str, by: Issued | None = None, **how) -> Issued:
    return issue(name, by, begins=BEGAN, ends=ENDS, **how)


@pytest.fixture
def authority() -> Issued:
    return issued("engines", authority=True)


@pytest.fixture
def engine(tmp_path, authority) -> Iterator[str]:
    leaf = issued("engine", authority, names=("127.0.0.1",))
    (tmp_path / "pair.pem").write_text(leaf.pem + leaf.key_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.pem)
    context.load_cert_chain(tmp_path / "pair.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # refused handshakes are meant
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"tcp://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_new_connection_has_the_certificate_and_no_key_is_left_on_disk(
    engine, authority, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    own = issued("slipway", authority)
    client = connect(EngineSpec(engine, authority.pem, own.pem, own.key_pem), deadline=5)
    assert list((tmp_path / "scratch").iterdir()) == []
    client.api.close()  # its connections, so that the next call makes a new one
    assert client.version()["Version"] == "20.10"
    client.close()


def test_an_engine_of_another_authority_is_not_reached(engine, authority):
    own = issued("slipway", authority)
    other = issued("strangers", authority=True)
    with pytest.raises(Unavailable):
        connect(EngineSpec(engine, other.pem, own.pem, own.key_pem), deadline=5)


def test_the_public_authorities_are_not_trusted_beside_the_given_one(
    engine, authority, tmp_path, monkeypatch
):
    """The library would add the bundle that this variable names."""
    (tmp_path / "bundle.pem").write_text(authority.pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "bundle.pem"))
    own = issued("slipway", authority)
    other = issued("strangers", authority=True)
    with pytest.raises(Unavailable):
        connect(EngineSpec(engine, other.pem, own.pem, own.key_pem), deadline=5)


def test_nobody_there_is_unavailable():
    with pytest.raises(Unavailable, match="cannot be reached"):
        connect(EngineSpec(f"tcp://127.0.0.1:{free_port()}"), deadline=2)
