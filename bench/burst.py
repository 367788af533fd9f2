"""A burst against a real Slipway in a home of its own, beside its prediction; see `bench/burst`."""

import argparse
import http.client
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from surge import CHECKOUT, SCRIPT, Bench, free_port, manage, wait

sys.path.insert(0, str(CHECKOUT))

from bench.burst_prediction import Burst, Figures, compared, predict

PAGE = CHECKOUT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench/burst -->\n", "<!-- end of bench/burst -->"
SERVICE_SECONDS = 0.2
BACK_OFF = 0.5  # seconds after a 503
PAUSE = 0.5  # of the one client that goes on after the burst
IDLE = 5.0  # seconds before it


@dataclass
class Client:
    """One caller with a connection of its own. `answers` holds (when asked, seconds, status)."""

    uri: str
    key: str
    answers: list[tuple[float, float, int]] = field(default_factory=list)
    connection: http.client.HTTPConnection | None = None

    def ask(self) -> int:
        began, status = time.time(), 0
        parts = urlsplit(self.uri)
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(parts.netloc, timeout=30)
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            self.connection.request("POST", parts.path, b'{"data": [1]}', headers)
            answer = self.connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            self.connection = None  # 0: no answer at all, which is what must not happen
        self.answers.append((began, time.time() - began, status))
        return status

    def until(self, end: float) -> None:
        while time.time() < end:
            if self.ask() != 200:
                time.sleep(BACK_OFF)


class Replicas(threading.Thread):
    """Looks at the cluster's own records: when each replica was asked for, and when it was ready."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        from deployments.drivers.process import ProcessDriver

        self.starts: dict[str, tuple[float, float]] = {}
        self._driver, self._stop_asked = ProcessDriver(folder), threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(0.25):
            for service in self._driver.observe().services:
                for item in service.replicas:
                    if item.ready_at is not None and item.restarts == 0:
                        self.starts[item.id] = (item.created_at, item.ready_at)

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def burst(bench: Bench, home: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    from deployments.services.models import Service

    uri = Service.objects.select_related("cluster").get(name="sleeper").scoring_uri
    clients = [Client(uri, bench.key("sleeper")) for _ in range(chosen.clients)]
    alone = clients[0]
    for _ in range(5):
        alone.ask()
    service_seconds = statistics.median(seconds for _, seconds, _ in alone.answers)
    alone.answers.clear()
    time.sleep(IDLE)
    watching = Replicas(home / "clusters" / "local")
    watching.start()
    began = time.time()
    threads = [
        threading.Thread(target=item.until, args=(began + chosen.seconds,)) for item in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    during = [answer for item in clients for answer in item.answers]
    alone.answers.clear()
    down = wait("the way down", 300, lambda: _quiet(bench, alone, began, whole=not chosen.quick))
    ended = time.time()
    watching.stop()
    time.sleep(2)  # the collector's last second
    rows = [row for row in bench.seconds(began) if int(began) <= row.at < int(ended)]
    decisions = bench.decisions(began)
    ready: list[float] = []
    for row in rows:
        ready += [row.at + 1 - began] * max(round(row.ready) - 1 - len(ready), 0)
    first = next((item.at for item in decisions if item.after > item.before), None)
    starts = [(at, done) for at, done in watching.starts.values() if at >= began]
    real = Figures(
        asked=None if first is None else first - began,
        replicas=round(max(row.ready for row in rows)),
        ready=tuple(ready),
        requests=len(during),
        rejected=sum(status == 503 for _, _, status in during),
        replica_seconds=sum(float(row.ready + row.starting) for row in rows),
        down=down - began,
        lost=sum(status != 200 for _, _, status in alone.answers),
    )
    asked = Burst(
        clients=chosen.clients,
        seconds=chosen.seconds,
        after=ended - began - chosen.seconds,
        service_seconds=service_seconds,
        start_seconds=statistics.mean([done - at for at, done in starts] or [0.0]),
        maximum=chosen.maximum,
        back_off=BACK_OFF,
        pause=PAUSE,
    )
    told = predict(asked)
    return {
        "measured": asdict(real) | {"rejected_share": round(real.rejected_share, 4)},
        "predicted": asdict(told) | {"rejected_share": round(told.rejected_share, 4)},
        "within_15_percent": compared(real, told),
        "setting": asdict(asked),
        "ready_by_records_s": sorted(round(done - began, 2) for _, done in starts),
        "codes": {str(code): n for code, n in sorted(_codes(during).items())},
        "decisions": [
            (round(item.at - began, 2), item.before, item.after, item.reason) for item in decisions
        ],
    }


def _quiet(bench: Bench, client: Client, began: float, *, whole: bool) -> float | None:
    """Goes on asking now and then. When the first step down came, once all of them have (or one)."""
    client.ask()
    time.sleep(PAUSE)
    steps = [item for item in bench.decisions(began) if item.after < item.before and item.applied]
    rows = bench.seconds(steps[-1].at) if steps else []
    if not rows or (whole and steps[-1].after > 1) or round(rows[-1].ready) > steps[-1].after:
        return None
    return float(steps[0].at)


def _codes(answers: list[tuple[float, float, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for _, _, status in answers:
        found[status] = found.get(status, 0) + 1
    return found


def table(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What, measured, predicted, and whether they agree (or the goal)."""
    real, told, near = result["measured"], result["predicted"], result["within_15_percent"]

    def seconds(value: float | None) -> str:
        return "never" if value is None else f"{value:.2f} s"

    def agree(name: str) -> str:
        return "within 15 %" if near[name] else "not within 15 %"

    at = (real["ready"], told["ready"])
    rows = [("time to the scale call", seconds(real["asked"]), seconds(told["asked"]),
             f"{agree('asked')} or a turn; goal < 1.0 s")]  # fmt: skip
    rows += [
        (f"replica {number + 2} ready", *(seconds(_nth(item, number)) for item in at), "")
        for number in range(max(map(len, at)))
    ]
    rows += [
        ("most replicas ready", str(real["replicas"]), str(told["replicas"]), agree("replicas")),
        ("requests of the burst", f"{real['requests']:,}", f"{told['requests']:,}", ""),
        ("rejected", f"{real['rejected']:,} ({real['rejected_share']:.1%})",
         f"{told['rejected']:,} ({told['rejected_share']:.1%})",
         f"{agree('rejected_share')} or half a percent of all"),
        ("replica-hours", f"{real['replica_seconds'] / 3600:.4f}",
         f"{told['replica_seconds'] / 3600:.4f}", agree("replica_seconds")),
        ("first step down", seconds(real["down"]), seconds(told["down"]), ""),
        ("lost on the way down", str(real["lost"]), str(told["lost"]), "goal 0"),
    ]  # fmt: skip
    return rows


