"""A constant stream of requests that arrive at fixed times, whatever becomes of the ones before.

`python -m tests.e2e.load '<Plan as JSON>'` runs in a process of its own, so that what a test does
delays no request; it prints its Report as one line of JSON once it was told to stop by a line on its
input. `Load` is the test's handle of it.

Requests come three ways: over connections that are used again and again (the one idle longest first),
over connections that each wait long between two requests, and each over a connection of its own.
Beside them long answers are read as they are streamed: every tick in order and on time.

A request that the generator itself begins late is late by the generator's fault: `lateness` says how
late it was, and beyond `_TOO_LATE` it is not sent at all, but counted as skipped.
"""

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

_TOO_LATE = (
    0.25  # seconds; all that a stall held up at once would be another load than the one asked for
)
_PATIENCE = 40.0  # seconds without a whole answer
_SPARE = 200  # connections at most that are used again
_LAZY = 40  # connections that wait long between two requests
_ON_TIME = 1.0  # seconds a tick of a stream may be under way
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """What to ask: `rate` requests a second, `long` seconds one streamed answer takes, `short` others."""

    port: int
    path: str
    key: str
    rate: int
    long: float = 60.0
    short: float = 5.0
    tick: float = 0.25


@dataclass(frozen=True)
class Failure:
    """A request that was not answered 200 with the right body. `at` is when it was sent (epoch)."""

    n: int
    at: float
    took: float
    way: str
    code: int  # 0: there was no answer
    reason: str


@dataclass(frozen=True)
class Stream:
    """A streamed answer: how many ticks came, of how many, and what was wrong with it ("" is nothing)."""

    at: float
    seconds: float
    ticks: int
    wanted: int
    latest: float  # seconds the slowest tick was under way
    trouble: str


@dataclass
class Report:
    """What became of everything. Times are milliseconds."""

    requests: int = 0
    skipped: int = 0
    seconds: float = 0.0
    lateness: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    slowest: float = 0.0
    slowest_at: float = 0.0  # epoch seconds
    busy: float = 0.0  # the generator's share of one core
    connections: int = 0
    by: dict[str, int] = field(default_factory=dict)  # answers by the replica's revision
    failures: list[Failure] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)

    @property
    def line(self) -> str:
        """The figures on one line."""
        cut = [stream for stream in self.streams if stream.trouble]
        streams = (
            f"{len(self.streams)} streams (longest {max(s.seconds for s in self.streams):g} s)"
        )
        slowest_at = time.strftime("%H:%M:%S", time.gmtime(self.slowest_at))
        return (
            f"{self.requests} requests in {self.seconds:.0f} s, {len(self.failures)} failed; "
            f"{streams}, {len(cut)} cut, slowest tick {max(s.latest for s in self.streams) * 1e3:.0f} ms; "
            f"p50 {self.p50:.0f} ms, p99 {self.p99:.0f} ms, slowest {self.slowest:.0f} ms ({slowest_at}); "
            f"generator at most {self.lateness:.0f} ms late, {self.skipped} skipped, "
            f"{self.busy:.0%} of a core"
        )

    def trouble(self) -> str:
        """Every failure and broken stream in words, for a test that failed; at most 40 lines."""
        lines = [
            f"{f.at:.3f} #{f.n} {f.way}: {f.code} {f.reason} after {f.took * 1e3:.0f} ms"
            for f in self.failures
        ]
        lines += [
            f"{s.at:.3f} stream of {s.seconds:g} s: {s.trouble}" for s in self.streams if s.trouble
        ]
        kinds = Counter(f"{f.code} {f.reason}" for f in self.failures)
        return "\n".join([*(f"{count} x {kind}" for kind, count in kinds.items()), *lines[:40]])


# ---- what is right: pure ----------------------------------------------------------------------


def judge(code: int, body: bytes, n: int) -> tuple[str, str]:
    """(who answered, what is wrong or ""). Right is 200 and the number that was asked for."""
    if code != 200:
        return "", body[:160].decode("latin-1")
    try:
        said = json.loads(body)
        if said["n"] == n:
            return str(said["by"]), ""
    except (ValueError, KeyError, TypeError):
        pass
    return "", f"another body: {body[:100]!r}"


