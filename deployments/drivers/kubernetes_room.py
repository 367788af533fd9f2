"""How much room the nodes of a Kubernetes cluster have: allocatable, less what their pods ask for.

PURE. Of nodes and pods only what this needs is kept (`slim_node`, `slim_pod`): there may be very many.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deployments.drivers.kubernetes_objects import quantity
from deployments.types import NodeCapacity, Toleration

Object = dict[str, Any]

GIB = 1024.0**3
_NO_SELECTOR: Mapping[str, str] = {}


def slim_pod(found: Object) -> Object | None:
    """What is kept of any pod of the cluster to know its node's room; None of one that needs none."""
    spec, status = found.get("spec", {}), found.get("status", {})
    node = spec.get("nodeName")
    if not node or status.get("phase") in ("Succeeded", "Failed"):
        return None
    asked: dict[str, float] = {}
    for container in spec.get("containers", ()):
        for name, amount in requests(container).items():
            asked[name] = asked.get(name, 0.0) + amount
    for container in spec.get("initContainers", ()):
        for name, amount in requests(container).items():
            asked[name] = max(asked.get(name, 0.0), amount)
    return {"node": node, "asked": asked}


def slim_node(found: Object) -> Object:
    """What is kept of a node."""
    spec, status = found.get("spec", {}), found.get("status", {})
    return {
        "name": found["metadata"]["name"],
        "labels": found["metadata"].get("labels") or {},
        "taints": spec.get("taints") or [],
        "room": {name: quantity(text) for name, text in (status.get("allocatable") or {}).items()},
        "open": not spec.get("unschedulable")
        and any(
            item.get("type") == "Ready" and item.get("status") == "True"
            for item in status.get("conditions") or ()
        ),
    }


def capacity(
    nodes: Iterable[Object],
    pods: Iterable[Object],
    *,
    accelerator: str,
    selector: Mapping[str, str] = _NO_SELECTOR,
    tolerations: Sequence[Toleration] = (),
) -> tuple[NodeCapacity, ...]:
    """Of the nodes that models may go to. `nodes` and `pods` are slim ones. On a node that takes no new
    pods nothing is free."""
    taken: dict[str, dict[str, float]] = {}
    counts: dict[str, int] = {}
    for pod in pods:
        mine = taken.setdefault(pod["node"], {})
        counts[pod["node"]] = counts.get(pod["node"], 0) + 1
        for name, amount in pod["asked"].items():
            mine[name] = mine.get(name, 0.0) + amount
    found = []
    for node in sorted(nodes, key=lambda item: str(item["name"])):
        if any(node["labels"].get(name) != value for name, value in selector.items()):
            continue
        room, mine = node["room"], taken.get(node["name"], {})
        full = counts.get(node["name"], 0) >= room.get("pods", float("inf"))
        open_ = node["open"] and not full and not _kept_out(node["taints"], tolerations)

        def free(name: str, room: Mapping[str, float] = room, mine: Mapping[str, float] = mine,
                 open_: bool = open_) -> float:  # fmt: skip
            return max(0.0, room.get(name, 0.0) - mine.get(name, 0.0)) if open_ else 0.0

        found.append(
            NodeCapacity(
                name=node["name"],
                cpu_total=room.get("cpu", 0.0),
                cpu_free=round(free("cpu"), 3),
                memory_gb_total=room.get("memory", 0.0) / GIB,
                memory_gb_free=free("memory") / GIB,
                gpu_total=int(room.get(accelerator, 0)),
                gpu_free=int(free(accelerator)),
            )
        )
    return tuple(found)


def _kept_out(taints: Iterable[Object], tolerations: Sequence[Toleration]) -> bool:
    return any(
        taint.get("effect") in ("NoSchedule", "NoExecute")
        and not any(
            item.key == taint.get("key")
            and item.effect in ("", taint.get("effect"))
            and (not item.value or item.value == taint.get("value", ""))
            for item in tolerations
        )
        for taint in taints
    )


def requests(container: Object) -> dict[str, float]:
    """What a container asks for, in cores and bytes."""
    given = container.get("resources", {})
    asked = {**(given.get("limits") or {}), **(given.get("requests") or {})}
    return {name: quantity(text) for name, text in asked.items()}