def _nth(items: tuple[float, ...], index: int) -> float | None:
    return items[index] if index < len(items) else None


def settings_line(result: dict[str, Any]) -> str:
    at = result["setting"]
    return (
        f"{at['clients']} clients for {at['seconds']:.0f} s, at most {at['maximum']} replicas. "
        f"A request takes {at['service_seconds'] * 1000:.0f} ms (measured idle), a start "
        f"{at['start_seconds']:.1f} s (mean of this burst's); the prediction is made with both."
    )


def report(result: dict[str, Any]) -> None:
    print(settings_line(result))
    print(f"{'':<28}{'measured':>16}{'predicted':>16}")
    for what, real, told, note in table(result):
        print(f"{what:<28}{real:>16}{told:>16}  {note}")
    print("answers of the burst: " + ", ".join(f"{c}: {n}" for c, n in result["codes"].items()))
    for at, before, after, reason in result["decisions"]:
        print(f"  {at:7.2f} s  {before} -> {after}  {reason}")


def write_page(result: dict[str, Any]) -> None:
    """Put the table between this bench's two marks of the page."""
    lines = [("", "measured", "predicted", ""), ("---",) * 4, *table(result)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{PAGE.name} lacks the marks {BEGIN.strip()} and {END}")
    PAGE.write_text(
        f"{before}{BEGIN}\n{settings_line(result)}\n\n{body}\n\n{END}{after}", encoding="utf-8"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="15 s of load, and only the first step down"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--maximum", type=int, default=10, help="replicas, most")
    parser.add_argument("--keep", action="store_true", help="leave it running")
    chosen = parser.parse_args()
    chosen.seconds = 15.0 if chosen.quick else 60.0
    home = Path(tempfile.mkdtemp(prefix="slipway-burst-"))
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "SLIPWAY_HOME": str(home),
        "SLIPWAY_PORT": str(free_port()),
        "SLIPWAY_ROUTER_PORT": str(free_port()),
        "SLIPWAY_SEED": "False",
    }
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # what was brought up goes down all the same
    manage("up", "--detach")
    try:
        import django

        django.setup()
        bench = Bench(SCRIPT.replace("time.sleep(0.1)", f"time.sleep({SERVICE_SECONDS})"))
        config = {"autoscale_max_replicas": chosen.maximum, "memory_gb": 0.2}
        bench.deploy("sleeper", config)
        result = burst(bench, home, chosen)
        report(result)
        if chosen.markdown:
            write_page(result)
        if chosen.json:
            print(json.dumps(result))
    finally:
        if chosen.keep:
            print(f"Still running; SLIPWAY_HOME={home} scripts/stop")
        else:
            manage("down", "--quiet")
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
