"""A router's admin API with made-up figures: each question gets the next second of every service.

    python -m bench.store.feed SOCKET SERVICES BEGIN

A process of its own, so that its work is not counted as the collector's.
"""

import json
import random
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer
from urllib.parse import parse_qs, urlsplit

from router.samples import BUCKETS, Sample, TelemetryPage, to_wire

EPOCH = "bench"
SHAPES = 64  # different samples that the services take in turn


def histogram(random_: random.Random, total: int, first: int, width: int) -> tuple[int, ...]:
    """So many requests over some buckets in a row."""
    counts = [0] * BUCKETS
    for _ in range(total):
        counts[min(first + int(random_.random() * width), BUCKETS - 1)] += 1
    return tuple(counts)


def shapes() -> list[dict[str, object]]:
    """Samples of a service that answers some 20 requests a second with four replicas."""
    random_ = random.Random(4)
    found: list[dict[str, object]] = []
    for _ in range(SHAPES):
        ok = 15 + int(random_.random() * 10)
        found.append({
            "arrivals": ok, "ok": ok, "busy": ok * 0.1, "busy_peak": 4, "queued": 0.1,
            "queued_peak": 1, "ready": 4, "desired": 4,
            "histogram": histogram(random_, ok, 10, 5),
            "queue_histogram": histogram(random_, ok, 0, 4),
            "service_histogram": histogram(random_, ok, 10, 4),
        })  # fmt: skip
    return found


def name(index: int) -> str:
    return f"service-{index:04d}"


def pages(services: int, begin: int) -> Iterator[bytes]:
    """A second's page and an empty one, in turn: the collector asks until nothing is left."""
    made, seq, at = shapes(), 0, begin
    while True:
        seq += services
        samples = tuple(
            Sample(at, name(index), "default", **made[(index + at) % SHAPES])  # type: ignore[arg-type]
            for index in range(services)
        )
        yield json.dumps(to_wire(TelemetryPage(EPOCH, seq, samples))).encode()
        yield json.dumps(to_wire(TelemetryPage(EPOCH, seq))).encode()
        at += 1


def main() -> None:
    path, services, begin = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    coming = pages(services, begin)
    first = json.dumps(to_wire(TelemetryPage(EPOCH, 0))).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
            body = next(coming) if query["epoch"] == [EPOCH] else first
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

        def address_string(self) -> str:
            return "unix"

    with UnixStreamServer(path, Handler) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
