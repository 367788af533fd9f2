"""Nothing is lost: 500 requests a second while everything around them is changed or killed.

One Slipway, all of it real (Redis, web, worker, controller, agent, the router's loop, HAProxy, gunicorn
in replicas), but for the scoring server's application: `light_server` stands in for it, because 500
requests a second through Azure's take a whole core, and starting a hundred replicas of it hours.

Each test holds the load for at least a minute, so that one streamed answer of 60 s lives through all of
what it does. It prints its figures on one line; `docs/reliability.md` has them in a table.
"""

import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import BinaryIO

import httpx
import psutil
import pytest

from deployments.agent.processes import kill_all_of
from deployments.errors import SlipwayError
from deployments.home import Home
from deployments.registry.blobs import storage_name
from deployments.types import Phase, RouteState, Scaling, ServiceSpec
from tests.e2e.load import Load, Plan, Report
from tests.e2e.processes import Processes

pytestmark = [pytest.mark.faults, pytest.mark.timeout(420)]

# 500 requests a second of 20 ms are 10 at a time. Three replicas of twelve hold 36, so one may be away;
# few replicas of several workers, because it is their starts that cost the machine most.
RATE = 500
LEAST, MOST, AT_A_TIME = 3, 7, 12
ROUND = (*range(LEAST + 1, MOST + 1), *range(MOST - 1, LEAST - 1, -1))
SCRIPT = """
import json, os, time

def init():
    global begun
    begun = os.open(f"{FOLDER}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def taken():
    os.write(begun, b"+\\n")

def run(data):
    asked = json.loads(data)
    if "ticks" in asked:
        return ticks(**asked)
    os.write(begun, b"%d\\n" % asked["n"])
    time.sleep(0.02)
    return json.dumps({"n": asked["n"], "by": BY})

def ticks(ticks, every):
    os.write(begun, b"stream\\n")
    for number in range(ticks):
        yield f"data: {number} {time.time()}\\n\\n"
        time.sleep(every)
"""


class Town(Processes):
    """All of Slipway with one busy service, `work`."""

    controller_options = ()

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.begun = home / "begun"
        self.begun.mkdir()
        self.key = ""
        self.revisions = 0

    def script(self) -> str:
        """The entry script of the next revision: it writes down what it begins, and says who it is."""
        self.revisions += 1
        return f"FOLDER = {str(self.begun)!r}\nBY = 'r{self.revisions}'\n{SCRIPT}"

    def update(self, **config: object) -> None:
        """Deploy the next revision of `work` through the portal, and follow it to its end."""
        wanted = self.deploy("work", self.script(), **config)
        self.wait_for("the update", lambda: self.row(wanted)["state"] in ("succeeded", "failed"))
        assert self.row(wanted)["state"] == "succeeded", self.row(wanted)

    def inside(self, service: str = "work") -> set[str]:
        """The replicas that the router says take requests."""
        with suppress(SlipwayError):
            if (report := self.driver.routes()) is not None:
                ids = {r.replica for r in report.routes if r.state is RouteState.IN_ROTATION}
                return ids & {r.id for r in self.replicas(service) if r.phase is Phase.READY}
        return set()

    def scale(self, count: int) -> None:
        """Have so many replicas of `work`; a fixed count, in which the autoscaler has no say."""
        spec = self.driver.specs()["work"]
        scaling = Scaling(autoscale=False, minimum=count, maximum=count)
        versions = (replace(spec.versions[0], scaling=scaling),)
        self.driver.apply(replace(spec, versions=versions, generation=spec.generation + 1))

    def settle(self, count: int = LEAST) -> None:
        """Have so many replicas of `work`, and wait until they and no others are there."""
        self.scale(count)
        self.wait_for(
            f"{count} replicas in rotation",
            lambda: len(self.inside()) == len(self.replicas("work")) == count,
        )

    def printed(self, name: str, text: str) -> int:
        """How often a process has written this."""
        return (self.home / f"{name}.out").read_text().count(text)

    def restart(self, name: str, pause: float = 0.0) -> None:
        self.kill(name)
        time.sleep(pause)
        self.start(name)

    def stop(self, name: str) -> None:
        process = self.running.pop(name)
        process.terminate()
        process.wait(30)

    @contextmanager
    def load(self) -> Iterator[Load]:
        """A load that runs for as long as the block; one that is not stopped in it is killed."""
        made = Load(Plan(self.router_port, "/api/v1/service/work/score", self.key, RATE))
        try:
            time.sleep(2)
            yield made
        finally:
            made.close()

    def said(self) -> str:
        """The end of what the processes wrote; not the replicas, of which there are hundreds."""
        return "\n".join(
            f"== {path}\n{path.read_text()[-4000:]}" for path in self.home.glob("*.out")
        )

    def close(self) -> None:
        super().close()
        self.manage("stop_router", "local", "--wait", "1")
        shutil.rmtree(Home(self.home).run, ignore_errors=True)


