"""A cluster as a page shows it: room by node, checks with their evidence. Decides from stored JSON only."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deployments.clusters.models import Cluster, Family
from deployments.codec import from_json
from deployments.types import Capacity, Check, CheckStatus, NodeCapacity
from portal.replicas import is_stale


@dataclass(frozen=True, slots=True)
class Bar:
    """How much of something is taken on a node. `percent` is 0 to 100."""

    label: str
    used: float
    total: float
    unit: str

    @property
    def percent(self) -> int:
        return round(100 * min(1.0, self.used / self.total)) if self.total > 0 else 0

    @property
    def tone(self) -> str:
        if self.percent >= 95:
            return "bad"
        return "warn" if self.percent >= 80 else ""


@dataclass(frozen=True, slots=True)
class NodeView:
    name: str
    bars: tuple[Bar, ...]


def _bars(node: NodeCapacity, accelerator: str) -> tuple[Bar, ...]:
    bars = [
        Bar("CPU", max(0.0, node.cpu_total - node.cpu_free), node.cpu_total, "cores"),
        Bar(
            "Memory",
            max(0.0, node.memory_gb_total - node.memory_gb_free),
            node.memory_gb_total,
            "GiB",
        ),
    ]
    if node.gpu_total:
        used = float(max(0, node.gpu_total - node.gpu_free))
        bars.append(Bar(accelerator, used, float(node.gpu_total), ""))
    return tuple(bars)


def capacity_of(cluster: Cluster) -> Capacity | None:
    """The stored capacity; None is unknown, also when another version of the product wrote it."""
    if cluster.capacity is None:
        return None
    try:
        return from_json(Capacity, cluster.capacity)
    except (ValueError, TypeError, KeyError):
        return None


def nodes_of(cluster: Cluster) -> list[NodeView] | None:
    """Every node with its bars; None while the capacity is unknown."""
    capacity = capacity_of(cluster)
    if capacity is None:
        return None
    accelerator = "FPGA" if cluster.sku.family == Family.FPGA else "GPU"
    return [NodeView(node.name, _bars(node, accelerator)) for node in capacity.nodes]


def checks_of(cluster: Cluster) -> list[Check]:
    """The stored results in the order they were made."""
    found = []
    for item in cluster.checks:
        try:
            found.append(from_json(Check, item))
        except (ValueError, TypeError, KeyError):
            continue
    return found


def health(cluster: Cluster) -> str:
    """One word over all checks: fail if one fails, pass if those that could be made pass, else unknown."""
    states = {check.status for check in checks_of(cluster)}
    if CheckStatus.FAIL in states:
        return "fail"
    return "pass" if CheckStatus.PASS in states else "unknown"


def tally(cluster: Cluster) -> str:
    """How the checks went, in words: "4 of 5 pass, 1 unknown"."""
    counted = Counter(check.status for check in checks_of(cluster))
    words = [f"{counted[CheckStatus.PASS]} of {counted.total()} pass"]
    words += [f"{counted[CheckStatus.FAIL]} fail"] if counted[CheckStatus.FAIL] else []
    words += [f"{counted[CheckStatus.UNKNOWN]} unknown"] if counted[CheckStatus.UNKNOWN] else []
    return ", ".join(words)


def cluster_state(cluster: Cluster, now: datetime) -> str:
    """Whether the controller reads it: connected, stale or not seen yet; detaching while it is given up."""
    if cluster.state == Cluster.State.DETACHING:
        return "detaching"
    if cluster.observed_at is None:
        return "not seen yet"
    return "stale" if is_stale(cluster.observed_at, now) else "connected"


def totals(cluster: Cluster) -> dict[str, Any] | None:
    """Nodes, cores, memory and GPUs altogether; None while unknown."""
    capacity = capacity_of(cluster)
    if capacity is None:
        return None
    nodes = capacity.nodes
    return {
        "nodes": len(nodes),
        "cpu": sum(node.cpu_total for node in nodes),
        "memory_gb": sum(node.memory_gb_total for node in nodes),
        "gpu": sum(node.gpu_total for node in nodes),
    }
