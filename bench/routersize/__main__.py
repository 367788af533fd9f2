"""The probe, HAProxy's idle share and its CPU at rates up to what one thread can do.

Load comes at a constant rate over connections that stay open, to a service with a key, through the product's
own configuration (a connection to a replica for each request, as its replicas close them). Each second is
measured by the product's own means: `router.probe`, `show info`, the CPU time of HAProxy's worker.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.routing.load import REPLICA, Target, answering
from bench.routing.openloop import OpenLoop
from bench.routing.ours import KEY, Ours
from bench.routing.processes import BenchError, Cores, Programs, cpu_seconds, free_port
from deployments.errors import SlipwayError
from router import probe
from router.haproxy import stats

RATES = (0, 2000, 5000, 8000, 10000, 12000, 14000, 17000, 20000)
_WARM = 2  # seconds that are not looked at


@dataclass
class Row:
    """One rate. Milliseconds; `cpu` in cores, `idle` in percent."""

    asked: int
    reached: int = 0
    cpu: float = 0.0
    idle: float = 0.0
    routing_median: float | None = None
    routing_worst: float | None = None
    score_p50: float | None = None
    score_p99: float | None = None
    failed: int = 0
    seconds: int = 0


@dataclass
class Watch:
    """Measures each second until `stop`, as the router's loop does."""

    ours: Ours
    worker: int
    stopping: threading.Event = field(default_factory=threading.Event)
    routing: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def start(self) -> "Watch":
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        used, at, due = cpu_seconds([self.worker]), time.monotonic(), time.monotonic() + 1
        while not self.stopping.wait(max(due - time.monotonic(), 0.0)):
            due += 1
            try:
                took = probe.routing_ms("127.0.0.1", self.ours.port)
            except SlipwayError:
                took = 1000 * probe.DEADLINE
            worker = _worker(self.ours)
            now, total = time.monotonic(), cpu_seconds([self.worker])
            self.routing.append(took)
            self.idle.append(worker.idle)
            self.cpu.append((total - used) / (now - at))
            used, at = total, now


def _worker(ours: Ours) -> stats.Worker:
    return stats.parse_worker(asyncio.run(ours.haproxy.runtime.ask(["show info"]))[0])


def measure(ours: Ours, worker: int, target: Target, rate: int, seconds: int, core: int) -> Row:
    row = Row(rate)
    watch = Watch(ours, worker).start()
    try:
        if rate:
            load = OpenLoop(core, 1, seconds + _WARM)
            try:
                [told] = load.run([target], rate)[target.name]
            finally:
                load.close()
            row.reached = round(told["rate"])
            row.score_p50, row.score_p99 = told["p50_ms"], told["p99_ms"]
            row.failed = told["failed"]
        else:
            time.sleep(seconds + _WARM)
    finally:
        watch.stop()
    routing, idle, cpu = (
        found[_WARM : _WARM + seconds - 1] for found in (watch.routing, watch.idle, watch.cpu)
    )
    row.seconds = len(routing)
    row.routing_median, row.routing_worst = statistics.median(routing), max(routing)
    row.idle, row.cpu = statistics.median(idle), statistics.median(cpu)
    return row


def table(rows: list[Row]) -> str:
    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    lines = [
        "| req/s asked | reached | HAProxy's CPU, cores | idle, % | routing time, median ms | worst ms "
        "| answers' p50 / p99 ms | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        answers = f"{text(row.score_p50)} / {text(row.score_p99)}" if row.asked else ""
        lines.append(
            f"| {row.asked:,} | {row.reached:,} | {row.cpu:.2f} | {row.idle:.0f} "
            f"| {text(row.routing_median)} | {text(row.routing_worst)} | {answers} | {row.failed} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=15, help="of each rate")
    parser.add_argument("--rates", type=int, nargs="+", default=RATES)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="slipway-size-"))
    cores, rows = Cores.choose(), []
    try:
        with Programs(folder) as programs:
            port = free_port()
            socket = str(folder / "replica.sock")
            environment = {"REPLICA": f"serve {port} {socket}"}
            programs.start("replica", REPLICA, cores.load, environment)
            programs.answering("replica", port)
            ours = Ours(folder / "home", free_port(), cores.proxy, (f"unix:{socket}",) * 4, True)
            programs.on_exit(ours.close)
            pids = ours.start()
            worker = _worker(ours).pid
            target = answering(Target("router", ours.port, pids, KEY))
            for rate in arguments.rates:
                rows.append(measure(ours, worker, target, rate, arguments.seconds, cores.load))
                print(f"{rate}: {rows[-1]}", file=sys.stderr)
            ours.steady()
    except BenchError as error:
        print(f"bench/selfscale: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(rows))
    if arguments.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
