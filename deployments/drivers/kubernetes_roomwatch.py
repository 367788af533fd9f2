"""The room of a Kubernetes cluster's nodes, kept up to date by watches of the nodes and of all pods.

Of a pod next to nothing is kept, and what is free is added up anew only when something changed, once a second
at most: among ten thousand pods something changes all the time.
"""

import time
from collections.abc import Callable

from deployments.drivers.kubernetes_room import capacity, slim_node, slim_pod
from deployments.kube.api import Kube
from deployments.kube.watching import Watched
from deployments.types import KubeSettings, NodeCapacity

_ADDED_UP_FOR = 1.0  # seconds


class RoomWatch:
    """One cluster's. `monotonic` is a clock in seconds. Ends with `close`."""

    def __init__(
        self, kube: Kube, settings: KubeSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._nodes = Watched(kube, "/api/v1/nodes", keep=slim_node)
        self._pods = Watched(kube, "/api/v1/pods", keep=slim_pod)
        self._settings = settings
        self._monotonic = monotonic
        self._known: tuple[float, object, object, tuple[NodeCapacity, ...]] | None = None

    def capacity(self) -> tuple[NodeCapacity, ...]:
        """Of the nodes that models may go to. Raises Unavailable and what the API server refused."""
        nodes, pods = self._nodes.objects(), self._pods.objects()
        known, now = self._known, self._monotonic()
        if known is not None and (
            now - known[0] < _ADDED_UP_FOR or (known[1] is nodes and known[2] is pods)
        ):
            return known[3]
        settings = self._settings
        found = capacity(
            nodes.values(),
            pods.values(),
            accelerator=settings.accelerator,
            selector=settings.node_selector,
            tolerations=settings.tolerations,
        )
        self._known = (now, nodes, pods, found)
        return found

    def close(self) -> None:
        self._nodes.close()
        self._pods.close()
