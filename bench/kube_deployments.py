"""Deployments on a Kubernetes cluster of a Slipway in a home of its own; see `bench/kube`."""

import argparse
import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPT = "def init(): ...\n\n\ndef run(data):\n    return data\n"
CLUSTER = "bench"
_ASK_EVERY = 0.02


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def manage(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=CHECKOUT, check=True, timeout=300, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def wait(what: str, seconds: float, condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise SystemExit(f"not within {seconds:g} s: {what}")


class Bench:
    """What people do, through the product's own functions, in this process."""

    def __init__(self, given: argparse.Namespace, portal: str) -> None:
        from deployments.kube import access
        from deployments.kube.api import Kube

        self.given = given
        self.namespace = f"slipway-bench-{secrets.token_hex(3)}"
        self.kube = Kube(access.parse(Path(given.kubeconfig).read_text(), given.context))
        self.portal = portal
        self.image = ""

    def begin(self) -> float:
        """Attach the cluster; the seconds that took."""
        from django.conf import settings

        from deployments.clusters import changes, kubes
        from deployments.clusters.models import Attachment, Cluster, Sku
        from deployments.environments.changes import create_environment
        from deployments.images import registries
        from deployments.registry.versions import register_files, register_version
        from deployments.services import sources

        given = self.given
        registries.add(
            None,
            name="bench",
            role="workspace",
            address=given.registry,
            repository=f"slipway-bench/{self.namespace}",
            plain_http=given.registry.startswith(("127.", "localhost")),
            username="",
        )
        began = time.monotonic()
        row = changes.attach_kubernetes(
            None,
            name=CLUSTER,
            sku=Sku.objects.get(name="this machine"),
            purpose=given.purpose,
            description="",
            router_url="http://router.example",
            spec=self.kube.spec,
            use=kubes.Use(self.namespace, router_image=self.image, blob_url=self.portal),
            asked={},
        )

        def settled() -> bool:
            row.refresh_from_db()
            return row.state != Attachment.State.RUNNING

        wait("the cluster to be attached", 300, settled)
        if row.state != Attachment.State.ATTACHED:
            raise SystemExit(f"not attached: {row.problem}")
        took = time.monotonic() - began
        self.cluster = Cluster.objects.get(name=CLUSTER)
        self.environment = create_environment(None, name="bench", pip_requirements="")
        weights = settings.HOME.uploads / "weights.bin"
        weights.write_bytes(os.urandom(4096))
        self.model = register_version(
            None, name="weights", files=register_files({"weights.bin": weights})
        )
        self.source = sources.from_text({"score.py": SCRIPT})
        return took

    def deploy(self, name: str, patience: float) -> dict[str, float]:
        """One new service; seconds from submitting to each point, and of each step."""
        from deployments.services.changes import DeployRequest, deploy

        config = {
            "cpu_cores": 0.1,
            "memory_gb": 0.25,
            "autoscale_enabled": False,
            "num_replicas": 1,
            "auth_enabled": False,
        }
        answered = _FirstAnswer(self._door(), name)
        made = deploy(
            None,
            DeployRequest(
                name=name,
                cluster=self.cluster,
                model_versions=(self.model,),
                source=self.source,
                entry_script="score.py",
                environment=self.environment,
                config=config,
            ),
        )
        answered.start()

        def done() -> bool:
            made.refresh_from_db()
            return made.finished_at is not None

        try:
            wait(f"{name} to finish", patience, done)
            if made.state != "succeeded":
                raise SystemExit(
                    f"{name}: {made.cause_code}: {made.cause_message}\n{made.evidence}"
                )
            first = wait("an answer through the router", 60, lambda: answered.at)
        finally:
            answered.stop()
        steps = {
            f"step {step.name}": (step.ended_at - step.started_at).total_seconds()
            for step in made.steps.order_by("started_at")
            if step.ended_at
        }
        return {
            "healthy": (made.finished_at - made.created_at).total_seconds(),
            "answered": first - made.created_at.timestamp(),
            **steps,
            **self._pod(name, made.created_at),
        }

    def _pod(self, name: str, since: datetime) -> dict[str, float]:
        """What the cluster itself wrote down, to the second."""
        from deployments.drivers import kubernetes_names as names

        query = names.query(part=names.MODEL, service=name)
        folder = f"/api/v1/namespaces/{self.namespace}/pods"
        (pod, *_) = self.kube.items(folder, labels=query).items
        status = pod["status"]
        at = {item["type"]: item["lastTransitionTime"] for item in status["conditions"]}
        points = {
            "pod made": pod["metadata"]["creationTimestamp"],
            "pod placed": at["PodScheduled"],
        }
        for item in status.get("initContainerStatuses") or ():
            ended = item["state"].get("terminated", {})
            points |= {
                "files begun": ended.get("startedAt", ""), "files there": ended.get("finishedAt", "")
            }  # fmt: skip
        for item in status["containerStatuses"]:
            points["model begun"] = item["state"].get("running", {}).get("startedAt", "")
        points["pod ready"] = at["Ready"]
        return {
            f"at {point}": datetime.fromisoformat(text).timestamp() - since.timestamp()
            for point, text in points.items()
            if text
        }

    def _door(self) -> Callable[[str], int]:
        """Asks a service for its status code, by the router's Service, else through the API server."""
        from deployments.drivers import kubernetes_router as shapes
        from deployments.errors import SlipwayError

        space = self.namespace
        found = self.kube.get(f"/api/v1/namespaces/{space}/services/{shapes.NAME}")
        address = (found["spec"]["clusterIP"], 80)
        try:
            socket.create_connection(address, 2).close()
        except OSError:

            def through(path: str) -> int:
                try:
                    self.kube.proxy(space, f"services/{shapes.NAME}", 80, "POST", path, b"{}")
                except SlipwayError:
                    return 0
                return 200

            return through

        def direct(path: str) -> int:
            connection = http.client.HTTPConnection(*address, timeout=5)
            try:
                connection.request("POST", path, b"{}", {"Content-Type": "application/json"})
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return 0
            finally:
                connection.close()

        return direct

    def end(self) -> None:
        """Nothing is left in the cluster, and the environment's image goes."""
        from deployments.clusters import changes
        from deployments.clusters.models import Cluster
        from deployments.environments.changes import delete_environment
        from deployments.images.retention import tidy
        from deployments.services.changes import delete_service
        from deployments.services.models import Service

        for service in Service.objects.all():
            delete_service(None, service)
        wait("the services to go", 120, lambda: not Service.objects.exists())
        changes.detach(None, self.cluster)
        wait("the cluster to be detached", 180, lambda: not Cluster.objects.exists())
        delete_environment(None, self.environment)
        tidy()  # the builder's copy of its image; what was pushed stays in the registry


class _FirstAnswer:
    """When the first request came back with 200; asked again and again from a thread."""

    def __init__(self, door: Callable[[str], int], service: str) -> None:
        self.at: float | None = None
        self._door, self._path = door, f"/api/v1/service/{service}/score"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(_ASK_EVERY):
            if self._door(self._path) == 200:
                self.at = time.time()
                return


def portal_address(server: str) -> str:
    """This machine, as the cluster's nodes see it."""
    if named := os.environ.get("SLIPWAY_TEST_ADDRESS"):
        return named
    for target in (urlsplit(server).hostname or "", "192.0.2.1"):  # nothing is sent to it
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            asked.connect((target, 9))
            found = str(asked.getsockname()[0])
        if not found.startswith("127."):
            return found
    raise SystemExit("set SLIPWAY_TEST_ADDRESS to this machine's address, as nodes reach it")


def router_image(given: argparse.Namespace) -> str:
    built = subprocess.run(
        [CHECKOUT / "scripts" / "router-image", given.registry],
        env={**os.environ, "BASE": given.base, "NETWORK": given.network},
        check=True, stdout=subprocess.PIPE, text=True, timeout=1800,
    )  # fmt: skip
    return built.stdout.split()[-1]


@contextlib.contextmanager
def slipway(home: Path, given: argparse.Namespace) -> Iterator[Bench]:
    """One in a home of its own, with the cluster attached; nothing is left of it."""
    sys.path.insert(0, str(CHECKOUT))
    from deployments.kube import access

    spec = access.parse(Path(given.kubeconfig).read_text(), given.context)
    host, port = portal_address(spec.server), free_port()
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "SLIPWAY_HOME": str(home),
        "SLIPWAY_BIND": "0.0.0.0",
        "SLIPWAY_PORT": str(port),
        "SLIPWAY_ROUTER_PORT": str(free_port()),
        "SLIPWAY_ALLOWED_HOSTS": f"{host},127.0.0.1,localhost",
        "SLIPWAY_SEED": "False",
        "SLIPWAY_BASE_IMAGE": given.base,
        "SLIPWAY_BUILD_NETWORK": given.network,
    }
    import django

    django.setup()
    from tests.kubernetes import reach

    bench = Bench(given, f"http://{host}:{port}")
    try:
        with reach.api_server(bench.kube):
            bench.image = router_image(given)
            manage("up", "--detach")
            try:
                yield bench
                bench.end()
            finally:
                manage("down", "--quiet")
    finally:
        bench.kube.delete(f"/api/v1/namespaces/{bench.namespace}")
        for kind in ("clusterrolebindings", "clusterroles"):
            name = f"slipway-router-{bench.namespace}"
            bench.kube.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG", ""))
    parser.add_argument("--context", default="")
    parser.add_argument("--registry", required=True, help="that builds push to and nodes pull from")
    parser.add_argument("--base", default="python:3.11-slim", help="image that all is built on")
    parser.add_argument("--network", default="", help="of builds, such as host")
    parser.add_argument(
        "--purpose", default="DevTest", choices=("DevTest", "DenseProd", "FastProd")
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the home folder")
    given = parser.parse_args()
    if not given.kubeconfig:
        parser.error("give --kubeconfig")
    home = Path(tempfile.mkdtemp(prefix="bench-kube-"))
    try:
        with slipway(home, given) as bench:
            attached = bench.begin()
            first = bench.deploy("first", 1800)
            cached = [bench.deploy(f"cached-{number}", 180) for number in range(given.rounds)]
    finally:
        if not given.keep:
            shutil.rmtree(home, ignore_errors=True)
    points = {name: [one[name] for one in cached if name in one] for name in cached[0]}
    median = {name: round(statistics.median(seconds), 2) for name, seconds in points.items()}
    print(f"attached in {attached:.1f} s")
    print(f"first deployment of an environment: Healthy after {first['healthy']:.1f} s")
    print(f"with its image there (median of {len(cached)}):")
    for name, seconds in median.items():
        every = ", ".join(f"{one:.1f}" for one in points[name])
        print(f"  {name:<22} {seconds:6.2f} s   ({every})")
    if given.json:
        figures = {
            "attach_seconds": round(attached, 2),
            "first": {name: round(seconds, 2) for name, seconds in first.items()},
            "cached_median": median,
            "cached": {name: [round(one, 2) for one in every] for name, every in points.items()},
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
