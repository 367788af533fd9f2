"""What attaching a real cluster needs of this machine: a portal that pods reach, and its rows."""

import http.server
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from deployments.clusters import attaching, changes, detaching, kubes
from deployments.clusters.models import Attachment, Cluster, Detachment, Sku
from deployments.kube.api import Kube
from deployments.types import KubeSpec


def node_address(kube: Kube) -> str:
    (first, *_) = kube.items("/api/v1/nodes").items
    return next(
        item["address"] for item in first["status"]["addresses"] if item["type"] == "InternalIP"
    )


class _Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def portal(kube: Kube) -> Iterator[str]:
    """As much of one as the check of the model store asks; its address as pods reach it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((node_address(kube), 9))
        host = asking.getsockname()[0]
    server = http.server.ThreadingHTTPServer((host, 0), _Healthy)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def everything(kube: Kube) -> dict[str, set[str]]:
    """What `kubectl get all,secrets,roles -A` lists, and what else of ours could be left, without what tests
    of others have in namespaces of their own."""
    found: dict[str, set[str]] = {}
    for path in (
        "/api/v1/namespaces", "/api/v1/pods", "/api/v1/services", "/api/v1/secrets", "/api/v1/configmaps",
        "/api/v1/serviceaccounts", "/apis/apps/v1/deployments", "/apis/apps/v1/replicasets",
        "/apis/apps/v1/statefulsets", "/apis/apps/v1/daemonsets", "/apis/batch/v1/jobs",
        "/apis/rbac.authorization.k8s.io/v1/roles", "/apis/rbac.authorization.k8s.io/v1/rolebindings",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "/apis/networking.k8s.io/v1/networkpolicies", "/apis/coordination.k8s.io/v1/leases",
    ):  # fmt: skip
        for item in kube.items(path).items:
            about = item["metadata"]
            space = about.get("namespace", about["name"] if path.endswith("/namespaces") else "")
            if not space.startswith("t-") and "-t-" not in about["name"]:
                found.setdefault(path, set()).add(f"{space}/{about['name']}")
    return found


def naming(kube: Kube, space: str) -> list[str]:
    """What of the whole cluster has a namespace's name in its own."""
    return [
        f"{kind}/{item['metadata']['name']}"
        for kind in ("clusterroles", "clusterrolebindings")
        for item in kube.items(f"/apis/rbac.authorization.k8s.io/v1/{kind}").items
        if space in item["metadata"]["name"]
    ]


def of_namespace(kube: Kube, namespace: str) -> list[str]:
    """All that is in one namespace, by kind and name."""
    said = subprocess.run(
        [
            "kubectl", "get", "all,secrets,roles,rolebindings,configmaps,serviceaccounts,networkpolicies,"
            "leases,poddisruptionbudgets", "-n", namespace, "-o", "json",
        ],
        check=True, capture_output=True, timeout=60, env=dict(os.environ),
    )  # fmt: skip
    return sorted(
        f"{item['kind']}/{item['metadata']['name']}" for item in json.loads(said.stdout)["items"]
    )


def attach(
    spec: KubeSpec, namespace: str, *, name: str = "real", settled: float = 240.0, **more: Any
) -> Attachment:
    """Through the product's own functions; what becomes of the try."""
    use = kubes.Use(namespace, router_image=more.pop("image", ""), blob_url=more.pop("portal", ""))
    made = {
        "name": name,
        "sku": Sku.objects.get(name=more.pop("sku", "this machine")),
        "purpose": "DevTest",
        "description": "",
        "router_url": "http://models.example",
    }
    row = changes.attach_kubernetes(None, **{**made, **more}, spec=spec, use=use, asked={})
    until = time.monotonic() + settled
    while row.state == Attachment.State.RUNNING:
        assert time.monotonic() < until, row.doing
        time.sleep(0.2)
        row.refresh_from_db()
    return row


def detach(cluster: Cluster) -> Detachment:
    """Through the product's own functions, by a worker that is this process."""
    with mock.patch.object(detaching, "enqueue_detachment"):
        row = changes.detach(None, cluster)
    assert row is not None
    detaching.run(row.pk)
    row.refresh_from_db()
    return row


def run_here(monkeypatch: Any) -> None:
    """At once, instead of in a thread that a test's transaction would hide its row from."""
    monkeypatch.setattr(attaching, "apart", lambda name, do, *rest: do(*rest))


def row(name: str = "real") -> Cluster:
    return Cluster.objects.select_related("sku").get(name=name)
