"""What of a deployment configuration does not fit a cluster, said before it is submitted.

PURE. An unknown capacity (None) refuses nothing: nobody looked yet, and unknown is not zero.
"""

from deployments.errors import InvalidInput
from deployments.services.config import DeploymentConfig
from deployments.types import Capacity, NodeCapacity, Purpose

_LEAST_NODES = 3
_LEAST_CPU = 12


def misfits(
    config: DeploymentConfig, capacity: Capacity | None, purpose: str, sku: str
) -> list[InvalidInput]:
    """Why no replica, or no router, could ever run there; each with its field. Empty is good.

    `sku` is the name of the cluster's machine size, for the message.
    """
    found = purpose_problems(capacity, purpose)
    if capacity is None:
        return found
    nodes = capacity.nodes
    if not nodes:
        found.append(InvalidInput("The cluster has no node that runs.", field="cluster"))
        return found
    if config.gpu_cores > 0:
        most = max(node.gpu_total for node in nodes)
        if most == 0:
            found.append(
                InvalidInput(
                    f"{_gpus(config.gpu_cores)} asked for, and no node of this cluster ({sku}) has "
                    "one. Choose a cluster with a GPU size, or set gpu_cores to 0.",
                    field="gpu_cores",
                )
            )
        elif config.gpu_cores > most:
            found.append(
                InvalidInput(
                    f"{_gpus(config.gpu_cores)} asked for by one replica; the largest node has "
                    f"{most}.",
                    field="gpu_cores",
                )
            )
    cpu = max(node.cpu_total for node in nodes)
    if config.cpu_cores > cpu:
        found.append(
            InvalidInput(
                f"One replica asks for {config.cpu_cores:g} cores; the largest node has {cpu:g}.",
                field="cpu_cores",
            )
        )
    memory = max(node.memory_gb_total for node in nodes)
    if config.memory_gb > memory:
        found.append(
            InvalidInput(
                f"One replica asks for {config.memory_gb:g} GiB of memory; the largest node has "
                f"{memory:.1f} GiB.",
                field="memory_gb",
            )
        )
    return found


def warnings(config: DeploymentConfig, capacity: Capacity | None) -> list[InvalidInput]:
    """What may run later but not now: said, never refused, for room comes and goes."""
    if capacity is None or not capacity.nodes:
        return []
    room = sum(_replicas_on(config, node) for node in capacity.nodes)
    wanted = config.min_replicas
    if wanted <= room:
        return []
    field = "autoscale_min_replicas" if config.autoscales else "num_replicas"
    return [
        InvalidInput(
            f"{wanted} replicas are asked for; the cluster has room for about {room} more of this "
            "size at the moment.",
            field=field,
        )
    ]


def purpose_problems(capacity: Capacity | None, purpose: str) -> list[InvalidInput]:
    """Azure's node rule for production purposes, in Azure's words."""
    if purpose == Purpose.DEV_TEST.value or capacity is None:
        return []
    found = []
    if len(capacity.nodes) < _LEAST_NODES:
        found.append(
            InvalidInput(
                f"At least {_LEAST_NODES} machine(s) are required for cluster with purpose "
                f"'{purpose}'. Available machine(s) : {len(capacity.nodes)}",
                field="cluster",
            )
        )
    if sum(node.cpu_total for node in capacity.nodes) < _LEAST_CPU:
        found.append(
            InvalidInput(
                f"Cluster should have at least {_LEAST_CPU} cores to operate.", field="cluster"
            )
        )
    return found


def _gpus(count: int) -> str:
    return "1 GPU is" if count == 1 else f"{count} GPUs are"


def _replicas_on(config: DeploymentConfig, node: NodeCapacity) -> int:
    room = min(node.cpu_free / config.cpu_cores, node.memory_gb_free / config.memory_gb)
    if config.gpu_cores:
        room = min(room, node.gpu_free / config.gpu_cores)
    # 0.3 free / 0.1 asked is 2.9999999999999996 in floats, and is room for three
    return max(0, int(room + 1e-9))