def due(rate: int, elapsed: float, begun: int) -> int:
    """How many more requests should have begun by now."""
    return max(int(elapsed * rate) + 1 - begun, 0)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of them are not above; 0 of none."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class Ticks:
    """Checks a stream of lines `data: <number> <epoch>`: each in order, none late, all there."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.seen, self.latest, self.trouble = wanted, 0, 0.0, ""

    def take(self, line: str, now: float) -> None:
        if not line.startswith("data: ") or self.trouble:
            return
        number, sent = line.removeprefix("data: ").split()
        if int(number) != self.seen:
            self.trouble = f"tick {number} came where {self.seen} should have"
            return
        self.seen += 1
        self.latest = max(self.latest, now - float(sent))
        if self.latest > _ON_TIME:
            self.trouble = f"tick {number} was {self.latest:.2f} s under way"

    def end(self, why: str) -> None:
        """The answer is over; `why` is empty when it ended as it should."""
        if not self.trouble and (why or self.seen != self.wanted):
            self.trouble = f"{why or 'it ended'} after {self.seen} of {self.wanted} ticks"


class Reader:
    """One answer as its bytes come: `feed` says when it is whole."""

    def __init__(self) -> None:
        self.code, self.close, self._length = 0, False, -1
        self._data = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """The body, once all of it is there."""
        self._data += data
        if self._length < 0:
            head, found, rest = bytes(self._data).partition(b"\r\n\r\n")
            if not found:
                return None
            self.code = int(head[9:12])
            lower = head.lower()
            self.close = b"connection: close" in lower
            length = lower.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._length = int(length or 0)
            self._data = bytearray(rest)
        return bytes(self._data) if len(self._data) >= self._length else None

    @property
    def begun(self) -> bool:
        return self._length >= 0 or bool(self._data)


# ---- the generator ----------------------------------------------------------------------------


class Connection(asyncio.Protocol):
    """One client connection with at most one request on it."""

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.transport: asyncio.Transport | None = None
        self.n = -1  # the request on it
        self.reader = Reader()
        self.sent = self.sent_at = 0.0
        self.way = ""
        self.home: deque[Connection] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def ask(self, n: int, way: str, home: "deque[Connection] | None") -> None:
        self.n, self.way, self.home, self.reader = n, way, home, Reader()
        self.sent, self.sent_at = time.perf_counter(), time.time()
        self.transport.write(self.run.request(n, close=home is None))

    def data_received(self, data: bytes) -> None:
        if self.n < 0:
            self.transport.abort()  # an answer to nothing: HAProxy's 408 to an idle connection
            return
        body = self.reader.feed(data)
        if body is not None:
            self._over(self.reader.code, body)

    def eof_received(self) -> None:
        self._cut("closed inside the answer" if self.reader.begun else "closed before an answer")

    def connection_lost(self, error: Exception | None) -> None:
        self._cut(f"{type(error).__name__}" if error else "closed before an answer")

    def expired(self, now: float) -> bool:
        return self.n >= 0 and now - self.sent > _PATIENCE

    def give_up(self) -> None:
        self._cut(f"no whole answer within {_PATIENCE:g} s")
        self.transport.abort()

    def _cut(self, why: str) -> None:
        if self.n >= 0:
            n, self.n = self.n, -1
            self.run.answered(self, n, 0, why)

    def _over(self, code: int, body: bytes) -> None:
        n, self.n = self.n, -1
        by, wrong = judge(code, body, n)
        self.run.answered(self, n, code, wrong, by)
        if self.home is None or self.reader.close:
            self.transport.close()
        else:
            self.home.append(self)


class Run:
    """All of one load, on one event loop."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.report = Report()
        self.took: list[float] = []
        self.late = 0.0
        self.busy: set[Connection] = set()
        self.pool: deque[Connection] = deque()
        self.lazy: deque[Connection] = deque()
        self.begun = 0
        self.stopping = False
        self.tasks: set[asyncio.Task[None]] = set()
        self._head = (
            f"POST {plan.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {plan.key}\r\n"
            "Content-Type: application/json\r\n"
        )

    def request(self, n: int, *, close: bool) -> bytes:
        return self._post({"n": n}, close=close)

    def _post(self, what: dict[str, float], *, close: bool) -> bytes:
        body = json.dumps(what)
        ending = "Connection: close\r\n" if close else ""
        return f"{self._head}{ending}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    async def all(self) -> Report:
        """Until told to stop, and then until everything begun is over."""
        loop = asyncio.get_running_loop()
        streams = [loop.create_task(self._streams(self.plan.long, again=False))]
        streams.append(loop.create_task(self._streams(self.plan.short, again=True)))
        started, cpu = time.perf_counter(), time.process_time()
        while not self.stopping:
            elapsed = time.perf_counter() - started
            for _ in range(due(self.plan.rate, elapsed, self.begun)):
                n, self.begun = self.begun, self.begun + 1
                late = time.perf_counter() - started - n / self.plan.rate
                self.late = max(self.late, late)
                if late > _TOO_LATE:
                    self.report.skipped += 1
                else:
                    self._begin(n)
            now = time.perf_counter()
            if self.begun % 50 == 0:
                for connection in [item for item in self.busy if item.expired(now)]:
                    connection.give_up()
            await asyncio.sleep(max(started + self.begun / self.plan.rate - now, 0.0))
        end = time.perf_counter()
        self.report.busy = (time.process_time() - cpu) / (end - started)
        self.report.seconds = end - started
        while self.busy or self.tasks:
            await asyncio.sleep(0.02)
            for connection in [i for i in self.busy if i.expired(time.perf_counter())]:
                connection.give_up()
        await asyncio.gather(*streams)
        self._sum_up()
        return self.report

    def _begin(self, n: int) -> None:
        if n % 5 == 0:
            self._connect(n, "new connection", None)
        elif n % 50 == 1:
            self._again(n, "rarely used connection", self.lazy, _LAZY)
        else:
            self._again(n, "used connection", self.pool, 0)

    def _again(self, n: int, way: str, idle: "deque[Connection]", least: int) -> None:
        """Over the connection that was idle for longest, or over one more."""
        while idle and not idle[0].usable:
            idle.popleft()
        if idle and len(idle) >= least:
            connection = idle.popleft()
            self.busy.add(connection)
            connection.ask(n, way, idle)
        else:
            self._connect(n, way, idle)

    def _connect(self, n: int, way: str, home: "deque[Connection] | None") -> None:
        task = asyncio.get_running_loop().create_task(self._open(n, way, home))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _open(self, n: int, way: str, home: "deque[Connection] | None") -> None:
        begun, at = time.perf_counter(), time.time()
        try:
            async with asyncio.timeout(_PATIENCE):
                _, made = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self), "127.0.0.1", self.plan.port
                )
        except (OSError, TimeoutError) as error:
            self._count(
                n, at, time.perf_counter() - begun, f"first on a {way}", 0, f"{error!r}", ""
            )
            return
        self.report.connections += 1
        self.busy.add(made)
        made.ask(n, way if home is None else f"first on a {way}", home)

    def answered(self, on: Connection, n: int, code: int, wrong: str, by: str = "") -> None:
        self.busy.discard(on)
        self._count(n, on.sent_at, time.perf_counter() - on.sent, on.way, code, wrong, by)

    def _count(
        self, n: int, at: float, took: float, way: str, code: int, wrong: str, by: str
    ) -> None:
        self.report.requests += 1
        self.took.append(took)
        if took * 1e3 > self.report.slowest:
            self.report.slowest, self.report.slowest_at = took * 1e3, at
        if wrong or code != 200:
            self.report.failures.append(Failure(n, at, took, way, code, wrong))
        else:
            self.report.by[by] = self.report.by.get(by, 0) + 1

    # ---- long answers

    async def _streams(self, seconds: float, *, again: bool) -> None:
        while seconds and not self.stopping:
            await self._stream(seconds)
            if not again:
                return

    async def _stream(self, seconds: float) -> None:
        ticks = Ticks(round(seconds / self.plan.tick))
        at = time.time()
        why = ""
        try:
            async with asyncio.timeout(seconds + _PATIENCE):
                await self._read_ticks(ticks, seconds)
        except asyncio.IncompleteReadError:
            why = "it was cut"
        except (OSError, TimeoutError, ValueError) as error:
            why = repr(error)
        ticks.end(why)
        self.report.streams.append(
            Stream(at, seconds, ticks.seen, ticks.wanted, ticks.latest, ticks.trouble)
        )

    async def _read_ticks(self, ticks: Ticks, seconds: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.plan.port)
        try:
            asked = {"ticks": ticks.wanted, "every": self.plan.tick}
            writer.write(self._post(asked, close=True))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            if " 200 " not in head or "chunked" not in head.lower():
                raise ValueError(head.partition("\r\n")[0])
            while size := int(await reader.readuntil(b"\r\n"), 16):
                piece = await reader.readexactly(size + 2)
                for line in piece[:-2].decode().splitlines():
                    ticks.take(line, time.time())
            await reader.readexactly(2)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _sum_up(self) -> None:
        ordered = sorted(self.took)
        self.report.lateness = self.late * 1e3
        self.report.p50 = quantile(ordered, 0.5) * 1e3
        self.report.p99 = quantile(ordered, 0.99) * 1e3


async def _main(plan: Plan) -> None:
    run = Run(plan)
    loop = asyncio.get_running_loop()
    told = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)

    async def listen() -> None:
        await told.readline()  # a line, or the end: whoever started this is gone
        run.stopping = True

    listening = loop.create_task(listen())
    report = await run.all()
    listening.cancel()
    print(json.dumps(asdict(report)), flush=True)


# ---- the test's side --------------------------------------------------------------------------


class Load:
    """A load in a process of its own; `stop` ends it and tells how it went."""

    def __init__(self, plan: Plan) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.load", json.dumps(asdict(plan))],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def stop(self) -> Report:
        """No more arrivals; what has begun is waited for, long answers too."""
        said, _ = self._process.communicate("stop\n", timeout=180)
        raw = json.loads(said.splitlines()[-1])
        raw["failures"] = [Failure(**item) for item in raw["failures"]]
        raw["streams"] = [Stream(**item) for item in raw["streams"]]
        return Report(**raw)

    def close(self) -> None:
        """For a test that failed: nothing of it goes on."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()


if __name__ == "__main__":
    gc.freeze()
    uvloop.run(_main(Plan(**json.loads(sys.argv[1]))))
