"""Load at a constant rate, whether answers come or not: latency from the moment each request was due.

A closed loop (wrk) waits with a slow answer, and so leaves out the requests that would have met the same
slowness (coordinated omission). Here request n is due at n / rate; what it waits for a free connection,
or for this program itself, is in its figure. The same program measures with and without the proxy, so
its own cost is in both and falls out of the difference.

    python -m bench.routing.openloop PORT PATH TOKEN RATE SECONDS -> a line of JSON
"""

import ctypes
import gc
import json
import select
import socket
import sys
import time
from array import array
from collections import deque

from bench.routing.load import BODY

_CONNECTIONS = 128
_LATE_NS = 1_000_000
_PR_SET_TIMERSLACK = 29


def request(path: str, token: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
    ).encode()


def percentile(ordered: "array[int]", share: float) -> float:
    """Milliseconds, of nanoseconds in order."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1e6


def run(port: int, message: bytes, rate: float, seconds: float) -> dict[str, float]:
    """What was reached, in requests a second and milliseconds.

    `late` is the share of requests that this program itself sent more than 1 ms after they were due
    though a connection was free.
    """
    poller = select.epoll()
    free: deque[int] = deque()
    sockets: dict[int, socket.socket] = {}

    def connect() -> None:
        made = socket.create_connection(("127.0.0.1", port), timeout=10)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        sockets[made.fileno()] = made
        poller.register(made.fileno(), select.EPOLLIN)
        free.append(made.fileno())

    for _ in range(_CONNECTIONS):
        connect()
    clock = time.perf_counter_ns
    step = 1e9 / rate
    due_of: dict[int, int] = {}
    latencies: array[int] = array("q")
    failed = late = sent = 0
    began = clock() + 10_000_000
    warm = began + int(min(1.0, seconds / 4) * 1e9)
    end = began + int(seconds * 1e9)
    due, had_room = began, True
    while due < end or due_of:
        now = clock()
        while due <= now and due < end and free:
            number = free.popleft()
            if had_room and now - due > _LATE_NS:
                late += 1
            sockets[number].send(message)
            due_of[number] = due
            sent += 1
            due = began + int(sent * step)
        had_room = bool(free)
        events = poller.poll(0)
        if not events:
            wait = (due - clock()) / 1e9 if free and due < end else 0.1
            if wait > 0:
                select.select([poller], [], [], wait)
            if not due_of and due >= end:
                break
            if clock() > end + 5_000_000_000:
                failed += len(due_of)  # never answered
                break
            continue
        for number, _ in events:
            answer = _answer(sockets[number])
            was = due_of.pop(number, None)
            if answer is None or was is None:
                failed += was is not None
                poller.unregister(number)
                sockets.pop(number).close()
                connect()
                continue
            if answer.startswith(b"HTTP/1.1 200"):
                if was >= warm:
                    latencies.append(clock() - was)
            else:
                failed += 1
            free.append(number)
    took = (clock() - began) / 1e9
    for item in sockets.values():
        item.close()
    ordered = array("q", sorted(latencies))
    return {
        "rate": round(sent / max(took, seconds), 1),
        "p50_ms": percentile(ordered, 0.5) if ordered else float("nan"),
        "p99_ms": percentile(ordered, 0.99) if ordered else float("nan"),
        "late": late / max(sent, 1),
        "failed": failed,
    }


def _answer(connection: socket.socket) -> bytes | None:
    """The whole of a small answer; None when the connection is gone."""
    try:
        answer = connection.recv(65536)
        if answer and not answer.endswith(b"}"):
            connection.settimeout(1)
            while not answer.endswith(b"}"):
                more = connection.recv(65536)
                if not more:
                    return None
                answer += more
            connection.setblocking(False)
    except OSError:
        return None
    return answer or None


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)  # else every sleep is 50 us too long
    gc.disable()
    _, port_, path_, token_, rate_, seconds_ = sys.argv
    sys.stdout.write(
        json.dumps(run(int(port_), request(path_, token_), float(rate_), float(seconds_))) + "\n"
    )
