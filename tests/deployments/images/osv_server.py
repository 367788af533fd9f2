"""A small server that speaks OSV's API (`/v1/querybatch`, `/v1/vulns/<id>`), pages and refusals included."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JINJA = {
    "id": "GHSA-h5c8",
    "aliases": ["CVE-2024-22195"],
    "summary": "Jinja lets scripts through",
    "database_specific": {"severity": "MODERATE"},
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "jinja2"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "3.1.3"}]}],
        }
    ],
    "references": [{"type": "ADVISORY", "url": "https://github.com/advisories/GHSA-h5c8"}],
}
PYSEC = {
    "id": "PYSEC-2024-1",
    "aliases": ["CVE-2024-22195"],
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
}
RECORDS = {record["id"]: record for record in (JINJA, PYSEC)}


class Server(ThreadingHTTPServer):
    """`queries` is what was asked; `fail` is a code to answer with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.queries: list[dict[str, Any]] = []
        self.fail = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.fail or self.path != "/v1/querybatch":
            self.say(self.server.fail or 404, {"code": 5, "message": "no"})
            return
        self.server.queries += body["queries"]
        self.say(200, {"results": [self.result(query) for query in body["queries"]]})

    def result(self, query: dict[str, Any]) -> dict[str, Any]:
        if query["package"] != {"ecosystem": "PyPI", "name": "jinja2"}:
            return {}
        if "page_token" in query:
            return {"vulns": [{"id": "PYSEC-2024-1", "modified": "2024-01-01T00:00:00Z"}]}
        return {
            "vulns": [{"id": "GHSA-h5c8", "modified": "2024-01-01T00:00:00Z"}],
            "next_page_token": "more",
        }

    def do_GET(self) -> None:
        record = RECORDS.get(self.path.removeprefix("/v1/vulns/"))
        self.say(200 if record else 404, record or {"code": 5, "message": "Bug not found."})

    def say(self, code: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        if code == 302:
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
