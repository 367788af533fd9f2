"""Runs the sizes one after another and tells what each cost; see `bench/scale`."""

import argparse
import bisect
import contextlib
import itertools
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.clusterscale.apiserver import Server
from bench.clusterscale.cluster import Cluster
from bench.clusterscale.report import show
from bench.clusterscale.shapes import CLUSTER
from bench.routing.processes import BenchError, free_port
from deployments.home import Home
from deployments.kube import access
from deployments.kube.api import Kube
from router.dataplane import Settings as RouterSettings
from router.haproxy.process import HAProxy, find_binary
from router.run import Place

_READY_SECONDS = 600
_SETTLE = 5.0  # seconds between two parts
_PODS_A_SECOND = 20


@dataclass
class Run:
    """The loop under measurement with its HAProxy."""

    process: subprocess.Popen[bytes]
    haproxy: HAProxy
    diary: Path
    began: float

    def lines(self, since: float = 0.0, until: float = float("inf")) -> list[dict[str, Any]]:
        found = []
        for text in self.diary.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last one is being written
                line = json.loads(text)
                if since <= line["at"] < until:
                    found.append(line)
        return found

    def wait(self, what: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first turn of which this is true."""
        end = time.time() + _READY_SECONDS
        while time.time() < end:
            if self.process.poll() is not None:
                raise BenchError(
                    f"the loop ended: {self.diary.with_suffix('.log').read_text()[-3000:]}"
                )
            for line in self.lines() if self.diary.exists() else ():
                if done(line):
                    return line
            time.sleep(0.5)
        said = self.diary.with_suffix(".log").read_text()[-3000:]
        raise BenchError(f"gave up after {_READY_SECONDS} s: {what}. The loop said: {said}")

    def haproxy_now(self) -> tuple[float, float]:
        """CPU seconds and resident MiB of all of its processes."""
        master = self.haproxy.running()
        if master is None:
            return 0.0, 0.0
        cpu = rss = 0.0
        for process in (master, *master.children()):
            with contextlib.suppress(psutil.Error):
                cpu += sum(process.cpu_times()[:2])
                rss += process.memory_info().rss / 2**20
        return cpu, rss


@contextlib.contextmanager
def running(kubeconfig: Path, root: Path, slots: int) -> Iterator[Run]:
    home = Home(root / "home")
    home.ensure()
    place = Place(CLUSTER, home)
    haproxy = HAProxy(find_binary(), place.paths)
    config, diary = root / "serve.json", root / "diary.jsonl"
    diary.unlink(missing_ok=True)
    ports = {name: free_port() for name in ("port", "tls_port", "peer_port", "admin_port")}
    given = {"home": str(root / "home"), "diary": str(diary), "kubeconfig": str(kubeconfig)}
    config.write_text(json.dumps(given | ports | {"slots": slots}))
    with diary.with_suffix(".log").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.clusterscale.serve", config], stderr=said
        )
    run = Run(process, haproxy, diary, time.time())
    try:
        yield run
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        haproxy.stop(0.5)


@contextlib.contextmanager
def answering(folder: Path) -> Iterator[int]:
    """One HAProxy that says 200 at every pod's address, on the loop device alone; its port."""
    port = free_port()
    config = folder / "answering.cfg"
    config.write_text(
        "global\n    maxconn 8000\ndefaults\n    mode http\n    timeout client 30s\n"
        "    timeout connect 1s\n    timeout server 1s\n"
        f"frontend all\n    bind 0.0.0.0:{port} interface lo\n"
        "    http-request return status 200 content-type application/json string {}\n",
        encoding="utf-8",
    )
    process = subprocess.Popen([find_binary(), "-db", "-f", config], start_new_session=True)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def part(
    run: Run, seconds: float, cluster: Cluster, each: Callable[[int], object] | None = None
) -> dict[str, Any]:
    """What a stretch of time costs in which `each` is done once a second."""
    time.sleep(_SETTLE)
    cpu, _ = run.haproxy_now()
    began, late, did = time.time(), 0, 0
    while time.time() - began < seconds:
        due = began + did + 1
        if each is not None:
            each(did)
            cluster.bury()
        did += 1
        late += time.time() > due
        time.sleep(max(0.0, due - time.time()))
    ended = time.time()
    after, rss = run.haproxy_now()
    time.sleep(2.0)  # for what became ready last
    lines = run.lines(began, ended)
    if len(lines) < 2:
        raise BenchError("the loop did not turn")
    span, first, last = lines[-1]["at"] - lines[0]["at"], lines[0], lines[-1]
    turns = sorted(line["took"] for line in lines)
    # of CPU and by count: these hold on a busy machine too
    used = sorted(two["cpu"] - one["cpu"] for one, two in itertools.pairwise(lines))
    events = last["events"] - first["events"]
    found: dict[str, Any] = {
        "seconds": round(span, 1),
        "loop_cpu_percent": round((last["cpu"] - first["cpu"]) / span * 100, 1),
        "haproxy_cpu_percent": round(max(after - cpu, 0.0) / (ended - began) * 100, 1),
        "turn_p50_ms": _ms(statistics.median(turns)),
        "turn_p99_ms": _ms(turns[int(len(turns) * 0.99)]),
        "turn_most_ms": _ms(turns[-1]),
        "turn_cpu_p50_ms": _ms(statistics.median(used)),
        "turn_cpu_p99_ms": _ms(used[int(len(used) * 0.99)]),
        "turns_a_second": round(len(lines) / span, 2),
        "loop_rss_mib": round(last["rss"] / 2**20),
        "haproxy_rss_mib": round(rss),
        "reloads_a_minute": round((last["reloads"] - first["reloads"]) / span * 60, 1),
        "old_workers_most": max(line["old"] for line in lines),
        "commands": last["told"] - first["told"],
        "events_a_second": round(events / span, 1),
        "bytes_an_event": round((last["bytes"] - first["bytes"]) / events) if events else 0,
    }
    if each is not None:
        found |= {"done": did, "late": late} | lags(cluster.ready_at, run.lines(began), began)
    return found


def lags(
    ready_at: dict[str, float], lines: Sequence[dict[str, Any]], began: float
) -> dict[str, Any]:
    """From a pod's being ready to its slot, in time and in the loop's turns that began in between."""
    number = {name: index for index, line in enumerate(lines) for name in line["joined"]}
    begins = [line["at"] for line in lines]
    seconds, turns, asked = [], [], 0
    for name, at in ready_at.items():
        if at < began:
            continue
        asked += 1
        if (index := number.get(name)) is not None:
            # a turn that had begun already may have seen it
            seconds.append(max(0.0, begins[index] + lines[index]["took"] - at))
            turns.append(max(1, index + 1 - bisect.bisect_left(begins, at)))
    found: dict[str, Any] = {"became_ready": asked, "were_given_a_slot": len(seconds)}
    if seconds:
        found |= {
            "lag_p50_ms": _ms(statistics.median(seconds)),
            "lag_p99_ms": _ms(sorted(seconds)[int(len(seconds) * 0.99)]),
            "lag_turns_p50": statistics.median_low(turns),
            "lag_turns_p99": sorted(turns)[int(len(turns) * 0.99)],
        }
    return found


def restart(run: Run, server: Server, cluster: Cluster) -> dict[str, Any]:
    """The API server dies and is started again, and a pod comes meanwhile that the loop has not seen."""
    before = run.lines()[-1]
    began = time.time()
    server.kill()
    up = server.serve()
    name = cluster.add_pod("service-00000")
    seen = run.wait("the new pod is seen", lambda line: name in line["joined"])
    time.sleep(3)
    after = run.lines()[-1]
    cluster.end_pod("service-00000")
    cluster.bury(all_of_them=True)
    return {
        "api_up_s": round(up, 1),
        "seen_after_s": round(seen["at"] + seen["took"] - began - up, 1),
        "loop_rss_before_mib": round(before["rss"] / 2**20),
        "loop_rss_most_mib": round(after["most"] / 2**20),
        "loop_cpu_s": round(after["cpu"] - before["cpu"], 1),
    }


def measure(
    cluster: Cluster,
    server: Server | None,
    kubeconfig: Path,
    root: Path,
    size: tuple[int, int],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """One size, in a cluster that may hold a smaller one already."""
    services, replicas = size
    found: dict[str, Any] = {"services": services, "replicas": services * replicas}
    found["filled_in_s"] = round(cluster.fill(services, replicas), 1)
    found["largest_bytes"] = dict(sorted(cluster.largest.items()))
    told = subprocess.run(
        [sys.executable, "-m", "bench.clusterscale.look", kubeconfig],
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    if told.returncode:
        raise BenchError(told.stderr[-3000:])
    found["look"] = json.loads(told.stdout.splitlines()[-1])
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = descriptors(services, arguments.slots)
    if allowed != resource.RLIM_INFINITY and needed > allowed:
        found["not_routed"] = f"HAProxy needs {needed} descriptors and {allowed} are allowed"
        return found
    with running(kubeconfig, root, arguments.slots) as run:
        first = run.wait("the cluster is seen", lambda line: line["seen"] is not None)
        whole = run.wait(
            "all replicas have a slot", lambda line: line["standing"] >= services * replicas
        )
        config = Place(CLUSTER, Home(root / "home")).paths.config
        found["start"] = {
            "seen_s": round(first["seen"] - run.began, 1),
            "routed_s": round(whole["at"] + whole["took"] - run.began, 1),
            "cpu_s": round(whole["cpu"], 1),
            "turn_s": round(whole["took"], 1),
            "loop_rss_most_mib": round(whole["most"] / 2**20),
            "reloads": whole["reloads"],
            "haproxy_cfg_kib": config.stat().st_size // 1024,
        }
        seconds = arguments.seconds
        found["steady"] = part(run, seconds, cluster)
        chosen = list(cluster.deployments)[:services]

        def replaced(turn: int) -> None:
            start = turn * _PODS_A_SECOND
            cluster.replace_pods(
                [chosen[(start + n) * 7 % services] for n in range(_PODS_A_SECOND)]
            )

        found["pods_replaced"] = part(run, seconds, cluster, replaced)
        cluster.bury(all_of_them=True)

        def scaled(turn: int) -> None:
            cluster.scale(chosen[turn // 2 % services], replicas + (1 - turn % 2))

        found["scaled"] = part(run, seconds, cluster, scaled)
        cluster.bury(all_of_them=True)

        def added(turn: int) -> None:
            name = f"new-{services}-{turn:05d}"
            cluster.deploy(name, 1)
            cluster.add_pod(name)

        found["services_added"] = part(run, seconds, cluster, added)
        if server is not None:
            found["restart"] = restart(run, server, cluster)
        for name in [name for name in cluster.deployments if name.startswith("new-")]:
            cluster.driver.remove(name)
            while cluster.pods[name]:
                cluster.end_pod(name)
            del cluster.deployments[name]
        cluster.bury(all_of_them=True)
    if server is not None:
        found["servers"] = server.figures()
    found["load_average"] = round(os.getloadavg()[0], 1)
    return found


def descriptors(services: int, slots: int) -> int:
    """How many HAProxy asks for, with backends for these services: one for each slot's check, two for each
    connection (at least 100 are taken), and its own."""
    pool = RouterSettings("", 0).backends
    while pool < services:
        pool += min(pool, 256)
    return pool * slots + 700


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _size(text: str) -> tuple[int, int]:
    services, _, replicas = text.partition("x")
    return int(services), int(replicas)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/scale", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--binaries", type=Path, help="where kube-apiserver (and etcd) is")
    where.add_argument("--kubeconfig", type=Path, help="of an API server that holds nothing")
    parser.add_argument("--sizes", type=_size, nargs="+", help="services x replicas of each")
    parser.add_argument("--services", type=int, default=1_000)
    parser.add_argument("--replicas", type=int, default=10, help="of each service")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each part")
    parser.add_argument(
        "--slots", type=int, default=32, help="of each backend of HAProxy; SLIPWAY_ROUTER_SLOTS"
    )
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    parser.add_argument("--keep", action="store_true", help="leave logs and diary")
    arguments = parser.parse_args()
    sizes = arguments.sizes or [(arguments.services, arguments.replicas)]
    # what was started is ended then too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = Path(tempfile.mkdtemp(prefix="slipway-scale-"))
    found: list[dict[str, Any]] = []
    server: Server | None = None
    try:
        if arguments.binaries is not None:
            server = Server(arguments.binaries, root)
            server.start()
        kubeconfig = arguments.kubeconfig or root / "kubeconfig"
        kube = Kube(access.parse(kubeconfig.read_text(encoding="utf-8")), seconds=70)
        with answering(root) as port:
            cluster = Cluster(kube, port)
            cluster.refuse_others()
            try:
                cluster.begin()
                for size in sizes:
                    found.append(measure(cluster, server, kubeconfig, root, size, arguments))
                    show(found[-1])
                    sys.stdout.flush()
            finally:
                if server is None:
                    cluster.clear()
    except BenchError as error:
        raise SystemExit(str(error)) from error
    finally:
        if server is not None:
            server.stop()
        if arguments.keep:
            print(root)
        else:
            shutil.rmtree(root, ignore_errors=True)
        if arguments.json and found:
            print(json.dumps(found))


if __name__ == "__main__":
    main()
