"""A router in a cluster, replicas that count what is inside them, and load on both."""

import asyncio
import base64
import functools
import hashlib
import json
import os
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_router as shapes
from deployments.drivers import kubernetes_routers as routers
from deployments.drivers.base import BlobSource
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.errors import Unavailable
from deployments.kube.api import Kube
from deployments.types import (
    AuthSpec,
    ContainerSpec,
    EnvironmentSpec,
    FileSpec,
    KubeSettings,
    Purpose,
    Resources,
    RevisionSpec,
    Scaling,
    ServiceSpec,
    VersionSpec,
)
from tests.docker.engines import docker
from tests.kubernetes import cluster, reach
from tests.kubernetes.images import REGISTRY

BASE = os.environ.get("SLIPWAY_TEST_BASE", "127.0.0.1:5000/base/python:3.11")

# What a person may have brought: no gate, so that whatever is inside it at a time was sent by the router.
SERVER = """
import http.server, json, os, signal, socketserver, threading, time
now = most = served = 0
lock = threading.Lock()
going = False
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def answer(self, code, what):
        body = json.dumps(what).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/most":
            self.answer(200, {"most": most, "served": served})
        else:
            self.answer(503 if going else 200, {})
    def do_POST(self):
        global now, most, served
        with lock:
            now += 1
            most = max(most, now)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(float(os.environ["WORK"]))
        with lock:
            now -= 1
            served += 1
        self.answer(200, {"pod": os.environ["HOSTNAME"]})
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 1024
def end(*args):
    global going
    going = True
    def later():
        time.sleep(2)
        while now: time.sleep(0.05)
        time.sleep(0.5)
        os._exit(0)
    threading.Thread(target=later).start()
signal.signal(signal.SIGTERM, end)
Server(("0.0.0.0", 8000), Handler).serve_forever()
"""


@functools.cache
def counting() -> str:
    """An image of that server, as a person brings one."""
    code = base64.b64encode(SERVER.encode()).decode()
    tag = f"{REGISTRY}/slipway-tests/counting:{hashlib.sha256(code.encode()).hexdigest()[:12]}"
    text = (
        f"FROM {BASE}\nRUN echo {code} | base64 -d > /server.py\n"
        'ENV WORK=0.02\nUSER 1000\nCMD ["python", "/server.py"]\n'
    )
    docker("build", "-q", "-t", tag, "-", given=text)
    docker("push", "-q", tag)
    return tag


def image() -> str:
    """The router's, of this checkout."""
    built = subprocess.run(
        [settings.CHECKOUT / "scripts" / "router-image", REGISTRY],
        env={**os.environ, "BASE": BASE, "NETWORK": "host"},
        check=True, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    return built.stdout.split()[-1]


@dataclass
class Router:
    """One that runs in a namespace of its own."""

    kube: Kube
    settings: KubeSettings
    passage: reach.Passage | None = None

    @property
    def space(self) -> str:
        return self.settings.namespace

    def pods(self) -> list[dict[str, Any]]:
        """Those that take requests."""
        found = routers.pods(self.kube, self.space)
        return [pod for pod in found if shapes.pod_ready(pod) and not shapes.leaving(pod)]

    def address(self) -> tuple[str, int]:
        found = self.kube.get(f"/api/v1/namespaces/{self.space}/services/{shapes.NAME}")
        return found["spec"]["clusterIP"], 80

    def ask(self, pod: str, path: str) -> Any:
        return json.loads(self.kube.proxy(self.space, pod, shapes.ADMIN_PORT, "GET", path))

    def wait(self, pods: int) -> None:
        cluster.until(lambda: len(self.pods()) == pods, 120)

    def deploy(
        self, name: str, *, replicas: int, work: float = 0.02, server: str = SERVER, **notes: str
    ) -> None:
        """As somebody does with kubectl, without the portal."""
        labels = {names.PART: names.MODEL, names.SERVICE: name, names.VERSION: "default"}
        apart = {
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": labels},
        }  # fmt: skip
        pod = {
            "terminationGracePeriodSeconds": 30,
            "topologySpreadConstraints": [apart],
            "containers": [
                {
                    "name": "model", "image": BASE, "command": ["python", "-c", server],
                    "env": [{"name": "WORK", "value": str(work)}],
                    "ports": [{"containerPort": 8000}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                }
            ],
        }  # fmt: skip
        given = {"port": "8000", "max-request-wait-ms": "10000"} | notes
        self.kube.create(
            f"/apis/apps/v1/namespaces/{self.space}/deployments",
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {
                    "name": name,
                    "labels": labels,
                    "annotations": {names.PREFIX + key: text for key, text in given.items()},
                },
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                    "template": {
                        "metadata": {
                            "labels": labels,
                            "annotations": {names.PREFIX + "port": given["port"]},
                        },
                        "spec": pod,
                    },
                },
            },
        )

    def deploy_gated(
        self,
        name: str,
        blobs: BlobSource,
        replicas: int,
        scaling: Scaling | None = None,
        cpu: float = 0.02,
    ) -> None:
        """As the portal does: its pods have gates. So many replicas for good, if nothing else is said."""
        revision = RevisionSpec(
            service=name,
            number=1,
            source=FileSpec("", "", 0),
            entry_script="",
            models=(),
            environment=EnvironmentSpec("", counting()),
            resources=Resources(cpu=cpu, memory_gb=0.05),
            scoring_timeout_ms=10_000,
            max_request_wait_ms=10_000,
            container=ContainerSpec(counting(), 8000, "/score", "/", "/"),
        )
        fixed = Scaling(autoscale=False, minimum=replicas, maximum=replicas)
        version = VersionSpec("default", revision, scaling or fixed)
        driver = KubernetesDriver(self.kube, self.settings, cluster="test")
        driver.stage(revision, blobs)
        driver.apply(ServiceSpec(name, (version,), AuthSpec(key_enabled=False)))
        driver.close()

    def tries(self) -> tuple[int, int]:
        """Requests that came to versions' backends of all pods, and how often one was tried again."""
        code = (
            "import glob,socket;s=socket.socket(socket.AF_UNIX);"
            "s.connect(glob.glob('/var/lib/slipway/run/haproxy-*.sock')[0]);"
            "s.sendall(b'show stat -1 2 -1\\n');print(s.makefile().read())"
        )
        total = again = 0
        for pod in self.pods():
            told = subprocess.run(
                ["kubectl", "exec", "-n", self.space, pod["metadata"]["name"], "--",
                 "python", "-c", code],
                check=True, capture_output=True, text=True, timeout=30,
            ).stdout.splitlines()  # fmt: skip
            header = told[0].removeprefix("# ").split(",")
            for line in told[1:]:
                row = dict(zip(header, line.split(","), strict=False))
                if row.get("pxname", "").startswith("be_"):
                    total, again = total + int(row["stot"]), again + int(row["wretr"])
        return total, again

    def undeploy(self, name: str) -> None:
        self.kube.delete(f"/apis/apps/v1/namespaces/{self.space}/deployments/{name}")

    def replicas(self, name: str) -> list[dict[str, Any]]:
        """The pods of a service that are ready and stay."""
        found = self.kube.items(
            f"/api/v1/namespaces/{self.space}/pods", labels=names.query(part="model", service=name)
        ).items
        return [pod for pod in found if shapes.pod_ready(pod) and not shapes.leaving(pod)]

    def routed(self, name: str, replicas: int, seconds: float = 90.0) -> None:
        """Every router pod has so many replicas of it in rotation."""

        def everywhere() -> bool:
            try:
                report = routers.routes(self.kube, self.space)
            except Unavailable:  # one of them does not answer now
                return False
            wanted = {pod["metadata"]["name"] for pod in self.replicas(name)}
            standing = {
                item.replica
                for item in (report.routes if report else ())
                if item.state == "in_rotation"
            }
            return len(wanted) == replicas and wanted <= standing

        cluster.until(everywhere, seconds)

    def most(self, name: str) -> list[int]:
        """The most that was inside each replica at a time."""
        return [
            json.loads(self.kube.proxy(self.space, pod["metadata"]["name"], 8000, "GET", "/most"))[
                "most"
            ]
            for pod in self.replicas(name)
        ]


