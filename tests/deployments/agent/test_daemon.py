"""The real agent, shims and scoring server: started, scored, killed in every way, found again."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from deployments.agent import cgroups
from deployments.agent.stopping import stop_replicas
from deployments.drivers.process import ProcessDriver
from deployments.drivers.process_layout import locked, read_json
from deployments.errors import Unavailable
from deployments.types import (
    EnvironmentSpec,
    ModelSpec,
    Phase,
    Probe,
    Replica,
    ReplicaRoute,
    Resources,
    RevisionSpec,
    RouteReport,
    RouteState,
    Scaling,
    ServiceSpec,
    VersionSpec,
)
from tests import unix_http
from tests.deployments.drivers.test_process import FolderBlobs, zipped

pytestmark = pytest.mark.daemons

AGENT = """
import logging, sys
from pathlib import Path
from deployments.agent.loop import Agent, run_until_told
from deployments.agent.record import Pace
logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
run_until_told(Agent(Path(sys.argv[1]), pace=Pace(term_grace=3.0)))
"""
SCORE = b"""
import json, os, time
def init():
    global text
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.txt")) as file:
        text = file.read()
    print("loaded", text)
def run(data):
    time.sleep(json.loads(data).get("sleep", 0))
    return {"text": text, "pid": os.getpid(), "master": os.getppid(), "cwd": os.getcwd()}
"""
BROKEN = b"""
def init():
    raise RuntimeError("the table is empty")
def run(data):
    return 1
"""


# The scoring server ends what takes too long by an exception; this one takes none.
STUCK = b"""
import time
def init():
    pass
def run(data):
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass
"""
# The first worker loads at once; of the second one `late` says what it does.
UNEVEN = b"""
import os, time
def init():
    try:
        os.mkdir(os.path.join(os.environ["TMPDIR"], "first"))
    except FileExistsError:
        %s
def run(data):
    time.sleep(0.5)
    return os.getpid()