class Store:
    """The content store of a home, for staging revisions without a database."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def local_path(self, sha256: str) -> Path:
        return self._home / "store" / storage_name(sha256)

    def open(self, sha256: str) -> BinaryIO:
        return self.local_path(sha256).open("rb")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    made = Town(tmp_path_factory.mktemp("home"))
    try:
        made.prepare("light")
        made.start("redis", "agent", "router", "worker", "controller", "web")
        made.update(
            num_replicas=LEAST,
            replica_max_concurrent_requests=AT_A_TIME,
            # patient: a machine that is short of time is no fault, and waits are in the figures
            max_request_wait_time=15_000,
            scoring_timeout_ms=5000,
            cpu_cores=0.02,
            memory_gb=0.1,
            period_seconds=1,
            timeout_seconds=1,
            failure_threshold=2,
        )
        made.key = str(made.ask(do="key", name="work"))
        yield made
    finally:
        made.close()


@pytest.fixture
def town(built: Town) -> Town:
    """With everything running and as many replicas as there should be, whatever went before."""
    for name in ("redis", "agent", "router", "worker", "controller", "web"):
        if name not in built.running or built.running[name].poll() is not None:
            built.start(name)
    built.settle()
    return built


@contextmanager
def beside(step: Callable[[], object], pause: float) -> Iterator[None]:
    """Do something again and again in a thread while the block runs."""
    done = threading.Event()
    trouble: list[Exception] = []

    def again() -> None:
        try:
            while not done.wait(pause):
                step()
        except Exception as error:  # noqa: BLE001  the thread that waits for this one says it
            trouble.append(error)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(60)
    assert not trouble, trouble


def evenly(times: int, seconds: float) -> Iterator[int]:
    """Count to `times`, each at its moment of these seconds or as soon after it as may be."""
    begun = time.monotonic()
    for number in range(times):
        time.sleep(max(begun + number * seconds / times - time.monotonic(), 0.0))
        yield number


def say(what: str, report: Report) -> None:
    print(f"\nFAULTS {what}: {report.line}", flush=True)


def nothing_lost(town: Town, what: str, report: Report) -> None:
    say(what, report)
    trouble = report.trouble()
    assert not trouble, f"{what}\n{trouble}\n{town.said()}"
    _whole_stream(report)
    # else it was not the load it says it was
    assert report.skipped < report.requests / 100, report.line
    assert report.requests > 0.95 * RATE * report.seconds, report.line


def swinging(town: Town) -> Callable[[], None]:
    """Each call moves the count one step up or down between the least and the most."""
    counts = cycle(ROUND)
    return lambda: town.scale(next(counts))


def test_200_scale_changes(town):
    taken: set[str] = set()
    with town.load() as load:
        for count in islice(cycle(ROUND), 200):
            town.scale(count)
            if count in (LEAST, MOST):
                town.wait_for("the count", lambda c=count: len(town.inside()) == c, 60)
                taken |= town.inside()
            time.sleep(0.1)
        report = load.stop()
    nothing_lost(town, f"(a) 200 scale changes, {len(taken)} replicas took part", report)
    assert len(taken) > 90


def test_50_other_services_come_and_go(town):
    """Every other one with another patience of its queue than the rest, for which HAProxy reloads."""
    spec = town.driver.specs()["work"]
    answered: set[str] = set()
    added: list[str] = []

    def other(number: int) -> ServiceSpec:
        name = f"other-{number}"
        version = spec.versions[0]
        revision = replace(
            version.revision,
            service=name,
            number=1,
            concurrency=1,
            max_request_wait_ms=(500, 700)[number % 2],
        )
        town.driver.stage(revision, Store(town.home))
        scaling = Scaling(autoscale=False, minimum=1, maximum=1)
        return replace(
            spec, name=name, versions=(replace(version, revision=revision, scaling=scaling),)
        )

    def ask(client: httpx.Client, name: str) -> None:
        with suppress(httpx.HTTPError):
            answer = client.post(f"/api/v1/service/{name}/score", json={"n": 1})
            if answer.status_code == 200:
                answered.add(name)

    def remove(most: int) -> bool:
        """Ask those that have not answered yet, and remove the oldest that have, down to `most`."""
        for name in [name for name in added if name not in answered]:
            ask(client, name)
        for name in [name for name in added if name in answered][: max(len(added) - most, 0)]:
            town.driver.remove(name)
            added.remove(name)
        return not added

    with (
        town.load() as load,
        httpx.Client(
            base_url=f"http://127.0.0.1:{town.router_port}",
            headers={"Authorization": f"Bearer {town.key}"},
            timeout=5,
        ) as client,
    ):
        for number in evenly(50, 60):
            made = other(number)
            town.driver.apply(made)
            added.append(made.name)
            remove(6)
        town.wait_for("the last answers", lambda: remove(0))
        report = load.stop()
    nothing_lost(town, "(b) 50 other services added, asked and removed", report)
    assert len(answered) == 50


def test_20_rolling_updates(town):
    with town.load() as load:
        for number in range(20):
            # half of them of one replica alone, which holds the whole load
            least = 2 if number < 10 else 1
            town.update(num_replicas=least, replica_max_concurrent_requests=AT_A_TIME * 3 // least)
        report = load.stop()
    town.update(num_replicas=LEAST, replica_max_concurrent_requests=AT_A_TIME)
    nothing_lost(town, f"(c) 20 rolling updates, {len(report.by)} revisions answered", report)
    assert len(report.by) == 21


def test_the_loop_killed_and_restarted_ten_times(town):
    adopted = town.printed("router", "adopted HAProxy worker")
    chance = random.Random(3)
    with town.load() as load, beside(swinging(town), 0.7):
        for _ in evenly(10, 60):
            before = time.time()
            town.restart("router", chance.uniform(0.0, 1.5))
            town.wait_for("reports", lambda b=before: town.driver.routes().at > b + 1.5, 60)
            time.sleep(chance.uniform(0.0, 1.0))
        report = load.stop()
    nothing_lost(
        town, "(d) kill -9 of the router's loop, 10 times, while the count changed", report
    )
    assert town.printed("router", "adopted HAProxy worker") == adopted + 10


def test_haproxy_reloads_twenty_times(town):
    reloads = town.printed("router", "reloading HAProxy")
    spec = town.driver.specs()["work"]

    def patient(wait_ms: int) -> ServiceSpec:
        """A service without replicas whose queue's patience stands in HAProxy's text."""
        version = spec.versions[0]
        revision = replace(version.revision, service="patient", max_request_wait_ms=wait_ms)
        scaling = Scaling(autoscale=False, minimum=0, maximum=0)
        return replace(
            spec,
            name="patient",
            generation=wait_ms,
            versions=(replace(version, revision=revision, scaling=scaling),),
        )

    with town.load() as load, beside(swinging(town), 1.3):
        for number in evenly(20, 60):
            town.driver.apply(patient(1000 + number))
            town.wait_for(
                "the reload",
                lambda n=number: town.printed("router", "reloading HAProxy") > reloads + n,
                30,
            )
        report = load.stop()
    town.driver.remove("patient")
    nothing_lost(town, "(e) 20 reloads of HAProxy, while the count changed", report)
    assert town.printed("router", "reloading HAProxy") == reloads + 20


def test_agent_controller_worker_and_redis_killed(town):
    """Three times each, in the midst of updates."""
    done = threading.Event()
    updates = 0

    def update() -> None:
        nonlocal updates
        if not done.is_set():
            town.update()
            updates += 1

    kills = ["agent", "controller", "worker", "redis"] * 3
    with town.load() as load:
        with beside(update, 0.5):
            for number in evenly(len(kills), 60):
                town.restart(kills[number], 1.0)
            done.set()
        report = load.stop()
    nothing_lost(
        town,
        f"(f) kill -9 of agent, controller, worker and Redis, 3 times each, during {updates} updates",
        report,
    )
    assert updates >= 3


def test_the_portal_stopped_for_a_minute(town):
    """All of it: its pages, the worker, the controller and their Redis. Scaling goes on."""
    portal = ("web", "worker", "controller", "redis")
    page = f"http://127.0.0.1:{town.port}/healthz"
    town.wait_for("the portal", lambda: _answers(page), 60)
    with town.load() as load:
        for name in portal:
            town.stop(name)
        with beside(swinging(town), 1.0):
            time.sleep(60)
            assert not _answers(page)
        town.start(*reversed(portal))
        town.wait_for("the portal", lambda: _answers(page), 60)
        report = load.stop()
    nothing_lost(town, "(f) the portal stopped for a minute, while the count changed", report)


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).status_code == 200
    return False


def test_a_replica_killed_loses_only_what_was_inside_it(town):
    inside: set[int] = set()
    taken = 0
    kills = 5
    with town.load() as load:
        for _ in evenly(kills, 55):
            town.wait_for("all", lambda: len(town.inside()) == LEAST, 60)
            victim, workers = _without_stream(town)
            kill_all_of(town.driver.folder.replica(victim))
            time.sleep(1)
            last = [_last(town, worker.pid) for worker in workers]
            inside |= {int(word) for word in last if word.isdigit()}
            taken += last.count("+")
        town.wait_for("all", lambda: len(town.inside()) == LEAST, 60)
        report = load.stop()
    lost = {failure.n for failure in report.failures}
    say(
        f"(g) kill -9 of a replica, {kills} times: {len(lost & inside)} lost in it, "
        f"{len(lost - inside)} as it took them",
        report,
    )
    wrong = [f for f in report.failures if not _is(f.code, f.reason, 502, "ReplicaFailed")]
    assert not wrong, f"{report.trouble()}\n{town.said()}"
    assert lost, "no request was inside: nothing was shown"
    assert len(lost - inside) <= taken, report.trouble()
    _whole_stream(report)


def test_a_replica_that_never_answers_is_taken_out(town):
    with town.load() as load:
        victim, frozen = _without_stream(town)
        stopped_at = time.time()
        for process in frozen:
            process.suspend()
        try:
            town.wait_for("its end", lambda: victim not in town.inside(), 60)
            out_at = time.time()
            town.wait_for("another", lambda: len(town.inside()) == LEAST, 60)
        finally:
            for process in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        time.sleep(10)
        report = load.stop()
    say(
        f"(h) a replica that accepts and never answers, out after {out_at - stopped_at:.1f} s",
        report,
    )
    wrong = [f for f in report.failures if f.code not in (502, 504)]
    assert not wrong, f"{report.trouble()}\n{town.said()}"
    assert report.failures, "no request was inside: nothing was shown"
    late = [f for f in report.failures if f.at > out_at + 1]
    assert not late, report.trouble()
    _whole_stream(report)


def _is(code: int, body: str, wanted: int, name: str) -> bool:
    with suppress(ValueError, KeyError, TypeError):
        return code == wanted and json.loads(body)["error"]["code"] == name
    return False


def _processes(town: Town, replica: str) -> list[psutil.Process]:
    """Every process of a replica but its keeper."""
    folder = str(town.driver.folder.replica(replica))
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLIPWAY_REPLICA_FOLDER") == folder:
                found.append(process)
    return found


def _last(town: Town, worker: int) -> str:
    """The last request that a worker has begun, or "+" when it had taken one and not begun it."""
    path = town.begun / str(worker)
    return path.read_text().split()[-1] if path.exists() and path.stat().st_size else ""


def _without_stream(town: Town) -> tuple[str, list[psutil.Process]]:
    """A replica in rotation that has none of the long answers inside, and its processes."""
    found: list[tuple[str, list[psutil.Process]]] = []

    def look() -> bool:
        for replica in sorted(town.inside()):
            processes = _processes(town, replica)
            if not any(_last(town, item.pid) == "stream" for item in processes):
                found.append((replica, processes))
        return bool(found)

    town.wait_for("a replica without a stream", look, 30)
    return found[0]


def _whole_stream(report: Report) -> None:
    assert any(stream.seconds == 60 and not stream.trouble for stream in report.streams), (
        report.trouble()
    )
