"""A router's admin API on a unix socket, and a cluster to collect it for."""

import json
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from deployments.clusters.models import Cluster, Family, Sku
from router.samples import DecisionRecord, Sample, TelemetryPage, to_wire


@dataclass
class FakeRouter:
    """Answers `/telemetry` as the contract says; `asked` keeps the queries it got."""

    socket: Path
    epoch: str = "one"
    log: list[Sample | DecisionRecord] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)
    page_size: int = 10_000
    answer: bytes | None = None  # said instead of a page

    def page(self, epoch: str, after: int) -> dict[str, Any]:
        begin = after if epoch == self.epoch else 0
        items = self.log[begin : begin + self.page_size]
        return to_wire(
            TelemetryPage(
                self.epoch,
                begin + len(items),
                tuple(item for item in items if isinstance(item, Sample)),
                tuple(item for item in items if isinstance(item, DecisionRecord)),
            )
        )


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with tempfile.TemporaryDirectory() as folder:
        fake = FakeRouter(Path(folder) / "router.sock")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
                epoch, after = query["epoch"][0], int(query["after"][0])
                fake.asked.append((epoch, after))
                body = fake.answer or json.dumps(fake.page(epoch, after)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

            def address_string(self) -> str:
                return "unix"

        server = _Server(str(fake.socket), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield fake
        server.shutdown()
        thread.join(5)
        server.server_close()


@pytest.fixture
def cluster(db: None) -> Cluster:
    sku = Sku.objects.create(name="test machine", family=Family.CPU)
    return Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")
