"""The router on Kubernetes as the portal handles it: put there, sized, asked, taken away.

Its objects are `kubernetes_router`'s. How many pods it has is set when it is made and afterwards only through
the scale subresource; everything else is made equal to what it should be each time.
"""

import contextlib
import json
import secrets
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.codec import from_json
from deployments.drivers import kubernetes_caches
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_router as shapes
from deployments.errors import Conflict, NotFound, PermanentError, SlipwayError, Unavailable
from deployments.kube.api import Kube
from deployments.types import KubeSettings, NodeCapacity, Purpose, RouteReport, RouterPods

_ASK_SECONDS = 3.0


def install_router(kube: Kube, settings: KubeSettings, cluster: str) -> None:
    """Make the router, or make it as it should be. Idempotent. Raises SlipwayError."""
    if not settings.router_image:
        raise PermanentError(
            "The cluster has no image for its router. Build one with scripts/router-image and name it in "
            "the cluster's settings.",
            code="RouterImageMissing",
        )
    caches = kubernetes_caches.wanted(kube, settings, cluster)
    for place in [*_own(kube, settings, cluster), *caches]:
        make(kube, place, settings.purpose)
    if not caches:
        kubernetes_caches.remove(kube, settings)
    for place in shapes.cluster_objects(settings.namespace, cluster):
        try:
            kube.apply(place.path, place.body)
        except PermanentError as error:
            if error.code != "KubernetesUnaccessible":
                raise
            return  # what room the nodes have stays unknown to it


def wanted(kube: Kube, settings: KubeSettings, cluster: str) -> list[shapes.Place]:
    """Its objects in the namespace as they should be, in the order to make them, and those of the caches of
    files where these were made. Where the token that its pods know each other by is gone, it is a new one."""
    found = _own(kube, settings, cluster)
    if kubernetes_caches.stand(kube, settings.namespace):
        found += kubernetes_caches.wanted(kube, settings, cluster)
    return found


def _own(kube: Kube, settings: KubeSettings, cluster: str) -> list[shapes.Place]:
    return shapes.objects(
        settings,
        cluster,
        _token(kube, settings.namespace),
        budgets=_budgets(kube),
        api_addresses=_addresses(kube),
    )


def remove_router(kube: Kube, settings: KubeSettings) -> None:
    """Take the router away, its settings included. Not an error when it is gone."""
    kubernetes_caches.remove(kube, settings)
    places = shapes.objects(settings, "", "", budgets=_budgets(kube))
    for place in reversed(places):
        kube.delete(place.path)
    kube.delete(f"/api/v1/namespaces/{settings.namespace}/secrets/{names.ROUTER_SECRET}")
    for place in reversed(shapes.cluster_objects(settings.namespace, "")):
        try:
            kube.delete(place.path)
        except PermanentError:
            return  # then we made none


def router_pods(
    kube: Kube, settings: KubeSettings, nodes: Sequence[NodeCapacity] | None
) -> RouterPods:
    """How many pods it has and may have; `nodes` are the cluster's with their free room, None where that is
    not known. Raises NotFound where there is no router."""
    found = kube.get(_deployment(settings.namespace))
    return shapes.size(found, settings.purpose, nodes)


def resize_router(kube: Kube, settings: KubeSettings, pods: int) -> None:
    """Have so many pods."""
    least, most = shapes.PODS[settings.purpose]
    count = min(max(pods, least), most)
    kube.patch(f"{_deployment(settings.namespace)}/scale", {"spec": {"replicas": count}})


def routes(kube: Kube, namespace: str) -> RouteReport | None:
    """Where replicas stand, by the word of every pod that takes requests; None where there is none.

    Raises Unavailable where one of them does not answer: what it has is not known then.
    """
    reports = []
    for pod in pods(kube, namespace):
        if shapes.pod_ready(pod) and not shapes.leaving(pod):
            reports.append(_report(kube, namespace, pod["metadata"]["name"]))
    return shapes.together(reports)


def pods(kube: Kube, namespace: str) -> list[dict[str, Any]]:
    """The router's pods."""
    folder = f"/api/v1/namespaces/{namespace}/pods"
    return kube.items(folder, labels=names.query(part=names.ROUTER)).items


def leader(kube: Kube, namespace: str) -> str:
    """The name of the pod that leads, "" where none does."""
    try:
        lease = kube.get(
            f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{shapes.NAME}"
        )
    except NotFound:
        return ""
    return str(lease.get("spec", {}).get("holderIdentity") or "")


def _report(kube: Kube, namespace: str, pod: str) -> RouteReport:
    data = kube.proxy(namespace, pod, shapes.ADMIN_PORT, "GET", "/routes", seconds=_ASK_SECONDS)
    try:
        return from_json(RouteReport, json.loads(data))
    except (ValueError, TypeError) as error:
        raise Unavailable(f"What the router's pod {pod} says cannot be read: {error}.") from error


def make(kube: Kube, place: shapes.Place, purpose: Purpose) -> None:
    """Make one of them, or make it as it should be, all but how many pods there are."""
    if place.body["kind"] == "Deployment":
        body = {**place.body, "spec": {**place.body["spec"], "replicas": shapes.PODS[purpose][0]}}
        with contextlib.suppress(Conflict):  # it is there: all but its count is set below
            kube.create(place.folder, body)
    kube.apply(place.path, place.body)


def _deployment(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments/{shapes.NAME}"


def _token(kube: Kube, namespace: str) -> str:
    """What the pods know each other by: the one that is there, else a new one."""
    path = f"/api/v1/namespaces/{namespace}/secrets/{shapes.PEERS_SECRET}"
    try:
        kept: Mapping[str, str] = kube.get(path).get("data") or {}
        if found := b64decode(kept.get(shapes.PEERS_KEY, "")).decode("ascii"):
            return found
    except NotFound:
        pass
    return secrets.token_hex(24)


def _budgets(kube: Kube) -> str | None:
    for version in ("policy/v1", "policy/v1beta1"):
        if kube.has(version, "poddisruptionbudgets"):
            return version
    return None


def _addresses(kube: Kube) -> list[str]:
    """Whence the API server's proxy may come: its own addresses, and its nodes'; as far as we may look."""
    found: list[str] = []
    try:
        subsets = kube.get("/api/v1/namespaces/default/endpoints/kubernetes").get("subsets") or ()
        found += [item["ip"] for subset in subsets for item in subset.get("addresses") or ()]
    except SlipwayError:
        pass
    try:
        for node in kube.items("/api/v1/nodes", newest=False).items:
            for item in node.get("status", {}).get("addresses") or ():
                if item["type"] == "InternalIP":
                    found.append(item["address"])
    except SlipwayError:
        pass
    return found
