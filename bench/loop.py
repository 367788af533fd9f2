"""The control loop at scale; see `bench/loop`.

The cluster is a real folder written through the process driver's own files; the replicas in it are all
answered for by one small HAProxy, because ten thousand scoring servers do not fit a machine. The loop under
measurement is `router.run.run` in a process of its own, and somebody collects its telemetry each second, as
the controller does.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

import httpx  # noqa: E402
import psutil  # noqa: E402

from deployments.codec import to_json  # noqa: E402
from deployments.drivers.folder import StoredReplica  # noqa: E402
from deployments.drivers.process import ProcessDriver  # noqa: E402
from deployments.drivers.process_layout import write_json  # noqa: E402
from deployments.drivers.process_records import hint  # noqa: E402
from deployments.home import Home  # noqa: E402
from deployments.types import (  # noqa: E402
    AuthSpec,
    EnvironmentSpec,
    FileSpec,
    Phase,
    Replica,
    Resources,
    RevisionSpec,
    Scaling,
    ServiceSpec,
    VersionSpec,
)
from router.dataplane import Settings  # noqa: E402
from router.haproxy.process import HAProxy, find_binary  # noqa: E402
from router.loop import RouterLoop  # noqa: E402
from router.run import Place, run  # noqa: E402

CLUSTER = "local"
SPARE = 16  # backends for the services that come while it is measured
GOALS = {"cpu_percent": 25.0, "tick_ms": 250.0, "service_ms": 300.0, "replica_ms": 1200.0}


def spec(name: str, replicas: int) -> ServiceSpec:
    revision = RevisionSpec(
        service=name,
        number=1,
        source=FileSpec("project.zip", "0" * 64, 1),
        entry_script="score.py",
        models=(),
        environment=EnvironmentSpec("e" * 64, "/nowhere"),
    )
    scaling = Scaling(autoscale=True, minimum=replicas, maximum=replicas)
    return ServiceSpec(
        name=name,
        versions=(VersionSpec("default", revision, scaling),),
        auth=AuthSpec(key_enabled=False),
    )


class Cluster:
    """The folder of the cluster, and what an agent would write into it."""

    def __init__(self, home: Home, answering: Path) -> None:
        self.driver = ProcessDriver(home.cluster(CLUSTER))
        self.folder = self.driver.folder
        self.folder.ensure()
        self.answering = answering

    def fill(self, services: int, replicas: int) -> None:
        for index in range(services):
            name = f"service-{index:04d}"
            write_json(self.folder.service(name), to_json(spec(name, replicas)), sync=False)
            for number in range(replicas):
                self.replica(name, number)

    def replica(self, service: str, number: int, phase: Phase = Phase.READY) -> None:
        now = time.time()
        name = f"{service}-r1-{number}"
        record = Replica(
            id=name,
            service=service,
            version="default",
            revision=1,
            phase=phase,
            address=f"unix:{self.answering / f'{number}.sock'}",
            created_at=now,
            started_at=now,
            ready_at=now if phase is Phase.READY else None,
        )
        path = self.folder.replica_record(name)
        path.parent.mkdir(exist_ok=True)
        write_json(path, to_json(StoredReplica(record, Resources(cpu=0.0001))), sync=False)
        hint(self.folder.replicas)


@contextlib.contextmanager
def replicas_answering(folder: Path, count: int) -> Iterator[None]:
    """One HAProxy that says 200 on every replica's socket."""
    folder.mkdir(parents=True, exist_ok=True)
    binds = "\n".join(f"    bind unix@{folder / f'{number}.sock'}" for number in range(count))
    config = folder / "answering.cfg"
    config.write_text(
        f"global\n    maxconn 4000\ndefaults\n    mode http\n    timeout client 30s\n"
        f"    timeout connect 1s\n    timeout server 1s\nfrontend all\n{binds}\n"
        "    http-request return status 200 content-type application/json string {}\n",
        encoding="utf-8",
    )
    process = subprocess.Popen([find_binary(), "-db", "-f", config], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def serve(home: Path, port: int, backends: int, slots: int) -> None:
    """The process under measurement. Its turns' lengths are written when it ends."""
    turns: list[tuple[float, float]] = []
    whole = RouterLoop.guarded_cycle

    async def timed(loop: RouterLoop) -> None:
        began = time.time()
        await whole(loop)
        turns.append((began, time.time() - began))

    RouterLoop.guarded_cycle = timed  # type: ignore[method-assign]
    place = Place(CLUSTER, Home(home))
    settings = Settings("127.0.0.1", port, backends=backends, slots=slots, slot_folder=place.slots)
    asyncio.run(run(place, ProcessDriver(place.home.cluster(CLUSTER)), settings))
    (home / "turns.json").write_text(json.dumps(turns), encoding="utf-8")


class Collector(threading.Thread):
    """Asks for new telemetry each second, as the controller does."""

    def __init__(self, admin: Path) -> None:
        super().__init__(daemon=True)
        self.samples = 0
        self._admin, self._stop_asked = admin, threading.Event()

    def run(self) -> None:
        transport = httpx.HTTPTransport(uds=str(self._admin), verify=False)
        after, epoch = 0, ""
        with httpx.Client(transport=transport, base_url="http://router", timeout=10) as client:
            while not self._stop_asked.wait(1.0):
                with contextlib.suppress(httpx.HTTPError):
                    query = {"after": str(after), "epoch": epoch}
                    page = client.get("/telemetry", params=query).json()
                    after, epoch = page["next"], page["epoch"]
                    self.samples += len(page["samples"])

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def status(port: int, service: str) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        client.request("POST", f"/api/v1/service/{service}/score", body=b"{}")
        return client.getresponse().status
    except OSError:
        return 0
    finally:
        client.close()


def until(port: int, service: str, code: int, seconds: float) -> float:
    """Seconds until the service answers with this code."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        if status(port, service) == code:
            return time.perf_counter() - began
        time.sleep(0.003)
    raise SystemExit(f"gave up after {seconds:.0f} s: {service} answering {code}")


def new_services(cluster: Cluster, port: int, count: int) -> list[float]:
    """Milliseconds from `driver.apply` to the first 200; its replica is there and ready."""
    took = []
    for index in range(count):
        name = f"new-{index:04d}"
        cluster.replica(name, 0)
        time.sleep(1.0 + 0.137 * index % 1.0)  # at no fixed moment of a turn
        began = time.perf_counter()
        cluster.driver.apply(spec(name, 1))
        until(port, name, 200, 20)
        took.append((time.perf_counter() - began) * 1000)
        cluster.driver.remove(name)
    return took


def new_replicas(cluster: Cluster, port: int, count: int) -> list[float]:
    """Milliseconds from a replica's record saying ready to the first 200."""
    took = []
    for index in range(count):
        name = f"late-{index:04d}"
        cluster.replica(name, 0, Phase.LOADING)
        cluster.driver.apply(spec(name, 1))
        until(port, name, 503, 20)
        time.sleep(1.0 + 0.173 * index % 1.0)
        began = time.perf_counter()
        cluster.replica(name, 0)
        until(port, name, 200, 20)
        took.append((time.perf_counter() - began) * 1000)
        cluster.driver.remove(name)
    return took


def settled(admin: Path, haproxy: HAProxy, expected: int) -> None:
    """Wait until every replica stands in the router."""
    end = time.time() + 300
    transport = httpx.HTTPTransport(uds=str(admin), verify=False)
    with httpx.Client(transport=transport, base_url="http://router", timeout=30) as client:
        while time.time() < end:
            with contextlib.suppress(httpx.HTTPError, OSError):
                ready = sum(
                    float(line.rpartition(" ")[2])
                    for line in client.get("/metrics").text.splitlines()
                    if line.startswith("slipway_replicas{") and 'state="ready"' in line
                )
                if ready >= expected:
                    return
            time.sleep(1)
    raise SystemExit("gave up after 300 s: all replicas in rotation")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    slots = arguments.replicas + 2
    needed = (arguments.services + SPARE) * slots + 1_000
    if hard != resource.RLIM_INFINITY and needed > hard:
        fits = (hard - 1_000) // slots - SPARE
        raise SystemExit(
            f"{needed} descriptors are needed and {hard} allowed: {fits} services of "
            f"{arguments.replicas} replicas fit. Raise the limit (`ulimit -Hn`) or ask for fewer."
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    root = Path(tempfile.mkdtemp(prefix="slipway-loop-"))
    home = Home(root)
    home.ensure()
    place = Place(CLUSTER, home)
    loop: subprocess.Popen[bytes] | None = None
    haproxy = HAProxy(find_binary(), place.paths)
    try:
        with replicas_answering(root / "answering", arguments.replicas):
            cluster = Cluster(home, root / "answering")
            cluster.fill(arguments.services, arguments.replicas)
            began = time.time()
            backends = arguments.services + SPARE
            with (root / "loop.log").open("wb") as said:
                loop = subprocess.Popen(
                    [
                        sys.executable,
                        __file__,
                        "--serve",
                        root,
                        str(port),
                        str(backends),
                        str(slots),
                    ],
                    stderr=said,
                )
            settled(place.admin_socket, haproxy, arguments.services * arguments.replicas)
            started = time.time() - began
            collector = Collector(place.admin_socket)
            collector.start()
            time.sleep(arguments.warm)
            process, master = psutil.Process(loop.pid), haproxy.running()
            assert master is not None
            family = [master, *master.children()]
            before = [sum(item.cpu_times()[:2]) for item in (process, *family)]
            counted, since = collector.samples, time.time()
            time.sleep(arguments.seconds)
            span = time.time() - since
            after = [sum(item.cpu_times()[:2]) for item in (process, *family)]
            used = [(b - a) / span * 100 for a, b in zip(before, after, strict=True)]
            samples = (collector.samples - counted) / span
            memory = [item.memory_info().rss / 2**20 for item in (process, *family)]
            services = new_services(cluster, port, arguments.times)
            replicas = new_replicas(cluster, port, arguments.times)
            collector.stop()
            loop.send_signal(signal.SIGTERM)
            loop.wait(timeout=60)
            turns = json.loads((root / "turns.json").read_text(encoding="utf-8"))
            steady = sorted(took for at, took in turns if since <= at < since + span)
            return {
                "services": arguments.services,
                "replicas": arguments.services * arguments.replicas,
                "cpu_percent": round(used[0], 1),
                "tick_p50_ms": round(statistics.median(steady) * 1000, 1),
                "tick_p99_ms": round(steady[int(len(steady) * 0.99)] * 1000, 1),
                "tick_max_ms": round(steady[-1] * 1000, 1),
                "turns_per_second": round(len(steady) / span, 2),
                "samples_per_second": round(samples),
                "loop_rss_mb": round(memory[0]),
                "haproxy_rss_mb": round(sum(memory[1:])),
                "haproxy_cpu_percent": round(sum(used[1:]), 1),
                "all_in_rotation_s": round(started, 1),
                "new_service_ms": _spread(services),
                "new_replica_ms": _spread(replicas),
                "descriptors": needed,
            }
    finally:
        if loop is not None and loop.poll() is None:
            loop.kill()
            loop.wait()
        haproxy.stop(0.5)
        if arguments.keep:
            print(root)
        else:
            shutil.rmtree(root, ignore_errors=True)


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50": round(statistics.median(values), 1), "max": round(max(values), 1)}


def show(found: dict[str, Any]) -> None:
    service, late = found["new_service_ms"], found["new_replica_ms"]
    rows = (
        ("loop, share of one core", f"{found['cpu_percent']} %", "< 25 %"),
        ("turn p50 / p99 / max", f"{found['tick_p50_ms']} / {found['tick_p99_ms']} / "
         f"{found['tick_max_ms']} ms", "< 250 ms"),
        ("new service answers after apply, median / max", f"{service['p50']} / {service['max']} ms",
         "< 300 ms"),
        ("new replica in rotation after ready, median / max", f"{late['p50']} / {late['max']} ms",
         "< 1,200 ms"),
        ("HAProxy's memory / share of one core", f"{found['haproxy_rss_mb']} MiB / "
         f"{found['haproxy_cpu_percent']} %", ""),
        ("loop's memory", f"{found['loop_rss_mb']} MiB", ""),
        ("turns / samples a second", f"{found['turns_per_second']} / "
         f"{found['samples_per_second']}", ""),
        ("from nothing to all in rotation", f"{found['all_in_rotation_s']} s", ""),
    )  # fmt: skip
    print(f"{found['services']:,} services, {found['replicas']:,} replicas, steady")
    for what, value, goal in rows:
        print(f"  {what:<52}{value:<26}{goal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=1_000)
    parser.add_argument("--replicas", type=int, default=10, help="of each service")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="measured while nothing changes"
    )
    parser.add_argument("--warm", type=float, default=15.0, help="seconds before that")
    parser.add_argument("--times", type=int, default=20, help="new services, and new replicas")
    parser.add_argument("--quick", action="store_true", help="15 s and 5 times")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        home, port, backends, slots = arguments.serve
        serve(Path(home), int(port), int(backends), int(slots))
        return
    if arguments.quick:
        arguments.seconds, arguments.warm, arguments.times = 15.0, 8.0, 5
    found = measure(arguments)
    show(found)
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
