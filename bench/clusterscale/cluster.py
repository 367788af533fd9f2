"""Plays all of a cluster but its API server: people who deploy, and controllers and kubelets that obey.

Everything stands in one namespace, and nodes bear a label; `clear` takes away both and nothing else.
"""

import contextlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.clusterscale import shapes
from bench.clusterscale.shapes import NAMESPACE, PLACE, SETTINGS
from bench.routing.processes import BenchError
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_objects as objects
from deployments.drivers import kubernetes_pod, kubernetes_router
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.errors import Conflict, NotFound, SlipwayError
from deployments.kube.api import Kube, Object

_BASE = f"/api/v1/namespaces/{NAMESPACE}"
_PODS = f"{_BASE}/pods"
_OWN = ("default", "kube-system", "kube-public", "kube-node-lease", NAMESPACE)
_GONE_AFTER = 1.0  # seconds from a pod's end being asked for to its being gone


class Cluster:
    """`port` is where all pods take requests. `ready_at`: when the API server had said that a pod is."""

    def __init__(self, kube: Kube, port: int) -> None:
        self.kube = kube
        self.driver = KubernetesDriver(kube, SETTINGS, cluster=shapes.CLUSTER)
        self.deployments: dict[str, Object] = {}
        self.pods: dict[str, list[str]] = {}  # by service, oldest first
        self.ready_at: dict[str, float] = {}
        self.largest: dict[str, int] = {}  # bytes, by kind
        self._port = port
        self._numbers = itertools.count()
        self._nodes = 0
        self._leaving: list[tuple[float, str]] = []
        self._pool = ThreadPoolExecutor(8)

    # ---- before and after -----------------------------------------------------------------------

    def refuse_others(self) -> None:
        """Raises BenchError where anything stands that is not this bench's."""
        spaces = [item["metadata"]["name"] for item in self.kube.items("/api/v1/namespaces").items]
        others = [name for name in spaces if name not in _OWN]
        nodes = self.kube.items("/api/v1/nodes").items
        others += [
            item["metadata"]["name"]
            for item in nodes
            if shapes.MARK not in (item["metadata"].get("labels") or {})
        ]
        for path in ("/api/v1/pods", "/apis/apps/v1/deployments"):
            others += [
                item["metadata"]["name"]
                for item in self.kube.items(path).items
                if item["metadata"]["namespace"] != NAMESPACE
            ]
        if others:
            raise BenchError(
                f"This cluster is somebody's: {', '.join(others[:5])}. The bench needs an API server without "
                "nodes, controllers and objects; --binaries starts one."
            )

    def clear(self) -> None:
        """Take everything away again; also what a killed run left."""
        for path in (
            f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
            _PODS,
            f"{_BASE}/secrets",
            f"/apis/policy/v1beta1/namespaces/{NAMESPACE}/poddisruptionbudgets",
            f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
            f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases",
            f"{_BASE}/serviceaccounts",
        ):
            self._delete_all(path)
        services = self.kube.items(f"{_BASE}/services").items
        self._all(self.kube.delete, [f"{_BASE}/services/{_name(item)}" for item in services])
        for item in self.kube.items("/api/v1/nodes", labels=shapes.MARK).items:
            self.kube.delete(f"/api/v1/nodes/{_name(item)}")
        space = f"/api/v1/namespaces/{NAMESPACE}"
        self.kube.delete(space)
        with contextlib.suppress(NotFound):  # some controller was faster
            found = self.kube.get(space)
            # nobody else lets it go where there are no controllers
            found["spec"] = {"finalizers": []}
            self.kube._json("PUT", f"{space}/finalize", body=found)

    def _delete_all(self, path: str) -> None:
        end = time.monotonic() + 600
        while time.monotonic() < end:
            try:
                self.kube.delete(path, grace=0)
            except SlipwayError:
                continue  # so many take longer than a request may
            if not self.kube.items(path).items:
                return
        raise BenchError(f"{path} could not be emptied.")

    def begin(self) -> None:
        """What a namespace has once; a killed run may have left one."""
        with contextlib.suppress(NotFound):
            self.kube.get(f"/api/v1/namespaces/{NAMESPACE}")
            self.clear()
        self._make("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for item in objects.shared(PLACE):
            self.kube.apply(objects.path(item), item)
        for place in kubernetes_router.objects(SETTINGS, shapes.CLUSTER, "0" * 32):
            if place.body["kind"] != "PodDisruptionBudget":
                self.kube.apply(place.path, place.body)
        self._add_nodes(1)
        self._make(_PODS, shapes.router_pod())
        self._status(shapes.ROUTER_POD, shapes.router_status())

    # ---- filling --------------------------------------------------------------------------------

    def fill(self, services: int, replicas: int) -> float:
        """Seconds that it took."""
        began = time.monotonic()
        standing = len(self.deployments)
        self._add_nodes(math.ceil(services * (replicas + 1) / shapes.PODS_A_NODE) + 10)
        wanted = [f"service-{number:05d}" for number in range(services)]
        self._all(lambda name: self._service(name, replicas), wanted[standing:])
        missing = [name for name in wanted for _ in range(replicas - len(self.pods.get(name, ())))]
        self._all(self.add_pod, missing)
        return time.monotonic() - began

    def _service(self, name: str, replicas: int) -> None:
        """All of a service's objects, each made once: `driver.apply` would ask for each before."""
        spec = shapes.spec(name, replicas)
        revision = spec.versions[0].revision
        data = kubernetes_pod.files_data(
            revision, lambda sha256: f"https://portal.example/{sha256}"
        )
        owner = self._create(objects.service_secret(spec, PLACE))
        self._create(objects.files_secret(revision, data, PLACE))
        for item in objects.of_service(spec, PLACE, owner):
            if item["kind"] == "Deployment":
                item["spec"]["replicas"] = replicas
                self.deployments[name] = self._create(item)
            else:
                self._create(item)
        self.pods.setdefault(name, [])

    def deploy(self, name: str, replicas: int) -> None:
        """As the portal does it."""
        spec = shapes.spec(name, replicas)
        self.driver.apply(spec)
        path = (
            f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{names.deployment(name, 'default')}"
        )
        self.deployments[name] = self.kube.get(path)
        self.pods.setdefault(name, [])

    def add_pod(self, service: str) -> str:
        """A pod that is ready at once; its name."""
        number = next(self._numbers)
        pod = shapes.pod(self.deployments[service], number, self._port, self._nodes)
        name = str(pod["metadata"]["name"])
        self._make(_PODS, pod)
        made = self._status(name, shapes.ready_status(number))
        self.ready_at[name] = time.time()
        self._note("Pod", made)
        self.pods.setdefault(service, []).append(name)
        return name

    def end_pod(self, service: str) -> None:
        """As controllers end one: it is gone a while after it was told to go."""
        name = self.pods[service].pop(0)
        self.kube.delete(f"{_PODS}/{name}")
        self._leaving.append((time.monotonic() + _GONE_AFTER, name))

    def bury(self, *, all_of_them: bool = False) -> None:
        now = time.monotonic()
        due = [item for item in self._leaving if all_of_them or item[0] <= now]
        self._leaving = [item for item in self._leaving if item not in due]
        self._all(lambda name: self.kube.delete(f"{_PODS}/{name}", grace=0), [n for _, n in due])

    def replace_pods(self, services: Sequence[str]) -> None:
        self._all(self.add_pod, services)
        self._all(self.end_pod, services)

    def scale(self, service: str, count: int) -> None:
        self.driver.scale(service, "default", count)
        while len(self.pods[service]) < count:
            self.add_pod(service)
        while len(self.pods[service]) > count:
            self.end_pod(service)

    # ---- small things ---------------------------------------------------------------------------

    def _add_nodes(self, count: int) -> None:
        for number in range(self._nodes, count):
            made = shapes.node(number)
            self._make("/api/v1/nodes", made)
            path = f"/api/v1/nodes/{made['metadata']['name']}/status"
            self.kube.patch(path, {"status": made["status"]})
        self._nodes = max(self._nodes, count)

    def _create(self, item: Object) -> Object:
        path = objects.path(item).rpartition("/")[0]
        made = self._make(path, item)
        self._note(item["kind"], made)
        return {"apiVersion": item["apiVersion"], "kind": item["kind"], **made}

    def _note(self, kind: str, made: Object) -> None:
        self.largest[kind] = max(self.largest.get(kind, 0), len(json.dumps(made)))

    def _make(self, path: str, item: Object) -> Object:
        try:
            return self.kube.create(path, item)
        except Conflict:
            return self.kube.get(f"{path}/{item['metadata']['name']}")

    def _status(self, pod: str, status: Object) -> Object:
        return self.kube.patch(f"{_PODS}/{pod}/status", {"status": status})

    def _all(self, do: Callable[[Any], object], items: Iterable[Any]) -> None:
        for _ in self._pool.map(do, items):
            pass


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])