"""


class Cluster:
    """A process cluster with one service, its agent, and a stand-in for the router."""

    def __init__(self, root: Path, blobs: FolderBlobs, venv: Path) -> None:
        self.root, self.blobs, self.venv = root, blobs, venv
        self.driver = ProcessDriver(root)
        self.agent: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.routes: dict[str, RouteState] = {}
        self.generation = 0

    def revision(self, service: str, number: int, score: bytes = SCORE, **changes: object):
        model = self.blobs.put(f"weights {number}".encode(), "model.txt")
        plain = RevisionSpec(
            service=service,
            number=number,
            source=self.blobs.put(zipped({"score.py": score}), "source.zip"),
            entry_script="score.py",
            models=(ModelSpec("ridge", number, (model,)),),
            environment=EnvironmentSpec("e" * 64, str(self.venv)),
            resources=Resources(cpu=0.05, memory_gb=0.1),
        )
        return replace(plain, **changes)

    def deploy(self, revision: RevisionSpec, count: int = 1) -> None:
        self.generation += 1
        self.driver.stage(revision, self.blobs)
        version = VersionSpec("default", revision, Scaling(minimum=count, maximum=5))
        self.driver.apply(ServiceSpec(revision.service, (version,), generation=self.generation))

    def start_agent(self) -> None:
        self.started_at = time.time()
        with (self.root / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-c", AGENT, self.root],
                cwd=settings.CHECKOUT,
                stdout=log,
                stderr=log,
            )

    def end_agent(self, number: signal.Signals) -> None:
        if self.agent is not None:
            self.agent.send_signal(number)
            self.agent.wait(timeout=30)
            self.agent = None

    def replicas(self, service: str) -> list[Replica]:
        seen = self.driver.observe()
        found = [replica for item in seen.services for replica in item.replicas]
        return [replica for replica in (*found, *seen.orphans) if replica.service == service]

    def route(self) -> None:
        """One tick of a router that takes in what is ready and empties what drains."""
        seen = self.driver.observe()
        present = [replica for item in seen.services for replica in item.replicas]
        routes = {}
        for replica in (*present, *seen.orphans):
            before = self.routes.get(replica.id)
            if replica.phase is Phase.READY:
                routes[replica.id] = RouteState.IN_ROTATION
            elif before is RouteState.IN_ROTATION:
                routes[replica.id] = RouteState.DRAINING
            elif before is not None:
                routes[replica.id] = RouteState.OUT
        self.routes = routes
        self.driver.publish_routes(
            RouteReport(time.time(), tuple(ReplicaRoute(k, v, 0) for k, v in routes.items()))
        )

    def until(
        self, service: str, true: Callable[[list[Replica]], bool], *, seconds: float = 120
    ) -> list[Replica]:
        end = time.monotonic() + seconds
        while not true(found := self.replicas(service)):
            died = self.agent is not None and self.agent.poll() is not None
            if died or time.monotonic() > end:
                log = (self.root / "agent.log").read_text()[-3000:]
                what = "the agent died" if died else f"after {seconds} s"
                pytest.fail(f"{what}: {found}\n{log}")
            self.route()
            time.sleep(0.05)
        return found

    def ready(self, service: str, count: int = 1) -> list[Replica]:
        """Wait until just so many are there and all of them ready."""
        return self.until(
            service,
            lambda found: len(found) == count and all(r.phase is Phase.READY for r in found),
        )

    def supervised(self) -> None:
        """Wait until the agent that was started last is at work: replicas may be ready before."""
        self.until(
            "diabetes", lambda _: (self.driver.observe().supervisor_at or 0) > self.started_at
        )

    def shim(self, replica: Replica) -> dict:
        return read_json(self.driver.folder.replica(replica.id) / "shim.json")

    def log(self, replica: Replica) -> list[str]:
        return [line.text for line in self.driver.logs(replica.id).lines]


def score(replica: Replica, **body: object) -> dict:
    status, answer = unix_http.score(replica.address, json.dumps(body).encode())
    assert status == 200, answer
    return json.loads(answer)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, scoring_venv: Path) -> Iterator[Cluster]:
    base = tmp_path_factory.mktemp("agent")
    cluster = Cluster(base / "clusters" / "local", FolderBlobs(base / "blobs"), scoring_venv)
    cluster.deploy(cluster.revision("diabetes", 1))
    cluster.start_agent()
    yield cluster
    cluster.end_agent(signal.SIGKILL)
    stop_replicas(cluster.root, grace=3.0)


def test_a_replica_scores_on_a_socket_of_its_owner_alone_in_a_working_copy_of_its_own(cluster):
    (replica,) = cluster.ready("diabetes")
    answer = score(replica)
    assert answer["text"] == "weights 1"
    assert answer["cwd"] == str(cluster.driver.folder.replica(replica.id) / "work" / "app")
    assert psutil.Process(answer["master"]).net_connections("inet") == []
    socket_of = Path(replica.address.removeprefix("unix:"))
    assert socket_of.parent == cluster.driver.folder.replica(replica.id)
    assert stat.S_IMODE(socket_of.stat().st_mode) == 0o600
    assert any("azmlinfsrv.print - loaded weights 1" in line for line in cluster.log(replica))
    # Two places that noise used to come from.
    assert not any("model IDs" in line or "extra keys" in line for line in cluster.log(replica))
    assert cluster.driver.observe().supervisor_at == pytest.approx(time.time(), abs=5)


def test_an_agent_that_was_killed_finds_its_replicas_and_doubles_none(cluster):
    (before,) = cluster.ready("diabetes")
    shim = cluster.shim(before)
    cluster.end_agent(signal.SIGKILL)
    assert score(before)["text"] == "weights 1"
    cluster.start_agent()
    time.sleep(2.0)  # long enough for a wrong agent to have started another
    assert cluster.ready("diabetes") == [before]
    assert cluster.shim(before) == shim


def test_an_agent_killed_just_after_a_start_doubles_nothing(cluster):
    cluster.ready("diabetes")
    cluster.driver.scale("diabetes", "default", 2)
    cluster.until("diabetes", lambda found: any(r.phase is Phase.STARTING for r in found))
    cluster.end_agent(signal.SIGKILL)
    cluster.start_agent()
    found = cluster.ready("diabetes", 2)
    assert [replica.restarts for replica in found[1:]] == [0]
    masters = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "gunicorn" in (process.info["cmdline"] or [])
        and str(cluster.venv) in process.info["cmdline"][0]
        and process.parent() is not None
        and any(process.parent().cmdline()[-1].endswith(f"/{r.id}") for r in found)
        and "shim.py" in " ".join(process.parent().cmdline())
    ]
    assert len(masters) == 2
    cluster.driver.scale("diabetes", "default", 1, prefer_removing=[found[0].id])
    (left,) = cluster.ready("diabetes", 1)
    assert left.id == found[1].id
    assert found[0].id in cluster.driver.log_replicas("diabetes")
    assert any("loaded weights 1" in line for line in cluster.log(found[0]))


@pytest.mark.parametrize("victim", ["child", "shim"])
def test_a_replica_that_is_killed_comes_back_with_its_name_exit_and_log(cluster, victim):
    (before,) = cluster.ready("diabetes")
    told = cluster.shim(before)
    worker = score(before)["pid"]
    os.kill(told[victim]["pid"], signal.SIGKILL)
    (crashed,) = cluster.until(
        "diabetes", lambda found: found[0].phase is Phase.CRASHED, seconds=60
    )
    assert crashed.cause.code == "CrashLoopBackOff"
    (after,) = cluster.ready("diabetes")
    assert (after.id, after.restarts) == (before.id, before.restarts + 1)
    assert after.last_exit.signal == 9
    assert "ready for serving traffic" in after.last_exit.log_tail
    assert after.cause is None
    assert not psutil.pid_exists(worker)
    assert not psutil.pid_exists(told["child"]["pid"])
    previous = cluster.driver.logs(after.id, previous=True)
    assert any(f"[{worker}]" in line.text for line in previous.lines)
    assert score(after)["text"] == "weights 1"


def test_an_init_that_fails_is_told_with_its_traceback_and_tried_again_later(cluster):
    cluster.deploy(cluster.revision("broken", 1, BROKEN))
    (crashed,) = cluster.until(
        "broken", lambda found: bool(found) and found[0].phase is Phase.CRASHED
    )
    assert crashed.cause.code == "UserScriptInitFailed"
    assert crashed.cause.message.endswith("RuntimeError: the table is empty")
    assert 'score.py", line 3, in init' in crashed.cause.evidence
    (again,) = cluster.until("broken", lambda found: found[0].restarts >= 1)
    assert again.id == crashed.id
    cluster.driver.remove("broken")
    cluster.until("broken", lambda found: not found)
    gone = cluster.driver.folder.gone / crashed.id
    until = time.monotonic() + 30
    while (gone / "work").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not (gone / "work").exists()
    assert (gone / "log").is_dir()


def test_a_replica_of_two_workers_is_ready_once_both_are(cluster):
    script = UNEVEN % b"time.sleep(2.5)"
    cluster.deploy(cluster.revision("uneven", 1, script, concurrency=2))
    (replica,) = cluster.ready("uneven")
    assert replica.ready_at - replica.started_at > 2.5
    with ThreadPoolExecutor() as pool:
        workers = set(pool.map(lambda _: score(replica), range(2)))
    assert len(workers) == 2  # nothing waited inside the replica
    cluster.driver.remove("uneven")
    cluster.until("uneven", lambda found: not found)


def test_a_replica_whose_second_worker_fails_was_never_ready(cluster):
    script = UNEVEN % b"raise RuntimeError('no room for a second one')"
    cluster.deploy(cluster.revision("halved", 1, script, concurrency=2))
    (crashed,) = cluster.until(
        "halved", lambda found: bool(found) and found[0].phase is Phase.CRASHED
    )
    assert crashed.ready_at is None
    assert crashed.cause.code == "UserScriptInitFailed"
    assert "no room for a second one" in crashed.cause.message
    cluster.driver.remove("halved")
    cluster.until("halved", lambda found: not found)


def test_an_update_starts_the_new_one_before_the_old_one_goes(cluster):
    cluster.deploy(cluster.revision("rolling", 1))
    (old,) = cluster.ready("rolling")
    cluster.deploy(cluster.revision("rolling", 2))
    never_none: list[bool] = []

    def rolled(found: list[Replica]) -> bool:
        never_none.append(any(replica.phase is Phase.READY for replica in found))
        return [replica.revision for replica in found] == [2] and found[0].phase is Phase.READY

    (new,) = cluster.until("rolling", rolled)
    assert all(never_none)
    assert new.id != old.id
    assert score(new)["text"] == "weights 2"
    cluster.driver.remove("rolling")
    cluster.until("rolling", lambda found: not found)


def test_a_replica_that_drains_is_kept_while_the_router_says_nothing(cluster):
    revision = cluster.revision("waiting", 1)
    cluster.deploy(revision, count=2)
    first, second = cluster.ready("waiting", 2)
    cluster.deploy(revision, count=1)
    time.sleep(2.0)  # long enough for a hasty agent to have stopped it
    draining = [r for r in cluster.replicas("waiting") if r.phase is Phase.DRAINING]
    assert [replica.id for replica in draining] == [second.id]
    assert score(second)["text"] == "weights 1"
    assert [replica.id for replica in cluster.ready("waiting", 1)] == [first.id]
    cluster.driver.remove("waiting")
    cluster.until("waiting", lambda found: not found)


def test_a_busy_replica_is_not_taken_for_dead(cluster):
    eager = Probe(period_seconds=1, timeout_seconds=1, failure_threshold=1)
    cluster.deploy(cluster.revision("busy", 1, probe=eager, scoring_timeout_ms=5000))
    (replica,) = cluster.ready("busy")
    assert score(replica, sleep=4)["text"] == "weights 1"
    assert cluster.ready("busy") == [replica]
    cluster.driver.remove("busy")
    cluster.until("busy", lambda found: not found)


def test_a_replica_that_never_answers_is_taken_out_and_started_again(cluster):
    eager = Probe(period_seconds=1, timeout_seconds=1, failure_threshold=1)
    cluster.deploy(cluster.revision("stuck", 1, STUCK, probe=eager, scoring_timeout_ms=1000))
    (replica,) = cluster.ready("stuck")
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(score, replica)
        (crashed,) = cluster.until(
            "stuck", lambda found: found[0].phase is Phase.CRASHED, seconds=30
        )
        assert crashed.cause.code == "Unresponsive"
        assert "no sign of life" in crashed.cause.message
        cluster.until("stuck", lambda found: found[0].restarts == 1)
        with pytest.raises((OSError, HTTPException)):
            asked.result(timeout=30)
    cluster.ready("stuck")
    cluster.driver.remove("stuck")
    cluster.until("stuck", lambda found: not found)


def test_a_second_agent_is_refused_and_replicas_are_not_stopped_under_an_agent(cluster, settings):
    cluster.supervised()
    settings.HOME = replace(settings.HOME, root=cluster.root.parent.parent)
    with pytest.raises(CommandError, match="still runs"):
        call_command("stop_replicas", "local", wait=0.1)
    with pytest.raises(Unavailable), locked(cluster.driver.folder.agent_lock, deadline=0.1):
        pass


def test_sigterm_ends_the_agent_and_leaves_replicas_which_stop_replicas_ends(
    cluster, settings, capsys
):
    (before,) = cluster.ready("diabetes")
    cluster.end_agent(signal.SIGTERM)
    try:
        assert score(before)["text"] == "weights 1"
        settings.HOME = replace(settings.HOME, root=cluster.root.parent.parent)
        began = time.monotonic()
        call_command("stop_replicas", "local")
        assert time.monotonic() - began < 12
        assert "replicas stopped: 1" in capsys.readouterr().out
        assert not psutil.pid_exists(cluster.shim(before)["child"]["pid"])
    finally:
        cluster.start_agent()
    (after,) = cluster.ready("diabetes")
    assert (after.id, after.restarts, after.cause) == (before.id, before.restarts, None)


def test_a_cpu_limit_holds(cluster):
    ability = cgroups.discover()
    if not ability.cpu:
        pytest.skip(f"this machine enforces no cpu limit: {ability.said}")
    resources = Resources(cpu=0.1, memory_gb=0.1, cpu_limit=0.5)
    cluster.deploy(cluster.revision("limited", 1, resources=resources))
    (replica,) = cluster.ready("limited")
    (group,) = [
        item
        for item in ability.groups(f"local-{replica.id}", resources)
        if item["path"].startswith(ability.cpu)
    ]
    members = Path(group["path"], "cgroup.procs").read_text().split()
    assert str(score(replica)["pid"]) in members
    cluster.driver.remove("limited")
    cluster.until("limited", lambda found: not found)
    assert not Path(group["path"]).exists()


def test_a_memory_limit_is_enforced_or_said_not_to_be(cluster):
    ability = cgroups.discover()
    resources = Resources(cpu=0.1, memory_gb=0.1, memory_gb_limit=0.3)
    greedy = SCORE.replace(b"global text", b"global text, hog\n    hog = bytearray(10**9)")
    cluster.deploy(cluster.revision("greedy", 1, greedy, resources=resources))
    if ability.memory:
        (seen,) = cluster.until(
            "greedy", lambda found: bool(found) and found[0].phase is Phase.CRASHED
        )
        assert seen.cause.code == "PodOutOfMemory"
    else:
        (seen,) = cluster.ready("greedy")
        assert seen.note.startswith("memory limit not enforced: ")
    cluster.driver.remove("greedy")
    cluster.until("greedy", lambda found: not found)
