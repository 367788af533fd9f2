"""A cluster as a page shows it: room by node, checks with their evidence. Decides from stored JSON only."""

from dataclasses import dataclass
from typing import Any

from deployments.clusters.models import Cluster
from deployments.codec import from_json
from deployments.types import Capacity, Check, NodeCapacity


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


def _bars(node: NodeCapacity) -> tuple[Bar, ...]:
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
        bars.append(Bar("GPU", used, float(node.gpu_total), ""))
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
    return [NodeView(node.name, _bars(node)) for node in capacity.nodes]


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
    """One word over all checks: pass, fail or unknown."""
    states = {item.get("status") for item in cluster.checks if isinstance(item, dict)}
    if not states:
        return "unknown"
    if "fail" in states:
        return "fail"
    return "unknown" if "unknown" in states else "pass"


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