@contextmanager
def router(kube: Kube, purpose: Purpose, pods: int, *, small: bool = True) -> Iterator[Router]:
    """`small`: a test's cluster may be one small node that others use too."""
    with reach.api_server(kube) as passage, cluster.namespace(kube, "router") as space:
        wanted = KubeSettings(space, purpose, router_image=image())
        made = Router(kube, wanted, passage)
        routers.install_router(kube, wanted, "test")
        asked = {"requests": {"cpu": "10m", "memory": "64Mi"}}
        less = {"containers": [{"name": shapes.CONTAINER, "resources": asked}]}
        if small:
            kube.patch(
                f"/apis/apps/v1/namespaces/{space}/deployments/{shapes.NAME}",
                {"spec": {"template": {"spec": less}}},
                "strategic",
            )
        try:
            made.wait(pods)
            yield made
        finally:
            routers.remove_router(kube, wanted)


@dataclass
class Answers:
    """What clients got: a status, or a word for what they did not get."""

    codes: Counter[int | str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)

    @property
    def bad(self) -> dict[int | str, int]:
        return {code: count for code, count in self.codes.items() if code != 200}


class Client:
    """One keep-alive connection. As all good clients do, it goes by `Connection: close`, and uses none that
    was closed while it was idle."""

    def __init__(self, address: tuple[str, int], path: str) -> None:
        self._address, self._path = address, path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes = b"{}") -> int | str:
        try:
            async with asyncio.timeout(20):
                return await self._post(body)
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            return type(error).__name__

    async def _post(self, body: bytes) -> int:
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(
            f"POST {self._path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        await reader.readexactly(int(length))
        if "connection: close" in head:
            self.close()
        return int(head.split(" ")[1])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def paced(
    address: tuple[str, int], name: str, answers: Answers, done: asyncio.Event, rate: float = 100.0
) -> None:
    """So many requests a second, whatever becomes of those before, on connections that are kept.

    The one that was idle longest is taken: none is idle so long that a router which ends has to close it
    without having said so, when a request may be on its way.
    """
    free: deque[Client] = deque()
    tasks: set[asyncio.Task[None]] = set()
    path = f"/api/v1/service/{name}/score"

    async def one() -> None:
        client = free.popleft() if free else Client(address, path)
        began = time.monotonic()
        answers.codes[await client.post()] += 1
        answers.times.append(time.monotonic() - began)
        free.append(client)

    due = time.monotonic()
    while not done.is_set():
        task = asyncio.create_task(one())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += 1 / rate
        await asyncio.sleep(max(due - time.monotonic(), 0))
    await asyncio.gather(*tasks)
    for client in free:
        client.close()


async def while_loaded(
    made: Router, name: str, act: Callable[[], None], rate: float = 100.0, after: float = 2.0
) -> Answers:
    """Load before, while and after something is done to the cluster."""
    answers, done = Answers(), asyncio.Event()
    load = asyncio.create_task(paced(made.address(), name, answers, done, rate))
    try:
        await asyncio.sleep(2)
        await asyncio.to_thread(act)
        await asyncio.sleep(after)
    finally:
        done.set()
        await load
    return answers
