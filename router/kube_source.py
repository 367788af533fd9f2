"""What a pod of the router sees of the others: a watch of the router's pods, and its Lease."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_router as shapes
from deployments.kube.api import Kube
from deployments.kube.watching import Watched
from router.peers import TAKE_SECONDS, Lease, Member

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # as the API has it


class KubeSource:
    """`router.peering.Source` of one namespace. Closed with `close`."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{shapes.NAME}"
        self._pods = Watched(
            kube,
            f"/api/v1/namespaces/{namespace}/pods",
            labels=names.query(part=names.ROUTER),
        )
        self._shown: Mapping[str, Any] | None = None
        self._members: tuple[Member, ...] = ()

    def members(self) -> Sequence[Member]:
        """The pods as seen last. Raises Unavailable when they were not seen for a while."""
        shown = self._pods.objects(wait=0.0)
        if shown is not self._shown:
            self._shown, self._members = shown, tuple(map(member, shown.values()))
        return self._members

    def lease(self) -> Lease:
        """As it stands now. Raises SlipwayError."""
        return _lease(self._kube.get(self._lease))

    def take(self, lease: Lease, holder: str) -> Lease:
        """Write the holder where nothing changed since. Raises Conflict, Unavailable."""
        spec = {
            "holderIdentity": holder or None,
            "leaseDurationSeconds": int(TAKE_SECONDS),
            "renewTime": datetime.fromtimestamp(time.time(), UTC).strftime(_TIME),
        }
        body = {"metadata": {"resourceVersion": lease.turn}, "spec": spec}
        return _lease(self._kube.patch(self._lease, body))

    def close(self) -> None:
        self._pods.close()


def member(pod: Mapping[str, Any]) -> Member:
    """A pod as the others go by it."""
    return Member(
        pod["metadata"]["name"],
        pod.get("status", {}).get("podIP") or "",
        shapes.pod_ready(pod),
        shapes.leaving(pod),
    )


def _lease(found: Mapping[str, Any]) -> Lease:
    spec = found.get("spec") or {}
    return Lease(spec.get("holderIdentity") or "", found["metadata"]["resourceVersion"])
